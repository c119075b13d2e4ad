"""Row-level rules around `ctx.db`."""

from __future__ import annotations

from typing import Any

import pytest

from reactive_store import (
    ConvexError,
    Document,
    MutationCtx,
    QueryCtx,
    define_schema,
    define_table,
    v,
)
from reactive_store.kit.rules import Rules
from reactive_store.testing import TestBackend

SCHEMA = define_schema(
    {
        "rooms": define_table({"name": v.string()}),
        "members": define_table({"room": v.id("rooms"), "user": v.string()}).index(
            "by_room_user", ["room", "user"]
        ),
        "messages": define_table(
            {"room": v.id("rooms"), "author": v.string(), "text": v.string()}
        ).index("by_room", ["room"]),
        "secrets": define_table({"text": v.string()}),
    }
)


class UserCtx(MutationCtx):
    user: str


def rules_of_a_chat(default: Any = "allow") -> Rules[UserCtx]:
    rules = Rules[UserCtx](default=default)

    @rules.read("messages")
    async def members_read(ctx: UserCtx, message: Document) -> bool:
        pair = ctx.db.query("members").with_index(
            "by_room_user", room=message["room"], user=ctx.user
        )
        return await pair.first() is not None

    @rules.insert("messages")
    def in_own_name(ctx: UserCtx, message: Any) -> bool:
        return message["author"] == ctx.user

    @rules.modify("messages")
    def own(ctx: UserCtx, message: Document) -> bool:
        return message["author"] == ctx.user

    return rules


async def chat(ctx: MutationCtx) -> dict[str, Any]:
    """Two rooms; ann is in both, bob in the first."""
    hall, attic = [await ctx.db.insert("rooms", {"name": name}) for name in ("hall", "attic")]
    for room, user in ((hall, "ann"), (hall, "bob"), (attic, "ann")):
        await ctx.db.insert("members", {"room": room, "user": user})
    ids = [
        await ctx.db.insert("messages", {"room": room, "author": "ann", "text": text})
        for room, text in ((hall, "1"), (attic, "2"), (hall, "3"), (attic, "4"), (hall, "5"))
    ]
    return {"hall": hall, "attic": attic, "messages": ids}


def texts(documents: list[Document]) -> list[str]:
    return [document["text"] for document in documents]


async def test_what_may_not_be_read_acts_as_absent_in_every_way_of_reading():
    rules = rules_of_a_chat()

    async def work(ctx: MutationCtx) -> None:
        world = await chat(ctx)
        db = rules.guard(UserCtx.extend(ctx, user="bob")).db
        first, second, *_ = world["messages"]
        assert await db.get(second) is None
        assert await db.get("messages", second) is None
        assert (await db.get(first)) is not None
        query = db.query("messages")
        assert texts(await query.collect()) == ["1", "3", "5"]
        assert texts(await query.order("desc").take(2)) == ["5", "3"]
        assert [each["text"] async for each in query] == ["1", "3", "5"]
        attic = query.with_index("by_room", room=world["attic"])
        assert await attic.first() is None
        assert await attic.unique() is None
        assert await attic.collect() == []
        narrowed = query.filter(lambda f: f.field("text") == "2")
        assert await narrowed.collect() == []
        page = await query.paginate({"numItems": 4, "cursor": None})
        assert texts(page.page) == ["1", "3"]
        assert not page.is_done
        # No rule for this table, and everything is allowed by default.
        assert len(await db.query("rooms").collect()) == 2

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_what_may_not_be_written_raises_and_is_not_written():
    rules = rules_of_a_chat()

    async def work(ctx: MutationCtx) -> None:
        world = await chat(ctx)
        hall, hidden = world["hall"], world["messages"][1]
        db = rules.guard(UserCtx.extend(ctx, user="bob")).db

        async def refused(write: Any) -> str:
            with pytest.raises(ConvexError) as caught:
                await write
            assert caught.value.data["code"] == "forbidden"
            return str(caught.value.data["message"])

        foreign = {"room": hall, "author": "ann", "text": "forged"}
        visible = world["messages"][0]
        assert await refused(db.insert("messages", foreign)) == "insert access not allowed"
        assert await refused(db.patch(visible, {"text": "x"})) == "write access not allowed"
        assert await refused(db.replace(visible, foreign)) == "write access not allowed"
        assert await refused(db.delete("messages", visible)) == "write access not allowed"
        gone = "no read access or doc does not exist"
        assert await refused(db.delete(hidden)) == gone
        assert await refused(db.patch(hidden, {"text": "x"})) == gone
        mine = await db.insert("messages", {"room": hall, "author": "bob", "text": "mine"})
        await db.patch(mine, {"text": "changed"})
        await db.delete(mine)
        assert await refused(db.delete(mine)) == gone
        assert texts(await ctx.db.query("messages").collect()) == ["1", "2", "3", "4", "5"]

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_deny_by_default_hides_and_refuses_what_has_no_rule():
    rules = rules_of_a_chat("deny")

    async def work(ctx: MutationCtx) -> None:
        secret = await ctx.db.insert("secrets", {"text": "s"})
        world = await chat(ctx)
        db = rules.guard(UserCtx.extend(ctx, user="bob")).db
        assert await db.get(secret) is None
        assert await db.query("secrets").collect() == []
        with pytest.raises(ConvexError, match="insert access not allowed"):
            await db.insert("secrets", {"text": "t"})
        with pytest.raises(ConvexError, match="no read access or doc does not exist"):
            await db.delete(secret)
        # The rules themselves look at members, which nobody may read.
        assert await db.query("members").collect() == []
        assert (await db.get(world["messages"][0])) is not None

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


FUNCTIONS = """
from reactive_store import Document, Id, MutationCtx, QueryCtx, internal_mutation
from reactive_store.kit.custom_functions import custom_query
from reactive_store.kit.rules import Rules


class UserCtx(QueryCtx):
    user: str


rules = Rules[UserCtx](default="deny")
RUNS = []


@rules.read("messages")
async def members_read(ctx: UserCtx, message: Document) -> bool:
    pair = ctx.db.query("members").with_index("by_room_user", room=message["room"], user=ctx.user)
    return await pair.first() is not None


async def with_rules(ctx: QueryCtx, user: str) -> UserCtx:
    return rules.guard(UserCtx.extend(ctx, user=user))


query = custom_query(with_rules)


@query
async def seen(ctx: UserCtx, room: Id["rooms"]) -> list[str]:
    RUNS.append(ctx.user)
    messages = await ctx.db.query("messages").with_index("by_room", room=room).collect()
    return [message["text"] for message in messages]


@query
async def runs(ctx: UserCtx) -> int:
    return len(RUNS)


@internal_mutation
async def join(ctx: MutationCtx, room: Id["rooms"], user: str) -> None:
    await ctx.db.insert("members", {"room": room, "user": user})
"""


async def test_a_live_query_under_rules_follows_what_the_rules_read_and_nothing_else(tmp_path):
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "messages.py").write_text(FUNCTIONS, encoding="utf-8")
    async with TestBackend(schema=SCHEMA, functions=functions) as t:
        world = await t.run(chat)
        attic, hall = world["attic"], world["hall"]
        async with t.subscribe("messages:seen", room=attic, user="bob") as live:
            assert await live.next() == []
            await t.mutation("messages:join", room=hall, user="eve")
            await t.mutation("messages:join", room=attic, user="eve")
            assert await t.query("messages:runs", user="") == 1
            await t.mutation("messages:join", room=attic, user="bob")
            assert await live.next() == ["2", "4"]
            assert await t.query("messages:runs", user="") == 2


def test_rules_that_contradict_or_name_nothing_are_refused():
    rules = rules_of_a_chat()
    with pytest.raises(TypeError, match="has a rule for read already"):
        rules.read("messages")(lambda _ctx, _message: True)
    with pytest.raises(TypeError, match="names its table"):
        rules.read(lambda _ctx, _message: True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="default is"):
        Rules[QueryCtx](default="maybe")  # type: ignore[arg-type]
