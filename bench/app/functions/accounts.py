"""Accounts, and transfers between two of them."""

from reactive_store import Id, MutationCtx, QueryCtx, mutation, query


@mutation
async def open_many(ctx: MutationCtx, count: int, balance: float) -> list[Id["accounts"]]:
    return [await ctx.db.insert("accounts", {"balance": balance}) for _ in range(count)]


@mutation
async def transfer(
    ctx: MutationCtx, source: Id["accounts"], target: Id["accounts"], amount: float
) -> None:
    giver = await ctx.db.get(source)
    taker = await ctx.db.get(target)
    assert giver is not None and taker is not None
    await ctx.db.patch(source, {"balance": giver["balance"] - amount})
    await ctx.db.patch(target, {"balance": taker["balance"] + amount})


@query
async def total(ctx: QueryCtx) -> float:
    return sum([account["balance"] async for account in ctx.db.query("accounts")])
