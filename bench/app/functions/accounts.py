"""Accounts, and transfers between two of them."""

from reactive_store import MutationCtx, QueryCtx, mutation, query, v


@mutation
async def open_many(ctx: MutationCtx, count: int, balance: float) -> list[str]:
    return [await ctx.db.insert("accounts", {"balance": balance}) for _ in range(count)]


@mutation(args={"source": v.id("accounts"), "target": v.id("accounts"), "amount": v.number()})
async def transfer(ctx: MutationCtx, source: str, target: str, amount: float) -> None:
    giver = await ctx.db.get(source)
    taker = await ctx.db.get(target)
    assert giver is not None
    assert taker is not None
    await ctx.db.patch(source, {"balance": giver["balance"] - amount})
    await ctx.db.patch(target, {"balance": taker["balance"] + amount})


@query
async def total(ctx: QueryCtx) -> float:
    return sum([account["balance"] async for account in ctx.db.query("accounts")])
