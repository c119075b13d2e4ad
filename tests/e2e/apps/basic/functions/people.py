"""Who is calling, as the app sees it; and things that take time or talk."""

import asyncio

from reactive_store import ActionCtx, QueryCtx, action, query


@query
async def who_am_i(ctx: QueryCtx) -> str | None:
    identity = await ctx.auth.get_user_identity()
    return identity.token_identifier if identity else None


@action
async def wait(ctx: ActionCtx, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"waited {seconds}"


@query
async def talk(ctx: QueryCtx, text: str) -> str:
    print("heard", text)
    return text.upper()
