"""A websocket client that is thin on purpose: the load must not cost more than what it measures.

Client frames carry a mask of zeros, which is a mask like any other. Text, close and ping are
understood; whole messages only. What arrives is read into one buffer that all sockets share, and
messages above `skim_above` bytes are not copied out of it: only their size is told.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

__all__ = ["RawSocket", "connect"]

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_EVERYTHING = 1 << 62

# asyncio asks for the buffer, fills it and reports, all in one go: one serves every socket.
_shared = bytearray(256 * 1024)
_view = memoryview(_shared)


class RawSocket(asyncio.BufferedProtocol):
    """Calls `on_text(payload)` for text messages, `on_large(size)` for those it only skims.

    `send` is immediate.
    """

    __slots__ = (
        "_head",
        "_large",
        "_rest",
        "_skip",
        "_transport",
        "closed",
        "on_large",
        "on_text",
        "opened",
        "skim_above",
    )

    def __init__(self, path: str, host: str) -> None:
        self.on_text: Callable[[bytes], None] = _ignore
        self.on_large: Callable[[int], None] = _ignore
        self.skim_above = _EVERYTHING
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False
        self._head = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        ).encode()
        self._rest = b""  # the beginning of a message that is not skimmed
        self._skip = self._large = 0  # what is left of a skimmed message, and its size
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._head)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("closed during the handshake"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return _view

    def buffer_updated(self, nbytes: int) -> None:
        at = 0
        if self._skip:
            at = min(self._skip, nbytes)
            self._skip -= at
            if self._skip:
                return
            self.on_large(self._large)
            if at == nbytes:
                return
        if self._rest:
            data = self._rest + bytes(_view[at:nbytes])
            self._rest = b""
            self._take(data, 0, len(data))
        else:
            self._take(_shared, at, nbytes)

    def send(self, payload: bytes) -> None:
        """One text message."""
        self._frame(_TEXT, payload)

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def _take(self, data: bytes | bytearray, at: int, end: int) -> None:
        if not self.opened.done():
            head_end = data.find(b"\r\n\r\n", at, end)
            if head_end < 0:
                self._rest = bytes(data[at:end])
                return
            if b" 101 " not in data[at : at + 40]:
                answer = bytes(data[at : at + 200]).decode(errors="replace")
                self.opened.set_exception(ConnectionError(answer))
                return
            at = head_end + 4
            self.opened.set_result(None)
        while end - at >= 2:
            opcode, size, start = data[at] & 0x0F, data[at + 1] & 0x7F, at + 2
            if size == 126:
                if end < start + 2:
                    break
                size, start = (data[start] << 8) | data[start + 1], start + 2
            elif size == 127:
                if end < start + 8:
                    break
                size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            if opcode == _TEXT and size > self.skim_above:
                if end < start + size:
                    self._skip, self._large = start + size - end, size
                    return
                at = start + size
                self.on_large(size)
                continue
            if end < start + size:
                break
            at = start + size
            self._on_message(opcode, bytes(data[start:at]))
        if at < end:
            self._rest = bytes(data[at:end])

    def _on_message(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self.on_text(payload)
        elif opcode == _PING:
            self._frame(_PONG, payload)
        elif opcode == _CLOSE:
            self._transport.close()

    def _frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = struct.pack("!BBI", 0x80 | opcode, 0x80 | size, 0)
        elif size < 65_536:
            head = struct.pack("!BBHI", 0x80 | opcode, 0x80 | 126, size, 0)
        else:
            head = struct.pack("!BBQI", 0x80 | opcode, 0x80 | 127, size, 0)
        self._transport.write(head + payload)


def _ignore(_: object) -> None:
    pass


async def connect(port: int, path: str) -> RawSocket:
    """An open socket to this machine.

    Raises   ConnectionError with the server's answer when it does not upgrade
    """
    loop = asyncio.get_running_loop()
    host = f"127.0.0.1:{port}"
    _, socket = await loop.create_connection(lambda: RawSocket(path, host), "127.0.0.1", port)
    await socket.opened
    return socket
