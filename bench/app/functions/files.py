"""What a page with uploads calls."""

from __future__ import annotations

from reactive_store import MutationCtx, QueryCtx, mutation, query


@mutation
async def upload_url(ctx: MutationCtx):
    return await ctx.storage.generate_upload_url()


@query
async def url(ctx: QueryCtx, id: str):
    return await ctx.storage.get_url(id)
