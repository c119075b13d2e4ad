"""Forgotten awaits: the call they belong to fails, and no other one."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.functions.unawaited import notice_unawaited
from tests.functions.running import FailedCall, Running

APP = """
kept = []

@mutation
async def insert(ctx):
    ctx.db.insert("t", {})

@mutation
async def patch(ctx):
    id = await ctx.db.insert("t", {})
    change = ctx.db.patch(id, {"a": 1})

@query
async def collect(ctx):
    found = ctx.db.query("t").collect()
    return 1

@query
async def identity(ctx):
    if not ctx.auth.get_user_identity():
        raise ConvexError("log in")
    return "a secret"

@mutation
async def nested(ctx):
    ctx.run_mutation("m:insert")

@query
async def caught_inside(ctx):
    try:
        await ctx.run_query("m:collect")
    except Exception as error:
        return str(error)

@action
async def act(ctx):
    ctx.run_mutation("m:fine")

@action
async def act_identity(ctx):
    ctx.auth.get_user_identity()

@mutation
async def fine(ctx):
    await ctx.db.insert("t", {})

@query
async def own(ctx):
    async def helper():
        pass
    helper()
    return 1

@mutation
async def keep(ctx):
    kept.append(ctx.db.insert("t", {}))

@mutation
async def drop(ctx):
    kept.clear()
    await ctx.db.insert("t", {})
    return "innocent"

@query
async def total(ctx):
    return len(await ctx.db.query("t").collect())
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, APP) as running:
        yield running


@pytest.mark.parametrize(
    ("kind", "path", "method"),
    [
        ("mutation", "insert", "insert"),
        ("mutation", "patch", "patch"),
        ("query", "collect", "collect"),
        ("query", "identity", "get_user_identity"),
        ("mutation", "nested", "run_mutation"),
        ("action", "act", "run_mutation"),
        ("action", "actIdentity", "get_user_identity"),
    ],
)
async def test_a_forgotten_call_fails_its_function(
    store: Running, kind: str, path: str, method: str
):
    with pytest.raises(FailedCall) as caught:
        await getattr(store, kind)(path)
    message = caught.value.failure.message
    assert f"`{method}(…)` was called without `await`" in message
    assert "Write `await` in front of it." in message
    assert await store.query("total") == 0


async def test_the_line_is_named_when_it_is_known(store: Running):
    with pytest.raises(FailedCall, match=r"without `await` at functions/m\.py:10, so it did noth"):
        await store.mutation("insert")


async def test_in_a_nested_call_it_is_raised_in_the_caller(store: Running):
    assert "`collect(…)` was called without `await`" in await store.query("caughtInside")


async def test_a_coroutine_of_the_app_is_a_warning_in_the_log_lines(store: Running):
    outcome = await store.outcome("query", "own", {}, ANONYMOUS)
    assert outcome.log_lines == ("[WARN] coroutine 'own.<locals>.helper' was never awaited",)


async def test_a_coroutine_that_another_call_left_behind_fails_nobody_else(store: Running):
    await store.mutation("keep")
    assert await store.mutation("drop") == "innocent"
    assert await store.query("total") == 1


async def test_outside_of_calls_python_warns_as_ever(store: Running):
    async def mine() -> None:
        pass

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        mine()
        gc.collect()
    # The collector may meet what other tests have left behind, and Python warns of that as well.
    texts = [str(warning.message) for warning in seen if warning.category is RuntimeWarning]
    assert [text.split(" was ")[1] for text in texts] == ["never awaited"]


def test_noticing_twice_changes_nothing():
    notice_unawaited()
    hook = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]
    notice_unawaited()
    assert warnings._warn_unawaited_coroutine is hook  # type: ignore[attr-defined]
