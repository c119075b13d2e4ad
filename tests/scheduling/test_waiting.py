"""Loops wait for commits and instants, insist on what must happen, and outlive errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import pytest

from reactive_store.engine.catalog import CRON_JOBS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import BY_CREATION_TIME
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import Overloaded, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.scheduling.waiting import (
    Alarm,
    Withdrawn,
    insist,
    is_due,
    run_to_the_end,
)
from reactive_store.testing import FaultyPersistence
from reactive_store.testing.virtual_runtime import VirtualRuntime


@pytest.fixture
def runtime() -> VirtualRuntime:
    return VirtualRuntime()


@pytest.fixture
async def database(runtime: VirtualRuntime) -> AsyncIterator[Database]:
    database = await Database.open(MemoryPersistence(), runtime=runtime, limits=Limits())
    yield database
    await database.close()


def reading(database: Database) -> Transaction:
    """A transaction that has read a whole table."""
    transaction = database.begin()
    assert transaction.scan(CRON_JOBS, BY_CREATION_TIME, EVERYTHING).next() is None
    return transaction


async def write(database: Database) -> None:
    transaction = database.begin_mutation()
    transaction.insert(CRON_JOBS, {"name": "x"})
    await database.commit(transaction)


async def rounds() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_commit_that_touches_what_was_read_ends_the_wait(
    database: Database, runtime: VirtualRuntime
):
    alarm = Alarm(database, runtime)
    waiting = asyncio.create_task(alarm.wait(reading(database), None))
    await rounds()
    assert alarm.is_quiet
    await runtime.advance(timedelta(days=1))
    assert not waiting.done()
    await write(database)
    await waiting
    assert database.statistics().subscriptions == 0


async def test_a_commit_between_reading_and_waiting_is_not_missed(
    database: Database, runtime: VirtualRuntime
):
    transaction = reading(database)
    await write(database)
    await asyncio.wait_for(Alarm(database, runtime).wait(transaction, None), 1)


async def test_an_instant_ends_the_wait_not_earlier(database: Database, runtime: VirtualRuntime):
    alarm = Alarm(database, runtime)
    due_ms = runtime.now_ns() / 1e6 + 5000
    waiting = asyncio.create_task(alarm.wait(reading(database), due_ms))
    await runtime.advance(timedelta(milliseconds=4999))
    assert not waiting.done()
    assert not is_due(due_ms, runtime)
    await runtime.advance(timedelta(milliseconds=1))
    await waiting
    assert is_due(due_ms, runtime)
    assert database.statistics().subscriptions == 0


async def test_one_that_is_far_away_is_looked_at_now_and_then(
    database: Database, runtime: VirtualRuntime
):
    """A computer that slept, or whose clock was set, is late by an hour at most."""
    alarm = Alarm(database, runtime)
    far_ms = runtime.now_ns() / 1e6 + 1e9
    waiting = asyncio.create_task(alarm.wait(reading(database), far_ms))
    await runtime.advance(timedelta(hours=1))
    await waiting


async def test_a_bell_rung_while_nobody_waits_ends_the_next_wait(
    database: Database, runtime: VirtualRuntime
):
    alarm = Alarm(database, runtime)
    alarm.ring()
    await asyncio.wait_for(alarm.wait(reading(database), None), 1)
    waiting = asyncio.create_task(alarm.wait(reading(database), None))
    await rounds()
    assert not waiting.done()
    assert alarm.is_quiet
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not alarm.is_quiet
    assert database.statistics().subscriptions == 0


async def test_insisting_pauses_longer_and_longer_up_to_a_limit(runtime: VirtualRuntime):
    began: list[float] = []

    async def attempt() -> str:
        began.append(runtime.monotonic_s())
        if len(began) < 8:
            raise Overloaded("full") if len(began) % 2 else ValueError("a bug")
        return "done"

    task = asyncio.create_task(insist(attempt, runtime, what="x", first_s=1, longest_s=8))
    await runtime.advance(timedelta(minutes=5))
    assert await task == "done"
    pauses = [later - earlier for earlier, later in pairwise(began)]
    for pause, longest in zip(pauses, (1, 2, 4, 8, 8, 8, 8), strict=True):
        assert longest / 2 <= pause <= longest


@pytest.mark.parametrize("error", [Withdrawn("gone"), StoreFailed("disk")])
async def test_insisting_ends_with_what_cannot_change(runtime: VirtualRuntime, error: Exception):
    async def attempt() -> None:
        raise error

    with pytest.raises(type(error)):
        await insist(attempt, runtime, what="x", first_s=1, longest_s=8)


async def test_a_loop_goes_on_after_errors_and_ends_when_the_disk_has_failed(
    runtime: VirtualRuntime, caplog: pytest.LogCaptureFixture
):
    disk = FaultyPersistence(MemoryPersistence())
    database = await Database.open(disk, runtime=runtime, limits=Limits())
    count = 0

    async def one_round() -> None:
        nonlocal count
        count += 1
        if count < 3:
            raise ValueError("a bug")
        if count < 5:
            raise Overloaded("full")
        disk.fail(at_write=1)
        await write(database)

    loop = asyncio.create_task(run_to_the_end(one_round, database, runtime, name="tests"))
    await runtime.advance(timedelta(minutes=1))
    await loop
    assert count == 5
    assert [record.levelname for record in caplog.records].count("ERROR") == 2
    await database.close()
