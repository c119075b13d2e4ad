"""Virtual time, and connections that delay, stall and die, but never reorder within themselves.

Nothing waits here: time is a heap of what is to happen.

No frame arrives twice, overtakes another or goes missing between two that arrive: a WebSocket is
on TCP, which does none of that to what it delivers. What does arrive twice is what a client says
again on its next connection because it has not seen the answer; that happens in most runs here,
and whatever takes effect twice is a find.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from zlib import crc32

import orjson

from reactive_store.sync.frames import SharedFrame
from reactive_store.sync.messages import Close
from tests.trust.protocol.questions import Violation

__all__ = ["HIGH_WATER_FRAMES", "Clock", "Link", "Peer", "Pipe"]

HIGH_WATER_FRAMES = 3
START_NS = 1_750_000_000_000_000_000


class Clock:
    """Time, and everything that is still to happen."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.events = 0
        self.checksum = 0  # of everything any server has said, and when
        self.broken: Exception | None = None  # the first find of the run

    def now_ns(self) -> int:
        return START_NS + int(self.now_ms * 1_000_000)

    def now_s(self) -> float:
        return self.now_ms / 1000

    def after(self, ms: float, act: Callable[[], None]) -> None:
        """Do something later; what is for the same time happens in the order it was said."""
        self._count += 1
        heapq.heappush(self._heap, (self.now_ms + ms, self._count, act))

    def step(self, until_ms: float) -> bool:
        """Let the next thing happen, unless it is later than that."""
        heap = self._heap
        if not heap or heap[0][0] > until_ms:
            self.now_ms = max(self.now_ms, until_ms)
            return False
        self.now_ms, _, act = heapq.heappop(heap)
        self.events += 1
        act()
        if self.broken is not None:
            raise self.broken
        return True


class Peer(Protocol):
    """The server's side of a connection, as `reactive_store.sync.worker.Worker` has it."""

    def receive(self, text: bytes) -> None: ...
    def on_pong(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_tick(self) -> None: ...
    def on_disconnect(self) -> None: ...


class Pipe:
    """One direction: first in, first out, each after a delay of its own."""

    def __init__(self, clock: Clock, chance: random.Random, deliver: Callable[[Any], None]) -> None:
        self._clock = clock
        self._chance = chance
        self._deliver = deliver
        self.waiting: deque[Any] = deque()
        self.delay_ms: float | None = None  # of every frame; None: short and by chance
        self._stalled_until_ms = 0.0
        self.was_stalled = False  # ever
        self._is_moving = False
        self.is_dead = False

    def put(self, item: Any) -> None:
        if self.is_dead:
            return
        self.waiting.append(item)
        self._move()

    def stall(self, ms: float) -> None:
        """Hold everything for so long."""
        self.was_stalled = True
        self._stalled_until_ms = max(self._stalled_until_ms, self._clock.now_ms + ms)

    @property
    def is_stalled(self) -> bool:
        return self._stalled_until_ms > self._clock.now_ms

    def heal(self) -> None:
        """Let everything pass from now on, at the usual pace."""
        self.delay_ms = None
        self._stalled_until_ms = 0.0
        self._is_moving = False
        self._move()

    def kill(self) -> None:
        """What is under way is lost, and so is everything after it."""
        self.is_dead = True
        self.waiting.clear()

    def _move(self) -> None:
        if self._is_moving or not self.waiting:
            return
        self._is_moving = True
        delay = self.delay_ms
        if delay is None:
            delay = self._chance.choice((0.05, 0.1, 0.3, 1.0, 8.0))
        self._clock.after(delay, self._arrive)

    def _arrive(self) -> None:
        if self.is_dead or not self._is_moving:
            return
        if self.is_stalled:
            self._clock.after(self._stalled_until_ms - self._clock.now_ms, self._arrive)
            return
        self._is_moving = False
        if self.waiting:
            item = self.waiting.popleft()
            self._move()
            self._deliver(item)


class Link:
    """One connection: the transport of the server's side, the socket of the client's.

    `on_frame`, `on_close` belong to the client, `peer` is the server's. `witness` sees what the
    server says at the moment it says it, and what it hears at the moment it hears it.
    """

    def __init__(self, clock: Clock, chance: random.Random, witness: Any) -> None:
        self.clock = clock
        self.witness = witness
        self.peer: Peer | None = None
        self.on_frame: Callable[[bytes], None] = lambda _: None
        self.on_close: Callable[[str], None] = lambda _: None
        self.up = Pipe(clock, chance, self._to_server)
        self.down = Pipe(clock, chance, self._to_client)
        self.was_writable = True
        self.was_heard = False  # by the server, since its last tick
        self.has_left = False  # the client
        self.is_closing = False  # the server has said its last
        self.is_disconnected = False  # the server knows it is gone

    # The server's transport.

    @property
    def is_writable(self) -> bool:
        return len(self.down.waiting) < HIGH_WATER_FRAMES

    def send(self, frame: bytes) -> None:
        if self.is_closing or self.is_disconnected:
            return
        self._judge(self.witness.says, orjson.loads(frame))
        clock = self.clock
        clock.checksum = crc32(frame, clock.checksum) ^ int(clock.now_ms * 1000)
        self.down.put(frame)
        self.was_writable = self.is_writable
        self._check_bounds()

    def send_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self.send(frame)

    def send_shared(self, frame: SharedFrame) -> None:
        self.send(frame.text)

    def close(self, code: int, reason: str) -> None:
        if self.is_closing or self.is_disconnected:
            return
        self.is_closing = True
        was_heard = not (self.up.was_stalled or self.down.was_stalled or self.has_left)
        if reason == "ClientDisconnected" and was_heard:
            self._judge(_complain, "a client was given up that could be heard")
        self._judge(self.witness.closes, code, reason)
        self.down.put(Close(code, reason))
        self.clock.after(10_000, self.disconnect)  # nobody waits for ever for the other's Close

    def _check_bounds(self) -> None:
        waiting = self.down.waiting
        if len(waiting) <= HIGH_WATER_FRAMES + 2:
            return
        count = sum(1 for frame in waiting if type(frame) is bytes and _ends_transition(frame))
        if count > HIGH_WATER_FRAMES + 2:
            self._judge(_complain, f"{count} transitions wait for a client that does not read")

    def _judge(self, judge: Callable[..., None], *what: Any) -> None:
        # The product may catch what is raised inside of its calls, so it is kept as well.
        try:
            judge(*what)
        except Exception as error:
            self.clock.broken = self.clock.broken or error
            raise

    # Their ends.

    def tick(self, *, ping: bool) -> None:
        """A second of the server."""
        peer = self.peer
        if peer is None or self.is_disconnected:
            return
        if self.was_heard:
            peer.on_pong()
        has_died = self.up.is_dead or self.down.is_dead
        self.was_heard = (
            ping and not has_died and not self.up.is_stalled and not self.down.is_stalled
        )
        peer.on_tick()

    def disconnect(self) -> None:
        """The server's side is gone."""
        if self.is_disconnected:
            return
        self.is_disconnected = True
        self.up.kill()
        self.down.kill()
        if self.peer is not None:
            self.peer.on_disconnect()

    def leave(self, *, notice_ms: int, lost_per_cent: int = 0) -> None:
        """The client's side is gone; the server hears of it after so long, or never."""
        self.has_left = True
        self.on_frame = lambda _: None
        self.on_close = lambda _: None
        self.down.kill()
        waiting = self.up.waiting
        for _ in range(len(waiting) * min(lost_per_cent, 100) // 100):
            waiting.pop()
        if notice_ms >= 0:
            self.clock.after(notice_ms, self.disconnect)

    def _to_server(self, frame: bytes) -> None:
        if self.is_disconnected or self.is_closing or self.peer is None:
            return
        self.was_heard = True
        self._judge(self.witness.hears, orjson.loads(frame))
        self.peer.receive(frame)

    def _to_client(self, frame: bytes | Close) -> None:
        if isinstance(frame, Close):
            self.on_close(frame.reason or f"closed with code {frame.code}")
            return
        if not self.was_writable and self.is_writable and self.peer is not None:
            self.was_writable = True
            if not self.is_disconnected:
                self.peer.on_writable()
        self.on_frame(frame)


def _complain(text: str) -> None:
    raise Violation(text)


def _ends_transition(frame: bytes) -> bool:
    return frame.startswith(b'{"type":"Transition",') or b'"partNumber":0,' in frame[:4000]
