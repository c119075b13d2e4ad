"""The live queries broken on purpose, one line at a time; the oracle has to see each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reactive_store.auth.identity import Identity
from reactive_store.engine import subscriptions as subscriptions_module
from reactive_store.engine.database import Database
from reactive_store.engine.hot_ranges import HotRanges
from reactive_store.engine.interval import Interval, IntervalMap, after
from reactive_store.engine.reads import CommitChanges, Read, ReadSet, passes
from reactive_store.engine.search_indexes import SearchIndexes
from reactive_store.engine.subscriptions import Subscriptions
from reactive_store.engine.transaction import Scan
from reactive_store.functions import query_builder
from reactive_store.functions.execution import Execution
from reactive_store.functions.index_range import Bound
from reactive_store.functions.live_queries import LiveQueries, LiveResult
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES"]

_PROMISE = "complete push"


def _lose_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Subscriptions.add

    def add_fewer(self: Subscriptions, reads: ReadSet, on_touched: Any) -> Any:
        kept = ReadSet()
        for index, read in list(reads)[: max(1, len(reads) - 1)]:
            kept.add(index, read)
        return add(self, kept, on_touched)

    monkeypatch.setattr(Subscriptions, "add", add_fewer)


def _swap_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_range = query_builder.compile_range

    def compile_swapped(table: str, index: str, declared: Any, bounds: Any, id_bytes: Any) -> Any:
        swapped = tuple(
            Bound(">=", bound.field, bound.value) if bound.comparator == ">" else bound
            for bound in bounds
        )
        return compile_range(table, index, declared, swapped, id_bytes)

    monkeypatch.setattr(query_builder, "compile_range", compile_swapped)


def _watch_short_of_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    add = ReadSet.add

    def add_shorter(self: ReadSet, index: Any, read: Read) -> None:
        start, end = read.interval
        # What `<=` adds to the end of an interval; results stay right, only the watch is short.
        if end is not None and end.endswith(b"\xff") and len(end) - 1 > len(start):
            read = read._replace(interval=Interval(start, end[:-1]))
        add(self, index, read)

    monkeypatch.setattr(ReadSet, "add", add_shorter)


def _forget_the_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def collect(
        of_index: IntervalMap[Any], key: bytes, change: Any, found: Any, *, is_old: bool
    ) -> None:
        for subscription, predicate in of_index.stab(key):
            is_right = predicate is None or (not is_old and passes(predicate, change.new_document))
            if is_right:
                found[subscription] = None

    monkeypatch.setattr(subscriptions_module, "_collect", collect)


def _lose_search_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = SearchIndexes.mark

    def mark_nothing(self: SearchIndexes, commit: CommitChanges) -> None:
        mark(self, commit)
        for change in commit.documents:
            for search in change.searches:
                search.moved = []

    monkeypatch.setattr(SearchIndexes, "mark", mark_nothing)


def _leave_searches_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def follow_inserts(self: SearchIndexes, commit: CommitChanges) -> None:
        new = tuple(change for change in commit.documents if change.old is None)
        follow(self, commit._replace(documents=new))

    follow = SearchIndexes.follow
    monkeypatch.setattr(SearchIndexes, "follow", follow_inserts)


def _search_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SearchIndexes, "_overlay", lambda *_: {})


def _narrow_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(self: Scan) -> None:
        transaction = self._transaction
        start, end = self._whole
        if self._exhausted:
            transaction._open_scans.discard(self)
            consumed = self._whole
        elif self._consumed is None:
            return
        elif self._descending:
            consumed = Interval(after(self._consumed), end)
        else:
            consumed = Interval(start, self._consumed)
        transaction._reads.add(self._name, Read(consumed, self._prefix_bytes, self._predicate))

    monkeypatch.setattr(Scan, "remember", remember)


def _leave_hot_ranges_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HotRanges, "_put_key", lambda *_: None)


def _leave_hot_documents_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def publish_ranges_only(self: HotRanges, commit: Any) -> None:
        self.newest_ts = commit.ts
        for change in commit.documents:
            for index, old, new in change.keys:
                if old is not None and old != new and index in self._ranges:
                    self._remove_key(index, old, commit.ts)
                if new is not None and index in self._ranges:
                    self._put_key(index, new, change.new, commit.ts)

    monkeypatch.setattr(HotRanges, "publish", publish_ranges_only)


def _fingerprint(monkeypatch: pytest.MonkeyPatch, fingerprint: Any) -> None:
    encoded = LiveQueries._encoded

    def encode(self: LiveQueries, outcome: Any) -> LiveResult:
        result = encoded(self, outcome)
        return LiveResult(
            result.modification, result.failed, fingerprint(self, result), result.journal
        )

    monkeypatch.setattr(LiveQueries, "_encoded", encode)


def _tell_equal_results(monkeypatch: pytest.MonkeyPatch) -> None:
    _fingerprint(monkeypatch, lambda live, _: live._runtime.random_bytes(8))


def _take_changes_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    _fingerprint(monkeypatch, lambda _live, _result: b"always the same")


def _forget_prefixes_of_two_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def stab(self: IntervalMap[Any], key: bytes) -> Iterator[Any]:
        for length in self._sorted_lengths:
            if length > len(key):
                break
            if length == 2:
                continue
            for interval, item in self._by_prefix.get(key[:length], ()):
                if interval.contains(key):
                    yield item
        yield from self._rest.stab(key)

    monkeypatch.setattr(IntervalMap, "stab", stab)


def _evict_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    make_room = HotRanges._make_room

    def empty_the_oldest(self: HotRanges) -> None:
        for oldest in list(self._order):
            if self.counters.bytes <= self._budget:
                return
            rows = getattr(oldest, "rows", None)
            if rows:  # it stays, and is still taken for complete
                size = 600
                self.counters.bytes += size - oldest.size
                oldest.size = size
                oldest.keys.clear()
                rows.clear()
        make_room(self)

    monkeypatch.setattr(HotRanges, "_make_room", empty_the_oldest)


def _overlook_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get_user_identity(self: Execution) -> Identity | None:
        return self._caller.identity

    monkeypatch.setattr(Execution, "get_user_identity", get_user_identity)


def _watch_whole_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(self: Scan) -> None:
        transaction = self._transaction
        if self._exhausted:
            transaction._open_scans.discard(self)
        elif self._consumed is None:
            return
        read = Read(self._whole, self._prefix_bytes, self._predicate)
        transaction._reads.add(self._name, read)

    monkeypatch.setattr(Scan, "remember", remember)


def _watch_without_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    add = ReadSet.add

    def add_unfiltered(self: ReadSet, index: Any, read: Read) -> None:
        add(self, index, read._replace(predicate=None))

    monkeypatch.setattr(ReadSet, "add", add_unfiltered)


def _let_pages_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(self: LiveQueries, query: Any, caller: Any, at: Any) -> Any:
        question = query.question
        return await self._runner.run_query(
            question.path, question.args, caller, at=at, journal=question.journal
        )

    monkeypatch.setattr(LiveQueries, "_run", run)


def _miss_what_happens_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def subscribe(self: Database, reads: ReadSet, _since: Any, on_touched: Any) -> Any:
        return self.committer.subscriptions.add(reads, on_touched)

    monkeypatch.setattr(Database, "subscribe", subscribe)


BREAKAGES: list[Breakage] = [
    Breakage(name, _PROMISE, text, apply)
    for name, text, apply in (
        ("lost-read", "one interval of a read set is not watched", _lose_a_read),
        ("swapped-bound", "`gt` reads what is equal to its bound too", _swap_bounds),
        (
            "short-watch",
            "the upper end of a range is watched as if it were exclusive",
            _watch_short_of_the_bound,
        ),
        (
            "old-version-forgotten",
            "a filter is only asked about the version after a write",
            _forget_the_old_version,
        ),
        ("narrowed-too-far", "the last key that `take` read is not watched", _narrow_too_far),
        ("stale-hot-range", "publish puts no new rows into hot ranges", _leave_hot_ranges_behind),
        (
            "stale-hot-document",
            "publish does not update single documents in memory",
            _leave_hot_documents_behind,
        ),
        ("equal-result-sent", "equal results count as changed", _tell_equal_results),
        ("constant-fingerprint", "changed results count as equal", _take_changes_for_equal),
        (
            "two-byte-prefix-lost",
            "equality prefixes of two bytes are not looked up",
            _forget_prefixes_of_two_bytes,
        ),
        (
            "evicted-but-complete",
            "a range whose rows were evicted still counts as complete",
            _evict_rows_only,
        ),
        (
            "identity-overlooked",
            "a query that looked at the identity is shared with other users",
            _overlook_the_identity,
        ),
        (
            "page-end-forgotten",
            "a page that runs again takes its size instead of its end",
            _let_pages_grow,
        ),
        (
            "missed-meanwhile",
            "a commit that comes while a query runs does not invalidate its answer",
            _miss_what_happens_meanwhile,
        ),
        (
            "search-marks-lost",
            "a commit does not name the search statistics it moves",
            _lose_search_marks,
        ),
        ("stale-search-index", "publish leaves a search index behind", _leave_searches_behind),
        ("search-sees-later", "a search of the past is that of now", _search_the_present),
        ("range-not-narrowed", "a range is watched whole whatever was read", _watch_whole_ranges),
        ("filter-not-watched", "a filtered range is watched unfiltered", _watch_without_the_filter),
    )
]  # fmt: skip
