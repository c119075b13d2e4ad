"""Forgetting: old versions, indexes out of service, records of requests; and what must stay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from reactive_store.engine import retention
from reactive_store.engine.catalog import DROPPED, DROPPING, INDEXES, SESSION_REQUESTS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.retention import Retention
from reactive_store.engine.schema_change import apply_schema
from reactive_store.errors import Conflict, OutOfRetention, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import IndexId, Persistence, Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import Schema, define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id


class _Clock(SystemRuntime):
    """The real one, moved ahead at will; it does not really pause."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0
        self.pauses = 0

    def now_ns(self) -> int:
        return super().now_ns() + int(self.ahead_s * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.pauses += 1
        await asyncio.sleep(0)


LIMITS = replace(Limits(), retention_seconds=100.0, request_record_seconds=1000.0)


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
async def database(persistence: Persistence, clock: _Clock) -> AsyncIterator[Database]:
    opened = await Database.open(persistence, runtime=clock, limits=LIMITS)
    yield opened
    await opened.close()


async def write(database: Database, count: int = 1) -> tuple[bytes, list[Timestamp]]:
    """One document and `count` versions of it."""
    transaction = database.begin_mutation()
    document = decode_id(transaction.insert("notes", {"n": 0})).internal_id
    timestamps = [await database.commit(transaction)]
    for n in range(1, count):
        transaction = database.begin_mutation()
        transaction.patch("notes", document, {"n": n})
        timestamps.append(await database.commit(transaction))
    return document, timestamps


def value(database: Database, document: bytes, at: Timestamp | None = None) -> int:
    row = database.begin(at).get("notes", document)
    assert row is not None
    return int(Document(row.value, "notes")["n"])


def index_states(database: Database) -> dict[int, str]:
    scan = database.begin().scan(INDEXES, "by_creation_time", EVERYTHING)
    documents = [Document(row.value, INDEXES) for row in iter(scan.next, None)]
    return {document["index"]: document["state"] for document in documents}


def notes(**indexes: list[str]) -> Schema:
    table = define_table({"n": v.number()})
    for name, fields in indexes.items():
        table = table.index(name, fields)
    return define_schema({"notes": table})


async def test_versions_within_the_time_of_retention_stay(database: Database, clock) -> None:
    document, timestamps = await write(database, 5)
    clock.ahead_s = 90
    assert await Retention(database).trim() == 0
    assert [value(database, document, ts) for ts in timestamps] == [0, 1, 2, 3, 4]


async def test_older_versions_go_and_reading_there_is_refused(database: Database, clock) -> None:
    document, timestamps = await write(database, 5)
    clock.ahead_s = 200
    assert await Retention(database).trim() >= 4
    assert database.oldest_readable_ts == timestamps[-1]
    assert value(database, document) == 4
    with pytest.raises(OutOfRetention, match="older than what is kept"):
        database.begin(timestamps[2])


async def test_a_reader_that_outlives_its_timestamp_is_told(database: Database, clock) -> None:
    document, timestamps = await write(database, 5)
    slow = database.begin(timestamps[1])
    scan = slow.scan("notes", "by_creation_time", EVERYTHING)
    clock.ahead_s = 200
    await Retention(database).trim()
    with pytest.raises(OutOfRetention):
        slow.get("notes", document)
    with pytest.raises(OutOfRetention):
        scan.next()


async def test_the_horizon_outlives_the_process(tmp_path: Path, clock) -> None:
    path = tmp_path / "data.sqlite3"
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    database = await Database.open(store, runtime=clock, limits=LIMITS)
    _, timestamps = await write(database, 3)
    clock.ahead_s = 200
    await Retention(database).trim()
    await database.close()
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    again = await Database.open(store, runtime=clock, limits=LIMITS)
    assert again.oldest_readable_ts == timestamps[-1]
    with pytest.raises(OutOfRetention):
        again.begin(timestamps[0])
    await again.close()


async def test_much_history_goes_in_pieces_with_pauses_between(clock) -> None:
    limits = replace(LIMITS, trim_rows=10)
    store = MemoryPersistence(limits)
    database = await Database.open(store, runtime=clock, limits=limits)
    await write(database, 45)
    clock.ahead_s, clock.pauses = 200, 0
    assert await Retention(database).trim() >= 44
    assert clock.pauses >= 5
    assert store.statistics()["ended_versions"] == 0
    await database.close()


async def test_an_idle_database_is_left_alone(
    database: Database, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(database, 3)
    clock.ahead_s = 200
    await Retention(database).trim()
    for name in ("trim", "set_global", "append", "drop_index"):
        monkeypatch.setattr(type(database.persistence), name, None)
    clock.ahead_s = 400
    assert await Retention(database).trim() == 0


async def test_after_a_failed_write_nothing_is_trimmed(database: Database, clock) -> None:
    await write(database, 3)
    clock.ahead_s = 200
    database.committer._failure = StoreFailed("full")
    assert await Retention(database).trim() == 0
    database.committer._failure = None


async def test_an_index_out_of_service_goes_when_nobody_can_still_read_it(
    database: Database, clock
) -> None:
    await apply_schema(database, notes(by_n=["n"]))
    await write(database, 2)
    index = database.catalog.tables["notes"].index("by_n")
    assert index is not None
    await apply_schema(database, notes())
    await Retention(database).trim()
    assert index_states(database)[index.id] == DROPPING
    assert entries(database, index.id) == 1
    clock.ahead_s = 200
    await Retention(database).trim()
    assert entries(database, index.id) == 0
    # The newest number stays recorded, so that it is not given out again.
    assert index_states(database)[index.id] == DROPPED


def entries(database: Database, index: IndexId) -> int:
    ts = database.latest_ts
    page = database.persistence.scan(index, b"", None, ts, descending=False, limit=100)
    return len(page.rows)


async def test_the_record_of_an_older_index_goes_too_and_numbers_are_never_reused(
    tmp_path: Path, clock
) -> None:
    path = tmp_path / "data.sqlite3"
    used = set[int]()
    for round_ in range(4):
        store = await SqlitePersistence.open(path, synchronous="NORMAL")
        database = await Database.open(store, runtime=clock, limits=LIMITS)
        await apply_schema(database, notes(by_n=["n"]))
        index = database.catalog.tables["notes"].index("by_n")
        assert index is not None
        assert index.id not in used
        used.add(index.id)
        await apply_schema(database, notes())
        await write(database)
        clock.ahead_s += 200
        await Retention(database).trim()
        states = index_states(database)
        assert sorted(states.values()) == [DROPPED, "ready"], round_
        assert states[index.id] == DROPPED
        await database.close()


async def test_indexes_that_change_meanwhile_are_looked_at_next_time(
    database: Database, clock, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    await apply_schema(database, notes(by_n=["n"]))
    await apply_schema(database, notes())
    clock.ahead_s = 200
    real = database.persistence.drop_index

    async def change_schema(index: IndexId) -> None:
        await real(index)
        await apply_schema(database, notes(by_m=["n"]))

    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
        patch.setattr(type(database.persistence), "drop_index", staticmethod(change_schema))
        await Retention(database).trim()
    assert "next round" in caplog.text
    assert DROPPING in index_states(database).values()
    await write(database)
    clock.ahead_s = 400
    await Retention(database).trim()
    assert set(index_states(database).values()) == {"ready"}


async def test_records_of_requests_go_when_they_are_old(
    database: Database, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_RECORDS_PER_COMMIT", 4)

    async def record(*numbers: int) -> None:
        transaction = database.begin_mutation()
        for number in numbers:
            transaction.insert(SESSION_REQUESTS, {"n": number}, internal_id=bytes([number]) * 16)
        await database.commit(transaction)

    await record(*range(10))
    clock.ahead_s = 900
    await record(*range(10, 13))
    clock.ahead_s = 1100
    await Retention(database).trim()
    scan = database.begin().scan(SESSION_REQUESTS, "by_creation_time", EVERYTHING)
    left = [Document(row.value, SESSION_REQUESTS)["n"] for row in iter(scan.next, None)]
    assert left == [10, 11, 12]


async def test_records_that_change_meanwhile_are_left_for_the_next_round(
    database: Database, clock, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    transaction = database.begin_mutation()
    transaction.insert(SESSION_REQUESTS, {"n": 1}, internal_id=b"1" * 16)
    await database.commit(transaction)
    clock.ahead_s = 2000

    async def lose(*_args: object, **_options: object) -> Timestamp:
        raise Conflict("lost")

    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
        patch.setattr(database, "commit", lose)
        await Retention(database).trim()
    assert "next round" in caplog.text
    assert database.begin().get(SESSION_REQUESTS, b"1" * 16) is not None


async def test_the_loop_survives_a_round_that_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    rounds = asyncio.Semaphore(0)

    async def failing(_retention: Retention) -> int:
        rounds.release()
        raise StoreFailed("no room")

    monkeypatch.setattr(Retention, "trim", failing)
    with caplog.at_level(logging.WARNING):
        loop = asyncio.create_task(Retention(database).run())
        for _ in range(3):
            await rounds.acquire()
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
    assert "no room" in caplog.text
