"""Rooms with a version: what crowds watch and writers raise."""

from typing import Any

from reactive_store import MutationCtx, QueryCtx, mutation, query


async def _version(ctx: QueryCtx, name: str) -> float:
    room = await ctx.db.query("rooms").with_index("by_name", name=name).unique()
    return room["version"] if room else 0


@query
async def mark(ctx: QueryCtx, room: str, number: float = 0) -> dict[str, Any]:
    """The room's version, under a number that only makes the question another one."""
    return {"room": room, "number": number, "version": await _version(ctx, room)}


@query
async def padded(ctx: QueryCtx, room: str, size: float) -> dict[str, Any]:
    """The room's version in an answer of that size."""
    return {"version": await _version(ctx, room), "filler": "x" * int(size)}


@mutation
async def touch(ctx: MutationCtx, room: str) -> float:
    """Raise the version by one; the new one."""
    found = await ctx.db.query("rooms").with_index("by_name", name=room).unique()
    if found is None:
        await ctx.db.insert("rooms", {"name": room, "version": 1})
        return 1
    await ctx.db.patch(found["_id"], {"version": found["version"] + 1})
    return found["version"] + 1


@mutation
async def touch_and_tell(ctx: MutationCtx, room: str, size: float) -> str:
    """Raise the version and answer at length."""
    await touch(ctx, room)
    return "y" * int(size)
