"""The thin websocket client: messages come out whole however the bytes arrive."""

import pytest

from bench import raw_socket
from bench.raw_socket import RawSocket

HANDSHAKE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def frame(payload: bytes, opcode: int = 1) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def feed(socket: RawSocket, data: bytes, piece: int) -> None:
    """Deliver bytes as the event loop would, `piece` at a time."""
    for at in range(0, len(data), piece):
        part = data[at : at + piece]
        raw_socket._shared[: len(part)] = part
        socket.buffer_updated(len(part))


class Transport:
    def __init__(self):
        self.written = b""

    def write(self, data):
        self.written += data


@pytest.fixture
async def socket():
    made = RawSocket("/", "test")
    made._transport = Transport()
    return made


@pytest.mark.parametrize("piece", [1, 2, 7, 1000, 200_000])
@pytest.mark.parametrize("skim_above", [10, 1000, 1 << 40])
async def test_messages_are_told_whole_or_by_size_however_they_are_cut(socket, piece, skim_above):
    payloads = [b"a", b"b" * 125, b"c" * 126, b"d" * 3000, b"e" * 70_000, b"f" * 2]
    told: list[tuple[int, bytes | None]] = []
    socket.skim_above = skim_above
    socket.on_text = lambda payload: told.append((len(payload), payload))
    socket.on_large = lambda size: told.append((size, None))
    feed(socket, HANDSHAKE + b"".join(map(frame, payloads)), piece)
    assert socket.opened.done()
    assert told == [(len(p), p if len(p) <= skim_above else None) for p in payloads]


async def test_a_ping_is_answered_with_its_payload(socket):
    feed(socket, HANDSHAKE + frame(b"are you there", opcode=9), 5)
    assert socket._transport.written == bytes((0x8A, 0x80 | 13, 0, 0, 0, 0)) + b"are you there"


async def test_a_refused_upgrade_raises_the_servers_answer(socket):
    feed(socket, b"HTTP/1.1 403 Forbidden\r\n\r\n", 1000)
    with pytest.raises(ConnectionError, match="403"):
        await socket.opened
