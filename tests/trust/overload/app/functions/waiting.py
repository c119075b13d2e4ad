"""Actions that take their time, and know how many of them there are."""

import asyncio
from typing import Any

from reactive_store import ActionCtx, MutationCtx, action, mutation

_now = 0
_most = 0


@action
async def stay(ctx: ActionCtx, seconds: float) -> str:
    """Wait."""
    global _now, _most
    _now += 1
    _most = max(_most, _now)
    try:
        await asyncio.sleep(seconds)
    finally:
        _now -= 1
    return "stayed"


@action
async def counts(ctx: ActionCtx) -> dict[str, Any]:
    """How many are waiting, and how many were at most."""
    return {"now": _now, "most": _most}


@mutation
async def stay_and_touch(ctx: MutationCtx, seconds: float) -> str:
    """A mutation that waits before it writes."""
    await asyncio.sleep(seconds)
    await ctx.db.insert("rooms", {"name": "waited", "version": 1})
    return "stayed"
