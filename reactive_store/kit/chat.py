"""What an app expects from a language model, and a simulated one for work without a network.

Invariants: `reply` equals the concatenation of what `stream` yields for the same question; a
provider holds no state between two questions, so questions may be asked concurrently.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol

__all__ = ["ChatError", "ChatProvider", "SimulatedChat"]

_PIECE = re.compile(r"\s*\S+\s*")


class ChatError(Exception):
    """The provider gave no usable answer.

    `reason` is a short stable word ("overloaded", "unreachable", "refused", …) for programs; the
    message is for people and never contains a key. `may_retry` says whether asking the same
    question again can help.
    """

    def __init__(self, message: str, *, reason: str, may_retry: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.may_retry = may_retry


class ChatProvider(Protocol):
    """Answers one question at a time; several may be under way."""

    @property
    def name(self) -> str:
        """What to show to a person who asks where an answer came from."""
        ...

    def stream(self, system: str, prompt: str) -> AsyncIterator[str]:
        """The answer in pieces, as they are written.

        Raises   ChatError, possibly after some pieces
        """
        ...

    async def reply(self, system: str, prompt: str) -> str:
        """The whole answer.

        Raises   ChatError
        """
        ...

    async def close(self) -> None:
        """Give back connections. The provider is not used afterwards."""
        ...


class SimulatedChat:
    """A provider whose answers are written by a function of the app.

    `answer(system, prompt, rng)` makes the text; `rng` is seeded by the question and by `seed`, so
    one question always has one answer. `delay_ms` bounds how long an answer takes, so that a page
    that shows answers has something to show; (0, 0) does not wait at all.
    """

    def __init__(
        self,
        answer: Callable[[str, str, random.Random], str],
        *,
        delay_ms: tuple[float, float] = (50, 400),
        seed: int | str = 0,
    ) -> None:
        low, high = delay_ms
        if not 0 <= low <= high:
            raise ValueError(f"delay_ms must be two numbers, 0 <= low <= high, got {delay_ms!r}.")
        self._answer = answer
        self._delay_ms = (low, high)
        self._seed = seed

    @property
    def name(self) -> str:
        return "simulator"

    async def stream(self, system: str, prompt: str) -> AsyncIterator[str]:
        """The answer word by word, spread over the delay.

        Raises   what the app's function raises
        """
        rng = random.Random(f"{self._seed}\0{system}\0{prompt}")  # noqa: S311 - repeatable on purpose
        seconds = rng.uniform(*self._delay_ms) / 1000
        text = self._answer(system, prompt, rng)
        pieces: list[str] = _PIECE.findall(text) or [text]
        # A few naps instead of one per word: a timer costs more than the word is worth.
        naps = min(len(pieces), 8)
        per_nap = -(-len(pieces) // naps)
        for start in range(0, len(pieces), per_nap):
            if seconds:
                await asyncio.sleep(seconds / naps)
            for piece in pieces[start : start + per_nap]:
                yield piece

    async def reply(self, system: str, prompt: str) -> str:
        """The whole answer, after the same delay as `stream`."""
        return "".join([piece async for piece in self.stream(system, prompt)])

    async def close(self) -> None:
        """Nothing to give back."""
