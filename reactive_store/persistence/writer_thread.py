"""A SQLite connection that writes on a thread of its own, and what the writers of a store share.

Work is handed over in whole pieces, one hop per piece and not per row. Writers share one `Health`:
after the first write that fails, none of them writes again until the next start, since what the
disk holds is not certain any more.

They also share one `Pacer`. A thread asks for the interpreter lock each time SQLite hands back
control. A loop that never rests lets go of the lock often, but only for microseconds, takes it back
before the thread has woken up, and so never holds it long enough to be told to let go: measured,
commits waited for a second. So while work is under way the loop stands still on purpose, for an
instant every half millisecond.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import aiosqlite

from reactive_store.errors import StoreFailed

__all__ = ["Health", "Pacer", "WriterThread", "refused"]

T = TypeVar("T")

_PACE_S: Final = 0.000_5
_PAUSE_S: Final = 0.000_02  # asked for; the system makes it the time a thread needs to wake up


class Pacer:
    """Lets threads have the interpreter lock while work they were given is under way."""

    __slots__ = ("_is_ticking", "_loop", "_under_way")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._under_way = 0
        self._is_ticking = False

    def begin(self) -> None:
        """Work was given to a thread."""
        self._under_way += 1
        if not self._is_ticking:
            self._is_ticking = True
            self._loop.call_later(_PACE_S, self._tick)

    def end(self) -> None:
        """It is done, as the loop knows."""
        self._under_way -= 1

    def _tick(self) -> None:
        if self._under_way:
            time.sleep(_PAUSE_S)
            self._loop.call_later(_PACE_S, self._tick)
        else:
            self._is_ticking = False


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

    def __init__(self, connection: sqlite3.Connection, health: Health, pacer: Pacer) -> None:
        super().__init__(lambda: connection, iter_chunk_size=64)
        self._health = health
        self._pacer = pacer
        self._loop = asyncio.get_running_loop()
        # What was acknowledged is on disk, so a process that ends in a hurry need not wait for us.
        self._thread.daemon = True

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, run after everything that was handed in before it."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._pacer.begin()
        try:
            self._tx.put_nowait((future, partial(work, self._conn)))
            return await future
        finally:
            self._pacer.end()

    def submit(
        self,
        work: Callable[[sqlite3.Connection], object],
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Let `work` run, then call `done` on the loop with what went wrong, or None.

        `done` is called whatever becomes of who waits for it, in the order of the calls.
        """
        self._pacer.begin()
        self._tx.put_nowait((None, partial(self._run_and_tell, work, done, self._conn)))

    def _run_and_tell(
        self,
        work: Callable[[sqlite3.Connection], object],
        done: Callable[[BaseException | None], None],
        connection: sqlite3.Connection,
    ) -> None:
        """On the thread."""
        error: BaseException | None = None
        try:
            self._health.ensure()
            work(connection)
        except Exception as caught:  # noqa: BLE001 - handed to whoever waits
            self._health.fail(caught)
            error = caught
        self._loop.call_soon_threadsafe(self._tell, done, error)

    def _tell(
        self, done: Callable[[BaseException | None], None], error: BaseException | None
    ) -> None:
        self._pacer.end()
        done(error)

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
