"""A module in a folder."""

from reactive_store import Int64, QueryCtx, query


@query
async def kinds(ctx: QueryCtx):
    return {"big": Int64(2**62), "bytes": b"\x00\x01", "endless": float("inf"), "five": 5}
