"""The app of the simulated runs; `questions.py` says what its answers have to be."""

from typing import Any

from reactive_store import ActionCtx, ConvexError, MutationCtx, QueryCtx, action, mutation, query
from tests.trust.protocol.pauses import PAUSE


async def total(ctx: QueryCtx, name: str) -> float:
    effects = ctx.db.query("effects").with_index("by_name", name=name)
    return sum([effect["by"] async for effect in effects])


async def who(ctx: QueryCtx | MutationCtx) -> str | None:
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else identity.subject


async def leave(ctx: MutationCtx, token: str, name: str, by: float) -> None:
    await ctx.db.insert("effects", {"token": token, "name": name, "by": by, "who": await who(ctx)})


@query
async def value(ctx: QueryCtx, name: str) -> float:
    return await total(ctx, name)


@query
async def both(ctx: QueryCtx) -> dict[str, Any]:
    sums = {name: await total(ctx, name) for name in ("a", "b", "c")}
    return {**sums, "padding": "ä€𝄞" * 60}


@query
async def mine(ctx: QueryCtx, name: str) -> list[Any]:
    return [await who(ctx), await total(ctx, name)]


@query
async def odd(ctx: QueryCtx, name: str) -> float:
    count = await total(ctx, name)
    if count % 2:
        raise ConvexError({"odd": count})
    return count


@query
async def page(ctx: QueryCtx, pagination_opts: Any) -> list[str]:
    found = await ctx.db.query("effects").with_index("by_token").paginate(pagination_opts)
    return [effect["token"] for effect in found.page]


@mutation
async def add(ctx: MutationCtx, name: str, token: str) -> float:
    await leave(ctx, token, name, 1)
    return await total(ctx, name)


@mutation
async def move(ctx: MutationCtx, source: str, target: str, token: str) -> float:
    await leave(ctx, token + "-", source, -1)
    await leave(ctx, token + "+", target, 1)
    return await total(ctx, source)


@mutation
async def refuse(ctx: MutationCtx, name: str, token: str) -> None:
    await leave(ctx, token, name, 1)
    raise ConvexError({"refused": token})


@action
async def act(ctx: ActionCtx, name: str, token: str) -> float:
    await PAUSE[-1]()
    done = await ctx.run_mutation("app:add", name=name, token=token)
    await PAUSE[-1]()
    return done
