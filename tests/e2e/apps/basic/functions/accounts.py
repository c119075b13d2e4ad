"""Money in two tables: a transfer changes both, so their sum is an invariant of every snapshot."""

from reactive_store import ConvexError, MutationCtx, QueryCtx, mutation, query


@mutation
async def open_account(ctx: MutationCtx, owner: str, cents: float) -> None:
    for table in ("checking", "savings"):
        await ctx.db.insert(table, {"owner": owner, "cents": cents})


@mutation
async def transfer(ctx: MutationCtx, giver: str, taker: str, cents: float) -> None:
    """From one owner's checking account to another's savings account (or back, if negative)."""
    source = await ctx.db.query("checking").with_index("by_owner", owner=giver).unique()
    target = await ctx.db.query("savings").with_index("by_owner", owner=taker).unique()
    if source is None or target is None:
        raise ConvexError({"code": "no_account"})
    await ctx.db.patch(source["_id"], {"cents": source["cents"] - cents})
    await ctx.db.patch(target["_id"], {"cents": target["cents"] + cents})


@query
async def checking_total(ctx: QueryCtx) -> float:
    return sum([account["cents"] async for account in ctx.db.query("checking")])


@query
async def savings_total(ctx: QueryCtx) -> float:
    return sum([account["cents"] async for account in ctx.db.query("savings")])


@query
async def total(ctx: QueryCtx) -> float:
    accounts = await ctx.db.query("checking").collect()
    accounts += await ctx.db.query("savings").collect()
    return sum(account["cents"] for account in accounts)
