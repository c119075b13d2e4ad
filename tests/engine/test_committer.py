"""Commits: order, conflicts, pending data, groups, running alone, a failing disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.errors import Conflict, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Commit
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id


class _SlowDisk(MemoryPersistence):
    """Writes only when told to; fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.is_full = False
        self.batches: list[int] = []

    async def append(self, commits: Sequence[Commit]) -> None:
        await self.may_write.wait()
        if self.is_full:
            raise StoreFailed("database or disk is full")
        self.batches.append(len(commits))
        await super().append(commits)


@pytest.fixture
async def disk() -> _SlowDisk:
    return _SlowDisk()


@pytest.fixture
async def counter(disk: _SlowDisk) -> tuple[Database, bytes]:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    transaction = database.begin_mutation()
    document_id = transaction.insert("counters", {"n": 0})
    await database.commit(transaction)
    return database, decode_id(document_id).internal_id


def increment(database: Database, counter: bytes) -> asyncio.Task[int]:
    transaction = database.begin_mutation()
    row = transaction.get("counters", counter)
    assert row is not None
    transaction.patch("counters", counter, {"n": Document(row.value, "counters")["n"] + 1})
    return asyncio.ensure_future(database.commit(transaction))


def value(database: Database, counter: bytes) -> int:
    row = database.begin().get("counters", counter)
    assert row is not None
    return int(Document(row.value, "counters")["n"])


async def test_mutations_build_on_pending_data_and_share_one_write(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    first = increment(database, document)
    await asyncio.sleep(0.01)
    others = []
    for _ in range(50):
        others.append(increment(database, document))
        await asyncio.sleep(0)
    assert value(database, document) == 0, "a query saw what is not durable"
    disk.may_write.set()
    timestamps = [await first, *[await other for other in others]]
    assert timestamps == sorted(set(timestamps))
    assert value(database, document) == 51
    assert disk.batches[-2:] == [1, 50]
    await database.close()


async def test_a_stale_read_is_a_conflict_that_names_the_table(
    counter: tuple[Database, bytes],
) -> None:
    database, document = counter
    late = database.begin_mutation()
    late.get("counters", document)
    late.insert("log", {"x": 1})
    await increment(database, document)
    with pytest.raises(Conflict) as lost:
        await database.commit(late)
    assert lost.value.table == "counters"
    assert database.statistics().conflicts == 1
    await database.close()


async def test_a_phantom_insert_is_a_conflict(counter: tuple[Database, bytes]) -> None:
    database, _ = counter
    looking = database.begin_mutation()
    assert looking.scan("rooms", "by_creation_time", EVERYTHING).next() is None
    looking.insert("counters", {"n": 9})
    transaction = database.begin_mutation()
    transaction.insert("rooms", {"x": 1})
    await database.commit(transaction)
    with pytest.raises(Conflict):
        await database.commit(looking)
    await database.close()


async def test_blind_inserts_do_not_conflict(counter: tuple[Database, bytes]) -> None:
    database, _ = counter
    one, two = database.begin_mutation(), database.begin_mutation()
    one.insert("counters", {"n": 1})
    two.insert("counters", {"n": 2})
    await asyncio.gather(database.commit(one), database.commit(two))
    assert database.statistics().conflicts == 0
    await database.close()


async def test_whoever_runs_alone_cannot_lose(counter: tuple[Database, bytes]) -> None:
    database, document = counter
    async with database.run_alone():
        mine = database.begin_mutation()
        row = mine.get("counters", document)
        assert row is not None
        other = increment(database, document)
        await asyncio.sleep(0.01)
        assert not other.done()
        mine.patch("counters", document, {"n": 100})
        await database.commit(mine, alone=True)
    with pytest.raises(Conflict):
        await other
    assert value(database, document) == 100
    await database.close()


async def test_a_failed_write_fails_everything_built_on_it_and_stops_the_node(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    first = increment(database, document)
    await asyncio.sleep(0.01)
    second = increment(database, document)
    reader = database.begin_mutation()
    assert reader.get("counters", document) is not None
    waiting = asyncio.ensure_future(database.commit(reader))
    await asyncio.sleep(0.01)
    disk.is_full = True
    disk.may_write.set()
    for task in (first, second, waiting):
        with pytest.raises(StoreFailed, match="disk is full"):
            await task
    with pytest.raises(StoreFailed):
        await increment(database, document)
    assert value(database, document) == 0, "queries go on with what is durable"
    assert isinstance(database.failure, StoreFailed)


async def test_a_caller_that_gives_up_does_not_disturb_the_commit(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    impatient = increment(database, document)
    await asyncio.sleep(0.01)
    patient = increment(database, document)
    await asyncio.sleep(0)
    impatient.cancel()
    disk.may_write.set()
    await patient
    assert value(database, document) == 2
    await database.close()


async def test_subscriptions_fire_once_after_the_callers_are_woken(
    counter: tuple[Database, bytes],
) -> None:
    database, document = counter
    reading = database.begin()
    reading.get("counters", document)
    fired: list[int] = []
    database.subscribe(reading.read_set(), reading.begin_ts, fired.append)
    ts = await increment(database, document)
    await increment(database, document)
    assert fired == [ts]
    await database.close()


async def test_subscribing_too_late_says_so_at_once(counter: tuple[Database, bytes]) -> None:
    database, document = counter
    reading = database.begin()
    reading.get("counters", document)
    ts = await increment(database, document)
    await increment(database, document)
    assert database.subscribe(reading.read_set(), reading.begin_ts, lambda _: None) == ts
    await database.close()


async def test_a_full_queue_makes_new_commits_wait(disk: _SlowDisk) -> None:
    limits = Limits(pending_commits=2)
    database = await Database.open(disk, runtime=SystemRuntime(), limits=limits)
    disk.may_write.clear()

    def insert() -> asyncio.Task[int]:
        transaction = database.begin_mutation()
        transaction.insert("log", {"x": 1})
        return asyncio.ensure_future(database.commit(transaction))

    first = insert()
    await asyncio.sleep(0)
    # The first one creates the table, so the others begin once that is accepted.
    tasks = [first, *[insert() for _ in range(4)]]
    await asyncio.sleep(0.01)
    assert database.statistics().pending_commits == 2
    disk.may_write.set()
    await asyncio.gather(*tasks)
    assert database.statistics().pending_commits == 0
    await database.close()
