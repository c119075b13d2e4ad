"""`ctx.scheduler`: what is checked when a function is scheduled, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from reactive_store.errors import BadRequest, ConvexError
from reactive_store.functions.scheduler import decode_job_id
from reactive_store.limits import Limits
from reactive_store.testing import FunctionError, TestBackend
from tests.scheduling.conftest import write_app

NOW = timedelta(0)


@pytest.fixture
async def t(tmp_path: Path) -> AsyncIterator[TestBackend]:
    async with TestBackend(app=write_app(tmp_path)) as backend:
        yield backend


async def jobs(t: TestBackend) -> list[dict[str, Any]]:
    return [dict(job) for job in await t.query("notes:jobs")]


async def test_what_a_failing_mutation_scheduled_is_as_if_it_had_never_been(t: TestBackend):
    """F124."""
    with pytest.raises(ConvexError):
        await t.mutation("notes:fail", text="x")
    await t.finish_scheduled_functions()
    assert await jobs(t) == []
    assert await t.query("notes:texts") == []


async def test_a_function_due_at_once_waits_for_the_commit(t: TestBackend):
    """F125."""
    held = asyncio.Event()

    async def schedule(ctx: Any) -> None:
        await ctx.scheduler.run_after(NOW, "notes:add", text="after")
        for _ in range(50):
            await asyncio.sleep(0)
        assert await ctx.db.query("notes").collect() == []
        held.set()

    await t.run(schedule)
    assert held.is_set()
    await t.finish_scheduled_functions()
    assert await t.query("notes:texts") == ["after"]


async def test_what_a_caught_nested_call_scheduled_is_undone_and_the_rest_stays(t: TestBackend):
    async def schedule(ctx: Any) -> None:
        await ctx.scheduler.run_after(NOW, "notes:add", text="before")
        with pytest.raises(ConvexError):
            await ctx.run_mutation("notes:fail", text="nested")
        await ctx.scheduler.run_after(NOW, "notes:add", text="afterwards")

    await t.run(schedule)
    await t.finish_scheduled_functions()
    assert await t.query("notes:texts") == ["before", "afterwards"]


BAD_TIMES: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda s: s.run_after(timedelta(seconds=-1), "notes:add"), BadRequest, "must be non-negative"),
    (lambda s: s.run_after(5, "notes:add"), TypeError, r"timedelta\(seconds=5\)"),
    (lambda s: s.run_after(float("nan"), "notes:add"), TypeError, "not a bare number"),
    (lambda s: s.run_after(float("inf"), "notes:add"), TypeError, "not a bare number"),
    (lambda s: s.run_after(None, "notes:add"), TypeError, "takes a timedelta such as"),
    (lambda s: s.run_at(1_700_000_000, "notes:add"), TypeError, "datetime, not a bare number"),
    (lambda s: s.run_at("noon", "notes:add"), TypeError, "datetime with a time zone"),
    (lambda s: s.run_at(datetime(2025, 1, 1), "notes:add"), ValueError, "has none: write"),  # noqa: DTZ001
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD_TIMES, ids=[each[2] for each in BAD_TIMES])
async def test_times_that_are_no_times_are_refused(
    t: TestBackend, call: Callable[[Any], Any], kind: type[Exception], text: str
):
    async def schedule(ctx: Any) -> None:
        with pytest.raises(kind, match=text):
            await call(ctx.scheduler)

    await t.run(schedule)
    assert await jobs(t) == []


async def test_a_time_in_the_past_is_due_at_once_and_kept_as_given(t: TestBackend):
    """F126."""
    with pytest.raises(BadRequest, match="must be non-negative"):
        await t.run(lambda ctx: ctx.scheduler.run_after(timedelta(seconds=-1), "notes:add"))
    for number in (float("nan"), float("inf")):
        with pytest.raises(TypeError):
            await t.run(lambda ctx, n=number: ctx.scheduler.run_after(n, "notes:add"))
    when = datetime(2024, 6, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    await t.run(lambda ctx: ctx.scheduler.run_at(when, "notes:add", text="past"))
    await t.finish_scheduled_functions()
    (job,) = await jobs(t)
    assert job["scheduledTime"] == datetime(2024, 6, 1, 12, 30, tzinfo=UTC).timestamp() * 1000
    assert job["completedTime"] == t.now_ms
    assert await t.query("notes:texts") == ["past"]


async def test_five_years_are_the_most_either_way(t: TestBackend):
    """F127."""
    most = timedelta(days=5 * 366)
    start = datetime.fromtimestamp(t.now_ms / 1000, UTC)
    await t.run(lambda ctx: ctx.scheduler.run_after(most, "notes:add", text="x"))
    await t.run(lambda ctx: ctx.scheduler.run_at(start - most, "notes:add", text="x"))
    over = most + timedelta(seconds=1)
    with pytest.raises(BadRequest, match=r"is more than 5 years in the future$") as refused:
        await t.run(lambda ctx: ctx.scheduler.run_after(over, "notes:add"))
    assert refused.value.code == "InvalidScheduledFunctionDelay"
    with pytest.raises(BadRequest, match=r"is more than 5 years in the past$"):
        await t.run(lambda ctx: ctx.scheduler.run_at(start - over, "notes:add"))
    with pytest.raises(BadRequest, match=r"is more than 5 years in the future$"):
        await t.run(lambda ctx: ctx.scheduler.run_after(timedelta.max, "notes:add"))


async def test_what_is_scheduled_must_exist_but_its_arguments_are_looked_at_later(t: TestBackend):
    """F128."""
    with pytest.raises(BadRequest) as refused:
        await t.run(lambda ctx: ctx.scheduler.run_after(NOW, "nowhere:add"))
    expected = "Attempted to schedule function at nonexistent path: nowhere.js"
    assert refused.value.message == expected
    for name in ("gone", "notExposed"):
        with pytest.raises(BadRequest) as refused:
            await t.run(lambda ctx, n=name: ctx.scheduler.run_after(NOW, f"notes:{n}"))
        assert refused.value.message == (
            f"Attempted to schedule function, but no exported function {name} found in the file: "
            "notes.js. Did you forget to export it?"
        )
    await t.run(lambda ctx: ctx.scheduler.run_after(NOW, "notes:add", wrong=1))
    await t.finish_scheduled_functions()
    (job,) = await jobs(t)
    assert job["state"]["kind"] == "failed"
    assert job["args"] == [{"wrong": 1}]


async def test_arguments_that_are_no_values_are_refused_at_once(t: TestBackend):
    with pytest.raises(BadRequest, match="is not a supported Convex type"):
        await t.run(lambda ctx: ctx.scheduler.run_after(NOW, "notes:add", text=object()))


async def test_every_kind_of_reference_and_both_spellings_of_arguments_work(tmp_path: Path):
    source = """
from datetime import timedelta
from reactive_store import MutationCtx, api, internal, internal_mutation, mutation

@internal_mutation
async def note_it(ctx: MutationCtx, the_text: str) -> None: ...

@mutation
async def all(ctx: MutationCtx) -> list[str]:
    references = [note_it, internal.m.note_it, api.m.noteIt, "m:noteIt", "m.js:noteIt"]
    now = timedelta(0)
    ids = [await ctx.scheduler.run_after(now, each, the_text="x") for each in references]
    return [*ids, await ctx.scheduler.run_after(now, note_it, theText="x")]
"""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "m.py").write_text(source)
    async with TestBackend(app=write_app(tmp_path)) as t:
        ids = await t.mutation("m:all")
        found = await jobs(t)
        assert [job["_id"] for job in found] == ids
        assert [(job["name"], job["args"]) for job in found] == [
            ("m.js:noteIt", [{"theText": "x"}])
        ] * 6


async def test_a_mutation_may_schedule_so_many_functions(t: TestBackend):
    """F136."""

    async def schedule(ctx: Any, count: int) -> None:
        for _ in range(count):
            await ctx.scheduler.run_after(timedelta(days=1), "notes:add", text="x")

    await t.run(lambda ctx: schedule(ctx, 1000))
    with pytest.raises(BadRequest) as refused:
        await t.run(lambda ctx: schedule(ctx, 1001))
    assert refused.value.message == "Too many functions scheduled by this mutation (limit: 1000)"
    assert refused.value.code == "TooManyFunctionsScheduled"
    assert len(await jobs(t)) == 1000


async def test_a_mutation_may_schedule_arguments_of_so_many_bytes(t: TestBackend):
    async def schedule(ctx: Any) -> None:
        for _ in range(5):
            await ctx.scheduler.run_after(timedelta(days=1), "notes:add", text="x" * 4_000_000)

    with pytest.raises(BadRequest) as refused:
        await t.run(schedule)
    assert refused.value.message == (
        "Too large total size of the arguments of scheduled functions from this mutation "
        "(limit: 16777216 bytes)"
    )
    assert refused.value.code == "ScheduledFunctionsArgumentsTooLarge"


async def test_what_an_undone_part_scheduled_does_not_count(tmp_path: Path):
    app = write_app(tmp_path)
    async with TestBackend(app=app, limits=Limits(scheduled_functions=2)) as t:

        async def schedule(ctx: Any) -> None:
            for _ in range(5):
                with pytest.raises(ConvexError):
                    await ctx.run_mutation("notes:fail", text="x")
            for _ in range(2):
                await ctx.scheduler.run_after(NOW, "notes:add", text="x")

        await t.run(schedule)
        assert len(await jobs(t)) == 2


async def test_large_arguments_are_warned_of_and_deep_ones_are_kept(tmp_path: Path):
    source = """
from datetime import timedelta
from typing import Any
from reactive_store import MutationCtx, mutation

@mutation
async def take(ctx: MutationCtx, value: Any) -> None: ...

@mutation
async def give(ctx: MutationCtx, value: Any) -> None:
    await ctx.scheduler.run_after(timedelta(0), "m:take", value=value)
"""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "m.py").write_text(source)
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    app = write_app(tmp_path)
    async with TestBackend(app=app, limits=Limits(scheduled_call_bytes=1000)) as t:
        await t.mutation("m:give", value=deep)
        assert t.log_lines == []
        await t.mutation("m:give", value="x" * 1001)
        (line,) = t.log_lines
        assert line.startswith("[WARN] The arguments of the scheduled function m.js:take are large")
        await t.finish_scheduled_functions()
        assert [job["state"]["kind"] for job in await jobs(t)] == ["success"] * 2


async def test_an_action_schedules_at_once_and_keeps_it_when_it_fails(tmp_path: Path):
    source = """
from datetime import timedelta
from reactive_store import ActionCtx, action

@action
async def schedule(ctx: ActionCtx) -> str:
    id = await ctx.scheduler.run_after(timedelta(seconds=1), "notes:add", text="from an action")
    (job,) = await ctx.run_query("notes:jobs")
    assert job["_id"] == id and job["state"] == {"kind": "pending"}
    other = await ctx.scheduler.run_after(timedelta(seconds=1), "notes:add", text="never")
    await ctx.scheduler.cancel(other)
    raise ValueError("afterwards")
"""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "a.py").write_text(source)
    async with TestBackend(app=write_app(tmp_path)) as t:
        with pytest.raises(FunctionError, match="afterwards"):
            await t.action("a:schedule")
        assert [job["state"]["kind"] for job in await jobs(t)] == ["pending", "canceled"]
        await t.advance(timedelta(seconds=1))
        assert await t.query("notes:texts") == ["from an action"]


async def test_the_delay_counts_from_the_time_the_mutation_sees(t: TestBackend):
    async def schedule(ctx: Any) -> float:
        await ctx.scheduler.run_after(timedelta(milliseconds=1.5), "notes:add", text="x")
        return ctx.now

    now = await t.run(schedule)
    (job,) = await jobs(t)
    assert job["scheduledTime"] == now + 1.5


WRONG_IDS = ["", "x", "kh7dfnc4x5g0f0jfd3aq8wpgg17hqytm"]


@pytest.mark.parametrize("wrong", WRONG_IDS)
async def test_what_is_no_id_of_a_scheduled_function_is_refused(t: TestBackend, wrong: str):
    with pytest.raises(BadRequest) as refused:
        await t.run(lambda ctx: ctx.scheduler.cancel(wrong))
    assert refused.value.message == (
        "Invalid scheduled function ID. The ID must be an ID on the '_scheduled_functions' table."
    )


async def test_the_id_of_a_note_is_no_id_of_a_scheduled_function(t: TestBackend):
    note = await t.run(lambda ctx: ctx.db.insert("notes", {"text": "x"}))
    with pytest.raises(BadRequest, match="Invalid scheduled function ID"):
        decode_job_id(note)
    with pytest.raises(TypeError, match="takes the id that run_after"):
        await t.run(lambda ctx: ctx.scheduler.cancel(None))


async def test_a_query_has_no_scheduler(t: TestBackend, tmp_path: Path):
    source = """
from datetime import timedelta
from reactive_store import QueryCtx, query

@query
async def schedule(ctx: QueryCtx) -> None:
    await ctx.scheduler.run_after(timedelta(0), "notes:add", text="x")
"""
    (tmp_path / "other" / "functions").mkdir(parents=True)
    (tmp_path / "other" / "functions" / "q.py").write_text(source)
    async with TestBackend(app=write_app(tmp_path / "other")) as other:
        with pytest.raises(FunctionError, match="A query cannot schedule functions"):
            await other.query("q:schedule")


async def test_a_forgotten_await_is_an_error_and_schedules_nothing(t: TestBackend):
    async def schedule(ctx: Any) -> None:
        ctx.scheduler.run_after(NOW, "notes:add", text="x")

    with pytest.raises(FunctionError, match=r"`run_after\(…\)` was called without `await`"):
        await t.run(schedule)
    assert await jobs(t) == []


async def test_nothing_can_be_scheduled_after_the_function_has_returned(t: TestBackend):
    kept: list[Any] = []

    async def keep(ctx: Any) -> None:
        kept.append(ctx.scheduler)

    await t.run(keep)
    with pytest.raises(BadRequest, match=r"was used after the function had returned"):
        await kept[0].run_after(NOW, "notes:add", text="x")


async def test_only_the_usual_indexes_of_the_jobs_are_open_to_functions(t: TestBackend):
    await t.mutation("notes:addLater", text="x", seconds=5)

    async def usual(ctx: Any) -> int:
        system = ctx.db.system
        by_time = system.query("_scheduled_functions").with_index("by_creation_time")
        by_id = system.query("_scheduled_functions").with_index("by_id")
        return len(await by_time.collect()) + len(await by_id.collect())

    assert await t.run(usual) == 2
    for name in ("by_state", "by_completed_time"):
        with pytest.raises(BadRequest, match=rf"Index _scheduled_functions\.{name} not found"):
            await t.run(
                lambda ctx, n=name: (
                    ctx.db.system.query("_scheduled_functions").with_index(n).collect()
                )
            )


async def test_a_failing_job_is_told_to_the_log_of_functions_not_of_the_store(
    t: TestBackend, caplog: pytest.LogCaptureFixture
):
    ended: list[str] = []
    t.backend.runner.on_end = lambda path, _outcome: ended.append(path)
    with caplog.at_level(logging.INFO, "reactive_store"):
        await t.run(lambda ctx: ctx.scheduler.run_after(NOW, "notes:fail", text="x"))
        await t.finish_scheduled_functions()
    assert "notes.js:fail" in ended
    assert caplog.records == []
