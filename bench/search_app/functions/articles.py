"""What an app with a search box does: write an article, show the best twenty."""

from typing import Any

from reactive_store import MutationCtx, QueryCtx, mutation, query


@mutation
async def write(ctx: MutationCtx, table: str, article: dict[str, Any]) -> None:
    await ctx.db.insert(table, article)


@mutation
async def write_and_find(ctx: MutationCtx, article: dict[str, Any], text: str) -> int:
    await ctx.db.insert("articles", article)
    found = ctx.db.query("articles").with_search_index("by_text", lambda s: s.search("text", text))
    return len(await found.take(20))


@query
async def find(ctx: QueryCtx, text: str, topic: str | None = None, salt: float = 0):
    def search(s):
        s = s.search("text", text)
        return s if topic is None else s.eq("topic", topic)

    found = await ctx.db.query("articles").with_search_index("by_text", search).take(20)
    return [article["_id"] for article in found]
