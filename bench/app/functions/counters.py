"""Counters, one document each: the smallest thing many clients can fight over."""

from reactive_store import MutationCtx, QueryCtx, mutation, query


@mutation
async def add(ctx: MutationCtx, name: str) -> int:
    counter = await ctx.db.query("counters").with_index("by_name", name=name).unique()
    if counter is None:
        await ctx.db.insert("counters", {"name": name, "value": 1})
        return 1
    value = counter["value"] + 1
    await ctx.db.patch(counter["_id"], {"value": value})
    return value


@query
async def total(ctx: QueryCtx, names: list[str]) -> float:
    found = [
        await ctx.db.query("counters").with_index("by_name", name=name).unique() for name in names
    ]
    return sum(counter["value"] for counter in found if counter is not None)
