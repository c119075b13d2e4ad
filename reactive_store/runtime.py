"""The only door to time, chance and background work.

Everything that varies between runs comes through a `Runtime` given at start, so that the same
engine runs in production, under a virtual clock in tests, and in simulation.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Coroutine
from typing import Any, Protocol

__all__ = ["Runtime", "SystemRuntime"]


class Runtime(Protocol):
    """Clock, sleep, randomness and tasks."""

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since the Unix epoch. May jump; commit timestamps never do."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait at least `seconds`."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes (a seeded stream under a test runtime)."""
        ...

    def random_generator(self) -> random.Random:
        """A fresh generator, seeded from `random_bytes`; handed to one function execution."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a background task. The caller owns it: it keeps the handle and awaits its end."""
        ...


class SystemRuntime:
    """The real clock and the operating system's randomness."""

    _POOL_BYTES = 4096

    def __init__(self) -> None:
        # Random bytes are bought in bulk: one system call per document id costs 1 µs each.
        self._pool = b""
        self._offset = 0

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        end = self._offset + count
        if end > len(self._pool):
            self._pool = os.urandom(max(self._POOL_BYTES, count))
            self._offset, end = 0, count
        taken = self._pool[self._offset : end]
        self._offset = end
        return taken

    def random_generator(self) -> random.Random:
        return random.Random(self.random_bytes(16))  # noqa: S311 - app-level, documented as not cryptographic

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)
