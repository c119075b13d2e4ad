"""A short life of a deployment on a recorded disk, and what the outside was told meanwhile.

The real backend runs on the real SQLite store. A `Witness` stands between engine and store and
marks on the tape what was handed in and what was acknowledged; the workload marks which requests of
which session were asked and answered. One seed gives one list of steps.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reactive_store.auth.identity import Caller
from reactive_store.functions.app import App
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Success
from reactive_store.functions.runner import SessionRequest
from reactive_store.persistence.contract import Commit, Timestamp
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_format import Synchronous
from reactive_store.testing import TestBackend
from reactive_store.values.wire import dumps
from tests.e2e.server_process import APPS
from tests.trust.crash.recording_vfs import Tape

__all__ = [
    "Answer",
    "Ask",
    "Durable",
    "Global",
    "Said",
    "Step",
    "Submitted",
    "Trimming",
    "Witness",
    "app",
    "ask",
    "clear",
    "fast_directory",
    "live",
    "plan",
    "run",
    "store_of",
    "take",
]

DATA = "data.sqlite3"
_ADMIN = Caller(None, is_admin=True)
_apps: list[App] = []


def app() -> App:
    """The app of the end-to-end tests, loaded once."""
    if not _apps:
        _apps.append(load_app(APPS / "basic"))
    return _apps[0]


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A directory in memory where there is one: the recording decides what a disk would keep."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


# What is marked on the tape.


@dataclass(frozen=True, slots=True)
class Submitted:
    commits: tuple[Commit, ...]


@dataclass(frozen=True, slots=True)
class Durable:
    """`append` has returned."""

    ts: int


@dataclass(frozen=True, slots=True)
class Global:
    """`set_global` has returned."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Trimming:
    """Nothing before `ts` may be read from here on."""

    ts: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One mutation of a session; asking it twice is allowed."""

    session: str
    request: int
    path: str
    args: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return f"{self.path}{ {name: _brief(value) for name, value in self.args} }"


_BRIEF = 48  # a session with a number, which is a key, is shown whole


def _brief(value: Any) -> Any:
    """A value as a report shows it: of a long text its beginning and its length."""
    if isinstance(value, str) and len(value) > _BRIEF:
        return f"{value[:8]}… of {len(value)}"
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    ask: Ask
    value: bytes
    ts: int


Said = Submitted | Durable | Global | Trimming | Ask | Answer


class Witness:
    """A store that tells the tape what goes through it."""

    def __init__(self, inner: SqlitePersistence, tape: Tape) -> None:
        self.inner = inner
        self._tape = tape

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def append(self, commits: Sequence[Commit]) -> None:
        self._tape.mark(Submitted(tuple(commits)))
        await self.inner.append(commits)
        self._tape.mark(Durable(commits[-1].ts))

    async def set_global(self, name: str, value: bytes) -> None:
        await self.inner.set_global(name, value)
        self._tape.mark(Global(name, value))

    async def trim(self, before: Timestamp) -> int:
        self._tape.mark(Trimming(before))
        return await self.inner.trim(before)


# Steps.


@dataclass(frozen=True, slots=True)
class Step:
    """`kind`: ask (all of `asks` at once), move (to the tables), rest (until that is over),
    trim, close (cleanly, and open again) or drop (let go with the log full, and open again)."""

    kind: str
    asks: tuple[Ask, ...] = ()

    def __str__(self) -> str:
        asked = ", ".join(map(str, self.asks))
        return f"{self.kind} {asked}".strip()


_OWNERS = ("ada", "bob")
CENTS = 10_000


def plan(seed: int, *, rounds: int) -> list[Step]:
    """A list of steps: accounts opened, then per round a few mutations and something else."""
    rng = random.Random(seed)
    session = f"00000000-0000-4000-8000-{seed:012d}"
    count = 0

    def one(path: str, **args: Any) -> Ask:
        nonlocal count
        count += 1
        return Ask(session, count, path, tuple(args.items()))

    def mutation() -> Ask:
        kind = rng.randrange(4)
        if kind == 0:
            return one("counters:increment", name=rng.choice("xy"))
        if kind == 1:
            giver, taker = rng.choice(_OWNERS), rng.choice(_OWNERS)
            cents = rng.randrange(-500, 500)
            return one("accounts:transfer", giver=giver, taker=taker, cents=cents)
        if kind == 2:
            size = rng.choice((10, 10, 2000, 9000))
            body = rng.choice("abc") * size
            return one("messages:send", channel=rng.choice("pq"), author="a", body=body)
        key = f"{session}:{count + 1}"
        return one("ledger:record", key=key, writer=rng.choice("uv"), rank=rng.randrange(9))

    opened = tuple(one("accounts:openAccount", owner=owner, cents=CENTS) for owner in _OWNERS)
    steps = [Step("ask", opened)]
    endings = ["move", "rest", "trim", "drop", "move", "close"]
    for number in range(rounds):
        for _ in range(rng.randint(1, 3)):
            width = rng.choice((1, 1, 1, 4))
            steps.append(Step("ask", tuple(mutation() for _ in range(width))))
        steps.append(Step(endings[number % len(endings)]))
    return steps


@asynccontextmanager
async def live(
    directory: Path, tape: Tape | None, *, seed: int, synchronous: Synchronous = "FULL"
) -> AsyncIterator[TestBackend]:
    """A deployment over the store in a directory; witnessed when there is a tape."""
    store = await SqlitePersistence.open(directory / DATA, synchronous=synchronous)
    persistence: Any = store if tape is None else Witness(store, tape)
    async with TestBackend(app=app(), persistence=persistence, seed=seed) as backend:
        yield backend


async def ask(backend: TestBackend, what: Ask, tape: Tape | None = None) -> Answer:
    """Ask it and wait for the answer.

    Raises   StoreError when there is none; AssertionError when the app refused
    """
    if tape is not None:
        tape.mark(what)
    path = backend.path_of(what.path)
    request = SessionRequest(what.session, what.request)
    outcome = await backend.backend.runner.mutation(
        path, dumps(dict(what.args)), _ADMIN, session=request
    )
    assert isinstance(outcome, Success), f"{what}: {outcome}"
    assert outcome.ts is not None
    answer = Answer(what, outcome.value, outcome.ts)
    if tape is not None:
        tape.mark(answer)
    return answer


async def run(
    directory: Path, tape: Tape, steps: Sequence[Step], *, seed: int, synchronous: Synchronous
) -> None:
    """Live through the steps."""
    rest = list(steps)
    generation = 0
    while rest or not generation:
        generation += 1
        async with live(
            directory, tape, seed=seed * 1000 + generation, synchronous=synchronous
        ) as backend:
            while rest:
                step = rest.pop(0)
                if step.kind == "close":
                    break
                if step.kind == "drop":
                    store_of(backend)._health.fail(AssertionError("let go as it is"))
                    break
                await take(backend, tape, step)


async def take(backend: TestBackend, tape: Tape, step: Step) -> None:
    """One step that does not end this life.

    Raises   StoreFailed
    """
    store = store_of(backend)
    if step.kind == "ask":
        await asyncio.gather(*(ask(backend, each, tape) for each in step.asks))
    elif step.kind == "trim":
        # As the retention does it, with a horizon in the middle of what is there.
        backend.runtime._now_ns += 1_000_000
        database = backend.backend.database
        await database.forget_before(database.latest_ts)
        while await database.persistence.trim(database.latest_ts):
            pass
    else:
        materialiser = store._materialiser
        await materialiser.settle()
        if step.kind == "rest":
            while materialiser._round is not None:
                await materialiser._finish_round()


def store_of(backend: TestBackend) -> SqlitePersistence:
    """The store behind the witness."""
    persistence: Any = backend.backend.database.persistence
    return persistence.inner


def clear(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
