"""A SQLite connection that writes on a thread of its own, and the fate writers share.

Work is handed over in whole pieces, one hop per piece and not per row. Several writers may share
one `Health`: after the first write that fails, none of them writes again until the next start,
since what the disk holds is not certain any more.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import aiosqlite

from reactive_store.errors import StoreFailed

__all__ = ["Health", "WriterThread", "refused"]

T = TypeVar("T")


class Health:
    """Whether writing may go on. One per store; read and set on any thread."""

    __slots__ = ("failure",)

    def __init__(self) -> None:
        self.failure: BaseException | None = None  # what ended writing; set once

    def ensure(self) -> None:
        """Raises   StoreFailed after a write has failed."""
        if self.failure is not None:
            raise StoreFailed(
                f"An earlier write failed ({self.failure}); start the server again to write."
            ) from self.failure

    def fail(self, error: BaseException) -> None:
        """No more writes, because of `error`; the first one is remembered."""
        if self.failure is None:
            self.failure = error


class WriterThread(aiosqlite.Connection):
    """One connection and the thread it works on. Await it once before use."""

    def __init__(self, connection: sqlite3.Connection, health: Health) -> None:
        super().__init__(lambda: connection, iter_chunk_size=64)
        self._health = health
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

    async def write(
        self, work: Callable[[sqlite3.Connection], T], *, synchronous: str | None = None
    ) -> T:
        """One transaction: all of `work`, or nothing and never again.

        `synchronous`: SQLite's word for how it waits for the disk; the connection's own if None.

        Raises   StoreFailed
        """
        try:
            return await self.run(partial(self._transact, work, synchronous))
        except sqlite3.Error as error:
            raise refused(error) from error

    def _transact(
        self,
        work: Callable[[sqlite3.Connection], T],
        synchronous: str | None,
        connection: sqlite3.Connection,
    ) -> T:
        """On the thread."""
        self._health.ensure()
        before = None
        try:
            if synchronous is not None:
                (before,) = connection.execute("PRAGMA synchronous").fetchone()
                connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            if before is not None:
                connection.execute(f"PRAGMA synchronous = {before}")
        except BaseException as error:
            self._health.fail(error)
            _roll_back(connection)
            raise
        return result

    def checkpoint(self, mode: str, connection: sqlite3.Connection) -> bool:
        """On the thread: copy the write-ahead log into the file; `mode` is SQLite's word.

        Returns whether all of it was copied, and so is durable.

        A checkpoint that fails loses nothing, the log holds it all; but the disk is not trusted
        any more.
        """
        if self._health.failure is not None:
            return False
        try:
            _, pages, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            self._health.fail(error)
            return False
        return bool(pages == copied)


def refused(error: sqlite3.Error) -> StoreFailed:
    """What whoever asked for the write is told."""
    return StoreFailed(
        f"The data file did not take a write: {error}. No more writes are accepted until the "
        "server is started again; make room on the disk or repair it first."
    )


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        # SQLite has often rolled back by itself, and a disk that fails may fail here again.
        # Either way the log ends before this transaction, which is all that counts.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return
