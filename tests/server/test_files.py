"""Files over HTTP: the upload flow, ranges, headers, what cannot be done with a file."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.backend import Backend
from reactive_store.blobs import disk
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.functions.stored_files import find_file
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.server.app import app_for
from reactive_store.server.files import _NotSatisfiable, byte_range, is_inert
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.server.conftest import client_for

FILES = """
from reactive_store import mutation, query

@mutation
async def upload_url(ctx):
    return await ctx.storage.generate_upload_url()

@query
async def url(ctx, id: str):
    return await ctx.storage.get_url(id)

@query
async def rows(ctx):
    return await ctx.db.system.query("_storage").collect()

@mutation
async def delete(ctx, id: str):
    await ctx.storage.delete(id)
"""
HELLO = b"hello, world"
DIGEST = b64encode(hashlib.sha256(HELLO).digest()).decode()


class Served:
    """A backend with files, and a client of it."""

    def __init__(self, backend: Backend, http: httpx.AsyncClient, folder: Path) -> None:
        self.backend = backend
        self.http = http
        self.folder = folder  # where its bytes are

    async def call(self, kind: str, path: str, **args: object) -> object:
        run = getattr(self.backend.runner, kind)
        outcome = await run(f"files.js:{path}", json.dumps(args).encode(), ANONYMOUS)
        return json.loads(outcome.value)

    async def upload_url(self) -> str:
        return await self.call("mutation", "uploadUrl")

    async def upload(self, data: bytes = HELLO, **headers: str) -> str:
        answer = await self.http.post(await self.upload_url(), content=data, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["storageId"]

    async def url(self, storage_id: str) -> str:
        return await self.call("query", "url", id=storage_id)

    async def rows(self) -> list[dict]:
        return await self.call("query", "rows")

    def on_disk(self) -> list[str]:
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.name for path in found if path.name != "owner"]


async def served(tmp_path: Path, **limits: float) -> AsyncIterator[Served]:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "files.py").write_text(FILES, encoding="utf-8")
    settings = Settings(
        app=tmp_path,
        files=f"file://{tmp_path}/files",
        origin="http://store.test",
        durability="normal",
        limits=replace(Limits(), **limits),
    )
    app = load_app(tmp_path)
    backend = await Backend.open(
        settings, app=app, persistence=MemoryPersistence(), runtime=VirtualRuntime()
    )
    async with client_for(app_for(backend)) as http:
        yield Served(backend, http, tmp_path / "files")
    await backend.close()
    app.close()


@pytest.fixture
async def store(tmp_path):
    async for each in served(tmp_path):
        yield each


@pytest.fixture
async def strict(tmp_path):
    async for each in served(tmp_path, file_bytes=100, file_idle_seconds=0.05):
        yield each


# Upload.


async def test_an_upload_becomes_a_file(store):
    """F145."""
    storage_id = await store.upload(HELLO, **{"Content-Type": "text/plain; charset=utf-8"})
    (row,) = await store.rows()
    assert row.pop("_creationTime") > 0
    assert row == {
        "_id": storage_id,
        "size": len(HELLO),
        "contentType": "text/plain; charset=utf-8",
        "sha256": DIGEST,
    }


async def test_every_post_to_an_address_makes_another_file(store):
    url = await store.upload_url()
    answers = [await store.http.post(url, content=HELLO) for _ in range(3)]
    assert len({answer.json()["storageId"] for answer in answers}) == 3


async def test_the_rules_of_an_upload(store):
    """C102."""
    url = await store.upload_url()
    wrong = b64encode(bytes(32)).decode()
    for headers, status, code in (
        ({}, 200, None),
        ({"Content-Type": "image/png"}, 200, None),
        ({"Content-Type": ""}, 200, None),
        ({"Digest": f"sha-256={DIGEST}"}, 200, None),
        ({"Digest": f"md5=x, SHA-256={DIGEST}"}, 200, None),
        ({"Digest": f"sha-256={wrong}"}, 400, "Sha256Mismatch"),
        ({"Digest": "sha-256=short"}, 400, "BadHeader"),
        ({"Digest": "md5=x"}, 400, "BadHeader"),
        ({"Content-Type": "no type"}, 400, "BadHeader"),
    ):
        answer = await store.http.post(url, content=HELLO, headers=headers)
        assert answer.status_code == status, headers
        if code is None:
            assert list(answer.json()) == ["storageId"]
        else:
            assert answer.json()["code"] == code
    assert len(await store.rows()) == len(store.on_disk()) == 5


async def test_a_wrong_digest_or_token_stores_nothing(store):
    """F146."""
    url = await store.upload_url()
    wrong = b64encode(bytes(32)).decode()
    answer = await store.http.post(url, content=HELLO, headers={"Digest": f"sha-256={wrong}"})
    assert answer.status_code == 400
    assert answer.json()["message"] == f"Sha256 mismatch. Expected: {wrong} Actual: {DIGEST}"
    altered = await store.http.post(url[:-1] + ("A" if url[-1] != "A" else "Q"), content=HELLO)
    assert (altered.status_code, altered.json()) == (
        401,
        {
            "code": "StorageTokenInvalid",
            "message": "Couldn't decode the StoreFileAuthorization token",
        },
    )
    await store.backend.runtime.advance(timedelta(hours=1, seconds=1))
    expired = await store.http.post(url, content=HELLO)
    assert (expired.status_code, expired.json()) == (
        401,
        {"code": "StorageTokenExpired", "message": "Store File Authorization expired"},
    )
    missing = await store.http.post(url.partition("?")[0], content=HELLO)
    assert (missing.status_code, missing.json()["code"]) == (400, "BadQueryArgs")
    assert await store.rows() == store.on_disk() == []


async def test_a_page_of_any_origin_may_upload(store):
    url = await store.upload_url()
    asked = {
        "Origin": "https://app.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    preflight = await store.http.options(url, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.test"
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert preflight.headers["access-control-max-age"] == "86400"
    refused = await store.http.post(url + "x", headers={"Origin": "https://app.test"})
    assert refused.headers["access-control-allow-origin"] == "https://app.test"


async def test_a_file_beyond_the_limit_is_refused(strict):
    url = await strict.upload_url()

    async def unannounced():
        for _ in range(3):
            yield bytes(50)

    for content in (bytes(101), unannounced()):
        answer = await strict.http.post(url, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "FileTooLarge")
    assert strict.on_disk() == []
    assert (await strict.http.post(url, content=bytes(100))).status_code == 200


async def test_an_upload_that_stands_still_ends(strict):
    async def slow():
        yield b"some"
        await asyncio.sleep(1)
        yield b"more"

    answer = await strict.http.post(await strict.upload_url(), content=slow())
    assert answer.status_code == 408
    assert strict.on_disk() == []


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(store):
    url = await store.upload_url()
    sent: list[dict] = []
    messages = [
        {"type": "http.request", "body": bytes(2_000_000), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    path, _, query = url.partition("?")
    scope = {
        "type": "http", "method": "POST", "path": path.removeprefix("http://store.test"),
        "query_string": query.encode(), "headers": [], "raw_path": b"", "root_path": "",
        "scheme": "http", "server": ("store.test", 80), "client": None, "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app_for(store.backend)(scope, receive, send)
    assert sent[0]["status"] == 408
    assert await store.rows() == store.on_disk() == []
    assert issubclass(ClientDisconnect, Exception)


async def test_a_full_disk_is_said_and_nothing_is_left(store, monkeypatch):
    url = await store.upload_url()

    class Full:
        def __getattr__(self, name):
            return getattr(disk_os, name)

        def write(self, *_args):
            raise OSError(28, "No space left on device")

    disk_os = disk.os
    monkeypatch.setattr(disk, "os", Full())
    answer = await store.http.post(url, content=HELLO)
    assert (answer.status_code, answer.json()["code"]) == (503, "FileStorageFull")
    monkeypatch.setattr(disk, "os", disk_os)
    assert await store.rows() == store.on_disk() == []
    assert (await store.http.post(url, content=HELLO)).status_code == 200


async def test_uploads_above_the_limit_wait_with_their_bodies_unread(tmp_path):
    async for store in served(tmp_path, concurrent_uploads=1):
        url = await store.upload_url()
        go_on, began = asyncio.Event(), asyncio.Event()

        async def slow(go_on=go_on, began=began):
            yield b"1"
            began.set()
            await go_on.wait()

        async def eager(read):
            read.append(True)
            yield b"2"

        read: list[bool] = []
        first = asyncio.create_task(store.http.post(url, content=slow()))
        await began.wait()
        second = asyncio.create_task(store.http.post(url, content=eager(read)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not second.done()
        go_on.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]


# Download.


async def test_a_file_is_served_with_its_type_length_and_digest(store):
    """F147."""
    storage_id = await store.upload(HELLO, **{"Content-Type": "text/plain"})
    url = await store.url(storage_id)
    answer = await store.http.get(url)
    assert (answer.status_code, answer.content) == (200, HELLO)
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["content-length"] == str(len(HELLO))
    assert answer.headers["digest"] == f"sha-256={DIGEST}"
    part = await store.http.get(url, headers={"Range": "bytes=7-11"})
    assert (part.status_code, part.content) == (206, b"world")
    await store.call("mutation", "delete", id=storage_id)
    assert await store.url(storage_id) is None
    uuid = url.rpartition("/")[2]
    gone = await store.http.get(url)
    assert (gone.status_code, gone.json()) == (
        404,
        {"code": "FileNotFound", "message": f"File {uuid} not found"},
    )


async def test_the_rules_of_a_download(store):
    """C103."""
    url = await store.url(await store.upload(HELLO, **{"Content-Type": "image/png"}))
    shared = {
        "content-type": "image/png",
        "cache-control": "private, max-age=2592000",
        "accept-ranges": "bytes",
    }
    whole = await store.http.get(url)
    assert whole.status_code == 200
    expected = {**shared, "content-length": "12", "digest": f"sha-256={DIGEST}"}
    assert {name: whole.headers.get(name) for name in expected} == expected
    assert "content-range" not in whole.headers
    assert "content-disposition" not in whole.headers
    part = await store.http.get(url, headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"hell")
    expected = {**shared, "content-length": "4", "content-range": "bytes 0-3/12"}
    assert {name: part.headers.get(name) for name in expected} == expected
    assert "digest" not in part.headers
    for ranges in ("bytes=0-1,3-4", "bytes=12-", "bytes=-0"):
        none = await store.http.get(url, headers={"Range": ranges})
        assert (none.status_code, none.content) == (416, b"")
        assert none.headers["content-range"] == "bytes */12"
    unknown = await store.http.get("/api/storage/95366df3-d57a-4b6c-82cd-ceba95688331")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "FileNotFound")
    for path in ("nonsense", "upload", "", "95366df3d57a4b6c82cdceba95688331"):
        bad = await store.http.get(f"/api/storage/{path}")
        assert (bad.status_code, bad.json()["code"]) == (400, "InvalidStoragePath"), path


async def test_the_id_of_a_file_is_no_address(store):
    storage_id = await store.upload()
    assert (await store.http.get(f"/api/storage/{storage_id}")).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2fowner", "%2e%2e/owner", "95366df3-d57a-4b6c-82cd-ceba95688331%00",
        "95366df3-d57a-4b6c-82cd-ceba95688331/x", "/etc/passwd", "unfinished/x", "ab/cd",
    ],
)  # fmt: skip
async def test_paths_lead_nowhere(store, path):
    answer = await store.http.get(f"http://store.test/api/storage/{path}")
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidStoragePath")


async def test_a_file_of_a_component_does_not_exist(store):
    url = await store.url(await store.upload())
    assert (await store.http.get(f"{url}?component=x")).status_code == 404
    assert (await store.http.get(f"{url}?component=")).status_code == 200


async def test_a_head_has_everything_but_the_body(store):
    url = await store.url(await store.upload())
    answer = await store.http.head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "12"
    assert answer.headers["digest"] == f"sha-256={DIGEST}"
    assert (await store.http.post(url)).status_code == 405


async def test_an_empty_file_is_served_whole(store):
    url = await store.url(await store.upload(b""))
    answer = await store.http.get(url, headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert "content-type" not in answer.headers


async def test_a_version_that_a_client_has_is_not_sent_again(store):
    url = await store.url(await store.upload())
    etag = (await store.http.get(url)).headers["etag"]
    for header in (etag, f'"other", W/{etag}', "*"):
        answer = await store.http.get(url, headers={"If-None-Match": header})
        assert (answer.status_code, answer.content) == (304, b""), header
    assert (await store.http.get(url, headers={"If-None-Match": '"other"'})).status_code == 200
    for validator, status in ((etag, 206), ('"other"', 200)):
        headers = {"Range": "bytes=0-3", "If-Range": validator}
        assert (await store.http.get(url, headers=headers)).status_code == status


async def test_a_long_file_is_the_same_whole_and_in_pieces(store):
    data = hashlib.sha512(b"seed").digest() * 30_000
    url = await store.url(await store.upload(data))
    assert (await store.http.get(url)).content == data
    pieces = [
        (await store.http.get(url, headers={"Range": f"bytes={start}-{start + 499_999}"})).content
        for start in range(0, len(data), 500_000)
    ]
    assert b"".join(pieces) == data
    counters = store.backend.files.counters
    assert (counters.received_bytes, counters.served_bytes) == (len(data), 2 * len(data))


async def test_a_download_that_nobody_reads_holds_nothing_open(strict, monkeypatch):
    storage_id = await strict.upload(bytes(100))
    file = find_file(strict.backend.database.begin(), storage_id)
    closed = []
    opened = strict.backend.files.open

    async def watched(*args):
        reading = await opened(*args)

        class Watched:
            def __aiter__(self):
                return self

            async def __anext__(self):
                return await anext(reading)

            async def aclose(self):
                closed.append(True)
                await reading.aclose()

        return Watched()

    monkeypatch.setattr(strict.backend.files, "open", watched)
    aborted = []

    async def receive():
        await asyncio.Event().wait()

    async def stuck(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def gone():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        await asyncio.sleep(0)
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": f"/api/storage/{file.uuid}", "query_string": b"",
        "headers": [], "raw_path": b"", "root_path": "", "scheme": "http", "client": None,
        "server": ("store.test", 80), "asgi": {"version": "3.0"},
        "state": {"reactive_store.abort": lambda: aborted.append(True)},
    }  # fmt: skip
    app = app_for(strict.backend)
    await app(dict(scope), receive, stuck)
    assert (closed, aborted) == ([True], [True])
    await app(dict(scope), gone, send)
    assert closed == [True, True]
    assert len([m for m in sent if m.get("more_body")]) <= 1


async def test_bytes_that_are_lost_end_the_connection_and_not_the_file(store, monkeypatch):
    url = await store.url(await store.upload(bytes(1_000_000)))
    (name,) = store.on_disk()
    (path,) = store.folder.rglob(name)
    path.write_bytes(bytes(300_000))
    # Without a server there is no connection to end: the error itself arrives.
    with pytest.raises(Exception, match="shorter"):
        await store.http.get(url)
    path.unlink()
    assert (await store.http.get(url)).status_code == 404


# What a file cannot do.


@pytest.mark.parametrize(
    "kind",
    [
        "image/png", "image/jpeg; q=1", "IMAGE/GIF", "video/webm;codecs=vp8", "audio/mpeg",
        "application/pdf", "text/plain; charset=utf-8", "application/json", "font/woff2",
        "application/octet-stream", "video/webm;codecs=vp8,opus",
    ],
)  # fmt: skip
def test_what_runs_nothing_is_served_plainly(kind):
    assert is_inert(kind)


@pytest.mark.parametrize(
    "kind",
    [
        None, "text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "application/xml",
        "text/javascript", "application/zip", "image/png;a=b,text/html", "unknown/unknown", "*/*",
        "image/png, text/html", "text/css", "application/rss+xml", "video/x+xml",
    ],
)  # fmt: skip
def test_what_could_run_is_put_into_a_sandbox(kind):
    assert not is_inert(kind)


async def test_a_page_that_was_uploaded_is_served_as_one_and_can_do_nothing(store):
    url = await store.url(await store.upload(b"<script>", **{"Content-Type": "text/html"}))
    answer = await store.http.get(url)
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"].split("; ")
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert not [each for each in policy if "script" in each]
    picture = await store.http.get(
        await store.url(await store.upload(b"x", **{"Content-Type": "image/png"}))
    )
    assert "content-security-policy" not in picture.headers
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert picture.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_a_page_cannot_load_a_file_of_its_own_origin_as_code(store):
    url = await store.url(await store.upload(b"alert()", **{"Content-Type": "text/javascript"}))
    for dest, site, status in (
        ("script", "same-origin", 403),
        ("serviceworker", "same-origin", 403),
        ("style", "same-origin", 403),
        ("script", "cross-site", 200),  # a page that chose this origin for its code
        ("empty", "same-origin", 200),
        ("document", "none", 200),
    ):
        headers = {"Sec-Fetch-Dest": dest, "Sec-Fetch-Site": site}
        answer = await store.http.get(url, headers=headers)
        assert answer.status_code == status, dest
        if status == 200:  # a copy in the browser's cache is no way around it
            assert "sec-fetch-dest" in answer.headers["vary"]
        else:
            assert answer.json()["code"] == "FileIsNotCode"


# Ranges.


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", (0, 4)),
        ("bytes = 0-3 ", (0, 4)),
        ("BYTES=9-", (9, 10)),
        ("bytes=0-99999999", (0, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=0-0,20-30", (0, 1)),
        ("bytes=5-2", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("items=0-3", None),
        ("0-3", None),
        ("bytes=0-3;", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_a_range_header_is_read_as_it_should(header, expected):
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=0-1,2-3", "bytes=-0", "bytes=20-30,40-"])
def test_none_or_several_ranges_cannot_be_satisfied(header):
    with pytest.raises(_NotSatisfiable):
        byte_range(header, 10)


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 40))
def test_a_range_always_lies_in_the_file(text, size):
    for header in (text, f"bytes={text}"):
        try:
            found = byte_range(header, size)
        except _NotSatisfiable:
            continue
        assert found is None or 0 <= found[0] < found[1] <= size
