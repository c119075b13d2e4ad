"""Writes that touch nobody while others watch: `python -m bench.bystanders COUNTS SECONDS` → JSON.

In this process, without sockets: with them the memory of a hundred thousand connections would be
measured, not what a commit costs. The engine, the functions and the live queries are the real
ones, on the embedded database, durable as by default. Rates are measured in turns, so that a slow
moment of the machine meets them all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import orjson

from bench.answer import median
from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.live_queries import Watch
from reactive_store.functions.loader import load_app

__all__ = ["main"]

APP = Path(__file__).resolve().parent / "app"
WRITERS = 16
ROUNDS = 3
_ANYBODY = Caller(None, is_admin=False)


async def write_for(backend: Backend, seconds: float) -> float:
    """Mutations per second of writers that go round in a closed loop."""
    deadline = time.perf_counter() + seconds
    written = 0

    async def writer(number: int) -> None:
        nonlocal written
        args = orjson.dumps({"room": f"nobody-{number}", "number": number})
        while time.perf_counter() < deadline:
            await backend.runner.mutation("board.js:post", args, _ANYBODY)
            written += 1

    start = time.perf_counter()
    await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    return written / (time.perf_counter() - start)


async def watch(backend: Backend, first: int, last: int) -> list[Watch]:
    """Open subscriptions, each of a room of its own."""
    opened = []
    for number in range(first, last):
        args = orjson.dumps({"room": f"watched-{number}"})
        each = backend.live_queries.watch("board.js:latest", args, _ANYBODY, None, _told)
        await each.result(backend.database.latest_ts)
        opened.append(each)
    return opened


def _told() -> None:
    raise AssertionError("a write told somebody it does not touch")


async def measure(folder: Path, counts: list[int], seconds: float) -> dict[str, object]:
    """Rates with none open, before and after, and with each of the counts."""
    settings = Settings(app=APP, data=folder)
    backend = await Backend.open(settings, app=load_app(APP))
    rates: dict[int, list[float]] = {count: [] for count in [0, *counts]}
    opening: list[float] = []
    try:
        await write_for(backend, 0.5)
        for _ in range(ROUNDS):
            opened: list[Watch] = []
            for count in [0, *counts]:
                start = time.perf_counter()
                opened += await watch(backend, len(opened), count)
                opening.append(time.perf_counter() - start)
                rates[count].append(await write_for(backend, seconds))
            for each in opened:
                each.close()
            opened.clear()
        rates[0].append(await write_for(backend, seconds))
    finally:
        await backend.close()
    return {
        "rates": {str(count): median(each) for count, each in rates.items()},
        "none": rates[0],
        "open_seconds": sum(opening) / ROUNDS,
    }


def main() -> None:
    """Measure and print."""
    counts, seconds = json.loads(sys.argv[1]), float(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="reactive-store-bench-") as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), counts, seconds))))


if __name__ == "__main__":
    main()
