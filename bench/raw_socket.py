"""A websocket client of the least cost, so that the load generator is not what is measured.

It speaks just enough of RFC 6455 for a server on this machine: one text message per frame, a zero
mask (so nothing has to be masked), pings answered.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

__all__ = ["RawSocket", "connect"]

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA


class RawSocket(asyncio.Protocol):
    """Calls `on_text(payload)` for every text message; `send` is immediate."""

    def __init__(self, path: str, host: str) -> None:
        self.on_text: Callable[[bytes], None] = lambda payload: None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False
        self._path = path
        self._host = host
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("closed during the handshake"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.opened.done():
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in self._buffer[:40]:
                self.opened.set_exception(ConnectionError(bytes(self._buffer[:200]).decode()))
                return
            del self._buffer[: end + 4]
            self.opened.set_result(None)
        self._parse()

    def send(self, payload: bytes) -> None:
        """One text message."""
        self._frame(_TEXT, payload)

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def _frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = struct.pack("!BBI", 0x80 | opcode, 0x80 | size, 0)
        elif size < 65_536:
            head = struct.pack("!BBHI", 0x80 | opcode, 0x80 | 126, size, 0)
        else:
            head = struct.pack("!BBQI", 0x80 | opcode, 0x80 | 127, size, 0)
        self._transport.write(head + payload)

    def _parse(self) -> None:
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= 2:
            opcode, size, start = buffer[at] & 0x0F, buffer[at + 1] & 0x7F, at + 2
            if size == 126:
                if len(buffer) < start + 2:
                    break
                size, start = struct.unpack_from("!H", buffer, start)[0], start + 2
            elif size == 127:
                if len(buffer) < start + 8:
                    break
                size, start = struct.unpack_from("!Q", buffer, start)[0], start + 8
            if len(buffer) < start + size:
                break
            payload = bytes(buffer[start : start + size])
            at = start + size
            if opcode == _TEXT:
                self.on_text(payload)
            elif opcode == _PING:
                self._frame(_PONG, payload)
            elif opcode == _CLOSE:
                self._transport.close()
        del buffer[:at]


async def connect(port: int, path: str) -> RawSocket:
    """An open socket to this machine.

    Raises   ConnectionError with the server's answer when it does not upgrade
    """
    loop = asyncio.get_running_loop()
    host = f"127.0.0.1:{port}"
    _, socket = await loop.create_connection(lambda: RawSocket(path, host), "127.0.0.1", port)
    await socket.opened
    return socket
