"""What belongs to one browser tab or device."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from reactive_store import MutationCtx, define_schema
from reactive_store.kit.sessions import delete_idle_sessions, session_tables
from reactive_store.testing import FunctionError, TestBackend

SCHEMA = define_schema(session_tables())

FUNCTIONS = """
from typing import Any

from reactive_store import UNSET
from reactive_store.kit.sessions import (
    SessionActionCtx, SessionMutationCtx, SessionQueryCtx, session_action, session_mutation,
    session_query,
)


@session_query
async def cart(ctx: SessionQueryCtx) -> list[str]:
    return (await ctx.session.get()).get("cart", [])


@session_mutation
async def add(ctx: SessionMutationCtx, item: str) -> int:
    items = [*(await ctx.session.get()).get("cart", []), item]
    await ctx.session.update({"cart": items, "newest": item})
    return len(items)


@session_mutation
async def forget_newest(ctx: SessionMutationCtx) -> Any:
    await ctx.session.update({"newest": UNSET})
    return await ctx.session.get()


@session_mutation
async def clear(ctx: SessionMutationCtx) -> None:
    await ctx.session.clear()


@session_mutation
async def add_two(ctx: SessionMutationCtx) -> list[str]:
    await ctx.run_session_mutation(add, item="x")
    await ctx.run_session_mutation("carts:add", item="y")
    return await ctx.run_session_query(cart)


@session_query
async def again(ctx: SessionQueryCtx) -> list[str]:
    return await ctx.run_session_query(cart)


@session_action
async def order(ctx: SessionActionCtx) -> list[str]:
    await ctx.run_session_mutation(add, item="ordered")
    return [ctx.session_id, *await ctx.run_session_query(cart)]


@session_action
async def twice(ctx: SessionActionCtx) -> list[str]:
    await ctx.run_session_action(order)
    return await ctx.run_session_action(order)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "carts.py").write_text(FUNCTIONS, encoding="utf-8")
    return folder


async def test_each_session_has_its_own_state_and_live_queries_follow_it(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        async with t.subscribe("carts:cart", sessionId="s1") as live:
            assert await live.next() == []
            await t.mutation("carts:add", sessionId="s2", item="other")
            assert await t.mutation("carts:add", sessionId="s1", item="a") == 1
            assert await live.next() == ["a"]
            assert await t.mutation("carts:add", sessionId="s1", item="b") == 2
            assert await live.next() == ["a", "b"]
        assert await t.query("carts:cart", sessionId="s2") == ["other"]
        left = await t.mutation("carts:forgetNewest", sessionId="s1")
        assert left == {"cart": ["a", "b"]}
        await t.mutation("carts:clear", sessionId="s1")
        await t.mutation("carts:clear", sessionId="s1")
        assert await t.query("carts:cart", sessionId="s1") == []
        with pytest.raises(FunctionError, match="missing the required field `sessionId`"):
            await t.query("carts:cart")


async def test_nested_calls_stay_in_the_session(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        assert await t.mutation("carts:addTwo", sessionId="s") == ["x", "y"]
        assert await t.query("carts:again", sessionId="s") == ["x", "y"]
        assert await t.action("carts:order", sessionId="s") == ["s", "x", "y", "ordered"]
        assert len(await t.action("carts:twice", sessionId="s")) == 6


async def test_calls_of_one_session_at_once_lose_nothing(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        calls = (t.mutation("carts:add", sessionId="s", item=str(n)) for n in range(10))
        await asyncio.gather(*calls)
        assert len(await t.query("carts:cart", sessionId="s")) == 10


async def test_idle_sessions_are_forgotten_in_batches(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        for number in range(5):
            await t.mutation("carts:add", sessionId=f"old{number}", item="a")
        await t.advance(timedelta(days=2))
        await t.mutation("carts:add", sessionId="old0", item="b")  # used again
        await t.mutation("carts:add", sessionId="new", item="a")

        async def clean(ctx: MutationCtx) -> int:
            return await delete_idle_sessions(ctx, ctx.now - 86_400_000, limit=3)

        assert [await t.run(clean) for _ in range(3)] == [3, 1, 0]
        assert await t.query("carts:cart", sessionId="old0") == ["a", "b"]
        assert await t.query("carts:cart", sessionId="old1") == []
