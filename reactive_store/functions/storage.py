"""`ctx.storage`: files as functions see them.

    query      StorageReader         addresses and metadata, as of the query's snapshot
    mutation   StorageWriter         also upload addresses and deletion, part of the transaction
    action     StorageActionWriter   also bytes, in and out; each call is a transaction of its own

Source of facts: docs/reference/api.md, docs/reference/files.md; the texts of Convex's open server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypedDict

from reactive_store.blobs.contract import BLOCK_BYTES, BlobReading
from reactive_store.engine.transaction import Transaction
from reactive_store.functions.scheduler import Transact
from reactive_store.functions.stored_files import (
    FileRow,
    StoredFiles,
    checked_content_type,
    discard_file,
    find_file,
    find_uuid,
    parse_digest,
)
from reactive_store.functions.unawaited import Forgetful
from reactive_store.values.value import Id

__all__ = [
    "FileContent",
    "FileMetadata",
    "StorageActionWriter",
    "StorageReader",
    "StorageWriter",
    "StoredFile",
    "with_bytes",
]

_ACTIONS: Final = (
    "Please consider using an action. See https://docs.convex.dev/functions/actions for more "
    "details."
)
_NO_BLOB: Final = (
    "store() expects a Blob: bytes, an async iterable of bytes, or a file that is open for reading "
    "bytes. If you are trying to store a Request, `await request.body()` will give you the correct "
    "input."
)

FileContent = bytes | bytearray | memoryview | AsyncIterable[bytes]
"""What can be stored, besides an open file: `read(size)` that gives bytes, or awaitable bytes."""


class FileMetadata(TypedDict):
    """What `get_metadata` says: the UUID of the file's address, the digest in hexadecimal."""

    storageId: str
    sha256: str
    size: float
    contentType: str | None


class StorageReader:
    """`ctx.storage` of a query."""

    __slots__ = ("_calls", "_files", "_now_ms", "_reading", "_transact")

    def __init__(
        self,
        calls: Forgetful,
        files: StoredFiles,
        reading: Callable[[], Transaction],
        now_ms: Callable[[], float],
        transact: Transact,
    ) -> None:
        """`reading` gives a transaction to read from, `transact` runs work that writes: in the
        call's own transaction, or in one for it alone."""
        self._calls = calls  # told of a method that was not awaited
        self._files = files
        self._reading = reading
        self._now_ms = now_ms
        self._transact = transact

    async def get_url(self, storage_id: str, /) -> str | None:
        """Where the file can be read by whoever has the address; None when there is no file.

        Cost     one point read
        Raises   BadRequest[InvalidStorageId]
        """
        uuid = find_uuid(self._reading(), storage_id)
        return None if uuid is None else self._files.url(uuid)

    async def get_metadata(self, storage_id: str, /) -> FileMetadata | None:
        """What is known of the file; None when there is none.

        Convex recommends `ctx.db.system.get(storage_id)` instead, whose digest is in base64.

        Cost     two point reads
        Raises   BadRequest[InvalidStorageId]
        """
        file = find_file(self._reading(), storage_id)
        if file is None:
            return None
        return {
            "storageId": file.uuid,
            "sha256": file.sha256.hex(),
            "size": float(file.size),
            "contentType": file.content_type,
        }

    if not TYPE_CHECKING:  # a checker must go on refusing unknown attributes

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(_why_missing(self, name), name=name, obj=self)


class StorageWriter(StorageReader):
    """`ctx.storage` of a mutation."""

    __slots__ = ()

    async def generate_upload_url(self) -> str:
        """Where a client may POST a file to, for an hour; each POST makes a new file."""
        return self._files.upload_url(self._now_ms())

    async def delete(self, storage_id: str, /) -> None:
        """Delete a file. In a mutation it is gone when the mutation has committed.

        Raises   BadRequest[InvalidStorageId, FileNotFound]
        """
        await self._transact(lambda transaction: discard_file(transaction, storage_id))


class StorageActionWriter(StorageWriter):
    """`ctx.storage` of an action."""

    __slots__ = ()

    async def store(
        self,
        data: FileContent | Any,
        /,
        *,
        content_type: str | None = None,
        sha256: str | None = None,
    ) -> Id:
        """Store a file; it is durable when this returns.

        Shapes   data: bytes, an async iterable of bytes, or a file open for reading bytes;
                 sha256: what the digest has to be, in base64
        Cost     a few megabytes of memory, however long the file
        Raises   TypeError for other data; BadRequest[BadHeader, Sha256Mismatch, FileTooLarge];
                 FilesUnavailable
        """
        chunks = _chunks(data)
        if content_type is not None:
            content_type = checked_content_type(content_type)
        expected = None if sha256 is None else parse_digest(sha256)
        return await self._files.store(
            self._transact, chunks, content_type=content_type, expected_sha256=expected
        )

    async def get(self, storage_id: str, /) -> StoredFile | None:
        """The file's content; None when there is no file. Nothing is read yet.

        Raises   BadRequest[InvalidStorageId]
        """
        file = find_file(self._reading(), storage_id)
        return None if file is None else StoredFile(self._files, file)


def with_bytes(storage: StorageWriter) -> StorageActionWriter:
    """What a mutation has, and bytes besides: for a test's own code, which may wait for a disk."""
    return StorageActionWriter(
        storage._calls, storage._files, storage._reading, storage._now_ms, storage._transact
    )


class StoredFile:
    """A file's content: `await file.read()`, or `async for chunk in file` without holding it.

    Each `async for` begins at the beginning. It can be given to a StreamingResponse as it is.
    """

    __slots__ = ("_file", "_files")

    def __init__(self, files: StoredFiles, file: FileRow) -> None:
        self._files = files
        self._file = file

    @property
    def content_type(self) -> str | None:
        """The type it was stored with, if any."""
        return self._file.content_type

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self._file.size

    async def read(self) -> bytes:
        """All of it.

        Raises   NotFound[FileNotFound] when it was deleted meanwhile; FilesUnavailable
        """
        return b"".join([chunk async for chunk in self])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Content(self._files, self._file)


class _Content:
    """One pass over a file; closed at its end, or with the last reference."""

    __slots__ = ("_file", "_files", "_reading")

    def __init__(self, files: StoredFiles, file: FileRow) -> None:
        self._files = files
        self._file = file
        self._reading: BlobReading | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._reading is None:
            self._reading = await self._files.open(self._file, 0, self._file.size)
        try:
            return await anext(self._reading)
        except BaseException:  # the end, too
            await self._reading.aclose()
            raise


def _chunks(data: object) -> AsyncIterable[bytes]:
    """What is to be stored, as a stream.

    Raises   TypeError
    """
    if isinstance(data, bytes | bytearray | memoryview):
        return _slices(memoryview(data).cast("B"))
    if isinstance(data, AsyncIterable):
        return _checked(data)
    read = getattr(data, "read", None)
    if callable(read):
        return _pieces(read)
    raise TypeError(_NO_BLOB)


async def _slices(data: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 4 * BLOCK_BYTES):
        yield bytes(data[start : start + 4 * BLOCK_BYTES])


async def _checked(chunks: AsyncIterable[Any]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(_NO_BLOB)
        yield bytes(chunk)


async def _pieces(read: Callable[[int], bytes | Awaitable[bytes]]) -> AsyncIterator[bytes]:
    while True:
        piece: Any = await asyncio.to_thread(read, BLOCK_BYTES)
        if isawaitable(piece):  # a file of an asynchronous library
            piece = await piece
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise TypeError(_NO_BLOB)
        if not piece:
            return
        yield bytes(piece)


def _why_missing(storage: StorageReader, name: str) -> str:
    """Say why `ctx.storage` has no such method, where the reason is a rule."""
    if name in ("store", "get"):
        return f"Can't use storage.{name}() in queries and mutations. {_ACTIONS}"
    if name in ("generate_upload_url", "delete") and type(storage) is StorageReader:
        return f"A query cannot call storage.{name}(): it has no effects"
    return f"{type(storage).__name__!r} object has no attribute {name!r}"
