"""The application: routes, in the order they are tried, and the life of what they share.

`Application` owns the way to the backend. Its Starlette app can stand alone or be mounted below a
prefix of another one; Starlette does not run the lifespan of a mounted app, so the backend also
opens at the first request when nobody opened it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from reactive_store.backend import Backend
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.server.authorization import admin_of_request
from reactive_store.server.client_version import ClientVersionMiddleware
from reactive_store.server.cors import CorsMiddleware
from reactive_store.server.files import FileEndpoints
from reactive_store.server.functions import FUNCTION_ENDPOINTS
from reactive_store.server.http_actions import HttpActions
from reactive_store.server.meta import META_ENDPOINTS
from reactive_store.server.paths import LeadingSlashes, route_path
from reactive_store.server.requests import Endpoints
from reactive_store.server.sync import Sockets, SyncEndpoint

__all__ = ["app_for", "build_app"]


class _Opening:
    """A backend that is opened once, by whoever needs it first, and closed by the lifespan."""

    def __init__(self, open_backend: Callable[[], Awaitable[Backend]]) -> None:
        self._open_backend = open_backend
        self._lock = asyncio.Lock()
        self._backend: Backend | None = None

    async def get(self) -> Backend:
        if self._backend is not None:
            return self._backend
        async with self._lock:
            if self._backend is None:
                self._backend = await self._open_backend()
            return self._backend

    def take(self) -> Backend | None:
        backend, self._backend = self._backend, None
        return backend


def build_app(
    open_backend: Callable[[], Awaitable[Backend]],
    *,
    limits: Limits,
    runtime: Runtime,
    closes_backend: bool,
) -> Starlette:
    """The server's application around a backend that `open_backend` gives.

    `closes_backend` tells whether the backend belongs to the application, and so ends with its
    lifespan, or to the caller.
    """
    opening = _Opening(open_backend)
    sockets = Sockets(runtime, silence_seconds=limits.silence_seconds)
    endpoints = Endpoints(opening.get, limits=limits, runtime=runtime)
    sync = SyncEndpoint(opening.get, sockets, runtime)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await opening.get()
        try:
            yield
        finally:
            await sockets.close()
            backend = opening.take()
            if backend is not None and closes_backend:
                await backend.close()

    routes: list[BaseRoute] = [
        WebSocketRoute("/api/sync", sync.serve),
        WebSocketRoute("/api/{version}/sync", sync.serve),
        Route("/api/sync", sync.refuse_plain_request, methods=["GET"]),
        Route("/api/{version}/sync", sync.refuse_plain_request, methods=["GET"]),
    ]
    routes += [
        Route(path, endpoints.route(endpoint), methods=methods.split())
        for methods, path, endpoint in (*FUNCTION_ENDPOINTS, *META_ENDPOINTS)
    ]
    routes += FileEndpoints(opening.get, limits=limits, runtime=runtime).routes()
    http_actions = HttpActions(opening.get, limits=limits, runtime=runtime)
    routes.append(Route("/http/{path:path}", http_actions))

    async def no_route(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        if status == 404 and route_path(request.scope).startswith("/api/"):
            return await unknown_endpoint(request)
        return Response(status_code=status)

    unknown_endpoint = endpoints.route(_unknown_endpoint)
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={404: no_route, 405: no_route},
        middleware=[
            Middleware(LeadingSlashes),
            Middleware(CorsMiddleware),
            Middleware(ClientVersionMiddleware, runtime=runtime),
        ],
    )
    app.router.redirect_slashes = False
    return app


def app_for(backend: Backend) -> Starlette:
    """An application for a backend that is open already and that the caller closes."""

    async def get_backend() -> Backend:
        return backend

    return build_app(
        get_backend, limits=backend.limits, runtime=backend.runtime, closes_backend=False
    )


async def _unknown_endpoint(backend: Backend, request: Request) -> Response:
    """A path of the API that does not exist here.

    Convex's command line repeats a 404 for half a minute, so an administrator's tools get an answer
    they give up on at once.
    """
    try:
        await admin_of_request(request.headers, request.query_params, backend.authenticator)
    except Exception:  # noqa: BLE001 - whoever is no administrator learns nothing
        return Response(status_code=404)
    raise BadRequest(
        f"This deployment has no endpoint {request.method} {route_path(request.scope)}",
        code="UnsupportedEndpoint",
    )
