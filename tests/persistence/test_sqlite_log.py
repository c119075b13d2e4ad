"""The log: what is in it comes back in order, goes when it is told to, and its file stays small."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.batch_code import encode_batch
from reactive_store.persistence.contract import Commit, DocumentWrite, TableNumber, Timestamp
from reactive_store.persistence.sqlite_log import SqliteLog, log_path
from reactive_store.persistence.writer_thread import Health, Pacer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.sqlite3"


@pytest.fixture
async def log(path):
    opened = await SqliteLog.open(path, "NORMAL", Limits(), Health(), Pacer())
    yield opened
    await opened.close()


def batch(ts, size=10):
    return [Commit(Timestamp(ts), (DocumentWrite(TableNumber(1), b"i", b"v" * size, True),), ())]


async def put(log, *timestamps, size=10):
    """What each append ended with, in the order in which the log told."""
    told = []
    for ts in timestamps:
        log.append(ts, encode_batch(batch(ts, size)), lambda error, ts=ts: told.append((ts, error)))
    await log.flush()
    await asyncio.sleep(0)
    return told


async def test_batches_come_back_in_order_above_a_timestamp(log):
    assert await put(log, 3, 5, 9) == [(3, None), (5, None), (9, None)]
    assert [commits for commits, _ in log.read(3)] == [batch(5), batch(9)]
    assert log.check() == []


async def test_an_append_that_fails_tells_so_and_so_do_those_behind_it(log):
    told = await put(log, 3, 3, 4)
    assert [(ts, type(error).__name__) for ts, error in told] == [
        (3, "NoneType"),
        (3, "IntegrityError"),
        (4, "StoreFailed"),
    ]
    assert [commits for commits, _ in log.read(0)] == [batch(3)]


async def test_forgetting_takes_every_batch_up_to_a_timestamp(log):
    await put(log, *range(1, 201))
    await log.forget(150)
    assert [commits[0].ts for commits, _ in log.read(0)] == list(range(151, 201))
    await log.forget(1000)
    assert list(log.read(0)) == []


async def test_it_remembers_whose_it_is_and_how_far_it_was_emptied(log):
    assert not log.is_paired(b"a", 0)
    log.pair(b"a")
    await put(log, 1, 2, 3)
    await log.forget(2)
    assert log.is_paired(b"a", 2)
    with pytest.raises(BadRequest, match="up to 2 is in it") as refused:
        log.is_paired(b"a", 1)
    assert refused.value.code == "DataFileUnreadable"
    for other in (b"b", None):
        with pytest.raises(BadRequest, match="another data file"):
            log.is_paired(other, 9)
    await log.forget(3)
    assert not log.is_paired(b"b", 9)  # empty, so there is nothing to mix up
    log.pair(b"b")
    assert log.is_paired(b"b", 0)


async def test_the_files_do_not_grow_for_ever(log, path):
    sizes = []
    for round_ in range(30):
        first = 1 + 100 * round_
        await put(log, *range(first, first + 100), size=3000)
        await log.forget(first + 99)
        await log._thread.run(log.copy_most)
        await log.copy_rest()
        wal = path.with_name(path.name + "-wal")
        sizes.append(path.stat().st_size + wal.stat().st_size)
    assert max(sizes[10:]) <= max(sizes[:3]) * 1.2


async def test_a_batch_in_a_wrong_place_is_named(log, path):
    await put(log, 3, 5)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE log SET ts = 4 WHERE ts = 5")
        connection.execute("INSERT INTO log VALUES (6, x'00')")
    connection.close()
    with pytest.raises(BadRequest, match="batch of timestamp 4 is damaged") as refused:
        list(log.read(0))
    assert refused.value.code == "DataFileUnreadable"
    assert [line.split(": ")[1] for line in log.check()] == ["batch of 4", "batch of 6"]


async def test_a_batch_that_is_no_byte_string_any_more_is_named(log, path):
    await put(log, 3)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE log SET batch = 17")
    connection.close()
    with pytest.raises(BadRequest, match="batch of timestamp 3 is damaged: it is no byte string"):
        list(log.read(0))
    assert log.check() == ["log: batch of 3: it is no byte string"]


@pytest.mark.parametrize(
    ("data", "log"),
    [("data.sqlite3", "log.sqlite3"), ("mine.db", "mine-log.db"), ("plain", "plain-log")],
)
def test_each_data_file_has_a_log_of_its_own(data, log):
    assert log_path(Path("/some/where") / data) == Path("/some/where") / log


async def test_the_log_may_be_checked_while_it_is_copied(log):
    await put(log, *range(1, 100), size=2000)
    copier = threading.Thread(target=lambda: [log.copy_most(None) for _ in range(300)])
    copier.start()
    while copier.is_alive():
        assert log.check() == []
    log._thread._health.ensure()
