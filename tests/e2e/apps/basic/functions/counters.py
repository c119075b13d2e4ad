"""Counters: the smallest thing that two clients can fight over."""

import asyncio

from reactive_store import ActionCtx, MutationCtx, QueryCtx, action, api, mutation, query


@query
async def value(ctx: QueryCtx, name: str) -> float:
    counter = await ctx.db.query("counters").with_index("by_name", name=name).unique()
    return counter["value"] if counter else 0


@mutation
async def increment(ctx: MutationCtx, name: str, by: float = 1) -> float:
    counter = await ctx.db.query("counters").with_index("by_name", name=name).unique()
    if counter is None:
        await ctx.db.insert("counters", {"name": name, "value": by})
        return by
    await ctx.db.patch(counter["_id"], {"value": counter["value"] + by})
    return counter["value"] + by


@action
async def increment_slowly(ctx: ActionCtx, name: str, seconds: float) -> float:
    """Increment at once, and take `seconds` to say so."""
    value: float = await ctx.run_mutation(api.counters.increment, name=name)
    await asyncio.sleep(seconds)
    return value
