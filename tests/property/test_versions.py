"""The engine against a list of versions: one dictionary per timestamp.

Random transactions read, write, undo and commit; the disk is held up at random, so reads go through
own writes, pending commits and durable data at once. What was durable is read again later, at its
timestamp, until retention forgets it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING, Interval, prefix_interval
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.transaction import Savepoint, Transaction
from reactive_store.errors import OutOfRetention
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Commit, Persistence, Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.testing.faulty_persistence import FaultyPersistence
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key, field_value
from reactive_store.values.value import UNSET

pytestmark = pytest.mark.timeout(900)  # the thorough profile takes minutes

INDEXES = {"by_n": ("n",), "by_tag_n": ("tag", "a.b"), "by_creation_time": ()}
SCHEMA = define_schema(
    {"rows": define_table(v.any()).index("by_n", ["n"]).index("by_tag_n", ["tag", "a.b"])}
)

Documents = dict[bytes, dict[str, Any]]

numbers = st.sampled_from([0, 1, 2, -1.5, None, "x", True])
documents = st.fixed_dictionaries(
    {},
    optional={
        "n": numbers,
        "tag": st.sampled_from(["p", "q", ["p"]]),
        "a": st.sampled_from([{}, {"b": 1}, {"b": "z"}, 5]),
    },
)
choices = st.integers(0, 9)  # of a document, counted among those known
intervals = st.one_of(
    st.just(EVERYTHING),
    st.just(EVERYTHING),
    numbers.map(lambda value: prefix_interval(encode_key(value))),
    st.tuples(numbers, numbers).map(lambda pair: Interval(*sorted(map(encode_key, pair)))),
    numbers.map(lambda value: Interval(encode_key(value), None)),
)
written = st.one_of(
    st.tuples(st.just("savepoint")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("insert"), documents),
    st.tuples(st.just("insert many"), st.integers(1, 40), documents),
    st.tuples(st.just("patch"), choices, documents),
    st.tuples(st.just("delete"), choices),
)
steps = st.one_of(
    written,
    st.tuples(st.just("insert"), documents),
    st.tuples(st.just("insert many"), st.integers(1, 40), documents),
    st.tuples(st.just("patch"), choices, documents),
    st.tuples(st.just("remove field"), choices, st.sampled_from(["n", "tag"])),
    st.tuples(st.just("replace"), choices, documents),
    st.tuples(st.just("delete"), choices),
    st.tuples(st.just("get"), choices),
    st.tuples(
        st.just("scan"),
        st.sampled_from([*INDEXES, "by_id"]),
        intervals,
        st.booleans(),
        st.one_of(st.none(), st.integers(0, 20)),
    ),
    st.tuples(st.just("savepoint")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("abandon")),
    st.tuples(st.just("hold")),
    st.tuples(st.just("release")),
    st.tuples(st.just("look back"), choices),
    st.tuples(st.just("forget"), choices),
)


class _Gate(FaultyPersistence):
    """Writes only while open."""

    def __init__(self, inner: Persistence) -> None:
        super().__init__(inner)
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def append(self, commits: Sequence[Commit]) -> None:
        await self.is_open.wait()
        await super().append(commits)


def _key(document: dict[str, Any], index: str) -> bytes:
    if index == "by_id":
        return decode_id(document["_id"]).internal_id
    declared = b"".join(encode_key(field_value(document, p.split("."))) for p in INDEXES[index])
    return declared + encode_key(document["_creationTime"]) + _key(document, "by_id")


class _Run:
    """One sequence of steps, on the engine and on the model."""

    def __init__(self, database: Database, gate: _Gate) -> None:
        self.database = database
        self.gate = gate
        self.known: list[bytes] = []  # every id there ever was
        self.accepted: Documents = {}
        self.durable: list[tuple[int, Documents]] = [(database.latest_ts, {})]
        self.commits: list[tuple[Awaitable[Timestamp], Documents]] = []  # on their way
        self.forget_own()

    def forget_own(self) -> None:
        self.transaction: Transaction = self.database.begin_mutation()
        self.own: Documents = dict(self.accepted)
        self.points: list[tuple[Savepoint, Documents]] = []

    def pick(self, choice: int) -> bytes | None:
        return self.known[-1 - choice % len(self.known)] if self.known else None

    async def step(self, name: str, *args: Any) -> None:
        await getattr(self, name.replace(" ", "_"))(*args)

    async def insert(self, fields: dict[str, Any]) -> None:
        document = self.transaction.insert("rows", dict(fields))
        identity = decode_id(document).internal_id
        self.known.append(identity)
        row = self.transaction.get("rows", identity)
        assert row is not None
        stored = Document(row.value, "rows").decode()
        assert stored == {**fields, "_id": document, "_creationTime": stored["_creationTime"]}
        self.own[identity] = stored

    async def insert_many(self, count: int, fields: dict[str, Any]) -> None:
        for _ in range(count):
            await self.insert(fields)

    async def patch(self, choice: int, fields: dict[str, Any]) -> None:
        target = self.pick(choice)
        if target in self.own:
            self.transaction.patch("rows", target, fields)
            self.own[target] = {**self.own[target], **fields}

    async def remove_field(self, choice: int, name: str) -> None:
        target = self.pick(choice)
        if target in self.own:
            self.transaction.patch("rows", target, {name: UNSET})
            self.own[target] = {k: value for k, value in self.own[target].items() if k != name}

    async def replace(self, choice: int, fields: dict[str, Any]) -> None:
        target = self.pick(choice)
        if target in self.own:
            self.transaction.replace("rows", target, dict(fields))
            system = {name: self.own[target][name] for name in ("_id", "_creationTime")}
            self.own[target] = {**fields, **system}

    async def delete(self, choice: int) -> None:
        target = self.pick(choice)
        if target in self.own:
            self.transaction.delete("rows", target)
            del self.own[target]

    async def get(self, choice: int) -> None:
        target = self.pick(choice)
        if target is not None:
            self.compare_get(self.transaction, self.own, target)

    async def scan(
        self, index: str, interval: Interval, descending: bool, limit: int | None
    ) -> None:
        self.compare_scan(self.transaction, self.own, index, interval, descending, limit)
        self.compare_scan(
            self.database.begin(), self.durable[-1][1], index, interval, descending, limit
        )

    async def savepoint(self) -> None:
        self.points.append((self.transaction.savepoint(), dict(self.own)))

    async def rollback(self) -> None:
        if self.points:
            point, documents = self.points.pop()
            self.transaction.rollback(point)
            self.own = dict(documents)

    async def commit(self) -> None:
        has_written = bool(self.transaction.staging)
        commit = asyncio.ensure_future(self.database.commit(self.transaction))
        await asyncio.sleep(0)
        if has_written:
            self.accepted = self.own
            self.commits.append((commit, self.own))
        else:
            assert self.own == self.accepted
            self.commits.append((commit, self.accepted))
        if self.gate.is_open.is_set():
            await self.release()
        self.forget_own()

    async def abandon(self) -> None:
        self.forget_own()

    async def hold(self) -> None:
        self.gate.is_open.clear()

    async def release(self) -> None:
        self.gate.is_open.set()
        for commit, documents in self.commits:
            ts = await commit
            if ts > self.durable[-1][0]:
                self.durable.append((ts, documents))
            assert self.durable[-1] == (ts, documents)
        self.commits.clear()
        assert self.database.latest_ts == self.durable[-1][0]

    async def look_back(self, choice: int) -> None:
        ts, documents = self.durable[-1 - choice % len(self.durable)]
        past = self.database.begin(Timestamp(ts))
        for index in (*INDEXES, "by_id"):
            for descending in (False, True):
                self.compare_scan(past, documents, index, EVERYTHING, descending, None)
        for target in self.known[:20]:
            self.compare_get(past, documents, target)

    async def forget(self, choice: int) -> None:
        place = len(self.durable) - 1 - choice % len(self.durable)
        before = Timestamp(self.durable[place][0])
        await self.database.forget_before(before)
        while await self.database.persistence.trim(before):
            pass
        for ts, _ in self.durable[:place]:
            with pytest.raises(OutOfRetention):
                self.database.begin(Timestamp(ts))
        del self.durable[:place]

    @staticmethod
    def compare_get(transaction: Transaction, documents: Documents, target: bytes) -> None:
        row = transaction.get("rows", target)
        found = None if row is None else Document(row.value, "rows").decode()
        assert found == documents.get(target)

    @staticmethod
    def compare_scan(
        transaction: Transaction,
        documents: Documents,
        index: str,
        interval: Interval,
        descending: bool,
        limit: int | None,
    ) -> None:
        expected = [
            (key, document)
            for key, document in sorted(
                ((_key(document, index), document) for document in documents.values()),
                key=lambda pair: pair[0],
                reverse=descending,
            )
            if interval.contains(key)
        ]
        if transaction.table_number("rows") is None:
            return
        scan = transaction.scan("rows", index, interval, descending=descending)
        rows = list(iter(scan.next, None)) if limit is None else scan.take(limit)
        found = [(row.key, Document(row.value, "rows").decode()) for row in rows]
        assert found == expected[:limit]


async def _run(store: Persistence, plan: list[tuple[Any, ...]]) -> None:
    gate = _Gate(store)
    database = await Database.open(gate, runtime=SystemRuntime(), limits=Limits())
    await apply_schema(database, SCHEMA)
    run = _Run(database, gate)
    for name, *args in plan:
        await run.step(name, *args)
    for index in (*INDEXES, "by_id"):
        for descending in (False, True):
            await run.scan(index, EVERYTHING, descending, None)
    await run.release()
    for choice in range(len(run.durable)):
        await run.look_back(choice)
    await database.close()


# Long enough to reach several commits, pages and savepoints.
plans = st.lists(steps, min_size=25, max_size=70)


@given(plans)
def test_every_read_is_that_of_the_model_in_memory(plan: list[tuple[Any, ...]]) -> None:
    asyncio.run(_run(MemoryPersistence(Limits(trim_rows=5)), plan))


@settings(max_examples=settings.default.max_examples // 3)  # a file costs more
@given(plans)
def test_every_read_is_that_of_the_model_in_a_file(plan: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = await SqlitePersistence.open(
                Path(folder) / "data.sqlite3", synchronous="NORMAL", limits=Limits(trim_rows=5)
            )
            await _run(store, plan)

    asyncio.run(run())
