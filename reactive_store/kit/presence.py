"""Presence: who is in a room right now.

    presence = Presence("presence", timeout=timedelta(seconds=25))
    presence_expire = presence.function           # in a module of functions/: gives it a path

    await presence.heartbeat(ctx, room, user, session)        # every ten seconds, by each tab
    await presence.disconnect(ctx, room, session)             # when it is closed
    await presence.list_users(ctx, room)                      # live

- A user is there while one of their sessions (tabs, devices) is. A session that was not heard of
  for the time-out has gone.
- What `list_users` reads changes only when somebody comes, goes or changes their data. Heartbeats
  write to another table, one document each, so they wake nobody and conflict with nobody.
- Nothing polls. Each session has one scheduled function at most; it looks whether there was a
  heartbeat meanwhile, and comes again when that one's time is up.

The app declares the tables: `define_schema({**presence_tables(), …})`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from reactive_store import (
    UNSET,
    Document,
    MutationCtx,
    QueryCtx,
    TableDefinition,
    define_table,
    internal_mutation,
    v,
)

__all__ = ["Presence", "presence_tables"]

_USERS: Final = "presence"
_SESSIONS: Final = "presenceSessions"
_BY_ROOM: Final = "by_room_online"
_BY_USER: Final = "by_room_user"
_BY_SESSION: Final = "by_room_session"

_MILLISECOND: Final = timedelta(milliseconds=1)
_SAME_INSTANT_MS: Final = 1.0  # times are rounded when they become scheduled ones


def presence_tables() -> dict[str, TableDefinition]:
    """The tables of all rooms, to be merged into the schema."""
    users = {
        "room": v.string(),
        "user": v.string(),
        "online": v.boolean(),
        "since": v.number(),  # Unix milliseconds: since when they are there, or gone
        "data": v.any(),
    }
    sessions = {
        "room": v.string(),
        "user": v.string(),
        "session": v.string(),
        "seenAt": v.number(),  # Unix milliseconds of the last heartbeat
        "job": v.nullable(v.string()),  # what will look for the next one
    }
    return {
        _USERS: define_table(users)
        .index(_BY_ROOM, ["room", "online", "since"])
        .index(_BY_USER, ["room", "user"]),
        _SESSIONS: define_table(sessions)
        .index(_BY_SESSION, ["room", "session"])
        .index(_BY_USER, ["room", "user"]),
    }


class Presence:
    """The rooms of an app. Made once, at module level; `function` gets its path in a module.

    Shapes   room, user, session: any strings; a session belongs to one tab, and is best made up
             by it. timeout: how long after a heartbeat a session counts as there, two to three
             times the pause between heartbeats
    """

    def __init__(
        self, name: str = "presence", *, timeout: timedelta = timedelta(seconds=25)
    ) -> None:
        if timeout <= timedelta():
            raise ValueError(f"a time-out is above zero, not {timeout}")
        self._timeout_ms = timeout / _MILLISECOND

        async def expire(ctx: MutationCtx, room: str, session: str) -> None:
            await self._expire(ctx, room, session)

        expire.__name__ = f"{name}_expire"
        self.function = internal_mutation(expire)
        """The internal function that notices who has gone. `presence_expire = presence.function` in
        a module of functions/ makes it part of the app."""

    async def heartbeat(
        self, ctx: MutationCtx, room: str, user: str, session: str, *, data: Any = UNSET
    ) -> None:
        """A session is there, and its user with it.

        Shapes   data: what others see of the user, say {"typing": True}; what was given last stays
        Cost     two point reads and one write; more for the first one, and when data changes
        """
        found = await self._session(ctx, room, session)
        if found is not None and found["user"] != user:
            await self._leave(ctx, found)
            found = None
        if found is None:
            delay = self._timeout_ms * _MILLISECOND
            job = await ctx.scheduler.run_after(delay, self.function, room=room, session=session)
            beat = {"room": room, "user": user, "session": session, "seenAt": ctx.now, "job": job}
            await ctx.db.insert(_SESSIONS, beat)
        else:
            await ctx.db.patch(found["_id"], {"seenAt": ctx.now})
        seen = await self._user(ctx, room, user)
        if seen is None:
            fresh = {"room": room, "user": user, "online": True, "since": ctx.now}
            await ctx.db.insert(_USERS, {**fresh, "data": None if data is UNSET else data})
            return
        changes: dict[str, Any] = {}
        if not seen["online"]:
            changes = {"online": True, "since": ctx.now}
        if data is not UNSET and data != seen["data"]:
            changes["data"] = data
        if changes:
            await ctx.db.patch(seen["_id"], changes)

    async def disconnect(self, ctx: MutationCtx, room: str, session: str) -> None:
        """A session has gone, and with the last one its user."""
        found = await self._session(ctx, room, session)
        if found is not None:
            if found["job"] is not None:
                await ctx.scheduler.cancel(found["job"])
            await self._leave(ctx, found)

    async def list_users(
        self, ctx: QueryCtx, room: str, *, limit: int = 1000, offline: bool = False
    ) -> list[dict[str, Any]]:
        """Who is in a room, longest first; with `offline`, then those who were, the last first.

        Shapes   [{"user", "online", "since": Unix milliseconds, "data"}]
        Cost     reads as many documents as it gives
        """
        query = ctx.db.query(_USERS)
        found = await query.with_index(_BY_ROOM, room=room, online=True).take(limit)
        if offline and len(found) < limit:
            gone = query.with_index(_BY_ROOM, room=room, online=False).order("desc")
            found += await gone.take(limit - len(found))
        return [
            {name: each[name] for name in ("user", "online", "since", "data")} for each in found
        ]

    async def rooms_of(self, ctx: QueryCtx, user: str, rooms: list[str]) -> list[str]:
        """In which of these rooms a user is."""
        found = [(room, await self._user(ctx, room, user)) for room in rooms]
        return [room for room, seen in found if seen is not None and seen["online"]]

    async def forget_room(self, ctx: MutationCtx, room: str) -> None:
        """Remove everything about a room, also who was in it."""
        async for each in ctx.db.query(_SESSIONS).with_index(_BY_SESSION, room=room):
            if each["job"] is not None:
                await ctx.scheduler.cancel(each["job"])
            await ctx.db.delete(each["_id"])
        async for each in ctx.db.query(_USERS).with_index(_BY_USER, room=room):
            await ctx.db.delete(each["_id"])

    async def _session(self, ctx: QueryCtx, room: str, session: str) -> Document | None:
        query = ctx.db.query(_SESSIONS).with_index(_BY_SESSION, room=room, session=session)
        return await query.unique()

    async def _user(self, ctx: QueryCtx, room: str, user: str) -> Document | None:
        return await ctx.db.query(_USERS).with_index(_BY_USER, room=room, user=user).unique()

    async def _leave(self, ctx: MutationCtx, session: Document) -> None:
        await ctx.db.delete(session["_id"])
        room, user = session["room"], session["user"]
        other = ctx.db.query(_SESSIONS).with_index(_BY_USER, room=room, user=user)
        if await other.first() is not None:
            return
        seen = await self._user(ctx, room, user)
        if seen is not None and seen["online"]:
            await ctx.db.patch(seen["_id"], {"online": False, "since": ctx.now})

    async def _expire(self, ctx: MutationCtx, room: str, session: str) -> None:
        found = await self._session(ctx, room, session)
        if found is None:
            return
        left_ms = found["seenAt"] + self._timeout_ms - ctx.now
        if left_ms <= _SAME_INSTANT_MS:
            await self._leave(ctx, found)
            return
        job = await ctx.scheduler.run_after(
            left_ms * _MILLISECOND, self.function, room=room, session=session
        )
        await ctx.db.patch(found["_id"], {"job": job})
