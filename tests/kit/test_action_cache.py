"""What an action answered, kept for some time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store import ActionCtx, MutationCtx, define_schema
from reactive_store.kit.action_cache import action_cache_tables
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import FunctionError, TestBackend

SCHEMA = define_schema(action_cache_tables())

FUNCTIONS = """
import asyncio
from datetime import timedelta
from typing import Any

from reactive_store import ActionCtx, MutationCtx, action, internal_action, mutation
from reactive_store.kit.action_cache import ActionCache

RUNS: list[Any] = []
GATES: list[asyncio.Event] = []


@internal_action
async def square(ctx: ActionCtx, n: Any, note: Any = None) -> Any:
    RUNS.append(n)
    for gate in GATES:
        await gate.wait()
    if n == "bad":
        raise ValueError("cannot be squared")
    return n * n


cache = ActionCache("squares", square, ttl=timedelta(hours=1))
cache_entry, cache_write = cache.functions
lasting = ActionCache("lasting", square)
lasting_entry, lasting_write = lasting.functions


@action
async def fetch(ctx: ActionCtx, args: Any, force: bool = False) -> Any:
    return await cache.fetch(ctx, args, force=force)


@action
async def fetch_lasting(ctx: ActionCtx, n: int) -> Any:
    return await lasting.fetch(ctx, {"n": n})


@mutation
async def remove(ctx: MutationCtx, n: int) -> None:
    await cache.remove(ctx, {"n": n})


@mutation
async def clear(ctx: MutationCtx) -> None:
    await cache.clear(ctx)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "math.py").write_text(FUNCTIONS, encoding="utf-8")
    return folder


def of_app(t: TestBackend, name: str) -> Any:
    found = t.backend.runner.app.find("math.js:square")
    assert found is not None
    return found.handler.__globals__[name]


async def count(ctx: MutationCtx) -> int:
    return len(await ctx.db.query("actionCache").collect())


async def test_an_answer_is_kept_until_its_time_is_up(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        runs = of_app(t, "RUNS")
        for _ in range(3):
            assert await t.action("math:fetch", args={"n": 3}) == 9
        assert runs == [3]
        await t.advance(timedelta(minutes=59))
        await t.action("math:fetch", args={"n": 3})
        assert runs == [3]
        await t.advance(timedelta(minutes=1))
        assert await t.run(count) == 0  # it removed itself
        await t.action("math:fetch", args={"n": 3})
        assert runs == [3, 3]


async def test_arguments_are_told_apart(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        runs = of_app(t, "RUNS")
        await t.action("math:fetch", args={"n": 2, "note": {"a": 1, "b": [True]}})
        await t.action("math:fetch", args={"note": {"b": [True], "a": 1.0}, "n": 2.0})
        assert len(runs) == 1
        for note in (None, {"a": 1, "b": [1]}, b"x", "x", []):
            await t.action("math:fetch", args={"n": 2, "note": note})
        assert len(runs) == 6
        await t.action("math:fetchLasting", n=2)
        assert len(runs) == 7


async def test_calls_at_once_share_one_run(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        gate = asyncio.Event()
        of_app(t, "GATES").append(gate)
        calls = [asyncio.create_task(t.action("math:fetch", args={"n": 5})) for _ in range(10)]
        other = asyncio.create_task(t.action("math:fetch", args={"n": 6}))
        await asyncio.sleep(0.05)
        gate.set()
        assert await asyncio.gather(*calls, other) == [25] * 10 + [36]
        assert sorted(of_app(t, "RUNS")) == [5, 6]


async def test_an_exception_is_shared_and_not_kept(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        gate = asyncio.Event()
        of_app(t, "GATES").append(gate)
        calls = [asyncio.create_task(t.action("math:fetch", args={"n": "bad"})) for _ in range(3)]
        await asyncio.sleep(0.05)
        gate.set()
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, FunctionError)
            assert "cannot be squared" in str(answer)
        assert of_app(t, "RUNS") == ["bad"]
        assert await t.run(count) == 0
        with pytest.raises(FunctionError, match="cannot be squared"):
            await t.action("math:fetch", args={"n": "bad"})
        assert of_app(t, "RUNS") == ["bad", "bad"]


async def test_answers_can_be_forced_removed_and_cleared(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        runs = of_app(t, "RUNS")
        await t.action("math:fetch", args={"n": 3})
        await t.advance(timedelta(minutes=30))
        await t.action("math:fetch", args={"n": 3}, force=True)
        assert runs == [3, 3]
        await t.advance(timedelta(minutes=45))  # the first answer's time is up, not the second's
        await t.action("math:fetch", args={"n": 3})
        assert runs == [3, 3]
        await t.mutation("math:remove", n=3)
        await t.action("math:fetch", args={"n": 3})
        assert runs == [3, 3, 3]
        await t.action("math:fetchLasting", n=3)
        await t.mutation("math:clear")
        await t.finish_scheduled_functions()
        assert await t.run(count) == 1  # of the other cache


async def test_clearing_many_goes_on_by_itself(app: Path):
    async def fill(ctx: MutationCtx) -> None:
        for n in range(1200):
            entry = {"name": "squares", "key": str(n), "value": n, "expiresAt": None}
            await ctx.db.insert("actionCache", entry)

    async with TestBackend(SCHEMA, app) as t:
        await t.run(fill)
        await t.mutation("math:clear")
        await t.finish_scheduled_functions()
        assert await t.run(count) == 0


async def test_answers_survive_a_restart(app: Path):
    disk = MemoryPersistence()
    async with TestBackend(SCHEMA, app, persistence=disk) as t:
        await t.action("math:fetchLasting", n=3)
    async with TestBackend(SCHEMA, app, persistence=disk, seed=1) as t:
        assert await t.action("math:fetchLasting", n=3) == 9
        assert of_app(t, "RUNS") == []


async def test_who_waits_is_told_when_the_one_that_runs_is_interrupted(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        of_app(t, "GATES").append(asyncio.Event())
        cache = of_app(t, "cache")
        entered: list[asyncio.Task[Any]] = []

        async def run(ctx: ActionCtx) -> Any:
            entered.append(asyncio.ensure_future(cache.fetch(ctx, {"n": 7})))
            await asyncio.sleep(0.02)
            waiting = asyncio.ensure_future(cache.fetch(ctx, {"n": 7}))
            await asyncio.sleep(0.02)
            entered[0].cancel()
            with pytest.raises(RuntimeError, match="interrupted"):
                await waiting

        await t.action(run)
        assert of_app(t, "RUNS") == [7]
