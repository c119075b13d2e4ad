"""Writing notes, and finding them while somebody types."""

from reactive_store import Id, MutationCtx, PaginationOpts, QueryCtx, mutation, query


@mutation
async def add(ctx: MutationCtx, folder: str, texts: list[str]) -> list[Id["notes"]]:
    return [await ctx.db.insert("notes", {"folder": folder, "text": text}) for text in texts]


@mutation
async def edit(ctx: MutationCtx, id: Id["notes"], text: str) -> None:
    await ctx.db.patch(id, {"text": text})


@mutation
async def remove(ctx: MutationCtx, id: Id["notes"]) -> None:
    await ctx.db.delete(id)


def _search(ctx: QueryCtx, text: str, folder: str | None):
    def wanted(s):
        s = s.search("text", text)
        return s if folder is None else s.eq("folder", folder)

    return ctx.db.query("notes").with_search_index("by_text", wanted)


@query
async def find(ctx: QueryCtx, text: str, folder: str | None = None) -> list[str]:
    return [note["text"] for note in await _search(ctx, text, folder).take(10)]


@query
async def find_page(ctx: QueryCtx, text: str, pagination_opts: PaginationOpts):
    return await _search(ctx, text, None).paginate(pagination_opts)


@query
async def find_wrongly(ctx: QueryCtx):
    return await ctx.db.query("notes").with_search_index("by_text", lambda s: s).collect()


@mutation
async def add_and_find(ctx: MutationCtx, text: str) -> list[str]:
    await ctx.db.insert("notes", {"folder": "new", "text": text})
    return [note["text"] for note in await _search(ctx, text, "new").take(10)]
