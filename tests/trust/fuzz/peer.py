"""The other end of one socket, without a network: any bytes in, the server's frames out.

The server's own websocket protocol runs over a transport that only remembers, so tens of
thousands of broken inputs take seconds, each of them can be repeated exactly, and an exception
that asyncio would swallow is seen.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from reactive_store.server.socket_protocol import SocketProtocol
from tests.trust.fuzz.deployment import Deployment
from tests.trust.fuzz.documented import CLOSES, check_frame, check_leaks
from tests.trust.fuzz.shrinking import Find

__all__ = ["HANDSHAKE", "OWN_REASON", "Peer", "frame", "text_frame"]

OWN_REASON = b"ok"  # of every Close that these tests send; it may come back

HANDSHAKE = (
    b"GET /api/1.48.0/sync HTTP/1.1\r\nHost: store.test\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
_MASK = b"\x5a\x01\xc3\x7e"
# Of RFC 6455 itself: a broken frame, text that is no UTF-8, a message beyond the limit.
_BROKEN_FRAME = {1002, 1007, 1009}


def frame(
    payload: bytes,
    *,
    opcode: int = 1,
    fin: bool = True,
    reserved: int = 0,
    mask: bytes | None = _MASK,
    length: int | None = None,
) -> bytes:
    """One frame of a client, right unless asked to be wrong. `length`: what its header says."""
    size = len(payload) if length is None else length
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    masked = 0x80 if mask is not None else 0
    if size < 126:
        head = bytes((first, masked | size))
    elif size < 65536:
        head = bytes((first, masked | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, masked | 127)) + size.to_bytes(8, "big")
    if mask is None:
        return head + payload
    repeated = mask * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[: len(payload)], "big")
    return head + mask + number.to_bytes(len(payload), "big")


def text_frame(message: Any) -> bytes:
    """A message (or its bytes) in one right frame."""
    return frame(message if isinstance(message, bytes) else json.dumps(message).encode())


class _Wire(asyncio.Transport):
    """What the server writes, and whether it still reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closing = False
        self.protocol: Any = None  # who is told what arrives

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        if not self.closing:
            self.written += data

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Peer:
    """One connection to a deployment. `feed` bytes, `settle`, look at `find` and `messages`."""

    def __init__(
        self,
        deployment: Deployment,
        secrets: tuple[str, ...],
        *,
        message_bytes: int = 1 << 26,
        compression: bool = False,
        from_http: bool = False,
    ) -> None:
        """`from_http`: the bytes pass uvicorn's HTTP protocol first, as on a real port."""
        self._deployment = deployment
        self._secrets = secrets
        config = uvicorn.Config(
            deployment.web,
            lifespan="off",
            log_config=None,
            ws=SocketProtocol,
            http="h11",
            access_log=False,
            server_header=False,
            ws_max_size=message_bytes,
            ws_per_message_deflate=compression,
        )
        config.load()
        self.messages: list[Any] = []
        self.pongs = 0
        self.close_code: int | None = None
        self.find: Find | None = None
        self.answer = b""  # to the handshake
        self._is_upgraded = False
        self._version: Any = None
        self._wire = _Wire()
        # Shared by the frames of a compressed connection.
        self._inflate = zlib.decompressobj(-15) if compression else None
        kind: Any = config.http_protocol_class if from_http else SocketProtocol
        self._wire.protocol = kind(config, ServerState(), {})
        self._wire.protocol.connection_made(self._wire)

    @property
    def is_open(self) -> bool:
        """Whether the server would read more."""
        return not self._wire.closing

    async def settle(self, turns: int = 12) -> None:
        """Let the server work, then read what it said."""
        for _ in range(turns):
            await asyncio.sleep(0)
        self._read()

    def feed(self, data: bytes) -> None:
        """Bytes arrive."""
        if not self.is_open or not data:
            return
        try:
            self._wire.protocol.data_received(data)
        except Exception as error:  # asyncio would drop the connection and log a bug
            self._note(Find("exception in data_received", repr(error)))
            self._wire.close()

    async def open(self, request: bytes = HANDSHAKE) -> None:
        """The upgrade request, and its answer."""
        self.feed(request)
        await self.settle()

    def leave(self) -> None:
        """The connection is lost."""
        self._read()
        self._note_bugs()
        self._wire.closing = True
        try:
            self._wire.protocol.connection_lost(None)
        except Exception as error:
            self._note(Find("exception in connection_lost", repr(error)))

    # ---- what the server said ----

    def _note_bugs(self) -> None:
        if self._deployment.bugs:
            self._note(Find("logged as a bug", self._deployment.bugs[-1]))
            self._deployment.bugs.clear()

    def _note(self, find: Find | None) -> None:
        if find is not None and self.find is None:
            self.find = find

    def _read(self) -> None:
        written = self._wire.written
        if not self._is_upgraded:
            head, end, _ = written.partition(b"\r\n\r\n")
            if not end:
                return
            self.answer = bytes(written if not head.startswith(b"HTTP/1.1 101") else head)
            if not head.startswith(b"HTTP/1.1 101"):
                self._refused(bytes(written))
                written.clear()
                return
            self._is_upgraded = True
            del written[: len(head) + 4]
        while len(written) >= 2:
            size, start = written[1] & 0x7F, 2
            if size >= 126:
                start = 4 if size == 126 else 10
                size = int.from_bytes(written[2:start], "big")
            if len(written) < start + size:
                return
            self._take(written[0], bytes(written[start : start + size]))
            del written[: start + size]

    def _refused(self, answer: bytes) -> None:
        text = answer.decode("latin-1")
        if not text.startswith(("HTTP/1.1 4", "HTTP/1.1 2", "HTTP/1.1 505")):
            self._note(Find("answer to a handshake", text[:300]))
        self._note(check_leaks(text, self._secrets, redact=self._deployment.redact))

    def _take(self, first: int, payload: bytes) -> None:
        if self.close_code is not None:
            self._note(Find("frame after Close", payload[:100].decode("latin-1")))
        match first:
            case 0x81:
                self._take_text(payload)
            case 0x88:
                self._take_close(payload)
            case 0xC1 if self._inflate is not None:
                self._take_text(self._inflate.decompress(payload + b"\0\0\xff\xff"))
            case 0x89 | 0x8A:
                self.pongs += first == 0x8A
            case _:
                self._note(Find("kind of frame", hex(first)))

    def _take_text(self, payload: bytes) -> None:
        redact = self._deployment.redact
        try:
            text = payload.decode()
            message = json.loads(text)
        except ValueError as error:
            self._note(Find("frame is no JSON", f"{error}: {payload[:200]!r}"))
            return
        self.messages.append(message)
        self._note(check_leaks(text, self._secrets, redact=redact))
        self._note(check_frame(message, redact=redact))
        if message.get("type") == "Transition":
            if self._version not in (None, message["startVersion"]):
                self._note(Find("versions do not chain", text[:200]))
            self._version = message["endVersion"]

    def _take_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        reason = payload[2:].decode("utf-8", "replace")
        self.close_code = code
        if code in _BROKEN_FRAME or reason.encode() == OWN_REASON:
            return
        # A Close of ours without a reason comes back with its code, which may be any.
        if reason and reason not in CLOSES.get(code, ()):
            self._note(Find("close reason", f"{code} {reason}"))
