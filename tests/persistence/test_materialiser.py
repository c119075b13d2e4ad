"""When commits go from the log to the tables, and what waits for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from reactive_store.errors import StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence import materialiser as module
from reactive_store.persistence.batch_code import encode_batch
from reactive_store.persistence.contract import Commit, DocumentWrite, TableNumber, Timestamp
from reactive_store.persistence.materialiser import Materialiser
from reactive_store.persistence.sqlite_log import SqliteLog, log_path
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence.writer_thread import Health, Pacer
from reactive_store.runtime import SystemRuntime

TABLE = TableNumber(1)


class World:
    """A log, tables, and what moves commits from one to the other."""

    def __init__(self, log, tables, health, limits):
        self.log, self.tables, self.health = log, tables, health
        self.mover = Materialiser(
            log, tables, health=health, limits=limits, runtime=SystemRuntime()
        )
        self.ts = tables.written_ts

    async def add(self, count, size=10):
        """Put `count` commits into the log, and then where reads find them."""
        for _ in range(count):
            self.ts += 1
            write = DocumentWrite(TABLE, self.ts.to_bytes(16, "big"), b"v" * size, True)
            commits = [Commit(Timestamp(self.ts), (write,), ())]
            self.log.append(self.ts, encode_batch(commits), lambda _: None)
            await self.log.flush()
            self.mover.add(commits, size)

    def pending(self):
        return [len(layer.commits) for layer in self.mover.layers]

    def logged(self):
        return [commits[0].ts for commits, _ in self.log.read(0)]

    def in_tables(self):
        return len(self.tables.table_rows(TABLE, b"", None, self.ts, False, 1000))


@pytest.fixture
async def open_world(tmp_path):
    opened = []

    async def open_one(limits=None):
        limits = limits or Limits()
        path, health, pacer = tmp_path / "data.sqlite3", Health(), Pacer()
        tables = await SqliteTables.open(path, "NORMAL", limits, health, pacer)
        log = await SqliteLog.open(log_path(path), "NORMAL", limits, health, pacer)
        opened.append(World(log, tables, health, limits))
        return opened[-1]

    yield open_one
    for world in opened:
        await world.mover.close()
        await world.log.close()
        await world.tables.close()


async def rounds(world):
    """Wait until no round is under way."""
    while world.mover._round is not None:
        await asyncio.sleep(0)


async def test_settling_moves_everything_and_empties_the_log(open_world):
    world = await open_world()
    await world.add(5)
    assert (world.pending(), world.in_tables(), world.mover.floor_ts) == ([5], 0, 0)
    await world.mover.settle()
    assert (world.pending(), world.in_tables(), world.mover.floor_ts) == ([0], 5, 5)
    await rounds(world)
    assert world.logged() == []


async def test_a_round_begins_by_itself_when_enough_has_come(open_world, monkeypatch):
    monkeypatch.setattr(module, "_ROUND_ROWS", 10)
    world = await open_world()
    await world.add(9)
    assert world.mover._round is None
    await world.add(1)
    await rounds(world)
    assert world.in_tables() == 10


@pytest.mark.parametrize("waits_for", ["many rows", "any rows"])
async def test_a_round_begins_when_nothing_happens(open_world, monkeypatch, waits_for):
    monkeypatch.setattr(module, "_QUIET_S", 0.005)
    monkeypatch.setattr(module, "_QUIET_ROWS", 3 if waits_for == "many rows" else 1000)
    monkeypatch.setattr(module, "_REST_S", 1000 if waits_for == "many rows" else 0.02)
    world = await open_world()
    await world.add(3)
    while world.pending() != [0]:
        await asyncio.sleep(0.001)
    assert world.in_tables() == 3


async def test_commits_that_come_during_a_round_are_left_for_the_next(open_world):
    world = await open_world()
    await world.add(3)
    go_on = threading.Event()
    world.tables.thread.submit(lambda _: go_on.wait(), lambda _: None)
    settling = asyncio.ensure_future(world.mover.settle())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await world.add(2)
    assert world.pending() == [2, 3]
    assert world.in_tables() == 0
    go_on.set()
    await settling
    assert world.pending() == [2]
    assert world.in_tables() == 3
    await rounds(world)
    assert world.logged() == [4, 5]


async def test_whoever_waits_for_a_round_may_be_cancelled_and_it_goes_on(open_world):
    world = await open_world()
    await world.add(3)
    settling = asyncio.ensure_future(world.mover.settle())
    await asyncio.sleep(0)
    settling.cancel()
    await rounds(world)
    assert world.in_tables() == 3


async def test_more_waits_while_memory_is_full(open_world):
    world = await open_world(Limits(memtable_bytes=50_000))
    go_on = threading.Event()
    world.tables.thread.submit(lambda _: go_on.wait(), lambda _: None)
    await world.add(10, size=10_000)
    assert not world.mover.has_room()
    waiting = asyncio.ensure_future(world.mover.wait_room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    go_on.set()
    await waiting
    assert world.mover.has_room()


async def test_a_failure_ends_every_wait_and_keeps_what_is_in_memory(open_world, caplog):
    world = await open_world(Limits(memtable_bytes=50_000))
    await world.add(1)
    go_on = threading.Event()

    def fill(connection):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        go_on.wait()

    world.tables.thread.submit(fill, lambda _: None)
    await world.add(10, size=10_000)
    waiting = asyncio.ensure_future(world.mover.wait_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    await waiting
    with pytest.raises(StoreFailed, match="full"):
        await world.mover.settle()
    assert sum(world.pending()) == 11
    assert world.logged() == list(range(1, 12))
    assert "writing the tables failed" in caplog.text


async def test_a_round_that_is_torn_down_leaves_its_commits_to_the_next_start(open_world):
    world = await open_world()
    await world.add(3)
    go_on = threading.Event()
    world.tables.thread.submit(lambda _: go_on.wait(), lambda _: None)
    world.mover._begin_round()
    await asyncio.sleep(0)
    world.mover._round.cancel()
    await rounds(world)
    assert world.pending() == [0, 3]
    go_on.set()
    with pytest.raises(StoreFailed, match="stopped"):
        await world.mover.settle()
    assert world.logged() == [1, 2, 3]
