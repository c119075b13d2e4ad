"""The front door: opening, reading at a time, subscribing, closing, coming back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from reactive_store.engine.catalog import SESSION_REQUESTS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.schema_change import apply_schema
from reactive_store.errors import BadRequest, Retry, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.testing.faulty_persistence import FaultyPersistence
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id


async def insert(database: Database, fields: dict, table: str = "notes") -> Timestamp:
    transaction = database.begin_mutation()
    transaction.insert(table, fields)
    return await database.commit(transaction)


def everything(database: Database, at: Timestamp | None = None) -> list[int]:
    scan = database.begin(at).scan("notes", "by_creation_time", EVERYTHING)
    return [Document(row.value, "notes")["n"] for row in iter(scan.next, None)]


async def test_new_data_starts_with_a_commit_since_clients_take_zero_for_nothing(
    database: Database,
) -> None:
    assert database.latest_ts > 0
    assert database.statistics().commits == 1
    assert database.statistics().tables == 0


async def test_each_past_timestamp_shows_its_state(database: Database) -> None:
    timestamps = [database.latest_ts, *[await insert(database, {"n": n}) for n in range(3)]]
    assert [everything(database, ts) for ts in timestamps] == [[], [0], [0, 1], [0, 1, 2]]
    assert everything(database) == [0, 1, 2]


async def test_the_future_cannot_be_read(database: Database) -> None:
    with pytest.raises(BadRequest, match="later than the newest commit") as refused:
        database.begin(Timestamp(database.latest_ts + 1))
    assert refused.value.code == "TimestampInFuture"


async def test_a_query_does_not_use_an_index_that_only_a_pending_commit_puts_in_service() -> None:
    disk = FaultyPersistence(MemoryPersistence())
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    await insert(database, {"n": 1})
    # Write 1 prepares the index, write 2 puts it in service.
    go_on = disk.hold(at_write=2)
    schema = define_schema({"notes": define_table({"n": v.number()}).index("by_n", ["n"])})
    change = asyncio.create_task(apply_schema(database, schema))
    while not database.committer.pending or database.catalog.tables["notes"].index("by_n") is None:
        await asyncio.sleep(0)
    with pytest.raises(BadRequest, match="currently backfilling"):
        database.begin().scan("notes", "by_n", EVERYTHING)
    assert database.begin_mutation().scan("notes", "by_n", EVERYTHING).next() is not None
    go_on.set()
    await change
    assert database.begin().scan("notes", "by_n", EVERYTHING).next() is not None
    await database.close()


async def test_data_and_definitions_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "data.sqlite3"

    async def opened() -> Database:
        store = await SqlitePersistence.open(path, synchronous="NORMAL")
        return await Database.open(store, runtime=SystemRuntime(), limits=Limits())

    database = await opened()
    schema = define_schema({"notes": define_table({"n": v.number()}).index("by_n", ["n"])})
    await apply_schema(database, schema)
    for n in range(3):
        await insert(database, {"n": n})
    ts, tables = database.latest_ts, dict(database.catalog.tables)
    await database.close()
    again = await opened()
    assert again.latest_ts == ts, "no commit is needed to start"
    assert again.catalog.tables.keys() == tables.keys()
    assert again.catalog.tables["notes"].indexes == tables["notes"].indexes
    assert everything(again) == [0, 1, 2]
    assert await insert(again, {"n": 3}) > ts
    await again.close()


async def test_many_tables_are_found_again_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactive_store.engine.database._PAGE", 3)
    path = tmp_path / "data.sqlite3"
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    database = await Database.open(store, runtime=SystemRuntime(), limits=Limits())
    for number in range(10):
        await insert(database, {"n": 1}, f"table_{number}")
    await database.close()
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    again = await Database.open(store, runtime=SystemRuntime(), limits=Limits())
    assert again.statistics().tables == 10
    await again.close()


async def test_timestamps_ascend_although_the_clock_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = SystemRuntime()
    database = await Database.open(MemoryPersistence(), runtime=runtime, limits=Limits())
    before = await insert(database, {"n": 1})
    monkeypatch.setattr(runtime, "now_ns", lambda: 5)
    assert await insert(database, {"n": 2}) == before + 1
    scan = database.begin().scan("notes", "by_creation_time", EVERYTHING)
    assert [Document(row.value, "notes")["n"] for row in iter(scan.next, None)] == [1, 2]
    await database.close()


async def test_a_first_commit_that_fails_fails_the_opening() -> None:
    disk = FaultyPersistence(MemoryPersistence())
    disk.fail()
    with pytest.raises(StoreFailed):
        await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "committer"]


# Subscriptions


async def test_a_subscription_hears_of_the_first_commit_that_touches_it(
    database: Database,
) -> None:
    reading = database.begin()
    reading.scan("notes", "by_creation_time", EVERYTHING).next()
    fired: list[int] = []
    database.subscribe(reading.read_set(), reading.begin_ts, fired.append)
    await insert(database, {"n": 1}, "elsewhere")
    assert fired == []
    ts = await insert(database, {"n": 1})
    await insert(database, {"n": 2})
    assert fired == [ts]
    assert database.statistics().subscriptions == 0
    assert database.statistics().subscriptions_touched == 1


async def test_a_cancelled_subscription_hears_nothing(database: Database) -> None:
    reading = database.begin()
    reading.scan("notes", "by_creation_time", EVERYTHING).next()
    fired: list[int] = []
    subscription = database.subscribe(reading.read_set(), reading.begin_ts, fired.append)
    assert not isinstance(subscription, int)
    database.cancel(subscription)
    await insert(database, {"n": 1})
    assert fired == []


async def test_subscribing_in_the_past_is_fine_when_nothing_touched_it(
    database: Database,
) -> None:
    reading = database.begin()
    reading.scan("notes", "by_creation_time", EVERYTHING).next()
    await insert(database, {"n": 1}, "elsewhere")
    fired: list[int] = []
    subscription = database.subscribe(reading.read_set(), reading.begin_ts, fired.append)
    assert not isinstance(subscription, int)
    ts = await insert(database, {"n": 1})
    assert fired == [ts]


async def test_a_pending_commit_touches_a_subscription_when_it_is_durable() -> None:
    disk = FaultyPersistence(MemoryPersistence())
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    reading = database.begin()
    reading.scan("notes", "by_creation_time", EVERYTHING).next()
    go_on = disk.hold()
    commit = asyncio.create_task(insert(database, {"n": 1}))
    await asyncio.sleep(0.01)
    fired: list[int] = []
    subscription = database.subscribe(reading.read_set(), reading.begin_ts, fired.append)
    assert not isinstance(subscription, int)
    go_on.set()
    assert fired == [] or fired == [await commit]
    ts = await commit
    assert fired == [ts]
    await database.close()


async def test_subscribing_before_the_log_begins_counts_as_touched(
    persistence: MemoryPersistence,
) -> None:
    database = await Database.open(
        persistence, runtime=SystemRuntime(), limits=replace(Limits(), write_log_commits=3)
    )
    reading = database.begin()
    reading.scan("ghosts", "by_creation_time", EVERYTHING).next()
    for n in range(5):
        await insert(database, {"n": n})
    answer = database.subscribe(reading.read_set(), reading.begin_ts, lambda _: None)
    assert answer == reading.begin_ts + 1
    await database.close()


# Closing


async def test_closing_makes_what_was_accepted_durable(tmp_path: Path) -> None:
    path = tmp_path / "data.sqlite3"
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    database = await Database.open(store, runtime=SystemRuntime(), limits=Limits())
    commits = [asyncio.create_task(insert(database, {"n": 0}, "first"))]
    await commits[0]
    commits = [asyncio.create_task(insert(database, {"n": n}, "first")) for n in range(20)]
    await asyncio.sleep(0)
    await database.close()
    timestamps = [await commit for commit in commits]
    store = await SqlitePersistence.open(path, synchronous="NORMAL")
    assert store.last_ts == max(timestamps)
    await store.close()


async def test_a_closed_database_refuses_commits_and_closing_again_is_harmless() -> None:
    database = await Database.open(MemoryPersistence(), runtime=SystemRuntime(), limits=Limits())
    await database.close()
    with pytest.raises(Retry, match="closing") as refused:
        await insert(database, {"n": 1})
    assert refused.value.code == "Closing"
    reading = database.begin_mutation()
    assert await database.commit(reading) == reading.begin_ts, "nothing was written"
    await database.close()


async def test_the_numbers_add_up(database: Database) -> None:
    transaction = database.begin_mutation()
    for n in range(3):
        transaction.insert("notes", {"n": n})
    await database.commit(transaction)
    statistics = database.statistics()
    assert (statistics.commits, statistics.tables, statistics.conflicts) == (2, 1, 0)
    # The first commit's one, a table and its index, three notes.
    assert statistics.documents_written == 6
    assert statistics.latest_ts == database.latest_ts
    assert statistics.pending_commits == 0
    assert statistics.batches == 2


async def test_ids_chosen_by_us_are_kept(database: Database) -> None:
    transaction = database.begin_mutation()
    document = transaction.insert(SESSION_REQUESTS, {"n": 1}, internal_id=b"r" * 16)
    await database.commit(transaction)
    assert decode_id(document).internal_id == b"r" * 16
    assert database.begin().get(SESSION_REQUESTS, b"r" * 16) is not None
