"""A websocket connection on uvicorn, with a short way in and out for the sync endpoint.

To an ASGI application this is an ordinary websocket server. The sync endpoint finds itself an
extension in the scope, `DIRECT`, and attaches a reader: from then on a text frame is handed to it
inside `data_received`, and `send` writes a finished frame to the transport at once. That saves a
queue, two task switches and two copies per message; nothing else in the server depends on it, and
under any other ASGI server the endpoint uses the ordinary way.

Invariants
- Only text frames are sent. Nothing is sent after a Close.
- After `attach`, the ASGI application sees the end of the connection and nothing before it. Where
  the reader is told of the end, the application may return at once: that is what keeps an idle
  connection small.

Source: RFC 6455 through the `websockets` package; the contract of uvicorn's `ws` setting; the
refusals of a bad handshake are those of Convex's open server
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Protocol, cast
from urllib.parse import unquote

from starlette.types import Message
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.exceptions import InvalidState
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from reactive_store.server.errors import error_body
from reactive_store.sync.frames import SharedFrame

__all__ = ["DIRECT", "SocketProtocol", "SocketReader"]

DIRECT = "reactive_store.direct"  # key of the scope's extensions; its value holds the protocol

_log = logging.getLogger("reactive_store.server")

_CLOSE_SECONDS = 10.0  # how long a peer may take to answer a Close
_SHUTDOWN_SECONDS = 1.0  # the same when the whole server waits for it
_WAITING_MESSAGES = 32  # of an ordinary application, before reading pauses
_HANDSHAKE_ERRORS = {
    "WebSocketKeyHeaderMissing": "The `Sec-WebSocket-Key` header is missing",
    "InvalidWebSocketVersionHeader": "The `Sec-WebSocket-Version` header has to be 13",
}


def _header(size: int) -> bytes:
    """What goes before a server's text frame of so many bytes."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


class SocketReader(Protocol):
    """What the sync endpoint attaches."""

    def receive(self, text: bytes) -> None:
        """A whole text message has arrived (UTF-8). Must not raise."""
        ...

    def receive_binary(self) -> None:
        """A binary message has arrived; its content is dropped. Must not raise."""
        ...

    def on_writable(self) -> None:
        """The transport has room again after `is_writable` was False."""
        ...


class SocketProtocol(asyncio.Protocol):
    """One connection, from the upgrade request to the last byte."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        extensions = None
        if config.ws_per_message_deflate:
            extensions = [ServerPerMessageDeflateFactory(compress_settings={"memLevel": 5})]
        self._conn = ServerProtocol(extensions=extensions, max_size=config.ws_max_size)
        self._transport = cast(asyncio.Transport, None)  # set by connection_made, never unset
        # The handshake: what came, and what to answer if the application accepts.
        self._response: Response | None = None
        self._refusal: tuple[int, Iterable[tuple[bytes, bytes]], list[bytes]] | None = None
        # True between the accepted handshake and the first Close of either side.
        self._is_open = False
        # Set by `attach`, cleared with the connection.
        self._reader: SocketReader | None = None
        # Who is told of the end; set by `attach`, called and cleared by connection_lost.
        self._on_end: Callable[[], None] | None = None
        # False between pause_writing and resume_writing.
        self.is_writable = True
        # Made when an ordinary application has to wait for that; set when it need not any more.
        self._writable: asyncio.Event | None = None
        # The ordinary way in. Ends with one websocket.disconnect. None once nobody will read it.
        self._inbox: deque[Message] | None = deque()
        # Resolved by the next message; None unless the application waits for one.
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False
        self._reading_paused = False
        self._fragments: list[bytes] = []
        self._fragments_are_text = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._was_heard = False

    # ---- the short way ----

    def attach(self, reader: SocketReader, on_end: Callable[[], None] | None = None) -> None:
        """Hand every text message to `reader` from now on.

        With `on_end`, which must not raise, the application may return: the connection goes on
        without it, and `on_end` is called once when it is lost.
        """
        self._reader = reader
        self._on_end = on_end

    def send(self, frame: bytes) -> None:
        """Write one text message (UTF-8). Does nothing once the connection is closing."""
        if not self._is_open:
            return
        if self._conn.extensions:
            self._send_compressed((frame,))
            return
        self._transport.write(_header(len(frame)) + frame)

    def send_all(self, frames: Sequence[bytes]) -> None:
        """Write several text messages at once."""
        if not self._is_open:
            return
        if self._conn.extensions:
            self._send_compressed(frames)
            return
        self._transport.write(
            b"".join([part for frame in frames for part in (_header(len(frame)), frame)])
        )

    def _send_compressed(self, frames: Sequence[bytes]) -> None:
        if self._conn.state is not State.OPEN:
            return  # see `_close`
        for frame in frames:
            self._conn.send_text(frame)
        self._flush()

    def send_shared(self, frame: SharedFrame) -> None:
        """Write a text message that other connections write as well."""
        if self._conn.extensions:
            self.send(frame.text)  # each connection compresses in its own context
            return
        if not self._is_open:
            return
        wire = frame.wire
        if wire is None:
            header = _header(sum(map(len, frame.parts)))
            wire = frame.wire = b"".join((header, *frame.parts))
        self._transport.write(wire)

    def close(self, code: int, reason: str = "") -> None:
        """Send a Close after everything sent so far; drop the connection if it is not answered."""
        self._close(code, reason, _CLOSE_SECONDS)

    def _close(self, code: int, reason: str, patience_s: float) -> None:
        if not self._is_open:
            return
        self._is_open = False
        # A frame behind the message that we answer may have begun the end already: a Close of the
        # peer, or something broken. Its Close is written after this.
        if self._conn.state is State.OPEN:
            self._conn.send_close(code, reason)
            self._flush()
        self._end(code, reason)
        self._close_timer = self._loop.call_later(patience_s, self._transport.abort)

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        if self._is_open:
            self._conn.send_ping(b"")
            self._flush()

    def take_heard(self) -> bool:
        """Whether anything has arrived since the last call."""
        was_heard, self._was_heard = self._was_heard, False
        return was_heard

    # ---- what asyncio and uvicorn call ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(cast(Any, self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(cast(Any, self))
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._is_open = False
        self._reader = None
        self._end(1006 if self._conn.close_rcvd is None else self._conn.close_rcvd.code)
        self.is_writable = True
        if self._writable is not None:
            self._writable.set()  # whoever waits to write finds the connection gone
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self._reader is not None:
            self._reader.on_writable()

    def shutdown(self) -> None:
        """The server stops: uvicorn's request to end this connection."""
        if self._is_open:
            self._close(1001, "", _SHUTDOWN_SECONDS)
        elif self._close_timer is None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._was_heard = True
        conn = self._conn
        was_closing = conn.state is State.CLOSING
        conn.receive_data(data)
        for event in conn.events_received():
            if isinstance(event, Request):
                self._on_request(event)
            elif isinstance(event, Frame):
                self._on_frame(event)
        has_closed = was_closing and self._close_timer is not None
        if not has_closed and (self.is_writable or conn.state is not State.OPEN):
            self._flush()  # pongs, the answer to a Close, the Close of a broken frame
        else:
            # Pongs: not kept for a peer that does not read, not sent behind our own Close.
            conn.data_to_send()
        if conn.parser_exc is None and conn.close_rcvd is None and self._close_timer is not None:
            # Our Close is on its way to a peer that was still sending. A connection that is closed
            # with something unread takes back what was written: it would never learn the reason.
            return
        if conn.parser_exc is not None or conn.close_expected():
            self._is_open = False
            self._end(1006 if conn.close_rcvd is None else conn.close_rcvd.code)
            self._transport.close()

    def eof_received(self) -> None:
        """The peer sends no more; asyncio closes the transport."""

    # ---- handshake ----

    def _on_request(self, request: Request) -> None:
        for code, is_wrong in (
            ("WebSocketKeyHeaderMissing", "Sec-WebSocket-Key" not in request.headers),
            (
                "InvalidWebSocketVersionHeader",
                request.headers.get_all("Sec-WebSocket-Version") != ["13"],
            ),
        ):
            if is_wrong:
                self._refuse_with_body(400, error_body(code, _HANDSHAKE_ERRORS[code]))
                return
        response = self._conn.accept(request)
        if response.status_code != 101:
            self._conn.send_response(response)
            self._flush()
            self._transport.close()
            return
        self._response = response
        task = self._loop.create_task(self._run_application(self._scope(request)))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _scope(self, request: Request) -> dict[str, Any]:
        raw_path, _, query_string = request.path.partition("?")
        root_path = self._config.root_path
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self._transport) else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": root_path,
            "path": root_path + unquote(raw_path),
            "raw_path": (root_path + raw_path).encode("ascii"),
            "query_string": query_string.encode("ascii"),
            "headers": [
                (name.lower().encode("ascii"), value.encode("latin-1", "surrogateescape"))
                for name, value in request.headers.raw_items()
            ],
            "subprotocols": [
                name.strip()
                for line in request.headers.get_all("Sec-WebSocket-Protocol")
                for name in line.split(",")
            ],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, DIRECT: {"socket": self}},
        }

    async def _run_application(self, scope: dict[str, Any]) -> None:
        try:
            await self._config.loaded_app(scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except Exception:  # noqa: BLE001 - the boundary that owns an application's failure
            _log.exception("a websocket application failed")
            if self._response is not None:
                self._refuse_with_body(500, b"Internal Server Error")
            self.close(1011, "InternalServerError")
        else:
            if self._on_end is not None and self._is_open:
                self._inbox = None  # the reader goes on without the application
                return
        if self._close_timer is None and not self._transport.is_closing():
            self._transport.close()

    def _accept(self, message: Message) -> None:
        response, self._response = self._response, None
        if response is None or self._transport.is_closing():
            raise ClientDisconnected
        subprotocol = message.get("subprotocol")
        if subprotocol:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        for name, value in [*self._server.default_headers, *message.get("headers", [])]:
            if name != b"date":
                response.headers[name.decode("latin-1")] = value.decode("latin-1")
        self._conn.send_response(response)
        self._flush()
        self._is_open = True

    def _refuse_with_body(self, status: int, body: bytes) -> None:
        self._refuse(status, [(b"content-type", b"application/json")], body)

    def _refuse(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self._response = None
        answer = Headers()
        for name, value in headers:
            answer[name.decode("latin-1")] = value.decode("latin-1")
        if "Content-Length" not in answer:
            answer["Content-Length"] = str(len(body))
        answer["Connection"] = "close"
        self._conn.send_response(Response(status, HTTPStatus(status).phrase, answer, body))
        self._flush()
        self._end(1006)
        self._transport.close()

    # ---- frames ----

    def _on_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin:
                self._on_message(bytes(frame.data), is_text=opcode is Opcode.TEXT)
            else:
                self._fragments = [bytes(frame.data)]
                self._fragments_are_text = opcode is Opcode.TEXT
        elif opcode is Opcode.CONT:
            if frame.data:  # the others are not counted by the limit of a message
                self._fragments.append(bytes(frame.data))
            if frame.fin:
                message, self._fragments = b"".join(self._fragments), []
                self._on_message(message, is_text=self._fragments_are_text)
        # Ping, Pong and Close are answered by the protocol; being heard is all they mean here.

    def _on_message(self, data: bytes, *, is_text: bool) -> None:
        if not self._is_open:
            return  # what comes after our Close is not read
        if self._reader is None:
            self._queue_message(data, is_text=is_text)
        elif is_text:
            self._reader.receive(data)
        else:
            self._reader.receive_binary()

    def _queue_message(self, data: bytes, *, is_text: bool) -> None:
        if is_text:
            try:
                message: Message = {"type": "websocket.receive", "text": data.decode()}
            except UnicodeDecodeError:
                self.close(1007, "")
                return
        else:
            message = {"type": "websocket.receive", "bytes": data}
        if self._put(message) > _WAITING_MESSAGES and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _end(self, code: int, reason: str = "") -> None:
        """Tell the application, once, that the connection has ended."""
        if not self._has_ended:
            self._has_ended = True
            self._put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _put(self, message: Message) -> int:
        """Put a message where the application finds it. How many it has not taken."""
        inbox = self._inbox
        if inbox is None:
            return 0
        inbox.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return len(inbox)

    def _flush(self) -> None:
        for data in self._conn.data_to_send():
            if data:
                self._transport.write(data)

    # ---- the ordinary way ----

    async def _receive(self) -> Message:
        inbox = self._inbox
        if inbox is None:
            raise ClientDisconnected  # the application has returned already
        if self._response is not None and not inbox:
            return {"type": "websocket.connect"}
        while not inbox:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = inbox.popleft()
        if self._reading_paused and not inbox:
            self._reading_paused = False
            self._transport.resume_reading()
        return message

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.send":
            if not self.is_writable:
                if self._writable is None:
                    self._writable = asyncio.Event()
                await self._writable.wait()
            self._send_ordinary(message)
        elif kind == "websocket.close":
            if self._response is not None:
                self._refuse(403, [], b"")
            else:
                self.close(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.http.response.start":
            self._refusal = (message["status"], message.get("headers", []), [])
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            status, headers, parts = self._refusal
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._refuse(status, headers, b"".join(parts))
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def _send_ordinary(self, message: Message) -> None:
        if not self._is_open or self._conn.state is not State.OPEN:
            raise ClientDisconnected
        try:
            text = message.get("text")
            if text is not None:
                self._conn.send_text(text.encode())
            else:
                self._conn.send_binary(message["bytes"])
        except InvalidState as error:
            raise ClientDisconnected from error
        self._flush()
