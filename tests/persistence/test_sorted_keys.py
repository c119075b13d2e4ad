"""`SortedKeys` against a plain sorted list."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.persistence.sorted_keys import SortedKeys

_KEYS = st.integers(0, 60).map(lambda n: n.to_bytes(2, "big").lstrip(b"\x00"))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(SortedKeys, "CHUNK_KEYS", 3)


def expected_range(ordered, start, end):
    return [key for key in ordered if start <= key and (end is None or key < end)]


@given(changes=st.lists(_KEYS, max_size=120), data=st.data())
def test_every_range_is_that_of_a_sorted_list(changes, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SortedKeys, "CHUNK_KEYS", 3)
        keys, ordered = SortedKeys(), []
        for key in changes:  # a key that is there goes, one that is not comes
            position = bisect_left(ordered, key)
            if position < len(ordered) and ordered[position] == key:
                del ordered[position]
                keys.remove(key)
            else:
                ordered.insert(position, key)
                keys.add(key)
            keys.check()
        assert len(keys) == len(ordered)
        for _ in range(5):
            start = data.draw(_KEYS)
            end = data.draw(st.none() | _KEYS)
            limit = data.draw(st.integers(0, 20))
            inside = expected_range(ordered, start, end)
            assert keys.ascending(start, end, limit) == inside[:limit]
            assert keys.descending(start, end, limit) == inside[::-1][:limit]


def test_a_range_runs_over_chunks_in_both_directions(small_chunks):
    keys = SortedKeys()
    everything = [bytes([n]) for n in range(50)]
    for key in everything[::2] + everything[1::2]:
        keys.add(key)
    keys.check()
    assert keys.ascending(b"", None, 100) == everything
    assert keys.descending(b"", None, 100) == everything[::-1]
    assert keys.ascending(bytes([10]), bytes([30]), 100) == everything[10:30]
    assert keys.descending(bytes([10]), bytes([30]), 100) == everything[10:30][::-1]


def test_an_emptied_set_can_be_filled_again(small_chunks):
    keys = SortedKeys()
    for _ in range(2):
        for n in range(10):
            keys.add(bytes([n]))
        for n in range(10):
            keys.remove(bytes([n]))
        assert keys.ascending(b"", None, 5) == keys.descending(b"", None, 5) == []
        keys.check()
