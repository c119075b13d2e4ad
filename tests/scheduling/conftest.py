"""An app that schedules, for the tests of the loops."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

SCHEMA = """
from reactive_store import define_schema, define_table, v

schema = define_schema({"notes": define_table({"text": v.string()})})
"""
NOTES = """
import asyncio
from datetime import UTC, datetime, timedelta

from reactive_store import (
    ActionCtx, ConvexError, Id, MutationCtx, QueryCtx, action, internal, internal_action,
    internal_mutation, mutation, query,
)

gate = asyncio.Event()


@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note["text"] for note in await ctx.db.query("notes").collect()]


@query
async def jobs(ctx: QueryCtx) -> list[dict]:
    return await ctx.db.system.query("_scheduled_functions").collect()


@query
async def job(ctx: QueryCtx, id: Id["_scheduled_functions"]) -> dict | None:
    return await ctx.db.system.get(id)


@mutation
async def add(ctx: MutationCtx, text: str) -> None:
    print("adding", text)
    await ctx.db.insert("notes", {"text": text})


@mutation
async def add_at(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": f"{text} at {ctx.now:.0f}"})


@mutation
async def add_later(ctx: MutationCtx, text: str, seconds: float = 0) -> str:
    return await ctx.scheduler.run_after(timedelta(seconds=seconds), internal.notes.add, text=text)


@mutation
async def fail(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})
    await ctx.scheduler.run_after(timedelta(0), internal.notes.add, text="from a failure")
    raise ConvexError({"why": text})


@mutation
async def chain(ctx: MutationCtx, left: int) -> None:
    await ctx.db.insert("notes", {"text": str(left)})
    if left:
        await ctx.scheduler.run_after(timedelta(seconds=1), internal.notes.chain, left=left - 1)


@internal_mutation
async def look_at_own_job(ctx: MutationCtx) -> None:
    for each in await ctx.db.system.query("_scheduled_functions").collect():
        await ctx.db.insert("notes", {"text": each["state"]["kind"]})


@internal_mutation
async def cancel_oneself(ctx: MutationCtx) -> None:
    for each in await ctx.db.system.query("_scheduled_functions").collect():
        await ctx.scheduler.cancel(each["_id"])


@internal_action
async def wait(ctx: ActionCtx, text: str) -> None:
    await ctx.run_mutation(internal.notes.add, text=f"{text} begins")
    await gate.wait()
    await ctx.run_mutation(internal.notes.add, text=f"{text} goes on")
    await ctx.scheduler.run_after(timedelta(0), internal.notes.add, text=f"{text} scheduled")
    await ctx.run_mutation(internal.notes.add_later, text=f"{text} scheduled by its mutation")


@internal_action
async def go_wrong(ctx: ActionCtx) -> None:
    await ctx.run_mutation(internal.notes.add, text="kept")
    raise ValueError("an action that fails")


@internal_mutation
async def who(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": repr(await ctx.auth.get_user_identity())})


@action
async def who_is_asked(ctx: ActionCtx) -> None:
    await ctx.run_mutation(internal.notes.who)
    await ctx.scheduler.run_after(timedelta(0), internal.notes.who)


def not_exposed() -> None:
    pass
"""
CRONS = """
from datetime import timedelta

from reactive_store import Crons, internal

crons = Crons()
"""


def write_app(root: Path, *, notes: str = NOTES, crons: str | None = None) -> Path:
    """An app's folder: the functions above, and crons registered by the lines given."""
    (root / "functions").mkdir(parents=True, exist_ok=True)
    (root / "schema.py").write_text(SCHEMA)
    (root / "functions" / "notes.py").write_text(notes)
    file = root / "functions" / "crons.py"
    if crons is None:
        file.unlink(missing_ok=True)
    else:
        file.write_text(CRONS + textwrap.dedent(crons))
    return root


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The folder of that app, without crons."""
    return write_app(tmp_path)
