"""The load generator, a process of its own: `python -m bench.load NAME JSON` prints JSON.

Loops are callbacks, not tasks: the next request is sent from the callback that received the
answer to the last, so one core can drive a server that has a core of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from bench.raw_socket import RawSocket, connect

__all__ = ["main"]

SYNC = "/api/1.48.0/sync"
POSTS_AT_START = 20


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
    }


class Member:
    """One session: a live query of twenty posts in its room, and writes into it one at a time."""

    def __init__(self, socket: RawSocket, room: str) -> None:
        self.socket = socket
        self.room = room
        self.latencies: list[float] = []
        self.count = 0
        self.deadline = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.told: asyncio.Future[bytes] | None = asyncio.get_running_loop().create_future()
        self._sent = 0.0
        self._answered = self._pushed = False
        socket.on_text = self.watch

    @classmethod
    async def join(cls, port: int, room: str) -> Member:
        """Connect and wait for the first result."""
        member = cls(await connect(port, SYNC), room)
        send(member.socket, {"type": "Connect", "sessionId": str(uuid.uuid4()),
                             "connectionCount": 0, "lastCloseReason": None})  # fmt: skip
        add = {"type": "Add", "queryId": 0, "udfPath": "board:latest", "args": [{"room": room}]}
        send(member.socket, {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1,
                             "modifications": [add]})  # fmt: skip
        assert member.told is not None
        await asyncio.wait_for(member.told, 30)
        return member

    def watch(self, frame: bytes) -> None:
        """Resolve `told` with the first result that comes."""
        if b"QueryUpdated" in frame and self.told is not None and not self.told.done():
            self.told.set_result(frame)

    async def write_until(self, deadline: float) -> None:
        """A closed loop: the next write follows the answer and the push of the last."""
        self.deadline = deadline
        self.socket.on_text = self._loop_frame
        self.write()
        await self.done

    def write(self) -> None:
        """Send one write without waiting."""
        self._answered = self._pushed = False
        self._sent = time.perf_counter()
        send(self.socket, {"type": "Mutation", "requestId": self.count, "udfPath": "board:post",
                           "args": [{"room": self.room, "number": self.count}]})  # fmt: skip
        self.count += 1

    def _loop_frame(self, frame: bytes) -> None:
        if b'"MutationResponse"' in frame[:400] or b'"MutationResponse"' in frame[-400:]:
            if b'"success":true' not in frame:
                self.done.set_exception(AssertionError(frame[:2000].decode()))
                return
            self._answered = True
        elif b"QueryUpdated" in frame:
            self._pushed = True
        if not (self._answered and self._pushed):
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        if now < self.deadline:
            self.write()
        elif not self.done.done():
            self.done.set_result(None)


def send(socket: RawSocket, message: dict[str, Any]) -> None:
    socket.send(json.dumps(message).encode())


async def throughput(port: int, clients: int, seconds: float) -> dict[str, float]:
    """Closed loops of `clients` sessions, each with a room and a live query of its own."""
    members = [await Member.join(port, f"t{clients}-{i}-{uuid.uuid4()}") for i in range(clients)]
    start = time.perf_counter()
    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(*(member.write_until(start + seconds) for member in members))
    took = time.perf_counter() - start
    latencies = [latency for member in members for latency in member.latencies]
    for member in members:
        member.socket.close()
    return {"per_second": len(latencies) / took, **spread(latencies)}


async def latency(port: int, per_second: float, seconds: float) -> dict[str, float]:
    """Writes at a slow, steady pace by one session; the time until another one is told."""
    room = f"latency-{uuid.uuid4()}"
    writer, reader = await Member.join(port, room), await Member.join(port, room)
    writer.socket.on_text = lambda frame: None
    reader.socket.on_text = reader.watch
    measured = []
    for _ in range(int(per_second * seconds)):
        reader.told = asyncio.get_running_loop().create_future()
        start = time.perf_counter()
        writer.write()
        await asyncio.wait_for(reader.told, 30)
        measured.append(time.perf_counter() - start)
        await asyncio.sleep(1 / per_second)
    writer.socket.close()
    reader.socket.close()
    return spread(measured)


async def fan_out(port: int, subscribers: int, rounds: int) -> dict[str, float]:
    """One write into a room that everybody watches; the time until the last is told."""
    room = f"fan-{uuid.uuid4()}"
    writer = await Member.join(port, room)
    writer.socket.on_text = lambda frame: None
    for _ in range(POSTS_AT_START):
        writer.write()
    members = [await Member.join(port, room) for _ in range(subscribers)]
    await asyncio.sleep(0.3)
    sizes: list[int] = []

    def watch(all_told: asyncio.Future[None]) -> Callable[[bytes], None]:
        left = subscribers

        def on_text(frame: bytes) -> None:
            nonlocal left
            if b"QueryUpdated" in frame:
                left -= 1
                if left == 0:
                    sizes.append(len(frame))
                    all_told.set_result(None)

        return on_text

    measured = []
    for _ in range(rounds):
        all_told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        count = watch(all_told)
        for member in members:
            member.socket.on_text = count
        start = time.perf_counter()
        writer.write()
        await asyncio.wait_for(all_told, 60)
        measured.append(time.perf_counter() - start)
        await asyncio.sleep(0.05)
    for member in [writer, *members]:
        member.socket.close()
    return {"bytes": sizes[-1], **spread(measured)}


async def echo(port: int, clients: int, seconds: float, size: int) -> dict[str, float]:
    """The same closed loops against the bare server: messages of `size` bytes, there and back."""
    payload = b"e" * size
    latencies: list[float] = []

    async def loop(socket: RawSocket, deadline: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent = time.perf_counter()

        def on_text(frame: bytes) -> None:
            nonlocal sent
            now = time.perf_counter()
            latencies.append(now - sent)
            if now < deadline:
                sent = now
                socket.send(payload)
            elif not done.done():
                done.set_result(None)

        socket.on_text = on_text
        socket.send(payload)
        await done

    sockets = [await connect(port, "/") for _ in range(clients)]
    start = time.perf_counter()
    await asyncio.gather(*(loop(socket, start + seconds) for socket in sockets))
    took = time.perf_counter() - start
    for socket in sockets:
        socket.close()
    return {"per_second": len(latencies) / took, **spread(latencies)}


async def bare_fan_out(port: int, subscribers: int, rounds: int, size: int) -> dict[str, float]:
    """The bare server sends `size` bytes to everybody; the time until the last has them."""
    sockets = [await connect(port, "/") for _ in range(subscribers)]
    measured = []
    for _ in range(rounds):
        all_told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = subscribers

        def on_text(frame: bytes, told: asyncio.Future[None] = all_told) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                told.set_result(None)

        for socket in sockets:
            socket.on_text = on_text
        start = time.perf_counter()
        sockets[0].send(f"fan {size}".encode())
        await asyncio.wait_for(all_told, 60)
        measured.append(time.perf_counter() - start)
    for socket in sockets:
        socket.close()
    return spread(measured)


LOADS: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
    "throughput": throughput,
    "latency": latency,
    "fan_out": fan_out,
    "echo": echo,
    "bare_fan_out": bare_fan_out,
}


def main() -> None:
    """Run one load and print what it measured."""
    name, arguments = sys.argv[1:]

    async def run() -> dict[str, float]:
        return await LOADS[name](**json.loads(arguments))

    print(json.dumps(asyncio.run(run())))


if __name__ == "__main__":
    main()
