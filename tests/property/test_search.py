"""Searches against the plain model: in every state a transaction can be in, and while they wait.

Random mutations write, undo and commit; the disk is held up at random, so searches go through own
writes, pending commits and durable data at once, and through the past. What was found is kept with
its read set: as soon as a commit changes what a fresh search would find, it has to touch that read
set, and the subscription on it has to fire.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.engine.database import Database
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.subscriptions import Subscription
from reactive_store.engine.transaction import Savepoint, Transaction
from reactive_store.functions.search_query import SearchFilter, compile_search
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Commit, Persistence, Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.testing.faulty_persistence import FaultyPersistence
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import field_value
from reactive_store.values.value import UNSET
from tests.engine.search_model import Stored, find

FIELDS = ("room", "a.b")
SCHEMA = define_schema(
    {
        "notes": define_table(v.any())
        .search_index("plain", search_field="text")
        .search_index("filtered", search_field="text", filter_fields=FIELDS)
    }
)
LIMITS = Limits(search_results=6, search_expansions=3, search_terms=3)

Documents = dict[bytes, dict[str, Any]]
Question = tuple[str, dict[int, Any]]

words = st.sampled_from(["a", "ab", "abc", "abd", "ac", "b", "ba", "bab", "c", "d"])
texts = st.lists(words, min_size=1, max_size=5).map(" ".join)
rooms = st.sampled_from([1, "x", None])
documents = st.fixed_dictionaries(
    {"text": texts, "room": rooms},
    optional={"a": st.sampled_from([{}, {"b": 1}, 5]), "seen": st.booleans()},
)
odd_documents = st.fixed_dictionaries(
    {}, optional={"text": st.sampled_from(["", None, 3]), "seen": st.booleans()}
)
choices = st.integers(0, 9)
questions = st.tuples(
    texts,
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({0: rooms}),
        st.dictionaries(st.sampled_from([0, 1]), st.one_of(rooms, st.just(UNSET)), max_size=2),
    ),
)
writes = st.one_of(
    st.tuples(st.just("insert"), documents),
    st.tuples(st.just("insert many"), st.integers(2, 25), texts, rooms),
    st.tuples(st.just("patch"), choices, st.one_of(documents, odd_documents)),
    st.tuples(st.just("replace"), choices, st.one_of(documents, odd_documents)),
    st.tuples(st.just("patch"), choices, st.fixed_dictionaries({"seen": st.integers(0, 99)})),
    st.tuples(st.just("delete"), choices),
)
steps = st.one_of(
    writes,
    st.tuples(st.just("savepoint")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("search"), questions),
    st.tuples(st.just("search"), questions),
    st.tuples(st.just("search"), questions),
    st.tuples(st.just("look back"), choices, questions),
    st.tuples(st.just("write and commit"), writes),
    st.tuples(st.just("write and commit"), writes),
    st.tuples(st.just("write and commit"), writes),
    st.tuples(st.just("commit")),
    st.tuples(st.just("abandon")),
    st.tuples(st.just("hold")),
    st.tuples(st.just("release")),
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


def expected_of(known: Documents, question: Question) -> list[dict[str, Any]]:
    """What a search should find: whole documents, best first."""
    return [known[identity] for _, identity in ranks_of(known, question)]


def ranks_of(known: Documents, question: Question) -> list[tuple[float, bytes]]:
    """The scores and ids of what a search should find."""
    text, filters = question
    stored = [
        Stored(
            identity,
            document["_creationTime"],
            document.get("text"),
            tuple(field_value(document, path.split(".")) for path in FIELDS),
        )
        for identity, document in known.items()
    ]
    return find(
        stored, text, filters, expansions=LIMITS.search_expansions, terms=LIMITS.search_terms
    )


def ask(transaction: Transaction, question: Question) -> list[dict[str, Any]]:
    """What a search finds, as far as the limit."""
    text, filters = question
    links = [SearchFilter(True, "text", text)]
    links += [SearchFilter(False, FIELDS[at], value) for at, value in filters.items()]
    index = "filtered" if filters else "plain"
    definition = transaction.catalog.search_index_for_query("notes", index)
    compiled = compile_search("notes", definition, links, LIMITS)
    if compiled is None:
        return []
    assert transaction.wait_for_search("notes", index) is None
    scan = transaction.search("notes", index, compiled)
    rows = scan.take(LIMITS.search_results)
    return [Document(row.value, "notes").decode() for row in rows]


class _Waiting:
    """A search that was answered from durable data and waits for a change."""

    def __init__(self, database: Database, question: Question, known: Documents) -> None:
        self.question = question
        self.found = expected_of(known, question)
        self.ranks = ranks_of(known, question)
        transaction = database.begin()
        ask(transaction, question)
        self.since = transaction.begin_ts
        self.reads = transaction.read_set()
        self.fired: list[int] = []
        filed = database.subscribe(self.reads, self.since, self.fired.append)
        assert isinstance(filed, Subscription)


class _Run:
    """One sequence of steps, on the engine and on the model."""

    def __init__(self, database: Database, gate: _Gate) -> None:
        self.database = database
        self.gate = gate
        self.known: list[bytes] = []
        self.accepted: Documents = {}
        self.durable: list[tuple[int, Documents]] = [(database.latest_ts, {})]
        self.commits: list[tuple[asyncio.Future[Timestamp], Documents]] = []
        self.waiting: list[_Waiting] = []
        self.forget_own()

    def forget_own(self) -> None:
        self.transaction = self.database.begin_mutation()
        self.own: Documents = dict(self.accepted)
        self.points: list[tuple[Savepoint, Documents]] = []

    def pick(self, choice: int) -> bytes | None:
        return self.known[-1 - choice % len(self.known)] if self.known else None

    async def step(self, name: str, *args: Any) -> None:
        await getattr(self, name.replace(" ", "_"))(*args)

    async def insert(self, fields: dict[str, Any]) -> None:
        identity = decode_id(self.transaction.insert("notes", dict(fields))).internal_id
        self.known.append(identity)
        self._see(identity)

    async def insert_many(self, count: int, text: str, room: Any) -> None:
        for number in range(count):
            await self.insert({"text": f"{text} {'ab' * (number % 3)}", "room": room})

    def _see(self, identity: bytes) -> None:
        row = self.transaction.get("notes", identity)
        assert row is not None
        self.own[identity] = Document(row.value, "notes").decode()

    async def patch(self, choice: int, fields: dict[str, Any]) -> None:
        target = self.pick(choice)
        if target is not None and target in self.own:
            self.transaction.patch("notes", target, fields)
            self._see(target)

    async def replace(self, choice: int, fields: dict[str, Any]) -> None:
        target = self.pick(choice)
        if target is not None and target in self.own:
            self.transaction.replace("notes", target, dict(fields))
            self._see(target)

    async def delete(self, choice: int) -> None:
        target = self.pick(choice)
        if target is not None and target in self.own:
            self.transaction.delete("notes", target)
            del self.own[target]

    async def savepoint(self) -> None:
        self.points.append((self.transaction.savepoint(), dict(self.own)))

    async def rollback(self) -> None:
        if self.points:
            point, known = self.points.pop()
            self.transaction.rollback(point)
            self.own = dict(known)

    async def search(self, question: Question) -> None:
        most = LIMITS.search_results
        assert ask(self.transaction, question) == expected_of(self.own, question)[:most]
        found = ask(self.database.begin(), question)
        assert found == expected_of(self.durable[-1][1], question)[:most]
        self.waiting.append(_Waiting(self.database, question, self.durable[-1][1]))

    async def look_back(self, choice: int, question: Question) -> None:
        ts, known = self.durable[-1 - choice % len(self.durable)]
        past = self.database.begin(Timestamp(ts))
        assert ask(past, question) == expected_of(known, question)[: LIMITS.search_results]

    async def commit(self) -> None:
        has_written = bool(self.transaction.staging)
        commit = asyncio.ensure_future(self.database.commit(self.transaction))
        await asyncio.sleep(0)
        if has_written:
            self.accepted = self.own
            self.commits.append((commit, self.own))
        else:
            self.commits.append((commit, self.accepted))
        if self.gate.is_open.is_set():
            await self.release()
        self.forget_own()

    async def write_and_commit(self, write: tuple[Any, ...]) -> None:
        await self.step(*write)
        await self.commit()

    async def abandon(self) -> None:
        self.forget_own()

    async def hold(self) -> None:
        self.gate.is_open.clear()

    async def release(self) -> None:
        self.gate.is_open.set()
        for commit, known in self.commits:
            ts = await commit
            if ts > self.durable[-1][0]:
                self.durable.append((ts, known))
        self.commits.clear()
        self.compare_waiting()

    def compare_waiting(self) -> None:
        """Who was touched was told, and nobody else; who was not still has the right answer.

        Down to the scores: an order that happens to stay the same would hide that they moved.
        """
        known = self.durable[-1][1]
        log = self.database.committer.log
        still = []
        for waiting in self.waiting:
            touch = log.first_touch(waiting.reads, since=waiting.since)
            assert waiting.fired == ([] if touch is None else [touch[0]])
            if touch is None:
                assert waiting.found == expected_of(known, waiting.question)
                assert waiting.ranks == ranks_of(known, waiting.question)
                still.append(waiting)
        self.waiting = still


async def _run(plan: list[tuple[Any, ...]]) -> None:
    gate = _Gate(MemoryPersistence())
    database = await Database.open(gate, runtime=SystemRuntime(), limits=LIMITS)
    try:
        await apply_schema(database, SCHEMA)
        definitions = database.catalog.tables["notes"].search_indexes
        for definition in definitions:
            waiting = database.searches.wait_ready("notes", definition)
            if waiting is not None:
                await waiting
        run = _Run(database, gate)
        for name, *args in plan:
            await run.step(name, *args)
        await run.release()
        for choice in range(len(run.durable)):
            await run.look_back(choice, ("a b", {}))
            await run.look_back(choice, ("ba", {0: 1}))
        for followed in database.searches._followed.values():
            followed.index.check()
            assert followed.ahead == (0, 0)
            assert not followed.ahead_having
    finally:
        gate.is_open.set()
        await database.close()


@settings(max_examples=2 * settings.default.max_examples)
@given(st.lists(steps, min_size=15, max_size=60))
def test_every_search_is_that_of_the_model_and_hears_of_every_change(
    plan: list[tuple[Any, ...]],
) -> None:
    asyncio.run(_run(plan))


async def test_a_search_hears_whenever_its_scores_move_whoever_moves_them() -> None:
    """Documents of another room, which it does not find, are edited: only statistics change."""
    chance = random.Random(11)
    vocabulary = ["a", "ab", "abc", "abd", "b", "c", "d", "e", "f"]
    database = await Database.open(MemoryPersistence(), runtime=SystemRuntime(), limits=LIMITS)
    await apply_schema(database, SCHEMA)
    await database.searches.wait_built()

    def text() -> str:
        return " ".join(chance.choices(vocabulary, k=chance.randint(1, 4)))

    known: Documents = {}

    async def write(identity: bytes | None, fields: dict[str, Any]) -> None:
        transaction = database.begin_mutation()
        if identity is None:
            identity = decode_id(transaction.insert("notes", fields)).internal_id
        else:
            transaction.patch("notes", identity, fields)
        await database.commit(transaction)
        row = database.begin().get("notes", identity)
        assert row is not None
        known[identity] = Document(row.value, "notes").decode()

    for number in range(45):
        await write(None, {"text": text(), "room": number % 3})
    others = [name for name, document in known.items() if document["room"]]
    asked: list[Question] = [("ab", {0: 0}), ("b c", {0: 0}), ("d", {0: 0}), ("abc a", {0: 0})]
    waiting = [_Waiting(database, question, dict(known)) for question in asked]
    touched = untouched = moved = 0
    for _ in range(500):
        await write(chance.choice(others), {"text": text()})
        for place, each in enumerate(waiting):
            ranks = ranks_of(known, each.question)
            if database.committer.log.first_touch(each.reads, since=each.since) is None:
                untouched += 1
                assert not each.fired
                assert ranks == each.ranks
                continue
            touched += 1
            assert len(each.fired) == 1
            moved += ranks != each.ranks
            waiting[place] = _Waiting(database, each.question, dict(known))
    assert min(touched, untouched, moved) > 100
    await database.close()
