"""Blobs as objects of an S3-compatible store, through the library obstore (extra `s3`).

An upload is a multipart upload: bounded pieces, of which few are on their way at a time, and no
object before the last one has arrived. The library gives such an upload up when what it reads from
raises, but not when it is cancelled; so here it is never cancelled, it is fed until it is told to
stop. What a killed process leaves is an unfinished multipart upload, which no listing shows: a
lifecycle rule of the bucket takes those away.

Source: docs/decisions/0014-files.md; the API of obstore and of Amazon S3
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from reactive_store.blobs.contract import BLOCK_BYTES, BlobEntry, checked_key
from reactive_store.errors import BadRequest, FilesUnavailable, NotFound
from reactive_store.runtime import Runtime

__all__ = ["ObjectBlobs"]

_LOG = logging.getLogger(__name__)

# 10,000 pieces are the most an object can have, so this is also what bounds a file: 78 GiB.
_PIECE_BYTES: Final = 8 * 1024 * 1024
_PIECES_AT_ONCE: Final = 2
_LISTED_AT_ONCE: Final = 500
_BLOBS: Final = "blobs"
_OWNER: Final = "owner"
_RETRIES: Final = 3
_RETRY_FOR: Final = timedelta(seconds=30)
_OPTIONS: Final = frozenset({"endpoint", "region", "virtual_hosted_style"})
_UNREACHABLE: Final = "The store of files cannot be reached, or refuses."


class ObjectBlobs:
    """A `BlobStore` in a bucket, below a prefix."""

    def __init__(self, store: S3Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime

    @classmethod
    def at_url(cls, url: str, runtime: Runtime) -> Self:
        """The store at `s3://[KEY:SECRET@]BUCKET[/PREFIX][?endpoint=…&region=…]`.

        Without a key in the URL, credentials come from the environment or the machine's role, as
        with every tool for S3. `virtual_hosted_style=true` puts the bucket into the host's name.

        Cost     no request
        Raises   BadRequest[InvalidSetting]
        """
        parts = urlsplit(url)
        if not parts.hostname:
            raise BadRequest(f"files = {_shown(parts)!r} names no bucket", code="InvalidSetting")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := set(options) - _OPTIONS:
            raise BadRequest(
                f"files = {_shown(parts)!r}: unknown option {', '.join(sorted(unknown))}; there "
                f"are {', '.join(sorted(_OPTIONS))}",
                code="InvalidSetting",
            )
        config: dict[str, Any] = {
            name: options[name] for name in ("endpoint", "region") if options.get(name)
        }
        if parts.username:
            config["access_key_id"] = unquote(parts.username)
            config["secret_access_key"] = unquote(parts.password or "")
        virtual = options.get("virtual_hosted_style", "false").lower() == "true"
        try:
            store = S3Store(
                parts.netloc.rpartition("@")[2],
                prefix=unquote(parts.path).strip("/") or None,
                virtual_hosted_style_request=virtual,
                client_options={"allow_http": options.get("endpoint", "").startswith("http://")},
                retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR},
                **config,
            )
        except BaseError as error:
            raise BadRequest(
                f"files = {_shown(parts)!r} cannot be used: {error}", code="InvalidSetting"
            ) from error
        return cls(store, runtime)

    async def claim(self, owner: str) -> str:
        """As the contract says."""
        try:
            with suppress(AlreadyExistsError):
                await obstore.put_async(self._store, _OWNER, owner.encode(), mode="create")
                return owner
            found = await obstore.get_async(self._store, _OWNER)
            return bytes(await found.bytes_async()).decode(errors="replace").strip()
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def put(self, key: str, blocks: AsyncIterable[bytes]) -> None:
        """As the contract says."""
        feed = _Feed()
        upload = self._runtime.spawn(self._upload(_path(key), feed), name="file upload")
        upload.add_done_callback(lambda _: feed.let_go())
        try:
            async for block in blocks:
                await feed.give(block)
                if upload.done():
                    break
            else:
                await feed.give(b"")
            await asyncio.shield(upload)
        except BaseException:
            feed.stop()
            while not upload.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([upload])
            upload.exception()  # so that nobody is told of an error nobody asked for
            raise

    async def open(self, key: str, start: int, end: int) -> _Reading:
        """As the contract says."""
        if start >= end:
            return _Reading(None)
        try:
            found = await obstore.get_async(
                self._store, _path(key), options={"range": (start, end)}
            )
        except FileNotFoundError as error:
            raise NotFound(f"File {key} not found", code="FileNotFound") from error
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return _Reading(aiter(found.stream(BLOCK_BYTES)))

    async def delete(self, key: str) -> None:
        """As the contract says."""
        try:
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, _path(key))
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def entries(self) -> AsyncIterator[BlobEntry]:
        """As the contract says; one page is listed at a time."""
        try:
            async for page in obstore.list(self._store, _BLOBS, chunk_size=_LISTED_AT_ONCE):
                for found in page:
                    name = found["path"].rpartition("/")[2]
                    stored_ms = found["last_modified"].timestamp() * 1e3
                    yield BlobEntry(name, found["size"], stored_ms)
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def remove_unfinished(self) -> int:
        """What a dead process left cannot be seen here; the bucket's lifecycle rule removes it."""
        return 0

    async def close(self) -> None:
        """The library's connections end with it."""

    async def _upload(self, path: str, feed: _Feed) -> None:
        try:
            await obstore.put_async(
                self._store,
                path,
                feed,
                use_multipart=True,
                chunk_size=_PIECE_BYTES,
                max_concurrency=_PIECES_AT_ONCE,
            )
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error


class _Stopped(Exception):
    """Tells the library to give an upload up."""


class _Feed:
    """Hands blocks to the library, one at a time; an empty one is the end."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._is_over = False  # nobody takes blocks any more

    async def give(self, block: bytes) -> None:
        """Wait until the block is taken, or nobody takes any."""
        if not self._is_over:
            await self._waiting.put(block)

    def stop(self) -> None:
        """Let the library's next look fail."""
        self._empty()
        self._waiting.put_nowait(None)

    def let_go(self) -> None:
        """The upload has ended: whoever waits to give goes on."""
        self._is_over = True
        self._empty()

    def _empty(self) -> None:
        with suppress(asyncio.QueueEmpty):
            self._waiting.get_nowait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        block = await self._waiting.get()
        if block is None:
            raise _Stopped
        if not block:
            raise StopAsyncIteration
        return block


class _Reading:
    """Blocks of one answer of the store; None when nothing is to be read."""

    def __init__(self, stream: AsyncIterator[bytes] | None) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._stream is None:
            raise StopAsyncIteration
        try:
            return bytes(await anext(self._stream))
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def aclose(self) -> None:
        self._stream = None  # the library closes the connection with its last reference


def _path(key: str) -> str:
    return f"{_BLOBS}/{checked_key(key)}"


def _shown(parts: SplitResult) -> str:
    """The URL without its credentials."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _unavailable(error: Exception) -> FilesUnavailable:
    _LOG.warning("the store of files failed: %s", error)
    return FilesUnavailable(_UNREACHABLE)
