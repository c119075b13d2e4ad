"""Blobs as files of a directory: written aside, synced, then renamed into place.

    DIRECTORY/
      owner                   whose it is
      unfinished/KEY.N        being written, or left by a process that died
      00/ … ff/KEY            a blob, by the first two characters of its key's digest

All folders are there, and durable, before the first blob comes, so that a blob needs two syncs: of
its bytes before the rename, of its folder after it. What the operating system is asked to do, it
is asked for in threads of this store's own; the event loop never waits for the disk.

Invariants
- Under a blob's name there is never less than the whole blob.
- One thread at a time works on one file, also when whoever waits for it is cancelled: a thread
  cannot be interrupted, so nothing else begins before it has ended.

Source: docs/decisions/0014-files.md; POSIX on rename and fsync
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Final, Self, TypeVar

from reactive_store.blobs.contract import BLOCK_BYTES, BlobEntry, checked_key
from reactive_store.errors import FilesUnavailable, NotFound

__all__ = ["DiskBlobs"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

_THREADS: Final = 8
_LISTED_AT_ONCE: Final = 16  # folders
_OWNER: Final = "owner"
_UNFINISHED: Final = "unfinished"
_FOLDERS: Final = tuple(f"{number:02x}" for number in range(256))
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BINARY: Final = getattr(os, "O_BINARY", 0)  # Windows would change line ends


class DiskBlobs:
    """A `BlobStore` in a directory of this machine."""

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        """`durable`: blobs survive a loss of power, not only the end of the process."""
        self._directory = directory
        self._durable = durable
        self._numbers = count(1)
        # What this process is writing, from before its file is there until after it is not.
        self._under_way: set[str] = set()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")

    @classmethod
    async def open_directory(cls, directory: Path, *, durable: bool = True) -> Self:
        """Make the folders that are not there yet."""
        store = cls(directory, durable=durable)
        try:
            await store._in_thread(store._prepare)
        except BaseException:
            await store.close()
            raise
        return store

    async def claim(self, owner: str) -> str:
        """As the contract says."""
        return await self._in_thread(self._claim, owner)

    async def put(self, key: str, blocks: AsyncIterable[bytes]) -> None:
        """As the contract says."""
        aside = self._path(_UNFINISHED, f"{checked_key(key)}.{next(self._numbers)}")
        writing = _Writing(aside)
        self._under_way.add(aside)
        try:
            await self._in_thread(writing.begin)
            async for block in blocks:
                await self._in_thread(writing.write, block)
            await self._in_thread(self._publish, writing, key)
        except BaseException as error:
            await self._in_thread(writing.abandon)
            if isinstance(error, FileNotFoundError):  # somebody else was here
                raise _unavailable(error) from error
            raise
        finally:
            self._under_way.discard(aside)

    async def open(self, key: str, start: int, end: int) -> _Reading:
        """As the contract says."""
        reading = _Reading(self, self._path_of(key), start, end)
        try:
            await self._in_thread(reading.begin)
        except FileNotFoundError as error:
            raise NotFound(f"File {key} not found", code="FileNotFound") from error
        except BaseException:
            await reading.aclose()
            raise
        return reading

    async def delete(self, key: str) -> None:
        """As the contract says."""
        await self._in_thread(self._delete, self._path_of(key))

    async def entries(self) -> AsyncIterator[BlobEntry]:
        """As the contract says; a few folders are listed at a time."""
        for first in range(0, len(_FOLDERS), _LISTED_AT_ONCE):
            folders = _FOLDERS[first : first + _LISTED_AT_ONCE]
            for entry in await self._in_thread(self._list, folders):
                yield entry

    async def remove_unfinished(self) -> int:
        """As the contract says."""
        return await self._in_thread(self._remove_unfinished)

    async def close(self) -> None:
        """End the threads, after what they are doing."""
        self._threads.shutdown(wait=True)

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Do it in a thread. When this is cancelled, it still ends only after the thread has.

        Raises   FilesUnavailable for what the operating system refuses, but FileNotFoundError as is
        """
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        try:
            return await asyncio.shield(future)
        except FileNotFoundError:
            raise
        except OSError as error:
            _LOG.warning("the disk of files refused: %s", error)
            raise _unavailable(error) from error
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            with suppress(BaseException):
                future.result()  # so that nobody is told of an error nobody asked for
            raise

    # In threads from here on.

    def _path(self, *parts: str) -> str:
        return os.path.join(self._directory, *parts)

    def _path_of(self, key: str) -> str:
        # Digests spread evenly, whatever the keys are.
        return self._path(blake2b(checked_key(key).encode(), digest_size=1).hexdigest(), key)

    def _prepare(self) -> None:
        missing = []
        folder = self._directory
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(each)
            self._sync_folder(str(each.parent))
        present = {entry.name for entry in os.scandir(self._path())}
        absent = [name for name in (_UNFINISHED, *_FOLDERS) if name not in present]
        for name in absent:
            os.mkdir(self._path(name))
        if absent:
            self._sync_folder(self._path())

    def _claim(self, owner: str) -> str:
        try:
            descriptor = os.open(self._path(_OWNER), os.O_RDONLY | _BINARY)
        except FileNotFoundError:
            pass
        else:
            try:
                return os.read(descriptor, 1024).decode(errors="replace").strip()
            finally:
                os.close(descriptor)
        aside = self._path(_UNFINISHED, _OWNER)
        writing = _Writing(aside)
        with suppress(FileNotFoundError):
            os.unlink(aside)
        writing.begin()
        writing.write(owner.encode())
        writing.finish(synced=self._durable)
        os.replace(aside, self._path(_OWNER))
        self._sync_folder(self._path())
        return owner

    def _publish(self, writing: _Writing, key: str) -> None:
        path = self._path_of(key)
        writing.finish(synced=self._durable)
        os.replace(writing.path, path)
        try:
            self._sync_folder(os.path.dirname(path))
        except BaseException:
            os.unlink(path)
            raise

    def _sync_folder(self, folder: str) -> None:
        if not self._durable or os.name == "nt":  # where folders cannot be opened
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)

    def _list(self, folders: tuple[str, ...]) -> list[BlobEntry]:
        found = []
        for folder in folders:
            with os.scandir(self._path(folder)) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # deleted since
                        status = entry.stat()
                        stored_ms = status.st_mtime_ns / 1e6
                        found.append(BlobEntry(entry.name, status.st_size, stored_ms))
        return found

    def _remove_unfinished(self) -> int:
        removed = 0
        with os.scandir(self._path(_UNFINISHED)) as entries:
            for entry in entries:
                if entry.path not in self._under_way:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.path)
                        removed += 1
        return removed


def _unavailable(error: OSError) -> FilesUnavailable:
    if error.errno in _FULL:
        return FilesUnavailable(
            "There is no room for this file on the server's disk.", code="FileStorageFull"
        )
    return FilesUnavailable("The server's disk did not take or give the bytes of a file.")


class _Writing:
    """One file being written. Its methods run in threads, one at a time."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None

    def begin(self) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | _BINARY
        self._descriptor = os.open(self.path, flags, 0o644)

    def write(self, block: bytes) -> None:
        assert self._descriptor is not None
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def finish(self, *, synced: bool) -> None:
        assert self._descriptor is not None
        if synced:
            os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)

    def abandon(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(self.path)


class _Reading:
    """One file being read, block by block."""

    __slots__ = ("_at", "_descriptor", "_end", "_path", "_store")

    def __init__(self, store: DiskBlobs, path: str, start: int, end: int) -> None:
        self._store = store
        self._path = path
        self._at = start
        self._end = end
        self._descriptor: int | None = None

    def begin(self) -> None:
        """Open the file, in a thread."""
        self._descriptor = os.open(self._path, os.O_RDONLY | _BINARY)
        os.lseek(self._descriptor, self._at, os.SEEK_SET)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= self._end or self._descriptor is None:
            raise StopAsyncIteration
        size = min(BLOCK_BYTES, self._end - self._at)
        block = await self._store._in_thread(os.read, self._descriptor, size)
        if not block:
            raise FilesUnavailable("A file is shorter on the server's disk than it was.")
        self._at += len(block)
        return block

    async def aclose(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            await self._store._in_thread(os.close, descriptor)
