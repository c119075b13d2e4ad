"""What a store of blobs promises: bytes under a key, whole or not at all.

A blob is written once, under a key nobody has used, and never changed. Rows of the database say
which blobs are files; a store knows none of that.

What every store keeps
- `put` is atomic and durable: when it has returned, the blob is whole and survives a loss of
  power; when it raises, or is cancelled, or the process dies, there is no blob under that key.
- No call holds a blob in memory: `put` takes blocks as they come and asks for the next one when
  the last is dealt with, `open` gives blocks of at most `BLOCK_BYTES` where it decides their size.
- A blob that is deleted while it is being read may go on or fail; it never turns into other bytes.
- What a dead process left half-written is no blob. `remove_unfinished` takes it away.

Keys are lower-case letters, digits and hyphens, 1 to 64 of them; `checked_key` says so.

Source: docs/decisions/0014-files.md
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol, Self

__all__ = ["BLOCK_BYTES", "BlobEntry", "BlobReading", "BlobStore", "checked_key"]

BLOCK_BYTES: Final = 256 * 1024

_KEY: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """One blob in a listing. Units: `stored_ms` is Unix milliseconds on the store's clock."""

    key: str
    size_bytes: int
    stored_ms: float


class BlobReading(Protocol):
    """A part of a blob being read: `async for block in reading`. Close it when done."""

    def __aiter__(self) -> Self:
        """Itself."""
        ...

    async def __anext__(self) -> bytes:
        """The next block, never empty.

        Raises   FilesUnavailable when the store does not give what it holds
        """
        ...

    async def aclose(self) -> None:
        """Let go of what is held open. Idempotent."""
        ...


class BlobStore(Protocol):
    """A place for blobs."""

    async def claim(self, owner: str) -> str:
        """Whose store this is: `owner` from now on, if it was nobody's.

        A store deletes nothing by itself, but its owner deletes what has no row; two deployments on
        one store would delete each other's files.
        """
        ...

    async def put(self, key: str, blocks: AsyncIterable[bytes]) -> None:
        """Keep the blocks under a new key; durable when it returns.

        What `blocks` raises ends it, and nothing is kept.

        Raises   FilesUnavailable[FileStorageFull, FileStorageUnavailable]
        """
        ...

    async def open(self, key: str, start: int, end: int) -> BlobReading:
        """Read the bytes from `start` to below `end`, which must lie inside the blob.

        Raises   NotFound[FileNotFound]; FilesUnavailable
        """
        ...

    async def delete(self, key: str) -> None:
        """Let a blob be gone; it is no error when it is already."""
        ...

    def entries(self) -> AsyncIterator[BlobEntry]:
        """Every blob, in no particular order; one that comes or goes meanwhile may be missed."""
        ...

    async def remove_unfinished(self) -> int:
        """Take away what earlier processes began and did not finish; how many."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...


def checked_key(key: str) -> str:
    """The key itself.

    Raises   ValueError for anything that could be more than a name: a path, say
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} cannot be the key of a blob")
    return key
