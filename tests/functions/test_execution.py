"""Calls inside one transaction: nesting, rolling back, chance, limits, and what is left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.limits import Limits
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.functions.running import FailedCall, Running

APP = """
left = []

@query
async def total(ctx, table: str) -> int:
    return len(await ctx.db.query(table).collect())

@mutation
async def add(ctx, table: str, fail: bool = False, wait: bool = False):
    await ctx.db.insert(table, {})
    if wait:
        await asyncio.sleep(0)
    if fail:
        raise ConvexError({"table": table})

@mutation
async def caught(ctx) -> list:
    await ctx.db.insert("parent", {})
    try:
        await ctx.run_mutation("m:add", table="child", fail=True)
    except ConvexError as error:
        data = error.data
    await ctx.db.insert("parent", {})
    return [data, len(await ctx.db.query("child").collect())]

@mutation
async def uncaught(ctx):
    await ctx.db.insert("parent", {})
    await ctx.run_mutation("m:add", table="child", fail=True)

@mutation
async def sees(ctx) -> int:
    await ctx.db.insert("parent", {})
    return await ctx.run_query("m:total", table="parent")

@mutation
async def siblings(ctx) -> list:
    results = await asyncio.gather(
        ctx.run_mutation("m:add", table="kept", wait=True),
        ctx.run_mutation("m:add", table="lost", wait=True, fail=True),
        ctx.run_mutation("m:add", table="kept", wait=True),
        return_exceptions=True,
    )
    return [type(result).__name__ for result in results]

@mutation
async def down(ctx, depth: int = 1) -> int:
    return await ctx.run_mutation("m:down", depth=depth + 1)

@query
async def levels(ctx, depth: int = 1) -> int:
    return depth if depth == 8 else await ctx.run_query("m:levels", depth=depth + 1)

@query
async def dice(ctx) -> list:
    return [ctx.random.random(), ctx.random.random(), await ctx.run_query("m:die")]

@query
async def die(ctx) -> float:
    return ctx.random.random()

@query
async def clock(ctx) -> list:
    before = ctx.now
    await asyncio.sleep(0.005)
    return [before, ctx.now, await ctx.run_query("m:nestedClock")]

@query
async def nested_clock(ctx) -> float:
    return ctx.now

@mutation
async def leave_task(ctx):
    async def later():
        await asyncio.sleep(0)
        await ctx.db.insert("late", {})
    left.append(asyncio.create_task(later()))

@query
async def keep_ctx(ctx) -> int:
    left.append(ctx)
    if len(left) > 1:
        return len(await left[0].db.query("parent").collect())
    return 0

@mutation
async def many(ctx, reads: int, writes: int):
    for n in range(writes):
        await ctx.db.insert("many", {})
    await ctx.db.query("many").take(reads)

@query
async def wrong_arguments(ctx):
    try:
        await ctx.run_query("m:total", table=3)
    except Exception as error:
        return str(error)

@query(returns=v.string())
async def wrong_result(ctx):
    return 3

@query
async def not_a_value(ctx):
    return {"a": [{1, 2}]}

@query
async def unrun(ctx):
    return ctx.db.query("parent")

@query
async def unrun_inside(ctx):
    return {"q": ctx.db.query("parent")}

@query
async def spelled(ctx, first_name: str = "") -> str:
    return first_name
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, APP) as running:
        yield running


async def test_a_caught_failure_keeps_only_what_the_parent_wrote(store: Running):
    assert await store.mutation("caught") == [{"table": "child"}, 0]
    assert await store.query("total", table="parent") == 2
    assert await store.query("total", table="child") == 0


async def test_a_table_that_only_a_failed_child_made_does_not_exist(store: Running):
    await store.mutation("caught")
    assert store.database.catalog.table_number("parent") is not None
    assert store.database.catalog.table_number("child") is None


async def test_an_uncaught_failure_keeps_nothing(store: Running):
    with pytest.raises(FailedCall) as caught:
        await store.mutation("uncaught")
    assert caught.value.data == {"table": "child"}
    assert await store.query("total", table="parent") == 0


async def test_a_nested_query_sees_what_its_mutation_wrote(store: Running):
    assert await store.mutation("sees") == 1


async def test_siblings_at_once_do_not_undo_each_other(store: Running):
    assert await store.mutation("siblings") == ["NoneType", "ConvexError", "NoneType"]
    assert await store.query("total", table="kept") == 2
    assert await store.query("total", table="lost") == 0


async def test_eight_levels_are_allowed_and_no_more(store: Running):
    """F24."""
    assert await store.query("levels") == 8
    with pytest.raises(FailedCall, match="Cross component call depth limit exceeded"):
        await store.mutation("down")


async def test_chance_is_of_the_seed(tmp_path: Path):
    rolls = []
    for seed in (1, 1, 2):
        folder = tmp_path / str(len(rolls))
        async with Running.open(folder, APP, runtime=VirtualRuntime(seed=seed)) as store:
            rolls.append([await store.query("dice"), await store.query("dice")])
    assert rolls[0] == rolls[1] != rolls[2]
    first, second = rolls[0]
    assert len({*first, *second}) == 6


async def test_time_stands_still_in_a_call_and_in_the_calls_inside(store: Running):
    before, after, nested = await store.query("clock")
    assert before == after == nested


async def test_a_task_that_is_left_behind_cannot_write(store: Running):
    await store.mutation("leaveTask")
    (task,) = store.runner.app.functions["m.js:leaveTask"].handler.__globals__["left"]
    with pytest.raises(Exception, match="after the function had returned"):
        await task
    assert await store.query("total", table="late") == 0


async def test_a_ctx_that_was_kept_cannot_be_used_by_the_next_call(store: Running):
    await store.query("keepCtx")
    with pytest.raises(FailedCall, match="after the function had returned"):
        await store.query("keepCtx")


async def test_nearly_used_up_limits_are_warned_of(tmp_path: Path):
    """V111."""
    limits = replace(Limits(), read_documents=10, written_documents=10)
    async with Running.open(tmp_path, APP, limits=limits) as store:
        fine = await store.outcome("mutation", "many", {"reads": 8, "writes": 8}, ANONYMOUS)
        assert fine.log_lines == ()
        near = await store.outcome("mutation", "many", {"reads": 9, "writes": 9}, ANONYMOUS)
        assert near.log_lines == (
            "[WARN] Many documents read in a single function execution (actual: 9, limit: 10).",
            "[WARN] Many writes in a single function execution (actual: 9, limit: 10).",
        )
        with pytest.raises(FailedCall, match="Too many writes"):
            await store.mutation("many", reads=0, writes=11)


async def test_scheduling_nearly_all_that_is_allowed_is_warned_of(tmp_path: Path):
    app = """
@internal_mutation
async def later(ctx):
    pass

@mutation
async def schedule(ctx, count: int):
    from datetime import timedelta
    for _ in range(count):
        await ctx.scheduler.run_after(timedelta(hours=1), "m:later")
"""
    limits = replace(Limits(), scheduled_functions=10)
    async with Running.open(tmp_path, app, limits=limits) as store:
        outcome = await store.outcome("mutation", "schedule", {"count": 8}, ANONYMOUS)
        assert outcome.log_lines == ()
        outcome = await store.outcome("mutation", "schedule", {"count": 9}, ANONYMOUS)
        text = "Many functions scheduled in a single function execution (actual: 9, limit: 10)."
        assert outcome.log_lines == (f"[WARN] {text}",)


async def test_wrong_arguments_of_a_nested_call_raise_in_the_caller(store: Running):
    text = await store.query("wrongArguments")
    assert text.startswith("ArgumentValidationError: Value does not match validator.\nPath: .table")


async def test_a_wrong_result_is_refused(store: Running):
    with pytest.raises(FailedCall) as caught:
        await store.query("wrongResult")
    assert caught.value.failure.message.startswith(
        "ReturnsValidationError: Value does not match validator."
    )


async def test_a_result_that_is_no_value_is_refused_with_its_path(store: Running):
    """V91."""
    with pytest.raises(FailedCall) as caught:
        await store.query("notAValue")
    message = caught.value.failure.message
    assert message.startswith("Function m:notAValue return value invalid: set {1, 2} is not")
    assert "(present at path .a[0])" in message


async def test_a_query_that_was_not_run_is_no_result(store: Running):
    with pytest.raises(FailedCall, match=r"Return value is a Query\. Results must be retrieved"):
        await store.query("unrun")
    with pytest.raises(FailedCall, match="return value invalid"):
        await store.query("unrunInside")


async def test_an_argument_in_both_spellings_is_refused(store: Running):
    assert await store.query("spelled", first_name="a") == "a"
    assert await store.query("spelled", firstName="a") == "a"
    with pytest.raises(FailedCall) as caught:
        await store.query("spelled", firstName="a", first_name="b")
    assert caught.value.failure.message.startswith(
        "Invalid arguments for m:spelled: Argument `firstName` is given twice"
    )
