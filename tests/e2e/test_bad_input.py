"""What peers, operators and disks do wrong: a real process answers, and lives on."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.e2e.server_process import APPS, ServerProcess
from tests.e2e.sync_socket import MutationFailed, SyncSocket

CONNECT = {
    "type": "Connect",
    "sessionId": "11111111-2222-4333-8444-555555555555",
    "connectionCount": 0,
    "lastCloseReason": "InitialConnect",
}
QUERY = {"type": "Add", "queryId": 0, "udfPath": "counters:value", "args": [{"name": "x"}]}


def modify(base: int, new: int, *modifications: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "ModifyQuerySet",
        "baseVersion": base,
        "newVersion": new,
        "modifications": list(modifications),
    }


async def talk(url: str, *frames: Any) -> tuple[list[dict[str, Any]], int | None, str]:
    """Send frames as they are; every message until the server closes, the code and the reason."""
    messages: list[dict[str, Any]] = []
    socket: ClientConnection
    address = url.replace("http", "ws", 1) + "/api/1.48.0/sync"
    async with connect(address, max_size=None, compression=None) as socket:
        for frame in frames:
            await socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        try:
            async with asyncio.timeout(10):
                while True:
                    messages.append(json.loads(await socket.recv()))
        except ConnectionClosed:
            pass
        return messages, socket.close_code, socket.close_reason or ""


@pytest.mark.parametrize(
    "frame",
    [
        "no json at all",
        "[]",
        "{}",
        '{"type": "Nonsense"}',
        '{"type": "Mutation", "requestId": 0}',
        '{"type": "Mutation", "requestId": -1, "udfPath": "a:b", "args": [{}]}',
        '{"type": "Connect", "sessionId": "no uuid", "connectionCount": 0}',
        '{"type": "Mutation", "requestId": 0, "udfPath": "a b:c", "args": [{}]}',
    ],
)
async def test_malformed_frame_is_answered_and_ends_the_socket(server: ServerProcess, frame: str):
    messages, _, _ = await talk(server.url, CONNECT, frame)
    assert messages[-1]["type"] == "FatalError"
    assert messages[-1]["error"].startswith("Received Invalid JSON on websocket: ")


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([modify(3, 4)], "Base version 3 passed up doesn't match the current version 0"),
        (
            [modify(0, 1), modify(0, 1)],
            "Base version 0 passed up doesn't match the current version 1",
        ),
    ],
)
async def test_query_set_of_another_version_is_fatal(
    server: ServerProcess, frames: list[Any], text: str
):
    messages, _, _ = await talk(server.url, CONNECT, *frames)
    assert messages[-1] == {"type": "FatalError", "error": text}


@pytest.mark.parametrize(
    "frames",
    [
        [modify(0, 0)],
        [modify(0, 1, QUERY), modify(1, 2, QUERY)],
        [modify(0, 1, {"type": "Remove", "queryId": 7})],
        [b"\x00\x01"],
        [{"type": "Authenticate", "tokenType": "None", "baseVersion": 9}],
        [{**CONNECT, "maxObservedTimestamp": "/////////38="}],
    ],
)
async def test_frame_that_breaks_the_order_ends_the_socket(
    server: ServerProcess, frames: list[Any]
):
    _, code, reason = await talk(server.url, *([] if len(frames) == 1 else [CONNECT]), *frames)
    assert (code, reason) == (1011, "InternalServerError")


async def test_others_do_not_notice(server: ServerProcess):
    name = f"others-{uuid.uuid4()}"
    async with SyncSocket(server.url) as healthy:
        assert await healthy.mutation("counters:increment", name=name) == 1
        await talk(server.url, CONNECT, "rubbish")
        await talk(server.url, b"\x00")
        assert await healthy.mutation("counters:increment", name=name) == 2


async def test_bad_token_is_an_auth_error(server: ServerProcess):
    messages, _, _ = await talk(
        server.url,
        CONNECT,
        {"type": "Authenticate", "tokenType": "User", "baseVersion": 0, "value": "not.a.token"},
    )
    assert messages[-1]["type"] == "AuthError"
    assert messages[-1]["authUpdateAttempted"] is True


async def test_wrong_calls_are_answered_and_the_socket_goes_on(server: ServerProcess):
    name = f"wrong-{uuid.uuid4()}"
    async with SyncSocket(server.url) as socket:
        for path, arguments, text in [
            ("nowhere:nothing", {}, "Could not find public function for 'nowhere:nothing'"),
            ("failures:hidden", {}, "Could not find public function"),
            ("counters:value", {"name": "x"}, "as Mutation, but it is defined as Query"),
            ("counters:increment", {"name": 5}, "ArgumentValidationError"),
            ("messages:remove", {"messageId": "xyz"}, "ArgumentValidationError"),
            ("failures:againstTheSchema", {}, "schema"),
        ]:
            with pytest.raises(MutationFailed) as caught:
                await socket.mutation(path, **arguments)
            assert text in caught.value.args[0]["result"]
        assert await socket.mutation("counters:increment", name=name) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{", "application/json", "BadJsonBody"),
        (b"{}", "application/json", "BadJsonBody"),
        (b'{"path": "a:b", "args": {}}', "text/plain", "BadJsonBody"),
        (b'{"path": "a b:c", "args": {}}', "application/json", "BadConvexFunctionIdentifier"),
        (
            b'{"path": "counters:value", "args": {}, "format": "xml"}',
            "application/json",
            "BadFormat",
        ),
        (b'"' + b"x" * 17_000_000 + b'"', "application/json", "BadJsonBody"),
    ],
    ids=["torn", "empty", "no type", "bad path", "bad format", "too large"],
)
def test_bad_http_request_gets_a_code(
    server: ServerProcess, body: bytes, content_type: str, code: str
):
    request = Request(f"{server.url}/api/query", body, {"Content-Type": content_type})
    with pytest.raises(HTTPError) as caught:
        urlopen(request, timeout=20)
    with caught.value as response:
        assert response.code == 400
        assert json.load(response)["code"] == code


def test_port_in_use_is_said(server: ServerProcess, tmp_path: Path):
    second = ServerProcess(APPS / "basic", tmp_path / "data")
    second.port = server.port
    with pytest.raises(AssertionError, match=f"{server.port}") as caught:
        second.start()
    assert "Traceback" not in str(caught.value)
    assert "port" in str(caught.value).lower()


def test_second_server_on_one_data_directory_names_the_first(server: ServerProcess):
    second = ServerProcess(APPS / "basic", server.data)
    with pytest.raises(AssertionError, match=str(server.pid)) as caught:
        second.start()
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("name", ["data.sqlite3", "log.sqlite3"])
def test_data_of_a_newer_version_is_refused_and_left_alone(
    own_server: Callable[..., ServerProcess], name: str
):
    server = own_server()
    server.stop()
    file = server.data / name
    with sqlite3.connect(file) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(AssertionError, match="newer version of reactive_store") as caught:
        server.start()
    assert "Traceback" not in str(caught.value)
    assert file.read_bytes() == before


async def test_data_that_does_not_match_a_new_schema_is_named(
    own_server: Callable[..., ServerProcess], tmp_path: Path
):
    server = own_server()
    async with SyncSocket(server.url) as socket:
        key = await socket.mutation("messages:send", channel="c", author="a", body="b")
    server.stop()
    changed = tmp_path / "changed"
    shutil.copytree(APPS / "basic", changed, ignore=shutil.ignore_patterns("__pycache__"))
    schema = (changed / "schema.py").read_text()
    assert '"author": v.string()' in schema
    (changed / "schema.py").write_text(
        schema.replace('"author": v.string()', '"author": v.number()')
    )
    server.app = changed
    with pytest.raises(AssertionError, match="does not match the schema") as caught:
        server.start()
    for part in ("messages", key, "author"):
        assert part in str(caught.value)
    server.app = APPS / "basic"
    server.start()
    async with SyncSocket(server.url) as socket:
        (query,) = await socket.subscribe(("messages:bodies", {"channel": "c"}))
        await socket.next_transition()
        assert socket.results[query] == ["b"]


async def test_index_added_to_existing_data_finds_it(
    own_server: Callable[..., ServerProcess], tmp_path: Path
):
    server = own_server()
    async with SyncSocket(server.url) as socket:
        await socket.mutation("messages:sendMany", channel="c", count=300)
    server.stop()
    changed = tmp_path / "changed"
    shutil.copytree(APPS / "basic", changed, ignore=shutil.ignore_patterns("__pycache__"))
    schema = (changed / "schema.py").read_text()
    old = '.index("by_channel", ["channel"])'
    assert old in schema
    (changed / "schema.py").write_text(schema.replace(old, old + '.index("by_body", ["body"])', 1))
    (changed / "functions" / "finder.py").write_text(
        "from reactive_store import QueryCtx, query\n\n\n"
        "@query\n"
        "async def by_body(ctx: QueryCtx, body: str):\n"
        '    return await ctx.db.query("messages").with_index("by_body", body=body).collect()\n'
    )
    server.app = changed
    server.start()
    async with SyncSocket(server.url) as socket:
        (query,) = await socket.subscribe(("finder:byBody", {"body": "message 123"}))
        await socket.next_transition()
        assert len(socket.results[query]) == 1


async def test_full_disk_stops_writes_and_loses_nothing(
    own_server: Callable[..., ServerProcess],
):
    server = own_server(file_bytes=4_000_000)
    acknowledged = []
    failure: Exception | None = None
    try:
        async with asyncio.timeout(60), SyncSocket(server.url) as socket:
            for number in range(20_000):
                body = f"{number} " + "x" * 20_000
                await socket.mutation("messages:send", channel="full", author="a", body=body)
                acknowledged.append(body)
    except (MutationFailed, OSError, WebSocketException) as error:
        failure = error
    assert failure is not None, "the limit was never reached"
    assert len(acknowledged) > 10
    if server.process is not None and server.process.poll() is None:
        server.kill()
    else:
        server.process = None
    server.file_bytes = None
    server.start()
    async with SyncSocket(server.url) as socket:
        (query,) = await socket.subscribe(("messages:bodies", {"channel": "full"}))
        await socket.next_transition()
        kept = socket.results[query]
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 1
