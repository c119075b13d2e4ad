"""The ceiling for sockets: an ASGI application that does nothing, on the server's own stack.

Run as a program it prints its port. A message is echoed; the message `fan N` makes it send N
bytes to every open socket.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn

__all__ = ["serve"]

_open: set[Any] = set()


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    _open.add(send)
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message["text"]
            if text.startswith("fan "):
                payload = {"type": "websocket.send", "text": "x" * int(text[4:])}
                for each in list(_open):
                    await each(payload)
            else:
                await send({"type": "websocket.send", "text": text})
    finally:
        _open.discard(send)


async def serve() -> None:
    """Serve on a free port until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        _application,
        log_level="warning",
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        access_log=False,
    )
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve())
