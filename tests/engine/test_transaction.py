"""Transactions: what they see, what they remember, what they refuse, how they are undone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING, Interval, after, prefix_interval
from reactive_store.engine.reads import Read
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key
from reactive_store.values.value import UNSET

NOTES = define_schema(
    {"notes": define_table({"n": v.number(), "tag": v.optional(v.string())}).index("by_n", ["n"])}
)


def raw(document_id: str) -> bytes:
    return decode_id(document_id).internal_id


def numbers(transaction: Transaction, *, index: str = "by_n", descending: bool = False) -> list[int]:
    scan = transaction.scan("notes", index, EVERYTHING, descending=descending)
    return [Document(row.value, "notes")["n"] for row in iter(scan.next, None)]


@pytest.fixture
async def notes(database: Database) -> Database:
    await apply_schema(database, NOTES)
    transaction = database.begin_mutation()
    for n in (3, 1, 2):
        transaction.insert("notes", {"n": n})
    await database.commit(transaction)
    return database


async def test_a_scan_follows_the_index_both_ways(notes: Database) -> None:
    transaction = notes.begin()
    assert numbers(transaction) == [1, 2, 3]
    assert numbers(transaction, descending=True) == [3, 2, 1]
    assert numbers(transaction, index="by_creation_time") == [3, 1, 2]


async def test_own_writes_are_seen_before_the_commit_and_by_nobody_else(notes: Database) -> None:
    transaction = notes.begin_mutation()
    inserted = transaction.insert("notes", {"n": 5})
    first = transaction.scan("notes", "by_n", EVERYTHING).next()
    assert first is not None
    transaction.patch("notes", first.id, {"n": 9})
    transaction.delete("notes", raw(inserted))
    transaction.insert("notes", {"n": 0})
    assert numbers(transaction) == [0, 2, 3, 9]
    assert numbers(transaction, descending=True) == [9, 3, 2, 0]
    assert transaction.get("notes", raw(inserted)) is None
    assert numbers(notes.begin()) == [1, 2, 3]


async def test_a_document_moved_within_the_scan_is_not_lost_or_doubled(notes: Database) -> None:
    transaction = notes.begin_mutation()
    for n in range(10, 300):
        transaction.insert("notes", {"n": n})
    await notes.commit(transaction)
    moving = notes.begin_mutation()
    rows = moving.scan("notes", "by_n", EVERYTHING).take(200)
    for row in rows[::2]:
        document = Document(row.value, "notes")
        moving.patch("notes", row.id, {"n": document["n"] + 0.5})
    seen = numbers(moving)
    assert len(seen) == 293
    assert seen == sorted(seen)


async def test_rollback_undoes_writes_keeps_reads_and_gives_the_budget_back(
    notes: Database,
) -> None:
    transaction = notes.begin_mutation()
    kept = transaction.insert("notes", {"n": 7})
    point = transaction.savepoint()
    written = transaction.usage.written_documents
    transaction.patch("notes", raw(kept), {"n": 8})
    transaction.insert("other", {"x": 1})
    transaction.get("notes", b"\x01" * 16)
    transaction.rollback(point)
    assert numbers(transaction) == [1, 2, 3, 7]
    assert transaction.table_number("other") is None
    assert transaction.usage.written_documents == written
    reads = transaction.read_set().of(("notes", "by_id"))
    assert any(read.interval.contains(b"\x01" * 16) for read in reads)


async def test_what_was_not_consumed_is_not_read(notes: Database) -> None:
    transaction = notes.begin()
    rows = transaction.scan("notes", "by_n", EVERYTHING).take(2)
    (read,) = transaction.read_set().of(("notes", "by_n"))
    assert read.interval == Interval(b"", after(rows[-1].key))
    backwards = notes.begin()
    rows = backwards.scan("notes", "by_n", EVERYTHING, descending=True).take(1)
    (read,) = backwards.read_set().of(("notes", "by_n"))
    assert read.interval == Interval(rows[-1].key, None)


async def test_an_exhausted_scan_has_read_the_whole_interval(notes: Database) -> None:
    interval = prefix_interval(encode_key(2))
    transaction = notes.begin()
    assert len(transaction.scan("notes", "by_n", interval, prefix_bytes=9).take(5)) == 1
    assert list(transaction.read_set().of(("notes", "by_n"))) == [Read(interval, 9, None)]


async def test_a_table_nobody_wrote_is_empty_and_remembered(database: Database) -> None:
    transaction = database.begin()
    assert transaction.scan("ghosts", "by_creation_time", EVERYTHING).next() is None
    assert list(transaction.read_set().of(("ghosts", "by_creation_time")))
    with pytest.raises(BadRequest, match=r"Index ghosts\.by_n not found"):
        transaction.scan("ghosts", "by_n", EVERYTHING)


async def test_creation_times_strictly_ascend_across_transactions(notes: Database) -> None:
    for _ in range(20):
        transaction = notes.begin_mutation()
        for _ in range(3):
            transaction.insert("notes", {"n": 1})
        await notes.commit(transaction)
    scan = notes.begin().scan("notes", "by_id", EVERYTHING)
    times = [Document(row.value, "notes")["_creationTime"] for row in iter(scan.next, None)]
    assert len(set(times)) == len(times) == 63


async def test_a_patch_removes_with_unset_and_cannot_touch_system_fields(notes: Database) -> None:
    transaction = notes.begin_mutation()
    note = transaction.insert("notes", {"n": 1, "tag": "x"})
    transaction.patch("notes", raw(note), {"tag": UNSET, "_id": UNSET, "_creationTime": UNSET})
    row = transaction.get("notes", raw(note))
    assert row is not None
    assert set(Document(row.value, "notes")) == {"_creationTime", "_id", "n"}
    with pytest.raises(BadRequest, match="doesn't match '_id' field"):
        transaction.patch("notes", raw(note), {"_id": "nonsense"})
    with pytest.raises(BadRequest, match="doesn't match '_creationTime' field"):
        transaction.replace("notes", raw(note), {"n": 1, "_creationTime": 5})


async def test_writing_what_is_stored_writes_nothing(notes: Database) -> None:
    row = notes.begin().scan("notes", "by_n", EVERYTHING).next()
    assert row is not None
    transaction = notes.begin_mutation()
    transaction.patch("notes", row.id, {"n": 1})
    assert not transaction.staging
    assert transaction.usage.written_documents == 0


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("Update", lambda transaction, id_: transaction.patch("notes", id_, {"n": 1})),
        ("Replace", lambda transaction, id_: transaction.replace("notes", id_, {"n": 1})),
        ("Delete", lambda transaction, id_: transaction.delete("notes", id_)),
    ],
)
async def test_a_missing_target_is_named(notes: Database, verb: str, call) -> None:
    transaction = notes.begin_mutation()
    gone = transaction.insert("notes", {"n": 4})
    transaction.delete("notes", raw(gone))
    with pytest.raises(BadRequest, match=f"{verb} on nonexistent document ID {gone}"):
        call(transaction, raw(gone))


async def test_the_schema_is_enforced_on_every_write(notes: Database) -> None:
    transaction = notes.begin_mutation()
    with pytest.raises(BadRequest) as refused:
        transaction.insert("notes", {"n": "one"})
    assert refused.value.code == "SchemaEnforcementError"
    assert 'table "notes" because it does not match the schema' in refused.value.message
    with pytest.raises(BadRequest, match="starts with an underscore"):
        transaction.insert("notes", {"n": 1, "_x": 1})
    with pytest.raises(BadRequest, match="reserved table name"):
        transaction.insert("_mine", {"n": 1})


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"read_documents": 2}, "Too many documents read"),
        ({"read_bytes": 100}, "Too many bytes read"),
        ({"written_documents": 3}, "Too many writes"),
        ({"written_bytes": 200}, "Too many bytes written"),
        ({"read_intervals": 2}, "Too many reads"),
    ],
)
async def test_every_limit_of_a_transaction_has_its_text(limit: dict[str, int], text: str) -> None:
    database = await Database.open(
        MemoryPersistence(), runtime=SystemRuntime(), limits=replace(Limits(), **limit)
    )
    with pytest.raises(BadRequest, match=text):
        for round_ in range(4):
            transaction = database.begin_mutation()
            for n in range(3):
                transaction.insert("loose", {"n": n, "pad": "x" * 20})
            await database.commit(transaction)
            reading = database.begin()
            for n in range(3):
                reading.get("loose", bytes([n, round_] * 8))
            reading.scan("loose", "by_creation_time", EVERYTHING).take(3)
            reading.read_set()
    await database.close()
