"""A session that is light enough to have thousands of, and that can be told to misbehave.

It asserts what no attack may break: versions chain, and no request is answered twice. That happens
inside asyncio, which only closes the connection; so what was wrong is kept, and raised by the next
`eventually`, by `cut`, and at the end of the test (`raise_faults`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from bench.raw_socket import RawSocket

__all__ = ["Peer", "eventually", "http", "raise_faults", "raw_connection"]

SYNC = "/api/1.48.0/sync"
PATIENCE_S = 60.0
_ZERO = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}
_faults: list[Exception] = []  # of any peer's, until they are raised


def raise_faults() -> None:
    """Fail when a peer was told something wrong since the last time.

    Raises   AssertionError from what the peer had raised
    """
    if _faults:
        first = _faults[0]
        _faults.clear()
        raise AssertionError(f"a peer was told something wrong: {first!r}") from first


class _Socket(RawSocket):
    """A raw socket that remembers how it was closed, and what was wrong with what it was told."""

    __slots__ = ("close_code", "close_reason")

    def __init__(self, path: str, host: str) -> None:
        super().__init__(path, host)
        self.close_code: int | None = None
        self.close_reason = ""

    def buffer_updated(self, nbytes: int) -> None:
        try:
            super().buffer_updated(nbytes)
        except Exception as error:
            _faults.append(error)
            raise  # which ends the connection

    def _on_message(self, opcode: int, payload: bytes) -> None:
        if opcode == 0x8 and len(payload) >= 2:
            self.close_code = int.from_bytes(payload[:2], "big")
            self.close_reason = payload[2:].decode()
        super()._on_message(opcode, payload)


class Peer:
    """One socket and its session."""

    def __init__(self, socket: _Socket, session: str) -> None:
        self.socket = socket
        self.session = session
        self.results: dict[int, Any] = {}  # query id → last value, or the failure
        self.told: Counter[int] = Counter()  # query id → how often a result came
        self.transitions = 0
        self.errors: list[dict[str, Any]] = []  # FatalError, AuthError
        self.answers: dict[int, dict[str, Any]] = {}
        self.requests = 0
        self._version: dict[str, Any] = _ZERO
        self._query_set = self._queries = 0
        self._chunks: list[str] = []
        socket.on_text = self._on_text

    @classmethod
    async def open(cls, port: int, *, session: str | None = None) -> Peer:
        """Connect and introduce the session."""
        loop = asyncio.get_running_loop()
        host = f"127.0.0.1:{port}"
        _, socket = await loop.create_connection(lambda: _Socket(SYNC, host), "127.0.0.1", port)
        await asyncio.wait_for(socket.opened, PATIENCE_S)
        peer = cls(socket, session or str(uuid.uuid4()))
        peer.say(
            {
                "type": "Connect",
                "sessionId": peer.session,
                "connectionCount": 0,
                "lastCloseReason": None,
            }
        )
        return peer

    # Speaking.

    def say(self, message: dict[str, Any]) -> None:
        """Send any message."""
        self.socket.send(orjson.dumps(message))

    def watch(self, path: str, *args: dict[str, Any]) -> list[int]:
        """Add a query per argument object, in one message; their ids."""
        ids = list(range(self._queries, self._queries + len(args)))
        self._queries += len(args)
        self.say(
            {
                "type": "ModifyQuerySet",
                "baseVersion": self._query_set,
                "newVersion": self._query_set + 1,
                "modifications": [
                    {"type": "Add", "queryId": number, "udfPath": path, "args": [each]}
                    for number, each in zip(ids, args, strict=True)
                ],
            }
        )
        self._query_set += 1
        return ids

    def unwatch(self, *ids: int) -> None:
        """Remove queries."""
        self.say(
            {
                "type": "ModifyQuerySet",
                "baseVersion": self._query_set,
                "newVersion": self._query_set + 1,
                "modifications": [{"type": "Remove", "queryId": number} for number in ids],
            }
        )
        self._query_set += 1

    def ask(self, path: str, *, kind: str = "Mutation", **args: Any) -> int:
        """Send a call without waiting; its request id."""
        number = self.requests
        self.requests += 1
        self.say({"type": kind, "requestId": number, "udfPath": path, "args": [args]})
        return number

    async def call(self, path: str, *, kind: str = "Mutation", **args: Any) -> dict[str, Any]:
        """Send a call and wait for its answer (or fail when the socket ends)."""
        number = self.ask(path, kind=kind, **args)
        await eventually(lambda: number in self.answers or self.socket.closed, f"answer to {path}")
        assert number in self.answers, f"closed: {self.farewell()}"
        return self.answers[number]

    def stop_reading(self) -> None:
        """From now on nothing is taken from the kernel: the window fills up."""
        self.socket._transport.pause_reading()

    def read_again(self) -> None:
        """Take everything that has piled up."""
        if not self.socket.closed:
            self.socket._transport.resume_reading()

    def cut(self) -> None:
        """Drop the connection without a word."""
        self.socket.close()
        raise_faults()

    # What it has seen.

    def farewell(self) -> tuple[int | None, str]:
        """Code and reason of the server's Close; (None, "") without one."""
        return self.socket.close_code, self.socket.close_reason

    def _on_text(self, frame: bytes) -> None:
        message = orjson.loads(frame)
        kind = message["type"]
        if kind == "TransitionChunk":
            self._chunks.append(message["chunk"])
            if len(self._chunks) == message["totalParts"]:
                whole, self._chunks = "".join(self._chunks), []
                self._on_text(whole.encode())
        elif kind == "Transition":
            assert message["startVersion"] == self._version, "versions do not chain"
            self._version = message["endVersion"]
            self.transitions += 1
            for change in message["modifications"]:
                if change["type"] != "QueryRemoved":
                    self.told[change["queryId"]] += 1
                    self.results[change["queryId"]] = change.get("value", change)
        elif kind in ("MutationResponse", "ActionResponse"):
            assert message["requestId"] not in self.answers, "one request answered twice"
            self.answers[message["requestId"]] = message
        elif kind != "Ping":
            self.errors.append(message)


async def eventually(holds: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> float:
    """Wait until something holds; how many seconds that took."""
    start = time.perf_counter()
    while not holds():
        raise_faults()
        if time.perf_counter() - start > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.004)
    raise_faults()
    return time.perf_counter() - start


async def raw_connection(
    port: int, begin: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection on which so much has been sent, and nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    return reader, writer


async def http(port: int, path: str, body: bytes, *, headers: str = "") -> tuple[int, Any]:
    """One POST on a connection of its own: status and decoded body (None when empty)."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    )
    reader, writer = await raw_connection(port, head.encode() + body)
    try:
        answer = await reader.read()
    finally:
        writer.close()
    first, _, content = answer.partition(b"\r\n\r\n")
    return int(first.split(b" ", 2)[1]), orjson.loads(content) if content else None
