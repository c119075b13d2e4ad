from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.schema.validators import LiteralValidator, Validator, v
from reactive_store.values.ids import encode_id
from reactive_store.values.value import UNSET, Id, Int64, normalize
from tests.values.strategies import scalars, values

USERS, FILES = 10001, 540


class Tables:
    def table_name(self, number: int) -> str | None:
        return {USERS: "users", FILES: "_storage"}.get(number)


TABLES = Tables()
USER = encode_id(USERS, bytes(16))
FILE = encode_id(FILES, bytes(16))
NOBODY = encode_id(10_999, bytes(16))


def can_be_literal(value: Any) -> bool:
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and value - value == 0)


names = st.sampled_from(["a", "b", "c", "d_e"])
leaves = st.one_of(
    st.sampled_from([v.string(), v.number(), v.boolean(), v.int64(), v.bytes(), v.null(), v.any()]),
    st.sampled_from([v.commit_ts(), v.id("users"), v.id("_storage"), v.literals("x", "y")]),
    scalars.filter(can_be_literal).map(v.literal),
)


def bigger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    field = inner | inner.map(v.optional)
    return st.one_of(
        st.lists(inner, max_size=3).map(lambda members: v.union(*members)),
        inner.map(v.array),
        inner.map(v.nullable),
        inner.map(lambda value: v.record(v.string(), value)),
        inner.map(lambda value: v.record(v.id("users"), value)),
        st.dictionaries(names, field, max_size=3).map(v.object),
    )


validators = st.recursive(leaves, bigger, max_leaves=8)


def example(validator: Any, chance: random.Random) -> Any:
    """A value that matches, or almost: the interesting neighbourhood of a validator."""
    if chance.random() < 0.1:
        return chance.choice([None, 1, 1.5, Int64(1), "x", b"", [], {}, True, -0.0, USER, NOBODY])
    match validator.kind:
        case "union" if validator.members:
            return example(chance.choice(validator.members), chance)
        case "array":
            return [example(validator.element, chance) for _ in range(chance.randrange(3))]
        case "record":
            return {
                key: example(validator.value, chance)
                for key in chance.sample(["a", USER, NOBODY], chance.randrange(3))
            }
        case "object":
            fields = {
                name: example(field, chance)
                for name, field in validator.fields.items()
                if not (field.is_optional and chance.random() < 0.5)
            }
            return fields if chance.random() < 0.9 else {**fields, "extra": 1}
        case "literal":
            return validator.value
        case "id":
            return Id(USER, "users") if validator.table == "users" else FILE
    return {"string": "x", "float64": 2.5, "int64": Int64(2), "boolean": True, "bytes": b"x"}.get(
        validator.kind
    )


def agree(validator: Any, value: Any) -> bool:
    """Whether it matches, after asserting that both ways to find out say the same."""
    normal = normalize(value)
    fast = validator.matches(normal, TABLES)
    offence = validator.explain(normal, "", TABLES)
    assert fast == (offence is None), (validator, normal, offence)
    if fast:
        validator.check(normal, TABLES)
    else:
        with pytest.raises(BadRequest) as caught:
            validator.check(normal, TABLES)
        assert caught.value.message == offence.message
    return bool(fast)


@given(validators, values)
def test_generated_code_and_walk_agree_on_any_value(validator: Any, value: Any) -> None:
    agree(validator, value)


@given(validators, st.randoms(use_true_random=False))
def test_generated_code_and_walk_agree_near_the_validator(
    validator: Any, chance: random.Random
) -> None:
    for _ in range(5):
        agree(validator, example(validator, chance))


@given(validators)
def test_a_validator_survives_its_export(validator: Any) -> None:
    again = Validator.from_json(validator.to_json())
    assert again == validator
    assert hash(again) == hash(validator)
    assert repr(again) == repr(validator)
    assert again.to_json() == validator.to_json()


@given(validators, validators)
def test_validators_are_equal_when_they_print_alike(a: Any, b: Any) -> None:
    # Literals of bigints all print alike; everything else is told apart by the text.
    if "<bigint>" not in repr(a):
        assert (a == b) == (repr(a) == repr(b))


@pytest.mark.parametrize(
    ("validator", "accepted", "refused"),
    [
        (v.null(), [None], [False, 0, "", {}]),
        (v.number(), [1, 1.5, -0.0, float("nan"), float("inf")], [Int64(1), True, "1", None]),
        (v.float64(), [1], [Int64(1)]),
        (v.int64(), [Int64(1)], [1, 1.0, True]),
        (v.bigint(), [Int64(1)], [1]),
        (v.commit_ts(), [Int64(1)], [1]),
        (v.boolean(), [True, False], [0, 1, None]),
        (v.string(), ["", "x", Id(USER, "users")], [b"", 1, None]),
        (v.bytes(), [b""], ["", None]),
        (v.any(), [None, 1, [], {"a": 1}], []),
        (v.id("users"), [USER, Id(USER, "users")], [FILE, NOBODY, "", "hello", 1, None]),
        (v.id("_storage"), [FILE], [USER, NOBODY]),
        (v.literal("a"), ["a", Id("a", "t")], ["b", 1, None]),
        (v.literal(1), [1, 1.0], [Int64(1), True, "1"]),
        (v.literal(1.5), [1.5], [2]),
        (v.literal(0), [0, 0.0], [-0.0, False]),
        (v.literal(-0.0), [-0.0], [0]),
        (v.literal(2.0**60), [2.0**60], [Int64(2**60), 2.0**61]),
        (v.literal(True), [True], [1, False]),
        (v.literal(Int64(1)), [Int64(1)], [1, True]),
        (v.literals("a", 1), ["a", 1], ["b", Int64(1)]),
        (v.literals("a", "b"), ["a", "b", Id("b", "t")], ["c", 1, None, [], {}]),
        (v.array(v.any()), [[], [None, {}]], [None, {}]),
        (v.array(v.number()), [[], [1, 2.5]], [[1, "x"], {}, None]),
        (v.record(v.string(), v.number()), [{}, {"a b": 1}], [{"a": "x"}, []]),
        (v.record(v.id("users"), v.any()), [{}, {USER: []}], [{"x": 1}, {FILE: 1}]),
        (v.record(v.union(), v.any()), [{}], [{"x": 1}]),
        (v.union(), [], [None, 1]),
        (v.union(v.string(), v.null()), ["x", None], [1]),
        (v.nullable(v.number()), [1, None], ["x"]),
        (v.object({}), [{}], [{"a": 1}, [], None]),
        (v.object({"a": v.any()}), [{"a": None}], [{}, {"b": 1}, {"a": 1, "b": 2}]),
        (v.object({"a": v.optional(v.any())}), [{}, {"a": None}], [{"b": 1}]),
        (
            v.object({"a": v.number(), "b": v.optional(v.string())}),
            [{"a": 1}, {"b": "x", "a": 1}],
            [{}, {"b": "x"}, {"a": 1, "b": None}, {"a": 1, "c": "x"}, {"a": 1, "b": "", "c": 1}],
        ),
    ],
)
def test_each_kind_accepts_and_refuses(
    validator: Any, accepted: list[Any], refused: list[Any]
) -> None:
    """V87."""
    assert [value for value in accepted if not agree(validator, value)] == []
    assert [value for value in refused if agree(validator, value)] == []


def test_declared_fields_come_alphabetically_before_undeclared_ones() -> None:
    """V88."""
    validator = v.object({"z": v.string(), "b": v.string()})
    for value, code, field in (
        ({"a": 1, "z": 1}, "MissingRequiredField", "`b`"),
        ({"a": 1, "z": 1, "b": "x"}, "NoMatch", "Path: .z"),
        ({"y": 1, "a": 1, "z": "", "b": ""}, "ExtraField", "`a`"),
    ):
        with pytest.raises(BadRequest) as caught:
            validator.check(normalize(value), TABLES)  # type: ignore[arg-type]
        assert caught.value.code == code
        assert field in caught.value.message


@pytest.mark.parametrize(
    ("validator", "text"),
    [
        (v.id("users"), 'v.id("users")'),
        (v.number(), "v.float64()"),
        (v.bigint(), "v.int64()"),
        (v.commit_ts(), "v.commitTs()"),
        (v.literal(1), "v.literal(1.0)"),
        (v.literal(1e-5), "v.literal(0.00001)"),
        (v.literal('a"\n'), r'v.literal("a\"\n")'),
        (v.literal(True), "v.literal(true)"),
        (v.literal(Int64(3)), "v.literal(<bigint>)"),
        (v.nullable(v.array(v.null())), "v.union(v.array(v.null()), v.null())"),
        (v.record(v.string(), v.any()), "v.record(v.string(), v.any())"),
        (
            v.object({"b": v.optional(v.bytes()), "a": v.object({})}),
            "v.object({a: v.object({}), b: v.optional(v.bytes())})",
        ),
        (v.optional(v.string()), "v.optional(v.string())"),
    ],
)
def test_a_validator_prints_as_it_is_built(validator: Any, text: str) -> None:
    """V94."""
    assert repr(validator) == text


def test_equality_is_by_content() -> None:
    assert v.object({"a": v.string(), "b": v.null()}) == v.object({"b": v.null(), "a": v.string()})
    assert len({v.string(), v.string(), v.number()}) == 2
    different = [
        v.string(), v.optional(v.string()), v.id("a"), v.id("b"), v.literal(1), v.literal(True),
        v.literal(Int64(1)), v.literal("1"), v.literal(0), v.literal(-0.0), v.array(v.string()),
        v.union(v.string(), v.null()), v.union(v.null(), v.string()), v.any(),
        v.record(v.string(), v.any()), v.object({}), v.object({"a": v.optional(v.any())}),
        v.object({"a": v.any()}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert v.string() != "v.string()"


def test_validators_do_not_change() -> None:
    fields = {"a": v.string()}
    validator = v.object(fields)
    fields["b"] = v.string()
    assert list(validator.fields) == ["a"]
    with pytest.raises(TypeError):
        validator.fields["b"] = v.null()  # type: ignore[index]
    plain = v.string()
    assert plain.optional().is_optional
    assert not plain.is_optional
    assert plain.optional().optional() == plain.optional()


def test_the_optional_flag_means_something_only_on_a_field() -> None:
    """V71."""
    assert v.array(v.optional(v.string())) == v.array(v.string())
    assert v.union(v.optional(v.string())) == v.union(v.string())
    assert not agree(v.array(v.optional(v.string())), [None])


PERSON = v.object({"name": v.string(), "age": v.optional(v.number()), "tags": v.array(v.string())})


def test_objects_pick_omit_extend_and_become_partial() -> None:
    """V74."""
    assert list(PERSON.pick("tags", "name").fields) == ["tags", "name"]
    assert list(PERSON.omit("name", "nope").fields) == ["age", "tags"]
    assert list(PERSON.extend({"x": v.null(), "name": v.any()}).fields) == [
        "name", "age", "tags", "x",
    ]  # fmt: skip
    assert PERSON.extend({"name": v.any()}).fields["name"] == v.any()
    assert all(field.is_optional for field in PERSON.partial().fields.values())
    nested = v.object({"p": PERSON}).partial()
    assert nested.fields["p"] == PERSON.optional()
    for changed in (
        PERSON.optional().pick("name"),
        PERSON.optional().omit("name"),
        PERSON.optional().partial(),
        PERSON.optional().extend({}),
    ):
        assert changed.is_optional


@pytest.mark.parametrize(
    "call",
    [
        lambda: v.id(5),  # type: ignore[arg-type]
        lambda: v.id("a b"),
        lambda: v.literal(None),  # type: ignore[arg-type]
        lambda: v.literal(b"x"),  # type: ignore[arg-type]
        lambda: v.literal([1]),  # type: ignore[arg-type]
        lambda: v.literal(float("nan")),
        lambda: v.literal(float("inf")),
        lambda: v.literal(2**60),
        lambda: v.array(None),  # type: ignore[arg-type]
        lambda: v.array("string"),  # type: ignore[arg-type]
        lambda: v.object({"a": None}),  # type: ignore[dict-item]
        lambda: v.object({"a": UNSET}),  # type: ignore[dict-item]
        lambda: v.object({"a": str}),  # type: ignore[dict-item]
        lambda: v.object({"1a": v.any()}),
        lambda: v.object({1: v.any()}),  # type: ignore[dict-item]
        lambda: v.object([v.any()]),  # type: ignore[arg-type]
        lambda: v.record(v.string(), v.optional(v.any())),
        lambda: v.record(v.optional(v.string()), v.any()),
        lambda: v.record(v.literal("a"), v.any()),
        lambda: v.record(v.literal(1), v.any()),
        lambda: v.record(v.union(v.string(), v.number()), v.any()),
        lambda: v.union(v.any(), None),  # type: ignore[arg-type]
        lambda: v.optional(None),  # type: ignore[arg-type]
        lambda: PERSON.pick("nope"),
    ],
)
def test_impossible_validators_are_refused_when_built(call: Any) -> None:
    """V73, V76."""
    with pytest.raises(BadRequest) as caught:
        call()
    assert caught.value.code != "BadRequest"


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        ({"type": "nope"}, "Not a validator: {'type': 'nope'}"),
        ({}, "Not a validator"),
        ("string", "Not a validator"),
        ({"type": "object", "value": {"f": {"type": "string"}}}, "Not a field of a validator"),
        (
            {
                "type": "object",
                "value": {"f": {"fieldType": {"type": "id", "tableName": ""}, "optional": False}},
            },
            "Invalid validator for key `f`: Identifier cannot be empty",
        ),
        (
            {
                "type": "record",
                "keys": {"type": "string"},
                "values": {"fieldType": {"type": "any"}, "optional": True},
            },
            "Records cannot have optional values",
        ),
    ],
)
def test_exports_that_make_no_sense_are_refused(obj: Any, text: str) -> None:
    """V75."""
    with pytest.raises(BadRequest) as caught:
        Validator.from_json(obj)
    assert text in caught.value.message


@pytest.mark.parametrize("name", ["map", "set"])
def test_containers_of_old_servers_are_read_as_any(name: str) -> None:
    assert Validator.from_json({"type": name, "value": 1}) == v.any()


def test_a_literal_id_is_a_plain_string() -> None:
    assert type(LiteralValidator(Id("x", "t")).value) is str
