"""Results that stream into an experiment somebody watches."""

from reactive_store import MutationCtx, QueryCtx, mutation, query

_TEXT = "The price is fair, though I would rather pay once than every month. " * 6


@query
async def of_experiment(ctx: QueryCtx, room: str):
    return await ctx.db.query("results").with_index("by_experiment", experiment=room).collect()


@mutation
async def record(ctx: MutationCtx, room: str, number: int) -> str:
    return await ctx.db.insert("results", {"experiment": room, "number": number, "text": _TEXT})
