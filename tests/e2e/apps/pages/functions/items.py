"""Pages of a list that others change."""

from reactive_store import MutationCtx, PaginationOpts, QueryCtx, mutation, query


@query
async def page(ctx: QueryCtx, pagination_opts: PaginationOpts):
    return await ctx.db.query("items").with_index("by_rank").paginate(pagination_opts)


@query
async def odd_ones(ctx: QueryCtx, pagination_opts: PaginationOpts):
    """Few rows at a time: nearly every page is short and has to be split."""
    query = ctx.db.query("items").with_index("by_rank").filter(lambda f: f.field("odd") == True)  # noqa: E712
    return await query.paginate({**pagination_opts, "maximumRowsRead": 5})


@query
async def either_way(ctx: QueryCtx, pagination_opts: PaginationOpts):
    """In an order that a setting decides: cursors of one order mean nothing in the other."""
    setting = await ctx.db.query("settings").first()
    order = "desc" if setting and setting["newestFirst"] else "asc"
    return await ctx.db.query("items").with_index("by_rank").order(order).paginate(pagination_opts)


@query
async def ranks(ctx: QueryCtx):
    return [item["rank"] for item in await ctx.db.query("items").with_index("by_rank").collect()]


@mutation
async def put(ctx: MutationCtx, ranks: list[float]) -> None:
    for rank in ranks:
        await ctx.db.insert("items", {"rank": rank, "odd": rank % 2 == 1})


@mutation
async def remove(ctx: MutationCtx, rank: float) -> None:
    async for item in ctx.db.query("items").with_index("by_rank", rank=rank):
        await ctx.db.delete(item["_id"])


@mutation
async def turn_around(ctx: MutationCtx) -> None:
    await ctx.db.insert("settings", {"newestFirst": True})
