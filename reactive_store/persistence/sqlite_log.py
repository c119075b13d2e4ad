"""The log file: each batch of commits as one row, durable before anybody hears of it.

A batch stays in the log until the tables hold it durably; then `forget` deletes it, and its room is
used again. Appending is the only thing anybody waits for: rows are deleted in small pieces, and the
bulk of the write-ahead log is copied by a second connection on whatever thread offers itself, so
that an append never waits for more than the last bit of it.

Source: SQLite's documentation of write-ahead logging, and docs/decisions/0013-log-first.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.batch_code import decode_batch
from reactive_store.persistence.contract import Commit
from reactive_store.persistence.sqlite_format import (
    Synchronous,
    connect_log,
    connect_reader,
    unreadable,
)
from reactive_store.persistence.sqlite_writes import SQL
from reactive_store.persistence.writer_thread import Health, Pacer, WriterThread

__all__ = ["SqliteLog", "log_path"]

_FORGET_ROWS: Final = 64  # deleted at a time

_APPEND: Final = SQL["append_batch"]
_READ: Final = SQL["read_batches"]


def log_path(data: Path) -> Path:
    """Where the log of a data file is."""
    name = "log.sqlite3" if data.name == "data.sqlite3" else f"{data.stem}-log{data.suffix}"
    return data.with_name(name)


class SqliteLog:
    """The log of one data file. Open with `SqliteLog.open`."""

    __slots__ = ("_copier", "_limits", "_path", "_thread")

    def __init__(
        self, path: Path, thread: WriterThread, copier: sqlite3.Connection, limits: Limits
    ) -> None:
        self._path = path
        self._limits = limits
        self._thread = thread
        # Belongs to whatever thread copies, once appends have begun.
        self._copier = copier

    @classmethod
    async def open(
        cls, path: Path, synchronous: Synchronous, limits: Limits, health: Health, pacer: Pacer
    ) -> SqliteLog:
        """Open the file, or make it.

        Raises   BadRequest as `SqliteTables.open` does
        """
        connection = connect_log(path, synchronous, limits)
        try:
            copier = connect_log(path, synchronous, limits)
        except BaseException:
            connection.close()
            raise
        thread = WriterThread(connection, health, pacer)
        await thread
        return cls(path, thread, copier, limits)

    def is_paired(self, store: bytes | None, written_ts: int) -> bool:
        """Whether it knows its data file: the one with the id `store`, which ends at `written_ts`.

        False for a log of nobody, and for one of another file if it is empty, as it is after a
        clean end: it may be given to this one with `pair`. Before the first append.

        Raises   BadRequest[DataFileUnreadable] when it belongs to another data file, or to a newer
                 state of this one
        """
        try:
            (exists,) = self._copier.execute(SQL["has_pairing"]).fetchone()
            found = self._copier.execute(SQL["read_pairing"]).fetchone() if exists else None
        except sqlite3.Error as error:
            raise unreadable(self._path, error) from error
        if found is None:
            return False
        owner, forgotten_ts, holds_batches = found
        if owner != store:
            if holds_batches:
                raise self._foreign("It holds commits of another data file.")
            return False
        if forgotten_ts > written_ts:
            raise self._foreign(
                f"The data file ends with commit {written_ts}, but the log was told that "
                f"everything up to {forgotten_ts} is in it: it is an older copy."
            )
        return True

    def pair(self, store: bytes) -> None:
        """Make it the log of the data file with the id `store`, durably.

        Raises   BadRequest[DataFileUnreadable]
        """
        try:
            self._copier.execute(SQL["create_pairing"])
            self._copier.execute(SQL["set_pairing"], (store,))
        except sqlite3.Error as error:
            raise unreadable(self._path, error) from error

    def _foreign(self, reason: str) -> BadRequest:
        return BadRequest(
            f"{self._path} is not the log of the data file beside it. {reason} Put back both files "
            "of one copy; nothing was changed.",
            code="DataFileUnreadable",
        )

    def append(self, ts: int, batch: bytes, done: Callable[[BaseException | None], None]) -> None:
        """Make a batch durable, then call `done` on the loop with what went wrong, or None.

        `done` is called whatever becomes of who waits for it, in the order of the calls.
        """
        # A transaction of its own: no BEGIN and no COMMIT to step through.
        self._thread.submit(lambda connection: connection.execute(_APPEND, (ts, batch)), done)

    def read(self, after: int) -> Iterator[tuple[list[Commit], int]]:
        """Every batch whose commits are above `after`, with its size. Before the first append.

        Raises   BadRequest[DataFileUnreadable] when a row is not what was written
        """
        try:
            for ts, batch in self._copier.execute(_READ, (after,)):
                yield self._commits(ts, batch), len(batch)
        except sqlite3.Error as error:
            raise unreadable(self._path, error) from error

    def _commits(self, ts: object, batch: object) -> list[Commit]:
        try:
            commits = _decode(batch)
            if not commits or commits[-1].ts != ts:
                raise ValueError("it does not belong to its place")
        except ValueError as error:
            raise BadRequest(
                f"{self._path}: the batch of timestamp {ts} is damaged: {error}. Put back a copy "
                "of both data files or an export; nothing was changed.",
                code="DataFileUnreadable",
            ) from error
        return commits

    async def forget(self, through: int) -> None:
        """Delete what the tables hold durably: every batch up to `through`.

        Raises   StoreFailed
        """
        delete = partial(_delete, through=through)
        # Not worth waiting for the disk: a batch that comes back is already in the tables.
        while await self._thread.write(delete, synchronous="NORMAL") == _FORGET_ROWS:
            pass

    def copy_most(self, _: sqlite3.Connection) -> None:
        """On any thread, while appends go on: copy the write-ahead log as it is now."""
        self._thread.checkpoint("PASSIVE", self._copier)

    async def copy_rest(self) -> None:
        """Copy what `copy_most` left, so that the write-ahead log begins anew."""
        await self._thread.run(partial(self._thread.checkpoint, "PASSIVE"))

    async def flush(self) -> None:
        """Wait until every append handed in so far is done."""
        await self._thread.run(_nothing)

    async def close(self) -> None:
        """Let go of the file."""
        self._copier.close()
        await self._thread.run(partial(self._thread.checkpoint, "TRUNCATE"))
        await self._thread.close()

    def check(self) -> list[str]:
        """What is wrong with the file, one line each; empty when it is sound.

        Cost     reads everything
        """
        # A connection of its own: the others are at work on their threads.
        with closing(connect_reader(self._path, self._limits)) as reader:
            problems = [
                f"log: {line}"
                for (line,) in reader.execute("PRAGMA quick_check(20)")
                if line != "ok"
            ]
            last_ts = 0
            for ts, batch in reader.execute(_READ, (0,)):
                try:
                    timestamps = [commit.ts for commit in _decode(batch)]
                except ValueError as error:
                    problems.append(f"log: batch of {ts}: {error}")
                    continue
                ordered = [last_ts, *timestamps]
                if timestamps[-1:] != [ts] or ordered != sorted(set(ordered)):
                    problems.append(f"log: batch of {ts}: its timestamps are wrong")
                last_ts = ts
        return problems


def _decode(batch: object) -> list[Commit]:
    # SQLite keeps a type per value, and damage may change one.
    if not isinstance(batch, bytes):
        raise ValueError("it is no byte string")
    return decode_batch(batch)


def _delete(connection: sqlite3.Connection, through: int) -> int:
    connection.execute(SQL["note_forgotten"], (through,))
    return connection.execute(SQL["forget_batches"], (through, _FORGET_ROWS)).rowcount


def _nothing(_: sqlite3.Connection) -> None:
    return
