"""What a page with uploads needs."""

from reactive_store import ActionCtx, Id, MutationCtx, QueryCtx, action, mutation, query


@mutation
async def upload_url(ctx: MutationCtx):
    return await ctx.storage.generate_upload_url()


@mutation
async def save(ctx: MutationCtx, storage_id: Id["_storage"], name: str):
    return await ctx.db.insert("files", {"storageId": storage_id, "name": name})


@query
async def listing(ctx: QueryCtx):
    found = []
    for file in await ctx.db.query("files").collect():
        stored = await ctx.db.system.get(file["storageId"])
        found.append(
            {
                "id": file["_id"],
                "name": file["name"],
                "url": await ctx.storage.get_url(file["storageId"]),
                "type": None if stored is None else stored["contentType"],
            }
        )
    return found


@mutation
async def remove(ctx: MutationCtx, id: Id["files"]):
    file = await ctx.db.get(id)
    await ctx.storage.delete(file["storageId"])
    await ctx.db.delete(id)


@query
async def stored(ctx: QueryCtx):
    rows = await ctx.db.system.query("_storage").collect()
    return [
        {"id": row["_id"], "sha256": row["sha256"], "url": await ctx.storage.get_url(row["_id"])}
        for row in rows
    ]


@mutation
async def forget(ctx: MutationCtx, storage_id: Id["_storage"]):
    await ctx.storage.delete(storage_id)


@action
async def copy(ctx: ActionCtx, storage_id: Id["_storage"]):
    file = await ctx.storage.get(storage_id)
    return await ctx.storage.store(file, content_type=file.content_type)
