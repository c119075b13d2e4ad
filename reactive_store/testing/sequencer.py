"""Pin down one interleaving of tasks: numbered steps happen in the order of their numbers.

step = Sequencer()

async def first():
    async with step(0):
        ...                     # before anything at 1
    async with step(2):
        ...

async def second():
    async with step(1):
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Sequencer"]


class Sequencer:
    """Runs blocks one after the other, whichever tasks they are in.

    Every number from 0 on must be used exactly once. When a block fails or is cancelled, everybody
    who waits, or comes later, gets a RuntimeError: the order can no longer be kept.
    """

    def __init__(self) -> None:
        self._done: dict[int, asyncio.Event] = {}  # by number: the block has ended
        self._seen: set[int] = set()
        self._broken = False

    @asynccontextmanager
    async def __call__(self, number: int) -> AsyncIterator[None]:
        """The block with that number.

        Raises   RuntimeError when the number was used before, or an earlier block failed
        """
        if number in self._seen:
            raise RuntimeError(f"step {number} is taken: every number stands for one block")
        self._seen.add(number)
        try:
            if number > 0:
                await self._event(number - 1).wait()
            if self._broken:
                raise RuntimeError(f"step {number} cannot happen: an earlier one failed")
            yield
        except BaseException:
            self._broken = True
            for event in self._done.values():
                event.set()
            raise
        finally:
            self._event(number).set()

    def _event(self, number: int) -> asyncio.Event:
        event = self._done.get(number)
        if event is None:
            event = self._done[number] = asyncio.Event()
            if self._broken:
                event.set()
        return event
