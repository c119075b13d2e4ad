"""A server on a real port and a socket without a client's kindness: what is said is what is sent.

Time is virtual unless a test asks for the real one: silence of two minutes costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.persistence.contract import Persistence
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import Runtime
from reactive_store.server.serving import serve
from reactive_store.testing.virtual_runtime import VirtualRuntime

__all__ = ["NPM", "PYTHON", "WIRE_APP", "Wire", "WireServer", "add", "serving"]

WIRE_APP = Path(__file__).with_name("wire_app")
NPM = "/api/1.48.0/sync"
PYTHON = "/api/sync"
_PATIENCE_S = 10.0
_QUIET_S = 0.1  # nothing for so long, where it would come at once


def add(query_id: int, path: str = "messages:bodies", **fields: Any) -> dict[str, Any]:
    """One change of the query set."""
    return {"type": "Add", "queryId": query_id, "udfPath": path, "args": [{}], **fields}


class Wire:
    """One socket: frames as they are."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.response = connection.response
        self._version = 0

    async def say(self, **fields: Any) -> None:
        """Send one frame."""
        await self.connection.send(json.dumps(fields))

    async def connect(self, session: str | None = None, **fields: Any) -> str:
        """Say who is there, as npm's client does; gives the session's id."""
        session = session or str(uuid.uuid4())
        given = {"connectionCount": 0, "lastCloseReason": "InitialConnect", "clientTs": 0}
        await self.say(type="Connect", sessionId=session, **{**given, **fields})
        return session

    async def modify(self, *changes: Mapping[str, Any]) -> None:
        """Change the query set, one version on."""
        base, self._version = self._version, self._version + 1
        await self.say(
            type="ModifyQuerySet", baseVersion=base, newVersion=base + 1, modifications=changes
        )

    async def mutate(self, request_id: int, path: str, **args: Any) -> None:
        """Ask for a mutation."""
        await self.say(type="Mutation", requestId=request_id, udfPath=path, args=[args])

    async def act(self, request_id: int, path: str, **args: Any) -> None:
        """Ask for an action."""
        await self.say(type="Action", requestId=request_id, udfPath=path, args=[args])

    async def hear(self) -> dict[str, Any]:
        """The next frame, which has to be text."""
        async with asyncio.timeout(_PATIENCE_S):
            frame = await self.connection.recv()
        assert isinstance(frame, str), "the server sent a binary frame"
        message: dict[str, Any] = json.loads(frame)
        return message

    async def transition(self) -> dict[str, Any]:
        """The next frame, which has to be a Transition."""
        message = await self.hear()
        assert message["type"] == "Transition", message
        return message

    async def hears_nothing(self) -> bool:
        """Whether nothing comes, though whatever was asked for has been done."""
        try:
            async with asyncio.timeout(_QUIET_S):
                await self.connection.recv()
        except TimeoutError:
            return True
        return False

    async def end(self) -> tuple[list[dict[str, Any]], int | None, str | None]:
        """What is still said, and how the server closes: code and reason."""
        said = []
        try:
            while True:
                said.append(await self.hear())
        except ConnectionClosed as closed:
            last = closed.rcvd
        assert last is not None, "the connection was dropped without a close"
        return said, last.code, last.reason


class WireServer:
    """A running server of this process."""

    def __init__(self, backend: Backend, url: str) -> None:
        self.backend = backend
        self.url = url
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def runtime(self) -> VirtualRuntime:
        """The clock."""
        runtime = self.backend.runtime
        assert isinstance(runtime, VirtualRuntime)
        return runtime

    async def socket(self, path: str = NPM, **options: Any) -> Wire:
        """A new socket; it is closed with the server."""
        given: dict[str, Any] = {
            "max_size": None,
            "compression": None,
            "ping_interval": None,
            "max_queue": None,
        }
        given |= options
        connection = await self._open.enter_async_context(
            connect(self.url.replace("http", "ws", 1) + path, **given)
        )
        return Wire(connection)


@contextlib.asynccontextmanager
async def serving(
    app: Path = WIRE_APP,
    *,
    runtime: Runtime | None = None,
    persistence: Persistence | None = None,
    **settings: Any,
) -> AsyncIterator[WireServer]:
    """A deployment in memory, served on a free port until the block ends."""
    backend = await Backend.open(
        Settings(app=app, **{"redact": False, **settings}),
        app=load_app(app),
        persistence=persistence or MemoryPersistence(),
        runtime=runtime or VirtualRuntime(),
    )
    stop = asyncio.Event()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(backend, host="127.0.0.1", port=0, ready=url.set_result, stop=stop)
    )
    try:
        await asyncio.wait([task, url], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        async with WireServer(backend, url.result()) as server:
            yield server
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)
        await backend.close()
