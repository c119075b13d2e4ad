"""A TCP proxy that a test can hold and cut, to lose a request or a reply at a chosen moment.

It runs its own event loop in a thread, so blocking tests can use it as well as asynchronous ones.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

__all__ = ["CuttableProxy"]


class CuttableProxy:
    """Forwards bytes between clients and one port of this machine.

    `hold_requests` keeps what clients send, `hold_replies` keeps what the server sends; a cut drops
    both connections and everything held. Holding lasts until `flow()` is called.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.connections = 0  # accepted since the start
        self._requests_flow = True
        self._replies_flow = True
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed: asyncio.Event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold_requests(self) -> None:
        """What clients send from now on stays here."""
        self._requests_flow = False

    def hold_replies(self) -> None:
        """What the server sends from now on stays here."""
        self._replies_flow = False

    def flow(self) -> None:
        """Let everything pass again, and accept connections again."""

        async def apply() -> None:
            self._requests_flow = self._replies_flow = True
            self._refusing = False
            self._changed.set()

        self._call(apply())

    def cut(self, *, refuse: bool = False) -> None:
        """Drop every connection with a reset; with `refuse`, new ones too until `flow()`."""

        async def apply() -> None:
            self._refusing = refuse
            for writer in list(self._writers):
                writer.transport.abort()

        self._call(apply())

    def _call(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _open(self) -> None:
        self._changed = asyncio.Event()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._requests_flow = self._replies_flow = True
        self._changed.set()
        # Cancelling would make asyncio's stream callbacks complain; ended connections end them.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers.add(writer)
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(back_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, back_writer, requests=True)),
            asyncio.create_task(self._pump(back_reader, writer, requests=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            for each in (writer, back_writer):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        try:
            while data := await reader.read(65_536):
                while not (self._requests_flow if requests else self._replies_flow):
                    self._changed.clear()
                    await self._changed.wait()
                if writer.transport.is_closing():
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
