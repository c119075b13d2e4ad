"""Every store there is, empty; the one for objects against a local S3 server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer

from reactive_store.blobs.contract import BlobStore
from reactive_store.blobs.disk import DiskBlobs
from reactive_store.blobs.memory import MemoryBlobs
from reactive_store.blobs.object_store import ObjectBlobs
from reactive_store.runtime import SystemRuntime

BUCKET = "files-of-tests"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of an S3 server with one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    address = f"http://127.0.0.1:{port}"
    with urlopen(Request(f"{address}/{BUCKET}", method="PUT"), timeout=20):
        pass
    yield address
    server.stop()


@pytest.fixture
def s3_url(s3: str, tmp_path: Path) -> str:
    """A setting that names a prefix nobody has used."""
    prefix = f"{os.getpid()}/{tmp_path.name}"
    return f"s3://key:secret@{BUCKET}/{prefix}?endpoint={s3}&region=us-east-1"


OpenStore = Callable[[], Awaitable[BlobStore]]


@pytest.fixture(params=["memory", "disk", "objects"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens the store of this test; a second time it finds what the first one left."""
    opened: list[BlobStore] = []
    kind = request.param
    url = request.getfixturevalue("s3_url") if kind == "objects" else ""

    async def open_it() -> BlobStore:
        if kind == "memory":
            store: BlobStore = opened[0] if opened else MemoryBlobs(SystemRuntime())
        elif kind == "disk":
            store = await DiskBlobs.open_directory(tmp_path / "blobs")
        else:
            store = ObjectBlobs.at_url(url, SystemRuntime())
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> BlobStore:
    return await open_store()
