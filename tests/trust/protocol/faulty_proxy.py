"""The cuttable proxy with more ways to be bad: slow, in crumbs, cut inside a frame, half open."""

from __future__ import annotations

import asyncio
import random

from tests.e2e.cuttable_proxy import CuttableProxy

__all__ = ["FaultyProxy"]


class FaultyProxy(CuttableProxy):
    """What it does to the bytes that pass, besides holding and cutting:

    `crumbs`   pieces of a few bytes arrive one by one, so frames are cut anywhere
    `delay_s`  every read waits that long
    `cut_inside(requests=…)`  the next bytes of that direction end in the middle, then a reset

    Half open is `hold_requests` or `hold_replies` of the base class while the other flows on.
    """

    def __init__(self, target_port: int, seed: int) -> None:
        super().__init__(target_port)
        self._chance = random.Random(seed)
        self.crumbs = False
        self.delay_s = 0.0
        self._cut_requests = False
        self._cut_replies = False
        self.cuts_inside = 0

    def cut_inside(self, *, requests: bool) -> None:
        """Cut every connection inside the next thing said in one direction."""

        async def apply() -> None:
            if requests:
                self._cut_requests = True
            else:
                self._cut_replies = True

        self._call(apply())

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while not (self._requests_flow if requests else self._replies_flow):
                    self._changed.clear()
                    await self._changed.wait()
                if self._cut_requests if requests else self._cut_replies:
                    self._cut_requests = self._cut_replies = False
                    self.cuts_inside += 1
                    writer.write(data[: max(1, len(data) // 2)])
                    await writer.drain()
                    return  # the end of one direction ends the connection
                await self._forward(data, writer)
        except OSError:
            return

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        while data and not writer.transport.is_closing():
            size = self._chance.randrange(1, 40) if self.crumbs else len(data)
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            if data:
                await asyncio.sleep(0)
