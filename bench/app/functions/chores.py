"""Chores: a small durable write, done at once or scheduled, many by one mutation."""

from datetime import UTC, datetime

from reactive_store import MutationCtx, internal, internal_mutation, mutation


@mutation
async def do(ctx: MutationCtx, number: int) -> None:
    await ctx.db.insert("accounts", {"balance": number})


@internal_mutation
async def do_later(ctx: MutationCtx, number: int) -> None:
    await ctx.db.insert("accounts", {"balance": number})


@mutation
async def schedule(ctx: MutationCtx, first: int, count: int, at: float) -> None:
    when = datetime.fromtimestamp(at, UTC)
    for number in range(first, first + count):
        await ctx.scheduler.run_at(when, internal.chores.do_later, number=number)
