"""Functions with arguments of every kind, and one for every way to fail.

What the app raises by accident is always an `AppFault`, so any other class of exception that a
client hears of was raised by the product itself.
"""

from typing import Any, Literal

from reactive_store import (
    ActionCtx,
    ConvexError,
    Id,
    Int64,
    MutationCtx,
    QueryCtx,
    action,
    api,
    internal_query,
    mutation,
    query,
)


class AppFault(Exception):
    """The app's own bug."""


@query
async def canary(ctx: QueryCtx, number: float) -> float:
    return number + 1


@query
async def echo(ctx: QueryCtx, value: Any):
    return value


@query
async def anything(ctx: QueryCtx, **given: Any):
    return given


@query
async def shape(
    ctx: QueryCtx,
    name: str,
    count: int = 1,
    ratio: float = 0.5,
    flag: bool = False,
    tags: list[str] | None = None,
    counts: dict[str, int] | None = None,
    note_id: Id["notes"] | None = None,
    big: Int64 | None = None,
    raw: bytes = b"",
    mode: Literal["a", "b", 1] = "a",
) -> str:
    return f"{name}/{count}/{flag}/{mode}"


@query
async def some(ctx: QueryCtx, limit: float) -> int:
    return len(await ctx.db.query("kept").take(limit))


@mutation
async def keep(ctx: MutationCtx, value: Any) -> Id["kept"]:
    return await ctx.db.insert("kept", {"value": value})


@query
async def kept(ctx: QueryCtx, key: str):
    known = ctx.db.normalize_id("kept", key)
    found = await ctx.db.get(known) if known else None
    return found["value"] if found else None


@query
async def get(ctx: QueryCtx, key: str) -> bool:
    return await ctx.db.get("kept", key) is not None


@query
async def fails(ctx: QueryCtx) -> None:
    print("LOGGED-DETAIL")
    raise AppFault("INTERNAL-DETAIL")


@mutation
async def fails_late(ctx: MutationCtx) -> None:
    await ctx.db.insert("kept", {"value": 1})
    raise AppFault("INTERNAL-DETAIL")


@query
async def refuses(ctx: QueryCtx, data: Any) -> None:
    raise ConvexError(data)


@action
async def acts(ctx: ActionCtx, number: float) -> float:
    print("LOGGED-DETAIL")
    return await ctx.run_query(api.odds.canary, number=number)


@action
async def fails_in_action(ctx: ActionCtx) -> None:
    raise AppFault("INTERNAL-DETAIL")


@internal_query
async def hidden(ctx: QueryCtx) -> str:
    return "HIDDEN-DETAIL"
