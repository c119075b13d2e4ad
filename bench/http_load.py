"""Loads over HTTP: connections that stay open, one request at a time on each.

The client writes and reads only what it needs: a request is one `write` of bytes made before, an
answer is found by its Content-Length.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate, cycle
from typing import Any

from bench.raw_socket import connect
from bench.sync_load import PATIENCE_S, SYNC, spread

__all__ = ["query", "transfers"]


class Connection(asyncio.Protocol):
    """One connection: `ask(request)` sends, `on_answer(status, body)` is called with the answer."""

    def __init__(self) -> None:
        self.on_answer: Callable[[int, bytes], None] = lambda status, body: None
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> None:
        """Send a request; the last one must have been answered."""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = buffer[:end].lower()
        at = head.index(b"content-length:") + 15
        stop = head.find(b"\r\n", at)
        size = int(head[at : None if stop < 0 else stop])
        if len(buffer) < end + 4 + size:
            return
        self._buffer = b""
        self.on_answer(int(head[9:12]), buffer[end + 4 :])

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()


def request(path: str, body: dict[str, Any]) -> bytes:
    """A POST of JSON, whole."""
    payload = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    ).encode() + payload


async def _open(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Connection, "127.0.0.1", port))[1]


async def ask(port: int, path: str, body: dict[str, Any]) -> bytes:
    """One request on a connection of its own; gives the body of the answer."""
    connection = await _open(port)
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_answer(status: int, answer: bytes) -> None:
        if status == 200:
            answered.set_result(answer)
        else:
            answered.set_exception(AssertionError(f"{status}: {answer[:500]!r}"))

    connection.on_answer = on_answer
    connection.ask(request(path, body))
    try:
        return await asyncio.wait_for(answered, PATIENCE_S)
    finally:
        connection.close()


async def _loops(
    port: int, connections: int, seconds: float, requests: Iterator[bytes]
) -> dict[str, Any]:
    """Closed loops on all connections, requests taken in turn."""
    latencies: list[float] = []
    errors: list[str] = []
    opened = [await _open(port) for _ in range(connections)]
    deadline = time.perf_counter() + seconds

    def start(connection: Connection) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent = time.perf_counter()

        def on_answer(status: int, body: bytes) -> None:
            nonlocal sent
            now = time.perf_counter()
            latencies.append(now - sent)
            if status != 200 or body.startswith(b'{"status":"error"'):
                errors.append(f"{status}: {body[:300]!r}")
            if now < deadline:
                sent = now
                connection.ask(next(requests))
            else:
                done.set_result(None)

        connection.on_answer = on_answer
        connection.ask(next(requests))
        return done

    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(start(connection) for connection in opened))
    took = time.perf_counter() - begun
    busy = (time.process_time() - cpu) / took
    for connection in opened:
        connection.close()
    return {
        "per_second": len(latencies) / took,
        "client_busy": busy,
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        **spread(latencies),
    }


async def transfers(
    port: int, connections: int, seconds: float, accounts: int, alpha: float
) -> dict[str, Any]:
    """Transfers between two accounts; the account of rank r is chosen with weight 1 / r**alpha.

    `kept` tells whether the sum of all balances is what it was.
    """
    body = await ask(
        port,
        "/api/mutation",
        {"path": "accounts:openMany", "args": {"count": accounts, "balance": 100}},
    )
    ids = json.loads(body)["value"]
    before = json.loads(await ask(port, "/api/query", {"path": "accounts:total", "args": {}}))
    chance = random.Random(7)
    sums = list(accumulate(1 / rank**alpha for rank in range(1, accounts + 1)))

    def pick() -> str:
        chosen: str = ids[bisect(sums, chance.random() * sums[-1])]
        return chosen

    def transfer() -> bytes:
        source = target = pick()
        while target == source:
            target = pick()
        args = {"source": source, "target": target, "amount": 1}
        return request("/api/mutation", {"path": "accounts:transfer", "args": args})

    made = [transfer() for _ in range(20_000)]
    answer = await _loops(port, connections, seconds, cycle(made))
    after = json.loads(await ask(port, "/api/query", {"path": "accounts:total", "args": {}}))
    return {**answer, "kept": before["value"] == after["value"]}


async def query(port: int, connections: int, seconds: float, room: str, *, is_live: bool) -> Any:
    """One question over and over; `is_live`: a session watches it meanwhile."""
    asked = request("/api/query", {"path": "board:latest", "args": {"room": room}})
    watcher = await connect(port, SYNC) if is_live else None
    if watcher is not None:
        watcher.send(
            b'{"type":"Connect","sessionId":"0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a",'
            b'"connectionCount":0,"lastCloseReason":null}'
        )
        watcher.send(
            b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":'
            b'[{"type":"Add","queryId":0,"udfPath":"board:latest","args":[{"room":"%b"}]}]}'
            % room.encode()
        )
        await asyncio.sleep(0.2)
    answer = await _loops(port, connections, seconds, cycle([asked]))
    if watcher is not None:
        watcher.close()
    return answer


async def fill(port: int, room: str, posts: int) -> dict[str, str]:
    """Write posts into a room; gives the answer to the question about it, as text."""
    for number in range(posts):
        args = {"room": room, "number": number}
        await ask(port, "/api/mutation", {"path": "board:post", "args": args})
    body = await ask(port, "/api/query", {"path": "board:latest", "args": {"room": room}})
    return {"answer": body.decode()}


async def keep(port: int, answer: str) -> dict[str, str]:
    """Give the bare server the bytes it is to answer with."""
    await ask(port, "/set", json.loads(answer))
    return {}


async def totals(port: int, names: list[str]) -> dict[str, float]:
    """The sum of some counters."""
    body = await ask(port, "/api/query", {"path": "counters:total", "args": {"names": names}})
    return {"total": json.loads(body)["value"]}


LOADS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (fill, keep, query, totals, transfers)
}
