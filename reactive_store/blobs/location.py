"""From the setting `files` to the store it names.

    (nothing)               the directory `files` of the data directory
    file:///absolute/path   a directory of this machine
    s3://bucket/prefix      an S3-compatible store; needs the extra `s3`

Whatever the store, it belongs to one deployment, and says so from its first use on.

Source: docs/reference/settings.md
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from reactive_store.blobs.contract import BlobStore
from reactive_store.blobs.disk import DiskBlobs
from reactive_store.errors import BadRequest, StoreError
from reactive_store.runtime import Runtime

__all__ = ["open_blobs"]

_DIRECTORY: Final = "files"
_OBJECT_STORE: Final = "reactive_store.blobs.object_store"


async def open_blobs(
    url: str | None, *, data: Path, durable: bool, owner: str, runtime: Runtime
) -> BlobStore:
    """The store that a setting names, ready, and claimed for `owner`.

    Raises   BadRequest[InvalidSetting] for a URL that cannot be used; BadRequest[FilesInUse] when
             the store belongs to another deployment; FilesUnavailable
    """
    blobs = await _store_at(url, data=data, durable=durable, runtime=runtime)
    try:
        found = await blobs.claim(owner)
        if found != owner:
            raise BadRequest(
                f"files = {_shown(url, data)!r} holds the files of another deployment. "
                "Give each deployment a directory or a prefix of its own: what one does not know, "
                "it would delete.",
                code="FilesInUse",
            )
    except BaseException:
        await blobs.close()
        raise
    return blobs


def _shown(url: str | None, data: Path) -> str:
    """What may be told of the setting: credentials in it may not."""
    if url is None:
        return str(data / _DIRECTORY)
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def _store_at(url: str | None, *, data: Path, durable: bool, runtime: Runtime) -> BlobStore:
    if url is None:
        return await _directory(data / _DIRECTORY, durable=durable)
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = Path(url2pathname(parts.path))
        if parts.netloc or not path.is_absolute():
            raise BadRequest(
                f"files = {url!r} names no directory; write file:///absolute/path",
                code="InvalidSetting",
            )
        return await _directory(path, durable=durable)
    if parts.scheme == "s3":
        # Loaded only for those who use it: the library is an extra, and takes its time.
        try:
            module = importlib.import_module(_OBJECT_STORE)
        except ImportError as error:
            raise BadRequest(
                "files = 's3://…' needs the library for object stores: install reactive_store[s3]",
                code="InvalidSetting",
            ) from error
        store: BlobStore = module.ObjectBlobs.at_url(url, runtime)
        return store
    raise BadRequest(
        f"files = {parts.scheme + '://…'!r} cannot be used: files are kept at file:///… or s3://…",
        code="InvalidSetting",
    )


async def _directory(path: Path, *, durable: bool) -> DiskBlobs:
    try:
        return await DiskBlobs.open_directory(path, durable=durable)
    except StoreError as error:
        raise BadRequest(
            f"the directory of files, {str(path)!r}, cannot be used: {error.__cause__ or error}",
            code="InvalidSetting",
        ) from error
