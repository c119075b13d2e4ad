"""The walk through what a search found."""

from __future__ import annotations

import pytest

from reactive_store.engine.interval import EVERYTHING, Interval, after
from reactive_store.engine.search_ranking import rank_key
from reactive_store.engine.search_scan import SearchScan
from reactive_store.engine.text_index import Match
from reactive_store.errors import BadRequest
from reactive_store.persistence.contract import Row

MATCHES = [Match(5.0 - number, 1.0, bytes([number]) * 16) for number in range(5)]
KEYS = [rank_key(*match) for match in MATCHES]


def scan(interval: Interval = EVERYTHING, most: int = 10) -> tuple[SearchScan, list[bytes]]:
    fetched: list[bytes] = []

    def fetch(id: bytes) -> Row:
        fetched.append(id)
        return Row(id, id, 7, b"{}")

    return SearchScan(MATCHES, most, fetch, interval), fetched


def test_rows_carry_their_rank_and_are_read_when_asked_for():
    walk, fetched = scan()
    first = walk.next()
    assert first == Row(KEYS[0], MATCHES[0].id, 7, b"{}")
    assert fetched == [MATCHES[0].id]
    assert [row.key for row in walk.take(10)] == KEYS[1:]
    assert walk.next() is None


def test_only_the_interval_is_walked_through():
    walk, fetched = scan(Interval(after(KEYS[0]), after(KEYS[2])))
    assert [row.key for row in walk.take(10)] == KEYS[1:3]
    assert len(fetched) == 2


def test_one_document_too_many_is_refused_only_when_it_is_reached():
    walk, _ = scan(most=4)
    assert len(walk.take(4)) == 4
    with pytest.raises(BadRequest, match="fetched 4") as refused:
        walk.next()
    assert refused.value.code == "SearchQueryScannedTooManyDocumentsError"
    exact, _ = scan(most=5)
    assert len(exact.take(10)) == 5


def test_what_is_passed_over_counts_as_read():
    walk, fetched = scan(Interval(KEYS[3], None), most=4)
    assert [row.key for row in walk.take(1)] == [KEYS[3]]
    with pytest.raises(BadRequest):
        walk.next()
    assert len(fetched) == 1


def test_no_words_find_nothing():
    assert SearchScan.empty().take(3) == []
