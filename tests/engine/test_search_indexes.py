"""Search indexes from their declaration to their end: building, following, replacing, failing."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import pytest

from reactive_store.engine import backfill, search_indexes
from reactive_store.engine.database import Database
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.search_indexes import SearchIndexState
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest, Conflict, OutOfRetention, Retry, StoreFailed
from reactive_store.functions.search_query import SearchFilter, compile_search
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import Schema, define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.testing.faulty_persistence import FaultyPersistence
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "_PAGE", 10)
    monkeypatch.setattr(search_indexes, "_SLICE_DOCUMENTS", 1)
    monkeypatch.setattr(search_indexes, "_SLICE_SECONDS", 0.0)


def schema(field: str | None = "text", *, staged: bool = False) -> Schema:
    table = define_table(v.any())
    if field is not None:
        table = table.search_index("s", search_field=field, staged=staged)
    return define_schema({"notes": table})


async def insert(database: Database, *texts: str, field: str = "text") -> list[bytes]:
    while True:
        transaction = database.begin_mutation()
        ids = [transaction.insert("notes", {field: text}) for text in texts]
        try:
            await database.commit(transaction)
        except Conflict:
            continue
        return [decode_id(each).internal_id for each in ids]


async def find(
    database: Database, text: str, transaction: Transaction | None = None, field: str = "text"
) -> list[str]:
    transaction = transaction or database.begin()
    definition = transaction.catalog.search_index_for_query("notes", "s")
    links = [SearchFilter(True, definition.search_field, text)]
    question = compile_search("notes", definition, links, database.limits)
    assert question is not None
    waiting = transaction.wait_for_search("notes", "s")
    if waiting is not None:
        await waiting
    rows = transaction.search("notes", "s", question).take(100)
    return [Document(row.value, "notes")[field] for row in rows]


async def opened(store: object, limits: Limits | None = None) -> Database:
    return await Database.open(
        store,  # type: ignore[arg-type]
        runtime=SystemRuntime(),
        limits=limits or Limits(),
    )


async def test_an_index_on_existing_data_is_complete_when_the_push_is(database: Database) -> None:
    await apply_schema(database, schema(None))
    await insert(database, *[f"tea {number}" for number in range(25)], "coffee")
    await apply_schema(database, schema())
    assert database.searches.states() == [SearchIndexState("notes", "s", 26, 27, True)]
    assert database.begin().wait_for_search("notes", "s") is None
    assert len(await find(database, "tea")) == 25


async def test_documents_written_while_an_index_is_built_are_in_it_as_they_are(
    database: Database,
) -> None:
    chance = random.Random(5)
    await apply_schema(database, schema(None))
    ids = await insert(database, *[f"old {number}" for number in range(60)])
    push = asyncio.create_task(apply_schema(database, schema()))
    texts = {identity: f"old {number}" for number, identity in enumerate(ids)}
    while not push.done():
        transaction = database.begin_mutation()
        target = chance.choice(ids)
        wants_gone = chance.random() < 0.3
        if target in texts and wants_gone:
            transaction.delete("notes", target)
        elif target in texts:
            transaction.patch("notes", target, {"text": f"new {chance.random()}"})
        try:
            await database.commit(transaction)
        except Conflict:
            continue
        if target in texts and wants_gone:
            del texts[target]
        elif target in texts:
            row = database.begin().get("notes", target)
            assert row is not None
            texts[target] = Document(row.value, "notes")["text"]
        (added,) = await insert(database, "late")
        texts[added] = "late"
    await push
    for followed in database.searches._followed.values():
        followed.index.check()
    for word in ("old", "new", "late"):
        expected = sorted(text for text in texts.values() if text.startswith(word))
        assert sorted(await find(database, word)) == expected[:100]


async def test_after_a_restart_the_first_search_waits_for_the_index(tmp_path: Path) -> None:
    path = tmp_path / "data.sqlite3"
    first = await opened(await SqlitePersistence.open(path, synchronous="NORMAL"))
    await apply_schema(first, schema())
    await insert(first, *["tea"] * 30)
    await first.close()
    again = await opened(await SqlitePersistence.open(path, synchronous="NORMAL"))
    await apply_schema(again, schema())
    (state,) = again.searches.states()
    assert (state.documents, state.is_built) == (0, False)
    transaction = again.begin_mutation()
    transaction.insert("notes", {"text": "tea for two"})
    assert len(await find(again, "tea", transaction)) == 31  # own writes too
    await again.commit(transaction)
    assert len(await find(again, "two")) == 1
    await again.close()


async def test_a_search_does_not_wait_for_a_long_build(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryPersistence()
    first = await opened(store)
    await apply_schema(first, schema())
    await insert(first, *["tea"] * 50)
    database = await opened(store)
    monkeypatch.setattr(search_indexes, "_PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        await apply_schema(database, schema())
        with pytest.raises(Retry, match=r"Search index notes\.s is being built") as refused:
            await find(database, "tea")
        assert refused.value.code == "SearchIndexesUnavailable"
        await database.searches.wait_built()
    assert len(await find(database, "tea")) == 50
    told = [record.getMessage() for record in caplog.records]
    assert any("search index building table=notes index=s documents=" in each for each in told)
    assert any("search index built table=notes index=s documents=50 terms=1" in e for e in told)
    await database.close()
    await first.close()


async def test_an_index_of_the_same_name_serves_until_its_successor_is_ready(
    database: Database,
) -> None:
    await apply_schema(database, schema())
    await insert(database, *["tea"] * 30)
    await insert(database, *["green"] * 30, field="title")
    before = database.begin()
    push = asyncio.create_task(apply_schema(database, schema("title")))
    while not push.done():
        if database.begin().catalog.tables["notes"].search_fields[0][0] == "text":
            assert len(await find(database, "tea")) == 30
        await asyncio.sleep(0)
    await push
    assert len(await find(database, "green", field="title")) == 30
    assert [state.documents for state in database.searches.states()] == [30]
    with pytest.raises(OutOfRetention, match="has changed"):
        await find(database, "tea", before)


async def test_a_removed_index_is_forgotten(database: Database) -> None:
    await apply_schema(database, schema())
    await insert(database, "tea")
    await find(database, "tea")
    assert database.committer.followers
    await apply_schema(database, schema(None))
    assert database.searches.states() == []
    with pytest.raises(BadRequest, match="not found"):
        await find(database, "tea")
    await insert(database, "tea")
    await apply_schema(database, schema())
    assert len(await find(database, "tea")) == 2


async def test_a_staged_index_is_built_and_opened_later(database: Database) -> None:
    await apply_schema(database, schema(None))
    await insert(database, *["tea"] * 30)
    await apply_schema(database, schema(staged=True))
    with pytest.raises(BadRequest, match="currently staged"):
        await find(database, "tea")
    await database.searches.wait_built()
    (built,) = database.searches._followed.values()
    await apply_schema(database, schema())
    assert list(database.searches._followed.values()) == [built]  # not once more
    assert len(await find(database, "tea")) == 30


async def test_a_failed_push_leaves_no_index_behind(database: Database) -> None:
    await apply_schema(database, schema(None))
    await insert(database, *["tea"] * 20)
    table = define_table({"text": v.number()}).search_index("s", search_field="text")
    with pytest.raises(BadRequest):
        await apply_schema(database, define_schema({"notes": table}))
    assert database.searches.states() == []
    assert not database.committer.followers


class _BrokenOnce(FaultyPersistence):
    """Fails at one reading of a table."""

    breaks = False

    def scan_table(self, *args: object, **named: object):  # type: ignore[no-untyped-def]
        if self.breaks:
            self.breaks = False
            raise StoreFailed("cannot be read")
        return super().scan_table(*args, **named)  # type: ignore[arg-type]


async def test_a_build_that_fails_says_so_and_the_next_search_begins_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = MemoryPersistence()
    first = await opened(memory)
    await apply_schema(first, schema())
    await insert(first, "tea")
    store = _BrokenOnce(memory)
    database = await opened(store)
    await apply_schema(database, schema())
    store.breaks = True
    with pytest.raises(StoreFailed, match="cannot be read"):
        await find(database, "tea")
    assert "search index failed notes.s" in caplog.text
    assert await find(database, "tea") == ["tea"]
    await database.close()
    await first.close()


async def test_an_index_that_cannot_follow_is_built_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await apply_schema(database, schema())
    await insert(database, "tea")
    assert await find(database, "tea") == ["tea"]
    (followed,) = database.searches._followed.values()
    monkeypatch.setattr(type(followed), "follow", _raising)
    await insert(database, "tea pot")  # the commit itself is made
    monkeypatch.undo()
    assert "search index failed notes.s" in caplog.text
    assert await find(database, "pot") == ["tea pot"]


def _raising(self: object, change: object) -> None:
    raise RuntimeError("broken on purpose")


async def test_a_search_too_far_in_the_past_is_refused() -> None:
    database = await opened(MemoryPersistence(), Limits(write_log_commits=5))
    await apply_schema(database, schema())
    await insert(database, "tea")
    past = database.begin()
    for _ in range(4):
        await insert(database, "tea")
    assert len(await find(database, "tea", database.begin(Timestamp(past.begin_ts)))) == 1
    for _ in range(4):
        await insert(database, "tea")
    with pytest.raises(OutOfRetention, match="too long ago"):
        await find(database, "tea", past)
    await database.close()


async def test_who_waits_when_the_deployment_closes_is_told() -> None:
    store = MemoryPersistence()
    first = await opened(store)
    await apply_schema(first, schema())
    await insert(first, *["tea"] * 50)
    database = await opened(store)
    await apply_schema(database, schema())
    waiting = asyncio.create_task(find(database, "tea"))
    await asyncio.sleep(0)
    await database.close()
    with pytest.raises(Retry, match="closing"):
        await waiting
    with pytest.raises(Retry, match="closing"):
        await find(database, "tea")
    await first.close()


async def test_until_an_index_is_complete_every_commit_touches_its_statistics(
    database: Database,
) -> None:
    await apply_schema(database, schema())
    await database.searches.wait_built()
    await insert(database, *["tea"] * 40)
    (followed,) = database.searches._followed.values()

    async def moved() -> list[bytes]:
        await insert(database, "tea")
        newest = next(database.committer.log.since(0))
        (search,) = newest.documents[0].searches
        return search.moved

    assert await moved() == []
    followed.changed = set()
    assert await moved() == [b"\x00", b"\x01tea"]
    followed.changed = None
    assert b"\x01tea" not in await moved()


async def test_a_mutation_that_lost_what_it_found_is_a_conflict(database: Database) -> None:
    await apply_schema(database, schema())
    (target,) = await insert(database, "tea")
    transaction = database.begin_mutation()
    assert await find(database, "tea", transaction) == ["tea"]
    other = database.begin_mutation()
    other.delete("notes", target)
    await database.commit(other)
    transaction.insert("notes", {"text": "saw tea"})
    with pytest.raises(Conflict):
        await database.commit(transaction)


async def test_a_mutation_is_not_disturbed_by_words_it_did_not_ask_for(database: Database) -> None:
    await apply_schema(database, schema())
    await insert(database, *["tea leaf"] * 40, "milk")
    transaction = database.begin_mutation()
    assert await find(database, "milk", transaction) == ["milk"]
    await insert(database, "coffee bean")
    transaction.insert("notes", {"text": "saw milk"})
    await database.commit(transaction)


async def test_a_mutation_searches_what_is_accepted_and_a_query_what_is_durable() -> None:
    disk = FaultyPersistence(MemoryPersistence())
    database = await opened(disk)
    await apply_schema(database, schema())
    (first, _) = await insert(database, "old tea", "tea")
    go_on = disk.hold()
    transaction = database.begin_mutation()
    transaction.patch("notes", first, {"text": "water"})
    transaction.insert("notes", {"text": "new tea"})
    commit = asyncio.create_task(database.commit(transaction))
    await asyncio.sleep(0)
    later = database.begin_mutation()
    assert sorted(await find(database, "tea", later)) == ["new tea", "tea"]
    assert sorted(await find(database, "tea")) == ["old tea", "tea"]
    go_on.set()
    await commit
    # It began before: what has become durable meanwhile is what it saw as pending.
    assert sorted(await find(database, "tea", later)) == ["new tea", "tea"]
    await database.close()
