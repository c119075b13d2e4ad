"""Concurrent mutations have a serial order, and it is that of their timestamps.

Every committed attempt notes what it read and wrote. Afterwards the attempts are played one after
the other, in the order of their timestamps, on a plain dictionary: each must read there what it had
read. That the check can fail is checked too, by switching the conflict test off.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine import write_log
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING, prefix_interval
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest, Conflict
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Commit
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key

pytestmark = pytest.mark.timeout(900)  # the thorough profile takes minutes

SCHEMA = define_schema(
    {"rows": define_table({"kind": v.string(), "n": v.number()}).index("by_kind", ["kind"])}
)

State = dict[bytes, tuple[str, float]]

CREATED: dict[bytes, float] = {}
"""When each row was made; it never changes, and ids are random."""


class _Disk(MemoryPersistence):
    """Takes a random while for each write, so that commits are pending for different times."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance

    async def append(self, commits: Sequence[Commit]) -> None:
        for _ in range(self.chance.randrange(12)):
            await asyncio.sleep(0)
        await super().append(commits)


@dataclass
class _Attempt:
    """One run of a mutation or query: steps as seen by itself, in order."""

    transaction: Transaction
    chance: random.Random
    steps: list[tuple] = field(default_factory=list)
    ts: int = 0
    wrote: bool = False

    async def pause(self) -> None:
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)

    async def get(self, id: bytes) -> tuple[str, float] | None:
        row = self.transaction.get("rows", id)
        found = None if row is None else _content(row.value)
        self.steps.append(("get", id, found))
        await self.pause()
        return found

    async def find(self, kind: str | None) -> dict[bytes, tuple[str, float]]:
        interval = EVERYTHING if kind is None else prefix_interval(encode_key(kind))
        scan = self.transaction.scan("rows", "by_kind", interval)
        rows = list(iter(scan.next, None))
        found = {row.id: _content(row.value) for row in rows}
        self.steps.append(("find", kind, found))
        await self.pause()
        return found

    async def first(self, kind: str, count: int, *, newest: bool = False) -> list[bytes]:
        """The ids of the oldest or newest rows of a kind; what lies behind them is not read."""
        interval = prefix_interval(encode_key(kind))
        rows = self.transaction.scan("rows", "by_kind", interval, descending=newest).take(count)
        found = [row.id for row in rows]
        self.steps.append(("newest" if newest else "oldest", (kind, count), found))
        await self.pause()
        return found

    async def insert(self, kind: str, n: float) -> None:
        document = self.transaction.insert("rows", {"kind": kind, "n": n})
        identity = decode_id(document).internal_id
        row = self.transaction.get("rows", identity)
        assert row is not None
        CREATED[identity] = Document(row.value, "rows")["_creationTime"]
        self._wrote(identity, (kind, n))
        await self.pause()

    async def put(self, id: bytes, kind: str, n: float) -> None:
        await self.get(id)
        self.transaction.replace("rows", id, {"kind": kind, "n": n})
        self._wrote(id, (kind, n))
        await self.pause()

    async def delete(self, id: bytes) -> None:
        await self.get(id)
        self.transaction.delete("rows", id)
        self._wrote(id, None)
        await self.pause()

    def _wrote(self, id: bytes, content: tuple[str, float] | None) -> None:
        self.steps.append(("write", id, content))
        self.wrote = True


def _content(value: bytes) -> tuple[str, float]:
    document = Document(value, "rows")
    return document["kind"], document["n"]


async def _transfer(attempt: _Attempt) -> None:
    """Bank transfer: the sum of all accounts stays."""
    accounts = await attempt.find("account")
    if len(accounts) < 2:
        return
    source, target = attempt.chance.sample(sorted(accounts), 2)
    amount = attempt.chance.randrange(1, 5)
    kind, n = (await attempt.get(source)) or ("", 0)
    await attempt.put(source, kind, n - amount)
    kind, n = (await attempt.get(target)) or ("", 0)
    await attempt.put(target, kind, n + amount)


async def _go_off_call(attempt: _Attempt) -> None:
    """Write skew: one may leave only if another stays; each writes a row the other only reads."""
    on_call = await attempt.find("on call")
    if len(on_call) >= 2:
        leaving = attempt.chance.choice(sorted(on_call))
        await attempt.put(leaving, "off call", on_call[leaving][1])


async def _come_back(attempt: _Attempt) -> None:
    for resting, (_, n) in (await attempt.find("off call")).items():
        await attempt.put(resting, "on call", n)


async def _take_a_seat(attempt: _Attempt) -> None:
    """Phantom: a seat is taken only while there are fewer than four."""
    if len(await attempt.find("seat")) < 4:
        await attempt.insert("seat", attempt.chance.randrange(100))


async def _leave_a_seat(attempt: _Attempt) -> None:
    seats = await attempt.find("seat")
    if seats:
        await attempt.delete(attempt.chance.choice(sorted(seats)))


async def _serve_the_oldest(attempt: _Attempt) -> None:
    """Reads the beginning of a range only: what comes behind must not matter, what before must."""
    for served in await attempt.first("seat", 1):
        await attempt.put(served, "served", CREATED[served])


async def _copy_the_newest(attempt: _Attempt) -> None:
    if await attempt.first("served", 2, newest=True):
        await attempt.insert("served", 1)


async def _note_the_oldest(attempt: _Attempt) -> None:
    """Depends on three rows, each of which may leave or come back before the others."""
    await attempt.insert("served", len(await attempt.first("seat", 3)))


async def _seat_again(attempt: _Attempt) -> None:
    if len(await attempt.find("seat")) < 4:
        for served in await attempt.first("served", 1):
            await attempt.put(served, "seat", 0)


async def _look(attempt: _Attempt) -> None:
    await attempt.find(None)
    await attempt.find("account")


Work = Callable[[_Attempt], Awaitable[None]]
WORKS: list[Work] = [
    _transfer,
    _transfer,
    _go_off_call,
    _come_back,
    _take_a_seat,
    _take_a_seat,
    _leave_a_seat,
    _serve_the_oldest,
    _serve_the_oldest,
    _copy_the_newest,
    _note_the_oldest,
    _seat_again,
    _look,
]


async def _history(seed: int, *, checks_conflicts: bool) -> tuple[list[_Attempt], State]:
    """Run many mutations and queries at once; what was committed, and the final state."""
    chance = random.Random(seed)
    database = await Database.open(_Disk(chance), runtime=SystemRuntime(), limits=Limits())
    await apply_schema(database, SCHEMA)
    done: list[_Attempt] = []

    async def mutate(work: Work) -> None:
        for _ in range(200):
            attempt = _Attempt(database.begin_mutation(), chance)
            try:
                await work(attempt)
            except BadRequest:
                # An index and a table that disagree: only histories that cannot be make them so.
                if checks_conflicts:
                    raise
                return
            try:
                attempt.ts = await database.commit(attempt.transaction)
            except Conflict:
                continue
            done.append(attempt)
            return
        raise AssertionError("a mutation lost two hundred races")

    async def query() -> None:
        attempt = _Attempt(database.begin(), chance)
        attempt.ts = attempt.transaction.begin_ts
        await _look(attempt)
        done.append(attempt)

    async def start(attempt: _Attempt) -> None:
        for _ in range(3):
            await attempt.insert("account", 10)
            await attempt.insert("on call", 0)

    async def client() -> None:
        for _ in range(4):
            if chance.random() < 0.2:
                await query()
            else:
                await mutate(chance.choice(WORKS))

    await mutate(start)
    await asyncio.gather(*(client() for _ in range(8)))
    scan = database.begin().scan("rows", "by_id", EVERYTHING)
    final = {row.id: _content(row.value) for row in iter(scan.next, None)}
    await database.close()
    return done, final


def _read(state: State, verb: str, what: Any) -> Any:
    """What a step reads in a state."""
    if verb == "get":
        return state.get(what)
    if verb == "find":
        return {each: c for each, c in state.items() if what is None or c[0] == what}
    kind, count = what
    ids = [each for each, content in state.items() if content[0] == kind]
    ids.sort(key=lambda each: (CREATED[each], each), reverse=verb == "newest")
    return ids[:count]


def _anomalies(history: list[_Attempt]) -> tuple[list[str], State]:
    """What does not agree with a serial run in the order of timestamps, and where that run ends."""
    state: State = {}
    problems = []
    # A transaction without writes sees the commit at its own timestamp, so it comes after it.
    for attempt in sorted(history, key=lambda attempt: (attempt.ts, not attempt.wrote)):
        own = dict(state)
        for verb, what, content in attempt.steps:
            if verb == "write":
                if content is None:
                    own.pop(what, None)
                else:
                    own[what] = content
                continue
            expected = _read(own, verb, what)
            if content != expected:
                problems.append(f"{attempt.ts}: {verb} {what!r} saw {content}, serial {expected}")
        if attempt.wrote:
            state = own
    return problems, state


def _check(seed: int, *, checks_conflicts: bool = True) -> list[str]:
    history, final = asyncio.run(_history(seed, checks_conflicts=checks_conflicts))
    problems, serial = _anomalies(history)
    if serial != final:
        problems.append("the final state is not that of the serial run")
    if sum(n for kind, n in final.values() if kind == "account") != 30:
        problems.append("money was made or lost")
    if not any(kind == "on call" for kind, _ in final.values()):
        problems.append("nobody is on call")
    if sum(kind == "seat" for kind, _ in final.values()) > 4:
        problems.append("more seats than there are")
    writers = [attempt.ts for attempt in history if attempt.wrote]
    if len(set(writers)) != len(writers):
        problems.append("two commits share a timestamp")
    return problems


@given(st.integers(0, 2**32))
def test_the_order_of_timestamps_explains_every_read(seed: int) -> None:
    assert _check(seed) == []


def test_without_the_conflict_test_anomalies_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_log, "touches", lambda reads, commit: None)
    found = [problem for seed in range(5) for problem in _check(seed, checks_conflicts=False)]
    assert any("serial" in problem for problem in found)
    assert any("money was made or lost" in problem for problem in found)
