"""What the kill test writes and reads back: each entry once, by the table and by every index."""

from reactive_store import MutationCtx, QueryCtx, mutation, query


@mutation
async def record(ctx: MutationCtx, key: str, writer: str, rank: float) -> str:
    """Insert without looking whether the key is there: a request applied twice shows."""
    await ctx.db.insert("entries", {"key": key, "writer": writer, "rank": rank})
    tally = await ctx.db.query("writers").with_index("by_name", name=writer).unique()
    if tally is None:
        await ctx.db.insert("writers", {"name": writer, "written": 1})
    else:
        await ctx.db.patch(tally["_id"], {"written": tally["written"] + 1})
    return key


@query
async def times_written(ctx: QueryCtx, keys: list[str]) -> list[int]:
    """How often each key is there, by its index."""
    return [
        len(await ctx.db.query("entries").with_index("by_key", key=key).take(3)) for key in keys
    ]


@query
async def survey(ctx: QueryCtx, way: str) -> list[str]:
    """All entries as `key/writer/rank`, in the order of the table or of the index named."""
    entries = ctx.db.query("entries")
    if way != "table":
        entries = entries.with_index(way)
    return [f"{e['key']}/{e['writer']}/{e['rank']}" async for e in entries]


@query
async def tallies(ctx: QueryCtx) -> dict[str, float]:
    return {tally["name"]: tally["written"] async for tally in ctx.db.query("writers")}
