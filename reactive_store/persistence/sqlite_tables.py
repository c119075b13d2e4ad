"""The data file: commits as rows of tables, read where the call is made, written on a thread.

Readers never wait for the writer, nor it for them: the file is in write-ahead-log mode. The reading
connection keeps one view of the file open, with a warm cache, until `renew_view`; the view shows at
least what was written when it was opened. What it shows beyond the timestamp asked for is put back
from the history, so its exact age does not matter to reads of times that it holds.

Commits are written without waiting for the disk, several thousand in one transaction, and are
durable after the next `checkpoint` or `write`. Until then another place must hold them.

Source: SQLite's documentation of write-ahead logging, and docs/architecture.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from reactive_store.limits import Limits
from reactive_store.persistence.contract import Commit, IndexId, Row, TableNumber
from reactive_store.persistence.sqlite_format import (
    Synchronous,
    connect_reader,
    connect_writer,
    unreadable,
)
from reactive_store.persistence.sqlite_writes import SQL, read_clock, write_commits
from reactive_store.persistence.writer_thread import Health, Pacer, WriterThread

__all__ = ["SqliteTables"]

T = TypeVar("T")

# Documents worked through at a time, so that the interpreter lock changes hands often: whoever
# waits for it is the loop.
_SLICE_DOCUMENTS: Final = 64

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


class SqliteTables:
    """The tables of one data file. Open with `SqliteTables.open`."""

    __slots__ = (
        "_has_view",
        "_newest_end",
        "_next_doc",
        "_opened_ts",
        "_reader",
        "_submitted_ts",
        "_synchronous",
        "durable_ts",
        "rows_in_log",
        "thread",
        "written_ts",
    )

    def __init__(
        self,
        thread: WriterThread,
        reader: sqlite3.Connection,
        clock: tuple[int, int],
        synchronous: Synchronous,
    ) -> None:
        self.thread = thread
        self._reader = reader
        self._synchronous = synchronous
        # Set on the thread when commits are written; `durable_ts` when they are durable too.
        self.written_ts, self._next_doc = clock
        self.durable_ts = 0
        self._opened_ts = self.written_ts
        # The newest timestamp handed to the thread. At or above it there is no past to look at.
        self._submitted_ts = self.written_ts
        # Per index, the newest end of an entry handed to the thread since the file was opened.
        self._newest_end: dict[int, int] = {}
        self._has_view = False  # whether the reader is inside a transaction
        self.rows_in_log = 0  # about how many rows were written since the last checkpoint

    @classmethod
    async def open(
        cls, path: Path, synchronous: Synchronous, limits: Limits, health: Health, pacer: Pacer
    ) -> SqliteTables:
        """Open the file, or make it.

        Raises   BadRequest[DataDirectoryTooNew] when a newer version of the product wrote it,
                 BadRequest[DataFileUnreadable] when it is damaged, foreign or out of reach
        """
        # Here and not on the thread: if it fails, no thread is left behind that the loop would have
        # to outlive. Opening takes a moment, and nobody is served before it is done.
        connection = connect_writer(path, "NORMAL", limits)
        thread = WriterThread(connection, health, pacer)
        await thread
        try:
            clock = await thread.run(read_clock)
            reader = connect_reader(path, limits)
        except sqlite3.Error as error:
            await thread.close()
            raise unreadable(path, error) from error
        except BaseException:
            await thread.close()
            raise
        return cls(thread, reader, clock, synchronous)

    # Reads

    def _open_view(self) -> None:
        self._reader.execute("BEGIN")
        self._has_view = True

    def renew_view(self) -> None:
        """Let the next read see all that is written by now."""
        if self._has_view:
            self._has_view = False
            self._reader.execute("COMMIT")

    def get(self, table: TableNumber, id: bytes, at: int) -> Row | None:
        """The document's version at `at`, as far as it is in the tables."""
        if not self._has_view:
            self._open_view()
        found = self._reader.execute(_GET, (table, id)).fetchone()
        if found is None:
            return None
        if found[2] <= at:
            return None if found[3] is None else _make_row(found)
        return self._past_row(_make_row(found), _VERSION_OF_DOCUMENT, table, at)

    def index_rows(
        self, index: IndexId, start: bytes, end: bytes | None, at: int, descending: bool, count: int
    ) -> list[Row]:
        """Up to `count` rows of an index; fewer only when the range has no more."""
        if not self._has_view:
            self._open_view()
        parameters = (index, start, end, at, count)
        statement = _SCAN[descending, end is not None]
        rows = list(map(_make_row, self._reader.execute(statement, parameters)))
        if at >= self._submitted_ts:
            return rows
        rows = self._rows_as_of(rows, _VERSION_OF_ENTRY, index, at)
        if self._newest_end.get(index, self._opened_ts) > at:
            past = self._reader.execute(_SCAN_PAST[descending], parameters).fetchall()
            if past:
                rows += map(_make_row, past)
                rows.sort(reverse=descending)
                del rows[count:]
        return rows

    def table_rows(
        self,
        table: TableNumber,
        start: bytes,
        end: bytes | None,
        at: int,
        descending: bool,
        count: int,
    ) -> list[Row]:
        """Up to `count` rows of a table by id; fewer only when the range has no more."""
        if not self._has_view:
            self._open_view()
        statement = _SCAN_TABLE[descending, end is not None]
        rows: list[Row] = []
        while True:
            missing = count - len(rows)
            parameters = (table, start, end, at, missing)
            found = list(map(_make_row, self._reader.execute(statement, parameters)))
            rows += self._rows_as_of(found, _VERSION_OF_DOCUMENT, table, at)
            if len(rows) >= count or len(found) < missing:
                return rows
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

    def table_of(self, index: IndexId) -> TableNumber | None:
        """The table whose documents an index holds; None when it holds nothing."""
        found = self._reader.execute(SQL["table_of_index"], (index,)).fetchone()
        return None if found is None else found[0]

    def get_global(self, name: str) -> bytes | None:
        """A named byte string, or None."""
        self.renew_view()
        found = self._reader.execute(SQL["get_global"], (name,)).fetchone()
        return None if found is None else bytes(found[0])

    # Writes

    async def write(self, work: Callable[[sqlite3.Connection], T], rows: int) -> T:
        """Something that is no commit, durably; `rows` is about how many it changes.

        Raises   StoreFailed
        """
        result = await self.thread.write(work, synchronous=self._synchronous)
        self.rows_in_log += rows
        self.renew_view()
        return result

    async def write_commits(self, commits: Sequence[Commit]) -> None:
        """Put commits into the tables, in one transaction. Reads see them after `renew_view`.

        Raises   StoreFailed; AssertionError when a commit gives a key to two documents
        """
        self._submitted_ts = commits[-1].ts
        for commit in commits:
            for entry in commit.entries:
                if not entry.present:
                    self._newest_end[entry.index] = commit.ts
        rows = await self.thread.write(partial(self._write_slices, commits))
        self.rows_in_log += rows

    def _write_slices(self, commits: Sequence[Commit], connection: sqlite3.Connection) -> int:
        """On the thread."""
        next_doc, total, first, documents = self._next_doc, 0, 0, 0
        for position, commit in enumerate(commits, start=1):
            documents += len(commit.documents)
            if documents >= _SLICE_DOCUMENTS or position == len(commits):
                next_doc, rows = write_commits(connection, commits[first:position], next_doc)
                total += rows
                first, documents = position, 0
        # Should the end of the transaction fail, nothing is written any more.
        self._next_doc = next_doc
        self.written_ts = commits[-1].ts
        return total

    async def checkpoint(self) -> None:
        """Make everything written durable, and the write-ahead log free to begin anew.

        Cost     writes each page changed since the last one
        """
        self.renew_view()
        self.rows_in_log = 0
        written = await self.thread.run(self._copy_log)
        self.durable_ts = max(self.durable_ts, written)
        # A view opened meanwhile reads the log, and would keep it from being used again.
        self.renew_view()

    def _copy_log(self, connection: sqlite3.Connection) -> int:
        """On the thread."""
        written = self.written_ts
        return written if self.thread.checkpoint("PASSIVE", connection) else 0

    async def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):  # a view of a damaged file may not even end well
            self.renew_view()
        self._reader.close()
        await self.thread.run(partial(self.thread.checkpoint, "TRUNCATE"))
        await self.thread.close()

    def check(self) -> list[str]:
        """What is wrong with the file, one line each; empty when it is sound.

        Cost     reads everything
        """
        self.renew_view()
        problems = [
            f"file: {line}"
            for (line,) in self._reader.execute("PRAGMA quick_check(20)")
            if line != "ok"
        ]
        for name in ("check_entries", "check_entry_history", "check_history", "check_clock"):
            problems += [line for (line,) in self._reader.execute(SQL[name])]
        return problems
