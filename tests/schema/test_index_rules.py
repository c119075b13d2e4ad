from __future__ import annotations

from typing import Any

import pytest

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.schema.index_rules import (
    IndexDefinition,
    SearchIndexDefinition,
    VectorIndexDefinition,
    check_indexes,
)
from reactive_store.schema.validators import v

FIELDS = v.object(
    {
        "a": v.string(),
        "b": v.string(),
        "e": v.array(v.number()),
        "o": v.object({"x": v.string()}),
        "r": v.record(v.string(), v.number()),
        "u": v.union(v.object({"p": v.string()}), v.null(), v.array(v.any())),
        "y": v.optional(v.any()),
        **{f"f{i}": v.string() for i in range(20)},
    }
)


def index(name: str = "by_x", *fields: str, staged: bool = False) -> IndexDefinition:
    return IndexDefinition(name, fields, staged)


def many(count: int) -> list[str]:
    return [f"f{i}" for i in range(count)]


def refusal(*definitions: Any, document: Any = FIELDS) -> str:
    with pytest.raises(BadRequest) as caught:
        check_indexes("t", definitions, document, Limits())
    return caught.value.code


@pytest.mark.parametrize(
    ("definitions", "code"),
    [
        ([index("by-a", "a")], "InvalidIndexName"),
        ([index("i" * 65, "a")], "InvalidIndexName"),
        ([index("by_id", "a")], "IndexNameReserved"),
        ([index("_x", "a")], "IndexNameReserved"),
        ([SearchIndexDefinition("by_id", "a")], "IndexNameReserved"),
        ([index("by_x", "a"), index("by_x", "b")], "IndexNamesNotUnique"),
        ([index("by_x", "a"), VectorIndexDefinition("by_x", "e", 2)], "IndexNamesNotUnique"),
        ([index()], "EmptyIndex"),
        ([index("by_x", *many(16))], "IndexTooManyFields"),
        ([index("by_x", *many(17))], "IndexTooManyFields"),
        ([index("by_x", "a", "b", "a")], "FieldsNotUniqueWithinIndex"),
        ([index("by_x", "_id")], "IndexFieldsContainId"),
        ([index("by_x", "_creationTime")], "IndexFieldsContainCreationTime"),
        ([index("by_x", "o._x")], "IndexFieldNameReserved"),
        ([index("by_x", "")], "InvalidIndexField"),
        ([index("by_x", "o..x")], "InvalidIndexField"),
        ([SearchIndexDefinition("s", "a b")], "InvalidIndexField"),
        ([SearchIndexDefinition("s", "a", ("a b",))], "InvalidIndexField"),
        ([VectorIndexDefinition("n", "e f", 2)], "InvalidIndexField"),
        ([index("by_1", "a", "b"), index("by_2", "a", "b", staged=True)], "IndexNotUnique"),
        (
            [
                SearchIndexDefinition("s", "a", ("b", "o")),
                SearchIndexDefinition("t", "a", ("o", "b")),
            ],
            "SearchIndexFieldNotUnique",
        ),
        (
            [VectorIndexDefinition("n", "e", 2), VectorIndexDefinition("m", "e", 2, ("a",))],
            "VectorIndexFieldNotUnique",
        ),
        ([SearchIndexDefinition("s", "a", tuple(many(17)))], "IndexTooManyFilterFields"),
        ([VectorIndexDefinition("n", "e", 2, tuple(many(17)))], "IndexTooManyFilterFields"),
        ([VectorIndexDefinition("n", "e", 1)], "InvalidVectorDimensionError"),
        ([VectorIndexDefinition("n", "e", 4097)], "InvalidVectorDimensionError"),
        ([index("by_x", "nope")], "SchemaDefinitionError"),
        ([index("by_x", "r.key")], "SchemaDefinitionError"),
        ([index("by_x", "e.x")], "SchemaDefinitionError"),
        ([SearchIndexDefinition("s", "a", ("nope",))], "SchemaDefinitionError"),
        ([VectorIndexDefinition("n", "a", 2)], "SchemaDefinitionError"),
        ([VectorIndexDefinition("n", "nope", 2)], "SchemaDefinitionError"),
    ],
)
def test_each_rule_has_its_code(definitions: list[Any], code: str) -> None:
    """V102, V103, V104, V105, V106, V107."""
    assert refusal(*definitions) == code


@pytest.mark.parametrize(
    "definitions",
    [
        [index("by_x", *many(15))],
        [index("i" * 64, "a")],
        [index("by_x", "a"), index("by_y", "a", "b"), index("by_z", "b", "a")],
        [index("by_x", "o"), index("by_y", "o.x"), index("by_z", "u.p"), index("by_w", "y.q.r")],
        [SearchIndexDefinition("s", "e", ("_creationTime", "b", "b"))],
        [SearchIndexDefinition("s", "a"), SearchIndexDefinition("t", "a", ("b",))],
        [VectorIndexDefinition("n", "e", 2), VectorIndexDefinition("m", "e", 4096, ("nope",))],
        [VectorIndexDefinition("n", "y", 2), VectorIndexDefinition("m", "u", 2)],
    ],
)
def test_sound_indexes_pass(definitions: list[Any]) -> None:
    """V103, V105, V107."""
    check_indexes("t", definitions, FIELDS, Limits())


def test_fields_need_not_exist_when_documents_are_not_validated() -> None:
    """V107."""
    check_indexes("t", [index("by_x", "nope")], None, Limits())


def test_a_table_has_at_most_64_indexes() -> None:
    """V103."""
    definitions = [index(f"by_{i}", "y", f"y.p{i}") for i in range(65)]
    check_indexes("t", definitions[:64], FIELDS, Limits())
    assert refusal(*definitions) == "TooManyIndexes"
