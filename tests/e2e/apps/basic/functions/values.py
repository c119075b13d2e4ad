"""Values of every type, there and back."""

from typing import Any

from reactive_store import Id, Int64, MutationCtx, QueryCtx, mutation, query


@query
async def echo(ctx: QueryCtx, value: Any):
    return value


@query
async def each_type(ctx: QueryCtx):
    return {
        "null": None,
        "true": True,
        "integral": 17,
        "fraction": 0.5,
        "big": Int64(2**62),
        "text": "blåbær 🫐",
        "bytes": b"\x00\xff\x10",
        "list": [1, "two", [3.5]],
        "object": {"nested": {"deep": True}},
    }


@mutation
async def keep(ctx: MutationCtx, value: Any) -> Id["anything"]:
    return await ctx.db.insert("anything", {"value": value})


@query
async def kept(ctx: QueryCtx, key: Id["anything"]):
    found = await ctx.db.get(key)
    return found["value"] if found else None


@query
async def large(ctx: QueryCtx, characters: int) -> str:
    return "x" * characters
