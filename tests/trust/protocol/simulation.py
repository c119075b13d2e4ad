"""One run: a plan carried out on clients, a network and a server; everything checked on the way.

After the last operation the network heals, and the run goes on until even the longest timeout has
passed. Then nothing may be owed, lost, doubled, stale or still held.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.trust.protocol.model_host import ModelHost
from tests.trust.protocol.network import Clock, Link
from tests.trust.protocol.plans import Operation, Plan, shrink
from tests.trust.protocol.questions import (
    UNPINNED,
    History,
    Violation,
    answer,
    marks_of,
    page_end,
)
from tests.trust.protocol.tab import Tab
from tests.trust.protocol.witness import Ledger, who_of

__all__ = ["QUIET_MS", "Host", "Seen", "World", "find", "report", "run_model"]

TICK_MS = 1_000
PING_TICKS = 20
QUIET_MS = 250_000  # longer than a silent client is kept, and the client's and the network's pauses


@dataclass(slots=True)
class Seen:
    """What one run has tried."""

    transitions: int = 0
    results: int = 0
    answers: int = 0
    commits: int = 0
    connections: int = 0
    events: int = 0
    checksum: int = 0

    def add(self, other: Seen) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def figures(self) -> dict[str, int]:
        """What a reader may want to know."""
        return {
            name: getattr(self, name)
            for name in ("connections", "transitions", "results", "answers", "commits")
        }


class Host(Protocol):
    """A server: the model's, or the real one."""

    is_up: bool
    has_faults: bool
    peers: dict[Any, None]

    def connect(self, link: Link, number: int, *, takes_chunks: bool) -> None: ...
    def crash(self) -> None: ...
    def start(self) -> None: ...
    def check_quiet(self) -> None: ...


class World:
    """Everything of one run. `host` is set by whoever makes it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = Clock()
        self.history = History()
        self.ledger = Ledger(self.history)
        self.links: list[Link] = []
        self.ticks = 0
        self.tabs: list[Tab] = []
        self.host: Host

    def begin(self) -> None:
        """Schedule the plan."""
        self.tabs = [Tab(self, number) for number in range(self.plan.clients)]
        for tab in self.tabs:
            self.clock.after(0, tab.connect)
        for operation in self.plan.operations:
            self.clock.after(operation.at_ms, lambda operation=operation: self._do(operation))
        self.clock.after(self.end_ms, self._heal)
        self.clock.after(TICK_MS, self._tick)

    @property
    def end_ms(self) -> int:
        last = self.plan.operations[-1].at_ms if self.plan.operations else 0
        return last + 2_000

    def _do(self, operation: Operation) -> None:
        tab = self.tabs[operation.client]
        match operation.kind:
            case "watch":
                tab.watch(operation.what)
            case "unwatch":
                tab.unwatch(operation.what)
            case "burst":
                tab.burst(operation.what, operation.amount)
            case "mutate":
                tab.mutate(operation.what)
            case "act":
                tab.act(operation.what)
            case "become":
                tab.become(operation.token)
            case "cut":
                tab.lose("cut", notice_ms=operation.amount, lost_per_cent=operation.what)
            case "stall" if tab.link is not None:
                for direction in ("up", "down"):
                    if operation.token in (direction, "both"):
                        getattr(tab.link, direction).stall(operation.amount)
            case "slow" if tab.link is not None:
                tab.link.down.delay_ms = operation.what
                self.clock.after(operation.amount, tab.link.down.heal)
            case "restart":
                self._restart(operation.amount)

    def _restart(self, down_ms: int) -> None:
        if not self.host.is_up:
            return
        self.host.crash()
        links, self.links = self.links, []
        for link in links:
            link.disconnect()
        for tab in self.tabs:
            tab.lose("the server is gone", notice_ms=0)
        self.clock.after(down_ms, self.host.start)

    def _tick(self) -> None:
        self.ticks += 1
        self.links = [link for link in self.links if not link.is_disconnected]
        for link in self.links:
            link.tick(ping=self.ticks % PING_TICKS == 0)
        for tab in self.tabs:
            tab.tick()
        self.clock.after(TICK_MS, self._tick)

    def _heal(self) -> None:
        self.host.has_faults = False
        for link in self.links:
            link.up.heal()
            link.down.heal()

    # At the end.

    def check(self) -> None:
        """Nothing is owed, lost, doubled, stale or held."""
        self.links = [link for link in self.links if not link.is_disconnected]
        if len(self.links) != len(self.tabs):
            raise Violation(f"{len(self.links)} connections for {len(self.tabs)} clients")
        if len(self.host.peers) != len(self.tabs):
            raise Violation(f"{len(self.host.peers)} sessions for {len(self.tabs)} clients")
        for tab in self.tabs:
            self._check_tab(tab)
        self.host.check_quiet()
        self._check_calls()

    def _check_tab(self, tab: Tab) -> None:
        conversation = tab.conversation
        if conversation is None or tab.link is None:
            raise Violation(f"client {tab.number} has no connection")
        if not tab.twin.state.is_settled or tab.twin.plain.requests:
            raise Violation(f"client {tab.number} still waits: {tab.show()}")
        # A server that has nothing to say says Ping, at any moment.
        if tab.link.up.waiting or any(b'"Ping"' not in frame for frame in tab.link.down.waiting):
            raise Violation(f"frames of client {tab.number} are still under way")
        conversation.check_quiet()
        state = self.history.states[-1]
        who = who_of(conversation.identities[-1])
        if set(conversation.queries) != set(tab.live):
            raise Violation(f"client {tab.number} has {tab.live}, server {conversation.queries}")
        for query_id in tab.live:
            end = conversation.queries[query_id].end
            if end is UNPINNED:
                end = page_end(state)
            expected = answer(*tab.questions[query_id], who, state, end)
            if tab.twin.result(query_id) != expected:
                raise Violation(
                    f"client {tab.number} rests with {tab.twin.result(query_id)} for query "
                    f"{query_id}; it is {expected}"
                )

    def _check_calls(self) -> None:
        stored = self.history.states[-1].effects
        counts = Counter(effect.token for effect in stored)
        if self.history.doubled or any(count > 1 for count in counts.values()):
            raise Violation(f"took effect twice: {self.history.doubled}")
        whos = {effect.token: effect.who for effect in stored}
        order: dict[int, list[tuple[int, int]]] = {}
        for call in self.ledger.calls.values():
            marks = marks_of(call.path, call.token)
            present = [counts[mark] for mark in marks]
            if call.outcome is None:
                raise Violation(f"{call.args} never ended")
            wanted = [1] * len(marks) if call.outcome == "done" else [0] * len(marks)
            if present != wanted and call.outcome != "lost":
                raise Violation(f"{call.args} is {call.outcome} and has {present} effects")
            for mark in marks:
                if mark in whos and whos[mark] not in call.whos:
                    raise Violation(f"{call.args} ran as {whos[mark]}, called as {call.whos}")
            if call.kind == "Mutation" and call.outcome == "done":
                times = order.setdefault(call.client, [])
                times.append((call.request_id, self.history.commits[marks[0]]))
            elif call.kind == "Mutation" and call.path != "app:refuse":
                raise Violation(f"{call.args} was {call.outcome}")
        for times in order.values():
            if [ts for _, ts in sorted(times)] != sorted(ts for _, ts in times):
                raise Violation(f"not in the order they were called: {sorted(times)}")

    def seen(self) -> Seen:
        ledger = self.ledger
        return Seen(
            ledger.transitions,
            ledger.results,
            ledger.answers,
            len(self.history.times),
            sum(tab.opened for tab in self.tabs),
            self.clock.events,
            self.clock.checksum,
        )


def run_model(plan: Plan) -> Seen:
    """Run a plan on the product's sessions over the model of a database.

    Raises   AssertionError, nearly always a Violation
    """
    world = World(plan)
    world.host = ModelHost(plan, world.clock, world.history)
    world.begin()
    until = world.end_ms + QUIET_MS
    while world.clock.step(until):
        pass
    world.check()
    return world.seen()


def find(run: Callable[[Plan], Seen], plan: Plan) -> BaseException | None:
    """How a plan fails, None if it does not."""
    try:
        run(plan)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # a crash of the product is a find like any other
        return error
    return None


def report(
    run: Callable[[Plan], Seen], plan: Plan, error: BaseException, *, runs: int = 300
) -> str:
    """The shortest plan that still fails in the same way, and how."""
    kind = type(error)

    def fails(shorter: Plan) -> bool:
        return type(find(run, shorter)) is kind

    short = shrink(plan, fails, runs=runs)
    last = find(run, short) or error
    return (
        f"{type(last).__name__}: {last}\nseed {plan.seed}; the shortest plan that fails:\n{short}"
    )
