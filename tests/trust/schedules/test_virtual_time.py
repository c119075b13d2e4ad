"""Due times, cancels and restarts under a clock that is moved: what ran, how often, and when.

A history is a list of steps, drawn from a seed and run against a deployment in memory that is
closed and opened again; the same steps say what had to happen. A mutation runs once, at the first
instant at or after its due time at which a process was up; an action likewise begins at most once;
what was canceled in time never runs. A history that fails is made small before it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store.functions.app import App
from reactive_store.functions.loader import load_app
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import TestBackend
from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.effort import Effort
from tests.trust.fuzz.shrinking import shrink
from tests.trust.schedules.breakages import BREAKAGES

APP = Path(__file__).resolve().parent / "inner"
KINDS = ("write", "write", "write", "act", "act", "hang", "fail")
INTERRUPTED = "Transient error while executing action"

Step = tuple[str, Any]


@dataclass
class _Expected:
    """One scheduled function."""

    id: str
    kind: str
    due_ms: float
    canceled: bool = False  # seen as canceled by whoever asked for it
    was_running: bool = False  # when it was canceled


@dataclass
class World:
    """One history under way."""

    app: App
    disk: MemoryPersistence = field(default_factory=MemoryPersistence)
    jobs: list[_Expected] = field(default_factory=list)
    ups: list[float] = field(default_factory=list)  # when each process began, Unix ms
    downs: list[float] = field(default_factory=list)  # when each ended
    _t: TestBackend | None = None

    @property
    def t(self) -> TestBackend:
        assert self._t is not None
        return self._t

    async def open(self, at_ms: float | None) -> None:
        t = TestBackend(app=self.app, persistence=self.disk, seed=len(self.ups))
        if at_ms is not None:
            await t.runtime.advance(timedelta(milliseconds=at_ms - t.now_ms))
        self._t = t
        self.ups.append(t.now_ms)
        await t.__aenter__()

    async def close(self) -> float:
        now = self.t.now_ms
        await self.t.advance(timedelta(0))  # what is due at this very instant has begun
        await self.t.__aexit__(None, None, None)
        self._t = None
        self.downs.append(now)
        return now

    async def step(self, step: Step) -> None:
        name, value = step
        if name == "advance":
            await self.t.advance(timedelta(seconds=value))
        elif name == "restart":
            await self.open(await self.close() + value * 1000)
        elif name == "cancel":
            if self.jobs:
                await self._cancel(self.jobs[value % len(self.jobs)])
        elif name == "race":
            await self._schedule("write", 0)
            for _ in range(value):
                await asyncio.sleep(0)
            await self._cancel(self.jobs[-1])
        else:
            await self._schedule(name, value)

    async def _schedule(self, kind: str, seconds: float) -> None:
        number, delay = len(self.jobs), timedelta(seconds=seconds)
        path = f"work:{kind}"
        made = await self.t.run(lambda ctx: ctx.scheduler.run_after(delay, path, number=number))
        self.jobs.append(_Expected(made, kind, self.t.now_ms + seconds * 1000))

    async def _cancel(self, job: _Expected) -> None:
        async def cancel(ctx: Any) -> str:
            before = (await ctx.db.system.get(job.id))["state"]["kind"]
            await ctx.scheduler.cancel(job.id)
            return before

        before = await self.t.run(cancel)
        if before in ("pending", "inProgress") and not job.canceled:
            job.canceled, job.was_running = True, before == "inProgress"

    def first_up_ms(self, due_ms: float) -> float:
        """The first instant at or after one at which a process was up."""
        for up, down in zip(self.ups, [*self.downs, float("inf")], strict=True):
            if due_ms <= down:
                return max(up, due_ms)
        raise AssertionError("the last process never ends")

    async def problems(self) -> list[str]:
        """What is not as it had to be, after everything had its time."""
        await self.t.advance(timedelta(seconds=120))
        now = await self.close()
        await self.open(now)
        with contextlib.suppress(TimeoutError):  # told below: it is in progress
            await self.t.finish_scheduled_functions(timeout=0.5)

        async def survey(ctx: Any) -> tuple[list[Any], dict[str, Any]]:
            effects = await ctx.db.query("effects").collect()
            found = await ctx.db.system.query("_scheduled_functions").collect()
            return (
                [(int(row["number"]), float(row["at"])) for row in effects],
                {job["_id"]: dict(job["state"]) for job in found},
            )

        effects, states = await self.t.run(survey)
        written, begun = defaultdict(list), defaultdict(list)
        for number, at in effects:
            written[number].append(at)
        for number, at in _begun(self.app):
            begun[number].append(at)
        problems = []
        for number, job in enumerate(self.jobs):
            told = self._wrong(job, written[number], begun[number], states[job.id])
            if told is not None:
                problems.append(f"{job.kind} {number}: {told}")
        return problems

    def _wrong(
        self, job: _Expected, written: list[float], begun: list[float], state: dict[str, Any]
    ) -> str | None:
        at = self.first_up_ms(job.due_ms)
        runs = [] if job.canceled and not job.was_running else [at]
        final: dict[str, Any] = {"kind": "canceled"} if job.canceled else {"kind": "success"}
        effects = runs if job.kind in ("write", "act") else []
        if job.kind == "hang" and not job.canceled:
            final = {"error": INTERRUPTED, "kind": "failed"}
        if job.kind == "fail" and not job.canceled:
            final = {"kind": "failed"}
            state = {"kind": state["kind"]}
        if state != final:
            return f"is {state}, not {final}"
        if not _same(written, effects):
            return f"wrote at {written}, not {effects}"
        expected = runs if job.kind in ("act", "hang") else []
        if not _same(begun, expected):
            return f"began at {begun}, not {expected}"
        return None


def _same(found: list[float], expected: list[float]) -> bool:
    # Sums of milliseconds in floats, exact to a fraction of a microsecond.
    return len(found) == len(expected) and all(
        abs(a - b) < 0.01 for a, b in zip(found, expected, strict=True)
    )


def _begun(app: App) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = app.functions["work.js:act"].handler.__globals__["begun"]
    return found


def history(seed: int) -> list[Step]:
    """The steps of a seed."""
    rng = random.Random(seed)
    steps: list[Step] = []
    for _ in range(rng.randrange(5, 30)):
        dice = rng.random()
        if dice < 0.5:
            steps.append((rng.choice(KINDS), rng.choice([0, 0, 1, 2.5, 7, 30, 61])))
        elif dice < 0.7:
            steps.append(("advance", rng.choice([0, 0.5, 1, 2.5, 10, 45])))
        elif dice < 0.82:
            steps.append(("cancel", rng.randrange(30)))
        elif dice < 0.92:
            steps.append(("race", rng.randrange(12)))
        else:
            steps.append(("restart", rng.choice([0, 0, 3, 50])))
    return steps


async def play(app: App, steps: list[Step]) -> list[str]:
    """Run a history. Returns what went wrong."""
    _begun(app).clear()
    world = World(app)
    await world.open(None)
    try:
        for step in steps:
            await world.step(step)
        return await world.problems()
    finally:
        if world._t is not None:
            await world.close()


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    loaded = load_app(APP)
    yield loaded
    loaded.close()


async def test_scheduled_functions_run_once_and_on_time_over_restarts(
    app: App, effort: Effort, evidence: Say
) -> None:
    steps_taken = 0
    seeds = effort.seeds(60, 5000)
    for seed in seeds:
        steps = history(seed)
        steps_taken += len(steps)
        if problems := await play(app, steps):

            async def shows(fewer: list[Step]) -> bool:
                return bool(await play(app, fewer))

            smallest = await shrink(steps, shows)
            pytest.fail(f"seed {seed}: {smallest}\n  {await play(app, smallest)}\n  {problems}")
    evidence("exactly once", histories=len(seeds), steps=steps_taken)


_SEEN_HERE = [each for each in BREAKAGES if each.name not in ("end-apart", "action-first")]


@pytest.mark.parametrize("breakage", _SEEN_HERE, ids=str)
async def test_a_broken_schedule_is_caught(
    app: App, evidence: Say, monkeypatch: pytest.MonkeyPatch, breakage: Breakage
) -> None:
    breakage.apply(monkeypatch)
    tried = 0
    for seed in range(1, 200):
        tried += 1
        if await play(app, history(seed)):
            break
    else:
        pytest.fail(f"not found in {tried} histories: {breakage.text}")
    evidence(breakage.promise, breakage=breakage, found=1, histories=tried)
