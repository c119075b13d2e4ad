"""Commits kept in two SQLite files: a log that is written at once, tables that follow behind.

`append` makes a batch durable as one row of the log and puts it into a memtable; the materialiser
moves it to the tables later. A read asks the tables, through a view that stays as it is between two
rounds and so keeps its cache, and lays over what is in the memtables. At a timestamp all of which
is in the tables it asks them alone.

What is no commit (backfill, drop, trim, globals) is written to the tables at once. Where pending
commits matter to it they are moved first.

Source: docs/decisions/0013-log-first.md and docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from reactive_store.errors import StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.batch_code import encode_batch
from reactive_store.persistence.contract import (
    BackfillEntry,
    Commit,
    IndexId,
    Page,
    Row,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.materialiser import Materialiser
from reactive_store.persistence.memtable import UNKNOWN, Overlay, find_row
from reactive_store.persistence.sqlite_format import Synchronous, unreadable
from reactive_store.persistence.sqlite_log import SqliteLog, log_path
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence.sqlite_writes import (
    begin_drop,
    drop_rows,
    fill_entries,
    read_drops,
    store_global,
    trim_rows,
)
from reactive_store.persistence.writer_thread import Health, Pacer, refused
from reactive_store.runtime import Runtime, SystemRuntime

__all__ = ["SqlitePersistence"]

T = TypeVar("T")

_STORE_ID: Final = "store_id"  # a global of the data file; its log carries the same
_STORE_ID_BYTES: Final = 16


class SqlitePersistence:
    """The contract's promises over two files. Open with `SqlitePersistence.open`.

    Belongs to the event loop it was opened on. One process at a time: take a `DataLock` first.
    """

    __slots__ = (
        "_entrance",
        "_health",
        "_index_tables",
        "_is_closed",
        "_last_ts",
        "_limits",
        "_log",
        "_materialiser",
        "_submitted_ts",
        "_tables",
    )

    def __init__(
        self,
        log: SqliteLog,
        tables: SqliteTables,
        *,
        health: Health,
        limits: Limits,
        runtime: Runtime,
    ) -> None:
        self._log = log
        self._tables = tables
        self._health = health
        self._limits = limits
        self._materialiser = Materialiser(
            log, tables, health=health, limits=limits, runtime=runtime
        )
        # Newest commit that is durable. Moved together with the memtable, by `_logged`.
        self._last_ts = tables.written_ts
        # Newest commit handed to the log.
        self._submitted_ts = self._last_ts
        # Appends that wait for room keep their order here.
        self._entrance = asyncio.Lock()
        # The table of each index met so far; an index holds documents of one table only.
        self._index_tables: dict[int, int] = {}
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        synchronous: Synchronous = "FULL",
        limits: Limits | None = None,
        runtime: Runtime | None = None,
    ) -> SqlitePersistence:
        """Open the data file `path` and its log beside it, or make them.

        Cost     reads what the log holds: about 10 µs per document that was not yet in the tables
        Raises   BadRequest[DataDirectoryTooNew] when a newer version of the product wrote it,
                 BadRequest[DataFileUnreadable] when it is damaged, foreign or out of reach, or the
                 log beside it is that of another data file or of a newer state of this one
        """
        limits = Limits() if limits is None else limits
        runtime = SystemRuntime() if runtime is None else runtime
        health, pacer = Health(), Pacer()
        tables = await SqliteTables.open(path, synchronous, limits, health, pacer)
        log: SqliteLog | None = None
        try:
            log = await SqliteLog.open(log_path(path), synchronous, limits, health, pacer)
            store_id = tables.get_global(_STORE_ID)
            is_paired = log.is_paired(store_id, tables.written_ts)
            # All of it before any of it counts: a damaged log changes nothing.
            batches = list(log.read(tables.written_ts))
            if store_id is None:
                store_id = runtime.random_bytes(_STORE_ID_BYTES)
                name_it = partial(store_global, name=_STORE_ID, value=store_id)
                # Whatever else may be lost with the power: before the log carries it, it is here.
                await tables.thread.write(name_it, synchronous="FULL")
            if not is_paired:
                log.pair(store_id)
        except BaseException as error:
            await tables.close()
            if log is not None:
                await log.close()
            if isinstance(error, sqlite3.Error):
                raise unreadable(path, error) from error
            raise
        store = cls(log, tables, health=health, limits=limits, runtime=runtime)
        try:
            for commits, size in batches:
                store._take(commits, size)
            for index in await tables.thread.run(read_drops):
                await store.drop_index(IndexId(index))
        except BaseException as error:
            await store.close()
            if isinstance(error, sqlite3.Error):
                raise unreadable(path, error) from error
            raise
        return store

    @property
    def last_ts(self) -> Timestamp:
        return Timestamp(self._last_ts)

    # Reads

    def get(self, table: TableNumber, id: bytes, at: Timestamp) -> Row | None:
        if at > self._materialiser.floor_ts:
            for layer in self._materialiser.layers:
                space = layer.documents.get(table)
                if space is not None:
                    row = find_row((space,), id, id, at)
                    if row is not UNKNOWN:
                        return row
        return self._tables.get(table, id, at)

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
        overlay = self._index_overlay(index) if at > self._materialiser.floor_ts else None

        def read(low: bytes, high: bytes | None, count: int) -> list[Row]:
            return self._tables.index_rows(index, low, high, at, descending, count)

        return _merged(read, overlay, start, end, at, descending=descending, limit=limit)

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
        overlay = None
        if at > self._materialiser.floor_ts:
            layers = self._materialiser.layers
            spaces = [layer.documents[table] for layer in layers if table in layer.documents]
            overlay = Overlay(None, spaces) if spaces else None

        def read(low: bytes, high: bytes | None, count: int) -> list[Row]:
            return self._tables.table_rows(table, low, high, at, descending, count)

        return _merged(read, overlay, start, end, at, descending=descending, limit=limit)

    def _index_overlay(self, index: IndexId) -> Overlay | None:
        """What the memtables may know of an index; None: nothing."""
        table = self._index_tables.get(index)
        if table is None:
            table = self._tables.table_of(index)
            if table is None:
                return None  # neither a memtable nor the tables hold anything of it
            self._index_tables[index] = table
        changes, documents = [], []
        for layer in self._materialiser.layers:
            space = layer.documents.get(table)
            if space is not None:
                documents.append(space)
                changed = layer.indexes.get(index)
                if changed is not None:
                    changes.append(changed)
        return Overlay(changes, documents) if documents else None

    def get_global(self, name: str) -> bytes | None:
        return self._tables.get_global(name)

    # Commits

    async def append(self, commits: Sequence[Commit]) -> None:
        self._ensure_open()
        if self._entrance.locked() or not self._materialiser.has_room():
            async with self._entrance:
                await self._materialiser.wait_room()
                self._ensure_open()
                waiter = self._submit(commits)
        else:
            waiter = self._submit(commits)
        if waiter is not None:
            await waiter

    def _submit(self, commits: Sequence[Commit]) -> asyncio.Future[None] | None:
        newest = self._submitted_ts
        for commit in commits:
            if commit.ts <= newest:
                raise AssertionError(f"commit {commit.ts} is not above {newest}")
            newest = commit.ts
        if not commits:
            return None
        batch = encode_batch(commits)
        self._submitted_ts = newest
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log.append(newest, batch, partial(self._logged, commits, len(batch), waiter))
        return waiter

    def _logged(
        self,
        commits: Sequence[Commit],
        size: int,
        waiter: asyncio.Future[None],
        error: BaseException | None,
    ) -> None:
        """On the loop, in order, also when whoever waited has gone."""
        if error is None:
            self._take(commits, size)
        if waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        elif isinstance(error, sqlite3.Error):
            failure = refused(error)
            failure.__cause__ = error
            waiter.set_exception(failure)
        else:
            waiter.set_exception(error)

    def _take(self, commits: Sequence[Commit], size: int) -> None:
        """Let reads see commits that the log holds."""
        tables = self._index_tables
        for commit in commits:
            for entry in commit.entries:
                tables[entry.index] = entry.table
        self._last_ts = commits[-1].ts
        self._submitted_ts = max(self._submitted_ts, self._last_ts)
        self._materialiser.add(commits, size)

    # Other writes

    async def backfill(self, index: IndexId, entries: Sequence[BackfillEntry]) -> int:
        self._ensure_open()
        missing, is_pending = self._missing(index, entries)
        if is_pending:
            # Once per index: documents older than the index are in the tables from then on.
            await self._materialiser.settle()
            missing, _ = self._missing(index, missing)
        # A commit that gets into the log from here on finds the entry in the tables when it is
        # moved there itself, and ends it or keeps it as it says.
        return await self._write(partial(fill_entries, index=index, entries=missing), len(missing))

    def _missing(
        self, index: IndexId, entries: Sequence[BackfillEntry]
    ) -> tuple[list[BackfillEntry], bool]:
        """The entries no pending commit has an answer to, and whether some of them have to wait.

        A newer version has written its own entry; so has the version seen, if it is as young as
        the index. Only what is in the tables can be pointed at there.
        """
        missing, is_pending = [], False
        layers = self._materialiser.layers
        for entry in entries:
            for layer in layers:
                space = layer.documents.get(entry.table)
                version = None if space is None else space.versions.get(entry.id)
                if version is not None:
                    changes = layer.indexes.get(index)
                    change = None if changes is None else changes.versions.get(entry.key)
                    is_taken = change is not None and change[1] is not None
                    if version[0] == entry.seen_ts and not is_taken:
                        missing.append(entry)
                        is_pending = True
                    break
            else:
                missing.append(entry)
        return missing, is_pending

    async def drop_index(self, index: IndexId) -> None:
        self._ensure_open()
        # What is pending would come back to the tables after they were cleared.
        await self._materialiser.settle()
        await self._write(partial(begin_drop, index=index), 1)
        self._index_tables.pop(index, None)
        limit = self._limits.trim_rows
        # In pieces, so that others get their turn in between.
        while not await self._write(partial(drop_rows, index=index, limit=limit), limit):
            pass

    async def trim(self, before: Timestamp) -> int:
        self._ensure_open()
        if before > self._materialiser.floor_ts:
            await self._materialiser.settle()
        limit = self._limits.trim_rows
        return await self._write(partial(trim_rows, before=before, limit=limit), limit)

    async def set_global(self, name: str, value: bytes) -> None:
        self._ensure_open()
        await self._write(partial(store_global, name=name, value=value), 1)

    async def _write(self, work: Callable[[sqlite3.Connection], T], rows: int) -> T:
        result = await self._tables.write(work, rows)
        self._materialiser.note_change()
        return result

    def _ensure_open(self) -> None:
        if self._is_closed:
            raise StoreFailed("The store is closed.")
        self._health.ensure()

    async def close(self) -> None:
        """Wait for writes under way, move what is pending, then let go of the files. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._log.flush()
        await self._materialiser.close()
        # In this order: the thread of the tables may be copying the log for a round cut short.
        await self._tables.close()
        await self._log.close()

    def check(self) -> list[str]:
        """What is wrong with the files, one line each; empty when they are sound.

        Cost     reads everything
        """
        return [*self._tables.check(), *self._log.check()]


def _merged(
    read: Callable[[bytes, bytes | None, int], list[Row]],
    overlay: Overlay | None,
    start: bytes,
    end: bytes | None,
    at: Timestamp,
    *,
    descending: bool,
    limit: int,
) -> Page:
    """A page of what `read` finds in the tables, under what the memtables know (None: nothing)."""
    if overlay is None:
        rows = read(start, end, limit + 1)
    else:
        rows = overlay.merge_rows(read, start, end, at, descending=descending, count=limit + 1)
    return _page(rows, limit)


def _page(rows: list[Row], limit: int) -> Page:
    if len(rows) > limit:
        return Page(rows[:limit], exhausted=False)
    return Page(rows, exhausted=True)
