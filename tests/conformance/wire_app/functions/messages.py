"""What the wire tests call: a list, and every way for a call to end."""

import asyncio
import logging

from reactive_store import (
    ActionCtx,
    ConvexError,
    MutationCtx,
    QueryCtx,
    action,
    api,
    internal_query,
    mutation,
    query,
)


@query
async def default(ctx: QueryCtx):
    return [message["body"] async for message in ctx.db.query("messages")]


@query
async def bodies(ctx: QueryCtx):
    return [message["body"] async for message in ctx.db.query("messages")]


@query
async def parity(ctx: QueryCtx):
    """Whether the number is odd; says nothing of it."""
    return len(await ctx.db.query("messages").collect()) % 2


@query
async def loud(ctx: QueryCtx):
    """The same answer each time, and a line that is another one each time."""
    print("messages:", len(await ctx.db.query("messages").collect()))


@query
async def copies(ctx: QueryCtx):
    return [message["body"] async for message in ctx.db.query("copies")]


@query
async def page(ctx: QueryCtx, pagination_opts: dict):
    """The newest first."""
    return await ctx.db.query("messages").order("desc").paginate(pagination_opts)


@query
async def seventeen(ctx: QueryCtx):
    return 17


@internal_query
async def hidden(ctx: QueryCtx):
    return "hidden"


@mutation
async def send(ctx: MutationCtx, body: str):
    """One message and its copy; how many there are now."""
    print("sent", body)
    await ctx.db.insert("messages", {"body": body})
    await ctx.db.insert("copies", {"body": body})
    return len(await ctx.db.query("messages").collect())


@mutation
async def send_pair(ctx: MutationCtx):
    for body in ("one", "two"):
        await ctx.db.insert("messages", {"body": body})


@mutation
async def elsewhere(ctx: MutationCtx):
    await ctx.db.insert("others", {})


@mutation
async def fail(ctx: MutationCtx):
    print("about to fail")
    await ctx.db.insert("messages", {"body": "never"})
    raise ValueError("plain")


@mutation
async def refuse(ctx: MutationCtx, data: str | None):
    raise ConvexError(data)


@mutation
async def fail_once(ctx: MutationCtx):
    """Fails as long as there is no message."""
    if await ctx.db.query("messages").first() is None:
        raise ValueError("too early")
    return "late enough"


@action
async def quick(ctx: ActionCtx):
    return "quick"


@action
async def slow(ctx: ActionCtx):
    """Ends when somebody has sent a message."""
    while not await ctx.run_query(api.messages.bodies):
        await asyncio.sleep(0.01)
    return "slow"


@action
async def lose(ctx: ActionCtx, data: str | None):
    raise ConvexError(data)


@action
async def stumble(ctx: ActionCtx):
    raise ValueError("plain")


@query
async def fail_reading(ctx: QueryCtx, data: str | None = None, plain: bool = True):
    print("reading")
    if plain:
        raise ValueError("plain")
    raise ConvexError(data)


@query
async def chatter(ctx: QueryCtx, lines: int, characters: int):
    for number in range(lines):
        print(number)
    if characters:
        print("x" * characters)


@query
async def levels(ctx: QueryCtx):
    log = logging.getLogger("levels")
    log.debug("one")
    log.info("two")
    log.warning("three")
    log.error("four")
    print("five", 5, [None])
