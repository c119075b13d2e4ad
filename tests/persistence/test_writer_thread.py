"""Transactions on a thread: whole or not at all, and none after one that failed."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest

from reactive_store.errors import StoreFailed
from reactive_store.persistence.writer_thread import Health, Pacer, WriterThread


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
async def thread(path):
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    started = WriterThread(connection, Health(), Pacer())
    await started
    yield started
    await started.close()


def put(*numbers):
    def work(connection):
        connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in numbers])
        return len(numbers)

    return work


def held(connection):
    return [n for (n,) in connection.execute("SELECT n FROM t")]


async def test_work_is_written_whole_and_gives_its_result(thread, path):
    assert await thread.write(put(1, 2)) == 2
    assert held(sqlite3.connect(path)) == [1, 2]


async def test_after_a_write_that_fails_there_is_none_of_it_and_no_other(thread):
    await thread.write(put(1))
    with pytest.raises(StoreFailed, match="did not take a write"):
        await thread.write(put(2, 1))
    with pytest.raises(StoreFailed, match="An earlier write failed"):
        await thread.write(put(3))
    assert await thread.run(held) == [1]


async def test_writers_of_one_store_fail_together(thread, tmp_path):
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    other = WriterThread(connection, thread._health, Pacer())
    await other
    with pytest.raises(ZeroDivisionError):
        await other.write(lambda _: 1 / 0)
    with pytest.raises(StoreFailed):
        await thread.write(put(1))
    assert not await thread.run(lambda c: thread.checkpoint("PASSIVE", c))
    await other.close()


async def test_one_write_may_wait_for_the_disk_in_its_own_way(thread):
    def level(connection):
        return connection.execute("PRAGMA synchronous").fetchone()[0]

    assert await thread.write(level, synchronous="FULL") == 2
    assert await thread.run(level) == 1


async def test_a_checkpoint_says_whether_it_copied_everything(thread, path):
    await thread.write(put(1))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert held(reader) == [1]
    await thread.write(put(2))
    assert not await thread.run(lambda c: thread.checkpoint("PASSIVE", c))
    reader.close()
    assert await thread.run(lambda c: thread.checkpoint("PASSIVE", c))


async def test_whoever_handed_work_over_is_told_in_order_what_came_of_it(thread):
    told = []
    thread.submit(put(1), lambda error: told.append(error))
    thread.submit(put(1), lambda error: told.append(type(error)))
    thread.submit(put(2), lambda error: told.append(type(error)))
    assert await thread.run(held) == [1]
    assert told == [None, sqlite3.IntegrityError, StoreFailed]


async def test_a_loop_that_never_rests_does_not_keep_a_thread_from_its_work(thread):
    def many_steps(connection):
        for n in range(300):
            connection.execute("INSERT INTO t VALUES (?)", (n,))

    async def compute():
        while True:
            end = time.perf_counter() + 0.000_1
            while time.perf_counter() < end:
                pass
            await asyncio.sleep(0)

    busy = asyncio.ensure_future(compute())
    began = time.perf_counter()
    await thread.write(many_steps)
    busy.cancel()
    assert time.perf_counter() - began < 5
    # Nothing is left that would wake the loop for nothing.
    while thread._pacer._is_ticking:
        await asyncio.sleep(0.001)
