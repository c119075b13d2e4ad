"""Transactions: what they see, what they remember, what they refuse, how they are undone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reactive_store.engine.catalog import SESSION_REQUESTS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING, Interval, after, prefix_interval
from reactive_store.engine.reads import Read
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.transaction import Transaction, Usage
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


def numbers(
    transaction: Transaction, *, index: str = "by_n", descending: bool = False
) -> list[int]:
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
    """V68."""
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
    """V42."""
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
        ({"written_documents": 2}, "Too many writes"),
        ({"written_bytes": 200}, "Too many bytes written"),
        ({"read_intervals": 2}, "Too many reads"),
    ],
)
async def test_every_limit_of_a_transaction_has_its_text(limit: dict[str, int], text: str) -> None:
    database = await Database.open(
        MemoryPersistence(), runtime=SystemRuntime(), limits=replace(Limits(), **limit)
    )

    async def too_much() -> None:
        for round_ in range(4):
            transaction = database.begin_mutation()
            for n in range(3):
                transaction.insert("loose", {"n": n, "pad": "x" * 20})
            await database.commit(transaction)
            reading = database.begin()
            for n in range(3):
                reading.get("loose", bytes([n, round_] * 8))
            reading.scan("loose", "by_creation_time", EVERYTHING).take(3)

    with pytest.raises(BadRequest, match=text):
        await too_much()
    await database.close()


async def opened(**limits: int) -> Database:
    return await Database.open(
        MemoryPersistence(), runtime=SystemRuntime(), limits=replace(Limits(), **limits)
    )


async def test_system_tables_count_towards_no_limit_of_the_app() -> None:
    """V110."""
    database = await opened(
        read_documents=0, read_bytes=0, written_documents=0, written_bytes=0, document_bytes=1000
    )
    transaction = database.begin_mutation()
    transaction.create_table("notes")
    transaction.insert(SESSION_REQUESTS, {"result": "x" * 5000}, internal_id=b"r" * 16)
    transaction.patch(SESSION_REQUESTS, b"r" * 16, {"more": "y" * 5000})
    assert transaction.get(SESSION_REQUESTS, b"r" * 16) is not None
    assert len(transaction.scan(SESSION_REQUESTS, "by_creation_time", EVERYTHING).take(5)) == 1
    transaction.delete(SESSION_REQUESTS, b"r" * 16)
    assert transaction.usage == Usage()
    with pytest.raises(BadRequest, match="Too many writes"):
        transaction.insert("notes", {"n": 1})
    with pytest.raises(BadRequest, match="Value is too large"):
        transaction.insert("notes", {"n": "x" * 5000})
    await database.close()


async def test_the_read_set_can_be_asked_for_after_the_limit_was_reached() -> None:
    database = await opened(read_intervals=3)
    reading = database.begin()
    for _ in range(5):
        reading.get("notes", b"same" * 4)  # one interval, however often
    reading.scan("notes", "by_creation_time", EVERYTHING).next()
    reading.get("notes", b"diff" * 4)
    with pytest.raises(BadRequest, match="Too many reads") as refused:
        reading.scan("notes", "by_id", Interval(b"a", b"b"))
    assert refused.value.code == "TooManyReads"
    assert len(reading.read_set()) == 3
    await database.close()


async def test_scans_that_are_still_open_count_as_reads() -> None:
    database = await opened(read_intervals=2)
    writing = database.begin_mutation()
    writing.insert("notes", {"n": 1})
    await database.commit(writing)
    reading = database.begin()
    for _ in range(2):
        assert reading.scan("notes", "by_creation_time", EVERYTHING).next() is not None
    with pytest.raises(BadRequest, match="Too many reads"):
        reading.scan("notes", "by_creation_time", EVERYTHING)
    await database.close()


@pytest.mark.parametrize("index", ["by_id", "by_creation_time"])
async def test_a_table_nobody_wrote_is_empty_by_its_automatic_indexes(
    database: Database, index: str
) -> None:
    reading = database.begin()
    assert reading.scan("ghosts", index, EVERYTHING).next() is None
    assert list(reading.read_set().of(("ghosts", index))) == [Read(EVERYTHING, 0, None)]
    assert reading.get("ghosts", b"x" * 16) is None


async def test_an_empty_interval_has_no_rows_and_a_scan_at_its_end_stays_there(
    notes: Database,
) -> None:
    reading = notes.begin()
    scan = reading.scan("notes", "by_n", Interval(b"x", b"x"))
    assert [scan.next(), scan.next()] == [None, None]
    whole = reading.scan("notes", "by_n", EVERYTHING)
    assert len(whole.take(3)) == 3
    assert [whole.next(), whole.next()] == [None, None]
    assert reading.scan("notes", "by_n", EVERYTHING).take(0) == []


async def test_a_scan_nobody_stepped_through_has_read_nothing(notes: Database) -> None:
    reading = notes.begin()
    reading.scan("notes", "by_n", EVERYTHING)
    assert not reading.read_set()


async def test_a_scan_remembers_its_filter_and_its_prefix(notes: Database) -> None:
    def odd(document: Document) -> bool:
        return bool(document["n"] % 2)

    reading = notes.begin()
    reading.scan("notes", "by_n", EVERYTHING, predicate=odd).take(9)
    assert list(reading.read_set().of(("notes", "by_n"))) == [Read(EVERYTHING, 0, odd)]


async def test_the_row_that_broke_a_limit_is_in_the_read_set() -> None:
    database = await opened(read_documents=1)
    writing = database.begin_mutation()
    for n in range(3):
        writing.insert("notes", {"n": n})
    await database.commit(writing)
    reading = database.begin()
    scan = reading.scan("notes", "by_creation_time", EVERYTHING)
    scan.next()
    with pytest.raises(BadRequest, match="Too many documents read"):
        scan.next()
    rows = database.persistence.scan_table(
        database.catalog.tables["notes"].number,
        b"",
        None,
        database.latest_ts,
        descending=False,
        limit=9,
    ).rows
    second = sorted(rows, key=lambda row: Document(row.value, "notes")["n"])[1]
    (read,) = reading.read_set().of(("notes", "by_creation_time"))
    created = encode_key(Document(second.value, "notes")["_creationTime"])
    assert read.interval.contains(created + second.id)
    await database.close()


async def test_names_and_numbers_of_tables_include_the_transactions_own(
    database: Database,
) -> None:
    transaction = database.begin_mutation()
    note = transaction.insert("notes", {"n": 1})
    number = decode_id(note).table_number
    assert transaction.table_name(number) == "notes"
    assert transaction.table_number("notes") == number
    assert transaction.index_fields("notes", "by_id") == ()
    assert transaction.index_fields("notes", "by_creation_time") == ()
    assert database.begin().table_name(number) is None


async def test_the_fields_of_an_index_are_the_declared_ones(notes: Database) -> None:
    assert notes.begin().index_fields("notes", "by_n") == ("n",)
    with pytest.raises(BadRequest, match="not found"):
        notes.begin().index_fields("notes", "by_tag")


@pytest.mark.parametrize(
    ("name", "code"),
    [("no spaces", "InvalidTableName"), ("", "InvalidTableName"), ("_own", "TableNameReserved")],
)
async def test_a_table_cannot_have_any_name(database: Database, name: str, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        database.begin_mutation().insert(name, {"n": 1})
    assert refused.value.code == code


async def test_the_number_of_tables_is_bounded() -> None:
    database = await opened(tables=2)
    transaction = database.begin_mutation()
    transaction.insert("one", {})
    transaction.insert("two", {})
    with pytest.raises(BadRequest, match="cannot exceed 2"):
        transaction.insert("three", {})
    await database.close()


async def test_a_document_of_a_table_nobody_wrote_cannot_be_changed(database: Database) -> None:
    with pytest.raises(BadRequest, match="Delete on nonexistent document ID") as refused:
        database.begin_mutation().delete("ghosts", b"x" * 16)
    assert refused.value.code == "NonexistentDocument"


async def test_replacing_takes_equal_system_fields_and_drops_what_is_not_named(
    notes: Database,
) -> None:
    transaction = notes.begin_mutation()
    row = transaction.scan("notes", "by_n", EVERYTHING).next()
    assert row is not None
    before = Document(row.value, "notes").decode()
    transaction.replace("notes", row.id, {**before, "n": 5})
    transaction.patch("notes", row.id, {"tag": "t"})
    transaction.replace("notes", row.id, {"n": 6})
    after = transaction.get("notes", row.id)
    assert after is not None
    assert Document(after.value, "notes").decode() == {**before, "n": 6}
    assert transaction.usage.written_documents == 3, "each write counts again"


async def test_a_document_created_in_the_future_keeps_the_order(notes: Database) -> None:
    transaction = notes.begin_mutation()
    transaction.now_ms = 0.0
    assert transaction.base_creation_time() == pytest.approx(transaction.begin_ts / 1e6)
    transaction.now_ms = 9e15
    assert transaction.base_creation_time() == 9e15


async def test_rows_taken_together_count_one_by_one_up_to_the_limit() -> None:
    database = await opened(read_documents=2)
    transaction = database.begin_mutation()
    for n in range(3):
        transaction.insert("loose", {"n": n})
    await database.commit(transaction)
    reading = database.begin()
    assert len(reading.scan("loose", "by_creation_time", EVERYTHING).take(2)) == 2
    assert reading.usage.read_documents == 2
    too_far = database.begin()
    with pytest.raises(BadRequest, match="Too many documents read"):
        too_far.scan("loose", "by_creation_time", EVERYTHING).take(3)
    assert too_far.usage.read_documents == 3
    await database.close()


async def test_taking_and_walking_read_the_same(notes: Database) -> None:
    taking, walking = notes.begin(), notes.begin()
    scan = taking.scan("notes", "by_n", EVERYTHING)
    rows = [*scan.take(1), *scan.take(1)]
    walk = walking.scan("notes", "by_n", EVERYTHING)
    assert rows == [walk.next(), walk.next()]
    assert taking.usage == walking.usage
    assert list(taking.read_set()) == list(walking.read_set())


async def test_a_record_is_a_document_like_any_other(database: Database) -> None:
    transaction = database.begin_mutation()
    transaction.record(SESSION_REQUESTS, b"r" * 16, {"request": 7, "session": "s"})
    assert transaction.usage == Usage()
    await database.commit(transaction)
    reading = database.begin()
    [row] = reading.scan(SESSION_REQUESTS, "by_creation_time", EVERYTHING).take(5)
    assert reading.get(SESSION_REQUESTS, b"r" * 16) == row._replace(key=b"r" * 16)
    document = Document(row.value, SESSION_REQUESTS)
    assert raw(document["_id"]) == b"r" * 16
    assert dict(document) | {"_id": 0, "_creationTime": 0} == {
        "_id": 0, "_creationTime": 0, "request": 7, "session": "s",
    }  # fmt: skip
    inserting = database.begin_mutation()
    inserting.insert(SESSION_REQUESTS, {"session": "s", "request": 7}, internal_id=b"i" * 16)
    inserted = Document(inserting.get(SESSION_REQUESTS, b"i" * 16).value, SESSION_REQUESTS)
    assert list(document) == list(inserted)
