"""Who is calling, and what is theirs."""

from reactive_store import (
    ActionCtx,
    ConvexError,
    MutationCtx,
    QueryCtx,
    action,
    api,
    mutation,
    query,
)


@query
async def me(ctx: QueryCtx):
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else {"subject": identity.subject, "name": identity.name}


@query
async def mine(ctx: QueryCtx) -> list[str]:
    identity = await ctx.auth.get_user_identity()
    if identity is None:
        return []
    notes = ctx.db.query("notes").with_index("by_owner", lambda q: q.eq("owner", identity.subject))
    return [note["text"] for note in await notes.collect()]


@mutation
async def write(ctx: MutationCtx, text: str) -> str:
    identity = await ctx.auth.get_user_identity()
    if identity is None:
        raise ConvexError("log in first")
    await ctx.db.insert("notes", {"owner": identity.subject, "text": text})
    return identity.subject


@action
async def who_acts(ctx: ActionCtx):
    return await ctx.run_query(api.people.me)
