"""A request that schedules a mutation, which schedules another one, and an action.

Nothing here looks whether it has been done before: what runs twice shows twice.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from reactive_store import (
    ActionCtx,
    MutationCtx,
    QueryCtx,
    internal,
    internal_action,
    internal_mutation,
    mutation,
    query,
)


@mutation
async def ask(ctx: MutationCtx, key: str, marks: str) -> str:
    await ctx.db.insert("asked", {"key": key})
    soon = timedelta(milliseconds=ctx.random.randrange(60))
    await ctx.scheduler.run_after(soon, internal.chores.first, key=key)
    await ctx.scheduler.run_after(soon, internal.chores.outside, key=key, marks=marks)
    return key


@internal_mutation
async def first(ctx: MutationCtx, key: str) -> None:
    await ctx.db.insert("effects", {"key": f"first {key}"})
    await ctx.scheduler.run_after(timedelta(0), internal.chores.second, key=key)


@internal_mutation
async def second(ctx: MutationCtx, key: str) -> None:
    await ctx.db.insert("effects", {"key": f"second {key}"})


@internal_action
async def outside(ctx: ActionCtx, key: str, marks: str) -> None:
    """Leaves its mark where no transaction can take it back, first of all."""
    with Path(marks).open("ab", buffering=0) as file:
        file.write(f"{key}\n".encode())
    await asyncio.sleep(ctx.random.random() * 0.05)
    await ctx.run_mutation(internal.chores.note, key=key)


@internal_mutation
async def note(ctx: MutationCtx, key: str) -> None:
    await ctx.db.insert("effects", {"key": f"outside {key}"})


@query
async def unfinished(ctx: QueryCtx) -> int:
    jobs = ctx.db.system.query("_scheduled_functions")
    pending = jobs.filter(
        lambda f: f.or_(
            f.eq(f.field("state.kind"), "pending"), f.eq(f.field("state.kind"), "inProgress")
        )
    )
    return len(await pending.collect())


@query
async def survey(ctx: QueryCtx) -> dict[str, list[str]]:
    """Everything: keys asked for, effects, and each job as `function key state error`."""
    return {
        "asked": [row["key"] for row in await ctx.db.query("asked").collect()],
        "effects": [row["key"] for row in await ctx.db.query("effects").collect()],
        "jobs": [
            " ".join(
                [
                    job["name"].partition(":")[2],
                    job["args"][0]["key"],
                    job["state"]["kind"],
                    job["state"].get("error", "").strip(),
                ]
            ).strip()
            for job in await ctx.db.system.query("_scheduled_functions").collect()
        ],
    }
