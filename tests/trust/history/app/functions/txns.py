"""Transactions as lists of operations, so that a client decides what a mutation does.

`["append", key, element]`, `["read", key]` for lists, `["write", key, value]`, `["get", key]` for
registers, `["pause", turns]` lets others run, `["fail"]` ends it with an error. A list whose key
begins with "s" is a range of documents, any other one is one document.
"""

import asyncio
from typing import Any

from reactive_store import ConvexError, MutationCtx, QueryCtx, mutation, query


@mutation
async def txn(ctx: MutationCtx, ops: list[Any]) -> list[Any]:
    """What each operation read; null for those that do not read."""
    return [await _run(ctx, *op) for op in ops]


@query
async def look(ctx: QueryCtx, ops: list[Any]) -> list[Any]:
    """As `txn`, for operations that only read."""
    return [await _run(ctx, *op) for op in ops]


@query
async def read(ctx: QueryCtx, keys: list[str]) -> list[Any]:
    """What is held under each key: a list, or a register's value (keys that begin with "r")."""
    return [await (_get(ctx, key) if key.startswith("r") else _list(ctx, key)) for key in keys]


async def _run(ctx: Any, word: str, *details: Any) -> Any:
    match word, details:
        case "append", (key, element):
            await _append(ctx, key, element)
        case "read", (key,):
            return await _list(ctx, key)
        case "write", (key, value):
            found = await ctx.db.query("registers").with_index("by_key", key=key).unique()
            if found is None:
                await ctx.db.insert("registers", {"key": key, "value": value})
            else:
                await ctx.db.patch(found["_id"], {"value": value})
        case "get", (key,):
            return await _get(ctx, key)
        case "pause", (turns,):
            for _ in range(int(turns)):
                await asyncio.sleep(0)
        case "fail", ():
            raise ConvexError("as the client wanted")
        case _:
            raise ValueError(f"no operation: {word} {details}")
    return None


async def _append(ctx: MutationCtx, key: str, element: float) -> None:
    if key.startswith("s"):
        last = await ctx.db.query("elements").with_index("by_key", key=key).order("desc").first()
        place = 0 if last is None else last["place"] + 1
        await ctx.db.insert("elements", {"key": key, "place": place, "element": element})
        return
    found = await ctx.db.query("lists").with_index("by_key", key=key).unique()
    if found is None:
        await ctx.db.insert("lists", {"key": key, "elements": [element]})
    else:
        await ctx.db.patch(found["_id"], {"elements": [*found["elements"], element]})


async def _list(ctx: QueryCtx, key: str) -> list[float]:
    if key.startswith("s"):
        rows = ctx.db.query("elements").with_index("by_key", key=key)
        return [row["element"] async for row in rows]
    found = await ctx.db.query("lists").with_index("by_key", key=key).unique()
    return [] if found is None else found["elements"]


async def _get(ctx: QueryCtx, key: str) -> float | None:
    found = await ctx.db.query("registers").with_index("by_key", key=key).unique()
    return None if found is None else found["value"]
