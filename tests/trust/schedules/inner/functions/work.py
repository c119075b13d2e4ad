"""Functions that leave a trace: mutations in the data, actions in a list beside them."""

from __future__ import annotations

import asyncio

from reactive_store import ActionCtx, MutationCtx, internal_action, internal_mutation

begun: list[tuple[int, float]] = []


@internal_mutation
async def write(ctx: MutationCtx, number: int) -> None:
    await ctx.db.insert("effects", {"number": number, "at": ctx.now})


@internal_mutation
async def fail(ctx: MutationCtx, number: int) -> None:
    await ctx.db.insert("effects", {"number": number, "at": ctx.now})
    raise ValueError("on purpose")


@internal_action
async def act(ctx: ActionCtx, number: int) -> None:
    begun.append((number, ctx.now))
    await ctx.run_mutation("work:write", number=number)


@internal_action
async def hang(ctx: ActionCtx, number: int) -> None:
    begun.append((number, ctx.now))
    await asyncio.Event().wait()
