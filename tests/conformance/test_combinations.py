"""Parts of the platform that meet in one app: handles, schedules, files, HTTP, the test harness."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from reactive_store.testing import TestBackend

NOTES = """
from datetime import timedelta
from reactive_store import (
    create_function_handle, internal, internal_action, internal_mutation, mutation, query, Id
)

@internal_mutation
async def add(ctx, text: str):
    await ctx.db.insert("notes", {"text": text})

@internal_action
async def relay(ctx, text: str):
    await ctx.run_mutation(internal.notes.add, text=f"relayed {text}")

@query
async def texts(ctx):
    return [note["text"] async for note in ctx.db.query("notes")]

@mutation
async def keep_handle(ctx):
    handle = create_function_handle(internal.notes.add)
    return await ctx.db.insert("handles", {"handle": handle})

@mutation
async def plan(ctx, key: Id["handles"], text: str):
    handle = (await ctx.db.get(key))["handle"]
    await ctx.run_mutation(handle, text=f"{text} now")
    await ctx.scheduler.run_after(timedelta(minutes=1), handle, text=f"{text} later")

@mutation
async def chain(ctx):
    await ctx.scheduler.run_after(timedelta(0), internal.notes.relay, text="at once")
    await ctx.scheduler.run_after(timedelta(hours=1), internal.notes.relay, text="after an hour")
"""
HTTP = """
from reactive_store import HttpRouter, Response

http = HttpRouter()

@http.route("/files", method="POST")
async def keep(ctx, request):
    kind = request.headers["content-type"]
    key = await ctx.storage.store(await request.body(), content_type=kind)
    stored = await ctx.storage.get(key)
    return Response(await stored.read(), media_type=stored.content_type)
"""


@pytest.fixture
async def t(tmp_path: Path) -> AsyncIterator[TestBackend]:
    folder = tmp_path / "functions"
    folder.mkdir()
    for name, source in {"notes": NOTES, "http": HTTP}.items():
        (folder / f"{name}.py").write_text(dedent(source), encoding="utf-8")
    async with TestBackend(app=tmp_path) as backend:
        yield backend


async def test_a_stored_handle_is_called_now_and_later(t: TestBackend):
    """F186."""
    key = await t.mutation("notes:keepHandle")
    await t.mutation("notes:plan", key=key, text="tea")
    assert await t.query("notes:texts") == ["tea now"]
    await t.advance(timedelta(minutes=1))
    assert await t.query("notes:texts") == ["tea now", "tea later"]


async def test_a_file_goes_through_an_http_action_unchanged(t: TestBackend):
    """F151, F194."""
    content = bytes(range(256))
    headers = {"Content-Type": "image/png"}
    response = await t.fetch("/files", method="POST", headers=headers, body=content)
    assert (response.status_code, response.content) == (200, content)
    assert response.headers["content-type"] == "image/png"


async def test_scheduled_functions_finish_at_once_or_as_the_clock_moves(t: TestBackend):
    """F194."""
    await t.mutation("notes:chain")
    await t.finish_scheduled_functions()
    assert await t.query("notes:texts") == ["relayed at once"]
    await t.advance(timedelta(minutes=59))
    assert await t.query("notes:texts") == ["relayed at once"]
    await t.advance(timedelta(minutes=1))
    assert await t.query("notes:texts") == ["relayed at once", "relayed after an hour"]
