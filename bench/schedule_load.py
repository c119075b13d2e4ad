"""Scheduled mutations beside plain ones: `python -m bench.schedule_load DATA JOBS REPEATS` → JSON.

One process, no sockets, a durable store. The same write is made by plain mutations, sixteen at a
time; by functions that are scheduled a hundred by one mutation while those before run; and by
functions of which all are due when the loop first looks, as after a pause of the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.engine.catalog import BY_STATE, SCHEDULED_FUNCTIONS
from reactive_store.engine.interval import prefix_interval
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Success
from reactive_store.functions.scheduler import FAILED, PENDING
from reactive_store.values.order import encode_key

__all__ = ["main"]

APP = Path(__file__).resolve().parent / "app"
CLIENTS = 16
PER_MUTATION = 100
_SECONDS_PER_JOB = 0.001  # for scheduling them, well above what it takes
_ADMIN = Caller(None, is_admin=True)


class _Load:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def mutation(self, path: str, **args: Any) -> None:
        outcome = await self.backend.runner.mutation(path, args, _ADMIN)
        assert isinstance(outcome, Success), outcome

    async def plain(self, count: int) -> float:
        """Seconds for so many mutations by sixteen clients."""
        start = time.perf_counter()
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                await self.mutation("chores.js:do", number=number)

        await asyncio.gather(*[client() for _ in range(CLIENTS)])
        return time.perf_counter() - start

    async def schedule(self, count: int, at: float = 0.0) -> None:
        """Schedule so many functions for an instant, by default one that has passed."""
        at = at or time.time()
        for first in range(0, count, PER_MUTATION):
            await self.mutation("chores.js:schedule", first=first, count=PER_MUTATION, at=at)

    async def wait_finished(self) -> None:
        """Until no function is pending, durably."""
        database = self.backend.database
        while True:
            changed = asyncio.Event()
            transaction = database.begin()
            if not self._has(transaction, PENDING):
                assert not self._has(transaction, FAILED)
                return
            waiting = database.subscribe(
                transaction.read_set(), transaction.begin_ts, _setting(changed)
            )
            if not isinstance(waiting, int):
                await changed.wait()

    @staticmethod
    def _has(transaction: Any, kind: str) -> bool:
        prefix = encode_key(kind)
        interval = prefix_interval(prefix)
        scan = transaction.scan(SCHEDULED_FUNCTIONS, BY_STATE, interval, descending=True)
        return scan.next() is not None

    async def documents(self) -> int:
        """How many writes there are."""
        database = self.backend.database
        number = database.catalog.tables["accounts"].number
        found, start = 0, b""
        while True:
            page = database.persistence.scan_table(
                number, start, None, database.latest_ts, descending=False, limit=1000
            )
            found += len(page.rows)
            if page.exhausted:
                return found
            start = page.rows[-1].key + b"\x00"


def _setting(event: asyncio.Event) -> Callable[[int], None]:
    return lambda _ts: event.set()


async def _measure(data: Path, jobs: int, repeats: int) -> dict[str, Any]:
    plain: list[float] = []
    whole: list[float] = []
    due: list[float] = []
    settings = Settings(app=APP, data=data)
    backend = await Backend.open(settings, app=load_app(APP))
    load = _Load(backend)
    try:
        await load.plain(CLIENTS * 10)
        await load.schedule(PER_MUTATION)
        await load.wait_finished()
        before = await load.documents()
        for _ in range(repeats):
            plain.append(jobs / await load.plain(jobs))
            start = time.perf_counter()
            await load.schedule(jobs)
            await load.wait_finished()
            whole.append(jobs / (time.perf_counter() - start))
            plain.append(jobs / await load.plain(jobs))
            at = time.time() + 1.0 + jobs * _SECONDS_PER_JOB
            await load.schedule(jobs, at)
            assert time.time() < at, "not all were scheduled before they were due"
            await asyncio.sleep(at - time.time())
            await load.wait_finished()
            due.append(jobs / (time.time() - at))
        assert await load.documents() == before + 4 * repeats * jobs, (
            "not every write was made once"
        )
    finally:
        await backend.close()
    return {"plain": plain, "whole": whole, "due": due}


def main() -> None:
    """Measure and print."""
    data, jobs, repeats = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(asyncio.run(_measure(data, jobs, repeats))))


if __name__ == "__main__":
    main()
