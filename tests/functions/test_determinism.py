"""What queries and mutations are kept from, and that nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.functions.determinism import refuse_effects
from reactive_store.functions.outcome import Failure
from tests.functions.running import INLINE, FailedCall, Running

APP = """
bodies = {}

@internal_query
async def read(ctx, key: str):
    return await bodies[key](ctx)

@action
async def through(ctx, key: str):
    return await ctx.run_query("m:read", key=key)
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, {"m": APP, "inline": INLINE}) as running:
        yield running


async def sleep(ctx: Any) -> None:
    time.sleep(0.001)


async def connect(ctx: Any) -> None:
    socket.create_connection(("127.0.0.1", 1))


async def look_up(ctx: Any) -> None:
    socket.getaddrinfo("localhost", 80)


async def fetch(ctx: Any) -> None:
    urllib.request.urlopen("http://127.0.0.1:1/")


async def open_stream(ctx: Any) -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def stream_in_a_task(ctx: Any) -> None:
    await asyncio.create_task(open_stream(ctx))


async def fetch_in_a_thread(ctx: Any) -> None:
    await asyncio.to_thread(urllib.request.urlopen, "http://127.0.0.1:1/")


async def start_a_program(ctx: Any) -> None:
    subprocess.run([sys.executable, "-c", ""], check=False)


EFFECTS = [
    connect, look_up, fetch, open_stream, stream_in_a_task, fetch_in_a_thread, start_a_program,
]  # fmt: skip
if sys.version_info >= (3, 13):  # the first that tells of it
    EFFECTS.append(sleep)


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_query_or_mutation_is_kept_from_the_world(store: Running, effect: Any):
    """F110."""
    text = (
        r"Can't use (time\.sleep\(\)|the network|other programs) in queries and mutations\. Please "
        r"consider using an action\. See https://docs\.convex\.dev/functions/actions for more "
        r"details\."
    )
    for run in (store.reads, store.writes):
        with pytest.raises(FailedCall, match=text) as caught:
            await run(effect)
        assert "[ERROR] Can't use" in caught.value.failure.log_lines[-1]


async def test_a_query_that_an_action_runs_is_kept_from_it_too_and_its_line_shows(store: Running):
    key = "k"
    store.runner.app.functions["m.js:read"].handler.__globals__["bodies"][key] = look_up
    outcome = await store.outcome("action", "through", {"key": key}, ANONYMOUS)
    assert isinstance(outcome, Failure)
    assert "Can't use the network" in outcome.message
    assert outcome.log_lines[-1].startswith("[ERROR] Can't use the network")


async def test_an_action_may_do_what_it_likes(store: Running):
    async def everything(ctx: Any) -> str:
        await sleep(ctx)
        await look_up(ctx)
        for effect in (connect, open_stream):
            with contextlib.suppress(OSError):
                await effect(ctx)
        return "done"

    assert await store.acts(everything) == "done"


async def test_waiting_without_blocking_anybody_is_allowed(store: Running):
    async def wait(ctx: Any) -> str:
        await asyncio.sleep(0.001)
        return "waited"

    assert await store.writes(wait) == "waited"


def test_outside_of_functions_nothing_is_refused():
    refuse_effects()
    refuse_effects()
    time.sleep(0)
    socket.getaddrinfo("localhost", 80)
