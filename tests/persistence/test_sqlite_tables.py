"""The tables alone: their view, their write-ahead log, and when what they hold is durable.

What reads return is pinned by test_contract.py, through the store that is built on them.
"""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence.sqlite_writes import store_global
from reactive_store.persistence.writer_thread import Health, Pacer

TABLE, INDEX = TableNumber(1), IndexId(1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.sqlite3"


@pytest.fixture
async def tables(path):
    opened = await SqliteTables.open(path, "FULL", Limits(), Health(), Pacer())
    yield opened
    await opened.close()


def inserts(first, last, size=100):
    """One commit per timestamp, each of one document with one key."""
    commits = []
    for ts in range(first, last + 1):
        name = ts.to_bytes(16, "big")
        write = DocumentWrite(TABLE, name, b"v" * size, True)
        commits.append(
            Commit(Timestamp(ts), (write,), (IndexWrite(INDEX, name, TABLE, name, True),))
        )
    return commits


def count(tables, at):
    return len(tables.index_rows(INDEX, b"", None, at, False, 10_000))


async def test_a_view_stays_as_it_is_until_it_is_renewed(tables):
    await tables.write_commits(inserts(1, 300))
    assert count(tables, 300) == 300
    await tables.write_commits(inserts(301, 310))
    assert tables.written_ts == 310
    assert count(tables, 310) == 300
    tables.renew_view()
    assert count(tables, 310) == 310
    assert count(tables, 305) == 305
    assert tables.check() == []


async def test_no_more_rows_than_asked_for_are_given(tables):
    gone = Commit(
        Timestamp(20),
        (DocumentWrite(TABLE, (3).to_bytes(16, "big"), None, False),),
        (IndexWrite(INDEX, (3).to_bytes(16, "big"), TABLE, (3).to_bytes(16, "big"), False),),
    )
    await tables.write_commits([*inserts(1, 10), gone])
    for at in (10, 20):
        for descending in (False, True):
            assert len(tables.index_rows(INDEX, b"", None, at, descending, 4)) == 4
            assert len(tables.table_rows(TABLE, b"", None, at, descending, 4)) == 4


async def test_commits_are_durable_after_a_checkpoint_only(tables, path):
    await tables.write_commits(inserts(1, 100))
    assert tables.durable_ts == 0
    await tables.checkpoint()
    assert tables.durable_ts == 100
    assert tables.rows_in_log == 0


async def test_a_view_opened_during_a_checkpoint_does_not_keep_the_log_from_starting_anew(
    tables, path
):
    log = path.with_name(path.name + "-wal")
    sizes = []
    for round_ in range(12):
        await tables.write_commits(inserts(1 + 50 * round_, 50 + 50 * round_, size=2000))
        copying = asyncio.ensure_future(tables.checkpoint())
        while not copying.done():
            count(tables, 1)
            await asyncio.sleep(0)
        await copying
        sizes.append(log.stat().st_size)
    assert sizes[-1] <= max(sizes[:4]) * 1.5


async def test_what_is_no_commit_is_durable_at_once_and_seen_by_the_next_read(tables):
    assert tables.get_global("name") is None
    await tables.write(lambda c: store_global(c, "name", b"value"), 1)
    assert tables.get_global("name") == b"value"
    assert tables.rows_in_log == 1
    level = await tables.thread.run(lambda c: c.execute("PRAGMA synchronous").fetchone()[0])
    assert level == 1  # NORMAL again: commits do not wait for the disk


async def test_the_table_of_an_index_is_found_at_its_entries(tables):
    assert tables.table_of(INDEX) is None
    await tables.write_commits(inserts(1, 2))
    tables.renew_view()
    assert tables.table_of(INDEX) == TABLE


async def test_a_key_given_to_two_documents_is_refused_as_a_whole(tables):
    first, second = inserts(1, 2)
    taken = second.entries[0]._replace(key=first.entries[0].key)
    await tables.write_commits([first])
    with pytest.raises(AssertionError):
        await tables.write_commits([Commit(second.ts, second.documents, (taken,))])
    tables.renew_view()
    assert count(tables, 2) == 1
    assert tables.get(TABLE, second.documents[0].id, 2) is None


@pytest.mark.parametrize("damage", ["DELETE FROM clock", "UPDATE clock SET last_ts = 'soon'"])
async def test_a_file_whose_clock_is_damaged_is_refused(tables, path, damage):
    await tables.write_commits(inserts(1, 3))
    await tables.thread.write(lambda connection: connection.execute(damage))
    with pytest.raises(BadRequest, match="its clock is damaged") as refused:
        await SqliteTables.open(path, "FULL", Limits(), Health(), Pacer())
    assert refused.value.code == "DataFileUnreadable"


async def test_a_view_that_cannot_end_does_not_keep_the_file_from_being_closed(path):
    tables = await SqliteTables.open(path, "FULL", Limits(), Health(), Pacer())
    await tables.write_commits(inserts(1, 3))
    assert count(tables, 3) == 3
    tables._reader.execute("COMMIT")  # so the next one fails, as it may over a damaged file
    await tables.close()
    with pytest.raises(sqlite3.ProgrammingError):
        tables._reader.execute("SELECT 1")
