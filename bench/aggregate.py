"""`python -m bench.aggregate [ITEMS]`: what the kit's aggregates cost on SQLite.

Fills an aggregate, asks it, and lets 1 and 16 clients add items at random places. Prints times of
questions (the median of 50) and mutations per second with the conflicts they had.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from reactive_store import MutationCtx, define_schema
from reactive_store.cli.collector import settle_collector
from reactive_store.kit.aggregate import Aggregate, Bounds, Item, aggregate_tables
from reactive_store.limits import Limits
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.testing import TestBackend

__all__ = ["main"]

SCHEMA = define_schema(aggregate_tables())
BATCH = 200
SECONDS = 4.0


async def fill(t: TestBackend, aggregate: Aggregate, items: int, rng: Random) -> None:
    """Add items in batches of one mutation each."""
    for start in range(0, items, BATCH):

        async def add(ctx: MutationCtx, start: int = start) -> None:
            for number in range(start, min(start + BATCH, items)):
                await aggregate.insert(ctx, Item(rng.random(), f"i{number}", 1))

        await t.run(add)


async def ask(t: TestBackend, aggregate: Aggregate, items: int, rng: Random) -> dict[str, float]:
    """Milliseconds of each question."""
    questions: dict[str, Callable[[MutationCtx], Awaitable[Any]]] = {
        "count": aggregate.count,
        "rank": lambda ctx: aggregate.offset_of(ctx, rng.random()),
        "at": lambda ctx: aggregate.at(ctx, rng.randrange(items)),
        "sum of a half": lambda ctx: aggregate.sum(ctx, bounds=Bounds(gte=0.25, lt=0.75)),
        "max": aggregate.max,
    }
    found: dict[str, float] = {}
    for name, question in questions.items():

        async def work(
            ctx: MutationCtx, question: Callable[[MutationCtx], Awaitable[Any]] = question
        ) -> list[float]:
            times = []
            for _ in range(50):
                started = time.perf_counter()
                await question(ctx)
                times.append((time.perf_counter() - started) * 1000)
            return times

        found[name] = statistics.median(await t.run(work))
    return found


async def load(t: TestBackend, aggregate: Aggregate, clients: int) -> tuple[float, int]:
    """Mutations per second that add one item each, and how many conflicts there were."""
    added = 0
    until = time.perf_counter() + SECONDS
    before = t.backend.database.statistics().conflicts

    async def client(number: int) -> None:
        nonlocal added
        turn = 0
        while time.perf_counter() < until:
            turn += 1

            async def add(ctx: MutationCtx, turn: int = turn) -> None:
                identity = f"c{clients}-{number}-{turn}"
                await aggregate.insert(ctx, Item(ctx.random.random(), identity, 1))

            await t.run(add)
            added += 1

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    rate = added / (time.perf_counter() - started)
    return rate, t.backend.database.statistics().conflicts - before


async def main(items: int) -> None:
    """Run everything and print it."""
    settle_collector()  # as a server does
    aggregate, rng = Aggregate("bench"), Random(1)
    with tempfile.TemporaryDirectory() as folder:
        persistence = await SqlitePersistence.open(Path(folder) / "data.sqlite3")
        limits = Limits(compute_seconds=60)  # filling is not what is measured
        async with TestBackend(schema=SCHEMA, persistence=persistence, limits=limits) as t:
            started = time.perf_counter()
            await fill(t, aggregate, items, rng)
            each = (time.perf_counter() - started) / items
            print(f"{items:,} items filled, {each * 1e6:.0f} µs each")
            for name, ms in (await ask(t, aggregate, items, rng)).items():
                print(f"{name:>14}: {ms:.2f} ms")
            for clients in (1, 16):
                rate, conflicts = await load(t, aggregate, clients)
                print(f"{clients:>6} clients: {rate:,.0f} insertions/s, {conflicts} conflicts")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
