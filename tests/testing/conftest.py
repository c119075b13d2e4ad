"""A small app for the tests of the testing tools, as a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

SCHEMA = """
from reactive_store import define_schema, define_table, v

schema = define_schema({
    "notes": define_table({"text": v.string(), "at": v.number()}).index("by_text", ["text"]),
})
"""
NOTES = """
import asyncio

from reactive_store import (
    ActionCtx, ConvexError, MutationCtx, QueryCtx, action, internal, internal_mutation, mutation,
    query,
)


@query
async def list_all(ctx: QueryCtx, text: str | None = None) -> list[dict]:
    notes = await ctx.db.query("notes").collect()
    return [note for note in notes if text is None or note["text"] == text]


@query
async def who(ctx: QueryCtx) -> dict | None:
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else identity.to_json()


@mutation
async def add(ctx: MutationCtx, text: str) -> str:
    if text == "":
        raise ConvexError({"code": "empty"})
    print("adding", text)
    return await ctx.db.insert("notes", {"text": text, "at": ctx.now})


@internal_mutation
async def forget_all(ctx: MutationCtx) -> int:
    notes = await ctx.db.query("notes").collect()
    for note in notes:
        await ctx.db.delete(note["_id"])
    return len(notes)


@query
async def fail(ctx: QueryCtx, how: str) -> None:
    if how == "data":
        raise ConvexError("on purpose")
    raise ValueError(how)


@query
async def fail_when_full(ctx: QueryCtx, most: int) -> int:
    count = len(await ctx.db.query("notes").collect())
    if count > most:
        raise ConvexError({"count": count})
    return count


@action
async def twice(ctx: ActionCtx, text: str) -> list[str]:
    return [await ctx.run_mutation(internal.notes.add, text=text) for _ in range(2)]


@query
async def lucky(ctx: QueryCtx) -> float:
    return ctx.random.random()
"""


@pytest.fixture
def app_folder(tmp_path: Path) -> Path:
    """A folder with `schema.py` and `functions/notes.py`."""
    (tmp_path / "functions").mkdir()
    (tmp_path / "schema.py").write_text(SCHEMA)
    (tmp_path / "functions" / "notes.py").write_text(NOTES)
    return tmp_path
