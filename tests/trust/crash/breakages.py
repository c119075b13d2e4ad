"""Ways to break durability in one line, each of which a test of this folder must find."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from reactive_store.functions.runner import Runner
from reactive_store.persistence import sqlite_log
from reactive_store.persistence.batch_code import encode_batch
from reactive_store.persistence.contract import Commit
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_format import connect_log
from reactive_store.persistence.sqlite_log import SqliteLog
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence.writer_thread import WriterThread
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES", "DISK_BREAKAGES", "POWER_BREAKAGES"]

# Long enough for whoever was told too early to say so before the disk has it.
_LATE_S = 0.005


def _skip_the_sync(patch: pytest.MonkeyPatch) -> None:
    def connect(path: Any, _: Any, limits: Any) -> Any:
        connection = connect_log(path, "FULL", limits)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    patch.setattr(sqlite_log, "connect_log", connect)


def _acknowledge_before_durable(patch: pytest.MonkeyPatch) -> None:
    def take_and_go_on(self: SqlitePersistence, commits: Sequence[Commit]) -> asyncio.Future[None]:
        batch = encode_batch(commits)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._logged(commits, len(batch), waiter, None)
        self._log._thread.submit(lambda _: time.sleep(_LATE_S), lambda _: None)
        self._log.append(commits[-1].ts, batch, lambda _: None)
        return waiter

    patch.setattr(SqlitePersistence, "_submit", take_and_go_on)


def _write_the_log_row_late(patch: pytest.MonkeyPatch) -> None:
    append = SqliteLog.append

    def later(self: SqliteLog, ts: int, batch: bytes, done: Callable[[Any], None]) -> None:
        asyncio.get_running_loop().call_soon(done, None)
        self._thread.submit(lambda _: time.sleep(_LATE_S), lambda _: None)
        append(self, ts, batch, lambda _: None)

    patch.setattr(SqliteLog, "append", later)


def _trim_before_the_tables_are_synced(patch: pytest.MonkeyPatch) -> None:
    async def pretend(self: SqliteTables) -> None:
        self.renew_view()
        self.rows_in_log = 0
        self.durable_ts = self.written_ts

    patch.setattr(SqliteTables, "checkpoint", pretend)


def _checkpoint_without_sync(patch: pytest.MonkeyPatch) -> None:
    copy = SqliteTables._copy_log

    def copied(self: SqliteTables, connection: Any) -> int:
        connection.execute("PRAGMA synchronous = OFF")
        written = copy(self, connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        return written

    patch.setattr(SqliteTables, "_copy_log", copied)


def _forget_the_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Runner, "_replay", lambda *_: None)


def _replay_one_batch_too_late(patch: pytest.MonkeyPatch) -> None:
    read = SqliteLog.read

    def late(self: SqliteLog, after: int) -> Iterator[tuple[list[Commit], int]]:
        batches = read(self, after)
        next(batches, None)
        return batches

    patch.setattr(SqliteLog, "read", late)


def _swallow_the_error(patch: pytest.MonkeyPatch) -> None:
    tell = WriterThread._tell
    patch.setattr(WriterThread, "_tell", lambda self, done, error: tell(self, done, None))


POWER_BREAKAGES: list[Breakage] = [
    Breakage(
        "no-sync",
        "durable",
        "the log is written with synchronous=OFF although durability is full",
        _skip_the_sync,
    ),
    Breakage(
        "acknowledged-early",
        "durable",
        "a commit is acknowledged and shown when it is handed to the log, not when it is durable",
        _acknowledge_before_durable,
    ),
    Breakage(
        "log-row-late",
        "durable",
        "the row of the log is written after the acknowledgement",
        _write_the_log_row_late,
    ),
    Breakage(
        "trimmed-early",
        "durable",
        "the log is trimmed before the tables were copied and synced",
        _trim_before_the_tables_are_synced,
    ),
    Breakage(
        "checkpoint-unsynced",
        "durable",
        "the tables are copied without a sync, and the log is trimmed after that",
        _checkpoint_without_sync,
    ),
    Breakage(
        "record-forgotten",
        "exactly once",
        "a request that is repeated is not looked up among those answered before",
        _forget_the_record,
    ),
    Breakage(
        "replay-late",
        "durable",
        "the log is read from one batch too late when a store is opened",
        _replay_one_batch_too_late,
    ),
]

DISK_BREAKAGES: list[Breakage] = [
    Breakage(
        "error-swallowed",
        "durable",
        "a commit is acknowledged although the disk answered its write with an error",
        _swallow_the_error,
    ),
]

BREAKAGES: list[Breakage] = [*POWER_BREAKAGES, *DISK_BREAKAGES]
