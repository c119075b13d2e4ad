"""Readings of sensors: a table that can grow to millions of documents."""

from reactive_store import QueryCtx, query, v


@query(args={"id": v.id("readings")})
async def one(ctx: QueryCtx, id: str):
    return await ctx.db.get(id)


@query
async def of_sensor(ctx: QueryCtx, sensor: int):
    return await ctx.db.query("readings").with_index("by_sensor", sensor=sensor).take(20)
