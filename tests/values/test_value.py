from __future__ import annotations

import copy
import math
import pickle
import struct
from collections import UserDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple, TypedDict, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from reactive_store.errors import BadRequest
from reactive_store.values.order import encode_key
from reactive_store.values.value import (
    UNSET,
    Encoded,
    Id,
    IdOf,
    Int64,
    nesting,
    normal_float,
    normalize,
    normalize_keeping_encoded,
    normalize_patch,
)
from tests.values.strategies import values


class Point(BaseModel):
    x: int
    label: str | None = None


class Aliased(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    first_name: str
    kind: str = Field(alias="type")
    next_one: Aliased | None = None


@dataclass
class Line:
    start: Point
    weight: float


class Row(TypedDict):
    a: int


class Pair(NamedTuple):
    left: int
    right: str


class Color(str, Enum):  # noqa: UP042 - the older spelling hashes differently
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Plain(Enum):
    A = 1


class Text(str):
    __slots__ = ()


class Ready(Encoded):
    @property
    def encoded(self) -> bytes:
        return b'{"a":1.0}'

    def decode(self) -> Any:
        return {"a": 1}


def refusal(value: object) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        normalize(value)
    return caught.value


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        (None, None),
        (True, True),
        (17, 17),
        (17.0, 17),
        (17.5, 17.5),
        (-17.0, -17),
        (2**53, 2**53),
        (float(2**53), 2**53),
        (float(2**53 + 2), float(2**53 + 2)),
        (math.inf, math.inf),
        (-0.0, -0.0),
        (Int64(5), Int64(5)),
        ("é", "é"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ((1, (2.0,)), [1, [2]]),
        (Pair(1, "x"), [1, "x"]),
        (deque([1]), [1]),
        (range(2), [0, 1]),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        (UserDict({"b": 1.0}), {"b": 1}),
        (Row(a=1), {"a": 1}),
        (Point(x=1), {"label": None, "x": 1}),
        (
            Aliased(first_name="a", kind="b", next_one=Aliased(first_name="c", kind="d")),
            {
                "firstName": "a",
                "nextOne": {"firstName": "c", "nextOne": None, "type": "d"},
                "type": "b",
            },
        ),
        (Line(Point(x=1), 2.0), {"start": {"label": None, "x": 1}, "weight": 2}),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Text("t"), "t"),
        ({Color.RED: 1}, {"red": 1}),
        (Ready(), {"a": 1}),
    ],
)
def test_what_functions_hand_over_becomes_a_normal_value(given: object, normal: Any) -> None:
    """V22, V23."""
    result = normalize(given)
    assert encode_key(result) == encode_key(normal)
    assert repr(result) == repr(normal)
    assert type(result) is type(normal)


def test_names_come_out_in_order_and_as_plain_strings() -> None:
    """V6."""
    result = normalize({"b": 1, Text("a"): {"z": 1, "y": 2}})
    assert isinstance(result, dict)
    assert list(result) == ["a", "b"]
    assert list(result["a"]) == ["y", "z"]
    assert all(type(name) is str for name in result)


def test_unset_fields_are_dropped_at_every_depth_before_names_are_looked_at() -> None:
    """V21."""
    assert normalize({"a": UNSET, "$b": UNSET, "c": [{"d": UNSET}]}) == {"c": [{}]}


def test_the_result_shares_nothing_with_what_was_given() -> None:
    given = {"a": [1, {"b": 2}]}
    result = normalize(given)
    assert isinstance(result, dict)
    result["a"][1]["b"] = 3
    assert given == {"a": [1, {"b": 2}]}


def test_a_nan_gets_its_canonical_bits() -> None:
    """V24."""
    negative = struct.unpack("<d", b"\0\0\0\0\0\0\xf8\xff")[0]
    assert struct.pack("<d", normalize(negative)) == b"\0\0\0\0\0\0\xf8\x7f"


def test_documents_stay_encoded_when_asked() -> None:
    document = Ready()
    assert normalize_keeping_encoded([document])[0] is document
    assert normalize_keeping_encoded(document) is document


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UNSET, "UNSET is not a valid Convex value"),
        ([1, UNSET], "(present at path [1])"),
        ({"a": {"b": [UNSET]}}, "(present at path .a.b[0])"),
        (2**53 + 1, "Wrap it in Int64"),
        ({"a": [-(2**53) - 1]}, "(present at path .a[0])"),
        ("a\ud800", "unpaired surrogate at position 1"),
        ({1}, "set {1} is not a supported Convex type: use a list."),
        ({"when": datetime(2026, 1, 1, tzinfo=UTC)}, "store Unix milliseconds"),
        (timedelta(1), "total_seconds()"),
        (Decimal(1), "store a str or a float"),
        (UUID(int=1), "store str(value)"),
        (Plain.A, "store its .value"),
        (Point, "is not a supported Convex type"),
        (object(), "object <object object at"),
        ({5: 1}, "Convex object keys must be strings, found 5"),
        ({"a": 1, 5: 1}, "Convex object keys must be strings, found 5"),
        ({"$a": 1}, "Field name $a starts with '$', which is reserved."),
        ({"x": [{"a\n": 1}]}, "(present at path .x[0])"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_place_and_advice(value: object, text: str) -> None:
    """V15, V16, V21, V22, V23."""
    assert text in refusal(value).message


def test_a_long_repr_is_cut() -> None:
    assert len(refusal({"x" * 500}).message) < 250


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        ([0] * 8193, "ArrayTooLong", "Array length is too long (8193 > maximum length 8192)"),
        (
            {f"f{i}": i for i in range(1025)},
            "TooManyFieldsError",
            "Object has too many fields (1025 > maximum number 1024)",
        ),
    ],
)
def test_too_many_parts_are_refused(value: object, code: str, text: str) -> None:
    """V37."""
    error = refusal(value)
    assert (error.code, error.message) == (code, text)


def test_the_most_parts_are_accepted() -> None:
    assert len(normalize([0] * 8192)) == 8192  # type: ignore[arg-type]
    dropped = {f"g{i}": UNSET for i in range(1000)}
    assert len(normalize({f"f{i}": i for i in range(1024)} | dropped)) == 1024  # type: ignore[arg-type]


def deep(levels: int, leaf: Any, *, array: bool) -> Any:
    for _ in range(levels):
        leaf = [leaf] if array else {"a": leaf}
    return leaf


@pytest.mark.parametrize("array", [True, False])
def test_sixty_four_levels_fit_and_sixty_five_do_not(array: bool) -> None:
    """V31."""
    assert nesting(normalize(deep(64, 1, array=array))) == 64
    for leaf in (1, Ready()):
        error = refusal(deep(65, leaf, array=array))
        assert error.code == "TooNestedError"
        assert error.message == "Value is too nested (nested 65 levels deep > maximum nesting 64)"


def test_levels_around_a_value_count() -> None:
    assert normalize(deep(63, 1, array=True), levels=1)
    with pytest.raises(BadRequest, match="nested 65 levels deep"):
        normalize(deep(64, 1, array=True), levels=1)


def test_a_value_that_contains_itself_is_too_nested() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert refusal(loop).code == "TooNestedError"


@pytest.mark.parametrize(
    ("value", "levels"),
    [(1, 0), ("", 0), ([], 1), ({}, 1), ([[1], []], 2), ({"a": [{"b": 1}]}, 3)],
)
def test_nesting_counts_containers(value: Any, levels: int) -> None:
    assert nesting(value) == levels


@given(values)
def test_normalising_again_changes_nothing(value: Any) -> None:
    once = normalize(value)
    assert encode_key(normalize(once)) == encode_key(once)
    assert repr(normalize(once)) == repr(once)


@given(st.floats(allow_nan=False))
def test_the_normal_form_of_a_float_has_the_same_bits(number: float) -> None:
    normal = normal_float(number)
    assert struct.pack("<d", float(normal)) == struct.pack("<d", number)
    assert isinstance(normal, int) == (
        number.is_integer() and abs(number) <= 2**53 and str(number) != "-0.0"
    )


def test_a_patch_keeps_unset_at_its_top_only() -> None:
    """V21."""
    changes = normalize_patch({"a": UNSET, "b": {"c": UNSET}, "d": 1.0})
    assert changes == {"a": UNSET, "b": {}, "d": 1}
    with pytest.raises(BadRequest, match="must be an object, not list"):
        normalize_patch([1])
    with pytest.raises(BadRequest, match="Field name"):
        normalize_patch({"$a": UNSET})


def test_int64_is_an_int_of_sixty_four_bits() -> None:
    assert Int64(5) == 5
    assert hash(Int64(5)) == hash(5)
    assert (repr(Int64(5)), str(Int64(5)), f"{Int64(5)}") == ("Int64(5)", "5", "5")
    assert Int64(2**63 - 1) == 2**63 - 1
    for number in (2**63, -(2**63) - 1):
        with pytest.raises(BadRequest) as caught:
            Int64(number)
        assert caught.value.code == "InvalidInt64"
        assert caught.value.message == f"Int64 {number} does not fit into a 64-bit signed integer."
    for wrong in (1.0, True, "1", None):
        with pytest.raises(TypeError, match="Int64 takes an int"):
            Int64(wrong)  # type: ignore[arg-type]


def test_arithmetic_with_integers_stays_int64() -> None:
    results = [
        Int64(7) + 1, 1 + Int64(7), Int64(7) - 9, 9 - Int64(7), Int64(7) * 2, 2 * Int64(7),
        Int64(7) // 2, Int64(7) % 4, 15 % Int64(4), -Int64(7), abs(Int64(-7)),
    ]  # fmt: skip
    assert results == [8, 8, -2, 2, 14, 14, 3, 3, 3, -7, 7]
    assert {type(result) for result in results} == {Int64}
    assert type(Int64(7) / 2) is float
    assert type(Int64(7) + 0.5) is float
    with pytest.raises(BadRequest):
        Int64(2**63 - 1) + 1
    with pytest.raises(TypeError):
        Int64(1) + "a"  # type: ignore[operator]


def test_an_id_is_a_string_that_knows_its_table() -> None:
    one = Id("j57", "users")
    assert one == "j57"
    assert {one: 1}["j57"] == 1
    assert (one.table, str(one), f"{one}", repr(one)) == ("users", "j57", "j57", "'j57'")
    assert type(normalize(one)) is Id
    for copied in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (copied, type(copied), copied.table) == (one, Id, "users")


def test_an_annotated_id_names_its_table() -> None:
    assert get_args(Id["users"]) == (Id, IdOf("users"))


def test_unset_is_one_falsy_thing_that_prints_its_name() -> None:
    assert repr(UNSET) == "UNSET"
    assert not UNSET
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET
    assert copy.deepcopy(UNSET) is UNSET
