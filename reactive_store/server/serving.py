"""Running the application on real ports: the one place that configures uvicorn.

What matters: the server's own websocket protocol, no compression unless asked for, messages up to
the limit of the sync protocol, connections closed that ask for nothing, sockets closed with 1001 on
a graceful stop, and no access log.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Callable, Generator
from typing import Any, Literal

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_store.backend import Backend
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.server.app import app_for
from reactive_store.server.http_protocol import http_protocol
from reactive_store.server.socket_protocol import SocketProtocol

__all__ = ["listen", "serve", "serve_app", "url_of"]

_GRACEFUL_SECONDS = 10
_BACKLOG = 4096
# Every interface is nowhere to connect to; loopback is one of them.
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - not bound here


async def serve(
    backend: Backend,
    *,
    host: str,
    port: int,
    site_port: int | None = None,
    ready: Callable[[str], None],
    stop: asyncio.Event | None = None,
) -> None:
    """Serve an open backend until a signal, `stop` or cancellation; then finish gracefully.

    Units    port 0 takes a free port; site_port None serves no second port
    Shapes   ready is called once, with the URL of the API, when connections are accepted
    Raises   BadRequest[PortInUse, PortNotAllowed, AddressNotUsable] before `ready`
    """

    def announce(url: str) -> None:
        if site_port is None:
            backend.announce_site(f"{url}/http")
        backend.announce(url)  # other processes on this data find it there
        ready(url)

    await serve_app(
        app_for(backend),
        host=host,
        port=port,
        site_port=site_port,
        ready=announce,
        site_ready=backend.announce_site,
        stop=stop,
        limits=backend.limits,
        runtime=backend.runtime,
        compression=backend.settings.compression,
    )


async def serve_app(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    site_port: int | None = None,
    ready: Callable[[str], None],
    site_ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    limits: Limits,
    runtime: Runtime,
    compression: bool = False,
) -> None:
    """`serve` for an application that holds ours, alone or among others.

    Shapes   site_ready is called with the URL of the site port, before `ready`
    """
    with contextlib.ExitStack() as sockets:
        api = sockets.enter_context(listen(host, port))
        url = url_of(host, api)
        servers = [(_server(app, "on", limits, compression, lambda: ready(url)), api)]
        if site_port is not None:
            site = sockets.enter_context(listen(host, site_port, option="--site-port"))
            if site_ready is not None:
                site_ready(url_of(host, site))
            # The site's paths are those below `/http`; it shares the life of the application.
            below = _BelowHttp(app)
            servers.append((_server(below, "off", limits, compression, _do_nothing), site))
        tasks = [
            runtime.spawn(server.serve(sockets=[listening]), name="server")
            for server, listening in servers
        ]
        await _run([server for server, _ in servers], tasks, stop, runtime)


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A socket that listens on an address; `option` is how users choose its port.

    Raises   BadRequest[PortInUse, PortNotAllowed, AddressNotUsable] with what to do
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BadRequest(
            f"cannot listen on {host!r}: {error.strerror or error}; use --host to choose another",
            code="AddressNotUsable",
        ) from error
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _explained(error, host, port, option) from error
    listening.setblocking(False)
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """The URL at which a listening socket can be reached from this machine."""
    name = _REACHABLE.get(host, host)
    port = listening.getsockname()[1]
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _explained(error: OSError, host: str, port: int, option: str) -> BadRequest:
    if error.errno == errno.EADDRINUSE:
        return BadRequest(
            f"port {port} is in use on {host}: stop what runs there, or use {option} to choose "
            f"another ({option} 0 takes a free one)",
            code="PortInUse",
        )
    if error.errno == errno.EACCES:
        return BadRequest(
            f"port {port} is reserved for the system; use {option} to choose one above 1023",
            code="PortNotAllowed",
        )
    return BadRequest(
        f"cannot listen on {host} port {port}: {error.strerror or error}", code="AddressNotUsable"
    )


def _do_nothing() -> None:
    pass


class _BelowHttp:
    """The site port: every request is one below `/http` of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http" and not scope["path"].startswith("/"):
            await PlainTextResponse(status_code=400)(scope, receive, send)  # `OPTIONS *`
        else:
            below = {**scope, "path": "/http" + scope["path"]}
            if (raw := scope.get("raw_path")) is not None:
                below["raw_path"] = b"/http" + raw
            await self._app(below, receive, send)


class _Server(uvicorn.Server):
    """uvicorn's server, without its own handling of signals: it knows of one server only."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    def stop(self) -> None:
        """Finish; when asked a second time, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _server(
    app: ASGIApp,
    lifespan: Literal["on", "off"],
    limits: Limits,
    compression: bool,
    on_started: Callable[[], None],
) -> _Server:
    config = uvicorn.Config(
        app,
        lifespan=lifespan,
        http=http_protocol(limits.head_seconds),
        ws=SocketProtocol,
        ws_max_size=limits.message_bytes,
        ws_per_message_deflate=compression,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return _Server(config, on_started)


async def _run(
    servers: list[_Server],
    tasks: list[asyncio.Task[None]],
    stop: asyncio.Event | None,
    runtime: Runtime,
) -> None:
    """Wait for the servers. The end of one, a signal, `stop` or a cancellation ends them all."""
    waiting: list[asyncio.Task[Any]] = [*tasks]
    if stop is not None:
        waiting.append(runtime.spawn(_wait(stop), name="server stop"))
    try:
        with _signals(servers):
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for server in servers:
                server.should_exit = True
            await asyncio.wait(tasks)
    finally:
        for server in servers:
            server.should_exit = True
        for task in waiting[len(tasks) :]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    for task in tasks:
        task.result()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


@contextlib.contextmanager
def _signals(servers: list[_Server]) -> Generator[None]:
    """SIGINT and SIGTERM stop the servers meanwhile; where signals cannot be had, nothing does."""

    def stop_all() -> None:
        for server in servers:
            server.stop()

    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        previous = signal.getsignal(number)
        # Only the main thread of a Unix process may.
        with contextlib.suppress(RuntimeError, ValueError):
            loop.add_signal_handler(number, stop_all)
            before[number] = previous
    try:
        yield
    finally:
        for number, previous in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, previous)  # the loop puts the default in place
