"""Reminders: asked for now, delivered later, called off in between."""

from datetime import timedelta
from typing import Any

from reactive_store import (
    ActionCtx,
    Id,
    MutationCtx,
    QueryCtx,
    internal,
    internal_action,
    internal_mutation,
    mutation,
    query,
)


@mutation
async def remind(
    ctx: MutationCtx, owner: str, text: str, seconds: float
) -> Id["_scheduled_functions"]:
    delay = timedelta(seconds=seconds)
    return await ctx.scheduler.run_after(delay, internal.reminders.deliver, owner=owner, text=text)


@mutation
async def send(ctx: MutationCtx, owner: str) -> Id["_scheduled_functions"]:
    return await ctx.scheduler.run_after(timedelta(0), internal.reminders.go_wrong, owner=owner)


@mutation
async def call_off(ctx: MutationCtx, id: Id["_scheduled_functions"]) -> None:
    await ctx.scheduler.cancel(id)


@internal_mutation
async def deliver(ctx: MutationCtx, owner: str, text: str) -> None:
    await ctx.db.insert("delivered", {"owner": owner, "text": text})


@internal_action
async def go_wrong(ctx: ActionCtx, owner: str) -> None:
    await ctx.run_mutation(internal.reminders.deliver, owner=owner, text="before the failure")
    raise ValueError("the mail server is down")


@query
async def delivered(ctx: QueryCtx, owner: str) -> list[str]:
    rows = await ctx.db.query("delivered").filter(lambda f: f.field("owner") == owner).collect()
    return [row["text"] for row in rows]


@query
async def status(ctx: QueryCtx, id: Id["_scheduled_functions"]) -> dict[str, Any] | None:
    job = await ctx.db.system.get(id)
    return None if job is None else dict(job)
