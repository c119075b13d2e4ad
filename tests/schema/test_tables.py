from __future__ import annotations

from typing import Any

import pytest

from reactive_store.errors import BadRequest
from reactive_store.schema.tables import (
    IndexDefinition,
    SearchIndexDefinition,
    VectorIndexDefinition,
    define_schema,
    define_table,
    doc_validator,
)
from reactive_store.schema.validators import v
from reactive_store.values.ids import encode_id
from reactive_store.values.value import UNSET

USER = encode_id(10001, bytes(16))


class Tables:
    def table_name(self, number: int) -> str | None:
        return "users" if number == 10001 else None


def test_a_table_collects_its_indexes() -> None:
    table = (
        define_table({"a": v.string(), "e": v.array(v.number())})
        .index("by_a", [".a."], staged=True)
        .search_index("s", search_field="a", filter_fields=["e"])
        .vector_index("n", vector_field="e", dimensions=3)
    )
    assert table.document == v.object({"a": v.string(), "e": v.array(v.number())})
    assert table.indexes == {"by_a": IndexDefinition("by_a", ("a",), True)}
    assert table.search_indexes == {"s": SearchIndexDefinition("s", "a", ("e",))}
    assert table.vector_indexes == {"n": VectorIndexDefinition("n", "e", 3)}


def test_each_step_returns_a_new_table() -> None:
    table = define_table({"a": v.string()})
    indexed = table.index("by_a", ["a"])
    assert table.indexes == {}
    assert indexed != table
    assert indexed == define_table({"a": v.string()}).index("by_a", ["a"])
    assert hash(indexed) == hash(define_table({"a": v.string()}).index("by_a", ["a"]))
    with pytest.raises(AttributeError):
        table.document = v.any()  # type: ignore[misc]


def test_a_schema_is_a_value() -> None:
    tables = {"users": define_table({"a": v.string()})}
    schema = define_schema(tables, schema_validation=False, strict_table_names=False)
    tables["more"] = define_table({})
    assert list(schema.tables) == ["users"]
    assert not schema.schema_validation
    assert not schema.strict_table_names
    with pytest.raises(TypeError):
        schema.tables["more"] = define_table({})  # type: ignore[index]


def test_documents_are_checked_without_their_system_fields() -> None:
    """V82."""
    table = define_table({"a": v.string(), "_id": v.number(), "_x": v.string()})
    assert table.enforced == v.object({"a": v.string()})
    for document in (
        {"a": "x"},
        {"_creationTime": 1.5, "_id": USER, "a": "x"},
        {"_other": 1, "a": "x"},
    ):
        table.check(document, Tables())  # type: ignore[arg-type]
    with pytest.raises(BadRequest) as caught:
        table.check({"_creationTime": 1, "_id": USER, "a": 1}, Tables())
    assert caught.value.message == (
        "Value does not match validator.\nPath: .a\nValue: 1.0\nValidator: v.string()"
    )
    with pytest.raises(BadRequest) as caught:
        table.check({"_creationTime": 1, "_id": USER}, Tables())
    assert caught.value.message.endswith("\n\nObject: {}\nValidator: v.object({a: v.string()})")


def test_documents_of_unions_and_any_are_checked() -> None:
    table = define_table(v.union(v.object({"a": v.string()}), v.object({"b": v.null()})))
    table.check({"_id": USER, "a": "x"}, Tables())
    table.check({"_id": USER, "b": None}, Tables())
    with pytest.raises(BadRequest, match=r"Value: \{\}"):
        table.check({"_id": USER}, Tables())
    define_table(v.any()).check({"_id": USER, "x": [1]}, Tables())


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "InvalidTableName"),
        ("a b", "InvalidTableName"),
        ("1a", "InvalidTableName"),
        ("a" * 65, "InvalidTableName"),
        ("_", "InvalidTableName"),
        ("_1", "InvalidTableName"),
        ("_a", "TableNameReserved"),
    ],
)
def test_table_names_have_rules(name: str, code: str) -> None:
    """V30."""
    with pytest.raises(BadRequest) as caught:
        define_schema({name: define_table({})})
    assert caught.value.code == code


@pytest.mark.parametrize(
    "document", [v.string(), v.record(v.string(), v.any()), v.nullable(v.object({}))]
)
def test_documents_are_objects(document: Any) -> None:
    """V81."""
    for table in (define_table(document), define_table({}).staged(document)):
        with pytest.raises(BadRequest) as caught:
            define_schema({"t": table})
        assert caught.value.code == "InvalidTopLevelTypeInSchemaError"
    with pytest.raises(BadRequest, match="a table's documents must be objects"):
        doc_validator("t", define_table(document))


def test_a_table_must_be_defined_as_one() -> None:
    with pytest.raises(BadRequest, match=r"define_table\(\.\.\.\)"):
        define_schema({"t": {"a": v.string()}})  # type: ignore[dict-item]


def test_there_may_be_ten_thousand_tables() -> None:
    """V108."""
    table = define_table({})
    tables = {f"t{i}": table for i in range(10_000)}
    assert len(define_schema(tables).tables) == 10_000
    with pytest.raises(BadRequest, match="Number of tables cannot exceed 10000"):
        define_schema({**tables, "one_more": table})


def test_a_staged_document_is_a_proposal() -> None:
    """V83."""
    table = define_table({"a": v.string(), "b": v.string()})
    staged = table.staged({"a": UNSET, "b": v.number(), "c": v.null()})
    assert staged.document == table.document
    assert staged.staged_document == v.object({"b": v.number(), "c": v.null()})
    assert table.staged(v.any()).staged_document == v.any()
    assert define_table(v.any()).staged({"a": v.null()}).staged_document == v.object(
        {"a": v.null()}
    )
    with pytest.raises(BadRequest, match="more than one staged"):
        staged.staged({})
    with pytest.raises(BadRequest, match="only supported for simple table definitions"):
        define_table(v.union(v.object({}))).staged({})


def test_whole_documents_have_system_fields() -> None:
    """V84."""
    schema = define_schema({"users": define_table({"a": v.string()}), "any": define_table(v.any())})
    assert schema.doc("users") == v.object(
        {"a": v.string(), "_id": v.id("users"), "_creationTime": v.number()}
    )
    assert schema.doc("any") == v.any()
    assert schema.id("users") == v.id("users")
    for ask in (schema.doc, schema.id):
        with pytest.raises(BadRequest, match="Tables in this schema: users, any"):
            ask("nope")
