"""Scheduled functions run when they are due: states, order, restarts, cancelling, forgetting."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store.errors import ConvexError, StoreFailed
from reactive_store.functions.loader import load_app
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.scheduling.jobs import INTERRUPTED, Jobs
from reactive_store.testing import FaultyPersistence, TestBackend
from tests.scheduling.conftest import NOTES, write_app

SECOND = timedelta(seconds=1)


async def later(t: TestBackend, path: str, seconds: float = 0, /, **args: Any) -> str:
    """Schedule a function; returns the id of its job."""
    delay = timedelta(seconds=seconds)
    return await t.run(lambda ctx: ctx.scheduler.run_after(delay, path, **args))


async def state(t: TestBackend, job: str) -> dict[str, Any]:
    return dict((await t.query("notes:job", id=job))["state"])


def gate(t: TestBackend) -> asyncio.Event:
    """What the app's waiting actions wait for."""
    functions = t.backend.runner.app.functions
    return functions["notes.js:wait"].handler.__globals__["gate"]


async def started(t: TestBackend, count: int = 1) -> None:
    """Wait until so many notes are there: the waiting actions have begun."""
    async with t.subscribe("notes:texts") as live:
        while len(await live.next()) < count:
            pass


async def test_a_function_runs_after_its_delay_and_not_before(app: Path):
    async with TestBackend(app=app) as t:
        job = await t.mutation("notes:add_later", text="late", seconds=5)
        await t.finish_scheduled_functions()
        await t.advance(timedelta(seconds=5) - timedelta(milliseconds=1))
        assert await t.query("notes:texts") == []
        assert await state(t, job) == {"kind": "pending"}
        await t.advance(timedelta(milliseconds=1))
        assert await t.query("notes:texts") == ["late"]


async def test_a_job_is_a_document_with_its_function_arguments_times_and_state(app: Path):
    """F129."""
    async with TestBackend(app=app) as t:
        start = t.now_ms
        job = await later(t, "notes:addAt", 2, text="a")
        pending = dict(await t.query("notes:job", id=job))
        created = pending.pop("_creationTime")
        assert abs(created - start) < 1
        assert pending == {
            "_id": job,
            "args": [{"text": "a"}],
            "name": "notes.js:addAt",
            "scheduledTime": start + 2000,
            "state": {"kind": "pending"},
        }
        await t.advance(timedelta(seconds=10))
        assert dict(await t.query("notes:job", id=job)) == {
            **pending,
            "_creationTime": created,
            "completedTime": start + 2000,
            "state": {"kind": "success"},
        }
        assert await t.query("notes:texts") == [f"a at {start + 2000:.0f}"]


async def test_due_functions_run_in_the_order_of_their_times_few_at_once(app: Path):
    limits = Limits(scheduled_parallelism=1)
    async with TestBackend(app=app, limits=limits) as t:
        for seconds in (30, 10, 20):
            await later(t, "notes:add", seconds, text=str(seconds))
        await t.advance(timedelta(seconds=1))
        # All are due when the loop looks: the clock moves while nothing may run.
        t.runtime.settle = None
        await t.advance(timedelta(seconds=60))
        await t.finish_scheduled_functions()
        assert await t.query("notes:texts") == ["10", "20", "30"]


async def test_thousands_due_at_once_all_run_within_bounded_parallelism(tmp_path: Path):
    source = """
import asyncio
from reactive_store import ActionCtx, MutationCtx, internal_action, internal_mutation, query

now = most = runs = 0

@internal_action
async def count(ctx: ActionCtx) -> None:
    global now, most, runs
    now, runs = now + 1, runs + 1
    most = max(most, now)
    await asyncio.sleep(0)
    now -= 1

@internal_mutation
async def nothing(ctx: MutationCtx) -> None: ...
"""
    app = write_app(tmp_path, notes=source)
    async with TestBackend(app=app, limits=Limits(scheduled_parallelism=7)) as t:

        async def many(ctx: Any) -> None:
            for _ in range(500):
                await ctx.scheduler.run_after(SECOND, "notes:count")
                await ctx.scheduler.run_after(SECOND, "notes:nothing")

        for _ in range(2):
            await t.run(many)
        await t.advance(SECOND)
        await t.finish_scheduled_functions(timeout=60)
        module = t.backend.runner.app.functions["notes.js:count"].handler.__globals__
        assert (module["runs"], module["now"]) == (1000, 0)
        assert 1 < module["most"] <= 7

        async def kinds(ctx: Any) -> list[str]:
            jobs = await ctx.db.system.query("_scheduled_functions").collect()
            return [job["state"]["kind"] for job in jobs]

        assert await t.run(kinds) == ["success"] * 2000


async def test_others_get_their_turn_while_much_is_overdue(
    app: Path, monkeypatch: pytest.MonkeyPatch
):
    began = 0
    run = Jobs._run

    async def counting(self: Jobs, job: Any) -> None:
        nonlocal began
        began += 1
        await run(self, job)

    monkeypatch.setattr(Jobs, "_run", counting)
    async with TestBackend(app=app) as t:

        async def many(ctx: Any) -> None:
            for _ in range(400):
                await ctx.scheduler.run_after(SECOND, "notes:add", text="x")

        await t.run(many)
        in_each_turn: list[int] = []

        async def watch() -> None:
            while True:
                before = began
                await asyncio.sleep(0)
                in_each_turn.append(began - before)

        watching = asyncio.create_task(watch())
        await t.advance(SECOND)
        await t.finish_scheduled_functions()
        watching.cancel()
        assert sum(in_each_turn) == 400
        assert max(in_each_turn) <= 8


async def test_functions_that_schedule_the_next_one_go_on_by_themselves(app: Path):
    async with TestBackend(app=app) as t:
        await later(t, "notes:chain", left=4)
        await t.advance(timedelta(seconds=3))
        assert await t.query("notes:texts") == ["4", "3", "2", "1"]
        await t.advance(timedelta(seconds=10))
        assert await t.query("notes:texts") == ["4", "3", "2", "1", "0"]


async def test_nothing_is_asked_of_the_store_while_nothing_is_due(
    app: Path, monkeypatch: pytest.MonkeyPatch
):
    looks = 0
    look = Jobs._due

    def counting(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return look(*args)

    monkeypatch.setattr(Jobs, "_due", counting)
    async with TestBackend(app=app) as t:
        await later(t, "notes:add", 3600, text="late")
        await t.finish_scheduled_functions()
        looks = 0
        await t.advance(timedelta(seconds=3599))
        await t.mutation("notes:add", text="other tables are none of its business")
        assert looks == 0
        await t.advance(SECOND)
        assert looks > 0
        assert (await t.query("notes:texts"))[1:] == ["late"]


async def test_a_mutation_that_fails_leaves_its_error_and_nothing_else(app: Path):
    """F130."""
    async with TestBackend(app=app) as t:
        ended: list[tuple[str, str]] = []
        t.backend.runner.on_end = lambda path, end: ended.append((path, type(end).__name__))
        job = await later(t, "notes:fail", text="broken")
        await t.finish_scheduled_functions()
        (document,) = await t.query("notes:jobs")
        assert document["_id"] == job
        assert document["state"]["kind"] == "failed"
        first, *frames, last = document["state"]["error"].split("\n")
        assert first == 'Uncaught ConvexError: {"why":"broken"}'
        assert any("functions/notes.py" in frame for frame in frames)
        assert last == ""
        assert document["completedTime"] == t.now_ms
        assert await t.query("notes:texts") == []
        assert ended[-3:][0] == ("notes.js:fail", "Failure")


async def test_an_action_that_fails_keeps_what_its_mutations_wrote_and_is_not_run_again(app: Path):
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:goWrong")
        await t.finish_scheduled_functions()
        await t.advance(timedelta(days=1))
        failed = await state(t, job)
        assert failed["kind"] == "failed"
        assert failed["error"].startswith("Uncaught ValueError: an action that fails\n")
        assert await t.query("notes:texts") == ["kept"]


async def test_wrong_arguments_and_queries_fail_when_they_run(app: Path):
    """F133, F193."""
    async with TestBackend(app=app) as t:
        wrong = await later(t, "notes:add", words=1)
        query = await later(t, "notes:texts")
        await t.finish_scheduled_functions()
        assert (await state(t, wrong))["error"].startswith("ArgumentValidationError: ")
        text = (await state(t, query))["error"]
        assert text.startswith("Unsupported function type")
        assert "Only Mutation and Action can be scheduled" in text


async def test_stricter_validators_meet_the_functions_that_wait(app: Path):
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:add", 5, text="old")
        changed = NOTES.replace(
            "async def add(ctx: MutationCtx, text: str)",
            "async def add(ctx: MutationCtx, text: int)",
        )
        await t.backend.reload(load_app(write_app(app, notes=changed)))
        await t.advance(timedelta(seconds=5))
        assert (await state(t, job))["error"].startswith("ArgumentValidationError: ")


async def test_a_function_that_is_gone_when_it_is_due_fails_with_the_text_of_missing_ones(
    app: Path,
):
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:add", 5, text="late")
        gone = await later(t, "notes:chain", 5, left=1)
        without = NOTES.replace("async def chain", "async def renamed")
        await t.backend.reload(load_app(write_app(app, notes=without)))
        told: list[str] = []
        t.backend.runner.on_end = lambda _path, end: told.append(type(end).__name__)
        await t.advance(timedelta(seconds=5))
        assert (await state(t, job))["kind"] == "success"
        assert "Failure" in told
        missing = 'Couldn\'t find "chain" in module "notes.js".\n'
        assert await state(t, gone) == {"kind": "failed", "error": missing}


async def test_a_mutation_sees_itself_in_progress_and_others_never_do(app: Path):
    """F138."""
    async with TestBackend(app=app) as t:
        seen: list[str] = []
        async with t.subscribe("notes:jobs") as live:
            await live.next()
            await later(t, "notes:lookAtOwnJob", 1)
            seen.append((await live.next())[0]["state"]["kind"])
            await t.advance(SECOND)
            seen.append((await live.next())[0]["state"]["kind"])
        assert seen == ["pending", "success"]
        assert await t.query("notes:texts") == ["inProgress"]


async def test_watchers_of_the_jobs_are_told_of_each_state(app: Path):
    """F137."""
    async with TestBackend(app=app) as t, t.subscribe("notes:jobs") as live:
        assert await live.next() == []
        job = await later(t, "notes:wait", 1, text="a")
        kinds = [[each["state"]["kind"] for each in await live.next()]]
        await t.advance(SECOND)
        kinds.append([each["state"]["kind"] for each in await live.next()])
        gate(t).set()
        await t.finish_scheduled_functions()
        kinds.append([each["state"]["kind"] for each in await live.next() if each["_id"] == job])
        assert kinds == [["pending"], ["inProgress"], ["success"]]


async def test_a_canceled_function_never_runs_and_a_finished_one_stays_as_it_is(app: Path):
    """F131."""
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:add", 5, text="never")
        done = await later(t, "notes:add", text="done")
        await t.finish_scheduled_functions()
        finished = dict(await t.query("notes:job", id=done))

        async def cancel(ctx: Any) -> None:
            for _ in range(2):
                await ctx.scheduler.cancel(job)
            await ctx.scheduler.cancel(done)

        await t.advance(SECOND)
        await t.run(cancel)
        document = await t.query("notes:job", id=job)
        assert document["state"] == {"kind": "canceled"}
        assert document["completedTime"] == t.now_ms
        assert dict(await t.query("notes:job", id=done)) == finished
        await t.advance(timedelta(seconds=60))
        assert await t.query("notes:texts") == ["done"]


async def test_canceling_in_a_mutation_that_fails_cancels_nothing(app: Path):
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:add", 5, text="still")

        async def cancel(ctx: Any) -> None:
            await ctx.scheduler.cancel(job)
            raise ConvexError("no")

        with pytest.raises(ConvexError):
            await t.run(cancel)
        await t.advance(timedelta(seconds=5))
        assert await t.query("notes:texts") == ["still"]


async def test_a_mutation_cannot_cancel_itself(app: Path):
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:cancelOneself")
        await t.finish_scheduled_functions()
        error = (await state(t, job))["error"]
        assert error.startswith("Uncaught Error: A mutation cannot cancel itself\n")


async def test_a_running_action_that_is_canceled_goes_on_and_schedules_nothing_more(app: Path):
    """F132."""
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:wait", text="it")
        await started(t)
        assert await state(t, job) == {"kind": "inProgress"}
        await t.run(lambda ctx: ctx.scheduler.cancel(job))
        assert await state(t, job) == {"kind": "canceled"}
        gate(t).set()
        await t.finish_scheduled_functions()
        assert await t.query("notes:texts") == ["it begins", "it goes on"]
        kinds = [each["state"]["kind"] for each in await t.query("notes:jobs")]
        assert kinds == ["canceled"] * 3
        assert all("completedTime" in each for each in await t.query("notes:jobs"))


async def test_canceling_races_with_running_and_exactly_one_wins(app: Path):
    for rounds in range(12):
        async with TestBackend(app=app) as t:
            job = await later(t, "notes:add", text="ran")
            for _ in range(rounds):
                await asyncio.sleep(0)
            await t.run(lambda ctx, job=job: ctx.scheduler.cancel(job))
            await t.finish_scheduled_functions()
            kind = (await state(t, job))["kind"]
            assert await t.query("notes:texts") == (["ran"] if kind == "success" else [])
            assert kind in ("success", "canceled")


async def test_a_restart_runs_what_was_due_meanwhile_and_ends_interrupted_actions(app: Path):
    """F134."""
    disk = MemoryPersistence()
    async with TestBackend(app=app, persistence=disk) as t:
        waiting = await later(t, "notes:wait", text="it")
        await started(t)
        pending = [await later(t, "notes:add", 10 * n, text=str(n)) for n in (3, 1, 2)]
        done = await later(t, "notes:add", text="once")
        await t.advance(SECOND)
        assert (await state(t, done))["kind"] == "success"
    t = TestBackend(app=app, persistence=disk, seed=1)
    await t.runtime.advance(timedelta(seconds=25))
    async with t:
        await t.finish_scheduled_functions()
        assert await state(t, waiting) == {"kind": "failed", "error": INTERRUPTED}
        assert INTERRUPTED == "Transient error while executing action"
        assert await t.query("notes:texts") == ["it begins", "once", "1", "2"]
        await t.advance(timedelta(seconds=60))
        assert await t.query("notes:texts") == ["it begins", "once", "1", "2", "3"]
        assert [(await state(t, job))["kind"] for job in pending] == ["success"] * 3


async def test_an_action_is_in_progress_on_disk_before_it_begins(app: Path):
    disk = FaultyPersistence(MemoryPersistence())
    async with TestBackend(app=app, persistence=disk) as t:
        job = await later(t, "notes:wait", 5, text="it")
        go_on = disk.hold(at_write=1)
        t.runtime.settle = None  # would wait for the disk
        await t.advance(timedelta(seconds=5))
        assert await t.query("notes:texts") == []
        assert await state(t, job) == {"kind": "pending"}
        go_on.set()
        await started(t)
        assert await state(t, job) == {"kind": "inProgress"}


async def test_a_disk_that_fails_ends_the_loop_and_a_restart_runs_what_was_lost(app: Path):
    inner = MemoryPersistence()
    disk = FaultyPersistence(inner)
    async with TestBackend(app=app, persistence=disk) as t:
        job = await later(t, "notes:add", 5, text="after the failure")
        disk.fail(at_write=1)
        await t.advance(timedelta(seconds=60))
        with pytest.raises(StoreFailed):
            await t.mutation("notes:add", text="no")
        assert t.backend.jobs.running == ()
    t = TestBackend(app=app, persistence=inner)
    await t.runtime.advance(timedelta(seconds=60))
    async with t:
        await t.finish_scheduled_functions()
        assert (await state(t, job))["kind"] == "success"
        assert await t.query("notes:texts") == ["after the failure"]


async def test_functions_that_conflict_all_succeed_in_the_end(tmp_path: Path):
    source = """
import asyncio
from reactive_store import MutationCtx, QueryCtx, internal_mutation, query

@internal_mutation
async def count(ctx: MutationCtx) -> None:
    note = await ctx.db.query("notes").first()
    await asyncio.sleep(0)
    if note is None:
        await ctx.db.insert("notes", {"text": "1"})
    else:
        await ctx.db.patch(note["_id"], {"text": str(int(note["text"]) + 1)})

@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]
"""
    async with TestBackend(app=write_app(tmp_path, notes=source)) as t:

        async def many(ctx: Any) -> None:
            for _ in range(200):
                await ctx.scheduler.run_after(timedelta(0), "notes:count")

        await t.run(many)
        await t.finish_scheduled_functions(timeout=30)
        assert await t.query("notes:texts") == ["200"]
        assert t.backend.statistics().database.conflicts > 0


async def test_running_functions_finish_on_the_old_code_and_later_ones_use_the_new(app: Path):
    async with TestBackend(app=app) as t:
        job = await later(t, "notes:wait", text="old")
        await started(t)
        old_gate = gate(t)
        changed = NOTES.replace('{"text": text})', '{"text": "new " + text})')
        await t.backend.reload(load_app(write_app(app, notes=changed)))
        old_gate.set()
        await t.finish_scheduled_functions()
        assert (await state(t, job))["kind"] == "success"
        assert (await t.query("notes:texts"))[:2] == ["old begins", "new old goes on"]


async def test_functions_run_with_nobody_logged_in_and_may_be_internal(app: Path):
    """F121, F135."""
    async with TestBackend(app=app) as t:
        ada = t.with_identity(subject="ada")
        await ada.action("notes:whoIsAsked")
        await t.finish_scheduled_functions()
        asked, scheduled = await t.query("notes:texts")
        assert "'subject': 'ada'" in asked
        assert scheduled == "None"


async def test_a_job_is_forgotten_a_week_after_it_ended_and_not_before_it_ran(app: Path):
    async with TestBackend(app=app) as t:
        await later(t, "notes:add", text="now")
        far = await later(t, "notes:add", 30 * 24 * 3600, text="far")
        await t.finish_scheduled_functions()
        await t.advance(timedelta(days=7) - SECOND)
        assert len(await t.query("notes:jobs")) == 2
        await t.advance(timedelta(seconds=2))
        assert [each["_id"] for each in await t.query("notes:jobs")] == [far]
        # One that has been forgotten can be canceled as any other that has ended.
        await t.run(lambda ctx: ctx.scheduler.cancel(far))
        await t.advance(timedelta(days=8))
        await t.run(lambda ctx: ctx.scheduler.cancel(far))
        assert await t.query("notes:jobs") == []


async def test_more_jobs_than_one_commit_forgets_are_forgotten(app: Path):
    async with TestBackend(app=app) as t:

        async def many(ctx: Any) -> None:
            when = datetime.fromtimestamp(t.now_ms / 1e3, UTC)
            for _ in range(800):
                await ctx.scheduler.cancel(await ctx.scheduler.run_at(when, "notes:add", text=""))

        await t.run(many)
        await t.run(many)
        await t.advance(timedelta(days=8))
        assert await t.query("notes:jobs") == []


async def test_what_finish_waits_for_is_named_when_it_does_not_end(app: Path):
    async with TestBackend(app=app) as t:
        await later(t, "notes:wait", text="it")
        with pytest.raises(TimeoutError, match=r"notes\.js:wait"):
            await t.finish_scheduled_functions(timeout=0.05)
        gate(t).set()
        await t.finish_scheduled_functions()


async def test_jobs_lie_on_disk_like_everything_else(app: Path, tmp_path: Path):
    """The same over SQLite: what another process scheduled is found and run."""
    file = tmp_path / "data.sqlite3"
    store = await SqlitePersistence.open(file, synchronous="NORMAL", limits=Limits())
    async with TestBackend(app=app, persistence=store) as t:
        await later(t, "notes:add", 5, text="late")
    copy = tmp_path / "copy.sqlite3"
    for part in tmp_path.glob("data.sqlite3*"):
        shutil.copy(part, str(part).replace(str(file), str(copy)))
    store = await SqlitePersistence.open(copy, synchronous="NORMAL", limits=Limits())
    async with TestBackend(app=app, persistence=store) as t:
        await t.advance(timedelta(seconds=5))
        assert await t.query("notes:texts") == ["late"]
