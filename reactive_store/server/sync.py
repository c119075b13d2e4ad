"""The sync socket: from an upgrade request to a `Worker`, and back out as text frames.

This file knows sockets and nothing about the protocol on them. Text goes in, frames come out
through a `Transport`; what a slow peer does not take yet is counted, and the worker stops producing
when the count is high.

Invariants
- Only text frames leave. A binary frame of the peer ends the socket.
- One ticker serves every socket; an idle socket owns no task, besides its request where the server
  has no short way.
- A socket that ends is told to its worker exactly once.

Source: Convex's sync endpoint as its npm client 1.48 and Python client 0.8 open it
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.websockets import WebSocket

from reactive_store.auth.identity import RequestSource
from reactive_store.backend import Backend
from reactive_store.errors import BadRequest
from reactive_store.runtime import Runtime
from reactive_store.server.authorization import source_of
from reactive_store.server.client_version import (
    CLIENT_HEADER,
    RefusedClient,
    check_support,
    client_of_header,
    client_of_path,
    deprecation_headers,
)
from reactive_store.server.errors import error_response
from reactive_store.server.socket_protocol import DIRECT, SocketProtocol
from reactive_store.sync.frames import SharedFrame
from reactive_store.sync.messages import ClientVersion
from reactive_store.sync.worker import Pump, Worker

__all__ = ["AsgiTransport", "Sockets", "SyncEndpoint"]

_log = logging.getLogger("reactive_store.server")

_TICK_SECONDS = 1.0
_PING_SECONDS = 20.0  # between two pings of the websocket itself; oftener where silence is short
_PINGS_PER_SILENCE = 4.0
_HIGH_WATER_BYTES = 64 * 1024
_GOING_AWAY = 1001
_INTERNAL_ERROR = (1011, "InternalServerError")


class AsgiTransport:
    """Frames to a peer through any ASGI server.

    `send` never waits: it buffers, and a task drains the buffer as fast as the server takes frames.
    The task exists only while there is something to write.
    """

    def __init__(
        self, send: Send, runtime: Runtime, *, high_water_bytes: int = _HIGH_WATER_BYTES
    ) -> None:
        self._send = send
        self._runtime = runtime
        self._high_water_bytes = high_water_bytes
        # Called when the buffer has emptied after being above the high-water mark.
        self.on_writable: Callable[[], None] = _ignore
        self._frames: deque[bytes] = deque()
        self._buffered_bytes = 0
        # What to say after the last frame. Set once, by `close`; then nothing more is taken.
        self._farewell: tuple[int, str] | None = None
        self._writer: asyncio.Task[None] | None = None

    @property
    def is_writable(self) -> bool:
        """Whether the peer keeps up."""
        return self._buffered_bytes <= self._high_water_bytes

    def send(self, frame: bytes) -> None:
        """Queue one text frame (UTF-8). Does nothing once `close` was called."""
        if self._farewell is None:
            self._frames.append(frame)
            self._buffered_bytes += len(frame)
            self._start_writer()

    def send_all(self, frames: Sequence[bytes]) -> None:
        """Queue several text frames."""
        for frame in frames:
            self.send(frame)

    def send_shared(self, frame: SharedFrame) -> None:
        """Queue a text frame that other sockets send as well."""
        self.send(frame.text)

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket after the frames sent so far."""
        if self._farewell is None:
            self._farewell = (code, reason)
            self._start_writer()

    async def finish(self) -> None:
        """The socket has ended: take no more, and stop the writer."""
        if self._farewell is None:
            self._farewell = (_GOING_AWAY, "")
        self._frames.clear()
        self._buffered_bytes = 0
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    def _start_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = self._runtime.spawn(self._write(), name="socket writer")

    async def _write(self) -> None:
        try:
            while self._frames:
                was_writable = self.is_writable
                frame = self._frames.popleft()
                await self._send({"type": "websocket.send", "text": frame.decode()})
                self._buffered_bytes -= len(frame)
                if not was_writable and self.is_writable:
                    self.on_writable()
            if self._farewell is not None:
                code, reason = self._farewell
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except (OSError, RuntimeError):
            # The peer left while we wrote. The endpoint learns it from `receive`.
            self._frames.clear()
            self._buffered_bytes = 0


def _ignore() -> None:
    pass


class _Conversation:
    """One socket: its transport, its worker, and the boundary that owns their failures."""

    __slots__ = ("_transport", "_worker")

    def __init__(self, transport: AsgiTransport | SocketProtocol, worker: Worker) -> None:
        self._transport = transport
        self._worker = worker

    def receive(self, text: str | bytes) -> None:
        """A text message has arrived."""
        try:
            self._worker.receive(text)
        except Exception:  # noqa: BLE001 - the boundary that owns a session's failure
            self._fail()

    def receive_binary(self) -> None:
        """A binary message has arrived: no client of the protocol sends one."""
        try:
            self._worker.receive_binary()
        except Exception:  # noqa: BLE001 - as above
            self._fail()

    def on_writable(self) -> None:
        """The transport has room again."""
        try:
            self._worker.on_writable()
        except Exception:  # noqa: BLE001 - as above
            self._fail()

    def tick(self, *, ping: bool) -> None:
        """A second has passed."""
        transport = self._transport
        try:
            if isinstance(transport, SocketProtocol):
                if transport.take_heard():
                    self._worker.on_pong()
                if ping:
                    transport.ping()
            self._worker.on_tick()
        except Exception:  # noqa: BLE001 - as above; nor may one socket stop the ticker of all
            self._fail()

    def close(self, code: int) -> None:
        """End the socket from our side."""
        self._transport.close(code, "")

    def end(self) -> None:
        """The socket is gone."""
        try:
            self._worker.on_disconnect()
        except Exception:  # noqa: BLE001 - as above; the socket's protocol has its own to clear up
            _log.exception("a sync session failed to end")

    def _fail(self) -> None:
        _log.exception("a sync session failed")
        self._transport.close(*_INTERNAL_ERROR)


class Sockets:
    """Every open sync socket of one application, and the pump and ticker they share.

    `silence_seconds` after which a socket is ended: it must have been asked for a sign of life.
    """

    def __init__(self, runtime: Runtime, *, silence_seconds: float) -> None:
        self._runtime = runtime
        seconds = min(_PING_SECONDS, silence_seconds / _PINGS_PER_SILENCE)
        self._ping_ticks = max(1, int(seconds / _TICK_SECONDS))
        self.pump = Pump(runtime)
        self._open: set[_Conversation] = set()
        # Runs while a socket is open. Started by the first, ends by itself after the last.
        self._ticker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, conversation: _Conversation) -> None:
        """Tick it from now on."""
        self._open.add(conversation)
        if self._ticker is None or self._ticker.done():
            self._ticker = self._runtime.spawn(self._tick(), name="sync ticker")

    def discard(self, conversation: _Conversation) -> None:
        """It has ended."""
        self._open.discard(conversation)

    async def close(self) -> None:
        """Tell every client that the server goes away; they reconnect by themselves."""
        for conversation in list(self._open):
            conversation.close(_GOING_AWAY)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self.pump.close()

    async def _tick(self) -> None:
        count = 0
        while self._open:
            await self._runtime.sleep(_TICK_SECONDS)
            count += 1
            for conversation in list(self._open):
                conversation.tick(ping=count % self._ping_ticks == 0)


class SyncEndpoint:
    """`GET /api/{version}/sync` and `/api/sync`, for sockets and for what should have been one."""

    def __init__(
        self, backend: Callable[[], Awaitable[Backend]], sockets: Sockets, runtime: Runtime
    ) -> None:
        self._backend = backend
        self._sockets = sockets
        self._runtime = runtime

    async def refuse_plain_request(self, request: Request) -> Response:
        """A GET that asked for no websocket, or not in the right words."""
        headers = request.headers
        options = [part.strip().lower() for part in headers.get("connection", "").split(",")]
        if "upgrade" not in options:
            code, message = "InvalidConnectionHeader", "Expected `Connection: upgrade`"
        elif headers.get("upgrade", "").lower() != "websocket":
            code, message = "InvalidUpgradeHeader", "Expected `Upgrade: websocket`"
        elif "sec-websocket-key" not in headers:
            code = "WebSocketKeyHeaderMissing"
            message = "The `Sec-WebSocket-Key` header is missing"
        else:
            code, message = "InvalidWebSocketVersionHeader", "No websocket could be opened"
        return error_response(BadRequest(message, code=code), self._runtime)

    async def serve(self, websocket: WebSocket) -> None:
        """One socket, from the handshake to its end."""
        scope, receive, send = websocket.scope, websocket.receive, websocket.send
        try:
            client = _client_of(websocket)
            support = check_support(client)
            backend = await self._backend()
        except Exception as error:  # noqa: BLE001 - the boundary that owns a failed handshake
            response = error_response(error, self._runtime)
            if isinstance(error, RefusedClient):
                response.raw_headers.extend(deprecation_headers(error.support))
            await _refuse(websocket, response)
            return
        await websocket.accept(headers=deprecation_headers(support))
        source = source_of(websocket)
        direct = scope.get("extensions", {}).get(DIRECT)
        if direct is None:
            await self._serve_ordinary(backend, receive, send, client, source)
        else:
            self._hand_over(backend, direct["socket"], client, source)

    def _hand_over(
        self,
        backend: Backend,
        socket: SocketProtocol,
        client: ClientVersion,
        source: RequestSource,
    ) -> None:
        """Let a socket of our own server go on by itself; this request ends here."""
        conversation = self._start(backend, socket, client, source)
        sockets = self._sockets

        def end() -> None:
            sockets.discard(conversation)
            conversation.end()

        socket.attach(conversation, end)
        sockets.add(conversation)

    async def _serve_ordinary(
        self,
        backend: Backend,
        receive: Receive,
        send: Send,
        client: ClientVersion,
        source: RequestSource,
    ) -> None:
        transport = AsgiTransport(send, self._runtime)
        conversation = self._start(backend, transport, client, source)
        transport.on_writable = conversation.on_writable
        self._sockets.add(conversation)
        try:
            await _read(receive, conversation)
        finally:
            self._sockets.discard(conversation)
            conversation.end()
            await transport.finish()

    def _start(
        self,
        backend: Backend,
        transport: AsgiTransport | SocketProtocol,
        client: ClientVersion,
        source: RequestSource,
    ) -> _Conversation:
        worker = Worker(
            backend.runner,
            backend.live_queries,
            backend.database,
            backend.authenticator,
            backend.runtime,
            backend.limits,
            transport,
            client,
            redact=backend.settings.redact,
            pump=self._sockets.pump,
            source=source,
        )
        return _Conversation(transport, worker)


def _client_of(connection: HTTPConnection) -> ClientVersion:
    """Which client opens a socket: its header counts before the version in the path.

    Raises   BadRequest[InvalidClientVersion]
    """
    header = connection.headers.get(CLIENT_HEADER)
    if header is not None:
        return client_of_header(header)
    segment = connection.path_params.get("version")
    return ClientVersion() if segment is None else client_of_path(segment)


async def _read(receive: Receive, conversation: _Conversation) -> None:
    """Pass messages on until the socket ends."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is not None:
            conversation.receive(text)
        else:
            conversation.receive_binary()


async def _refuse(websocket: WebSocket, response: Response) -> None:
    """Answer the handshake with a response, where the server can; else with its plain 403."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
    else:
        await websocket.close()
