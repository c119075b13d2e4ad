"""Putting a schema in force while others write, and leaving nothing behind when it fails."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactive_store.engine import backfill
from reactive_store.engine.catalog import DROPPING, INDEXES
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING, prefix_interval
from reactive_store.engine.schema_change import apply_schema
from reactive_store.errors import BadRequest, Conflict, OutOfRetention
from reactive_store.limits import Limits
from reactive_store.persistence.contract import IndexId, Page, Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import Schema, define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.testing.faulty_persistence import FaultyPersistence
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key


def notes_schema(fields: dict | None = None, **indexes: list[str]) -> Schema:
    table = define_table({"n": v.number()} if fields is None else fields)
    for name, paths in indexes.items():
        table = table.index(name, paths)
    return define_schema({"notes": table})


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "_PAGE", 10)


async def insert(database: Database, *documents: dict, table: str = "notes") -> list[bytes]:
    while True:
        transaction = database.begin_mutation()
        ids = [transaction.insert(table, dict(document)) for document in documents]
        try:
            await database.commit(transaction)
        except Conflict:
            continue
        return [decode_id(each).internal_id for each in ids]


def scanned(database: Database, index: str, table: str = "notes") -> Iterator[Document]:
    scan = database.begin().scan(table, index, EVERYTHING)
    return (Document(row.value, table) for row in iter(scan.next, None))


def numbers(database: Database, index: str = "by_n") -> list[float]:
    return [document["n"] for document in scanned(database, index)]


def index_names(database: Database, table: str = "notes") -> list[str]:
    return [index.name for index in database.catalog.tables[table].indexes]


def index_states(database: Database) -> dict[int, str]:
    return {
        document["index"]: document["state"]
        for document in scanned(database, "by_creation_time", INDEXES)
    }


async def refused(database: Database, schema: Schema) -> str:
    with pytest.raises(BadRequest) as mismatch:
        await apply_schema(database, schema)
    assert mismatch.value.code == "SchemaMismatch"
    return mismatch.value.message


# Indexes


async def test_new_tables_come_with_their_indexes_in_one_commit(database: Database) -> None:
    commits = database.statistics().commits
    await apply_schema(database, notes_schema(by_n=["n"]))
    assert database.statistics().commits == commits + 1
    assert index_names(database) == ["by_creation_time", "by_n"]
    await insert(database, {"n": 2}, {"n": 1})
    assert numbers(database) == [1, 2]


async def test_an_index_added_later_holds_what_was_there_before(database: Database) -> None:
    """V99."""
    await insert(database, *({"n": n % 7} for n in range(35)))
    await apply_schema(database, notes_schema(by_n=["n"]))
    assert numbers(database) == sorted(n % 7 for n in range(35))


async def test_an_index_is_complete_although_its_documents_move_while_it_is_built(
    database: Database,
) -> None:
    ids = await insert(database, *({"n": n} for n in range(120)))
    chance = random.Random(5)
    is_built = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not is_built.is_set():
            transaction = database.begin_mutation()
            for _ in range(3):
                match chance.randrange(4):
                    case 0:
                        new = transaction.insert("notes", {"n": chance.randrange(1000)})
                        ids.append(decode_id(new).internal_id)
                    case 1:
                        target = chance.choice(ids)
                        if transaction.get("notes", target) is not None:
                            transaction.delete("notes", target)
                    case _:
                        target = chance.choice(ids)
                        if transaction.get("notes", target) is not None:
                            n = chance.randrange(1000)
                            transaction.patch("notes", target, {"n": n, "other": n % 3})
            try:
                await database.commit(transaction)
                written += 1
            except Conflict:
                await asyncio.sleep(0)

    writers = [asyncio.create_task(write()) for _ in range(4)]
    await asyncio.sleep(0)
    schema = notes_schema(
        {"n": v.number(), "other": v.optional(v.number())}, by_n=["n"], by_other=["other", "n"]
    )
    await apply_schema(database, schema)
    built_at = database.latest_ts
    before = {document["_id"] for document in scanned(database, "by_id")}
    await asyncio.sleep(0.02)
    is_built.set()
    await asyncio.gather(*writers)
    assert written > 10
    table = sorted(document["n"] for document in scanned(database, "by_id"))
    assert numbers(database) == table
    assert sorted(numbers(database, "by_other")) == table
    # The moment it went into service, too, for whoever still reads there.
    past = database.begin(built_at).scan("notes", "by_n", EVERYTHING)
    found = [Document(row.value, "notes") for row in iter(past.next, None)]
    assert {document["_id"] for document in found} == before
    keys = [document["n"] for document in found]
    assert keys == sorted(keys)


async def test_an_index_is_not_read_at_a_time_before_it_was_complete(database: Database) -> None:
    (document,) = await insert(database, {"n": 1})
    early = database.latest_ts
    transaction = database.begin_mutation()
    transaction.patch("notes", document, {"n": 2})
    await database.commit(transaction)
    await apply_schema(database, notes_schema(by_n=["n"]))
    with pytest.raises(OutOfRetention, match="was built after"):
        database.begin(early).scan("notes", "by_n", EVERYTHING).next()
    assert database.begin(early).scan("notes", "by_id", EVERYTHING).next() is not None
    assert numbers(database) == [2]


async def test_other_fields_under_the_same_name_make_a_new_index(database: Database) -> None:
    """V99."""
    await apply_schema(database, notes_schema({"n": v.number(), "m": v.number()}, by_x=["n"]))
    await insert(database, {"n": 1, "m": 9}, {"n": 2, "m": 8})
    old = database.catalog.tables["notes"].index("by_x")
    await apply_schema(database, notes_schema({"n": v.number(), "m": v.number()}, by_x=["m"]))
    new = database.catalog.tables["notes"].index("by_x")
    assert old is not None
    assert new is not None
    assert new.id > old.id
    assert index_names(database) == ["by_creation_time", "by_x"]
    assert [document["n"] for document in scanned(database, "by_x")] == [2, 1]
    assert index_states(database)[old.id] == DROPPING


async def test_an_index_no_longer_declared_is_gone_at_once_for_new_readers_only(
    database: Database,
) -> None:
    """V99."""
    await apply_schema(database, notes_schema(by_n=["n"]))
    await insert(database, {"n": 1}, {"n": 2})
    reading = database.begin().scan("notes", "by_n", EVERYTHING)
    await apply_schema(database, notes_schema())
    assert len(reading.take(5)) == 2, "whoever began before goes on undisturbed"
    with pytest.raises(BadRequest, match=r"Index notes\.by_n not found"):
        database.begin().scan("notes", "by_n", EVERYTHING)


async def test_a_staged_index_is_built_and_opened_later_without_reading_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V100."""
    await insert(database, {"n": 2}, {"n": 1})
    fields = define_table({"n": v.number()})
    staged = define_schema({"notes": fields.index("by_n", ["n"], staged=True)})
    await apply_schema(database, staged)
    with pytest.raises(BadRequest, match="currently staged"):
        database.begin().scan("notes", "by_n", EVERYTHING)
    await insert(database, {"n": 0})
    monkeypatch.setattr(type(database.persistence), "backfill", None)
    await apply_schema(database, notes_schema(by_n=["n"]))
    assert numbers(database) == [0, 1, 2]
    await apply_schema(database, staged)
    with pytest.raises(BadRequest, match="currently staged"):
        database.begin().scan("notes", "by_n", EVERYTHING)


async def test_an_index_under_construction_cannot_be_queried_and_its_predecessor_can(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V99."""
    both = {"n": v.number(), "m": v.number()}
    await apply_schema(database, notes_schema(both, by_x=["n"]))
    await insert(database, *({"n": n, "m": -n} for n in range(30)))
    seen: list[object] = []
    real = database.persistence.backfill

    async def look(index: IndexId, entries: list) -> int:
        seen.append([document["n"] for document in scanned(database, "by_x")])
        with pytest.raises(BadRequest) as building:
            database.begin().scan("notes", "by_new", EVERYTHING)
        seen.append(building.value.code)
        return await real(index, entries)

    monkeypatch.setattr(type(database.persistence), "backfill", staticmethod(look))
    await apply_schema(database, notes_schema(both, by_x=["m"], by_new=["m", "n"]))
    assert seen[:2] == [list(range(30)), "IndexBackfillingError"]
    assert [document["n"] for document in scanned(database, "by_x")] == list(range(30))[::-1]


async def test_nested_fields_and_arrays_can_be_indexed(database: Database) -> None:
    """V65."""
    fields = {"a": v.object({"b": v.optional(v.string())}), "tags": v.array(v.string())}
    await insert(
        database,
        {"a": {"b": "x"}, "tags": ["q"]},
        {"a": {}, "tags": ["p", "r"]},
        {"a": {"b": "w"}, "tags": ["p"]},
    )
    await apply_schema(database, notes_schema(fields, by_b=["a.b"], by_tags=["tags"]))
    assert [document["a"].get("b") for document in scanned(database, "by_b")] == [None, "w", "x"]
    assert [document["tags"] for document in scanned(database, "by_tags")] == [
        ["p"],
        ["p", "r"],
        ["q"],
    ]
    scan = database.begin().scan("notes", "by_tags", prefix_interval(encode_key(["p"])))
    assert len(scan.take(9)) == 1


async def test_a_table_created_by_a_mutation_meanwhile_is_built_too(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await insert(database, *({"n": n} for n in range(5)))
    real = database.persistence.backfill

    async def create(index: IndexId, entries: list) -> int:
        if database.catalog.table_number("people") is None:
            await insert(database, {"age": 7}, {"age": 3}, table="people")
        return await real(index, entries)

    monkeypatch.setattr(type(database.persistence), "backfill", staticmethod(create))
    schema = define_schema(
        {
            "notes": define_table({"n": v.number()}).index("by_n", ["n"]),
            "people": define_table({"age": v.number()}).index("by_age", ["age"]),
        }
    )
    with caplog.at_level(logging.INFO):
        await apply_schema(database, schema)
    assert "once more" in caplog.text
    assert [document["age"] for document in scanned(database, "by_age", "people")] == [3, 7]
    assert numbers(database) == list(range(5))
    assert not any("#" in name for name in index_names(database))


# Documents that do not fit


async def test_a_stored_document_that_does_not_fit_is_named_and_nothing_changes(
    database: Database,
) -> None:
    """V91, V96."""
    old = notes_schema({"n": v.number()}, by_n=["n"])
    await apply_schema(database, old)
    await insert(database, *({"n": n} for n in range(25)))
    bad = next(scanned(database, "by_id"))["_id"]
    catalog, states = database.catalog, index_states(database)
    wanted = notes_schema(
        {"n": v.string(), "m": v.optional(v.string())}, by_n=["n"], by_more=["n", "m"]
    )
    message = await refused(database, wanted)
    assert message.startswith(
        f'Document with ID "{bad}" in table "notes" does not match the schema: '
    )
    assert "Path: .n" in message
    assert database.catalog.tables["notes"].indexes == catalog.tables["notes"].indexes
    assert set(index_states(database).values()) == {"ready", DROPPING}
    assert {n for n, state in index_states(database).items() if state == "ready"} == set(states)
    with pytest.raises(BadRequest, match="does not match the schema"):
        await insert(database, {"n": "text"})
    await insert(database, {"n": 1})
    await apply_schema(database, old)


async def test_a_change_that_fails_creates_no_table(database: Database) -> None:
    await insert(database, {"n": "text"})
    schema = define_schema(
        {
            "notes": define_table({"n": v.number()}),
            "people": define_table({"age": v.number()}).index("by_age", ["age"]),
        }
    )
    await refused(database, schema)
    assert database.catalog.table_number("people") is None
    assert database.committer.observer is None


async def test_a_write_during_the_check_that_does_not_fit_fails_the_change_not_the_write(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V91, V97."""
    await insert(database, *({"n": n} for n in range(5)))
    real = database.persistence.backfill

    async def write(index: IndexId, entries: list) -> int:
        await insert(database, {"n": "text"})
        await insert(database, {"n": "more text"})
        return await real(index, entries)

    monkeypatch.setattr(type(database.persistence), "backfill", staticmethod(write))
    message = await refused(database, notes_schema(by_n=["n"]))
    assert message.startswith('New document in table "notes" does not match the schema: ')
    assert len(list(scanned(database, "by_id"))) == 7
    assert index_names(database) == ["by_creation_time"]


async def test_writes_that_fit_and_deletions_do_not_disturb_the_check(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await insert(database, {"n": 1}, {"n": 2})
    real = database.persistence.backfill

    async def write(index: IndexId, entries: list) -> int:
        transaction = database.begin_mutation()
        transaction.delete("notes", ids[0])
        transaction.insert("elsewhere", {"x": "anything"})
        await database.commit(transaction)
        await insert(database, {"n": 3})
        return await real(index, entries)

    monkeypatch.setattr(type(database.persistence), "backfill", staticmethod(write))
    await apply_schema(database, notes_schema(by_n=["n"]))
    assert numbers(database) == [2, 3]


async def test_without_validation_everything_fits_and_indexes_are_built(
    database: Database,
) -> None:
    await insert(database, {"n": "text"}, {"n": 1})
    table = define_table({"n": v.number()}).index("by_n", ["n"])
    await apply_schema(database, define_schema({"notes": table}, schema_validation=False))
    await insert(database, {"whatever": True})
    assert len(list(scanned(database, "by_n"))) == 3
    assert "does not match" in await refused(database, define_schema({"notes": table}))


async def test_a_table_taken_out_of_the_schema_keeps_its_data_and_loses_its_checks(
    database: Database,
) -> None:
    await apply_schema(database, notes_schema(by_n=["n"]))
    await insert(database, {"n": 1})
    await apply_schema(database, define_schema({}))
    await insert(database, {"anything": "goes"})
    assert len(list(scanned(database, "by_creation_time"))) == 2
    assert index_names(database) == ["by_creation_time"]
    assert "missing the required field `n`" in await refused(database, notes_schema())


async def test_a_table_whose_schema_became_wider_is_not_read(database: Database) -> None:
    """V98."""
    await apply_schema(database, notes_schema({"n": v.number(), "_id": v.id("notes")}))
    await insert(database, {"n": 1})
    number = database.catalog.tables["notes"].number
    scans: list[int] = []
    real = database.persistence.scan_table

    def count(table: int, *args: object, **options: object) -> Page:
        scans.append(table)
        return real(table, *args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(database.persistence), "scan_table", staticmethod(count))
        wider = {"n": v.number(), "m": v.optional(v.number()), "_id": v.id("notes")}
        await apply_schema(database, notes_schema(wider))
        assert number not in scans
        await apply_schema(database, notes_schema({"n": v.number()}))
        assert number in scans


async def test_the_schema_in_force_is_put_in_force_without_reading_or_writing(
    database: Database,
) -> None:
    schema = notes_schema(by_n=["n"])
    await apply_schema(database, schema)
    await insert(database, {"n": 1})
    calls: list[object] = []
    kind = type(database.persistence)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("scan", "scan_table", "append", "backfill", "drop_index"):
            real = getattr(database.persistence, name)

            def count(*args: object, _real=real, **options: object) -> object:
                calls.append(args[0])
                return _real(*args, **options)

            patch.setattr(kind, name, staticmethod(count))
        catalog = database.catalog
        await apply_schema(database, notes_schema(by_n=["n"]))
        assert database.catalog is catalog, "running mutations would have to be repeated"
    assert len(calls) == 1, "only the stored schema is looked up"


# Crashes and interruptions


async def crashed(persistence: MemoryPersistence | SqlitePersistence, schema: Schema) -> Database:
    """A process that dies while it builds the indexes of `schema`."""
    database = await Database.open(persistence, runtime=SystemRuntime(), limits=Limits())
    await apply_schema(database, notes_schema())
    await insert(database, {"n": 2}, {"n": 1})
    is_building = asyncio.Event()

    async def hang(index: IndexId, entries: list) -> int:
        is_building.set()
        await asyncio.Event().wait()
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(persistence), "backfill", staticmethod(hang))
        patch.setattr("reactive_store.engine.schema_change._SchemaChange.undo", _nothing)
        change = asyncio.create_task(apply_schema(database, schema))
        await is_building.wait()
        change.cancel()
        with pytest.raises(asyncio.CancelledError):
            await change
    await database.committer.close()
    return database


async def _nothing(_change: object) -> None:
    return


@pytest.mark.parametrize("again", [True, False])
async def test_what_a_crash_left_under_construction_goes_with_the_next_schema(
    tmp_path: Path, again: bool
) -> None:
    schema = notes_schema(by_n=["n"])
    store = await SqlitePersistence.open(tmp_path / "data.sqlite3", synchronous="NORMAL")
    dead = await crashed(store, schema)
    assert any("#" in name for name in index_names(dead))
    await store.close()
    store = await SqlitePersistence.open(tmp_path / "data.sqlite3", synchronous="NORMAL")
    database = await Database.open(store, runtime=SystemRuntime(), limits=Limits())
    leftover = [index.id for index in database.catalog.tables["notes"].indexes if index.is_building]
    assert len(leftover) == 1
    await apply_schema(database, schema if again else notes_schema())
    assert index_names(database) == ["by_creation_time", *(["by_n"] if again else [])]
    assert index_states(database)[leftover[0]] == DROPPING
    with pytest.raises(BadRequest, match="does not match the schema"):
        await insert(database, {"n": "text"})
    if again:
        assert numbers(database) == [1, 2]
    await database.close()


async def test_a_cancelled_change_is_undone(database: Database) -> None:
    await insert(database, {"n": 2}, {"n": 1})
    is_building = asyncio.Event()

    async def hang(index: IndexId, entries: list) -> int:
        is_building.set()
        await asyncio.Event().wait()
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(database.persistence), "backfill", staticmethod(hang))
        change = asyncio.create_task(apply_schema(database, notes_schema(by_n=["n"])))
        await is_building.wait()
        change.cancel()
        with pytest.raises(asyncio.CancelledError):
            await change
    assert index_names(database) == ["by_creation_time"]
    assert database.committer.observer is None
    await insert(database, {"n": "free"})


async def test_a_change_whose_commit_is_refused_by_the_disk_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = FaultyPersistence(MemoryPersistence())
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    await insert(database, {"n": 1})
    disk.fail(at_write=2)
    with pytest.raises(Exception, match="the disk is full"), caplog.at_level(logging.WARNING):
        await apply_schema(database, notes_schema(by_n=["n"]))
    assert "could not be undone" in caplog.text
    assert index_names(database) == ["by_creation_time", "by_n#1001"], "what is durable"
    assert database.committer.observer is None
    await database.close()


async def test_a_change_that_loses_a_race_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert(database, {"n": 1})
    lost = 0
    real = database.commit

    async def lose_once(transaction, *, alone: bool = False) -> Timestamp:
        nonlocal lost
        if lost < 3:
            lost += 1
            raise Conflict("lost")
        return await real(transaction, alone=alone)

    monkeypatch.setattr(database, "commit", lose_once)
    await apply_schema(database, notes_schema(by_n=["n"]))
    assert lost == 3
    assert numbers(database) == [1]


async def test_two_changes_at_a_time_are_a_mistake(database: Database) -> None:
    await insert(database, {"n": 1})
    first = asyncio.create_task(apply_schema(database, notes_schema(by_n=["n"])))
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="under way"):
        await apply_schema(database, notes_schema())
    await first
    assert numbers(database) == [1]
