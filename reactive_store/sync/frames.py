"""Frames that many sockets send: what one commit changed is said to all who watch it.

A frame depends on where its session stands and where it goes, on the number the session gave the
query, on the answer and on the clocks. Sessions that agree in all of that share the frame, encoded
once and framed once; a pump's batch is short enough to be one instant of the server's clock.

Invariants
- A frame is never changed after it was handed out.
- A moment holds frames for the length of one batch and no longer.

Source   docs/architecture.md ("Live queries"); Convex's sync protocol
"""

from __future__ import annotations

from typing import TypeAlias

from reactive_store.functions.live_queries import LiveResult
from reactive_store.sync.messages import Version
from reactive_store.sync.protocol import result_head, transition_parts

__all__ = ["Moment", "SharedFrame"]

_Key: TypeAlias = tuple[Version, Version, int, int, int | None]


class SharedFrame:
    """The text of a message (UTF-8) in pieces, and what a kind of socket makes of it."""

    __slots__ = ("_text", "parts", "wire")

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self._text: bytes | None = None
        # The text as an uncompressed websocket frame. Set by the first socket that needs it.
        self.wire: bytes | None = None

    @property
    def text(self) -> bytes:
        """The whole text; joined for the first that asks."""
        if self._text is None:
            self._text = b"".join(self.parts)
        return self._text


class Moment:
    """The clocks as one batch of workers sees them, and the frames it has made so far.

    Units    now_ns: wall clock, Unix nanoseconds; now_s: a clock that only runs forward
    """

    __slots__ = ("_frames", "is_over", "now_ns", "now_s")

    def __init__(self, now_ns: int, now_s: float) -> None:
        self.now_ns = now_ns
        self.now_s = now_s
        # Set when the loop ran on: the clocks are to be read anew.
        self.is_over = False
        # The answer is kept beside the frame: while it lives, no other one has its id.
        self._frames: dict[_Key, tuple[LiveResult, SharedFrame]] = {}

    def transition(
        self,
        start: Version,
        end: Version,
        query_id: int,
        result: LiveResult,
        clock_skew_ms: int | None,
    ) -> SharedFrame:
        """The Transition that tells one query's answer."""
        key = (start, end, query_id, id(result), clock_skew_ms)
        held = self._frames.get(key)
        if held is not None:
            return held[1]
        told = (result_head(query_id, failed=result.failed), result.modification)
        frame = SharedFrame(*transition_parts(start, end, told, clock_skew_ms, self.now_ns))
        self._frames[key] = result, frame
        return frame
