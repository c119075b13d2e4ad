"""Blobs in a dictionary: for tests, and gone with the process.

It holds whole blobs in memory, which is its nature and the one promise of the contract it breaks.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Self

from reactive_store.blobs.contract import BLOCK_BYTES, BlobEntry, checked_key
from reactive_store.errors import NotFound
from reactive_store.runtime import Runtime

__all__ = ["MemoryBlobs"]


class MemoryBlobs:
    """A `BlobStore` without a disk."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._blobs: dict[str, tuple[bytes, float]] = {}  # with when they came, Unix ms
        self._owner: str | None = None

    async def claim(self, owner: str) -> str:
        """As the contract says."""
        if self._owner is None:
            self._owner = owner
        return self._owner

    async def put(self, key: str, blocks: AsyncIterable[bytes]) -> None:
        """As the contract says."""
        checked_key(key)
        parts = [bytes(block) async for block in blocks]
        self._blobs[key] = (b"".join(parts), self._runtime.now_ns() / 1e6)

    async def open(self, key: str, start: int, end: int) -> _Reading:
        """As the contract says."""
        found = self._blobs.get(checked_key(key))
        if found is None:
            raise NotFound(f"File {key} not found", code="FileNotFound")
        return _Reading(memoryview(found[0])[start:end])

    async def delete(self, key: str) -> None:
        """As the contract says."""
        self._blobs.pop(checked_key(key), None)

    async def entries(self) -> AsyncIterator[BlobEntry]:
        """As the contract says."""
        for key, (data, stored_ms) in tuple(self._blobs.items()):
            yield BlobEntry(key, len(data), stored_ms)

    async def remove_unfinished(self) -> int:
        """Nothing here outlives its process."""
        return 0

    async def close(self) -> None:
        """Nothing is held open."""


class _Reading:
    """Blocks of a view."""

    def __init__(self, rest: memoryview) -> None:
        self._rest = rest

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        block, self._rest = self._rest[:BLOCK_BYTES], self._rest[BLOCK_BYTES:]
        return bytes(block)

    async def aclose(self) -> None:
        self._rest = self._rest[:0]
