"""What a type checker must not let an app's author write: each marked line is an error."""

from reactive_store import ActionCtx, MutationCtx, QueryCtx, action, api, mutation, query, v


@query  # wrong
async def writes(ctx: MutationCtx) -> None: ...


@mutation  # wrong
async def waits(ctx: ActionCtx) -> None: ...


@action  # wrong
async def reads(ctx: QueryCtx) -> None: ...


@query  # wrong
def plain(ctx: QueryCtx) -> int:
    return 1


@query
async def right(ctx: QueryCtx, limit: int) -> list[str]:
    return await right(ctx, "many")  # wrong


@query
async def forgets(ctx: QueryCtx) -> None:
    await right(ctx)  # wrong
    await ctx.run_mutation(api.notes.add)  # wrong
    await ctx.db.insert("notes", {})  # wrong


@query(args={"limit": int})  # wrong
async def untyped(ctx: QueryCtx, limit: int) -> None: ...


@query(returns=str)  # wrong
async def result(ctx: QueryCtx) -> str:
    return v.string()  # wrong
