"""What is particular to the SQLite store: restarts, crashes, a full disk, the log, concurrency."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys

import pytest

from reactive_store.errors import BadRequest, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence import sqlite as store_module
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_format import FORMAT_VERSION

TABLE, INDEX = TableNumber(1), IndexId(1)


def name(number):
    return number.to_bytes(16, "big")


def insert(ts, *, value=b"v", copies=1):
    """A commit of `copies` documents, each under one key."""
    ids = [name(ts * 100 + n) for n in range(copies)]
    return Commit(
        Timestamp(ts),
        tuple(DocumentWrite(TABLE, doc, value, True) for doc in ids),
        tuple(IndexWrite(INDEX, doc, TABLE, doc, True) for doc in ids),
    )


def scan(store, at):
    return store.scan(INDEX, b"", None, Timestamp(at), descending=False, limit=100_000).rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.sqlite3"


@pytest.fixture
async def store(path):
    opened = await SqlitePersistence.open(path)
    yield opened
    await opened.close()


async def test_everything_is_there_after_opening_again(path):
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    await store.append([insert(1), insert(2)])
    update = DocumentWrite(TABLE, name(100), b"new", False)
    gone = IndexWrite(INDEX, name(200), TABLE, name(200), False)
    delete = DocumentWrite(TABLE, name(200), None, False)
    await store.append([Commit(Timestamp(3), (update, delete), (gone,))])
    await store.set_global("g", b"1")
    before = [scan(store, at) for at in range(5)]
    await store.close()
    again = await SqlitePersistence.open(path)
    assert again.last_ts == 3
    assert [scan(again, at) for at in range(5)] == before
    assert again.get_global("g") == b"1"
    await again.append([insert(4)])
    assert again.check() == []
    await again.close()


async def test_a_commit_without_writes_moves_the_clock_across_restarts(path):
    store = await SqlitePersistence.open(path)
    await store.append([Commit(Timestamp(9), (), ())])
    await store.close()
    again = await SqlitePersistence.open(path)
    assert again.last_ts == 9
    with pytest.raises(AssertionError):
        await again.append([insert(9)])
    await again.close()


async def test_closing_leaves_one_file_and_refuses_writes(path, store):
    await store.append([insert(1)])
    await store.close()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with pytest.raises(StoreFailed):
        await store.append([insert(2)])


async def test_closing_waits_for_a_write_under_way(path):
    store = await SqlitePersistence.open(path)
    writing = asyncio.ensure_future(store.append([insert(1, copies=50)]))
    await asyncio.sleep(0)
    await store.close()
    await writing
    again = await SqlitePersistence.open(path)
    assert again.last_ts == 1
    await again.close()


async def test_a_write_whose_caller_is_cancelled_still_counts(store):
    writing = asyncio.ensure_future(store.append([insert(1)]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.append([insert(2)])
    assert len(scan(store, 2)) == 2


@pytest.mark.parametrize("way", ["open", "corrupt"])
async def test_a_file_that_cannot_be_used_is_refused(path, way):
    store = await SqlitePersistence.open(path)
    await store.close()
    if way == "open":
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
        connection.close()
        code = "DataDirectoryTooNew"
    else:
        path.write_bytes(b"\x00garbage" * 1024)
        code = "DataFileUnreadable"
    with pytest.raises(BadRequest) as refused:
        await SqlitePersistence.open(path)
    assert refused.value.code == code


async def test_a_drop_that_was_interrupted_is_finished_when_opened(path):
    store = await SqlitePersistence.open(path, limits=Limits(trim_rows=2))
    await store.append([insert(1, copies=20)])
    dropping = asyncio.ensure_future(store.drop_index(INDEX))
    await asyncio.sleep(0)
    dropping.cancel()
    await store.close()
    again = await SqlitePersistence.open(path)
    assert scan(again, 1) == []
    assert again.check() == []
    await again.close()


# A disk that fails


async def append_until_it_fails(store):
    for ts in range(2, 100):
        await store.append([insert(ts, value=b"x" * 10_000, copies=3)])


async def test_a_full_disk_ends_writing_and_not_reading(path):
    store = await SqlitePersistence.open(path)
    await store.append([insert(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(StoreFailed, match="did not take a write") as failed:
            await append_until_it_fails(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(failed.value.__cause__, sqlite3.Error)
    last = store.last_ts
    assert last > 1
    # There is room again, but what the disk holds is no longer certain.
    for writing in (
        store.append([insert(1000)]),
        store.set_global("g", b""),
        store.trim(Timestamp(1)),
        store.backfill(INDEX, []),
        store.drop_index(INDEX),
    ):
        with pytest.raises(StoreFailed):
            await writing
    assert store.last_ts == last
    assert len(scan(store, 1000)) == 1 + 3 * (last - 1)
    await store.close()
    again = await SqlitePersistence.open(path)
    assert again.last_ts == last
    assert again.check() == []
    await again.append([insert(1000)])
    await again.close()


async def test_batches_waiting_behind_one_that_fails_fail_too(store):
    await store.append([insert(1)])
    limit = await store._writer.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await store._writer.run(lambda c: c.execute(f"PRAGMA max_page_count = {limit}").fetchone())
    big = store.append([insert(2, value=b"x" * 100_000)])
    small = store.append([Commit(Timestamp(3), (), ())])
    results = await asyncio.gather(big, small, return_exceptions=True)
    assert [type(result) for result in results] == [StoreFailed, StoreFailed]
    assert "full" in str(results[0])
    assert store.last_ts == 1
    assert len(scan(store, 3)) == 1


# A process that ends

_WRITER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.contract import *

async def main():
    store = await SqlitePersistence.open(Path(sys.argv[1]))
    ts = store.last_ts
    while True:
        batch = []
        for _ in range(3):
            ts += 1
            ids = [(ts * 100 + n).to_bytes(16, "big") for n in range(5)]
            batch.append(Commit(
                ts,
                tuple(DocumentWrite(1, id, b"v" * 300, True) for id in ids),
                tuple(IndexWrite(1, id, 1, id, True) for id in ids),
            ))
        await store.append(batch)
        print(ts, flush=True)

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9_and_the_rest_is_all_or_nothing(path):
    root = str(store_module.__file__).rsplit("/reactive_store/", 1)[0]
    acknowledged = 0
    for rounds in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), root], stdout=subprocess.PIPE, text=True
        )
        for _ in range(10 + 37 * rounds):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        # A line cut in two by the kill is not an acknowledgement anybody read.
        acknowledged = max([acknowledged, *map(int, rest.rpartition("\n")[0].split())])
        store = await SqlitePersistence.open(path)
        last = store.last_ts
        assert last >= acknowledged
        assert [row.key for row in scan(store, last)] == [
            name(ts * 100 + n) for ts in range(1, last + 1) for n in range(5)
        ]
        assert store.check() == []
        await store.close()


# Side by side


async def test_reads_at_a_fixed_time_stay_the_same_while_commits_follow(store):
    await store.append([insert(1, value=b"0", copies=20)])
    expected = scan(store, 1)
    table = store.scan_table(TABLE, b"", None, Timestamp(1), descending=True, limit=50)

    async def write():
        for ts in range(2, 150):
            writes = []
            for number, row in enumerate(expected):
                if ts % 20 == number:
                    value = None if ts % 2 else b"%d" % ts
                    writes.append(DocumentWrite(TABLE, row.id, value, False))
            gone = [write for write in writes if write.value is None]
            moved = tuple(IndexWrite(INDEX, one.id, TABLE, one.id, False) for one in gone)
            fresh = insert(ts)
            await store.append(
                [Commit(Timestamp(ts), (*writes, *fresh.documents), (*moved, *fresh.entries))]
            )

    writing = asyncio.ensure_future(write())
    reads = 0
    while not writing.done():
        assert scan(store, 1) == expected
        assert store.scan_table(TABLE, b"", None, Timestamp(1), descending=True, limit=50) == table
        reads += 1
        await asyncio.sleep(0)
    await writing
    assert reads > 100
    assert scan(store, 1) == expected
    assert store.check() == []


# The log


async def test_the_log_is_copied_when_nothing_happens_and_when_it_is_long(path, monkeypatch):
    monkeypatch.setattr(store_module, "_IDLE_S", 0.0)
    monkeypatch.setattr(store_module, "_CHECKPOINT_ROWS", 50)
    monkeypatch.setattr(store_module, "_CHECKPOINT_ROWS_AT_MOST", 500)
    store = await SqlitePersistence.open(path)
    log = path.with_name(path.name + "-wal")
    await store.append([insert(1, copies=30)])
    assert len(scan(store, 1)) == 30  # an open view must not keep the log from being copied
    while store._rows_in_log:
        await asyncio.sleep(0)
    await store._writer.run(lambda _: None)
    (first_pages,) = {path.stat().st_size // 4096}
    assert first_pages > 3
    for ts in range(2, 60):
        await store.append([insert(ts, value=b"x" * 1000, copies=20)])
        scan(store, ts)
    assert log.stat().st_size < 4_000_000
    assert path.stat().st_size // 4096 > first_pages + 100
    assert len(scan(store, 60)) == 30 + 58 * 20
    await store.close()


async def test_an_open_view_does_not_keep_the_log_from_being_copied(path, store):
    await store.append([insert(1)])
    scan(store, 1)  # the view, opened before most of the log was written
    for ts in range(2, 30):
        await store.append([insert(ts, copies=20)])
    store._checkpoint()
    await store._writer.run(lambda _: None)
    # Copied as a whole: the next commit begins the log anew.
    log = path.with_name(path.name + "-wal")
    written = log.stat().st_size
    for ts in range(30, 40):
        await store.append([insert(ts)])
    assert log.stat().st_size == written


async def test_a_view_is_kept_between_commits_and_renewed_after_one(store):
    await store.append([insert(1)])
    scan(store, 1)
    ran = []
    store._reader.set_trace_callback(ran.append)
    for _ in range(5):
        store.get(TABLE, name(100), Timestamp(1))
    assert len(ran) == 5
    await store.append([insert(2)])
    assert len(scan(store, 2)) == 2
    assert "COMMIT" in ran


# The check


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM documents", "points at no live document"),
        ("UPDATE documents SET value = NULL", "points at no live document"),
        ("UPDATE documents SET ts = ts - 15", "points at no live document"),
        ("UPDATE clock SET last_ts = 1", "newer than the clock"),
        ("UPDATE clock SET next_doc = 1", "newer than the clock"),
        ("UPDATE history SET end_ts = 100", "version of 10 is wrong"),
        ("INSERT INTO entry_history SELECT idx, ts + 1, key, doc, ts FROM entries", "ended entry"),
    ],
)
async def test_check_names_what_is_wrong(path, damage, found):
    store = await SqlitePersistence.open(path)
    update = DocumentWrite(TABLE, name(1000), b"2", False)
    await store.append([insert(10), Commit(Timestamp(20), (update,), ())])
    assert store.check() == []
    await store.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(damage)
    connection.close()
    store = await SqlitePersistence.open(path)
    assert any(found in problem for problem in store.check())
    await store.close()
