"""One function per way to fail."""

from typing import Any

from reactive_store import (
    ActionCtx,
    ConvexError,
    Id,
    MutationCtx,
    QueryCtx,
    action,
    internal_query,
    mutation,
    query,
    v,
)


@query
async def on_purpose(ctx: QueryCtx, data: Any) -> None:
    raise ConvexError(data)


@query
async def by_accident(ctx: QueryCtx) -> None:
    raise ValueError("secret detail")


@query(args={}, returns=v.string())
async def wrong_return(ctx: QueryCtx):
    return 17


@mutation
async def after_writing(ctx: MutationCtx, channel: str) -> None:
    await ctx.db.insert("messages", {"channel": channel, "author": "ghost", "body": "never"})
    raise ConvexError({"code": "rolled_back"})


@mutation
async def against_the_schema(ctx: MutationCtx) -> None:
    await ctx.db.insert("messages", {"channel": 1, "author": "x", "body": "y"})


@mutation
async def patch_what_is_gone(ctx: MutationCtx, message_id: Id["messages"]) -> None:
    await ctx.db.delete(message_id)
    await ctx.db.patch(message_id, {"body": "late"})


@action
async def in_action(ctx: ActionCtx) -> None:
    raise ConvexError("action refused")


@internal_query
async def hidden(ctx: QueryCtx) -> str:
    return "nobody outside sees this"


@query
async def when_counter_is_odd(ctx: QueryCtx, name: str) -> float:
    """Fails and recovers as the counter moves, so a live query changes between error and value."""
    counter = await ctx.db.query("counters").with_index("by_name", name=name).unique()
    value = counter["value"] if counter else 0
    if value % 2:
        raise ConvexError({"odd": value})
    return value
