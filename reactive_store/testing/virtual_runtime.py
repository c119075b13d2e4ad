"""Time that moves when it is told to, and chance that repeats itself.

- The clock starts at one fixed instant and stands still. `sleep` waits for `advance`.
- Sleepers wake in the order of their deadlines, each at the instant it asked for.
- One seed gives one stream of random bytes.

`sleep(0)` only lets others run, as everywhere.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final

__all__ = ["START", "VirtualRuntime"]

START: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""What the clock shows at first."""

# How many rounds of the event loop a woken sleeper gets to finish or to sleep again. What needs
# more (because it waits for a real disk, say) goes on while the clock moves.
_ROUNDS: Final = 100
_NS: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Sleeper:
    """One `sleep` under way."""

    __slots__ = ("deadline_ns", "number", "task", "wake")

    def __init__(self, deadline_ns: int, number: int) -> None:
        self.deadline_ns = deadline_ns
        self.number = number  # of equal deadlines the earlier sleeper wakes first
        self.wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.current_task()

    def __lt__(self, other: _Sleeper) -> bool:
        return (self.deadline_ns, self.number) < (other.deadline_ns, other.number)


class VirtualRuntime:
    """A `Runtime` for tests."""

    def __init__(self, *, seed: int = 0, start: datetime = START) -> None:
        self._start_ns = (
            round((start - datetime.fromtimestamp(0, UTC)) / timedelta(seconds=1)) * _NS
        )
        self._now_ns = self._start_ns
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._sleepers: list[_Sleeper] = []  # a heap
        self._count = 0
        # Awaited whenever somebody was woken, before the clock moves on: lets what that set in
        # motion happen. What is found at once costs least, since it is awaited very often.
        self.settle: Callable[[], Awaitable[None]] | None = None

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch, as far as the clock was moved."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """Seconds since the start."""
        return (self._now_ns - self._start_ns) / _NS

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._count += 1
        sleeper = _Sleeper(self._now_ns + round(seconds * _NS), self._count)
        heapq.heappush(self._sleepers, sleeper)
        try:
            await sleeper.wake
        finally:
            if not sleeper.wake.done() or sleeper.wake.cancelled():
                self._sleepers = [other for other in self._sleepers if other is not sleeper]
                heapq.heapify(self._sleepers)

    def random_bytes(self, count: int) -> bytes:
        """The next `count` bytes of the seed's stream."""
        return self._random.randbytes(count)

    def random_generator(self) -> random.Random:
        """A fresh generator, seeded from the stream."""
        return random.Random(self.random_bytes(16))  # noqa: S311 - repeatable on purpose

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a background task."""
        return asyncio.create_task(work, name=name)

    async def advance(self, duration: timedelta) -> None:
        """Move the clock, waking who sleeps until then; each gets to run before the next wakes.

        Raises   TypeError for a bare number, ValueError for a step back
        """
        if not isinstance(duration, timedelta):
            raise TypeError(f"advance takes a timedelta, such as timedelta(seconds={duration!r})")
        if duration < timedelta():
            raise ValueError(f"the clock cannot be moved back, here by {-duration}")
        target_ns = self._now_ns + duration // timedelta(microseconds=1) * 1000
        await self._let_run(None)
        if self.settle is not None:
            await self.settle()
        while self._sleepers and self._sleepers[0].deadline_ns <= target_ns:
            sleeper = heapq.heappop(self._sleepers)
            if sleeper.wake.done():
                await asyncio.sleep(0)  # cancelled by the one that woke before: it hears of it now
                continue
            self._now_ns = max(self._now_ns, sleeper.deadline_ns)
            sleeper.wake.set_result(None)
            await self._let_run(sleeper)
            if self.settle is not None:
                await self.settle()
        self._now_ns = target_ns

    async def _let_run(self, woken: _Sleeper | None) -> None:
        """Let tasks run: until the woken one sleeps again or is done, or for some rounds."""
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
            if woken is None or woken.task is None:
                continue
            asleep = any(other.task is woken.task for other in self._sleepers)
            if asleep or woken.task.done():
                return
