"""The real server in virtual time: workers, live queries, runner, engine, commits in memory.

What is not the product's: the clock, a disk that takes its time and loses what it was writing when
the power goes, and the provider that vouches for users.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.errors import Overloaded, StoreFailed, Unauthenticated
from reactive_store.functions import live_queries
from reactive_store.functions.app import App
from reactive_store.functions.live_queries import Watch
from reactive_store.functions.loader import load_app
from reactive_store.persistence.contract import Commit
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.sync.messages import ClientVersion
from reactive_store.sync.worker import Pump, Worker
from reactive_store.testing.faulty_persistence import FaultyPersistence
from reactive_store.values.wire import loads
from tests.trust.protocol.model_host import LIMITS, caller_of
from tests.trust.protocol.network import Clock, Link
from tests.trust.protocol.pauses import PAUSE
from tests.trust.protocol.plans import Plan
from tests.trust.protocol.questions import Effect, History, State
from tests.trust.protocol.simulation import QUIET_MS, Seen, World

__all__ = ["BackendHost", "run_backend"]


class SimulatedRuntime:
    """The product's door to time and chance, opened on the run's."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock = clock
        self._chance = chance
        self._sleepers: set[asyncio.Future[None]] = set()

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def monotonic_s(self) -> float:
        return self._clock.now_s()

    async def sleep(self, seconds: float) -> None:
        nap = asyncio.get_running_loop().create_future()
        self._sleepers.add(nap)
        self._clock.after(seconds * 1000, lambda: None if nap.done() else nap.set_result(None))
        try:
            await nap
        finally:
            self._sleepers.discard(nap)

    def wake_all(self) -> None:
        """Nobody sleeps any longer: the power is gone."""
        for nap in self._sleepers:
            if not nap.done():
                nap.set_result(None)

    def random_bytes(self, count: int) -> bytes:
        return self._chance.randbytes(count)

    def random_generator(self) -> random.Random:
        return random.Random(self.random_bytes(16))

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)


class SlowDisk(FaultyPersistence):
    """Commits in memory that outlive the process; `kill` loses what is not written yet."""

    def __init__(
        self,
        inner: MemoryPersistence,
        chance: random.Random,
        runtime: SimulatedRuntime,
        on_durable: Callable[[Commit], None],
    ) -> None:
        super().__init__(inner)
        self._chance = chance
        self._runtime = runtime
        self._on_durable = on_durable
        self.is_slow = False
        self._is_dead = False

    async def append(self, commits: Sequence[Commit]) -> None:
        await self._pause()
        await super().append(commits)
        for commit in commits:
            self._on_durable(commit)
        await self._pause()

    async def _pause(self) -> None:
        if self.is_slow:
            await self._runtime.sleep(self._chance.choice((0.0, 0.0002, 0.001, 0.02)))
        if self._is_dead:
            raise StoreFailed("the power is gone")

    def kill(self) -> None:
        self._is_dead = True

    async def close(self) -> None:
        """The commits are kept: another process will want them."""


class NumberedWatch(Watch):
    """A watch whose place in a set hangs on its number and not on its address in memory.

    The order in which watchers of one answer are told is nobody's promise; a run must repeat it.
    """

    __slots__ = ("_number",)

    def __init__(self, *what: Any) -> None:
        self._number = next(_NUMBERS[-1])
        super().__init__(*what)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


_NUMBERS: list[Iterator[int]] = []


class Users:
    """The provider, as far as a worker asks."""

    def __init__(self, host: BackendHost) -> None:
        self._host = host

    async def authenticate(self, token: str) -> Caller:
        host = self._host
        await host.runtime.sleep(host.chance.choice((0.0, 0.001, 0.05)))
        kind, _, name = token.partition("-")
        if kind == "bad":
            raise Unauthenticated("nobody knows you")
        if kind == "down" and host.has_faults:
            raise Overloaded("the provider does not answer")
        return caller_of(name)


class _Peer:
    """A worker, and the host's knowledge of it."""

    def __init__(self, host: BackendHost, worker: Worker) -> None:
        self._host = host
        self.worker = worker
        self.receive = worker.receive
        self.on_pong = worker.on_pong
        self.on_writable = worker.on_writable
        self.on_tick = worker.on_tick

    def on_disconnect(self) -> None:
        self.worker.on_disconnect()
        self._host.peers.pop(self, None)


class BackendHost:
    """One deployment over its restarts."""

    def __init__(self, plan: Plan, clock: Clock, history: History) -> None:
        self.clock = clock
        self.history = history
        self.plan = plan
        self.chance = plan.chance("backend")
        self.runtime = SimulatedRuntime(clock, plan.chance("runtime"))
        self.is_up = False
        self.has_faults = True
        self.peers: dict[_Peer, None] = {}
        self._memory = MemoryPersistence(LIMITS)
        self._newest = State()
        self._backend: Backend | None = None
        self._disk: SlowDisk | None = None
        self._pump: Pump | None = None
        self._reviving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Bring a process up on what is durable."""
        disk = SlowDisk(self._memory, self.chance, self.runtime, self._on_durable)
        self._backend = await Backend.open(
            Settings(redact=False, limits=LIMITS),
            app=_app(),
            runtime=self.runtime,
            persistence=disk,
        )
        self._pump = Pump(self.runtime)
        disk.is_slow = True
        self._disk = disk

    def start(self) -> None:
        if self._reviving is not None and not self._reviving.done():
            self.clock.after(1, self.start)
            return
        if self._reviving is not None:
            self._reviving.result()
        self.is_up = True

    def crash(self) -> None:
        """The process dies: what it was writing may be lost, what it knew is."""
        self.is_up = False
        assert self._disk is not None
        self._disk.kill()
        self._reviving = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        await self.close()
        await self.open()

    async def close(self) -> None:
        """End the process without leaving tasks behind."""
        assert self._backend is not None
        assert self._pump is not None
        assert self._disk is not None
        self._disk.kill()
        self.runtime.wake_all()
        await self._pump.close()
        await self._backend.close()

    def connect(self, link: Link, number: int, *, takes_chunks: bool) -> None:
        backend = self._backend
        assert backend is not None
        client = ClientVersion("npm", (1, 48, 0)) if takes_chunks else ClientVersion("python")
        worker = Worker(
            backend.runner,
            backend.live_queries,
            backend.database,
            Users(self),  # type: ignore[arg-type]
            self.runtime,
            LIMITS,
            link,
            client,
            redact=False,
            pump=self._pump,
        )
        link.peer = peer = _Peer(self, worker)
        self.peers[peer] = None

    def check_quiet(self) -> None:
        """Nothing waits in any session, and nothing is watched that nobody has."""
        watched = 0
        for peer in self.peers:
            held = peer.worker.statistics()
            busy = (held.pending_mutations, held.running_actions, held.waiting_messages)
            assert busy == (0, 0, 0), held
            watched += held.queries
        assert self._backend is not None
        assert len(self._backend.live_queries) <= watched

    async def pause(self) -> None:
        """What an action waits for."""
        await self.runtime.sleep(self.chance.choice((0.0, 0.005, 0.3)))

    def _on_durable(self, commit: Commit) -> None:
        effects: tuple[Effect, ...] = ()
        if self._backend is not None:
            table = self._backend.database.catalog.tables["effects"].number
            effects = tuple(
                _effect(write.value)
                for write in commit.documents
                if write.table == table and write.value is not None
            )
        self._newest = self._newest.with_effects(effects)
        self.history.append(commit.ts, self._newest, effects)


def _effect(encoded: bytes) -> Effect:
    fields = loads(encoded)
    assert isinstance(fields, dict)
    return Effect(fields["token"], fields["name"], int(fields["by"]), fields["who"])


@cache
def _app() -> App:
    return load_app(Path(__file__).resolve().parent / "app")


async def _settle() -> None:
    """Let everything run that can without time passing."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    while ready:
        await asyncio.sleep(0)


async def _run(plan: Plan) -> Seen:
    world = World(plan)
    clock = world.clock
    host = BackendHost(plan, clock, world.history)
    world.host = host
    await host.open()
    host.is_up = True
    PAUSE.append(host.pause)
    _NUMBERS.append(count())
    patch = pytest.MonkeyPatch()
    patch.setattr(live_queries, "Watch", NumberedWatch)
    try:
        world.begin()
        until = world.end_ms + QUIET_MS
        while clock.step(until):
            await _settle()
            if clock.broken is not None:
                raise clock.broken
        world.check()
    finally:
        patch.undo()
        PAUSE.pop()
        _NUMBERS.pop()
        await host.close()
    return world.seen()


def run_backend(plan: Plan) -> Seen:
    """Run a plan on the real backend, in a loop of its own.

    Raises   AssertionError, nearly always a Violation
    """
    return asyncio.run(_run(plan))
