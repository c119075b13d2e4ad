"""Texts: large arguments, large documents, large results."""

from typing import Any

from reactive_store import MutationCtx, QueryCtx, mutation, query


@mutation
async def store(ctx: MutationCtx, owner: str, text: str, copies: float = 1) -> float:
    """Keep a text so many times; its length."""
    for _ in range(int(copies)):
        await ctx.db.insert("texts", {"owner": owner, "text": text})
    return len(text)


@query
async def count(ctx: QueryCtx, owner: str) -> float:
    """How many texts an owner has."""
    return len(await ctx.db.query("texts").with_index("by_owner", owner=owner).collect())


@query
async def size_of(ctx: QueryCtx, text: Any) -> float:
    """The length of an argument."""
    return len(text)


@query
async def long_answer(ctx: QueryCtx, size: float) -> str:
    """An answer of that size."""
    return "z" * int(size)
