"""FaultyPersistence: faults come at the write they were ordered for, and the contract holds."""

from __future__ import annotations

import asyncio

import pytest

from reactive_store.errors import StoreFailed
from reactive_store.persistence.contract import (
    BackfillEntry,
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import FaultyPersistence

TABLE = TableNumber(10001)
INDEX = IndexId(1000)
ID = bytes(16)


def commit(ts: int) -> Commit:
    is_insert = ts == 1
    entries = (IndexWrite(INDEX, b"k", TABLE, ID, True),) if is_insert else ()
    return Commit(Timestamp(ts), (DocumentWrite(TABLE, ID, b'{"n":%d}' % ts, is_insert),), entries)


@pytest.fixture
def disk() -> FaultyPersistence:
    return FaultyPersistence(MemoryPersistence())


async def test_without_faults_everything_passes_through(disk):
    await disk.append([commit(1)])
    await disk.append([commit(2)])
    assert disk.last_ts == 2
    assert disk.get(TABLE, ID, Timestamp(1)).value == b'{"n":1}'
    options = {"descending": False, "limit": 9}
    assert len(disk.scan(INDEX, b"", None, Timestamp(2), **options).rows) == 1
    assert len(disk.scan_table(TABLE, b"", None, Timestamp(2), **options).rows) == 1
    assert await disk.backfill(IndexId(1001), [BackfillEntry(b"k", TABLE, ID, 2)]) == 1
    await disk.drop_index(IndexId(1001))
    assert disk.scan(IndexId(1001), b"", None, Timestamp(2), **options).rows == []
    assert await disk.trim(Timestamp(2)) == 1
    await disk.set_global("name", b"x")
    assert disk.get_global("name") == b"x"
    await disk.close()


async def test_the_chosen_write_fails_and_nothing_is_taken_afterwards(disk):
    disk.fail(at_write=2)
    await disk.append([commit(1)])
    for ts in (2, 3):
        with pytest.raises(StoreFailed):
            await disk.append([commit(ts)])
    assert disk.inner.last_ts == 1


async def test_a_failed_write_may_have_reached_the_disk(disk):
    disk.fail(is_written=True, error=OSError("power"))
    with pytest.raises(OSError, match="power"):
        await disk.append([commit(1)])
    assert disk.inner.last_ts == 1
    assert disk.writes == 1


async def test_a_held_write_waits_for_its_release(disk):
    go_on = disk.hold(at_write=2)
    await disk.append([commit(1)])
    writing = asyncio.create_task(disk.append([commit(2)]))
    await asyncio.sleep(0.01)
    assert (writing.done(), disk.last_ts) == (False, 1)
    go_on.set()
    await writing
    assert disk.last_ts == 2
