"""What an app with embeddings does: write a note, find the nearest."""

from typing import Any

from reactive_store import ActionCtx, MutationCtx, action, mutation


@mutation
async def write(ctx: MutationCtx, table: str, note: dict[str, Any]) -> None:
    await ctx.db.insert(table, note)


@action
async def near(ctx: ActionCtx, table: str, vector: list[float], topic: str | None = None):
    return await ctx.vector_search(
        table,
        "by_embedding",
        vector=vector,
        filter=None if topic is None else lambda f: f.eq("topic", topic),
    )
