"""Handlers that do not end, each in its own way."""

import select

from reactive_store import MutationCtx, QueryCtx, mutation, query


@query
async def query_spins(ctx: QueryCtx, number: float = 0) -> None:
    while True:
        pass  # named: query


@mutation
async def mutation_spins(ctx: MutationCtx) -> None:
    await ctx.db.insert("rooms", {"name": "never", "version": 1})
    while True:
        pass  # named: mutation


@mutation
async def swallows(ctx: MutationCtx, times: float) -> str:
    """Catches whatever interrupts it, so many times, and goes on."""
    await ctx.db.insert("rooms", {"name": "never", "version": 1})
    for _ in range(int(times)):
        try:
            while True:
                pass  # named: swallows
        except BaseException:
            pass
    return "as if nothing had happened"


@mutation
async def sleeps(ctx: MutationCtx, seconds: float) -> str:
    """Blocks the thread without computing."""
    select.select([], [], [], seconds)  # named: sleeps
    return "slept"


@query
async def allocates(ctx: QueryCtx) -> None:
    """Makes one list longer and longer."""
    kept: list[bytes] = []
    while True:
        kept.append(b"%d" % len(kept))


@query
async def reads_for_ever(ctx: QueryCtx) -> None:
    while True:
        await ctx.db.query("texts").collect()


@query
async def reads_points_for_ever(ctx: QueryCtx) -> None:
    number = 0
    while True:
        number += 1
        await ctx.db.query("rooms").with_index("by_name", name=f"{number}").unique()


@mutation
async def writes_for_ever(ctx: MutationCtx) -> None:
    while True:
        await ctx.db.insert("rooms", {"name": "never", "version": 1})


@mutation
async def writes_much_for_ever(ctx: MutationCtx) -> None:
    while True:
        await ctx.db.insert("texts", {"owner": "never", "text": "t" * 1_000_000})
