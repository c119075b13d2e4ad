"""The websocket protocol on uvicorn, against a client and a transport without I/O."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.uri import parse_uri

from reactive_store.server.app import app_for
from reactive_store.server.socket_protocol import DIRECT, SocketProtocol
from reactive_store.sync.frames import SharedFrame


class Wire(asyncio.Transport):
    """What the server writes, and whether it still may."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closing = False
        self.aborted = False
        self.reading = True

    def write(self, data: Any) -> None:
        if not self.closing:
            self.written += data

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def take(self) -> bytes:
        taken, self.written = bytes(self.written), bytearray()
        return taken


class Connection:
    """A server protocol and the client that talks to it."""

    def __init__(
        self, app: Any, *, compression: bool = False, subprotocols: Any = None, **config: Any
    ) -> None:
        settings = {"lifespan": "off", "log_config": None, "ws_max_size": 64 * 1024 * 1024}
        settings |= {"ws_per_message_deflate": compression} | config
        self.state = ServerState()
        self.server = SocketProtocol(
            _loaded(uvicorn.Config(app, **settings)), self.state, {"key": "value"}
        )
        self.wire = Wire()
        self.server.connection_made(self.wire)
        extensions = [ClientPerMessageDeflateFactory()] if compression else None
        self.client = ClientProtocol(
            parse_uri("ws://store.test/api/1.48.0/sync?x=1"),
            extensions=extensions,
            subprotocols=subprotocols,
            max_size=None,
        )

    async def open(self, **headers: str) -> Response:
        request = self.client.connect()
        for name, value in headers.items():
            name = name.replace("_", "-")
            if name in request.headers:
                del request.headers[name]
            if value:
                request.headers[name] = value
        self.client.send_request(request)
        return await self._handshake(b"".join(self.client.data_to_send()))

    async def _handshake(self, data: bytes) -> Response:
        self.server.data_received(data)
        await settle()
        events = self.receive()
        assert isinstance(events[0], Response), events
        return events[0]

    def send(self, data: bytes, *, binary: bool = False) -> None:
        (self.client.send_binary if binary else self.client.send_text)(data)
        self.flush()

    def flush(self) -> None:
        for data in self.client.data_to_send():
            if data:
                self.server.data_received(data)

    def receive(self) -> list[Request | Response | Frame]:
        self.client.receive_data(self.wire.take())
        return self.client.events_received()

    def texts(self) -> list[bytes]:
        events = self.receive()
        assert all(isinstance(event, Frame) and event.opcode is Opcode.TEXT for event in events)
        return [bytes(event.data) for event in events]


def _loaded(config: uvicorn.Config) -> uvicorn.Config:
    config.load()
    return config


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Reader:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.binaries = 0
        self.writables = 0

    def receive(self, text: bytes) -> None:
        self.messages.append(text)

    def receive_binary(self) -> None:
        self.binaries += 1

    def on_writable(self) -> None:
        self.writables += 1


class DirectApp:
    """An application that attaches a reader, like the sync endpoint."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.scope: dict[str, Any] = {}
        self.end: dict[str, Any] | None = None
        self.socket: SocketProtocol | None = None

    async def __call__(self, scope, receive, send):
        self.scope = scope
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", "headers": [(b"x-warning", b"old")]})
        self.socket = scope["extensions"][DIRECT]["socket"]
        self.socket.attach(self.reader)
        self.end = await receive()


@pytest.fixture
def app():
    return DirectApp()


async def opened(app: Any, **options: Any) -> Connection:
    connection = Connection(app, **options)
    response = await connection.open()
    assert response.status_code == 101
    return connection


async def test_the_scope_is_that_of_an_asgi_websocket(app):
    connection = Connection(app)
    response = await connection.open(Convex_Client="npm-1.48.0")
    assert response.headers["x-warning"] == "old"
    assert "Sec-WebSocket-Protocol" not in response.headers
    assert "Sec-WebSocket-Extensions" not in response.headers
    scope = app.scope
    assert (scope["type"], scope["scheme"]) == ("websocket", "ws")
    assert scope["path"] == "/api/1.48.0/sync"
    assert scope["query_string"] == b"x=1"
    assert (b"convex-client", b"npm-1.48.0") in scope["headers"]
    assert scope["state"] == {"key": "value"}
    assert "websocket.http.response" in scope["extensions"]
    assert len(connection.state.connections) == 1


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Sec_WebSocket_Key": ""}, "WebSocketKeyHeaderMissing"),
        ({"Sec_WebSocket_Version": ""}, "InvalidWebSocketVersionHeader"),
        ({"Sec_WebSocket_Version": "12"}, "InvalidWebSocketVersionHeader"),
    ],
)
async def test_a_bad_handshake_is_refused_with_its_code(app, headers, code):
    connection = Connection(app)
    response = await connection.open(**headers)
    assert response.status_code == 400
    assert json.loads(bytes(response.body))["code"] == code
    assert response.headers["content-type"] == "application/json"
    assert connection.wire.closing
    assert app.scope == {}


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 20 * 1024 * 1024])
async def test_messages_of_every_length_arrive_whole_both_ways(app, size):
    connection = await opened(app)
    connection.send(b"x" * size)
    assert [len(message) for message in app.reader.messages] == [size]
    app.socket.send(b"y" * size)
    assert connection.texts() == [b"y" * size]


async def test_fragments_are_joined(app):
    connection = await opened(app)
    connection.client.send_text(b'{"a":', fin=False)
    connection.client.send_continuation(b"1", fin=False)
    connection.client.send_ping(b"between")
    connection.client.send_continuation(b"}", fin=True)
    connection.flush()
    assert app.reader.messages == [b'{"a":1}']
    (pong,) = connection.receive()
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"between")


async def test_a_binary_message_is_only_counted(app):
    connection = await opened(app)
    connection.send(b"\x00", binary=True)
    assert app.reader.messages == []
    assert app.reader.binaries == 1


async def test_a_message_beyond_the_limit_closes_with_1009(app):
    connection = await opened(app, ws_max_size=1000)
    connection.send(b"x" * 1001)
    (close,) = connection.receive()
    assert close.opcode is Opcode.CLOSE
    assert connection.client.close_rcvd.code == 1009
    await settle()
    assert app.reader.messages == []
    assert app.end["type"] == "websocket.disconnect"


async def test_frames_of_a_client_that_compresses_are_compressed(app):
    connection = Connection(app, compression=True)
    response = await connection.open()
    assert response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    app.socket.send(b"z" * 10_000)
    assert len(connection.wire.written) < 1000
    assert connection.texts() == [b"z" * 10_000]
    connection.send(b"w" * 10_000)
    assert app.reader.messages == [b"w" * 10_000]


@pytest.mark.parametrize("compression", [False, True])
async def test_messages_sent_together_arrive_one_by_one(app, compression):
    connection = Connection(app, compression=compression)
    await connection.open()
    app.socket.send_all([b"a", b"b" * 200, b"c" * 70_000])
    assert connection.texts() == [b"a", b"b" * 200, b"c" * 70_000]


@pytest.mark.parametrize("compression", [False, True])
async def test_a_shared_message_reaches_every_socket(compression):
    frame = SharedFrame(b"news" * 100)
    for _ in range(2):
        plain, other = Connection(DirectApp()), Connection(DirectApp(), compression=compression)
        for connection in (plain, other):
            await connection.open()
            connection.server.send_shared(frame)
        assert plain.texts() == other.texts() == [b"news" * 100]


async def test_nothing_is_sent_together_or_shared_after_a_close(app):
    connection = await opened(app)
    app.socket.close(1000)
    app.socket.send_all([b"too", b"late"])
    app.socket.send_shared(SharedFrame(b"too late"))
    (close,) = connection.receive()
    assert close.opcode is Opcode.CLOSE


class LeavingApp:
    """An application that leaves its connection to a reader and returns."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.ends = 0

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        self.receive = receive
        scope["extensions"][DIRECT]["socket"].attach(self.reader, self.on_end)

    def on_end(self) -> None:
        self.ends += 1


async def test_a_connection_outlives_the_application_that_left_it_to_a_reader():
    app = LeavingApp()
    connection = await opened(app)
    await settle()
    assert connection.state.tasks == set()
    assert not connection.wire.closing
    connection.send(b"still here")
    connection.server.send(b"so am I")
    assert app.reader.messages == [b"still here"]
    assert connection.texts() == [b"so am I"]
    assert app.ends == 0
    connection.client.send_close(1000)
    connection.flush()
    assert connection.wire.closing
    connection.server.connection_lost(None)
    connection.server.connection_lost(None)
    assert app.ends == 1
    with pytest.raises(ClientDisconnected):
        await app.receive()


async def test_the_peer_may_close(app):
    connection = await opened(app)
    connection.client.send_close(1000, "bye")
    connection.flush()
    (close,) = connection.receive()
    assert close.opcode is Opcode.CLOSE
    await settle()
    assert app.end == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    assert connection.wire.closing
    app.socket.send(b"too late")
    assert connection.wire.take() == b""


async def test_our_close_follows_what_was_sent_and_waits_for_an_answer(app):
    connection = await opened(app)
    app.socket.send(b"last words")
    app.socket.close(1013, "TooManyConcurrentMutations")
    app.socket.send(b"too late")
    app.socket.close(1000, "again")
    text, close = connection.receive()
    assert bytes(text.data) == b"last words"
    assert close.opcode is Opcode.CLOSE
    received = connection.client.close_rcvd
    assert (received.code, received.reason) == (1013, "TooManyConcurrentMutations")
    assert not connection.wire.closing
    connection.flush()
    assert connection.wire.closing
    connection.server.connection_lost(None)
    await settle()
    assert app.end["code"] == 1013


async def test_a_peer_that_goes_on_sending_still_hears_our_close(app):
    connection = await opened(app)
    app.socket.close(1013, "TooManyConcurrentRequests")
    close_frame = connection.wire.take()
    for _ in range(3):
        connection.send(b"sent before it heard")
        assert not connection.wire.closing  # or the network would forget the Close
    assert app.reader.messages == []
    connection.client.receive_data(close_frame)
    assert connection.client.close_rcvd.reason == "TooManyConcurrentRequests"
    connection.flush()
    assert connection.wire.closing


async def test_a_peer_that_does_not_answer_a_close_is_dropped(app, monkeypatch):
    monkeypatch.setattr("reactive_store.server.socket_protocol._CLOSE_SECONDS", 0.0)
    connection = await opened(app)
    app.socket.close(1000)
    for _ in range(100):
        await asyncio.sleep(0)
        if connection.wire.aborted:
            break
    assert connection.wire.aborted


async def test_a_lost_connection_is_told_once(app):
    connection = await opened(app)
    connection.server.connection_lost(ConnectionResetError())
    await settle()
    assert app.end["type"] == "websocket.disconnect"
    assert connection.state.connections == set()
    assert connection.state.tasks == set()
    app.socket.send(b"x")
    app.socket.ping()
    assert connection.wire.take() == b""


async def test_a_slow_peer_makes_the_socket_unwritable(app):
    connection = await opened(app)
    assert app.socket.is_writable
    connection.server.pause_writing()
    assert not app.socket.is_writable
    connection.server.resume_writing()
    assert app.socket.is_writable
    assert app.reader.writables == 1


async def test_pongs_are_not_kept_for_a_peer_that_does_not_read(app):
    connection = await opened(app)
    connection.server.pause_writing()
    connection.client.send_ping(b"many")
    connection.flush()
    assert connection.wire.take() == b""
    connection.server.resume_writing()
    connection.client.send_ping(b"again")
    connection.flush()
    (pong,) = connection.receive()
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"again")


async def test_a_close_is_answered_whether_or_not_the_peer_reads(app):
    connection = await opened(app)
    connection.server.pause_writing()
    connection.client.send_close(1000)
    connection.flush()
    (close,) = connection.receive()
    assert close.opcode is Opcode.CLOSE


async def test_a_ping_is_answered_and_noticed(app):
    connection = await opened(app)
    app.socket.take_heard()
    assert not app.socket.take_heard()
    app.socket.ping()
    (ping,) = connection.receive()
    assert ping.opcode is Opcode.PING
    connection.flush()
    assert app.socket.take_heard()
    assert app.reader.messages == []


async def test_a_server_that_stops_closes_with_1001(app):
    connection = await opened(app)
    connection.server.shutdown()
    connection.receive()
    assert connection.client.close_rcvd.code == 1001
    await settle()
    assert app.end["code"] == 1001


# ---- the sync endpoint on a direct socket ----


async def test_the_sync_endpoint_takes_the_short_way(store):
    connection = await opened(app_for(store))
    add = {"type": "Add", "queryId": 0, "udfPath": "notes:all", "args": [{}]}
    change = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add]}
    connection.send(json.dumps(change).encode())
    await settle()
    (transition,) = map(json.loads, connection.texts())
    assert transition["modifications"][0]["value"] == []
    call = {"type": "Mutation", "requestId": 0, "udfPath": "notes:add", "args": [{"body": "x"}]}
    connection.send(json.dumps(call).encode())
    for _ in range(50):
        await asyncio.sleep(0)
    response, pushed = map(json.loads, connection.texts())
    assert response["success"] is True
    assert pushed["startVersion"] == transition["endVersion"]
    assert pushed["modifications"][0]["value"] == ["x"]
    connection.send(b"\x00", binary=True)
    connection.receive()
    close = connection.client.close_rcvd
    assert (close.code, close.reason) == (1011, "InternalServerError")
    await settle()
    assert len(store.live_queries) == 0


async def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_let_go(store):
    living, dead = await opened(app_for(store)), await opened(app_for(store))
    closed_after = None
    for second in range(0, 300, 5):
        await store.runtime.advance(timedelta(seconds=5))
        living.receive()
        living.flush()  # a client's library answers pings by itself
        assert living.client.close_rcvd is None
        if closed_after is None:
            dead.receive()  # and never flushes
            if dead.client.close_rcvd is not None:
                closed_after = second
    assert dead.client.close_rcvd.code == 1000
    assert dead.client.close_rcvd.reason == "ClientDisconnected"
    assert 115 <= closed_after <= 145


# ---- an ordinary application ----


async def test_an_ordinary_application_sees_an_ordinary_websocket():
    async def echo(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    connection = Connection(echo, subprotocols=["chat", "other"])
    response = await connection.open()
    assert response.headers["Sec-WebSocket-Protocol"] == "chat"
    connection.send("héllo".encode())
    connection.send(b"\x00\x01", binary=True)
    await settle()
    text, binary = connection.receive()
    assert (text.opcode, bytes(text.data)) == (Opcode.TEXT, "héllo".encode())
    assert (binary.opcode, bytes(binary.data)) == (Opcode.BINARY, b"\x00\x01")


async def test_an_application_may_refuse_with_a_response():
    async def app(scope, receive, send):
        await receive()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "websocket.http.response.start", "status": 400, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"{", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"}"})

    connection = Connection(app)
    response = await connection.open()
    assert (response.status_code, bytes(response.body)) == (400, b"{}")
    assert connection.wire.closing


async def test_an_application_may_refuse_by_closing():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.close"})

    response = await Connection(app).open()
    assert response.status_code == 403


async def test_a_failing_application_is_a_500_before_and_a_1011_after_the_handshake(caplog):
    async def before(scope, receive, send):
        raise ZeroDivisionError

    async def after(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    assert (await Connection(before).open()).status_code == 500
    connection = Connection(after)
    assert (await connection.open()).status_code == 101
    connection.receive()
    assert connection.client.close_rcvd.code == 1011
    assert caplog.text.count("a websocket application failed") == 2


async def test_text_that_is_not_utf8_closes_with_1007():
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())

    connection = await opened(app)
    connection.send(b"\xff\xfe")
    await settle()
    connection.receive()
    assert connection.client.close_rcvd.code == 1007
    assert seen[0]["type"] == "websocket.disconnect"


async def test_an_ordinary_application_that_is_slow_pauses_the_peer():
    gate = asyncio.Event()
    received = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await gate.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received.append(message["text"])

    connection = await opened(app)
    for number in range(40):
        connection.send(str(number).encode())
    assert not connection.wire.reading
    gate.set()
    await settle()
    assert connection.wire.reading
    assert received == [str(number) for number in range(40)]


async def test_a_connection_that_is_lost_before_the_handshake_ends_quietly():
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await receive()
        await send({"type": "websocket.accept"})

    connection = Connection(app)
    connection.client.send_request(connection.client.connect())
    connection.flush()
    connection.server.connection_lost(None)
    connection.wire.closing = True
    gate.set()
    await settle()
    assert connection.state.tasks == set()
