"""Filling an index: every old document once, whatever is written meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reactive_store.engine import backfill
from reactive_store.engine.backfill import backfill_index, table_pages
from reactive_store.engine.database import Database
from reactive_store.engine.interval import Interval, after
from reactive_store.engine.range_index import IndexState, RangeIndex
from reactive_store.persistence.contract import BackfillEntry, IndexId
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key

BY_N = RangeIndex("by_n", IndexId(2000), ("n",), IndexState.BACKFILLING)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "_PAGE", 10)


async def insert(database: Database, *numbers: int) -> list[bytes]:
    transaction = database.begin_mutation()
    ids = [transaction.insert("notes", {"n": n}) for n in numbers]
    await database.commit(transaction)
    return [decode_id(each).internal_id for each in ids]


def entries(database: Database) -> list[tuple[bytes, bytes]]:
    page = database.persistence.scan(
        BY_N.id, b"", None, database.latest_ts, descending=False, limit=1000
    )
    return [(row.key[:9], row.id) for row in page.rows]


async def test_pages_cover_the_table_in_the_newest_state(database: Database) -> None:
    await insert(database, *range(25))
    table = database.catalog.tables["notes"]
    sizes, seen = [], set[int]()
    async for rows in table_pages(
        database.committer, database.persistence, database.runtime, table
    ):
        sizes.append(len(rows))
        seen |= {Document(row.value, "notes")["n"] for row in rows}
        if len(sizes) == 1:
            transaction = database.begin_mutation()
            last = max(rows).id
            for row in transaction.scan("notes", "by_id", Interval(after(last), None)).take(99):
                number = Document(row.value, "notes")["n"]
                transaction.patch("notes", row.id, {"n": number + 100})
            await database.commit(transaction)
    assert sizes == [10, 10, 5]
    assert len(seen) == 25
    assert sum(number >= 100 for number in seen) == 15


async def test_every_document_gets_its_entry(database: Database) -> None:
    ids = await insert(database, *range(25))
    table = database.catalog.tables["notes"]
    added = await backfill_index(
        database.committer, database.persistence, database.runtime, table, BY_N
    )
    assert added == 25
    assert entries(database) == [(encode_key(n), ids[n]) for n in range(25)]


async def test_an_empty_table_writes_nothing(database: Database) -> None:
    (only,) = await insert(database, 1)
    transaction = database.begin_mutation()
    transaction.delete("notes", only)
    await database.commit(transaction)
    table = database.catalog.tables["notes"]
    added = await backfill_index(
        database.committer, database.persistence, database.runtime, table, BY_N
    )
    assert added == 0
    assert entries(database) == []


async def test_a_document_written_since_it_was_seen_is_left_to_its_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await insert(database, *range(5))
    table = database.catalog.tables["notes"]
    real = database.persistence.backfill

    async def write_first(index: IndexId, rows: Sequence[BackfillEntry]) -> int:
        transaction = database.begin_mutation()
        transaction.patch("notes", ids[0], {"n": 77})
        transaction.delete("notes", ids[1])
        await database.commit(transaction)
        return await real(index, rows)

    monkeypatch.setattr(type(database.persistence), "backfill", staticmethod(write_first))
    added = await backfill_index(
        database.committer, database.persistence, database.runtime, table, BY_N
    )
    assert added == 3
    # The index is in no catalog here, so the commit wrote no entry of its own.
    assert [entry[1] for entry in entries(database)] == ids[2:]
