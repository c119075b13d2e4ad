"""Notes that only their owner may see, by page, by id and as a result of a mutation."""

from reactive_store import Id, MutationCtx, Page, PaginationOpts, QueryCtx, mutation, query


async def _me(ctx: QueryCtx | MutationCtx) -> str:
    identity = await ctx.auth.get_user_identity()
    return identity.token_identifier if identity else "nobody"


@query
async def mine(ctx: QueryCtx, pagination_opts: PaginationOpts) -> Page:
    owner = await _me(ctx)
    notes = ctx.db.query("notes").with_index("by_owner", owner=owner)
    return await notes.paginate(pagination_opts)


@query
async def texts(ctx: QueryCtx) -> list[str]:
    notes = ctx.db.query("notes").with_index("by_owner", owner=await _me(ctx))
    return [note["text"] async for note in notes]


@query
async def read(ctx: QueryCtx, note_id: Id["notes"]) -> str | None:
    note = await ctx.db.get(note_id)
    return note["text"] if note is not None and note["owner"] == await _me(ctx) else None


@mutation
async def write(ctx: MutationCtx, text: str) -> str:
    await ctx.db.insert("notes", {"owner": await _me(ctx), "text": text})
    return text


@mutation
async def remove(ctx: MutationCtx, note_id: Id["notes"]) -> bool:
    note = await ctx.db.get(note_id)
    if note is None or note["owner"] != await _me(ctx):
        return False
    await ctx.db.delete(note_id)
    return True
