"""Vector indexes while documents come, change and go, and while schemas do."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.engine import vector_index
from reactive_store.engine.database import Database
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.vector_index import VectorReader
from reactive_store.engine.vector_matrix import Condition, VectorQuery, unit_of
from reactive_store.errors import BadRequest, Retry, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import (
    Schema,
    VectorIndexDefinition,
    define_schema,
    define_table,
)
from reactive_store.schema.validators import v
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key
from reactive_store.values.value import UNSET, Int64
from reactive_store.values.wire import dumps


def foods_schema(**changes: Any) -> Schema:
    declared = {"vector_field": "e", "dimensions": 2, "filter_fields": ["k"], **changes}
    table = define_table(v.any()).vector_index("by_e", **declared)
    return define_schema({"foods": table})


async def write(database: Database, *fields: dict[str, Any]) -> list[bytes]:
    tx = database.begin_mutation()
    made = [tx.insert("foods", dict(each)) for each in fields]
    await database.commit(tx)
    return [decode_id(each).internal_id for each in made]


def query(*numbers: float, limit: int = 256, **filters: Any) -> VectorQuery:
    direction = unit_of(numbers)
    assert direction is not None
    keys = tuple(Condition(0, encode_key(value)) for value in filters.values())
    return VectorQuery(direction, limit, keys)


async def found(database: Database, asked: VectorQuery) -> list[bytes]:
    index = database.vectors.find("foods", "by_e")
    assert index is not None
    return [internal_id for internal_id, _ in await index.search(asked)]


# ---- which documents are in an index ----


@pytest.mark.parametrize(
    "vector",
    [
        None, "12", 12, {"0": 1}, [], [1], [1, 2, 3], [1, "2"], [1, None], [True, False],
        [1, Int64(2)], [1, math.inf], [1, math.nan], [1, [2]], UNSET,
    ],
)  # fmt: skip
def test_what_is_no_vector_of_that_length_is_passed_over(vector: Any):
    reader = VectorReader(VectorIndexDefinition("by_e", "e", 2))
    fields = {} if vector is UNSET else {"e": vector}
    assert reader.read(dumps(fields)) is None


@pytest.mark.parametrize("vector", [[3, 4], [3.0, 4.0], [3e300, 4e300], [30, 40]])
def test_a_vector_is_read_with_length_one(vector: list[float]):
    reader = VectorReader(VectorIndexDefinition("by_e", "e", 2))
    read = reader.read(dumps({"e": vector, "other": True, "text": "false"}))
    assert read is not None
    assert read[0].tolist() == pytest.approx([0.6, 0.8])
    assert reader.read(dumps({"e": [-0.0, 1]})) is not None


def test_nested_fields_hold_vectors_and_filter_values():
    reader = VectorReader(VectorIndexDefinition("by_e", "a.e", 2, ("a.k", "b", "a.none.x")))
    read = reader.read(dumps({"a": {"e": [1, 0], "k": Int64(5)}, "b": {"deep": [1, -0.0]}}))
    assert read is not None
    assert read[1] == (
        encode_key(Int64(5)),
        encode_key({"deep": [1, -0.0]}),
        encode_key(UNSET),
    )
    assert reader.read(dumps({"a": [1, 0]})) is None


# ---- following commits ----

numbers = st.lists(st.integers(-2, 2), min_size=1, max_size=3)
steps = st.lists(
    st.tuples(st.just("insert"), numbers, st.integers(0, 2))
    | st.tuples(st.just("replace"), st.integers(0, 30), numbers, st.integers(0, 2))
    | st.tuples(st.just("patch"), st.integers(0, 30), st.integers(0, 2))
    | st.tuples(st.just("delete"), st.integers(0, 30))
    | st.tuples(st.just("roll back"), numbers)
    | st.tuples(st.just("search"), st.none() | st.integers(0, 2)),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans())
def test_an_index_holds_what_the_table_holds(steps: list[Any], is_built_late: bool):

    async def run() -> None:
        database = await Database.open(
            MemoryPersistence(), runtime=SystemRuntime(), limits=Limits()
        )
        declared = len(steps) // 2 if is_built_late else 0
        stored: dict[bytes, tuple[list[int], int]] = {}

        async def check(kind: int | None) -> None:
            asked = query(1, 1) if kind is None else query(1, 1, k=kind)
            expected = {
                each
                for each, (vector, k) in stored.items()
                if len(vector) == 2 and (kind is None or k == kind)
            }
            assert set(await found(database, asked)) == expected

        if is_built_late:
            await apply_schema(database, define_schema({"foods": define_table(v.any())}))
        for place, step in enumerate(steps):
            if place == declared:
                await apply_schema(database, foods_schema())
            tx = database.begin_mutation()
            known = list(stored)
            match step:
                case ("insert", vector, k):
                    made = tx.insert("foods", {"e": vector, "k": k})
                    stored[decode_id(made).internal_id] = (vector, k)
                case ("replace", one, vector, k) if known:
                    target = known[one % len(known)]
                    tx.replace("foods", target, {"e": vector, "k": k})
                    stored[target] = (vector, k)
                case ("patch", one, k) if known:
                    target = known[one % len(known)]
                    tx.patch("foods", target, {"k": k})
                    stored[target] = (stored[target][0], k)
                case ("delete", one) if known:
                    target = known[one % len(known)]
                    tx.delete("foods", target)
                    del stored[target]
                case ("roll back", vector):
                    before = tx.savepoint()
                    tx.insert("foods", {"e": vector, "k": 0})
                    tx.rollback(before)
                case ("search", kind) if place >= declared:
                    await check(kind)
            await database.commit(tx)
        await apply_schema(database, foods_schema())
        for kind in (None, 0, 1, 2):
            await check(kind)
        await database.close()

    asyncio.run(run())


async def test_a_search_sees_the_commit_before_it(database: Database):
    await apply_schema(database, foods_schema())
    for number in range(200):
        (made,) = await write(database, {"e": [1, number]})
        assert made in await found(database, query(1, 0))


async def test_searches_while_others_write_see_a_whole_number_of_commits(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    """Each commit writes three documents; no search sees one or two of them."""
    monkeypatch.setattr(vector_index, "_INLINE_NUMBERS", 0)  # every scan in another thread
    await apply_schema(database, foods_schema())
    index = database.vectors.find("foods", "by_e")
    assert index is not None
    stop = False

    async def writer() -> None:
        chance = random.Random(1)
        trios: list[list[bytes]] = []
        while not stop:
            trios.append(await write(database, *({"e": [1, chance.random()]} for _ in range(3))))
            if len(trios) > 20:
                tx = database.begin_mutation()
                for each in trios.pop(chance.randrange(20)):
                    tx.delete("foods", each)
                await database.commit(tx)

    writing = asyncio.create_task(writer())
    try:
        for _ in range(60):
            many = await asyncio.gather(*(index.search(query(1, n)) for n in range(4)))
            assert {len(one) % 3 for one in many} == {0}
            await asyncio.sleep(0)
    finally:
        stop = True
        await writing


async def test_a_search_whose_caller_left_disturbs_no_other(database: Database):
    await apply_schema(database, foods_schema())
    await write(database, {"e": [1, 1]})
    index = database.vectors.find("foods", "by_e")
    assert index is not None
    left = asyncio.create_task(index.search(query(1, 1)))
    staying = asyncio.create_task(index.search(query(1, 1)))
    await asyncio.sleep(0)
    left.cancel()
    assert len(await staying) == 1


# ---- building ----


async def test_an_index_on_stored_documents_is_built_while_others_write(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(vector_index, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(vector_index, "_SLICE_NUMBERS", 20)
    await apply_schema(database, define_schema({"foods": define_table(v.any())}))
    old = await write(database, *({"e": [1, n]} for n in range(100)))
    caplog.set_level("INFO", logger=vector_index.__name__)
    await apply_schema(database, foods_schema())
    (state,) = database.vectors.states()
    assert not state.is_built
    tx = database.begin_mutation()
    tx.delete("foods", old[0])
    tx.delete("foods", old[99])
    tx.patch("foods", old[1], {"e": None})
    tx.patch("foods", old[98], {"e": None})
    await database.commit(tx)
    new = await write(database, {"e": [5, 5]})
    await database.vectors.wait_built()
    (state,) = database.vectors.states()
    assert (state.table, state.name, state.documents, state.is_built) == ("foods", "by_e", 97, True)
    assert state.matrix_bytes == 97 * 8
    assert set(await found(database, query(1, 1))) == {*old[2:98], *new}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) > 5
    assert all(line.startswith("vector index building table=foods") for line in told[:-1])
    assert told[-1].startswith("vector index built table=foods index=by_e documents=9")


async def test_a_restart_builds_anew_and_the_first_search_waits(tmp_path: Path):
    path = tmp_path / "data.sqlite3"
    for expected in (50, 51):
        store = await SqlitePersistence.open(path, synchronous="NORMAL")
        database = await Database.open(store, runtime=SystemRuntime(), limits=Limits())
        await apply_schema(database, foods_schema())
        if expected == 50:
            await write(database, *({"e": [1, n]} for n in range(50)))
        else:
            await write(database, {"e": [2, 2]})
        assert len(await found(database, query(1, 1))) == expected
        await database.close()


async def test_only_a_changed_definition_builds_anew(database: Database):
    await apply_schema(database, foods_schema())
    await write(database, {"e": [1, 1], "f": [1, 1, 1], "k": 1, "m": 7})
    first = database.vectors.find("foods", "by_e")
    await apply_schema(database, foods_schema())
    assert database.vectors.find("foods", "by_e") is first
    await apply_schema(database, foods_schema(filter_fields=["m"]))
    assert database.vectors.find("foods", "by_e") is not first
    assert len(await found(database, query(1, 1, m=7))) == 1
    await apply_schema(database, foods_schema(vector_field="f", dimensions=3))
    assert len(await found(database, query(1, 1, 1))) == 1
    assert first is not None
    with pytest.raises(Retry):
        await first.wait_built()


async def test_a_prepared_index_is_whole_when_it_is_declared_and_unseen_before(database: Database):
    await apply_schema(database, foods_schema())
    await write(database, {"e": [1, 1], "f": [1, 1, 1]})
    first = database.vectors.find("foods", "by_e")
    changed = foods_schema(vector_field="f", dimensions=3)
    await database.vectors.prepare(changed)
    assert database.vectors.find("foods", "by_e") is first
    await write(database, {"e": [1, 2], "f": [1, 2, 3]})
    assert len(await found(database, query(1, 1))) == 2
    await apply_schema(database, changed)
    (state,) = database.vectors.states()
    assert state.is_built
    assert len(await found(database, query(1, 1, 1))) == 2

    # One that is not declared after all goes with the next.
    await database.vectors.prepare(foods_schema())
    unused = database.vectors._prepared["foods"]["by_e"]
    await database.vectors.prepare(changed)
    assert not database.vectors._prepared
    with pytest.raises(Retry):
        await unused.wait_built()


async def test_a_staged_index_is_kept_current_and_not_open(database: Database):
    await apply_schema(database, foods_schema(staged=True))
    await write(database, {"e": [1, 1]})
    with pytest.raises(BadRequest) as caught:
        database.vectors.find("foods", "by_e")
    assert caught.value.message == (
        "Index foods.by_e is currently staged and not available to query until it is enabled."
    )
    assert caught.value.code == "IndexStagedError"
    index = database.vectors._by_table["foods"]["by_e"]
    await apply_schema(database, foods_schema())
    assert database.vectors.find("foods", "by_e") is index
    assert len(await found(database, query(1, 1))) == 1


async def test_an_index_that_is_declared_no_more_is_gone(database: Database):
    await apply_schema(database, foods_schema())
    assert database.vectors.follow in database.committer.followers
    await apply_schema(database, define_schema({"foods": define_table(v.any())}))
    with pytest.raises(BadRequest) as caught:
        database.vectors.find("foods", "by_e")
    assert caught.value.message == "Index foods.by_e not found."
    assert caught.value.code == "IndexNotFoundError"
    assert database.vectors.find("nothing", "by_e") is None
    assert database.vectors.follow not in database.committer.followers


# ---- trouble ----


async def test_a_failed_read_is_told_and_the_next_search_begins_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    await apply_schema(database, define_schema({"foods": define_table(v.any())}))
    await write(database, {"e": [1, 1]})

    def broken(self: Any, document: bytes) -> None:
        raise StoreFailed("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(VectorReader, "read", broken)
        await apply_schema(database, foods_schema())
        with pytest.raises(StoreFailed):
            await database.vectors.wait_built()
        (state,) = database.vectors.states()
        assert not state.is_built
        await write(database, {"e": [2, 2]})  # nobody keeps what nobody will read
        with pytest.raises(StoreFailed):
            await found(database, query(1, 1))
    assert len(await found(database, query(1, 1))) == 2
    (state,) = database.vectors.states()
    assert state.is_built


async def test_searches_are_refused_when_the_deployment_closes():
    database = await Database.open(MemoryPersistence(), runtime=SystemRuntime(), limits=Limits())
    await apply_schema(database, foods_schema())
    index = database.vectors.find("foods", "by_e")
    assert index is not None
    waiting = asyncio.create_task(index.search(query(1, 1)))
    await asyncio.sleep(0)
    await database.vectors.close()
    await database.vectors.close()
    if not waiting.done() or waiting.exception() is not None:
        with pytest.raises(Retry):
            await waiting
    await database.close()


async def test_a_large_scan_lets_the_loop_run(database: Database):
    """No turn of the loop takes as long as the scans do; what comes meanwhile shares one."""
    dimensions, rows = 512, 20_000
    await apply_schema(database, foods_schema(dimensions=dimensions))
    index = database.vectors.find("foods", "by_e")
    assert index is not None
    chance = random.Random(3)
    patterns = [[chance.gauss(0, 1) for _ in range(dimensions)] for _ in range(50)]
    for number in range(rows):
        direction = unit_of(patterns[number % 50])
        assert direction is not None
        index._matrix.put(number.to_bytes(16, "big"), direction, (b"\x01",))
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    many = await asyncio.gather(*(index.search(query(*one, limit=3)) for one in patterns[:20]))
    ticking.cancel()
    assert turns > 20
    for number, best in enumerate(many):
        assert [int.from_bytes(one, "big") % 50 for one, _ in best] == [number] * 3
    assert replace(index.state, is_built=True).documents == rows
