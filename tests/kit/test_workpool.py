"""Queues of actions and mutations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reactive_store import MutationCtx, define_schema, define_table, v
from reactive_store.kit.workpool import RetryPolicy, Workpool, workpool_tables
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import FunctionError, TestBackend

SCHEMA = define_schema(
    {
        **workpool_tables(),
        "log": define_table({"text": v.any()}),
    }
)

FUNCTIONS = """
import asyncio
from datetime import timedelta
from typing import Any

from reactive_store import (
    ActionCtx, ConvexError, MutationCtx, QueryCtx, action, internal_action, internal_mutation,
    mutation, query,
)
from reactive_store.kit.workpool import RetryPolicy, Workpool

pool = Workpool("mail", max_parallelism=2)
mail_turn, mail_act = pool.functions
single = Workpool("single", max_parallelism=1)
single_turn, single_act = single.functions


@internal_mutation
async def note(ctx: MutationCtx, text: Any) -> None:
    await ctx.db.insert("log", {"text": text})


@query
async def log(ctx: QueryCtx) -> list[Any]:
    return [each["text"] for each in await ctx.db.query("log").collect()]


@internal_mutation
async def done(ctx: MutationCtx, work_id: str, result: Any, context: Any) -> None:
    await ctx.db.insert("log", {"text": {"context": context, "result": result}})


@internal_action
async def send(ctx: ActionCtx, to: str) -> str:
    await ctx.run_mutation(note, text=f"begin {to}")
    {WAIT}
    await ctx.run_mutation(note, text=f"sent {to}")
    return f"mail to {to}"


@internal_action
async def fail_until(ctx: ActionCtx, attempt: int) -> int:
    await ctx.run_mutation(note, text=ctx.now)
    texts = await ctx.run_query(log)
    if len(texts) < attempt:
        raise ConvexError({"so_far": len(texts)})
    return len(texts)


@internal_mutation
async def add(ctx: MutationCtx, text: str) -> str:
    await ctx.db.insert("log", {"text": text})
    if text == "bad":
        raise ValueError("no bad texts")
    return text.upper()


@mutation
async def enqueue(
    ctx: MutationCtx, to: str, retry: bool = False, pool_name: str = "mail", delay: float = 0
) -> str:
    chosen = pool if pool_name == "mail" else single
    return await chosen.enqueue_action(
        ctx, send, {"to": to}, retry=retry, on_complete=done, context=to,
        delay=timedelta(seconds=delay),
    )


@mutation
async def enqueue_failing(ctx: MutationCtx, attempt: int, retry: bool = True) -> str:
    return await pool.enqueue_action(
        ctx, fail_until, {"attempt": attempt}, retry=retry, on_complete=done, context=None
    )


@mutation
async def enqueue_add(ctx: MutationCtx, text: str, fails: bool = False) -> str:
    id = await pool.enqueue_mutation(ctx, add, {"text": text}, on_complete=done, context=text)
    if fails:
        raise ValueError("after enqueueing")
    return id


@mutation
async def cancel(ctx: MutationCtx, id: str) -> bool:
    return await pool.cancel(ctx, id)


@query
async def status(ctx: QueryCtx, id: str) -> Any:
    return await pool.status(ctx, id)
"""

# How the action waits: until the test opens a gate.
GATE = "await GATES.setdefault(to, asyncio.Event()).wait()"


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., Path]:
    def write(wait: str = "pass") -> Path:
        folder = tmp_path / "functions"
        folder.mkdir(exist_ok=True)
        text = FUNCTIONS.replace("{WAIT}", wait).replace("pool = ", "GATES: Any = {}\npool = ", 1)
        (folder / "work.py").write_text(text, encoding="utf-8")
        return folder

    return write


def gates(t: TestBackend) -> dict[str, asyncio.Event]:
    """The gates of the loaded app, found in the globals of one of its functions."""
    found = t.backend.runner.app.find("work.js:send")
    assert found is not None
    return found.handler.__globals__["GATES"]


def gate(t: TestBackend, name: str) -> asyncio.Event:
    return gates(t).setdefault(name, asyncio.Event())


async def test_work_runs_and_its_end_is_told(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        mail = await t.mutation("work:enqueue", to="ann")
        good = await t.mutation("work:enqueueAdd", text="good")
        bad = await t.mutation("work:enqueueAdd", text="bad")
        waiting = {"state": "waiting", "attempts": 0, "result": None}
        assert await t.query("work:status", id=bad) in (
            waiting, {**waiting, "state": "running", "attempts": 1},
        )  # fmt: skip
        await t.finish_scheduled_functions()
        assert await t.query("work:status", id=mail) == {
            "state": "finished", "attempts": 1,
            "result": {"kind": "success", "returnValue": "mail to ann"},
        }  # fmt: skip
        assert (await t.query("work:status", id=good))["result"]["returnValue"] == "GOOD"
        result = (await t.query("work:status", id=bad))["result"]
        assert result == {"kind": "failed", "error": "ValueError: no bad texts"}
        log = await t.query("work:log")
        assert "bad" not in log  # undone
        ends = {each["context"]: each["result"]["kind"] for each in log if isinstance(each, dict)}
        assert ends == {"ann": "success", "good": "success", "bad": "failed"}


async def test_nothing_is_enqueued_by_a_mutation_that_fails(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        with pytest.raises(FunctionError, match="after enqueueing"):
            await t.mutation("work:enqueueAdd", text="x", fails=True)
        await t.finish_scheduled_functions()
        assert await t.query("work:log") == []


async def test_so_many_run_at_a_time_in_the_order_of_the_queue(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app(GATE)) as t:
        for name in "abcde":
            await t.mutation("work:enqueue", to=name)
        await t.advance(timedelta(seconds=1))
        assert await t.query("work:log") == ["begin a", "begin b"]
        gate(t, "b").set()
        await t.advance(timedelta(seconds=1))
        log = [each for each in await t.query("work:log") if isinstance(each, str)]
        assert log == ["begin a", "begin b", "sent b", "begin c"]
        for name in "acde":
            gate(t, name).set()
        await t.advance(timedelta(seconds=1))
        log = [each for each in await t.query("work:log") if isinstance(each, str)]
        assert sorted(log[4:]) == [
            "begin d", "begin e", "sent a", "sent c", "sent d", "sent e",
        ]  # fmt: skip


async def test_a_failing_action_is_tried_again_after_growing_pauses(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        work = await t.mutation("work:enqueueFailing", attempt=4)
        await t.advance(timedelta(minutes=1))
        status = await t.query("work:status", id=work)
        assert status["attempts"] == 4
        assert status["result"] == {"kind": "success", "returnValue": 4}
        times = (await t.query("work:log"))[:4]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        for pause, middle in zip(pauses, (250, 500, 1000), strict=True):
            assert middle * 0.5 <= pause <= middle * 1.5 + 2


async def test_attempts_come_to_an_end_and_without_retry_there_is_one(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        tried = await t.mutation("work:enqueueFailing", attempt=99)
        await t.advance(timedelta(minutes=1))
        status = await t.query("work:status", id=tried)
        assert status["attempts"] == 5
        assert status["result"]["kind"] == "failed"
        assert status["result"]["data"] == {"so_far": 5}
        once = await t.mutation("work:enqueueFailing", attempt=99, retry=False)
        await t.advance(timedelta(minutes=1))
        assert (await t.query("work:status", id=once))["attempts"] == 1
        ends = [each for each in await t.query("work:log") if isinstance(each, dict)]
        assert len(ends) == 2


async def test_canceled_work_ends_at_once_and_what_comes_later_is_ignored(
    app: Callable[..., Path],
):
    async with TestBackend(SCHEMA, app(GATE)) as t:
        running = await t.mutation("work:enqueue", to="a", retry=True)
        other = await t.mutation("work:enqueue", to="b")
        waiting = await t.mutation("work:enqueue", to="c")
        await t.advance(timedelta(seconds=1))
        assert await t.mutation("work:cancel", id=waiting) is True
        assert await t.mutation("work:cancel", id=running) is True
        assert await t.mutation("work:cancel", id=running) is False
        gate(t, "a").set()
        gate(t, "b").set()
        await t.advance(timedelta(minutes=2))
        for work, kind in ((running, "canceled"), (waiting, "canceled"), (other, "success")):
            assert (await t.query("work:status", id=work))["result"]["kind"] == kind
        log = await t.query("work:log")
        assert "begin c" not in log
        assert len([each for each in log if isinstance(each, dict)]) == 3


async def test_delayed_work_waits_and_lets_others_go_first(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        await t.mutation("work:enqueue", to="late", delay=60)
        await t.mutation("work:enqueue", to="now")
        await t.advance(timedelta(seconds=59))
        assert "sent now" in await t.query("work:log")
        assert "sent late" not in await t.query("work:log")
        await t.advance(timedelta(seconds=1))
        assert "sent late" in await t.query("work:log")


@pytest.mark.parametrize("is_retried", [True, False])
async def test_an_action_interrupted_by_a_restart(is_retried: bool, app: Callable[..., Path]):
    disk = MemoryPersistence()
    async with TestBackend(SCHEMA, app(GATE), persistence=disk) as t:
        interrupted = await t.mutation("work:enqueue", to="a", retry=is_retried)
        await t.advance(timedelta(seconds=1))
        assert await t.query("work:log") == ["begin a"]
    async with TestBackend(SCHEMA, app(), persistence=disk, seed=1) as t:
        await t.advance(timedelta(seconds=32))
        status = await t.query("work:status", id=interrupted)
        if is_retried:
            assert status["attempts"] == 2
            assert status["result"]["kind"] == "success"
        else:
            assert status["attempts"] == 1
            assert status["result"] == {
                "kind": "failed", "error": "Transient error while executing action",
            }  # fmt: skip
        log = [each for each in await t.query("work:log") if isinstance(each, str)]
        assert log == (["begin a", "begin a", "sent a"] if is_retried else ["begin a"])


async def test_what_waits_survives_a_restart(app: Callable[..., Path]):
    disk = MemoryPersistence()
    async with TestBackend(SCHEMA, app(GATE), persistence=disk) as t:
        for name in "abcd":
            await t.mutation("work:enqueue", to=name, retry=True)
        await t.advance(timedelta(seconds=1))
    async with TestBackend(SCHEMA, app(), persistence=disk, seed=1) as t:
        await t.advance(timedelta(minutes=1))
        log = [each for each in await t.query("work:log") if isinstance(each, str)]
        assert sorted(each for each in log if each.startswith("sent")) == [
            "sent a", "sent b", "sent c", "sent d",
        ]  # fmt: skip


async def test_many_enqueue_at_once_and_pools_do_not_mix(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        await asyncio.gather(
            *(
                t.mutation("work:enqueue", to=f"{pool} {n}", pool_name=pool)
                for n in range(25)
                for pool in ("mail", "single")
            )
        )
        await t.finish_scheduled_functions()
        sent = [
            each
            for each in await t.query("work:log")
            if isinstance(each, str) and each.startswith("sent")
        ]
        assert len(set(sent)) == len(sent) == 50


async def test_records_are_forgotten_and_then_nothing_is_scheduled(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        work = await t.mutation("work:enqueue", to="a")
        await t.advance(timedelta(hours=23))
        assert (await t.query("work:status", id=work))["state"] == "finished"
        await t.advance(timedelta(hours=2))
        assert await t.query("work:status", id=work) is None

        async def pending(ctx: MutationCtx) -> int:
            jobs = await ctx.db.system.query("_scheduled_functions").collect()
            return len([job for job in jobs if job["state"]["kind"] == "pending"])

        assert await t.run(pending) == 0


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least one item"):
        Workpool("x", max_parallelism=0)
    with pytest.raises(ValueError, match="retry policy"):
        RetryPolicy(max_attempts=0)


async def test_a_pool_without_paths_says_what_is_missing():
    async def work(ctx: MutationCtx) -> Any:
        return await Workpool("lost").enqueue_action(ctx, "work:send", {"to": "a"})

    async with TestBackend(SCHEMA) as t:
        with pytest.raises(Exception, match="no app has loaded it"):
            await t.run(work)


async def test_an_answer_that_cannot_be_kept_is_a_failure(app: Callable[..., Path]):
    huge = ('return f"mail to {to}"', 'return "x" * 2_000_000')
    folder = app()
    file = folder / "work.py"
    file.write_text(file.read_text(encoding="utf-8").replace(*huge), encoding="utf-8")
    async with TestBackend(SCHEMA, folder) as t:
        work = await t.mutation("work:enqueue", to="a")
        await t.finish_scheduled_functions()
        status = await t.query("work:status", id=work)
        assert (status["state"], status["result"]["kind"]) == ("finished", "failed")


async def test_a_callback_that_is_gone_does_not_stop_the_queue(app: Callable[..., Path]):
    folder = app()
    file = folder / "work.py"
    gone = ("on_complete=done", 'on_complete="work:gone"')
    file.write_text(file.read_text(encoding="utf-8").replace(*gone), encoding="utf-8")
    async with TestBackend(SCHEMA, folder) as t:
        works = [await t.mutation("work:enqueue", to=name) for name in "abc"]
        await t.finish_scheduled_functions()
        for work in works:
            assert (await t.query("work:status", id=work))["state"] == "finished"
