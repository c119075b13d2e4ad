"""Observed calls: what is printed and what fails is told once; results stay as they are."""

from __future__ import annotations

import pytest

from reactive_store.cli.function_log import CallEnd, observe_calls
from reactive_store.testing import FunctionError, TestBackend

SOURCE = """
from reactive_store import ActionCtx, MutationCtx, QueryCtx, action, internal, mutation, query


@query
async def look(ctx: QueryCtx, aloud: bool = False) -> int:
    if aloud:
        print("looking")
    return len(await ctx.db.query("rows").collect())


@mutation
async def add(ctx: MutationCtx) -> None:
    print("adding")
    await ctx.db.insert("rows", {})


@action
async def fail(ctx: ActionCtx) -> None:
    await ctx.run_mutation(internal.m.add)
    raise ValueError("broken")
"""


@pytest.fixture
async def observed(tmp_path):
    """A backend, and the ends that were told."""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "m.py").write_text(SOURCE)
    ends: list[CallEnd] = []
    async with TestBackend(app=tmp_path) as t:
        observe_calls(t.backend.runner, ends.append)
        yield t, ends


async def test_a_call_that_prints_is_told(observed):
    t, ends = observed
    assert await t.mutation("m:add") is None
    assert await t.query("m:look", aloud=True) == 1
    assert ends == [
        CallEnd("m:add", ("[LOG] 'adding'",), None),
        CallEnd("m:look", ("[LOG] 'looking'",), None),
    ]


async def test_a_call_with_nothing_to_tell_is_silent(observed):
    t, ends = observed
    assert await t.query("m:look") == 0
    assert ends == []


async def test_a_failure_is_told_with_its_place(observed):
    t, ends = observed
    with pytest.raises(FunctionError):
        await t.action("m:fail")
    (end,) = ends
    assert end.path == "m:fail"
    assert end.error.startswith("Uncaught ValueError: broken\n    at fail (")


async def test_live_queries_are_told_at_every_run(observed):
    t, ends = observed
    async with t.subscribe("m:look", aloud=True) as live:
        await live.next()
        await t.mutation("m:add")
        await live.next()
    assert [end.path for end in ends] == ["m:look", "m:add", "m:look"]
