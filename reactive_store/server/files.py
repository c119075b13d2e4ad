"""Files over HTTP: `POST /api/storage/upload` and `GET /api/storage/{uuid}`.

Neither asks who is there: the token of an upload's address and the UUID of a file's are what gives
the right. Bytes go through in blocks, in both directions as fast as the slower side.

A file is shown by browsers as its author says it is, and can do nothing in the name of this origin:
what could run is put into a sandbox of its own, nothing is guessed from the bytes, and a page of
this origin cannot load one as code.

Invariants
- A file has its documents only when all of its bytes are durable; an upload that ends early, for
  whatever reason, leaves nothing.
- A download that cannot be completed ends with its connection, never as if it were whole.
- No transfer waits for its peer for longer than `file_idle_seconds`.

Source: docs/reference/files.md, docs/decisions/0014-files.md; the routes and headers of Convex's
open server
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from reactive_store.backend import Backend
from reactive_store.blobs.contract import BlobReading
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest, FilesUnavailable, Forbidden, NotFound
from reactive_store.functions.scheduler import Transact
from reactive_store.functions.stored_files import (
    FileCounters,
    FileRow,
    checked_content_type,
    find_file,
    parse_digest,
    parse_uuid,
)
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.server.errors import error_response
from reactive_store.server.http_protocol import abort
from reactive_store.server.requests import json_response

__all__ = ["FileEndpoints", "byte_range", "is_inert"]

_log = logging.getLogger("reactive_store.server")

T = TypeVar("T")

_MAX_AGE_S: Final = 30 * 24 * 3600
_RANGES: Final = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE | re.ASCII)
_RANGE: Final = re.compile(r"[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII)

# Browsers draw or play these, or save them; none of them is a document with scripts.
_INERT_KINDS: Final = frozenset(("image", "audio", "video", "font"))
_INERT_TYPES: Final = frozenset(
    ("application/pdf", "application/json", "application/octet-stream", "text/plain")
)
_SANDBOX: Final = (
    b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    b"media-src data:; sandbox"
)
# What a page loads to run it, or to let it run what it says.
_CODE: Final = frozenset(
    (
        "audioworklet", "embed", "manifest", "object", "paintworklet", "script", "serviceworker",
        "sharedworker", "style", "worker", "xslt",
    )
)  # fmt: skip
_VARIES: Final = b"sec-fetch-dest, sec-fetch-site"


class FileEndpoints:
    """The routes of files, for one application."""

    def __init__(
        self, backend: Callable[[], Awaitable[Backend]], *, limits: Limits, runtime: Runtime
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._runtime = runtime
        # Uploads above the limit wait here, with their bodies unread.
        self._places = asyncio.Semaphore(limits.concurrent_uploads)

    def routes(self) -> list[Route]:
        """For an application's list."""
        return [
            Route("/api/storage/upload", self.upload, methods=["POST"]),
            Route("/api/storage/{file:path}", self.download, methods=["GET"]),
        ]

    async def upload(self, request: Request) -> Response:
        """`POST /api/storage/upload?token=…`: the body becomes a file."""
        try:
            async with asyncio.timeout(self._limits.upload_seconds), self._places:
                return await self._store(await self._backend(), request)
        except TimeoutError:
            return Response(status_code=408)
        except ClientDisconnect:
            return Response(status_code=408)  # nobody is there to read it
        except Exception as error:  # noqa: BLE001 - the boundary that owns a request's failure
            return error_response(error, self._runtime)

    async def _store(self, backend: Backend, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is None:
            raise BadRequest(
                "Failed to deserialize query string: missing field `token`", code="BadQueryArgs"
            )
        backend.files.check_token(token)
        # Empty, as pages write the type of a file that their browser does not know: none.
        content_type = request.headers.get("content-type", "").strip() or None
        if content_type is not None:
            content_type = checked_content_type(content_type)
        digest = _digest_of(request)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:19]) > self._limits.file_bytes:
            raise BadRequest(
                f"The file is too large (maximum {self._limits.file_bytes} bytes)",
                code="FileTooLarge",
            )
        file_id = await backend.files.store(
            _transactions(backend),
            self._chunks(request),
            content_type=content_type,
            expected_sha256=digest,
        )
        return json_response({"storageId": file_id})

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises   TimeoutError when it does not go on; ClientDisconnect
        """
        stream = aiter(request.stream())
        while True:
            async with asyncio.timeout(self._limits.file_idle_seconds):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            if chunk:
                yield chunk

    async def download(self, request: Request) -> Response:
        """`GET /api/storage/{uuid}`: a file, or one range of it."""
        try:
            return await self._answer(await self._backend(), request)
        except Exception as error:  # noqa: BLE001 - the boundary that owns a request's failure
            return error_response(error, self._runtime)

    async def _answer(self, backend: Backend, request: Request) -> Response:
        path = request.path_params["file"]
        uuid = parse_uuid(path)
        if uuid is None:
            raise BadRequest(
                f"Invalid storage path: {path!r}. The address of a file comes from "
                "`storage.getUrl()` and ends in its UUID.",
                code="InvalidStoragePath",
            )
        file = find_file(backend.database.begin(), uuid)
        if file is None or request.query_params.get("component"):
            raise NotFound(f"File {uuid} not found", code="FileNotFound")
        headers = request.headers
        if (
            headers.get("sec-fetch-site") == "same-origin"
            and headers.get("sec-fetch-dest", "").lower() in _CODE
        ):
            raise Forbidden(
                "A page cannot load an uploaded file of its own origin as code.",
                code="FileIsNotCode",
            )
        etag = f'"{file.sha256.hex()}"'
        if _matches(headers.get("if-none-match"), etag):
            return _FileResponse(304, _headers(file, etag))
        part: tuple[int, int] | None = None
        if "range" in headers and headers.get("if-range", etag) == etag:
            try:
                part = byte_range(headers["range"], file.size)
            except _NotSatisfiable:
                unsatisfied = (b"content-range", b"bytes */%d" % file.size)
                return _FileResponse(416, [unsatisfied, (b"content-length", b"0")])
        start, end = (0, file.size) if part is None else part
        found = [*_headers(file, etag), (b"content-length", b"%d" % (end - start))]
        if part is None:
            found.append((b"digest", b"sha-256=" + b64encode(file.sha256)))
        else:
            found.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, file.size)))
        reading = None
        if request.method != "HEAD" and end > start:
            reading = await backend.files.open(file, start, end)
        return _FileResponse(
            200 if part is None else 206,
            found,
            reading,
            idle_s=self._limits.file_idle_seconds,
            runtime=self._runtime,
            counters=backend.files.counters,
        )


def _transactions(backend: Backend) -> Transact:
    """Transactions of nobody's function."""

    async def transact(work: Callable[[Transaction], T]) -> T:
        async def attempt(transaction: Transaction) -> T:
            return work(transaction)

        return (await backend.runner.transact(attempt))[0]

    return transact


class _FileResponse(Response):
    """A response with exactly these headers, whose body is read while it is sent."""

    def __init__(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        reading: BlobReading | None = None,
        *,
        idle_s: float = 0.0,
        runtime: Runtime | None = None,
        counters: FileCounters | None = None,
    ) -> None:
        self.status_code = status
        self.raw_headers = headers
        self.background = None
        self.body = b""
        self._reading = reading
        self._idle_s = idle_s
        self._runtime = runtime
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reading = self._reading
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        if reading is None:
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        assert self._runtime is not None
        # A server takes what is sent to a peer that has left, and says nothing.
        gone = self._runtime.spawn(_disconnected(receive), name="download")
        try:
            await send(start)
            await self._send_blocks(reading, send, gone)
        except (TimeoutError, FilesUnavailable) as error:
            _log.warning("download cut short: %s", error or "the client does not read")
            if not abort(scope):
                raise
        finally:
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
            await reading.aclose()

    async def _send_blocks(
        self, reading: BlobReading, send: Send, gone: asyncio.Task[None]
    ) -> None:
        assert self._counters is not None
        self._counters.served += 1
        async for block in reading:
            if gone.done():
                return
            async with asyncio.timeout(self._idle_s):
                await send({"type": "http.response.body", "body": block, "more_body": True})
            self._counters.served_bytes += len(block)
        await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(file: FileRow, etag: str) -> list[tuple[bytes, bytes]]:
    """What every answer about a file says."""
    found = [
        (b"cache-control", b"private, max-age=%d" % _MAX_AGE_S),
        (b"accept-ranges", b"bytes"),
        (b"etag", etag.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cross-origin-resource-policy", b"cross-origin"),
    ]
    if file.content_type is not None:
        found.append((b"content-type", file.content_type.encode("latin-1")))
    if not is_inert(file.content_type):
        # What may be code is not taken from the browser's cache for another purpose, either.
        found += [(b"content-security-policy", _SANDBOX), (b"vary", _VARIES)]
    return found


def is_inert(content_type: str | None) -> bool:
    """Whether a browser that opens a file of this type surely runs nothing in it.

    A type with a slash or a comma behind its name is not trusted: browsers split there.
    """
    if content_type is None:
        return False
    essence, _, rest = content_type.partition(";")
    essence = essence.strip().lower()
    if "/" in rest or "," in essence:
        return False
    if essence in _INERT_TYPES:
        return True
    kind, _, subtype = essence.partition("/")
    return kind in _INERT_KINDS and "xml" not in subtype and "svg" not in subtype


class _NotSatisfiable(Exception):
    """No range of the header, or more than one, lies in the file."""


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The one range that a Range header asks for, from start to below end; None for all of it.

    A header that cannot be read asks for everything, and an empty file has no ranges.

    Raises   _NotSatisfiable when no range, or more than one, lies in the file
    """
    ranges = _RANGES.fullmatch(header.strip())
    if ranges is None or size == 0:
        return None
    found = []
    for text in ranges[1].split(","):
        one = _RANGE.fullmatch(text)
        if one is None or not (one[1] or one[2]):
            return None
        first, last = one[1], one[2]
        if not first:  # so many bytes from the end
            if int(last):
                found.append((max(0, size - int(last)), size))
            continue
        start, end = int(first), int(last) + 1 if last else size
        if end <= start:
            if last:
                return None  # backwards is no range
            continue
        if start < size:
            found.append((start, min(end, size)))
    if len(found) != 1:
        raise _NotSatisfiable
    return found[0]


def _matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this version."""
    if header is None:
        return False
    named = {each.strip().removeprefix("W/") for each in header.split(",")}
    return etag in named or "*" in named


def _digest_of(request: Request) -> bytes | None:
    """What the digest of the body has to be, if the request says.

    Raises   BadRequest[BadHeader]
    """
    header = request.headers.get("digest")
    if header is None:
        return None
    for one in header.split(","):
        algorithm, _, value = one.strip().partition("=")
        if algorithm.lower() == "sha-256":
            return parse_digest(value)
    raise BadRequest("invalid HTTP header (digest)", code="BadHeader")
