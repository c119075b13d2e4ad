"""What is particular to the SQLite store: restarts, crashes, a full disk, log and tables."""

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
    BackfillEntry,
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_format import FORMAT_VERSION
from reactive_store.persistence.sqlite_log import SqliteLog
from reactive_store.persistence.writer_thread import WriterThread

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


def rows_of(path, query):
    connection = sqlite3.connect(path)
    rows = connection.execute(query).fetchall()
    connection.close()
    return rows


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


async def test_closing_leaves_the_tables_an_empty_log_and_refuses_writes(path, store):
    await store.append([insert(1)])
    await store.close()
    assert {entry.name for entry in path.parent.iterdir()} == {"data.sqlite3", "log.sqlite3"}
    assert rows_of(path.with_name("log.sqlite3"), "SELECT count(*) FROM log") == [(0,)]
    assert rows_of(path, "SELECT last_ts FROM clock") == [(1,)]
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
    while store._tables.rows_in_log < 2:  # the first piece
        await asyncio.sleep(0)
    await store._materialiser.settle()
    while len(scan(store, 1)) == 20:
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
    thread = store._log._thread
    limit = await thread.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await thread.run(lambda c: c.execute(f"PRAGMA max_page_count = {limit}").fetchone())
    big = store.append([insert(2, value=b"x" * 100_000)])
    small = store.append([Commit(Timestamp(3), (), ())])
    results = await asyncio.gather(big, small, return_exceptions=True)
    assert [type(result) for result in results] == [StoreFailed, StoreFailed]
    assert "full" in str(results[0])
    assert store.last_ts == 1
    assert len(scan(store, 3)) == 1


async def test_tables_that_cannot_grow_end_writing_and_nothing_acknowledged_is_lost(path):
    store = await SqlitePersistence.open(path)
    await store.append([insert(1)])
    await store._materialiser.settle()
    thread = store._tables.thread
    limit = await thread.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await thread.run(lambda c: c.execute(f"PRAGMA max_page_count = {limit}").fetchone())
    for ts in range(2, 30):
        await store.append([insert(ts, value=b"x" * 10_000, copies=3)])
    with pytest.raises(StoreFailed, match="full"):
        await store.trim(Timestamp(29))
    with pytest.raises(StoreFailed, match="full"):
        await store.append([insert(30)])
    assert len(scan(store, 30)) == 1 + 28 * 3
    assert len(scan(store, 2)) == 4
    await store.close()
    again = await SqlitePersistence.open(path)
    assert again.last_ts == 29
    assert len(scan(again, 30)) == 1 + 28 * 3
    await again.append([insert(30)])
    await again.close()
    assert rows_of(path, "SELECT last_ts FROM clock") == [(30,)]


# A process that ends

_WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
path, place, *sys.path[:0] = sys.argv[1:]
from reactive_store.persistence import materialiser
from reactive_store.persistence.contract import *
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_log import SqliteLog
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence import sqlite_log, sqlite_tables

materialiser._ROUND_ROWS = 150  # rounds all the time
sqlite_log._FORGET_ROWS = 2

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

calls = 0

def after(function, count):
    def run(*arguments, **named):
        global calls
        result = function(*arguments, **named)
        calls += 1
        if calls == count:
            die()
        return result
    return run

if place == "between slices":
    sqlite_tables._SLICE_DOCUMENTS = 4
    sqlite_tables.write_commits = after(sqlite_tables.write_commits, 40)
elif place == "tables written":
    SqliteTables.checkpoint = die
elif place == "tables durable":
    SqliteLog.forget = die
elif place == "log half trimmed":
    sqlite_log._delete = after(sqlite_log._delete, 3)
elif place == "log trimmed":
    SqliteLog.copy_most = die
elif place == "log copied":
    SqliteLog.copy_rest = die

async def main():
    store = await SqlitePersistence.open(Path(path))
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
_ROOT = str(store_module.__file__).rsplit("/reactive_store/", 1)[0]


def run_until_killed(path, place="anywhere", lines=None):
    """The last timestamp that was acknowledged; killed from outside after `lines` of them."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), place, _ROOT], stdout=subprocess.PIPE, text=True
    )
    acknowledged = 0
    if lines is not None:
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    # A line cut in two by the kill is not an acknowledgement anybody read.
    return max([acknowledged, *map(int, rest.rpartition("\n")[0].split())])


def assert_complete(store, acknowledged):
    """Every commit up to the last is there, whole, and the last is not below `acknowledged`."""
    last = store.last_ts
    assert last >= acknowledged
    assert [row.key for row in scan(store, last)] == [
        name(ts * 100 + n) for ts in range(1, last + 1) for n in range(5)
    ]
    assert store.check() == []


async def test_what_was_acknowledged_survives_kill_9_and_the_rest_is_all_or_nothing(path):
    for rounds in range(4):
        acknowledged = run_until_killed(path, lines=10 + 37 * rounds)
        store = await SqlitePersistence.open(path)
        assert_complete(store, acknowledged)
        await store.close()


@pytest.mark.parametrize(
    "place",
    [
        "between slices",
        "tables written",
        "tables durable",
        "log half trimmed",
        "log trimmed",
        "log copied",
    ],
)
async def test_kill_9_at_each_step_on_the_way_to_the_tables_loses_and_doubles_nothing(path, place):
    for _ in range(2):  # the second process recovers, and is killed at the same place
        acknowledged = run_until_killed(path, place)
        store = await SqlitePersistence.open(path)
        assert_complete(store, acknowledged)
        await store._materialiser.settle()
        assert_complete(store, acknowledged)
        # Like another kill: nothing is moved or trimmed when this process lets go.
        store._health.fail(AssertionError("stop here"))
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


# The log and the tables


async def test_a_directory_without_a_log_opens_and_is_marked(path):
    store = await SqlitePersistence.open(path)
    await store.append([insert(1)])
    await store.close()
    path.with_name("log.sqlite3").unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    again = await SqlitePersistence.open(path)
    assert len(scan(again, 1)) == 1
    await again.append([insert(2)])
    await again.close()
    assert rows_of(path, "PRAGMA user_version") == [(FORMAT_VERSION,)]
    assert rows_of(path, "SELECT last_ts FROM clock") == [(2,)]


async def test_a_damaged_batch_is_refused_by_name_and_nothing_is_changed(path):
    store = await SqlitePersistence.open(path)
    await store.append([insert(1)])
    await store.append([insert(2)])
    store._health.fail(AssertionError("as if killed"))
    await store.close()
    log = path.with_name("log.sqlite3")
    connection = sqlite3.connect(log)
    with connection:
        (batch,) = connection.execute("SELECT batch FROM log WHERE ts = 2").fetchone()
        damaged = batch[:-3] + b"?" + batch[-2:]
        connection.execute("UPDATE log SET batch = ? WHERE ts = 2", (damaged,))
    connection.close()
    for _ in range(2):
        with pytest.raises(BadRequest, match=r"log\.sqlite3: the batch of timestamp 2 is damaged"):
            await SqlitePersistence.open(path)
    assert rows_of(log, "SELECT ts FROM log") == [(1,), (2,)]
    assert rows_of(path, "SELECT last_ts FROM clock") == [(0,)]


async def test_what_the_tables_hold_already_is_not_moved_twice(path):
    store = await SqlitePersistence.open(path)
    await store.append([insert(1)])
    await store.append([insert(2)])
    (batches,) = [rows_of(path.with_name("log.sqlite3"), "SELECT * FROM log")]
    await store.close()
    connection = sqlite3.connect(path.with_name("log.sqlite3"))
    with connection:
        connection.executemany("INSERT INTO log VALUES (?, ?)", batches)
    connection.close()
    again = await SqlitePersistence.open(path)
    assert again.last_ts == 2
    assert not again._materialiser.layers[0].commits
    assert len(scan(again, 2)) == 2
    await again.append([insert(3)])
    await again.close()
    assert rows_of(path.with_name("log.sqlite3"), "SELECT count(*) FROM log") == [(0,)]


async def _left_full(path, *timestamps):
    """A store that ended with batches in its log."""
    store = await SqlitePersistence.open(path)
    await store.append([insert(ts) for ts in timestamps])
    store._health.fail(AssertionError("as if killed"))
    await store.close()


def _move_log(source, target):
    source.with_name("log.sqlite3").replace(target.with_name("log.sqlite3"))


async def test_the_log_of_another_data_file_is_refused_and_nothing_is_changed(path, tmp_path):
    other = tmp_path / "other" / "data.sqlite3"
    await _left_full(path, 1, 2)
    await _left_full(other, 3)
    before = path.read_bytes()
    _move_log(other, path)
    for _ in range(2):
        with pytest.raises(BadRequest, match="commits of another data file") as refused:
            await SqlitePersistence.open(path)
        assert refused.value.code == "DataFileUnreadable"
    assert path.read_bytes() == before
    assert rows_of(path.with_name("log.sqlite3"), "SELECT ts FROM log") == [(3,)]


async def test_an_empty_log_is_given_to_whatever_data_file_lies_beside_it(path, tmp_path):
    other = tmp_path / "other" / "data.sqlite3"
    for each in (path, other):
        store = await SqlitePersistence.open(each)
        await store.append([insert(1 if each is path else 7)])
        await store.close()
    _move_log(other, path)
    for ts in (2, 3):
        store = await SqlitePersistence.open(path)
        await store.append([insert(ts)])
        await store.close()
    store = await SqlitePersistence.open(path)
    assert len(scan(store, 3)) == 3
    await store.close()


async def test_a_data_file_older_than_its_log_is_refused(path):
    store = await SqlitePersistence.open(path)
    await store.append([insert(1)])
    await store.close()
    older = path.read_bytes()
    store = await SqlitePersistence.open(path)
    await store.append([insert(2)])
    await store._materialiser.settle()
    await store.append([insert(3)])
    await store.close()
    path.write_bytes(older)
    with pytest.raises(BadRequest, match=r"ends with commit 1, .* up to 3 is in it") as refused:
        await SqlitePersistence.open(path)
    assert refused.value.code == "DataFileUnreadable"
    assert path.read_bytes() == older


@pytest.mark.parametrize("without", ["both", "log", "data"])
async def test_files_that_were_made_before_ids_were_given_get_one(path, without):
    await _left_full(path, 1)
    log = path.with_name("log.sqlite3")
    for file, statement in (
        (path, "DELETE FROM globals WHERE name = 'store_id'"),
        (log, "DROP TABLE pairing"),
    ):
        if without in ("both", "data" if file is path else "log"):
            connection = sqlite3.connect(file)
            with connection:
                connection.execute(statement)
            connection.close()
    if without == "data":  # never so by itself: the data file is named first
        with pytest.raises(BadRequest, match="another data file"):
            await SqlitePersistence.open(path)
        return
    store = await SqlitePersistence.open(path)
    assert len(scan(store, 1)) == 1
    await store.close()
    (data_id,) = rows_of(path, "SELECT value FROM globals WHERE name = 'store_id'")
    assert rows_of(log, "SELECT store FROM pairing") == [data_id]


async def test_a_data_file_has_its_id_durably_before_the_log_carries_it(path, monkeypatch):
    calls = []
    write, pair = WriterThread.write, SqliteLog.pair

    async def noted(self, work, *, synchronous=None):
        calls.append(synchronous)
        return await write(self, work, synchronous=synchronous)

    monkeypatch.setattr(WriterThread, "write", noted)
    monkeypatch.setattr(SqliteLog, "pair", lambda *given: (calls.append("pair"), pair(*given)))
    # A log whose id outlived that of its data file would be refused.
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    await store.close()
    assert calls[:2] == ["FULL", "pair"]


async def test_a_view_is_kept_while_commits_follow_and_renewed_when_they_are_in_the_tables(store):
    await store.append([insert(1)])
    await store._materialiser.settle()
    scan(store, 1)
    ran = []
    store._tables._reader.set_trace_callback(ran.append)
    for ts in range(2, 6):
        await store.append([insert(ts)])
        assert len(scan(store, ts)) == ts
    assert len(ran) == 4
    await store._materialiser.settle()
    assert len(scan(store, 5)) == 5
    assert "COMMIT" in ran


async def test_appends_keep_their_order_while_they_wait_for_room(path):
    store = await SqlitePersistence.open(path, limits=Limits(memtable_bytes=20_000))
    writing = [
        asyncio.ensure_future(store.append([insert(ts, value=b"x" * 3000)])) for ts in range(1, 60)
    ]
    done = []
    for write in writing:
        write.add_done_callback(lambda write: done.append(writing.index(write)))
    await asyncio.gather(*writing)
    await asyncio.sleep(0)
    assert done == sorted(done)
    assert len(scan(store, 59)) == 59
    # Some were moved to the tables meanwhile; nobody asked for it.
    assert store._materialiser.floor_ts > 0
    await store.close()


async def test_backfill_waits_for_the_tables_only_where_it_needs_them(store):
    other = IndexId(2)
    await store.append([insert(1), insert(2)])
    await store._materialiser.settle()
    update = DocumentWrite(TABLE, name(200), b"new", False)
    fresh = DocumentWrite(TABLE, name(400), b"v", True)
    entry = IndexWrite(other, b"k4", TABLE, name(400), True)
    await store.append([Commit(Timestamp(4), (update, fresh), (entry,))])

    def seen(*timestamps):
        return [BackfillEntry(b"k%d" % ts, TABLE, name(ts * 100), ts) for ts in timestamps]

    def keys(at):
        page = store.scan(other, b"", None, Timestamp(at), descending=False, limit=9)
        return [row.key for row in page.rows]

    # 1 is in the tables, 2 has changed since, 4 has an entry already.
    assert await store.backfill(other, seen(1, 2, 4)) == 1
    assert store._materialiser.floor_ts == 2
    assert keys(4) == [b"k1", b"k4"]
    await store.append([insert(5)])
    assert await store.backfill(other, seen(5)) == 1
    assert store._materialiser.floor_ts == 5
    assert keys(5) == [b"k1", b"k4", b"k5"]
    assert store.check() == []


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
    # Empty, and it would notice by itself that the clock went back.
    path.with_name("log.sqlite3").unlink()
    store = await SqlitePersistence.open(path)
    assert any(found in problem for problem in store.check())
    await store.close()
