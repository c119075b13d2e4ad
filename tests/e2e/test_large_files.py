"""Large files through a real server: memory, what is left behind, connections that end."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.server_process import APPS, ServerProcess

MIB = 1024 * 1024
MEGABYTES = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(APPS / "files", tmp_path / "data", options=("--no-redact",)) as running:
        yield running


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


def call(http: httpx.Client, kind: str, path: str, **args: object):
    body = {"path": f"files:{path}", "args": args, "format": "json"}
    answer = http.post(f"/api/{kind}", json=body).json()
    assert answer["status"] == "success", answer
    return answer["value"]


def blobs(server: ServerProcess) -> list[Path]:
    files = (server.data / "files").rglob("*")
    return [path for path in files if path.is_file() and path.name != "owner"]


def test_a_hundred_megabytes_cost_a_few(server: ServerProcess, http: httpx.Client):
    block = hashlib.sha512(b"seed").digest() * (MIB // 64)
    url = call(http, "mutation", "uploadUrl")
    http.post(url, content=block)  # what the first upload needs once and for all
    before = peak = server.resident_bytes()

    def sent() -> Iterator[bytes]:
        nonlocal peak
        for number in range(MEGABYTES):
            yield block
            if number % 8 == 0:
                peak = max(peak, server.resident_bytes())

    storage_id = http.post(url, content=sent()).json()["storageId"]
    copied = call(http, "action", "copy", storage_id=storage_id)
    peak = max(peak, server.resident_bytes())
    expected = hashlib.sha256()
    for _ in range(MEGABYTES):
        expected.update(block)
    rows = {row["id"]: row["url"] for row in call(http, "query", "stored")}
    for each in (storage_id, copied):
        found = hashlib.sha256()
        with http.stream("GET", rows[each]) as answer:
            for part in answer.iter_raw(MIB):
                found.update(part)
                peak = max(peak, server.resident_bytes())
        assert found.digest() == expected.digest()
    assert (peak - before) / MIB < 24


def test_a_refused_upload_is_answered_though_nobody_reads_it(http: httpx.Client):
    url = call(http, "mutation", "uploadUrl")
    answer = http.post(url[:-4] + "AAAA", content=bytes(20 * MIB))
    assert (answer.status_code, answer.json()["code"]) == (401, "StorageTokenInvalid")
    assert http.get("/version").status_code == 200


def test_a_client_that_hangs_up_leaves_nothing(server: ServerProcess, http: httpx.Client):
    parts = urlsplit(call(http, "mutation", "uploadUrl"))
    head = (
        f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Length: {10 * MIB}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(head + bytes(3 * MIB))
        give_up = time.monotonic() + 20
        while not blobs(server) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert blobs(server), "the upload had not begun"
    while blobs(server) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert blobs(server) == []
    assert call(http, "query", "stored") == []


def test_a_file_that_lost_its_bytes_ends_with_its_connection(
    server: ServerProcess, http: httpx.Client
):
    http.post(call(http, "mutation", "uploadUrl"), content=bytes(4 * MIB))
    ((row,), (blob,)) = call(http, "query", "stored"), blobs(server)
    blob.write_bytes(bytes(MIB))
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(row["url"])
    assert http.get("/version").status_code == 200
    assert "Traceback" not in server.said()


def test_a_full_disk_refuses_one_file_and_goes_on(tmp_path: Path):
    app = APPS / "files"
    with (
        ServerProcess(app, tmp_path / "full", file_bytes=8 * MIB) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http,
    ):
        url = call(http, "mutation", "uploadUrl")
        answer = http.post(url, content=bytes(20 * MIB))
        assert (answer.status_code, answer.json()["code"]) == (503, "FileStorageFull")
        assert blobs(server) == []
        assert http.post(url, content=bytes(MIB)).status_code == 200
        assert len(call(http, "query", "stored")) == 1
