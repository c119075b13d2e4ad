"""Blobs in an S3-compatible store: settings, unfinished uploads, a store that is gone."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.request import urlopen

import pytest

from reactive_store.blobs.object_store import ObjectBlobs
from reactive_store.errors import BadRequest, FilesUnavailable, NotFound
from reactive_store.runtime import SystemRuntime
from tests.blobs.conftest import BUCKET


def uploads_under_way(s3: str) -> list[str]:
    with urlopen(f"{s3}/{BUCKET}?uploads", timeout=20) as answer:
        return re.findall("<Key>(.*?)</Key>", answer.read().decode())


async def endless() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield bytes(1 << 20)
    await asyncio.Event().wait()


async def test_a_cancelled_upload_is_given_up_at_the_store(s3, s3_url):
    store = ObjectBlobs.at_url(s3_url, SystemRuntime())
    putting = asyncio.create_task(store.put("key", endless()))
    while not uploads_under_way(s3):
        await asyncio.sleep(0.02)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert uploads_under_way(s3) == []


async def test_keys_stay_below_the_prefix(s3, s3_url):
    store = ObjectBlobs.at_url(s3_url, SystemRuntime())

    async def one() -> AsyncIterator[bytes]:
        yield b"1"

    await store.put("key-below", one())
    with urlopen(f"{s3}/{BUCKET}?list-type=2", timeout=20) as answer:
        keys = re.findall("<Key>(.*?)</Key>", answer.read().decode())
    prefix = s3_url.partition(f"@{BUCKET}/")[2].partition("?")[0]
    assert f"{prefix}/blobs/key-below" in keys


async def test_a_store_out_of_reach_is_said_to_be():
    url = "s3://key:secret@bucket?endpoint=http://127.0.0.1:9&region=us-east-1"
    store = ObjectBlobs.at_url(url, SystemRuntime())
    store._store = type(store._store)(
        "bucket", endpoint="http://127.0.0.1:9", region="us-east-1", access_key_id="k",
        secret_access_key="s", client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )  # fmt: skip

    async def one() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(1 << 20)

    for call in (
        store.claim("me"),
        store.put("key", one()),
        store.open("key", 0, 1),
        store.delete("key"),
        anext(store.entries()),
    ):
        with pytest.raises(FilesUnavailable) as caught:
            await call
        assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://", "names no bucket"),
        ("s3://k:hidden@bucket?colour=red", "unknown option colour"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(url, text):
    with pytest.raises(BadRequest, match=text) as caught:
        ObjectBlobs.at_url(url, SystemRuntime())
    assert caught.value.code == "InvalidSetting"
    assert "hidden" not in caught.value.message


class _Signed(BaseHTTPRequestHandler):
    """Finds nothing, and remembers who asked for what."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


async def test_credentials_of_the_environment_count_without_a_key_in_the_url(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Signed)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        place = f"endpoint=http://127.0.0.1:{server.server_port}&region=eu-west-1"
        store = ObjectBlobs.at_url(f"s3://bucket/a/b?{place}", SystemRuntime())
        with pytest.raises(NotFound):
            await store.open("key", 0, 1)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    ((path, signed),) = _Signed.seen
    assert path == "/bucket/a/b/blobs/key"
    assert "Credential=of-the-environment/" in signed
    assert "/eu-west-1/s3/" in signed
