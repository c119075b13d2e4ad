"""The arithmetic of ranks: rounding and its marks, BM25, one document like many, keys that sort."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine.search_ranking import (
    SIZES_KEY,
    Sizes,
    contribution,
    contributions,
    count_key,
    inverse_frequency,
    length_norm,
    length_norms,
    passes_mark,
    rank_key,
    rounded,
)
from tests.engine.search_model import average_of, floor4


@given(st.integers(0, 10**9))
def test_a_count_keeps_its_four_leading_bits(count):
    assert rounded(count) == floor4(count)
    assert rounded(count) <= count <= rounded(count) * 9 / 8


@given(st.integers(1, 10**7))
def test_a_mark_is_where_rounding_changes(count):
    assert passes_mark(count) == (rounded(count) != rounded(count - 1))


def test_small_counts_are_exact():
    assert [rounded(count) for count in range(18)] == [*range(17), 16]


@given(st.integers(0, 10**6), st.integers(0, 10**8))
def test_sizes_are_rounded_as_the_model_says(documents, words):
    assert Sizes(documents, words).rounded() == (floor4(documents), average_of(documents, words))


def test_bm25_as_written_down():
    norm = length_norm(10, 20.0)
    assert norm == pytest.approx(1.2 * (0.25 + 0.75 * 10 / 20))
    assert inverse_frequency(100, 10) == pytest.approx(math.log(1 + 90.5 / 10.5))
    assert contribution(3.0, 2, norm) == pytest.approx(3 * 2 * 2.2 / (2 + norm))


@given(
    st.floats(0.001, 100),
    st.lists(st.tuples(st.integers(1, 255), st.integers(0, 10**6)), min_size=1, max_size=20),
    st.floats(0.1, 10**6),
)
def test_many_documents_are_scored_like_each_to_the_last_bit(weight, documents, average):
    counts = np.array([count for count, _ in documents], np.float64)
    lengths = np.array([length for _, length in documents], np.float64)
    each = [
        contribution(weight, count, length_norm(length, average)) for count, length in documents
    ]
    assert contributions(weight, counts, length_norms(lengths, average)).tolist() == each


numbers = st.floats(0, 1e9, exclude_min=True)
times = st.floats(-1e15, 1e15)


@given(st.lists(st.tuples(numbers, times, st.binary(min_size=16, max_size=16)), max_size=20))
def test_keys_sort_like_ranks(found):
    found = [(score, created + 0.0, name) for score, created, name in found]
    assert sorted(found, key=lambda each: rank_key(*each)) == sorted(found, reverse=True)


def test_keys_of_statistics_lie_below_every_word():
    assert SIZES_KEY < count_key(b"a") < b"0"
