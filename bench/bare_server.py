"""The ceilings that need a server: what our clients ask for, done with no engine at all.

It speaks just enough of the sync protocol for the load that drives reactive_store to drive it too.
A room is a deque of encoded documents. A write is parsed, encoded, put in front, spliced with what
is there and pushed; nothing is stored, checked, versioned or remembered. With `--sync FILE` every
write waits for the disk first.

    python -m bench.bare_server direct      our socket protocol, in the settings of our server
    python -m bench.bare_server starlette   Starlette's websocket over uvicorn as it comes, or with
                                            another of its websocket implementations: --ws

It prints its port. `POST /set` keeps a body, `POST /api/query` answers it. `POST /file` streams a
body to a file, `GET /file` streams it back. A text message that is no object is echoed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from reactive_store.limits import Limits
from reactive_store.runtime import SystemRuntime
from reactive_store.server.serving import listen, serve_app
from reactive_store.server.socket_protocol import DIRECT, SocketProtocol

__all__ = ["main"]

# The same documents as those of bench/app/functions.
_BODIES = {
    "posts": "It is a truth universally acknowledged that a benchmark wants a document. " * 6,
    "results": "The price is fair, though I would rather pay once than every month. " * 6,
}
_NEWEST = 20
_VERSION = b'{"querySet":1,"identity":0,"ts":"AAAAAAAAAAA="}'
_BEFORE = (
    b'{"type":"Transition","startVersion":' + _VERSION + b',"endVersion":' + _VERSION
    + b',"modifications":[{"type":"QueryUpdated","queryId":0,"value":['
)  # fmt: skip
_AFTER = b'],"logLines":[],"journal":null}]}'


class _Room:
    """Documents as bytes, and who watches them."""

    __slots__ = ("documents", "watchers")

    def __init__(self, most: int | None) -> None:
        self.documents: deque[bytes] = deque(maxlen=most)
        self.watchers: list[Any] = []

    def frame(self) -> bytes:
        return _BEFORE + b",".join(self.documents) + _AFTER


class Rooms:
    """All rooms, and what the messages of clients do to them."""

    def __init__(self, sync_file: str | None) -> None:
        self._rooms: dict[str, _Room] = {}
        self._count = 0
        self._file = (
            None
            if sync_file is None
            else os.open(sync_file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        )

    def handle(self, text: bytes | str) -> tuple[dict[str, Any], _Room | None]:
        """A message; and the room to be pushed to, if it is a write."""
        message = orjson.loads(text)
        kind = message["type"]
        if kind == "Mutation":
            return message, self._write(message)
        return message, None

    def room(self, path: str, name: str) -> _Room:
        """The room a function of bench/app is about."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Room(None if path.startswith("results") else _NEWEST)
        return room

    def _write(self, message: dict[str, Any]) -> _Room:
        args = message["args"][0]
        name, number, path = args["room"], args["number"], message["udfPath"]
        room = self.room(path, name)
        self._count += 1
        table = "results" if path.startswith("results") else "posts"
        document = orjson.dumps(
            {
                "_creationTime": 1.7e12 + self._count,
                "_id": f"j57{self._count:029d}",
                "author": f"author {number % 50}",
                "body": _BODIES[table],
                "number": number,
                "room": name,
                "stars": number % 1000,
                "tags": ["bench", "post"],
            }
        )
        if table == "posts":
            room.documents.appendleft(document)
        else:
            room.documents.append(document)
        if self._file is not None:
            os.write(self._file, document)
            os.fdatasync(self._file)
        return room


def _response(message: dict[str, Any]) -> bytes:
    return (
        b'{"type":"MutationResponse","requestId":%d,"success":true,"result":null,'
        b'"ts":"AAAAAAAAAAA=","logLines":[]}' % message["requestId"]
    )


def _framed(payload: bytes) -> bytes:
    """One text frame of a server, header included."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class _DirectReader:
    """One socket on our own protocol: callbacks in, frames built once out."""

    def __init__(self, rooms: Rooms, connection: SocketProtocol) -> None:
        self._rooms = rooms
        self._connection = connection
        self._left: list[Callable[[], None]] = []

    def receive(self, text: bytes) -> None:
        connection = self._connection
        if not text.startswith(b"{"):
            connection.send(text)
            return
        message, written = self._rooms.handle(text)
        if written is not None:
            connection.send(_response(message))
            frame = _framed(written.frame())
            for watcher in written.watchers:
                watcher._transport.write(frame)
        elif message["type"] == "ModifyQuerySet":
            for added in message["modifications"]:
                room = self._rooms.room(added["udfPath"], added["args"][0]["room"])
                room.watchers.append(connection)
                self._left.append(lambda room=room: room.watchers.remove(connection))  # type: ignore[misc]
                connection.send(room.frame())

    def receive_binary(self) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def end(self) -> None:
        for leave in self._left:
            leave()


def direct_application(rooms: Rooms, http: Starlette) -> Any:
    """An ASGI application for uvicorn with our socket protocol; HTTP goes to Starlette."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await http(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        connection = scope["extensions"][DIRECT]["socket"]
        reader = _DirectReader(rooms, connection)
        connection.attach(reader)
        try:
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            reader.end()

    return application


def http_application(rooms: Rooms) -> Starlette:
    """Starlette alone: one endpoint that answers kept bytes, and a websocket."""
    kept = b"{}"
    file = tempfile.NamedTemporaryFile(prefix="reactive-store-bench-")  # noqa: SIM115 - as long as we

    async def keep(request: Request) -> Response:
        nonlocal kept
        kept = await request.body()
        return Response(b"")

    async def answer(request: Request) -> Response:
        await request.body()
        return Response(kept, media_type="application/json")

    async def take_file(request: Request) -> Response:
        with Path(file.name).open("wb") as taken:
            async for chunk in request.stream():
                taken.write(chunk)
        return Response(b"")

    async def give_file(request: Request) -> Response:
        return FileResponse(file.name)

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        joined: list[_Room] = []
        try:
            while True:
                text = await websocket.receive_text()
                if not text.startswith("{"):
                    await websocket.send_text(text)
                    continue
                message, written = rooms.handle(text)
                if written is not None:
                    await websocket.send_text(_response(message).decode())
                    frame = written.frame().decode()
                    for watcher in list(written.watchers):
                        await watcher.send_text(frame)
                elif message["type"] == "ModifyQuerySet":
                    for added in message["modifications"]:
                        room = rooms.room(added["udfPath"], added["args"][0]["room"])
                        room.watchers.append(websocket)
                        joined.append(room)
                        await websocket.send_text(room.frame().decode())
        except WebSocketDisconnect:
            pass
        finally:
            for room in joined:
                room.watchers.remove(websocket)

    return Starlette(
        routes=[
            Route("/set", keep, methods=["POST"]),
            Route("/file", take_file, methods=["POST"]),
            Route("/file", give_file),
            Route("/api/query", answer, methods=["POST"]),
            WebSocketRoute("/{path:path}", talk),
        ]
    )


async def _serve_direct(rooms: Rooms) -> None:
    def ready(url: str) -> None:
        print(url.rpartition(":")[2], flush=True)

    await serve_app(
        direct_application(rooms, http_application(rooms)),
        host="127.0.0.1",
        port=0,
        ready=ready,
        limits=Limits(),
        runtime=SystemRuntime(),
    )


async def _serve_starlette(rooms: Rooms, protocol: str, *, compression: bool) -> None:
    listener = listen("127.0.0.1", 0)  # with Nagle's algorithm off, as uvicorn's own
    config = uvicorn.Config(
        http_application(rooms),
        log_level="error",
        access_log=False,
        ws=cast(Any, protocol),
        ws_per_message_deflate=compression,
    )
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack", choices=("direct", "starlette"))
    parser.add_argument("--sync", default=None)
    parser.add_argument("--ws", default="auto", help="of starlette: as uvicorn names them")
    parser.add_argument("--plain", action="store_true", help="of starlette: never compress")
    arguments = parser.parse_args()
    rooms = Rooms(arguments.sync)
    if arguments.stack == "direct":
        asyncio.run(_serve_direct(rooms))
    else:
        compression = not arguments.plain
        asyncio.run(_serve_starlette(rooms, arguments.ws, compression=compression))


if __name__ == "__main__":
    main()
