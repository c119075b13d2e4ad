"""A chat: lists, pages, inserts."""

from reactive_store import (
    ActionCtx,
    ConvexError,
    Id,
    MutationCtx,
    PaginationOpts,
    QueryCtx,
    action,
    api,
    internal_mutation,
    mutation,
    query,
)


@query
async def in_channel(ctx: QueryCtx, channel: str, limit: int = 1000):
    return await ctx.db.query("messages").with_index("by_channel", channel=channel).take(limit)


@query
async def page_of_channel(ctx: QueryCtx, channel: str, pagination_opts: PaginationOpts):
    return (
        await ctx.db.query("messages")
        .with_index("by_channel", channel=channel)
        .order("desc")
        .paginate(pagination_opts)
    )


@query
async def bodies(ctx: QueryCtx, channel: str):
    found = await ctx.db.query("messages").with_index("by_channel", channel=channel).collect()
    return [message["body"] for message in found]


@mutation
async def send(ctx: MutationCtx, channel: str, author: str, body: str) -> Id["messages"]:
    if not body:
        raise ConvexError({"code": "empty", "field": "body"})
    return await ctx.db.insert("messages", {"channel": channel, "author": author, "body": body})


@mutation
async def send_many(ctx: MutationCtx, channel: str, count: int) -> int:
    for number in range(count):
        await ctx.db.insert(
            "messages", {"channel": channel, "author": "many", "body": f"message {number}"}
        )
    return count


@mutation
async def edit(ctx: MutationCtx, message_id: Id["messages"], body: str) -> None:
    await ctx.db.patch(message_id, {"body": body})


@mutation
async def remove(ctx: MutationCtx, message_id: Id["messages"]) -> None:
    await ctx.db.delete(message_id)


@internal_mutation
async def forget_channel(ctx: MutationCtx, channel: str) -> None:
    async for message in ctx.db.query("messages").with_index("by_channel", channel=channel):
        await ctx.db.delete(message["_id"])


@action
async def relay(ctx: ActionCtx, channel: str, body: str) -> str:
    """Writes through a mutation, reads it back through a query."""
    await ctx.run_mutation(api.messages.send, channel=channel, author="relay", body=body)
    found = await ctx.run_query(api.messages.bodies, channel=channel)
    return found[-1]
