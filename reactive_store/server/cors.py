"""Cross-origin rules: any page may call the API, with credentials.

Origins are mirrored, not listed: what a caller may do depends on its token, never on the page it
comes from. The app's own HTTP routes get no headers from here. Starlette's middleware does not
fit: it neither mirrors origins together with credentials nor answers every OPTIONS request.

Source: the headers of Convex's open server
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reactive_store.server.paths import is_api_path, route_path

__all__ = ["CorsMiddleware"]

_RawHeaders = list[tuple[bytes, bytes]]

_CREDENTIALS = (b"access-control-allow-credentials", b"true")
_VARY = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
_METHODS = (b"access-control-allow-methods", b"GET,POST,OPTIONS,PATCH,DELETE,PUT")
_MAX_AGE = (b"access-control-max-age", b"86400")


class CorsMiddleware:
    """Adds the headers to every response of the API, errors included; answers every OPTIONS."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_api_path(route_path(scope)):
            await self._app(scope, receive, send)
            return
        request = Headers(scope=scope)
        added: _RawHeaders = [_CREDENTIALS, _VARY]
        origin = request.get("origin")
        if origin is not None:
            added.append((b"access-control-allow-origin", origin.encode("latin-1")))
        if scope["method"] == "OPTIONS":
            await _answer_preflight(request, added, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _answer_preflight(request: Headers, added: _RawHeaders, send: Send) -> None:
    wanted = request.get("access-control-request-headers")
    headers = [*added, _METHODS, _MAX_AGE, (b"content-length", b"0")]
    if wanted is not None:
        headers.append((b"access-control-allow-headers", wanted.encode("latin-1")))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
