"""Who is in a room."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store import MutationCtx, define_schema
from reactive_store.kit.presence import Presence, presence_tables
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import TestBackend

SCHEMA = define_schema(presence_tables())

FUNCTIONS = """
from datetime import timedelta
from typing import Any

from reactive_store import UNSET, MutationCtx, QueryCtx, mutation, query
from reactive_store.kit.presence import Presence

presence = Presence(timeout=timedelta(seconds=25))
presence_expire = presence.function


@mutation
async def beat(
    ctx: MutationCtx, user: str, session: str, room: str = "hall", data: Any = "keep"
) -> None:
    await presence.heartbeat(ctx, room, user, session, data=UNSET if data == "keep" else data)


@mutation
async def leave(ctx: MutationCtx, session: str, room: str = "hall") -> None:
    await presence.disconnect(ctx, room, session)


@mutation
async def forget(ctx: MutationCtx, room: str) -> None:
    await presence.forget_room(ctx, room)


@query
async def who(ctx: QueryCtx, room: str = "hall", offline: bool = False) -> list[Any]:
    return await presence.list_users(ctx, room, offline=offline)


@query
async def rooms(ctx: QueryCtx, user: str) -> list[str]:
    return await presence.rooms_of(ctx, user, ["hall", "yard"])
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "rooms.py").write_text(FUNCTIONS, encoding="utf-8")
    return folder


def users(value: list[Any]) -> list[str]:
    return [each["user"] for each in value]


async def test_a_session_that_is_not_heard_of_has_gone(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        async with t.subscribe("rooms:who") as live:
            assert await live.next() == []
            await t.mutation("rooms:beat", user="ann", session="1")
            assert users(await live.next()) == ["ann"]
            await t.mutation("rooms:beat", user="bob", session="2")
            assert users(await live.next()) == ["ann", "bob"]
            await t.advance(timedelta(seconds=10))
            await t.mutation("rooms:beat", user="bob", session="2")
            await t.advance(timedelta(seconds=14))
            assert users(await t.query("rooms:who")) == ["ann", "bob"]
            await t.advance(timedelta(seconds=1))
            assert users(await live.next()) == ["bob"]
            await t.advance(timedelta(seconds=10))
            assert await live.next() == []
        both = await t.query("rooms:who", offline=True)
        assert [(each["user"], each["online"]) for each in both] == [("bob", False), ("ann", False)]


async def test_a_user_is_there_while_one_session_is(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        for session in "12":
            await t.mutation("rooms:beat", user="ann", session=session)
        await t.mutation("rooms:leave", session="1")
        assert users(await t.query("rooms:who")) == ["ann"]
        assert await t.query("rooms:rooms", user="ann") == ["hall"]
        await t.mutation("rooms:leave", session="2")
        await t.mutation("rooms:leave", session="2")
        assert await t.query("rooms:who") == []
        await t.mutation("rooms:beat", user="ann", session="1")
        assert users(await t.query("rooms:who")) == ["ann"]


async def test_heartbeats_wake_nobody_and_changes_of_data_do(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        await t.mutation("rooms:beat", user="ann", session="1", data={"typing": False})
        async with t.subscribe("rooms:who") as live:
            await live.next()
            runs = t.backend.runner.counters.queries
            for _ in range(5):
                await t.mutation("rooms:beat", user="ann", session="1")
                await t.mutation("rooms:beat", user="ann", session="1", data={"typing": False})
                await t.advance(timedelta(seconds=10))
            assert t.backend.runner.counters.queries == runs
            await t.mutation("rooms:beat", user="ann", session="1", data={"typing": True})
            assert (await live.next())[0]["data"] == {"typing": True}


async def test_there_is_one_scheduled_function_for_each_session(app: Path):
    async def pending(ctx: MutationCtx) -> int:
        jobs = await ctx.db.system.query("_scheduled_functions").collect()
        return len([job for job in jobs if job["state"]["kind"] == "pending"])

    async with TestBackend(SCHEMA, app) as t:
        for _ in range(30):
            for session in "123":
                await t.mutation("rooms:beat", user=f"user {session}", session=session)
            await t.advance(timedelta(seconds=5))
            assert await t.run(pending) == 3
        await t.mutation("rooms:leave", session="1")
        assert await t.run(pending) == 2
        await t.advance(timedelta(minutes=1))
        assert await t.run(pending) == 0


async def test_who_was_there_before_a_crash_is_noticed_as_gone(app: Path):
    disk = MemoryPersistence()
    async with TestBackend(SCHEMA, app, persistence=disk) as t:
        await t.mutation("rooms:beat", user="ann", session="1")
    async with TestBackend(SCHEMA, app, persistence=disk, seed=1) as t:
        assert users(await t.query("rooms:who")) == ["ann"]
        await t.advance(timedelta(seconds=26))
        assert await t.query("rooms:who") == []


async def test_rooms_are_apart_and_can_be_forgotten(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        await t.mutation("rooms:beat", user="ann", session="1")
        await t.mutation("rooms:beat", user="ann", session="1", room="yard")
        assert await t.query("rooms:rooms", user="ann") == ["hall", "yard"]
        await t.mutation("rooms:forget", room="yard")
        assert await t.query("rooms:who", room="yard", offline=True) == []
        assert users(await t.query("rooms:who")) == ["ann"]


async def test_a_session_whose_user_changes_takes_the_old_one_away(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        await t.mutation("rooms:beat", user="guest", session="1")
        await t.mutation("rooms:beat", user="ann", session="1")
        assert users(await t.query("rooms:who")) == ["ann"]


async def test_a_thousand_users_cost_a_write_a_heartbeat(app: Path):
    async with TestBackend(SCHEMA, app) as t:
        for n in range(1000):
            await t.mutation("rooms:beat", user=f"user {n}", session=str(n))
        assert len(await t.query("rooms:who")) == 1000
        versions: list[int] = []

        async def written(ctx: MutationCtx) -> None:
            metrics = await ctx.meta.get_transaction_metrics()
            versions.append(metrics.documents_written.used)

        presence = Presence()

        async def beat(ctx: MutationCtx) -> None:
            await presence.heartbeat(ctx, "hall", "user 500", "500")
            await written(ctx)

        await t.advance(timedelta(seconds=1))
        await t.run(beat)
        assert versions == [1]
        await t.advance(timedelta(seconds=30))
        assert await t.query("rooms:who") == []


def test_a_time_out_is_above_zero():
    with pytest.raises(ValueError, match="above zero"):
        Presence(timeout=timedelta())
