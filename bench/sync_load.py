"""Loads over the sync websocket: sessions that watch a room and write into it.

Loops are callbacks, not tasks, and messages are made from templates: the next request is sent from
the callback that received the answer to the last, so that one core can drive a server that has a
core of its own. `client_busy` is the share of its core this process used; near 1, it and not the
server is what was measured.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

from bench.programs import cpu_seconds, resident_bytes
from bench.raw_socket import RawSocket, connect

__all__ = ["counters", "echo", "fan_out", "idle", "latency", "stream", "throughput"]

SYNC = "/api/1.48.0/sync"
POSTS_AT_START = 20
PATIENCE_S = 120.0
PUSH_BYTES = 1000  # answers are shorter, pushed results of a room that was filled are longer
_POSTS = ("board:latest", "board:post")
_RESULTS = ("results:ofExperiment", "results:record")


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
    }


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def is_response(frame: bytes) -> bool:
    """Whether a frame answers a mutation."""
    return frame.startswith(b'{"type":"MutationResponse"')


class Session:
    """One websocket that has said who it is. `on_frame` gets every frame."""

    def __init__(self, socket: RawSocket, write: str, room: str) -> None:
        self.socket = socket
        self.room = room
        self.count = 0
        self._write = b'{"type":"Mutation","requestId":%%d,"udfPath":"%b","args":[{%%b}]}' % (
            write.encode()
        )

    @classmethod
    async def open(cls, port: int, write: str, room: str) -> Session:
        """Connect and introduce the session."""
        session = cls(await connect(port, SYNC), write, room)
        session.socket.send(
            b'{"type":"Connect","sessionId":"%b","connectionCount":0,"lastCloseReason":null}'
            % str(uuid.uuid4()).encode()
        )
        return session

    async def watch(self, query: str) -> bytes:
        """Add the live query of the room; gives the frame with its first result."""
        first = _future()

        def on_text(frame: bytes) -> None:
            if b"QueryUpdated" in frame and not first.done():
                first.set_result(frame)

        self.socket.on_text = on_text
        self.socket.send(
            b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":'
            b'[{"type":"Add","queryId":0,"udfPath":"%b","args":[{"room":"%b"}]}]}'
            % (query.encode(), self.room.encode())
        )
        frame: bytes = await asyncio.wait_for(first, PATIENCE_S)
        return frame

    def write(self) -> None:
        """Send one write into the room, without waiting."""
        self.send_args(b'"room":"%b","number":%d' % (self.room.encode(), self.count))

    def send_args(self, args: bytes) -> None:
        """Send one mutation with the fields of its argument."""
        self.socket.send(self._write % (self.count, args))
        self.count += 1


class _Loop:
    """A closed loop of one session: the next write follows the answer, and the push if it comes."""

    def __init__(
        self, session: Session, deadline: float, *, watches: bool, args: bytes = b""
    ) -> None:
        self._session = session
        self._deadline = deadline
        self._watches = watches
        self._args = args
        self._waiting = 0
        self._sent = 0.0
        self.latencies: list[float] = []
        self.done = _future()
        session.socket.on_text = self._on_text
        session.socket.on_large = self._on_push
        session.socket.skim_above = PUSH_BYTES

    def start(self) -> None:
        self._waiting = 2 if self._watches else 1
        self._sent = time.perf_counter()
        if self._args:
            self._session.send_args(self._args)
        else:
            self._session.write()

    def _on_text(self, frame: bytes) -> None:
        if is_response(frame):
            if b'"success":true' not in frame:
                self.done.set_exception(AssertionError(frame[:2000].decode()))
                return
            self._on_push(0)

    def _on_push(self, _size: int) -> None:
        self._waiting -= 1
        if self._waiting > 0:
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        if now < self._deadline:
            self.start()
        elif not self.done.done():
            self.done.set_result(None)


async def _run_loops(loops: list[_Loop]) -> dict[str, float]:
    start, cpu = time.perf_counter(), time.process_time()
    for each in loops:
        each.start()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(each.done for each in loops))
    took = time.perf_counter() - start
    latencies = [latency for each in loops for latency in each.latencies]
    return {
        "per_second": len(latencies) / took,
        "writes": len(latencies),
        "client_busy": (time.process_time() - cpu) / took,
        **spread(latencies),
    }


async def throughput(port: int, clients: int, seconds: float) -> dict[str, float]:
    """Closed loops of `clients` sessions, each with a room and a live query of its own."""
    query, write = _POSTS
    sessions = [
        await Session.open(port, write, f"t{clients}-{i}-{uuid.uuid4()}") for i in range(clients)
    ]
    for session in sessions:
        await session.watch(query)
        session.socket.on_text = _ignore
        for _ in range(POSTS_AT_START):
            session.write()
    await asyncio.sleep(0.2)
    for session in sessions:
        await _quiet(session)
    deadline = time.perf_counter() + seconds
    result = await _run_loops([_Loop(session, deadline, watches=True) for session in sessions])
    for session in sessions:
        session.socket.close()
    return result


async def _quiet(session: Session, *, count: int = 1) -> None:
    """Write once more and wait until that write, and so every earlier one, was pushed."""
    told = _future()
    wanted = b'"number":%d' % session.count

    def on_text(frame: bytes) -> None:
        # Numbers are printed as floats by the server, as integers by the bare one.
        if wanted in frame and b"QueryUpdated" in frame and not told.done():
            told.set_result(None)

    session.socket.on_text = on_text
    for _ in range(count):
        session.write()
    await asyncio.wait_for(told, PATIENCE_S)


async def counters(port: int, clients: int, names: int, seconds: float) -> dict[str, Any]:
    """Closed loops that add one to a counter; `clients` sessions share `names` counters."""
    run = uuid.uuid4()
    sessions = [await Session.open(port, "counters:add", "") for _ in range(clients)]
    called = [f"{run}-{i}" for i in range(names)]
    deadline = time.perf_counter() + seconds
    loops = [
        _Loop(session, deadline, watches=False, args=b'"name":"%b"' % called[i % names].encode())
        for i, session in enumerate(sessions)
    ]
    result: dict[str, Any] = await _run_loops(loops)
    for session in sessions:
        session.socket.close()
    return {**result, "names": called}


async def latency(port: int, per_second: float, seconds: float) -> dict[str, float]:
    """Writes at a slow, steady pace by one session; the time until another one is told."""
    room = f"latency-{uuid.uuid4()}"
    query, write = _POSTS
    writer = await Session.open(port, write, room)
    reader = await Session.open(port, write, room)
    await reader.watch(query)
    writer.socket.on_text = _ignore
    told = _future()

    def on_text(frame: bytes) -> None:
        if b"QueryUpdated" in frame and not told.done():
            told.set_result(time.perf_counter())

    reader.socket.on_text = on_text
    measured: list[float] = []
    for round_number in range(int(per_second * seconds) + POSTS_AT_START):
        told = _future()
        start = time.perf_counter()
        writer.write()
        took = await asyncio.wait_for(told, PATIENCE_S) - start
        if round_number >= POSTS_AT_START:
            measured.append(took)
            await asyncio.sleep(1 / per_second)
    writer.socket.close()
    reader.socket.close()
    return spread(measured)


async def fan_out(port: int, subscribers: int, rounds: int) -> dict[str, float]:
    """One write into a room that everybody watches; the time until the last is told."""
    room = f"fan-{uuid.uuid4()}"
    query, write = _POSTS
    writer = await Session.open(port, write, room)
    await writer.watch(query)
    await _quiet(writer, count=POSTS_AT_START)
    writer.socket.on_text = _ignore
    members = [await Session.open(port, write, room) for _ in range(subscribers)]
    for member in members:
        await member.watch(query)
    left = size = 0
    all_told = _future()

    def on_push(pushed: int) -> None:
        nonlocal left, size
        left -= 1
        if left == 0:
            size = pushed
            all_told.set_result(time.perf_counter())

    for member in members:
        member.socket.skim_above = PUSH_BYTES
        member.socket.on_large = on_push
    measured = []
    cpu, wall = time.process_time(), 0.0
    for round_number in range(rounds + 2):
        left, all_told = subscribers, _future()
        start = time.perf_counter()
        writer.write()
        took = await asyncio.wait_for(all_told, PATIENCE_S) - start
        wall += took
        if round_number >= 2:
            measured.append(took)
        await asyncio.sleep(0.02)
    busy = (time.process_time() - cpu) / wall
    for member in [writer, *members]:
        member.socket.close()
    return {"bytes": size, "client_busy": min(busy, 1.0), **spread(measured)}


async def stream(port: int, pid: int, results: int, watchers: int) -> dict[str, float]:
    """Results recorded one after the other, each once everybody has seen the last.

    Every push carries all results so far, so `megabytes` grows with the square of `results`;
    `cpu_seconds` is what the server spent.
    """
    room = f"stream-{uuid.uuid4()}"
    query, write = _RESULTS
    writer = await Session.open(port, write, room)
    watching = [await Session.open(port, write, room) for _ in range(watchers)]
    for session in watching:
        await session.watch(query)
    pushed = left = 0
    all_told = _future()

    def on_push(size: int) -> None:
        nonlocal left, pushed
        pushed += size
        left -= 1
        if left == 0:
            all_told.set_result(None)

    def on_small_push(frame: bytes) -> None:
        if b"QueryUpdated" in frame:
            on_push(len(frame))

    def on_answer(frame: bytes) -> None:
        nonlocal left
        if is_response(frame):
            left -= 1
            if left == 0:
                all_told.set_result(None)

    writer.socket.on_text = on_answer
    for session in watching:
        session.socket.skim_above = PUSH_BYTES
        session.socket.on_large = on_push
        session.socket.on_text = on_small_push
    start, cpu = time.perf_counter(), cpu_seconds(pid)
    for _ in range(results):
        left, all_told = watchers + 1, _future()
        writer.write()
        await asyncio.wait_for(all_told, PATIENCE_S)
    answer = {
        "cpu_seconds": cpu_seconds(pid) - cpu,
        "seconds": time.perf_counter() - start,
        "megabytes": pushed / 1e6,
    }
    for session in [writer, *watching]:
        session.socket.close()
    return answer


async def idle(
    port: int, pid: int, connections: int, *, is_shared: bool = True
) -> dict[str, float]:
    """What one more idle connection with one subscription adds to the server's memory."""
    run = uuid.uuid4()
    query, write = _POSTS
    writer = await Session.open(port, write, f"{run}-0")
    await writer.watch(query)
    await _quiet(writer, count=POSTS_AT_START)

    async def join(first: int, count: int) -> list[Session]:
        joined = []
        for i in range(first, first + count):
            session = await Session.open(port, write, f"{run}-{0 if is_shared else i}")
            await session.watch(query)
            joined.append(session)
        await asyncio.sleep(1.5)  # the server's own ticks and collections
        return joined

    sessions = await join(1, connections // 5)  # what is allocated once
    before = resident_bytes(pid)
    sessions += await join(1 + connections // 5, connections)
    after = resident_bytes(pid)
    for session in [writer, *sessions]:
        session.socket.close()
    return {"kib_each": (after - before) / 1024 / connections}


async def echo(port: int, clients: int, seconds: float, size: int) -> dict[str, float]:
    """Messages of `size` bytes to the bare server and back, in closed loops."""
    payload = b"e" * size
    latencies: list[float] = []

    async def loop(socket: RawSocket, deadline: float) -> None:
        done = _future()
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


def _ignore(_: object) -> None:
    pass


LOADS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (counters, echo, fan_out, idle, latency, stream, throughput)
}
