"""A view at one timestamp: durable rows, pending rows over them, and what is too old to see."""

from __future__ import annotations

import pytest

from reactive_store.engine.catalog import Table
from reactive_store.engine.pending import PendingCommits
from reactive_store.engine.range_index import IndexState, RangeIndex
from reactive_store.engine.snapshot import Horizon, MergedPage, Snapshot, merge_overlay
from reactive_store.errors import OutOfRetention
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    Persistence,
    Row,
    TableNumber,
    Timestamp,
)
from tests.engine.commits import change, commit, name

BY_N = RangeIndex("by_n", IndexId(1001), ("n",), IndexState.READY)
NOTES = Table("notes", TableNumber(10001), (BY_N,))


def rows_of(*keys: bytes) -> list[Row]:
    return [Row(key, key * 16, 1, b"{}") for key in keys]


def merged(page: MergedPage, overlay: dict[bytes, Row | None], *, descending: bool = False):
    rows, last = merge_overlay(page, overlay, descending=descending)
    return [(row.key, row.ts) for row in rows], last


def test_an_overlay_replaces_adds_and_removes() -> None:
    page = MergedPage(rows_of(b"b", b"d", b"f"), None)
    overlay = {
        b"a": Row(b"a", b"", 2, b""),
        b"d": Row(b"d", b"", 2, b""),
        b"f": None,
        b"g": None,
    }
    assert merged(page, overlay) == ([(b"a", 2), (b"b", 1), (b"d", 2)], None)


def test_what_lies_beyond_the_page_waits_for_a_later_one() -> None:
    overlay: dict[bytes, Row | None] = {key: Row(key, b"", 2, b"") for key in (b"a", b"c", b"e")}
    ascending = MergedPage(rows_of(b"b", b"d"), b"d")
    assert merged(ascending, overlay) == ([(b"a", 2), (b"b", 1), (b"c", 2), (b"d", 1)], b"d")
    falling = MergedPage(rows_of(b"d", b"b"), b"b")
    assert merged(falling, overlay, descending=True) == (
        [(b"e", 2), (b"d", 1), (b"c", 2), (b"b", 1)],
        b"b",
    )


def test_a_page_may_become_empty_and_still_say_how_far_it_came() -> None:
    page = MergedPage(rows_of(b"b"), b"b")
    assert merged(page, {b"b": None}) == ([], b"b")
    assert merge_overlay(page, {}, descending=False) is page


@pytest.fixture
async def filled(persistence: Persistence) -> Persistence:
    """Documents a, b, c with keys of their own names, at timestamp 10."""
    letters = "abc"
    await persistence.append(
        [
            Commit(
                Timestamp(10),
                tuple(DocumentWrite(NOTES.number, name(letter), b"{}", True) for letter in letters),
                tuple(
                    IndexWrite(BY_N.id, letter.encode(), NOTES.number, name(letter), True)
                    for letter in letters
                ),
            )
        ]
    )
    return persistence


def view(persistence: Persistence, ts: int, pending: PendingCommits | None = None) -> Snapshot:
    return Snapshot(persistence, pending, Timestamp(ts), Horizon())


def page_of(snapshot: Snapshot, index: RangeIndex | None = BY_N, limit: int = 10):
    rows, last = snapshot.page(NOTES, index, b"", None, descending=False, limit=limit)
    return [row.key for row in rows], last


async def test_pages_come_by_index_or_by_id(filled: Persistence) -> None:
    assert page_of(view(filled, 10)) == ([b"a", b"b", b"c"], None)
    assert page_of(view(filled, 10), limit=2) == ([b"a", b"b"], b"b")
    assert page_of(view(filled, 10), None) == ([name("a"), name("b"), name("c")], None)
    assert page_of(view(filled, 9)) == ([], None)


async def test_pending_commits_lie_over_what_is_durable_up_to_the_timestamp(
    filled: Persistence,
) -> None:
    pending = PendingCommits()
    pending.add(commit(20, change("a", (b"a", {}), (b"z", {}), ts=20)))
    pending.add(commit(30, change("b", (b"b", {}), None)))
    assert page_of(view(filled, 20, pending)) == ([b"b", b"c", b"z"], None)
    assert page_of(view(filled, 30, pending)) == ([b"c", b"z"], None)
    assert page_of(view(filled, 30, pending), None) == ([name("a"), name("c")], None)
    assert page_of(view(filled, 30)) == ([b"a", b"b", b"c"], None)
    seen = view(filled, 20, pending)
    moved = seen.get(NOTES, name("a"))
    assert moved is not None
    assert moved.ts == 20
    assert seen.get(NOTES, name("b")) is not None
    assert view(filled, 30, pending).get(NOTES, name("b")) is None


async def test_a_view_that_has_become_too_old_is_refused(filled: Persistence) -> None:
    horizon = Horizon()
    snapshot = Snapshot(filled, None, Timestamp(10), horizon)
    assert snapshot.get(NOTES, name("a")) is not None
    horizon.oldest_ts = 11
    with pytest.raises(OutOfRetention, match="older than what is kept"):
        snapshot.get(NOTES, name("a"))
    with pytest.raises(OutOfRetention, match="older than what is kept"):
        page_of(snapshot)
    horizon.oldest_ts = 10
    assert page_of(snapshot)[1] is None
    horizon.check(10)


async def test_an_index_is_not_read_at_a_time_before_it_was_built(filled: Persistence) -> None:
    young = RangeIndex("by_n", BY_N.id, ("n",), IndexState.READY, since_ts=11)
    with pytest.raises(OutOfRetention, match=r"Index notes\.by_n was built after timestamp 10"):
        page_of(view(filled, 10), young)
    assert page_of(view(filled, 11), young)[0] == [b"a", b"b", b"c"]
