"""Runs a world against the product and holds every step against the oracle.

Clients are the pure client state over the real worker, session, live queries, runner and engine;
only the socket between them is a list. After every event, when nothing moves any more:

- every subscription's last pushed result is what the oracle computes from scratch, and what a
  fresh run of the engine gives; so is the whole state of a client at each Transition it received;
- no result was sent that equals the one sent before on the same connection;
- no program was run more often than the oracle can justify: once for who asks anew, once for
  every commit that wrote a document, in its old or new version, among the rows it had read.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from reactive_store.auth.identity import Caller, Identity
from reactive_store.backend import Backend
from reactive_store.client.state import ClientState
from reactive_store.config import Settings
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.sync.frames import SharedFrame
from reactive_store.sync.messages import (
    ClientVersion,
    FatalError,
    QueryFailed,
    QueryUpdated,
    Transition,
)
from reactive_store.sync.protocol import decode_server
from reactive_store.sync.worker import Pump, Worker
from reactive_store.testing.virtual_runtime import START, VirtualRuntime
from reactive_store.values.wire import loads
from tests.trust.oracle.app import ASK, WRITE, Runs, app_of, question, writing
from tests.trust.oracle.model import Answer, Cursor, Model, Written, evaluate
from tests.trust.oracle.ordering import order_key
from tests.trust.oracle.resolving import page_of, resolved_program, resolved_writes
from tests.trust.oracle.worlds import CLIENTS, World

__all__ = ["Divergence", "Figures", "play"]

_SPINS = 2000
_PATIENCE_S = 60


class Divergence(AssertionError):
    """The product does not do what the oracle expects. `step` numbers the event."""

    def __init__(self, step: int, rule: str, detail: str) -> None:
        super().__init__(f"event {step}: {rule}\n{detail}")
        self.step = step
        self.rule = rule
        self.detail = detail


@dataclass
class Figures:
    """What was tried."""

    worlds: int = 0
    commits: int = 0
    watches: int = 0
    comparisons: int = 0
    pushes: int = 0
    runs: int = 0
    untouched: int = 0  # a commit and a live result it does not touch
    reconnects: int = 0
    restarts: int = 0


class _Line:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.is_writable = True
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def send_all(self, frames: Sequence[bytes]) -> None:
        self.sent += frames

    def send_shared(self, frame: SharedFrame) -> None:
        self.sent.append(frame.text)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


@dataclass(eq=False)
class _Sub:
    """One subscription, as the client has it and as the oracle expects it."""

    client: _Client
    query_id: int
    program: Any
    args: bytes
    pin: Any = None  # where its page ends, once it was taken
    journal: Any = None  # the same as the client has it: None after a failure
    answer: Answer | None = None
    told: Any = None  # the last result sent on this connection
    value: Any = None  # the same decoded, unless it is a failure
    is_new: bool = True
    allowed: int = 0  # runs the present event justifies
    before: Any = None  # the group it was in when the event began
    failed: bool = False  # before or during the event
    # Who watched a failure runs alone for once more: nobody is given a failed answer, and two that
    # have recovered meet only after they have run.
    is_apart: bool = False
    takes_page: bool = False  # opened in this event, to be given a page of its own

    @property
    def group(self) -> Any:
        """Subscriptions of one group share one live query."""
        seen = self.answer is not None and self.answer.saw_identity
        who = self.client.who
        return repr(self.pin), who != "nobody", who if seen else None


@dataclass(eq=False)
class _Client:
    number: int
    state: ClientState
    who: str = "nobody"
    line: _Line = field(default_factory=_Line)
    worker: Worker | None = None
    subs: dict[int, _Sub] = field(default_factory=dict)


def _attributes(who: str) -> dict[str, Any] | None:
    if who == "nobody":
        return None
    return {"tokenIdentifier": f"i|{who}", "issuer": "i", "subject": who}


def _caller(who: str) -> Caller:
    attributes = _attributes(who)
    if attributes is None:
        return Caller(None)
    return Caller(Identity.from_attributes(attributes), is_admin=True)


async def play(world: World, figures: Figures | None = None) -> None:
    """Run a world to its end.

    Raises   Divergence
    """
    figures = Figures() if figures is None else figures
    with tempfile.TemporaryDirectory(prefix="oracle") as folder:
        playing = _Playing(world, Path(folder), figures)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await playing.run()
        except TimeoutError:
            raise Divergence(playing.step, "a call does not end", "") from None
        finally:
            await playing.close()
    figures.worlds += 1


class _Playing:
    """One world under way."""

    def __init__(self, world: World, folder: Path, figures: Figures) -> None:
        self.world = world
        self.folder = folder
        self.figures = figures
        self.runs = Runs()
        self.app = app_of(world.tables, self.runs)
        self.random = random.Random(f"playing {world.seed}")
        self.step = 0
        self.starts = 0
        self.subs: list[_Sub] = []
        self.clients = [
            _Client(number, ClientState(str(uuid.UUID(int=number + 1))))
            for number in range(CLIENTS)
        ]
        self.cursors: dict[str, Cursor] = {}
        self.texts: dict[Cursor, str] = {}
        self.backend: Backend | None = None
        self.pump: Pump | None = None
        self.is_rushing = False  # events follow each other before the sessions have come to rest
        self.counted_runs = 0  # of the live queries of the present start

    async def run(self) -> None:
        await self.start(self.folder / "0")
        assert self.backend is not None
        self.model = Model(self.backend.database.latest_ts)
        for client in self.clients:
            self.connect(client)
        for step, event in enumerate(self.world.events):
            self.step = step
            # What ends in a rush may have had runs that nobody is left to justify.
            self.has_closed = False
            for sub in self.subs:
                sub.allowed = 0
                sub.before = sub.group
                sub.takes_page = False
                sub.failed = sub.answer is not None and sub.answer.fault is not None
            self.is_rushing = event[0] == "rush"
            await getattr(self, event[0])(*event[1:])
            await self.settle()
            await self.check()

    # The product.

    async def start(self, data: Path) -> None:
        in_memory = self.world.store == "memory"
        start = START + timedelta(milliseconds=self.starts if self.world.seed % 2 else 0)
        runtime = VirtualRuntime(seed=1000 * self.world.seed + self.starts, start=start)
        self.starts += 1
        self.data = data
        self.backend = await Backend.open(
            Settings(
                app=self.folder, data=data, redact=False, memory=self.world.memory,
                durability="normal",
            ),
            app=self.app,
            runtime=runtime,
            persistence=MemoryPersistence() if in_memory else None,
        )  # fmt: skip
        self.pump = Pump(runtime)
        self.counted_runs = 0

    async def close(self) -> None:
        if self.pump is not None:
            await self.pump.close()
        if self.backend is not None:
            await self.backend.close()

    def connect(self, client: _Client) -> None:
        backend = self.backend
        assert backend is not None
        client.line = _Line()
        client.worker = Worker(
            backend.runner, backend.live_queries, backend.database, backend.authenticator,
            backend.runtime, backend.limits, client.line, ClientVersion(), False, self.pump,
        )  # fmt: skip
        client.state.open()
        for sub in client.subs.values():
            sub.told, sub.pin = None, sub.journal
        self.justify_opening(list(client.subs.values()), of_others=client)

    def disconnect(self, client: _Client) -> None:
        assert client.worker is not None
        client.worker.on_disconnect()
        client.state.lose("gone")
        client.worker = None

    # Events.

    async def commit(self, *given: Any) -> None:
        (mutations,) = given
        gone: dict[str, set[str]] = {}
        placed = [resolved_writes(writes, self.model.state, gone) for writes in mutations]
        assert self.backend is not None
        runner = self.backend.runner
        outcomes = await asyncio.gather(
            *[runner.mutation(WRITE, writing(writes), _caller("alice")) for writes in placed]
        )
        for writes, outcome in zip(placed, outcomes, strict=True):
            self.apply(writes, outcome)

    def apply(self, writes: Any, outcome: Outcome) -> None:
        raises = any(write[0] == "raise" for write in writes)
        if isinstance(outcome, Failure):
            if not raises:
                self.fail("a mutation failed", outcome.message)
            return
        if raises:
            self.fail("a mutation that raises did not fail", repr(writes))
        told = loads(outcome.value)
        assert isinstance(told, list)
        assert outcome.ts is not None
        self.figures.commits += 1
        changes = self.model.commit(outcome.ts, writes, told)
        self.justify_commit(changes)

    async def watch(self, number: int, program: Any) -> None:
        pages = [
            (page_of(sub.program), self.texts[sub.answer.end])
            for sub in self.subs
            if sub.answer is not None and sub.answer.end in self.texts and page_of(sub.program)
        ]
        program = resolved_program(program, self.model.state, pages)
        args = question(program)
        client = self.clients[number]
        sub = _Sub(client, client.state.subscribe("oracle:ask", args), program, args)
        self.justify_opening([sub])
        client.subs[sub.query_id] = sub
        self.subs.append(sub)
        self.figures.watches += 1

    async def unwatch(self, number: int) -> None:
        if self.subs:
            self.has_closed = self.is_rushing
            sub = self.subs.pop(number % len(self.subs))
            del sub.client.subs[sub.query_id]
            sub.client.state.unsubscribe(sub.query_id)

    async def reconnect(self, number: int, away: Any) -> None:
        client = self.clients[number]
        self.disconnect(client)
        for writes in away:
            await self.commit((writes,))
            await self.settle()
        self.connect(client)
        self.figures.reconnects += 1

    async def rush(self, events: Any) -> None:
        for event in events:
            await getattr(self, event[0])(*event[1:])
            for _ in range(self.random.choice([0, 1, 2, 3, 5, 8])):
                await asyncio.sleep(0)
                for client in self.clients:
                    self.exchange(client)

    async def become(self, number: int, who: str) -> None:
        assert self.backend is not None
        client = self.clients[number]
        subs = list(client.subs.values())
        for sub in subs:
            sub.pin = sub.journal
        was_admin, client.who = client.who != "nobody", who
        if who == "nobody":
            client.state.authenticate("None")
        else:
            client.state.authenticate("Admin", self.backend.admin_keys.issue(), _attributes(who))
        is_same_question = was_admin == (who != "nobody")
        self.justify_opening(subs, keeps_own=is_same_question)

    async def restart(self, how: str) -> None:
        for client in self.clients:
            self.disconnect(client)
        old, old_pump, old_data = self.backend, self.pump, self.data
        assert old is not None
        assert old_pump is not None
        if self.world.store == "memory":
            for client in self.clients:
                self.connect(client)
            return
        if how == "crash":
            data = self.folder / str(self.starts)
            shutil.copytree(
                old_data, data, ignore=shutil.ignore_patterns("lock", "*-shm", "*.json")
            )
            await self.start(data)
            await old_pump.close()
            await old.close()
        else:
            await old_pump.close()
            await old.close()
            await self.start(old_data)
        assert self.backend is not None
        latest = self.backend.database.latest_ts
        self.model.ts = latest
        self.model.states[latest] = self.model.state
        for sub in self.subs:
            sub.answer = None
        for client in self.clients:
            self.connect(client)
        self.figures.restarts += 1

    # What may run.

    def justify_commit(self, changes: list[Written]) -> None:
        for sub in self.subs:
            if sub.answer is None or sub.client.worker is None:
                continue
            # Which end a page of this very rush was given is not known before it is told.
            is_vague = self.is_rushing and sub.pin is None and page_of(sub.program) is not None
            if not is_vague and not sub.answer.touched_by(changes):
                self.figures.untouched += 1
                continue
            sub.allowed += 1
            sub.answer = self.answer(sub, self.model.ts)

    def justify_opening(
        self,
        opened: list[_Sub],
        *,
        of_others: _Client | None = None,
        keeps_own: bool = False,
    ) -> None:
        groups = {
            (sub.args, sub.group)
            for sub in self.subs
            if sub.answer is not None
            and sub.client is not of_others
            and sub.client.worker is not None
            and (keeps_own or sub not in opened)
            and not sub.failed
            and not sub.is_apart
        }
        for sub in opened:
            sub.is_new = True
            looks = page_of(sub.program) is not None and sub.pin is None
            seen = sub.answer is not None and sub.answer.saw_identity
            sub.takes_page = looks
            if self.is_rushing or looks or seen or (sub.args, sub.group) not in groups:
                sub.allowed += 1
            if self.is_rushing:
                sub.answer = self.answer(sub, self.model.ts)

    # The oracle.

    def answer(self, sub: _Sub, ts: int) -> Answer:
        answer = evaluate(
            self.world.tables,
            self.model.at(ts),
            sub.program,
            who=sub.client.who,
            pin=sub.pin,
            cursors=self.cursors,
        )
        sub.failed = sub.failed or answer.fault is not None
        return answer

    # Until nothing moves.

    async def settle(self) -> None:
        idle = 0
        for _ in range(_SPINS):
            await asyncio.sleep(0)
            moved = False
            for client in self.clients:
                moved = self.exchange(client) or moved
            pump = self.pump
            assert pump is not None
            idle = 0 if moved or pump._due or pump._tasks or pump._is_scheduled else idle + 1
            if idle >= 2:
                return
        self.fail("the sessions do not come to rest", "")

    def exchange(self, client: _Client) -> bool:
        worker = client.worker
        if worker is None:
            return False
        outgoing = client.state.take_outgoing()
        for frame in outgoing:
            worker.receive(frame)
        line = client.line
        if line.closed is not None:
            self.fail("the server closed a socket", repr(line.closed))
        sent, line.sent = line.sent, []
        for frame in sent:
            message = decode_server(frame)
            client.state._take(message)
            if isinstance(message, Transition):
                self.receive(client, message)
            elif isinstance(message, FatalError):
                self.fail("the server gave up on a client", message.error)
        return bool(outgoing or sent)

    def receive(self, client: _Client, transition: Transition) -> None:
        ts = transition.end.ts
        for change in transition.modifications:
            sub = client.subs.get(change.query_id)
            if sub is None or not isinstance(change, QueryUpdated | QueryFailed):
                continue
            result = _outcome_of(change)
            if result == sub.told:
                self.fail("a result was sent again that had not changed", self.named(sub))
            sub.told = result
            sub.value = loads(change.value) if isinstance(change, QueryUpdated) else None
            self.figures.pushes += 1
        for sub in client.subs.values():
            if sub.told is not None:
                self.compare(sub, ts, f"client {client.number} at the Transition to {ts}")

    # Checks.

    async def check(self) -> None:
        backend = self.backend
        assert backend is not None
        latest = backend.database.latest_ts
        if latest != self.model.ts:
            self.fail("the newest commit", f"expected {self.model.ts}, seen {latest}")
        for sub in self.subs:
            if sub.told is None:
                self.fail("no result was sent", self.named(sub))
            self.compare(sub, latest, "when everything had come to rest")
            sub.is_new = False
        self.check_runs()
        self.runs.counting = False
        await self.check_fresh(backend)
        self.runs.counting = True

    def compare(self, sub: _Sub, ts: int, when: str) -> None:
        self.figures.comparisons += 1
        answer = self.answer(sub, ts)
        if not self.agrees(answer, sub):
            expected = answer.value if answer.fault is None else answer.fault
            self.fail(
                f"a pushed result is wrong {when}",
                f"{self.named(sub)}\nexpected {expected!r}\nseen     {sub.told!r}",
            )
        # A page keeps the end it had when it was first seen.
        sub.journal = None if answer.end is None else answer.end.position
        sub.pin = sub.journal if sub.pin is None else sub.pin
        if ts == self.model.ts:
            sub.answer = answer

    def check_runs(self) -> None:
        assert self.backend is not None
        runs = self.runs.take()
        counters = self.backend.live_queries.counters
        counted, self.counted_runs = counters.runs - self.counted_runs, counters.runs
        # For a session that is behind, an answer of the past is made that nobody shares.
        past = sum(runs.values()) - counted
        if past and not self.is_rushing:
            self.fail("the live queries do not count their runs", f"{runs}\ncounted {counted}")
        for args, count in runs.items():
            self.figures.runs += count
            subs = [sub for sub in self.subs if sub.args == args]
            bound = max(
                _sum_of_groups(subs, lambda sub: sub.before),
                _sum_of_groups(subs, lambda sub: sub.group),
            )
            # It runs on behalf of who came first, gone by now perhaps, before it is known that it
            # looks at the identity from now on and has to run for each.
            bound += len({sub.group[1] for sub in subs if sub.before != sub.group and sub.group[2]})
            if self.is_rushing or any(sub.failed or sub.is_apart for sub in subs):
                bound = past + sum(sub.allowed for sub in subs)
            for sub in subs:
                sub.is_apart = self.is_rushing or sub.failed or (sub.is_apart and not sub.allowed)
            if count > bound and not self.has_closed:
                self.fail(
                    "a query was run again though nothing it had read was touched",
                    f"{args.decode()}\njustified {bound}, run {count}",
                )

    async def check_fresh(self, backend: Backend) -> None:
        for sub in self.subs:
            if not sub.allowed and self.random.randrange(4):
                continue  # not touched: it is looked at now and then
            pin = sub.pin
            page = page_of(sub.program)
            journal = None
            if pin is not None:
                journal = self.texts.get(Cursor(page[0], repr(page), pin))
                if journal is None:
                    continue
            caller = _caller(sub.client.who)
            fresh = await backend.runner.query(ASK, sub.args, caller, journal=journal)
            if _outcome_of(fresh) != sub.told:
                self.fail(
                    "a fresh run gives another result than was pushed",
                    f"{self.named(sub)}\npushed {sub.told!r}\nfresh  {_outcome_of(fresh)!r}",
                )
        plain = [sub for sub in self.subs if page_of(sub.program) is None]
        if plain:
            sub = self.random.choice(plain)
            once = await backend.live_queries.query(ASK, sub.args, _caller(sub.client.who))
            if _outcome_of(once) != sub.told:
                self.fail(
                    "asked once, the answer is another than was pushed",
                    f"{self.named(sub)}\npushed {sub.told!r}\nasked  {_outcome_of(once)!r}",
                )

    def agrees(self, answer: Answer, sub: _Sub) -> bool:
        kind, text, data = sub.told
        fault = answer.fault
        if fault is None:
            return kind == "value" and self.same(answer.value, sub.value)
        if kind != "failure" or fault.says not in text:
            return False
        if isinstance(fault.data, dict):
            return data is not None and order_key(loads(data)) == order_key(fault.data)
        return data is None

    def same(self, expected: Any, seen: Any) -> bool:
        if type(expected) is Cursor:
            return self.same_cursor(expected, seen)
        if type(expected) is list:
            return (
                type(seen) is list
                and len(expected) == len(seen)
                and all(map(self.same, expected, seen))
            )
        if type(expected) is dict:
            return (
                type(seen) is dict
                and expected.keys() == seen.keys()
                and all(self.same(value, seen[name]) for name, value in expected.items())
            )
        return order_key(expected) == order_key(seen)

    def same_cursor(self, expected: Cursor, seen: Any) -> bool:
        if not isinstance(seen, str):
            return False
        # What a text stands for is learned when it is first seen, and holds from then on. Queries
        # that are written differently may be the same one ("asc" said or not) and share texts.
        known = self.cursors.setdefault(seen, expected)
        return (known.table, known.position) == (
            expected.table,
            expected.position,
        ) and self.texts.setdefault(expected, seen) == seen

    def named(self, sub: _Sub) -> str:
        return f"client {sub.client.number} as {sub.client.who} asks {sub.program!r}"

    def fail(self, rule: str, detail: str) -> None:
        raise Divergence(self.step, rule, detail)


def _sum_of_groups(subs: list[_Sub], group: Any) -> int:
    most: dict[Any, int] = {}
    for sub in subs:
        name = id(sub) if sub.takes_page else group(sub)
        most[name] = max(most.get(name, 0), sub.allowed)
    return sum(most.values())


def _outcome_of(result: QueryUpdated | QueryFailed | Outcome) -> tuple[str, Any, bytes | None]:
    """A result without what may differ between equal ones: the id of the request."""
    match result:
        case QueryFailed():
            return "failure", result.error_message.partition("\n")[2], result.error_data
        case Failure():
            return "failure", result.message, result.data
        case _:
            return "value", result.value, None
