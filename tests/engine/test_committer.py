"""Commits: order, conflicts, pending data, groups, running alone, a failing disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import IndexState, RangeIndex
from reactive_store.engine.reads import CommitChanges
from reactive_store.errors import Conflict, Retry, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Commit, IndexId
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id


class _SlowDisk(MemoryPersistence):
    """Writes only when told to; fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.is_full = False
        self.batches: list[int] = []

    async def append(self, commits: Sequence[Commit]) -> None:
        await self.may_write.wait()
        if self.is_full:
            raise StoreFailed("database or disk is full")
        self.batches.append(len(commits))
        await super().append(commits)


@pytest.fixture
async def disk() -> _SlowDisk:
    return _SlowDisk()


@pytest.fixture
async def counter(disk: _SlowDisk) -> tuple[Database, bytes]:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    transaction = database.begin_mutation()
    document_id = transaction.insert("counters", {"n": 0})
    await database.commit(transaction)
    return database, decode_id(document_id).internal_id


def increment(database: Database, counter: bytes) -> asyncio.Task[int]:
    transaction = database.begin_mutation()
    row = transaction.get("counters", counter)
    assert row is not None
    transaction.patch("counters", counter, {"n": Document(row.value, "counters")["n"] + 1})
    return asyncio.ensure_future(database.commit(transaction))


def value(database: Database, counter: bytes) -> int:
    row = database.begin().get("counters", counter)
    assert row is not None
    return int(Document(row.value, "counters")["n"])


async def test_mutations_build_on_pending_data_and_share_one_write(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    first = increment(database, document)
    await asyncio.sleep(0.01)
    others = []
    for _ in range(50):
        others.append(increment(database, document))
        await asyncio.sleep(0)
    assert value(database, document) == 0, "a query saw what is not durable"
    disk.may_write.set()
    timestamps = [await first, *[await other for other in others]]
    assert timestamps == sorted(set(timestamps))
    assert value(database, document) == 51
    assert disk.batches[-2:] == [1, 50]
    await database.close()


async def test_a_stale_read_is_a_conflict_that_names_the_table(
    counter: tuple[Database, bytes],
) -> None:
    database, document = counter
    late = database.begin_mutation()
    late.get("counters", document)
    late.insert("log", {"x": 1})
    await increment(database, document)
    with pytest.raises(Conflict) as lost:
        await database.commit(late)
    assert lost.value.table == "counters"
    assert database.statistics().conflicts == 1
    await database.close()


async def test_a_phantom_insert_is_a_conflict(counter: tuple[Database, bytes]) -> None:
    database, _ = counter
    looking = database.begin_mutation()
    assert looking.scan("rooms", "by_creation_time", EVERYTHING).next() is None
    looking.insert("counters", {"n": 9})
    transaction = database.begin_mutation()
    transaction.insert("rooms", {"x": 1})
    await database.commit(transaction)
    with pytest.raises(Conflict):
        await database.commit(looking)
    await database.close()


async def test_blind_inserts_do_not_conflict(counter: tuple[Database, bytes]) -> None:
    database, _ = counter
    one, two = database.begin_mutation(), database.begin_mutation()
    one.insert("counters", {"n": 1})
    two.insert("counters", {"n": 2})
    await asyncio.gather(database.commit(one), database.commit(two))
    assert database.statistics().conflicts == 0
    await database.close()


async def test_whoever_runs_alone_cannot_lose(counter: tuple[Database, bytes]) -> None:
    database, document = counter
    async with database.run_alone():
        mine = database.begin_mutation()
        row = mine.get("counters", document)
        assert row is not None
        other = increment(database, document)
        await asyncio.sleep(0.01)
        assert not other.done()
        mine.patch("counters", document, {"n": 100})
        await database.commit(mine, alone=True)
    with pytest.raises(Conflict):
        await other
    assert value(database, document) == 100
    await database.close()


async def test_a_failed_write_fails_everything_built_on_it_and_stops_the_node(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    first = increment(database, document)
    await asyncio.sleep(0.01)
    second = increment(database, document)
    reader = database.begin_mutation()
    assert reader.get("counters", document) is not None
    waiting = asyncio.ensure_future(database.commit(reader))
    await asyncio.sleep(0.01)
    disk.is_full = True
    disk.may_write.set()
    for task in (first, second, waiting):
        with pytest.raises(StoreFailed, match="disk is full"):
            await task
    with pytest.raises(StoreFailed):
        await increment(database, document)
    assert value(database, document) == 0, "queries go on with what is durable"
    assert isinstance(database.failure, StoreFailed)


async def test_a_caller_that_gives_up_does_not_disturb_the_commit(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    impatient = increment(database, document)
    await asyncio.sleep(0.01)
    patient = increment(database, document)
    await asyncio.sleep(0)
    impatient.cancel()
    disk.may_write.set()
    await patient
    assert value(database, document) == 2
    await database.close()


async def test_subscriptions_fire_once_after_the_callers_are_woken(
    counter: tuple[Database, bytes],
) -> None:
    database, document = counter
    reading = database.begin()
    reading.get("counters", document)
    fired: list[int] = []
    database.subscribe(reading.read_set(), reading.begin_ts, fired.append)
    ts = await increment(database, document)
    await increment(database, document)
    assert fired == [ts]
    await database.close()


async def test_subscribing_too_late_says_so_at_once(counter: tuple[Database, bytes]) -> None:
    database, document = counter
    reading = database.begin()
    reading.get("counters", document)
    ts = await increment(database, document)
    await increment(database, document)
    assert database.subscribe(reading.read_set(), reading.begin_ts, lambda _: None) == ts
    await database.close()


async def test_a_full_queue_makes_new_commits_wait(disk: _SlowDisk) -> None:
    limits = Limits(pending_commits=2)
    database = await Database.open(disk, runtime=SystemRuntime(), limits=limits)
    disk.may_write.clear()

    def insert() -> asyncio.Task[int]:
        transaction = database.begin_mutation()
        transaction.insert("log", {"x": 1})
        return asyncio.ensure_future(database.commit(transaction))

    first = insert()
    await asyncio.sleep(0)
    # The first one creates the table, so the others begin once that is accepted.
    tasks = [first, *[insert() for _ in range(4)]]
    await asyncio.sleep(0.01)
    assert database.statistics().pending_commits == 2
    disk.may_write.set()
    await asyncio.gather(*tasks)
    assert database.statistics().pending_commits == 0
    await database.close()


def insert(database: Database, table: str = "log") -> asyncio.Task[int]:
    transaction = database.begin_mutation()
    transaction.insert(table, {"x": 1})
    return asyncio.ensure_future(database.commit(transaction))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_conflict_names_the_document_by_its_id(counter: tuple[Database, bytes]) -> None:
    database, document = counter
    late = increment(database, document)
    other = increment(database, document)
    await late
    with pytest.raises(Conflict) as lost:
        await other
    row = database.begin().get("counters", document)
    assert row is not None
    assert lost.value.document_id == Document(row.value, "counters")["_id"]
    await database.close()


async def test_a_table_that_appeared_meanwhile_is_a_conflict(
    counter: tuple[Database, bytes],
) -> None:
    database, _ = counter
    late = database.begin_mutation()
    late.insert("counters", {"n": 1})
    await insert(database, "new_table")
    with pytest.raises(Conflict, match="Tables or indexes changed"):
        await database.commit(late)
    await database.close()


async def test_a_transaction_older_than_the_log_has_to_be_repeated(disk: _SlowDisk) -> None:
    database = await Database.open(
        disk, runtime=SystemRuntime(), limits=Limits(write_log_commits=3)
    )
    await insert(database)
    old = database.begin_mutation()
    old.insert("log", {"x": 0})
    for _ in range(3):
        await insert(database)
    recent = database.begin_mutation()
    recent.insert("log", {"x": 0})
    for _ in range(1):
        await insert(database)
    with pytest.raises(Conflict, match="longer than the recent history"):
        await database.commit(old)
    await database.commit(recent)
    await database.close()


async def test_a_commit_that_waited_for_room_does_not_slip_in_beside_the_one_alone(
    disk: _SlowDisk,
) -> None:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits(pending_commits=1))
    await insert(database)
    disk.may_write.clear()
    first = insert(database)
    await turns()
    crowded = insert(database)
    await turns()
    assert not crowded.done()
    async with database.run_alone():
        disk.may_write.set()
        await first
        await turns()
        mine = database.begin_mutation()
        mine.scan("log", "by_creation_time", EVERYTHING).take(100)
        await turns()
        assert not crowded.done(), "it was accepted while another ran alone"
        mine.insert("log", {"x": 2})
        await database.commit(mine, alone=True)
    await crowded
    await database.close()


async def test_when_the_one_alone_is_cancelled_the_others_go_on(
    counter: tuple[Database, bytes],
) -> None:
    database, document = counter

    async def hold() -> None:
        async with database.run_alone():
            await asyncio.Event().wait()

    holder, next_one = asyncio.create_task(hold()), asyncio.create_task(hold())
    await turns()
    waiting = increment(database, document)
    await turns()
    assert not waiting.done()
    holder.cancel()
    next_one.cancel()
    await waiting
    async with database.run_alone():
        pass
    assert value(database, document) == 1
    await database.close()


async def test_a_commit_cancelled_while_it_waits_to_be_accepted_never_happens(
    counter: tuple[Database, bytes],
) -> None:
    database, document = counter
    async with database.run_alone():
        waiting = increment(database, document)
        await turns()
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert value(database, document) == 0
    await increment(database, document)
    await database.close()


async def test_closing_refuses_what_waits_for_room_and_keeps_what_was_accepted(
    disk: _SlowDisk,
) -> None:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits(pending_commits=1))
    await insert(database)
    disk.may_write.clear()
    accepted = insert(database)
    await turns()
    waiting = [insert(database) for _ in range(3)]
    await turns()
    closing = asyncio.create_task(database.close())
    await turns()
    disk.may_write.set()
    async with asyncio.timeout(5):
        await closing
        assert await accepted == database.latest_ts
        for task in waiting:
            with pytest.raises(Retry, match="closing"):
                await task


async def test_closing_ends_the_wait_for_the_one_alone(counter: tuple[Database, bytes]) -> None:
    database, document = counter
    async with database.run_alone():
        waiting = increment(database, document)
        await turns()
        await database.close()
        with pytest.raises(Retry, match="closing"):
            await waiting


async def test_a_store_that_breaks_its_contract_stops_the_node_instead_of_hanging_it(
    counter: tuple[Database, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, document = counter

    async def broken(_disk: _SlowDisk, commits: Sequence[Commit]) -> None:
        raise AssertionError("a key was given to two documents")

    monkeypatch.setattr(_SlowDisk, "append", broken)
    async with asyncio.timeout(5):
        with pytest.raises(StoreFailed, match="two documents"):
            await increment(database, document)
        with pytest.raises(StoreFailed):
            await increment(database, document)
        await database.close()


async def test_a_cancelled_writer_answers_everybody_who_waits(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    waiting = increment(database, document)
    await turns()
    writer = database.committer._writer
    assert writer is not None
    writer.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(StoreFailed, match="cancelled"):
            await waiting
    with pytest.raises(asyncio.CancelledError):
        await database.close()


async def test_after_a_failure_the_durable_state_is_all_there_is(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    doomed = insert(database, "new_table")
    await turns()
    building_on_it = database.begin_mutation()
    assert building_on_it.table_number("new_table") is not None
    assert database.begin().table_number("new_table") is None, "a query saw what is not durable"
    disk.is_full = True
    disk.may_write.set()
    with pytest.raises(StoreFailed):
        await doomed
    with pytest.raises(StoreFailed):
        await database.commit(building_on_it)
    with pytest.raises(StoreFailed):
        await database.committer.wait_durable(building_on_it.begin_ts)
    late = database.begin_mutation()
    assert late.table_number("new_table") is None
    assert late.begin_ts == database.latest_ts
    await database.committer.wait_durable(late.begin_ts)
    with pytest.raises(StoreFailed):
        await database.commit(late)
    assert value(database, document) == 0
    await database.close()


async def test_those_who_wait_for_room_hear_of_a_failure(disk: _SlowDisk) -> None:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits(pending_commits=1))
    first_ts = await insert(database)
    disk.may_write.clear()
    first = insert(database)
    await turns()
    waiting = insert(database)
    impatient = asyncio.ensure_future(database.committer.wait_durable(first_ts + 1))
    await turns()
    impatient.cancel()
    disk.is_full = True
    disk.may_write.set()
    for task in (first, waiting):
        with pytest.raises(StoreFailed, match="disk is full"):
            await task
    await database.close()


async def test_a_commit_refused_by_the_observer_leaves_no_trace(
    counter: tuple[Database, bytes],
) -> None:
    database, document = counter

    def refuse(commit: CommitChanges) -> None:
        raise RuntimeError("a bug in the observer")

    database.committer.observer = refuse
    with pytest.raises(RuntimeError):
        await increment(database, document)
    database.committer.observer = None
    assert database.committer.accepted_ts == database.latest_ts
    assert database.statistics().pending_commits == 0
    await increment(database, document)
    assert value(database, document) == 1
    await database.close()


async def test_whoever_asked_is_told_when_it_is_durable_and_one_that_raises_harms_nobody(
    disk: _SlowDisk,
) -> None:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    disk.may_write.clear()
    told: list[tuple[int, StoreFailed | None]] = []

    def broken(_: StoreFailed | None) -> None:
        raise RuntimeError("it promised not to")

    for number in range(2):
        transaction = database.begin_mutation()
        transaction.insert("log", {"n": number})
        ts = await database.accept(transaction)
        database.when_durable(ts, broken)
        database.when_durable(ts, lambda failure, number=number: told.append((number, failure)))
        await asyncio.sleep(0)  # the first batch is under way, the second waits
    assert told == []
    disk.may_write.set()
    await database.committer.wait_durable(ts)
    assert told == [(0, None), (1, None)]
    database.when_durable(ts, lambda failure: told.append((2, failure)))
    assert told[-1] == (2, None)
    await database.close()


async def test_whoever_asked_is_told_of_a_failure_also_later(disk: _SlowDisk) -> None:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits())
    disk.is_full = True
    transaction = database.begin_mutation()
    transaction.insert("log", {"n": 1})
    told: list[StoreFailed | None] = []
    ts = await database.accept(transaction)
    database.when_durable(ts, told.append)
    await asyncio.sleep(0.01)
    database.when_durable(ts, told.append)
    assert [str(failure) for failure in told] == ["database or disk is full"] * 2


async def test_a_large_backlog_is_written_in_several_batches(disk: _SlowDisk) -> None:
    database = await Database.open(disk, runtime=SystemRuntime(), limits=Limits(batch_documents=10))
    await insert(database)
    disk.may_write.clear()
    tasks = [insert(database)]
    await turns()
    for size in (4, 4, 4, 30, 1):
        transaction = database.begin_mutation()
        for _ in range(size):
            transaction.insert("log", {"x": 1})
        tasks.append(asyncio.ensure_future(database.commit(transaction)))
    await turns()
    disk.may_write.set()
    await asyncio.gather(*tasks)
    assert disk.batches[-5:] == [1, 2, 1, 1, 1]
    await database.close()


async def test_a_transaction_without_writes_waits_for_what_it_saw(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    writing = increment(database, document)
    await turns()
    reading = database.begin_mutation()
    seen = asyncio.ensure_future(database.commit(reading))
    await turns()
    assert not seen.done()
    disk.may_write.set()
    assert await seen == await writing == reading.begin_ts
    await database.close()


async def test_what_is_inserted_and_deleted_again_is_in_no_commit(
    counter: tuple[Database, bytes],
) -> None:
    database, _ = counter
    documents = database.statistics().documents_written
    transaction = database.begin_mutation()
    gone = transaction.insert("counters", {"n": 1})
    transaction.delete("counters", decode_id(gone).internal_id)
    await database.commit(transaction)
    assert database.statistics().documents_written == documents
    await database.close()


async def test_a_read_only_transaction_cannot_be_committed_with_writes(
    counter: tuple[Database, bytes],
) -> None:
    database, _ = counter
    transaction = database.begin()
    transaction.insert("counters", {"n": 1})
    with pytest.raises(AssertionError, match="read-only"):
        await database.commit(transaction)
    await database.close()


async def test_definitions_replaced_without_a_commit_hold_for_pending_commits_too(
    disk: _SlowDisk, counter: tuple[Database, bytes]
) -> None:
    database, document = counter
    disk.may_write.clear()
    first = increment(database, document)
    await turns()
    second = increment(database, document)
    await turns()
    committer = database.committer
    committer.replace_catalog(committer.catalog.with_validators({}))
    assert committer.durable_catalog is not committer.catalog
    disk.may_write.set()
    await asyncio.gather(first, second)
    assert committer.durable_catalog is committer.catalog
    await database.close()


async def test_an_index_under_construction_is_told_of_every_write(
    disk: _SlowDisk, counter: tuple[Database, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, document = counter
    written: list[tuple[bool, ...]] = []
    append = _SlowDisk.append

    async def record(self: _SlowDisk, commits: Sequence[Commit]) -> None:
        written.extend(
            tuple(entry.present for entry in commit.entries if entry.index == 5000)
            for commit in commits
        )
        await append(self, commits)

    monkeypatch.setattr(_SlowDisk, "append", record)
    building = RangeIndex("by_tag#5000", IndexId(5000), ("tag",), IndexState.BACKFILLING)
    committer = database.committer
    table = committer.catalog.tables["counters"]
    for index in (building, replace(building, name="by_tag", state=IndexState.READY)):
        table = table.with_indexes([*table.indexes[:1], index])
        committer.replace_catalog(committer.catalog.with_table(table))
        await increment(database, document)
    assert written == [(True,), ()], "present although the key stayed; in service only if it moves"
    transaction = database.begin_mutation()
    transaction.patch("counters", document, {"tag": "x"})
    await database.commit(transaction)
    assert written[-1] == (False, True)
    await database.close()
