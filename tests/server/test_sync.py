"""The sync endpoint: handshakes, the ordinary transport, and a whole conversation over ASGI."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest

from reactive_store.runtime import SystemRuntime
from reactive_store.server.app import app_for
from reactive_store.server.sync import AsgiTransport, Sockets


class Socket:
    """The client's end of one ASGI websocket."""

    def __init__(self, app: Any, path: str, headers: dict[str, str], *, can_deny: bool) -> None:
        self.to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        path, _, query = path.partition("?")
        scope = {
            "type": "websocket",
            "path": path,
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}} if can_deny else {},
        }
        self.to_app.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app(scope, self.to_app.get, self.from_app.put))

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.from_app.get(), 5)

    async def next_frame(self) -> dict[str, Any]:
        message = await self.next()
        assert message["type"] == "websocket.send", message
        assert set(message) == {"type", "text"}
        return json.loads(message["text"])

    def say(self, **fields: Any) -> None:
        self.to_app.put_nowait({"type": "websocket.receive", "text": json.dumps(fields)})

    async def end(self) -> None:
        self.to_app.put_nowait({"type": "websocket.disconnect", "code": 1005})
        await asyncio.wait_for(self.task, 5)


@pytest.fixture
async def open_socket(store):
    app = app_for(store)
    sockets = []

    def start(path: str = "/api/1.48.0/sync", *, can_deny: bool = True, **headers: str) -> Socket:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sockets.append(Socket(app, path, named, can_deny=can_deny))
        return sockets[-1]

    async with app.router.lifespan_context(app):
        yield start
        for socket in sockets:
            await socket.end()


ACCEPTED = [
    ("/api/1.48.0/sync", {}),
    ("/api/sync", {}),
    ("/api/sync?x=1", {"convex_client": "python-0.8.1"}),
    ("//api/1.48.0/sync", {}),
    ("/api/notsemver/sync", {"convex_client": "npm-1.48.0"}),
    ("/api/0.1.0/sync", {"convex_client": "somebody-0.0.1"}),
    ("/api/sync", {"convex_client": "rust-0.8.1"}),
]


@pytest.mark.parametrize(("path", "headers"), ACCEPTED)
async def test_a_known_client_is_let_in_without_a_subprotocol(open_socket, path, headers):
    accepted = await open_socket(path, **headers).next()
    assert accepted["type"] == "websocket.accept"
    assert accepted.get("subprotocol") is None
    assert accepted["headers"] == []


async def test_an_outdated_client_is_let_in_with_a_warning(open_socket):
    accepted = await open_socket("/api/sync", convex_client="python-0.1.0").next()
    headers = dict(accepted["headers"])
    assert headers[b"x-convex-deprecation-state"] == b"UpgradeRequired"
    assert b"x-convex-deprecation-message" in headers


REFUSED = [
    ("/api/notsemver/sync", {}, "InvalidClientVersion", None),
    ("/api/1.48.0/sync", {"convex_client": "nodash"}, "InvalidClientVersion", None),
    ("/api/0.19.1/sync", {}, "ClientVersionUnsupported", b"Unsupported"),
    ("/api/sync", {"convex_client": "npm-0.19.1"}, "ClientVersionUnsupported", b"Unsupported"),
]


@pytest.mark.parametrize(("path", "headers", "code", "state"), REFUSED)
async def test_a_refused_client_gets_a_response_that_says_why(
    open_socket, path, headers, code, state
):
    socket = open_socket(path, **headers)
    start, body = await socket.next(), await socket.next()
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 400
    refusal = json.loads(body["body"])
    assert refusal.keys() == {"code", "message"}
    assert refusal["code"] == code
    assert dict(start["headers"]).get(b"x-convex-deprecation-state") == state


async def test_a_server_that_cannot_respond_to_a_handshake_closes(open_socket):
    message = await open_socket("/api/bad/sync", can_deny=False).next()
    assert message["type"] == "websocket.close"


PLAIN = [
    ({"Connection": "keep-alive"}, "InvalidConnectionHeader"),
    ({}, "InvalidConnectionHeader"),
    ({"Connection": "keep-alive, Upgrade", "Upgrade": "h2c"}, "InvalidUpgradeHeader"),
    ({"Connection": "Upgrade"}, "InvalidUpgradeHeader"),
    ({"Connection": "Upgrade", "Upgrade": "WebSocket"}, "WebSocketKeyHeaderMissing"),
    (
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x"},
        "InvalidWebSocketVersionHeader",
    ),
]


@pytest.mark.parametrize(("headers", "code"), PLAIN)
@pytest.mark.parametrize("path", ["/api/sync", "/api/1.48.0/sync"])
async def test_a_request_that_is_no_handshake_is_told_what_is_missing(http, path, headers, code):
    response = await http.get(path, headers=headers)
    assert response.status_code == 400
    assert response.json()["code"] == code


async def test_a_conversation_over_an_ordinary_server(open_socket):
    writer, reader = open_socket(), open_socket("/api/sync", convex_client="python-0.8.1")
    for socket in (writer, reader):
        assert (await socket.next())["type"] == "websocket.accept"
    reader.say(
        type="ModifyQuerySet",
        baseVersion=0,
        newVersion=1,
        modifications=[{"type": "Add", "queryId": 7, "udfPath": "notes:all", "args": [{}]}],
    )
    first = await reader.next_frame()
    assert first["type"] == "Transition"
    assert first["modifications"][0]["value"] == []
    writer.say(type="Mutation", requestId=0, udfPath="notes:add", args=[{"body": "hello"}])
    response, own = await writer.next_frame(), await writer.next_frame()
    assert (response["type"], response["success"]) == ("MutationResponse", True)
    assert own["type"] == "Transition"
    pushed = await reader.next_frame()
    assert pushed["startVersion"] == first["endVersion"]
    assert pushed["modifications"][0]["value"] == ["hello"]


async def test_what_a_socket_calls_knows_where_it_comes_from(open_socket, store):
    socket = open_socket(user_agent="me")
    await socket.next()
    socket.say(type="Mutation", requestId=0, udfPath="notes:source", args=[{}])
    response = await socket.next_frame()
    assert response["result"] == [None, "me", 16.0, None]  # this server names no peer
    key = store.admin_keys.issue()
    socket.say(type="Authenticate", baseVersion=0, tokenType="Admin", value=key)
    socket.say(type="Mutation", requestId=1, udfPath="notes:source", args=[{}])
    while (response := await socket.next_frame())["type"] != "MutationResponse":
        pass
    assert response["result"] == [None, "me", 16.0, None]  # an administrator's key is told nobody


async def test_a_binary_frame_ends_the_socket(open_socket):
    socket = open_socket()
    await socket.next()
    socket.to_app.put_nowait({"type": "websocket.receive", "bytes": b"{}"})
    closed = await socket.next()
    assert closed["type"] == "websocket.close"
    assert (closed["code"], closed["reason"]) == (1011, "InternalServerError")


async def test_what_is_no_json_ends_the_socket_with_the_last_word_first(open_socket):
    socket = open_socket()
    await socket.next()
    socket.to_app.put_nowait({"type": "websocket.receive", "text": "{"})
    fatal, closed = await socket.next_frame(), await socket.next()
    assert fatal["type"] == "FatalError"
    assert fatal["error"].startswith("Received Invalid JSON on websocket:")
    assert (closed["type"], closed["code"]) == ("websocket.close", 1000)


async def test_a_stopping_server_says_that_it_goes_away(store):
    app = app_for(store)
    async with app.router.lifespan_context(app):
        socket = Socket(app, "/api/sync", {}, can_deny=True)
        await socket.next()
    closed = await socket.next()
    assert (closed["type"], closed["code"]) == ("websocket.close", 1001)
    await socket.end()


async def test_a_socket_that_ends_stops_watching(open_socket, store):
    socket = open_socket()
    await socket.next()
    socket.say(
        type="ModifyQuerySet",
        baseVersion=0,
        newVersion=1,
        modifications=[{"type": "Add", "queryId": 0, "udfPath": "notes:all", "args": [{}]}],
    )
    await socket.next_frame()
    assert len(store.live_queries) == 1
    await socket.end()
    assert len(store.live_queries) == 0


async def test_a_failing_session_takes_only_its_own_socket(open_socket, store, monkeypatch, caplog):
    monkeypatch.setattr("reactive_store.sync.worker.decode_client", lambda text: 1 / 0)
    socket = open_socket()
    await socket.next()
    socket.to_app.put_nowait({"type": "websocket.receive", "text": "{}"})
    closed = await socket.next()
    assert (closed["code"], closed["reason"]) == (1011, "InternalServerError")
    assert "ZeroDivisionError" in caplog.text


async def test_an_idle_socket_hears_a_ping_every_fifteen_seconds_and_stays_open(open_socket, store):
    socket = open_socket()
    await socket.next()
    heard = [0]
    for second in range(1, 601):
        await store.runtime.advance(timedelta(seconds=1))
        if not socket.from_app.empty():
            assert await socket.next_frame() == {"type": "Ping"}
            heard.append(second)
    assert len(heard) > 35
    assert all(14 <= later - earlier <= 16 for earlier, later in pairwise(heard))


@pytest.mark.parametrize(("silence_seconds", "gap"), [(120.0, 20), (8.0, 2), (1.0, 1)])
async def test_peers_are_asked_for_a_sign_of_life_before_silence_would_end_them(
    store, silence_seconds, gap
):
    pinged: list[bool] = []
    sockets = Sockets(store.runtime, silence_seconds=silence_seconds)
    sockets.add(Mock(tick=lambda *, ping: pinged.append(ping)))
    for _ in range(60):
        await store.runtime.advance(timedelta(seconds=1))
    assert [second for second, ping in enumerate(pinged, 1) if ping] == list(range(gap, 61, gap))
    await sockets.close()


# ---- the transport by itself ----


class Peer:
    """Takes frames only when told to."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.gate = asyncio.Semaphore(0)

    async def send(self, message: dict[str, Any]) -> None:
        await self.gate.acquire()
        self.taken.append(message)

    async def take(self, count: int) -> None:
        goal = len(self.taken) + count
        for _ in range(count):
            self.gate.release()
        for _ in range(100):
            if len(self.taken) >= goal:
                break
            await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_frames_keep_their_order_and_the_close_comes_last():
    peer = Peer()
    transport = AsgiTransport(peer.send, SystemRuntime())
    transport.send(b"one")
    transport.send(b"two")
    transport.close(1013, "later")
    transport.send(b"too late")
    transport.close(1000)
    await peer.take(5)
    assert peer.taken == [
        {"type": "websocket.send", "text": "one"},
        {"type": "websocket.send", "text": "two"},
        {"type": "websocket.close", "code": 1013, "reason": "later"},
    ]


async def test_a_peer_that_falls_behind_makes_the_transport_unwritable_until_it_catches_up():
    peer = Peer()
    transport = AsgiTransport(peer.send, SystemRuntime(), high_water_bytes=10)
    calls = []
    transport.on_writable = lambda: calls.append(transport.is_writable)
    transport.send(b"12345")
    transport.send(b"67890")
    assert transport.is_writable
    transport.send(b"x")
    assert not transport.is_writable
    assert calls == []
    await peer.take(1)
    assert transport.is_writable
    await peer.take(2)
    assert calls == [True]


async def test_an_idle_transport_owns_no_task():
    peer = Peer()
    transport = AsgiTransport(peer.send, SystemRuntime())
    before = len(asyncio.all_tasks())
    transport.send(b"x")
    assert len(asyncio.all_tasks()) == before + 1
    await peer.take(1)
    assert len(asyncio.all_tasks()) == before
    transport.send(b"y")
    await peer.take(1)
    assert [message["text"] for message in peer.taken] == ["x", "y"]


async def test_the_end_of_a_socket_stops_its_writer():
    peer = Peer()
    transport = AsgiTransport(peer.send, SystemRuntime())
    transport.send(b"never taken")
    await asyncio.sleep(0)
    before = len(asyncio.all_tasks())
    await transport.finish()
    assert len(asyncio.all_tasks()) == before - 1
    transport.send(b"x")
    assert transport.is_writable
    assert peer.taken == []


async def test_a_peer_that_left_is_no_error():
    async def send(message):
        raise OSError("gone")

    transport = AsgiTransport(send, SystemRuntime(), high_water_bytes=1)
    transport.send(b"abc")
    assert not transport.is_writable
    for _ in range(5):
        await asyncio.sleep(0)
    assert transport.is_writable
