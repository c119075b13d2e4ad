"""A persistence whose writes fail, or are held up, when a test says so.

    disk = FaultyPersistence(MemoryPersistence())
    disk.fail(at_write=3)                   # the third write from now on is refused
    go_on = disk.hold(at_write=1)           # the next one waits for go_on.set()

It keeps the contract otherwise: after a failure nothing is taken any more, and reads go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from reactive_store.errors import StoreFailed
from reactive_store.persistence.contract import (
    BackfillEntry,
    Commit,
    IndexId,
    Page,
    Persistence,
    Row,
    TableNumber,
    Timestamp,
)

__all__ = ["FaultyPersistence"]


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception
    is_written: bool


class FaultyPersistence:
    """Passes everything to another persistence, and counts its writes (calls of `append`)."""

    def __init__(self, inner: Persistence) -> None:
        self.inner = inner
        self.writes = 0  # begun since the start
        self._failures: dict[int, _Failure] = {}
        self._holds: dict[int, asyncio.Event] = {}
        self._failed: Exception | None = None

    def fail(
        self, *, at_write: int = 1, error: Exception | None = None, is_written: bool = False
    ) -> None:
        """Let a write fail: the next one, or the `at_write`-th from now.

        `is_written`: the disk takes it and only the answer is an error, as after a crash between
        the two. `error` is StoreFailed unless given.
        """
        failure = _Failure(error or StoreFailed("the disk is full (as a test wants)"), is_written)
        self._failures[self.writes + at_write] = failure

    def hold(self, *, at_write: int = 1) -> asyncio.Event:
        """Let a write wait until the event returned is set."""
        event = self._holds[self.writes + at_write] = asyncio.Event()
        return event

    @property
    def last_ts(self) -> Timestamp:
        """As the contract says."""
        return self.inner.last_ts

    async def append(self, commits: Sequence[Commit]) -> None:
        """Write, unless a fault was ordered for this write, or an earlier write failed."""
        self.writes += 1
        number = self.writes
        if (hold := self._holds.pop(number, None)) is not None:
            await hold.wait()
        if self._failed is not None:
            raise StoreFailed("an earlier write failed") from self._failed
        failure = self._failures.pop(number, None)
        if failure is None:
            await self.inner.append(commits)
            return
        self._failed = failure.error
        if failure.is_written:
            await self.inner.append(commits)
        raise failure.error

    def get(self, table: TableNumber, id: bytes, at: Timestamp) -> Row | None:
        """As the contract says."""
        return self.inner.get(table, id, at)

    def scan(
        self,
        index: IndexId,
        start: bytes,
        end: bytes | None,
        at: Timestamp,
        *,
        descending: bool,
        limit: int,
    ) -> Page:
        """As the contract says."""
        return self.inner.scan(index, start, end, at, descending=descending, limit=limit)

    def scan_table(
        self,
        table: TableNumber,
        start: bytes,
        end: bytes | None,
        at: Timestamp,
        *,
        descending: bool,
        limit: int,
    ) -> Page:
        """As the contract says."""
        return self.inner.scan_table(table, start, end, at, descending=descending, limit=limit)

    async def backfill(self, index: IndexId, entries: Sequence[BackfillEntry]) -> int:
        """As the contract says."""
        return await self.inner.backfill(index, entries)

    async def drop_index(self, index: IndexId) -> None:
        """As the contract says."""
        await self.inner.drop_index(index)

    async def trim(self, before: Timestamp) -> int:
        """As the contract says."""
        return await self.inner.trim(before)

    def get_global(self, name: str) -> bytes | None:
        """As the contract says."""
        return self.inner.get_global(name)

    async def set_global(self, name: str, value: bytes) -> None:
        """As the contract says."""
        await self.inner.set_global(name, value)

    async def close(self) -> None:
        """As the contract says."""
        await self.inner.close()
