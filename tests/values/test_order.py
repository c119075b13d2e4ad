from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.values.order import (
    compare,
    encode_key,
    encode_key_parts,
    field_value,
    sort_key,
)
from reactive_store.values.value import UNSET, Id, Int64, normalize
from tests.values.strategies import values

RANKS = [type(UNSET), type(None), Int64, float, bool, str, bytes, list, dict]


def rank(value: Any) -> int:
    kind = type(value)
    return RANKS.index({int: float, Id: str}.get(kind, kind))


def total_order(number: float) -> int:
    """The order of floats, from their bits: written without looking at the code under test."""
    bits = struct.unpack(">q", struct.pack(">d", float(number)))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF) - 1


def by_definition(a: Any, b: Any) -> int:
    """The order of values by its definition, part by part."""
    if rank(a) != rank(b):
        return -1 if rank(a) < rank(b) else 1
    if isinstance(a, list):
        for x, y in zip(a, b, strict=False):
            if part := by_definition(x, y):
                return part
        return (len(a) > len(b)) - (len(a) < len(b))
    if isinstance(a, dict):
        left = [part for name in sorted(a) for part in ("k" + name, a[name])]
        right = [part for name in sorted(b) for part in ("k" + name, b[name])]
        return by_definition(left, right)
    if rank(a) == RANKS.index(float):
        a, b = total_order(a), total_order(b)
    if a is None or a is UNSET:
        return 0
    return (a > b) - (a < b)


@given(values, values)
def test_keys_sort_like_values(a: Any, b: Any) -> None:
    """V58, V59, V60, V61, V62."""
    a, b = normalize(a), normalize(b)
    assert compare(a, b) == by_definition(a, b)
    assert compare(b, a) == -compare(a, b)
    assert compare(a, a) == 0


@given(st.lists(values, max_size=3), st.lists(values, max_size=3))
def test_joined_keys_sort_like_lists(a: list[Any], b: list[Any]) -> None:
    a, b = normalize(a), normalize(b)  # type: ignore[assignment]
    left, right = encode_key_parts(a), encode_key_parts(b)
    assert (left > right) - (left < right) == by_definition(a, b)


@given(values, values, st.lists(values, max_size=2))
def test_a_prefix_covers_its_own_value_and_no_other(a: Any, b: Any, more: list[Any]) -> None:
    start = encode_key(normalize(a))
    key = encode_key_parts([normalize(part) for part in (b, *more)])
    order = compare(normalize(b), normalize(a))
    assert (key < start) == (order < 0)
    assert (start <= key < start + b"\xff") == (order == 0)
    assert (key >= start + b"\xff") == (order > 0)


@pytest.mark.parametrize(("a", "b"), [("foo", "foo\0bar"), ({}, {"": None}), (b"", b"\0")])
def test_a_continued_key_is_outside_the_prefix(a: Any, b: Any) -> None:
    assert encode_key(b).startswith(encode_key(a))
    assert encode_key(b) >= encode_key(a) + b"\xff"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (UNSET, "01"),
        (None, "03"),
        (Int64(0), "08"),
        (Int64(127), "097f"),
        (Int64(128), "0a0080"),
        (Int64(-128), "0780"),
        (Int64(-129), "06ff7f"),
        (Int64(2**31), "0c0000000080000000"),
        (Int64(-(2**63)), "048000000000000000"),
        (1, "0dbff0000000000000"),
        (-0.0, "0d7fffffffffffffff"),
        (0, "0d8000000000000000"),
        (False, "0e"),
        (True, "0f"),
        ("a", "106100"),
        (Id("a", "t"), "106100"),
        ("\0", "1000ff00"),
        (b"\0", "1100ff00"),
        ([], "1200"),
        ({}, "1500"),
        ({"": None}, "1500ff0300"),
        ({"a": Int64(1)}, "156100090100"),
        ({"b": None, "a": None}, "1561000362000300"),
    ],
)
def test_keys_are_those_of_convex(value: Any, key: str) -> None:
    """V63."""
    assert encode_key(value).hex() == key
    assert sort_key(value).hex() == key


def test_numbers_and_bigints_never_meet() -> None:
    """V62."""
    assert compare(1, Int64(1)) == 1
    assert compare(float("-inf"), Int64(2**63 - 1)) == 1
    assert compare(0, -0.0) == 1
    assert compare(float("nan"), float("nan")) == 0
    assert compare("\uffff", "\U00010000") == -1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("a",), {"b": {"c": 1}, "s": "x"}),
        (("a", "b", "c"), 1),
        (("a", "nope"), UNSET),
        (("nope", "b"), UNSET),
        (("a", "s", "c"), UNSET),
        (("n",), None),
        (("n", "b"), UNSET),
        (("l", "b"), UNSET),
    ],
)
def test_a_path_walks_objects_only(path: tuple[str, ...], value: Any) -> None:
    """V65."""
    document = {"a": {"b": {"c": 1}, "s": "x"}, "n": None, "l": [{"b": 1}]}
    found = field_value(document, path)
    assert found == value
    assert (found is UNSET) == (value is UNSET)
