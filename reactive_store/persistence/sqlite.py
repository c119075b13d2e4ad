"""Commits kept in one SQLite file: one connection writes on a thread, one reads where it is called.

Readers never wait for the writer, nor it for them: the file is in write-ahead-log mode. The reading
connection keeps one view of the file open and renews it when asked for a timestamp the view may
not contain; between two commits reads therefore share a view and its warm cache. A view is never
older than `last_ts` was when it was opened, and what it shows beyond the timestamp asked for is
put back from the history, so its exact age does not matter.

The log is copied into the file (a checkpoint) when nothing was written for a moment, or when it has
grown past a bound. Both happen on the writer's thread after a batch was acknowledged.

Source: SQLite's documentation of write-ahead logging, and docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite

from reactive_store.errors import StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    BackfillEntry,
    Commit,
    IndexId,
    Page,
    Row,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite_format import (
    Synchronous,
    connect_reader,
    connect_writer,
)
from reactive_store.persistence.sqlite_writes import (
    SQL,
    begin_drop,
    drop_rows,
    fill_entries,
    read_clock,
    read_drops,
    store_global,
    trim_rows,
    write_commits,
)

__all__ = ["SqlitePersistence"]

T = TypeVar("T")

_NO_VIEW: Final = -1

# A row written dirties about a page of 4 KiB in the log.
_CHECKPOINT_ROWS: Final = 1000  # worth a checkpoint when nothing else happens
_CHECKPOINT_ROWS_AT_MOST: Final = 4_000  # a checkpoint even under load; bounds the log's length
_IDLE_S: Final = 0.1

_make_row: Final[Callable[[Any], Row]] = Row._make


def _scans(name: str) -> dict[tuple[bool, bool], str]:
    """The four forms of a range query by (descending, has an upper bound)."""
    return {
        (descending, bounded): SQL[
            f"{name}_{'descending' if descending else 'ascending'}{'' if bounded else '_unbounded'}"
        ]
        for descending in (False, True)
        for bounded in (False, True)
    }


_SCAN: Final = _scans("scan")
_SCAN_TABLE: Final = _scans("scan_table")
_SCAN_PAST: Final = {False: SQL["scan_past_ascending"], True: SQL["scan_past_descending"]}
_GET: Final = SQL["get"]
_VERSION_OF_DOCUMENT: Final = SQL["version_of_document"]
_VERSION_OF_ENTRY: Final = SQL["version_of_entry"]


class _Writer(aiosqlite.Connection):
    """A connection that runs whole pieces of work on its thread: one hop per piece, not per row."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(lambda: connection, iter_chunk_size=64)
        # What was acknowledged is on disk, so a process that ends in a hurry need not wait for us.
        self._thread.daemon = True

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, run after everything that was handed in before it."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, partial(work, self._conn)))
        return await future

    def submit(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Let `work` run; nobody waits for it."""
        self._tx.put_nowait((None, partial(work, self._conn)))


class SqlitePersistence:
    """The contract's promises over one file. Open with `SqlitePersistence.open`.

    Belongs to the event loop it was opened on. One process at a time: take a `DataLock` first.
    """

    __slots__ = (
        "_closed",
        "_failure",
        "_idle_timer",
        "_last_ts",
        "_limits",
        "_newest_end",
        "_next_doc",
        "_opened_ts",
        "_reader",
        "_rows_in_log",
        "_submitted",
        "_submitted_ts",
        "_view_ts",
        "_writer",
    )

    def __init__(
        self, writer: _Writer, reader: sqlite3.Connection, clock: tuple[int, int], limits: Limits
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._limits = limits
        # Set on the writer's thread once a batch is durable; read anywhere.
        self._last_ts, self._next_doc = clock
        self._opened_ts = self._last_ts
        # The newest timestamp handed to the writer. At or above it there is no past to look at.
        self._submitted_ts = self._last_ts
        self._submitted = 0  # batches handed in; tells the idle timer whether anything happened
        # Per index, the newest end of an entry handed to the writer since the file was opened.
        self._newest_end: dict[int, int] = {}
        # The reader's open view holds every commit up to here; _NO_VIEW: none is open.
        self._view_ts = _NO_VIEW
        self._rows_in_log = 0  # since the last checkpoint
        self._idle_timer: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None  # what ended writing; set once, on the thread
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, synchronous: Synchronous = "FULL", limits: Limits | None = None
    ) -> SqlitePersistence:
        """Open the file, or make it.

        Raises   BadRequest[DataDirectoryTooNew] when a newer version of the product wrote it,
                 BadRequest[DataFileUnreadable] when it is damaged, foreign or out of reach
        """
        limits = Limits() if limits is None else limits
        # Here and not on the thread: if it fails, no thread is left behind that the loop would have
        # to outlive. Opening takes a moment, and nobody is served before it is done.
        connection = connect_writer(path, synchronous, limits)
        writer = _Writer(connection)
        await writer
        try:
            clock = await writer.run(read_clock)
            reader = connect_reader(path, limits)
        except BaseException:
            await writer.close()
            raise
        store = cls(writer, reader, clock, limits)
        for index in await writer.run(read_drops):
            await store.drop_index(IndexId(index))
        return store

    @property
    def last_ts(self) -> Timestamp:
        return Timestamp(self._last_ts)

    # Reads

    def _renew_view(self) -> None:
        if self._view_ts != _NO_VIEW:
            self._reader.execute("COMMIT")
            self._view_ts = _NO_VIEW
        # In this order: the view opens with its first query, so it can only hold more.
        view_ts = self._last_ts
        self._reader.execute("BEGIN")
        self._view_ts = view_ts

    def _release_view(self) -> None:
        if self._view_ts != _NO_VIEW:
            self._view_ts = _NO_VIEW
            self._reader.execute("COMMIT")

    def get(self, table: TableNumber, id: bytes, at: Timestamp) -> Row | None:
        if at > self._view_ts:
            self._renew_view()
        found = self._reader.execute(_GET, (table, id)).fetchone()
        if found is None:
            return None
        if found[2] <= at:
            return None if found[3] is None else _make_row(found)
        return self._past_row(_make_row(found), _VERSION_OF_DOCUMENT, table, at)

    def scan(
        self,
        index: IndexId,
        start: bytes,
        end: bytes | None,
        at: Timestamp,
        *,
        descending: bool,
        limit: int,
    ) -> Page:
        if at > self._view_ts:
            self._renew_view()
        parameters = (index, start, end, at, limit + 1)
        statement = _SCAN[descending, end is not None]
        rows = list(map(_make_row, self._reader.execute(statement, parameters)))
        if at < self._submitted_ts:
            rows = self._rows_as_of(rows, _VERSION_OF_ENTRY, index, at)
            if self._newest_end.get(index, self._opened_ts) > at:
                past = self._reader.execute(_SCAN_PAST[descending], parameters).fetchall()
                if past:
                    rows += map(_make_row, past)
                    rows.sort(reverse=descending)
        if len(rows) > limit:
            return Page(rows[:limit], exhausted=False)
        return Page(rows, exhausted=True)

    def scan_table(
        self,
        table: TableNumber,
        start: bytes,
        end: bytes | None,
        at: Timestamp,
        *,
        descending: bool,
        limit: int,
    ) -> Page:
        if at > self._view_ts:
            self._renew_view()
        statement = _SCAN_TABLE[descending, end is not None]
        rows: list[Row] = []
        while True:
            missing = limit + 1 - len(rows)
            parameters = (table, start, end, at, missing)
            found = list(map(_make_row, self._reader.execute(statement, parameters)))
            rows += self._rows_as_of(found, _VERSION_OF_DOCUMENT, table, at)
            if len(rows) > limit:
                return Page(rows[:limit], exhausted=False)
            if len(found) < missing:
                return Page(rows, exhausted=True)
            # Some of the documents were made after `at`; more may lie beyond the last one.
            if descending:
                end, statement = found[-1].key, _SCAN_TABLE[True, True]
            else:
                start = found[-1].key + b"\x00"

    def _rows_as_of(self, rows: list[Row], statement: str, space: int, at: int) -> list[Row]:
        """The rows with the versions of `at`; those without one are left out."""
        for row in rows:
            if row[2] > at:
                break
        else:
            return rows
        versions = (
            row if row[2] <= at else self._past_row(row, statement, space, at) for row in rows
        )
        return [row for row in versions if row is not None]

    def _past_row(self, row: Row, statement: str, space: int, at: int) -> Row | None:
        """The row with the version of `at`; `space` is the table or index its key belongs to."""
        version = self._reader.execute(statement, (at, space, row.key)).fetchone()
        if version is None or version[0] > at:
            return None
        return Row(row.key, row.id, *version)

    def get_global(self, name: str) -> bytes | None:
        self._release_view()
        found = self._reader.execute(SQL["get_global"], (name,)).fetchone()
        return None if found is None else bytes(found[0])

    # Writes

    async def append(self, commits: Sequence[Commit]) -> None:
        newest = self._submitted_ts
        for commit in commits:
            if commit.ts <= newest:
                raise AssertionError(f"commit {commit.ts} is not above {newest}")
            newest = commit.ts
        if not commits:
            return
        self._submitted_ts = newest
        self._submitted += 1
        for commit in commits:
            for entry in commit.entries:
                if not entry.present:
                    self._newest_end[entry.index] = commit.ts
        await self._write(partial(self._append_commits, commits))
        self._plan_checkpoint()

    def _append_commits(self, commits: Sequence[Commit], connection: sqlite3.Connection) -> None:
        """On the writer's thread. Ends even if whoever waits for it is cancelled."""
        work = partial(write_commits, commits=commits, next_doc=self._next_doc)
        next_doc, rows = self._transact(work, connection)
        self._next_doc = next_doc
        self._rows_in_log += rows
        self._last_ts = commits[-1].ts

    async def backfill(self, index: IndexId, entries: Sequence[BackfillEntry]) -> int:
        work = partial(fill_entries, index=index, entries=entries)
        return await self._write_rows(work, len(entries))

    async def drop_index(self, index: IndexId) -> None:
        await self._write_rows(partial(begin_drop, index=index), 1)
        limit = self._limits.trim_rows
        # In pieces, so that commits get their turn in between.
        while not await self._write_rows(partial(drop_rows, index=index, limit=limit), limit):
            pass

    async def trim(self, before: Timestamp) -> int:
        limit = self._limits.trim_rows
        return await self._write_rows(partial(trim_rows, before=before, limit=limit), limit)

    async def set_global(self, name: str, value: bytes) -> None:
        await self._write_rows(partial(store_global, name=name, value=value), 1)

    async def _write_rows(self, work: Callable[[sqlite3.Connection], T], rows: int) -> T:
        """A durable write that makes no commit; `rows` is what it may add to the log."""
        result = await self._write(partial(self._transact, work))
        self._rows_in_log += rows
        # Commits are told apart by their timestamps; this change has none, so the view must go.
        if not self._closed:
            self._release_view()
        self._plan_checkpoint()
        return result

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreFailed("The store is closed.")
        try:
            return await self._writer.run(work)
        except sqlite3.Error as error:
            raise StoreFailed(
                f"The data file did not take a write: {error}. No more writes are accepted until "
                "the server is started again; make room on the disk or repair it first."
            ) from error

    def _transact(
        self, work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection
    ) -> T:
        """On the writer's thread: all of `work`, or nothing and never again."""
        if self._failure is not None:
            raise StoreFailed(
                f"An earlier write failed ({self._failure}); start the server again to write."
            ) from self._failure
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            self._failure = error
            self._roll_back(connection)
            raise
        return result

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        try:
            # SQLite has often rolled back by itself, and a disk that fails may fail here again.
            # Either way the log ends before this transaction, which is all that counts.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            return

    # The log

    def _plan_checkpoint(self) -> None:
        if self._rows_in_log >= _CHECKPOINT_ROWS_AT_MOST:
            self._checkpoint()
        elif self._rows_in_log >= _CHECKPOINT_ROWS and self._idle_timer is None:
            self._watch_for_idleness()

    def _watch_for_idleness(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(_IDLE_S, self._checkpoint_if_idle, self._submitted)

    def _checkpoint_if_idle(self, submitted: int) -> None:
        self._idle_timer = None
        if self._closed or self._rows_in_log < _CHECKPOINT_ROWS:
            return
        if submitted == self._submitted:
            self._checkpoint()
        else:
            self._watch_for_idleness()

    def _checkpoint(self) -> None:
        """Copy the log into the file; an open view would keep the log from being used anew."""
        if self._closed:
            return
        self._rows_in_log = 0
        self._release_view()
        self._writer.submit(self._copy_log)

    def _copy_log(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # Nothing is lost, the log holds it all; but this disk can no longer be trusted.
            self._failure = self._failure or error

    async def close(self) -> None:
        """Wait for writes under way, then let go of the file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self._release_view()
        self._reader.close()
        await self._writer.run(self._copy_whole_log)
        await self._writer.close()

    def _copy_whole_log(self, connection: sqlite3.Connection) -> None:
        if self._failure is not None:
            return
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            self._failure = error

    def check(self) -> list[str]:
        """What is wrong with the file, one line each; empty when it is sound.

        Cost     reads everything
        """
        self._release_view()
        problems = [
            f"file: {line}"
            for (line,) in self._reader.execute("PRAGMA quick_check(20)")
            if line != "ok"
        ]
        for name in ("check_entries", "check_entry_history", "check_history", "check_clock"):
            problems += [line for (line,) in self._reader.execute(SQL[name])]
        return problems
