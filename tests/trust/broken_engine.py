"""Breakages of the engine and of the persistence, each with the test that has to see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from reactive_store.engine import committer as committer_module
from reactive_store.engine import subscriptions as subscriptions_module
from reactive_store.engine.committer import Committer
from reactive_store.engine.database import Database, _Ids
from reactive_store.engine.hot_ranges import HotRanges
from reactive_store.engine.interval import Interval, after
from reactive_store.engine.pending import PendingCommits
from reactive_store.engine.reads import Read, ReadSet
from reactive_store.engine.retention import Retention
from reactive_store.engine.schema_change import _SchemaChange
from reactive_store.engine.snapshot import Horizon, Snapshot
from reactive_store.engine.subscriptions import Subscriptions
from reactive_store.engine.transaction import Scan, Transaction
from reactive_store.engine.write_log import WriteLog
from reactive_store.persistence import batch_code, memtable, sqlite
from reactive_store.persistence.data_lock import DataLock
from reactive_store.persistence.materialiser import Materialiser
from reactive_store.persistence.memtable import UNKNOWN, Memtable
from reactive_store.persistence.sorted_keys import SortedKeys
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_log import SqliteLog
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence.writer_thread import Health
from tests.trust.named_test import Catalogue

__all__ = ["BREAKAGES", "CAUGHT_BY"]

_CATALOGUE = Catalogue()
BREAKAGES = _CATALOGUE.breakages
CAUGHT_BY = _CATALOGUE.caught_by
broken = _CATALOGUE.broken

FAR_FUTURE = 2**62
ENGINE = "tests/engine"
STORE = "tests/persistence"


# What a reader of one instant is shown.


@broken(
    "the-past-from-memory",
    "serializable",
    "a hot range answers reads of the past with what it holds now",
    caught_by=f"{ENGINE}/test_hot_ranges.py::test_a_read_of_the_past_is_not_answered",
)
def _the_past_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    page = HotRanges.page

    def always(
        self: HotRanges, index: Any, start: bytes, end: bytes | None, _at: int, **how: Any
    ) -> Any:
        return page(self, index, start, end, FAR_FUTURE, **how)

    monkeypatch.setattr(HotRanges, "page", always)


@broken(
    "wrong-end-of-a-hot-range",
    "serializable",
    "a descending page from memory begins at the low end of its range",
    caught_by=f"{ENGINE}/test_hot_ranges.py::"
    "test_the_same_question_again_is_answered_from_memory_also_after_a_write",
)
def _wrong_end_of_a_hot_range(monkeypatch: pytest.MonkeyPatch) -> None:
    page = HotRanges.page

    def from_below(self: HotRanges, *where: Any, descending: bool, limit: int) -> Any:
        found = page(self, *where, descending=descending, limit=limit)
        if not descending or found is None or found[1] is None:
            return found
        low = page(self, *where, descending=False, limit=limit)
        return found if low is None else (low[0][::-1], found[1])

    monkeypatch.setattr(HotRanges, "page", from_below)


@broken(
    "wrong-end-of-sorted-keys",
    "serializable",
    "a descending scan of keys in memory begins at the low end of its range",
    caught_by=f"{STORE}/test_sorted_keys.py::test_every_range_is_that_of_a_sorted_list",
)
def _wrong_end_of_sorted_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_below(self: SortedKeys, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        return self.ascending(start, end, limit)[::-1]

    monkeypatch.setattr(SortedKeys, "descending", from_below)


@broken(
    "interval-with-its-end",
    "serializable",
    "an interval contains the key at its end",
    caught_by=f"{ENGINE}/test_interval.py::test_an_interval_includes_its_start_and_excludes_its_end",
)
def _interval_with_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def contains(self: Interval, key: bytes) -> bool:
        return self.start <= key and (self.end is None or key <= self.end)

    monkeypatch.setattr(Interval, "contains", contains)


@broken(
    "pending-of-any-time",
    "serializable",
    "a mutation is shown commits that were accepted after it began",
    caught_by=f"{ENGINE}/test_pending.py::"
    "test_get_tells_a_deleted_document_from_one_that_is_not_pending",
)
def _pending_of_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    get = PendingCommits.get

    def newest(self: PendingCommits, table: str, id: bytes, _at: int) -> Any:
        return get(self, table, id, FAR_FUTURE)

    monkeypatch.setattr(PendingCommits, "get", newest)


@broken(
    "phantom-after-the-last-row",
    "serializable",
    "a scan that came to its end remembers only up to its last row",
    caught_by=f"{ENGINE}/test_transaction.py::test_an_exhausted_scan_has_read_the_whole_interval",
)
def _phantom_after_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(self: Scan) -> None:
        if self._exhausted:
            self._transaction._open_scans.discard(self)
        if self._consumed is None:
            return
        if self._descending:
            consumed = Interval(self._consumed, self._whole.end)
        else:
            consumed = Interval(self._whole.start, after(self._consumed))
        self._transaction._reads.add(self._name, Read(consumed, self._prefix_bytes, None))

    monkeypatch.setattr(Scan, "remember", remember)


@broken(
    "short-memory-of-commits",
    "serializable",
    "a transaction older than the recorded commits is taken for free of conflicts",
    caught_by=f"{ENGINE}/test_committer.py::"
    "test_a_transaction_older_than_the_log_has_to_be_repeated",
)
def _short_memory_of_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriteLog, "covers", lambda self, since: True)


@broken(
    "not-alone",
    "serializable",
    "others commit while a mutation that kept losing runs alone",
    caught_by=f"{ENGINE}/test_committer.py::test_whoever_runs_alone_cannot_lose",
)
def _not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def run_alone(self: Committer) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(Committer, "run_alone", run_alone)


@broken(
    "clock-goes-back",
    "serializable",
    "a commit gets the time of the clock although a later one was given out",
    caught_by=f"{ENGINE}/test_database.py::test_timestamps_ascend_although_the_clock_goes_back",
)
def _clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "max", lambda _above, now: now, raising=False)


@broken(
    "same-id-twice",
    "serializable",
    "two new documents get the same id",
    caught_by=f"{ENGINE}/test_transaction.py::test_creation_times_strictly_ascend_across_transactions",
)
def _same_id_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Ids, "internal_id", lambda self: b"\x01" * 16)


@broken(
    "nothing-rolled-back",
    "serializable",
    "what a failed nested mutation wrote stays",
    caught_by="tests/functions/test_execution.py::"
    "test_a_caught_failure_keeps_only_what_the_parent_wrote",
)
def _nothing_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transaction, "rollback", lambda self, savepoint: None)


@broken(
    "reads-rolled-back",
    "serializable",
    "what a failed nested mutation read is forgotten, although its caller knows it",
    caught_by=f"{ENGINE}/test_transaction.py::"
    "test_rollback_undoes_writes_keeps_reads_and_gives_the_budget_back",
)
def _reads_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rollback = Transaction.rollback

    def forget(self: Transaction, savepoint: Any) -> None:
        rollback(self, savepoint)
        self._reads = ReadSet()

    monkeypatch.setattr(Transaction, "rollback", forget)


@broken(
    "patch-without-schema",
    "serializable",
    "a patched document is not held against the schema",
    caught_by=f"{ENGINE}/test_schema_on_writes.py::test_no_way_to_write_leads_around_the_schema",
)
def _patch_without_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Transaction._write

    def unchecked(self: Transaction, table: Any, id: bytes, stored: Any, *rest: Any) -> None:
        if stored is not None:
            table = table.with_validator(None)
        write(self, table, id, stored, *rest)

    monkeypatch.setattr(Transaction, "_write", unchecked)


@broken(
    "schema-change-looks-away",
    "serializable",
    "documents written while a schema is being put in force are not held against it",
    caught_by=f"{ENGINE}/test_schema_change.py::"
    "test_a_write_during_the_check_that_does_not_fit_fails_the_change_not_the_write",
)
def _schema_change_looks_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_SchemaChange, "observe", lambda self, commit: None)


@broken(
    "index-misses-writes",
    "serializable",
    "a document written in its place while an index is built gets no entry",
    caught_by=f"{ENGINE}/test_committer.py::"
    "test_an_index_under_construction_is_told_of_every_write",
)
def _index_misses_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    state = SimpleNamespace(BACKFILLING=None)
    monkeypatch.setattr(committer_module, "IndexState", state)


@broken(
    "backfill-misses-pending",
    "serializable",
    "documents that are in the log only get no entry in a new index",
    caught_by=f"{STORE}/test_contract.py::"
    "test_backfill_adds_entries_of_documents_that_stayed_as_seen[sqlite]",
)
def _backfill_misses_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: SqlitePersistence, _index: int, entries: Sequence[Any]) -> Any:
        return list(entries), False

    monkeypatch.setattr(SqlitePersistence, "_missing", missing)


@broken(
    "deleted-shines-through",
    "serializable",
    "a deletion in the log does not hide the document in the tables",
    caught_by=f"{STORE}/test_memtable.py::test_layers_over_tables_read_like_one_store",
)
def _deleted_shines_through(monkeypatch: pytest.MonkeyPatch) -> None:
    find_row = memtable.find_row

    def find(*where: Any) -> Any:
        row = find_row(*where)
        return UNKNOWN if row is None else row

    monkeypatch.setattr(memtable, "find_row", find)
    monkeypatch.setattr(sqlite, "find_row", find)


@broken(
    "in-neither-place",
    "serializable",
    "commits leave memory before they are in the tables",
    caught_by=f"{STORE}/test_recovery.py::"
    "test_commits_on_their_way_to_the_tables_are_seen_all_the_time",
)
def _in_neither_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def move(self: Materialiser) -> None:
        aside = self.layers[0]
        if aside.commits:
            self.floor_ts = aside.commits[-1].ts
            self.layers = (Memtable(),)
            await self._tables.write_commits(aside.commits)
            self._tables.renew_view()

    monkeypatch.setattr(Materialiser, "_move", move)


@broken(
    "trimmed-too-far",
    "serializable",
    "trimming takes versions that readers within the time of retention need",
    caught_by=f"{STORE}/test_contract.py::"
    "test_trim_forgets_what_ended_and_reads_from_then_on_stay[sqlite]",
)
def _trimmed_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    trim_rows = sqlite.trim_rows

    def trim(connection: Any, *, before: int, limit: int) -> int:
        return trim_rows(connection, before + 1000, limit)

    monkeypatch.setattr(sqlite, "trim_rows", trim)


@broken(
    "trimmed-in-silence",
    "serializable",
    "a reader whose timestamp was trimmed away is shown what is left",
    caught_by=f"{ENGINE}/test_retention.py::test_a_reader_that_outlives_its_timestamp_is_told[memory]",
)
def _trimmed_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Horizon, "check", lambda self, ts: None)


@broken(
    "horizon-forgotten",
    "serializable",
    "after a restart nobody knows how far history was trimmed",
    caught_by=f"{ENGINE}/test_retention.py::test_the_horizon_outlives_the_process",
)
def _horizon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: Database, ts: int) -> bool:
        is_news = ts > self._horizon.oldest_ts
        self._horizon.oldest_ts = max(ts, self._horizon.oldest_ts)
        return is_news

    monkeypatch.setattr(Database, "forget_before", forget)


@broken(
    "memory-of-an-older-definition",
    "serializable",
    "ranges in memory are kept when their index is put in service with other fields",
    caught_by=f"{ENGINE}/test_schema_change.py::"
    "test_an_index_under_construction_cannot_be_queried_and_its_predecessor_can[memory]",
)
def _memory_of_an_older_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HotRanges, "clear", lambda self: None)


@broken(
    "index-of-a-time-before-it-was",
    "serializable",
    "an index is read at a time when it was not complete",
    caught_by=f"{ENGINE}/test_schema_change.py::"
    "test_an_index_is_not_read_at_a_time_before_it_was_complete[memory]",
)
def _index_of_a_time_before_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Snapshot.page

    def ready_for_ever(self: Snapshot, table: Any, index: Any, *rest: Any, **how: Any) -> Any:
        return page(self, table, index and replace(index, since_ts=0), *rest, **how)

    monkeypatch.setattr(Snapshot, "page", ready_for_ever)


@broken(
    "new-definitions-are-no-conflict",
    "serializable",
    "a mutation commits under tables and indexes that are not those it began with",
    caught_by=f"{ENGINE}/test_committer.py::test_a_table_that_appeared_meanwhile_is_a_conflict",
)
def _new_definitions_are_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    stale_since = Committer.stale_since

    def look_away(self: Committer, transaction: Transaction) -> Any:
        transaction.catalog_at_begin = self.catalog
        return stale_since(self, transaction)

    monkeypatch.setattr(Committer, "stale_since", look_away)


@broken(
    "ended-entries-missed",
    "serializable",
    "a read of the past misses keys that have ended since",
    caught_by=f"{STORE}/test_contract.py::"
    "test_trim_forgets_what_ended_and_reads_from_then_on_stay[sqlite]",
)
def _ended_entries_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    index_rows = SqliteTables.index_rows

    def of_the_present(self: SqliteTables, *where: Any) -> Any:
        self._newest_end.clear()
        self._opened_ts = -1
        return index_rows(self, *where)

    monkeypatch.setattr(SqliteTables, "index_rows", of_the_present)


# What is on disk.


@broken(
    "half-a-batch",
    "durable",
    "of a batch that is acknowledged as a whole only the first commit is written",
    caught_by=f"{STORE}/test_recovery.py::"
    "test_what_was_acknowledged_together_is_all_in_the_files_at_that_moment",
)
def _half_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = sqlite.encode_batch

    def first_only(commits: Sequence[Any]) -> bytes:
        # Under the timestamp of the last, or reading it back would be refused as damaged.
        if len(commits) == 1:
            return encode(commits)
        empty = commits[-1].__class__(commits[-1].ts, (), ())
        return encode([commits[0], empty])

    monkeypatch.setattr(sqlite, "encode_batch", first_only)


@broken(
    "read-of-what-may-vanish",
    "durable",
    "a mutation that only read tells what it saw before that is on disk",
    caught_by=f"{ENGINE}/test_committer.py::test_a_transaction_without_writes_waits_for_what_it_saw",
)
def _read_of_what_may_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Committer.commit

    async def hasty(self: Committer, transaction: Transaction, *, alone: bool = False) -> int:
        if not transaction.staging:
            return transaction.begin_ts
        return await commit(self, transaction, alone=alone)

    monkeypatch.setattr(Committer, "commit", hasty)


@broken(
    "failed-writes-stay-visible",
    "durable",
    "after a failed write mutations still see what was to be written",
    caught_by=f"{ENGINE}/test_committer.py::test_after_a_failure_the_durable_state_is_all_there_is",
)
def _failed_writes_stay_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = Committer._fail

    def keep(self: Committer, error: Any) -> None:
        pending, accepted = self.pending, self.accepted_ts
        self.pending = PendingCommits()
        fail(self, error)
        self.pending, self.accepted_ts = pending, accepted

    monkeypatch.setattr(Committer, "_fail", keep)


@broken(
    "writing-on-after-a-failure",
    "durable",
    "after a failed write the next one is tried as if nothing had happened",
    caught_by=f"{STORE}/test_writer_thread.py::test_writers_of_one_store_fail_together",
)
def _writing_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Health, "ensure", lambda self: None)


@broken(
    "damage-unnoticed",
    "durable",
    "the checksum of a batch does not cover its last byte",
    caught_by=f"{STORE}/test_batch_code.py::test_each_changed_byte_is_noticed",
)
def _damage_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batch_code.crc32
    monkeypatch.setattr(batch_code, "crc32", lambda data: whole(data[:-1]))


@broken(
    "two-processes-on-one-directory",
    "durable",
    "a data directory that is in use can be opened again",
    caught_by=f"{STORE}/test_data_lock.py::test_a_second_lock_of_the_same_process_is_refused_too",
)
def _two_processes_on_one_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(self: DataLock) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(DataLock, "acquire", acquire)


@broken(
    "drop-left-half-way",
    "durable",
    "an index whose emptying was cut short keeps what was left",
    caught_by=f"{STORE}/test_sqlite.py::test_a_drop_that_was_interrupted_is_finished_when_opened",
)
def _drop_left_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "read_drops", lambda connection: [])


@broken(
    "moved-to-the-tables-twice",
    "exactly once",
    "at the start every batch of the log is taken, also those the tables hold",
    caught_by=f"{STORE}/test_sqlite.py::test_what_the_tables_hold_already_is_not_moved_twice",
)
def _moved_to_the_tables_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    read = SqliteLog.read
    monkeypatch.setattr(SqliteLog, "read", lambda self, after: read(self, 0))


# Who is told.


@broken(
    "told-too-late",
    "complete push",
    "a reader that subscribes after the commit that touches it is not told",
    caught_by=f"{ENGINE}/test_committer.py::test_subscribing_too_late_says_so_at_once",
)
def _told_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    def subscribe(self: Database, reads: ReadSet, _since: int, on_touched: Any) -> Any:
        return self.committer.subscriptions.add(reads, on_touched)

    monkeypatch.setattr(Database, "subscribe", subscribe)


@broken(
    "filter-that-raises",
    "complete push",
    "a filter that fails on a document counts as not passed",
    caught_by="tests/property/test_subscriptions.py::"
    "test_the_subscriptions_found_are_those_whose_reads_are_touched",
)
def _filter_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(predicate: Any, document: Any) -> bool:
        try:
            return predicate is None or bool(predicate(document))
        except Exception:
            return False

    monkeypatch.setattr(subscriptions_module, "passes", passes)


@broken(
    "one-subscriber-stops-all",
    "robust",
    "a subscriber that fails keeps those behind it from hearing",
    caught_by=f"{ENGINE}/test_subscriptions.py::"
    "test_one_subscriber_that_fails_does_not_keep_the_others_from_hearing",
)
def _one_subscriber_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(self: Subscriptions, commit: Any) -> int:
        touched = self.touched(commit)
        for subscription in touched:
            self.cancel(subscription)
            subscription.on_touched(commit.ts)
        return len(touched)

    monkeypatch.setattr(Subscriptions, "publish", publish)


# What is held.


@broken(
    "memory-beyond-the-budget",
    "bounded",
    "nothing leaves memory when the budget of hot ranges is spent",
    caught_by=f"{ENGINE}/test_hot_ranges.py::test_the_least_recently_used_goes_first_and_whole",
)
def _memory_beyond_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HotRanges, "_make_room", lambda self: None)


@broken(
    "commits-queue-without-end",
    "bounded",
    "commits are accepted however many wait for the disk",
    caught_by=f"{ENGINE}/test_committer.py::test_a_full_queue_makes_new_commits_wait",
)
def _commits_queue_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Committer._accept

    def and_open(self: Committer, transaction: Transaction) -> int:
        ts = accept(self, transaction)
        self._room.set()
        return ts

    monkeypatch.setattr(Committer, "_accept", and_open)


@broken(
    "memtable-without-end",
    "bounded",
    "appends never wait for the tables, however much memory the log's commits take",
    caught_by=f"{STORE}/test_materialiser.py::test_more_waits_while_memory_is_full",
)
def _memtable_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Materialiser, "_update_room", lambda self: self._room.set())


@broken(
    "log-without-end",
    "bounded",
    "batches stay in the log when the tables hold them",
    caught_by=f"{STORE}/test_materialiser.py::test_settling_moves_everything_and_empties_the_log",
)
def _log_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: SqliteLog, through: int) -> None:
        return

    monkeypatch.setattr(SqliteLog, "forget", forget)


@broken(
    "records-for-ever",
    "bounded",
    "records of requests stay when nobody can repeat those requests any more",
    caught_by=f"{ENGINE}/test_retention.py::test_records_of_requests_go_when_they_are_old",
)
def _records_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: Retention) -> bool:
        return False

    monkeypatch.setattr(Retention, "_forget_records", forget)


@broken(
    "uncounted-reads",
    "bounded",
    "rows taken together count towards no limit",
    caught_by=f"{ENGINE}/test_transaction.py::"
    "test_rows_taken_together_count_one_by_one_up_to_the_limit",
)
def _uncounted_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scan, "_counted", lambda self, rows: True)
