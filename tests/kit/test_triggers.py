"""Triggers: functions in the transaction that changed a document."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reactive_store import MutationCtx, define_schema, define_table, v
from reactive_store.kit.triggers import Change, Triggers
from reactive_store.testing import TestBackend

SCHEMA = define_schema(
    {
        "users": define_table({"name": v.string(), "posts": v.number()}),
        "posts": define_table({"author": v.id("users"), "text": v.string()}).index(
            "by_author", ["author"]
        ),
        "log": define_table({"text": v.string()}),
    }
)


async def log_of(ctx: MutationCtx) -> list[str]:
    return [entry["text"] for entry in await ctx.db.query("log").collect()]


async def test_a_trigger_sees_what_was_and_what_is():
    triggers = Triggers[MutationCtx]()
    seen: list[Change] = []

    @triggers.on("users")
    async def note(ctx: MutationCtx, change: Change) -> None:
        current = await ctx.db.get(change.id)
        assert current == change.new
        seen.append(change)

    async def work(ctx: MutationCtx) -> None:
        seen.clear()
        db = triggers.watch(ctx).db
        user = await db.insert("users", {"name": "ann", "posts": 0})
        await db.patch(user, {"posts": 1})
        await db.replace("users", user, {"name": "ann", "posts": 2})
        await db.delete(user)
        assert [change.operation for change in seen] == ["insert", "update", "update", "delete"]
        assert {change.table for change in seen} == {"users"}
        assert {change.id for change in seen} == {user}
        posts = [
            tuple(None if each is None else each["posts"] for each in (change.old, change.new))
            for change in seen
        ]
        assert posts == [(None, 0), (0, 1), (1, 2), (2, None)]
        await db.insert("log", {"text": "no trigger here"})
        assert len(seen) == 4

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_triggers_of_triggers_run_in_the_order_of_the_changes():
    triggers = Triggers[MutationCtx]()

    @triggers.on("users")
    async def cascade(ctx: MutationCtx, change: Change) -> None:
        await ctx.db.insert("log", {"text": f"first {change.operation}"})
        if change.operation == "delete":
            for post in await ctx.db.query("posts").with_index("by_author").collect():
                await ctx.db.delete(post["_id"])
                await ctx.db.insert("log", {"text": f"asked to delete {post['text']}"})

    @triggers.on("users")
    async def second(ctx: MutationCtx, change: Change) -> None:
        await ctx.db.insert("log", {"text": f"second {change.operation}"})

    @triggers.on("posts")
    async def post_gone(ctx: MutationCtx, change: Change) -> None:
        if change.old is not None and change.new is None:
            await ctx.db.insert("log", {"text": f"saw {change.old['text']} go"})

    async def work(ctx: MutationCtx) -> list[str]:
        user = await ctx.db.insert("users", {"name": "ann", "posts": 0})
        for text in "ab":
            await ctx.db.insert("posts", {"author": user, "text": text})
        await triggers.watch(ctx).db.delete(user)
        assert await ctx.db.query("posts").collect() == []
        return await log_of(ctx)

    async with TestBackend(schema=SCHEMA) as t:
        assert await t.run(work) == [
            "first delete", "asked to delete a", "asked to delete b", "second delete",
            "saw a go", "saw b go",
        ]  # fmt: skip


async def test_the_inner_db_starts_no_triggers():
    triggers = Triggers[MutationCtx]()
    calls: list[str] = []

    @triggers.on("posts", "users")
    async def tidy(ctx: MutationCtx, change: Change) -> None:
        calls.append(change.table)
        if change.table == "posts" and change.new is not None:
            await change.inner_db.patch(change.id, {"text": change.new["text"].strip()})

    async def work(ctx: MutationCtx) -> str:
        calls.clear()
        user = await ctx.db.insert("users", {"name": "ann", "posts": 0})
        post = await triggers.watch(ctx).db.insert("posts", {"author": user, "text": " x "})
        found = await ctx.db.get(post)
        assert found is not None
        assert calls == ["posts"]
        return str(found["text"])

    async with TestBackend(schema=SCHEMA) as t:
        assert await t.run(work) == "x"


@pytest.mark.parametrize("is_caught", [True, False])
async def test_what_a_trigger_raises_undoes_the_write_and_what_triggers_wrote(is_caught: bool):
    triggers = Triggers[MutationCtx]()

    @triggers.on("users")
    async def log_it(ctx: MutationCtx, change: Change) -> None:
        await ctx.db.insert("log", {"text": "written by a trigger"})

    @triggers.on("users")
    async def refuse(ctx: MutationCtx, change: Change) -> None:
        if change.new is not None and change.new["name"] == "bad":
            raise ValueError("no bad names")

    async def work(ctx: MutationCtx) -> None:
        db = triggers.watch(ctx).db
        await db.insert("log", {"text": "before"})
        try:
            await db.insert("users", {"name": "bad", "posts": 0})
        except ValueError:
            if not is_caught:
                raise
        await db.insert("users", {"name": "good", "posts": 0})

    async def stored(ctx: MutationCtx) -> tuple[list[str], list[str]]:
        users = await ctx.db.query("users").collect()
        return [user["name"] for user in users], await log_of(ctx)

    async with TestBackend(schema=SCHEMA) as t:
        if is_caught:
            await t.run(work)
            assert await t.run(stored) == (["good"], ["before", "written by a trigger"])
        else:
            with pytest.raises(ValueError, match="no bad names"):
                await t.run(work)
            assert await t.run(stored) == ([], [])


async def test_writes_at_once_are_seen_one_after_the_other():
    triggers = Triggers[MutationCtx]()

    @triggers.on("posts")
    async def count(ctx: MutationCtx, change: Change) -> None:
        author = (change.new or change.old or {})["author"]
        user = await ctx.db.get(author)
        assert user is not None
        await asyncio.sleep(0)  # others may run here, and must not come in between
        await ctx.db.patch(author, {"posts": user["posts"] + 1})

    async def work(ctx: MutationCtx) -> Any:
        user = await ctx.db.insert("users", {"name": "ann", "posts": 0})
        db = triggers.watch(ctx).db
        await asyncio.gather(
            *(db.insert("posts", {"author": user, "text": str(n)}) for n in range(10))
        )
        found = await ctx.db.get(user)
        assert found is not None
        return found["posts"]

    async with TestBackend(schema=SCHEMA) as t:
        assert await t.run(work) == 10


async def test_a_trigger_may_write_several_at_once_itself():
    triggers = Triggers[MutationCtx]()

    @triggers.on("users")
    async def fan_out(ctx: MutationCtx, change: Change) -> None:
        await asyncio.gather(
            *(ctx.db.insert("posts", {"author": change.id, "text": str(n)}) for n in range(5))
        )

    @triggers.on("posts")
    async def log_it(ctx: MutationCtx, change: Change) -> None:
        assert change.new is not None
        await ctx.db.insert("log", {"text": change.new["text"]})

    async def work(ctx: MutationCtx) -> list[str]:
        await triggers.watch(ctx).db.insert("users", {"name": "ann", "posts": 0})
        return await log_of(ctx)

    async with TestBackend(schema=SCHEMA) as t:
        assert await t.run(work) == ["0", "1", "2", "3", "4"]


async def test_what_is_not_there_is_refused_as_without_triggers():
    triggers = Triggers[MutationCtx]()
    triggers.register("users", lambda _ctx, _change: asyncio.sleep(0))

    async def work(ctx: MutationCtx) -> None:
        user = await ctx.db.insert("users", {"name": "ann", "posts": 0})
        await ctx.db.delete(user)
        await triggers.watch(ctx).db.patch(user, {"posts": 1})

    async with TestBackend(schema=SCHEMA) as t:
        with pytest.raises(Exception, match="nonexistent document"):
            await t.run(work)
    with pytest.raises(TypeError, match="names its tables"):
        triggers.on()
