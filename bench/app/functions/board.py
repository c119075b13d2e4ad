"""A board of posts in rooms: one write, one live question of twenty documents."""

from reactive_store import MutationCtx, QueryCtx, mutation, query

_BODY = "It is a truth universally acknowledged that a benchmark wants a document. " * 6


@query
async def latest(ctx: QueryCtx, room: str):
    return await ctx.db.query("posts").with_index("by_room", room=room).order("desc").take(20)


@mutation
async def post(ctx: MutationCtx, room: str, number: int) -> str:
    return await ctx.db.insert(
        "posts",
        {
            "room": room,
            "number": number,
            "author": f"author {number % 50}",
            "stars": number % 1000,
            "body": _BODY,
            "tags": ["bench", "post"],
        },
    )
