"""Moves commits from the log to the tables behind everybody's back, and keeps what is in between.

What is logged and not yet in the tables lies in memtables: commits go to the young one; a *round*
sets it aside, starts a new one, writes what was set aside to the tables in one transaction, and
drops it in the step that lets reads see the tables anew. Then it makes the tables durable, and only
then deletes the batches from the log. So at any moment, and after a crash at any moment, each
commit is in the log or durably in the tables, and each read finds it in a memtable or in its view.

A round begins when the young memtable has grown, when nothing has happened for a moment, or when
somebody asks with `settle`. Rounds never overlap.

Source: docs/decisions/0013-log-first.md.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from typing import Final

from reactive_store.errors import StoreError, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Commit
from reactive_store.persistence.memtable import Memtable
from reactive_store.persistence.sqlite_log import SqliteLog
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence.writer_thread import Health
from reactive_store.runtime import Runtime

__all__ = ["Materialiser"]

_LOG = logging.getLogger(__name__)

_ROUND_ROWS: Final = 20_000  # a round even under load
_QUIET_ROWS: Final = 1000  # worth a round when nothing happens for `_QUIET_S`
_QUIET_S: Final = 0.1
_REST_S: Final = 2.0  # after this long any number of rows is


class Materialiser:
    """What is on its way from one log to its tables."""

    __slots__ = (
        "_added",
        "_health",
        "_is_closing",
        "_limits",
        "_log",
        "_quiet_s",
        "_room",
        "_round",
        "_runtime",
        "_tables",
        "_timer",
        "floor_ts",
        "layers",
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
        self._runtime = runtime
        # Every commit above this is in a memtable; those up to it are in the tables, for all reads.
        self.floor_ts = tables.written_ts
        # Newest first: the young memtable, and the one set aside while a round writes it.
        self.layers: tuple[Memtable, ...] = (Memtable(),)
        self._round: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._added = 0  # calls of `add`; tells the timer whether anything happened
        self._quiet_s = 0.0  # how long nothing has
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False

    def add(self, commits: Sequence[Commit], size: int) -> None:
        """Take commits in that have just become durable in the log; `size` in bytes."""
        self.layers[0].add(commits, size)
        self._added += 1
        self._update_room()
        self._plan()

    def note_change(self) -> None:
        """The tables were written to in another way: their write-ahead log may be due."""
        self._added += 1
        self._plan()

    def has_room(self) -> bool:
        """Whether more may be appended at once."""
        return self._room.is_set()

    async def wait_room(self) -> None:
        """Wait until memory allows more. Ends at once after a failure."""
        while not self._room.is_set():
            if self._round is None:
                self._begin_round()
            await self._room.wait()

    async def settle(self) -> None:
        """Wait until everything added so far is in the tables, for all reads.

        Raises   StoreFailed
        """
        target = next((layer.commits[-1].ts for layer in self.layers if layer.commits), 0)
        while self.floor_ts < target:
            self._health.ensure()
            await self._finish_round()

    async def close(self) -> None:
        """Write what is left into the tables and empty the log, unless a write has failed."""
        self._is_closing = True
        self._stop_timer()
        while self._round is not None:
            await self._finish_round()
        if self._health.failure is None:
            await self._finish_round()

    async def _finish_round(self) -> None:
        """Wait for the round under way, or for a new one."""
        if self._round is None:
            self._begin_round()
        assert self._round is not None
        # Not awaited by itself: whoever is cancelled here must not take the round along.
        await asyncio.wait((self._round,))

    def _begin_round(self) -> None:
        self._stop_timer()
        self._round = self._runtime.spawn(self._run_round(), name="materialiser")

    async def _run_round(self) -> None:
        try:
            await self._move()
            await self._make_durable()
        except (StoreError, AssertionError, sqlite3.Error) as error:
            self._health.fail(error)
            _LOG.critical("writing the tables failed, accepting no more commits: %s", error)
        except asyncio.CancelledError:
            # The loop is being torn down. What was set aside stays where it is, in the log; another
            # round in this process could not tell how far this one came.
            self._health.fail(StoreFailed("The store was stopped while it was writing."))
            raise
        finally:
            self._round = None
            self._update_room()
            self._plan()

    async def _move(self) -> None:
        aside = self.layers[0]
        if not aside.commits:
            return
        self.layers = (Memtable(), aside)
        await self._tables.write_commits(aside.commits)
        # From here to the end without waiting: no read may find a commit in neither place.
        self._tables.renew_view()
        self.floor_ts = aside.commits[-1].ts
        self.layers = self.layers[:1]
        self._update_room()

    async def _make_durable(self) -> None:
        await self._tables.checkpoint()
        await self._log.forget(self._tables.durable_ts)
        await self._tables.thread.run(self._log.copy_most)
        await self._log.copy_rest()

    def _update_room(self) -> None:
        used = sum(layer.bytes for layer in self.layers)
        # After a failure nobody has to wait: whoever comes is refused.
        if used <= self._limits.memtable_bytes or self._health.failure is not None:
            self._room.set()
        else:
            self._room.clear()

    # When

    def _plan(self) -> None:
        """Begin a round, or look again in a moment, or leave it."""
        if self._round is not None or self._is_closing or self._health.failure is not None:
            return
        young = self.layers[0]
        rows = young.rows + self._tables.rows_in_log
        if rows >= _ROUND_ROWS or young.bytes >= self._limits.memtable_bytes // 4:
            self._begin_round()
        elif rows and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_QUIET_S, self._look, self._added)

    def _look(self, added: int) -> None:
        self._timer = None
        self._quiet_s = self._quiet_s + _QUIET_S if added == self._added else 0.0
        rows = self.layers[0].rows + self._tables.rows_in_log
        is_worth_it = rows >= _QUIET_ROWS or self._quiet_s >= _REST_S
        if self._quiet_s and is_worth_it and self._round is None and not self._is_closing:
            self._quiet_s = 0.0
            self._begin_round()
        else:
            self._plan()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
