"""The matrix against a search in plain Python, and what its rows cost."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.engine.vector_matrix import (
    Condition,
    Found,
    VectorMatrix,
    VectorQuery,
    unit,
    unit_of,
)

KEYS = [b"\x01", b"\x10a\0", b"\x10b\0", b"\x10" + b"long" * 40 + b"\0"]


def as_float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]


def cosine(a: list[float], b: list[float]) -> float:
    """In plain Python, to some 15 digits."""
    lengths = math.hypot(*a) * math.hypot(*b)
    if not lengths:
        return 0.0
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths


Stored = dict[bytes, tuple[list[float], tuple[bytes, ...]]]


def by_hand(stored: Stored, vector: list[float], conditions: tuple[Condition, ...]) -> list[Found]:
    found = [
        (cosine(numbers, vector), name)
        for name, (numbers, keys) in stored.items()
        if not conditions or any(keys[field] == key for field, key in conditions)
    ]
    return [(name, score) for score, name in sorted(found, reverse=True)]


def assert_same(found: list[Found], expected: list[Found], limit: int) -> None:
    """Equal up to the last bits of 32; where scores are further apart, the order is the same."""
    assert len(found) == min(limit, len(expected))
    exact = dict(expected)
    for (name, score), (_, wanted) in zip(found, expected, strict=False):
        assert score == as_float32(score)
        assert score == pytest.approx(wanted, abs=3e-7)
        assert score == pytest.approx(exact[name], abs=3e-7)
    assert found == sorted(found, key=lambda one: (one[1], one[0]), reverse=True)
    assert len({name for name, _ in found}) == len(found)


def put(matrix: VectorMatrix, name: bytes, numbers: list[float], keys: tuple[bytes, ...]) -> None:
    vector = unit_of(numbers)
    assert vector is not None
    matrix.put(name, vector, keys)


def query(numbers: list[float], limit: int, conditions: tuple[Condition, ...] = ()) -> VectorQuery:
    vector = unit_of(numbers)
    assert vector is not None
    return VectorQuery(vector, limit, conditions)


ids = st.integers(0, 11).map(lambda number: number.to_bytes(16, "big"))
vectors = st.lists(st.integers(-3, 3).map(float), min_size=3, max_size=3)
keys = st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS))
puts = st.tuples(st.just("put"), ids, vectors, keys)
removes = st.tuples(st.just("remove"), ids)
conditions = st.lists(
    st.builds(Condition, st.integers(0, 1), st.sampled_from([*KEYS, b"\x10none\0"])), max_size=3
).map(tuple)
searches = st.tuples(
    st.just("search"), st.lists(st.tuples(vectors, st.integers(1, 6), conditions), max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(puts | removes | searches, max_size=60), st.integers(1, 5))
def test_searches_find_what_a_plain_search_finds(steps: list[Any], block_rows: int):
    matrix = VectorMatrix(3, 2, block_rows=block_rows)
    stored: Stored = {}
    for step in steps:
        match step:
            case ("put", name, numbers, of_fields):
                put(matrix, name, numbers, of_fields)
                stored[name] = (numbers, of_fields)
            case ("remove", name):
                matrix.remove(name)
                stored.pop(name, None)
            case ("search", asked):
                together = matrix.search([query(*one) for one in asked])
                for (numbers, limit, wanted), found in zip(asked, together, strict=True):
                    assert_same(found, by_hand(stored, numbers, wanted), limit)
                    # Whatever else was asked for at the same time, the answer is the same.
                    assert matrix.search([query(numbers, limit, wanted)]) == [found]
        assert len(matrix) == len(stored)
        assert all(name in matrix for name in stored)


def test_equal_vectors_score_equally_wherever_they_lie():
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal(97).tolist()
    matrix = VectorMatrix(97, 0, block_rows=7)
    for number in range(100):
        twice = [2 * one for one in numbers]
        put(matrix, bytes([number]), twice if number % 2 else numbers, ())
    other = rng.standard_normal(97).tolist()
    for asked in ([query(other, 40)], [query(other, 40)] * 5):
        for found in matrix.search(asked):
            assert len({score for _, score in found}) == 1
            assert [name[0] for name, _ in found] == list(range(99, 59, -1))


@pytest.mark.parametrize("count", [1, 6])
def test_the_best_of_many_are_the_exact_ones(count: int):
    rng = np.random.default_rng(2)
    data = rng.standard_normal((5000, 48))
    matrix = VectorMatrix(48, 1, block_rows=512)
    for number, row in enumerate(data):
        vector = unit(row)
        assert vector is not None
        matrix.put(number.to_bytes(16, "big"), vector, (b"%d" % (number % 40 if number else 3),))
    lengths = np.sqrt((data**2).sum(axis=1))
    asked = rng.standard_normal((count, 48))
    for places in ((), (Condition(0, b"3"),), tuple(Condition(0, b"%d" % n) for n in range(30))):
        found = matrix.search([VectorQuery(unit(one), 16, places) for one in asked])
        for one, best in zip(asked, found, strict=True):
            scores = data @ one / lengths / math.sqrt(float(one @ one))
            allowed = [
                number
                for number in np.argsort(-scores).tolist()
                if not places or Condition(0, b"%d" % (number % 40 if number else 3)) in places
            ]
            assert [int.from_bytes(name, "big") for name, _ in best] == allowed[:16]


def test_vectors_of_any_finite_size_have_a_direction():
    for scale in (1e-300, 1e-30, 1.0, 1e30, 1e300):
        assert unit_of([3 * scale, 4 * scale]) == pytest.approx([0.6, 0.8])
    assert unit_of([0, 0]).tolist() == [0, 0]
    for wrong in (math.inf, -math.inf, math.nan):
        assert unit_of([1.0, wrong]) is None


def test_a_vector_of_zeros_is_as_near_as_a_right_angle():
    matrix = VectorMatrix(2, 0)
    put(matrix, b"zero", [0, 0], ())
    put(matrix, b"back", [-1, 0], ())
    put(matrix, b"front", [1, 0], ())
    found = matrix.search([query([2, 0], 9)])
    assert found == [[(b"front", 1.0), (b"zero", 0.0), (b"back", -1.0)]]
    assert matrix.search([query([0, 0], 2)]) == [[(b"zero", 0.0), (b"front", 0.0)]]


def test_room_follows_the_number_of_rows():
    matrix = VectorMatrix(4, 1, block_rows=10)
    assert matrix.search([query([1, 0, 0, 0], 5)]) == [[]]
    for number in range(100):
        put(matrix, bytes([number]), [1, number, 0, 0], (b"%d" % (number % 3),))
    assert (matrix.matrix_bytes, len(matrix._blocks)) == (1600, 10)
    for number in range(95):
        matrix.remove(bytes([number]))
    assert (matrix.matrix_bytes, len(matrix._blocks)) == (80, 2)  # one of them to grow into
    found = matrix.search([query([1, 0, 0, 0], 9, (Condition(0, b"0"),))])
    assert [name[0] for name, _ in found[0]] == [96, 99]
    assert len(matrix._columns[0]._numbers) == 3


def test_filter_values_nobody_has_take_no_room():
    matrix = VectorMatrix(2, 1)
    for number in range(1000):
        put(matrix, b"one", [1, 2], (b"%d" % number,))
    assert len(matrix._columns[0]._numbers) == 1
    assert len(matrix._columns[0]._keys) == 2
