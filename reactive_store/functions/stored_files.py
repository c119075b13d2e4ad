"""Files of a deployment: their documents, their bytes, and the addresses clients use.

A file is two documents of one internal id. `_storage` is what functions see: digest, size, type.
`_blobs` is ours: under which UUID the bytes are kept and served, which an id does not give away.

    received   the bytes are in the store, durable, and belong to nothing yet
    stored     both documents are committed
    deleted    `_storage` is gone, `_blobs` says since when; the bytes go later (scheduling)

Bytes come before documents and go after them, so at no moment, whatever dies, has a document no
bytes. Bytes without documents are garbage.

Source of facts: docs/reference/files.md; the texts and codes of Convex's open server.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Final
from uuid import UUID

from reactive_store.blobs.contract import BLOCK_BYTES, BlobReading, BlobStore
from reactive_store.engine.catalog import BLOBS, BY_DELETED, BY_UUID, STORAGE, SYSTEM_TABLES
from reactive_store.engine.interval import Interval
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest, Unauthenticated
from reactive_store.functions.scheduler import Transact
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Row
from reactive_store.runtime import Runtime
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key
from reactive_store.values.value import Id

__all__ = [
    "FileCounters",
    "FileRow",
    "Received",
    "StoredFiles",
    "add_file",
    "checked_content_type",
    "discard_file",
    "find_file",
    "find_uuid",
    "forget_blob",
    "has_document",
    "parse_digest",
    "parse_uuid",
    "unused_blobs",
]

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN_VERSION: Final = b"\x01"
_TOKEN_HEAD: Final = 9  # the version, and Unix milliseconds in eight bytes
_TOKEN_BYTES: Final = _TOKEN_HEAD + 32
_EARLY_MS: Final = 60_000.0  # a clock that was set back a little does not make tokens invalid

# As RFC 9110 has it, without what a header or an old browser could take for its end. Commas are
# for `codecs=vp8,opus`, which browsers write without the quotes they should have.
_CONTENT_TYPE: Final = re.compile(
    r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}(?:[ \t]*;[\x20-\x7e\t]*)?", re.ASCII
)
_CONTENT_TYPE_CHARS: Final = 1024


@dataclass(frozen=True, slots=True)
class FileRow:
    """One stored file as its documents say. Units: `size` in bytes; `sha256` is the digest."""

    id: Id
    uuid: str
    sha256: bytes
    size: int
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes that are in the store and belong to no document yet."""

    uuid: str
    sha256: bytes
    size: int


@dataclass(slots=True)
class FileCounters:
    """Bytes received and served since the start, and how many files they were of."""

    received: int = 0
    received_bytes: int = 0
    served: int = 0
    served_bytes: int = 0


class StoredFiles:
    """The files of one deployment, as far as no transaction is needed."""

    def __init__(
        self,
        blobs: BlobStore,
        *,
        runtime: Runtime,
        limits: Limits,
        secret: bytes,
        origin: Callable[[], str],
    ) -> None:
        """`origin` gives the public address of the API; `secret` is the deployment's."""
        self.blobs = blobs
        self.counters = FileCounters()
        # From before their first byte is stored until their documents are durable, or never will.
        self._arriving: set[str] = set()
        self._runtime = runtime
        self._limits = limits
        self._key = blake2b(key=secret, person=b"upload token", digest_size=32).digest()
        self._origin = origin

    # Addresses.

    def url(self, uuid: str) -> str:
        """Where a file is served; whoever has it may read the file."""
        return f"{self._origin()}/api/storage/{uuid}"

    def upload_url(self, now_ms: float) -> str:
        """Where a file may be posted to, again and again, for an hour from `now_ms` on."""
        head = _TOKEN_VERSION + int(now_ms).to_bytes(8, "big")
        token = urlsafe_b64encode(head + self._signature(head)).rstrip(b"=").decode()
        return f"{self._origin()}/api/storage/upload?token={token}"

    def check_token(self, token: str) -> None:
        """Whether a token of an upload's address is ours and still counts.

        Raises   Unauthenticated[StorageTokenInvalid, StorageTokenExpired]
        """
        data = b""
        if _TOKEN.fullmatch(token) and len(token) % 4 != 1:
            data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        head, signature = data[:_TOKEN_HEAD], data[_TOKEN_HEAD:]
        if (
            len(data) != _TOKEN_BYTES
            or head[:1] != _TOKEN_VERSION
            or not hmac.compare_digest(signature, self._signature(head))
        ):
            raise Unauthenticated(
                "Couldn't decode the StoreFileAuthorization token", code="StorageTokenInvalid"
            )
        age_ms = self._runtime.now_ns() / 1e6 - int.from_bytes(head[1:], "big")
        if not -_EARLY_MS <= age_ms <= self._limits.upload_url_seconds * 1e3:
            raise Unauthenticated("Store File Authorization expired", code="StorageTokenExpired")

    def _signature(self, head: bytes) -> bytes:
        return hmac.digest(self._key, head, "sha256")

    # Bytes.

    async def store(
        self,
        transact: Transact,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str | None,
        expected_sha256: bytes | None = None,
    ) -> Id:
        """Put bytes into the store as they come, then commit the documents that make them a file.

        No document is there when it raises, and bytes only where a process or the store died; what
        has no document within an hour is garbage.

        Raises   BadRequest[Sha256Mismatch, FileTooLarge]; FilesUnavailable; what `chunks` and
                 `transact` raise
        """
        uuid = str(UUID(bytes=self._runtime.random_bytes(16), version=4))
        tally = _Tally(chunks, expected_sha256, self._limits.file_bytes)
        self._arriving.add(uuid)
        try:
            await self.blobs.put(uuid, tally.blocks())
            received = Received(uuid, tally.digest.digest(), tally.size)
            file_id = await transact(
                lambda transaction: add_file(transaction, received, content_type)
            )
        finally:
            self._arriving.discard(uuid)
        self.counters.received += 1
        self.counters.received_bytes += tally.size
        return file_id

    def is_arriving(self, uuid: str) -> bool:
        """Whether bytes under that UUID may still get their documents, however old they are.

        A process that was suspended in between must not find them gone.
        """
        return uuid in self._arriving

    async def open(self, file: FileRow, start: int, end: int) -> BlobReading:
        """Read a part of a file.

        Raises   NotFound[FileNotFound] when it was deleted meanwhile; FilesUnavailable
        """
        return await self.blobs.open(file.uuid, start, end)


class _Tally:
    """Bytes on their way into the store: joined to blocks, counted and digested."""

    def __init__(
        self, chunks: AsyncIterable[bytes], expected: bytes | None, most_bytes: int
    ) -> None:
        self.digest = sha256()
        self.size = 0
        self._chunks = chunks
        self._expected = expected
        self._most_bytes = most_bytes

    async def blocks(self) -> AsyncIterator[bytes]:
        """The same bytes in blocks of about a megabyte; what is wrong is raised before the end."""
        parts: list[bytes] = []
        gathered = 0
        async for chunk in self._chunks:
            self.size += len(chunk)
            if self.size > self._most_bytes:
                raise BadRequest(
                    f"The file is too large (maximum {self._most_bytes} bytes)",
                    code="FileTooLarge",
                )
            parts.append(chunk)
            gathered += len(chunk)
            if gathered >= 4 * BLOCK_BYTES:
                yield await self._digested(parts)
                parts, gathered = [], 0
        if gathered:
            yield await self._digested(parts)
        found = self.digest.digest()
        if self._expected is not None and found != self._expected:
            raise BadRequest(
                f"Sha256 mismatch. Expected: {b64encode(self._expected).decode()} "
                f"Actual: {b64encode(found).decode()}",
                code="Sha256Mismatch",
            )

    async def _digested(self, parts: list[bytes]) -> bytes:
        block = b"".join(parts)
        if len(block) <= BLOCK_BYTES:
            self.digest.update(block)
        else:  # it takes a millisecond and lets go of the interpreter
            await asyncio.get_running_loop().run_in_executor(None, self.digest.update, block)
        return block


# Documents.


def add_file(transaction: Transaction, received: Received, content_type: str | None) -> Id:
    """Make received bytes a file of this transaction."""
    file_id = transaction.insert(
        STORAGE,
        {
            "contentType": content_type,
            "sha256": b64encode(received.sha256).decode(),
            "size": float(received.size),
        },
    )
    internal_id = decode_id(file_id).internal_id
    transaction.insert(BLOBS, {"uuid": received.uuid}, internal_id=internal_id)
    return file_id


def find_uuid(transaction: Transaction, text: object) -> str | None:
    """The UUID of the file that an id, or the UUID itself, names; None when there is none.

    Only the document that says whether the file is there counts as read.

    Raises   BadRequest[InvalidStorageId]
    """
    found = _blob(transaction, text)
    return None if found is None else str(found["uuid"])


def find_file(transaction: Transaction, text: object) -> FileRow | None:
    """All of the file that an id or a UUID names; None when there is none.

    Raises   BadRequest[InvalidStorageId]
    """
    blob = _blob(transaction, text)
    if blob is None:
        return None
    internal_id = decode_id(blob["_id"]).internal_id
    row = transaction.get(STORAGE, internal_id)
    assert row is not None, "a file has both documents or neither"
    document = Document(row.value, STORAGE)
    return FileRow(
        Id(document["_id"], STORAGE),
        blob["uuid"],
        b64decode(document["sha256"]),
        int(document["size"]),
        document["contentType"],
    )


def discard_file(transaction: Transaction, text: object) -> None:
    """Delete a file. Its bytes go when this has long been committed.

    Raises   BadRequest[InvalidStorageId, FileNotFound]
    """
    blob = _blob(transaction, text)
    if blob is None:
        raise BadRequest(f"storage id {text} not found", code="FileNotFound")
    internal_id = decode_id(blob["_id"]).internal_id
    transaction.delete(STORAGE, internal_id)
    transaction.patch(BLOBS, internal_id, {"deleted": transaction.now_ms})


def unused_blobs(transaction: Transaction, before_ms: float, limit: int) -> list[tuple[Id, str]]:
    """Documents of files deleted before a time, each with its UUID, oldest first."""
    # Files that are there have no `deleted`, which sorts before every number.
    interval = Interval(encode_key(-1.0), encode_key(before_ms))
    scan = transaction.scan(BLOBS, BY_DELETED, interval)
    found = [Document(row.value, BLOBS) for row in scan.take(limit)]
    return [(Id(document["_id"], BLOBS), document["uuid"]) for document in found]


def has_document(transaction: Transaction, uuid: str) -> bool:
    """Whether bytes under that UUID belong to a file, or to one whose deletion takes them along."""
    return _row_of_uuid(transaction, uuid) is not None


def forget_blob(transaction: Transaction, document_id: str) -> None:
    """Drop the document of a deleted file whose bytes are gone; no error when that is done."""
    internal_id = decode_id(document_id).internal_id
    if transaction.get(BLOBS, internal_id) is not None:
        transaction.delete(BLOBS, internal_id)


def parse_uuid(text: str) -> str | None:
    """A UUID in its one spelling, or None."""
    return text.lower() if _UUID.fullmatch(text) else None


def checked_content_type(text: str) -> str:
    """A content type that may be served again.

    Raises   BadRequest[BadHeader]
    """
    if len(text) > _CONTENT_TYPE_CHARS or not _CONTENT_TYPE.fullmatch(text.strip()):
        raise BadRequest("invalid HTTP header (content-type)", code="BadHeader")
    return text.strip()


def parse_digest(text: str) -> bytes:
    """A SHA-256 digest given in base64.

    Raises   BadRequest[BadHeader]
    """
    try:
        digest = b64decode(text, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != sha256().digest_size:
        raise BadRequest("invalid HTTP header (digest)", code="BadHeader")
    return digest


def _row_of_uuid(transaction: Transaction, uuid: str) -> Row | None:
    key = encode_key(uuid)
    interval = Interval(key, key + b"\xff")
    return transaction.scan(BLOBS, BY_UUID, interval, prefix_bytes=len(key)).next()


def _blob(transaction: Transaction, text: object) -> Document | None:
    if not isinstance(text, str):
        raise _unreadable(text)
    uuid = parse_uuid(text)
    if uuid is not None:
        row = _row_of_uuid(transaction, uuid)
    else:
        try:
            number, internal_id = decode_id(text)
        except BadRequest as error:
            raise _unreadable(text) from error
        if number != SYSTEM_TABLES[STORAGE].number:
            raise BadRequest(
                "Invalid storage ID. Storage ID cannot be an ID on any table other than "
                f"'{STORAGE}'.",
                code="InvalidStorageId",
            )
        row = transaction.get(BLOBS, internal_id)
    if row is None:
        return None
    document = Document(row.value, BLOBS)
    return None if "deleted" in document else document


def _unreadable(text: object) -> BadRequest:
    return BadRequest(
        f"Invalid storage ID: \"{text}\". Storage ID should be an Id of '{STORAGE}' table, or a "
        "UUID string.",
        code="InvalidStorageId",
    )
