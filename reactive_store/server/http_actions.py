"""HTTP actions: `/http/…` of the API port, and everything on the site port.

Nothing is added to what an app answers and nothing taken from what it is asked: no headers for
other origins, no limit on a body that is read as a stream, every method a router knows. A request
without a route, and a handler that fails, get the answers that clients of Convex know.

Invariants
- A handler goes on when its caller leaves; what streams to the caller ends.
- No body is held in memory beyond the limit, in either direction.
- A response that cannot be completed ends with its connection, never as if it were whole.
- A response that is no HTTP has not begun: a line break in a header, say, is the handler's error.

Source: the routes, texts and statuses of Convex's open server
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

import orjson
from starlette.datastructures import URL, Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from reactive_store.auth.identity import ANONYMOUS, Caller
from reactive_store.backend import Backend
from reactive_store.errors import BadRequest, Overloaded, StoreError
from reactive_store.functions.logs import LogLines
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.functions.router import METHODS, Route
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.server.authorization import caller_of_request, from_request
from reactive_store.server.errors import error_response
from reactive_store.server.http_protocol import abort
from reactive_store.server.paths import route_path

__all__ = ["HttpActions", "HttpRequest", "answer_request"]

_log = logging.getLogger("reactive_store.server")

_PREFIX: Final = "/http"
_NO_ROUTER: Final = "This Convex deployment does not have HTTP actions enabled."
_NO_ROUTE: Final = "No matching routes found"
_NO_RESPONSE: Final = "HTTP actions must return a Response"
_TOO_LARGE: Final = "HttpResponseTooLarge: HTTP actions support responses up to {limit} MiB"
_BODY_TOO_LARGE: Final = "The request's body is too large (maximum {limit} bytes)"
_MIB: Final = 1024 * 1024
_HEADER_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# Requests of these methods have no body, whatever they carry.
_BODILESS: Final = frozenset(("GET", "HEAD", "OPTIONS"))


class HttpActions:
    """The route: an ASGI application for everything below `/http/`."""

    def __init__(
        self, backend: Callable[[], Awaitable[Backend]], *, limits: Limits, runtime: Runtime
    ) -> None:
        self._backend = backend
        self._runtime = runtime
        self._places = asyncio.Semaphore(limits.http_actions)
        self._wait_s = limits.http_wait_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._take_place()
        except Overloaded as error:
            await error_response(error, self._runtime, status=503)(scope, receive, send)
            return
        try:
            await answer_request(await self._backend(), _site_scope(scope), receive, send)
        finally:
            self._places.release()

    async def _take_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise Overloaded("Too many HTTP actions are running at a time.") from error


class HttpRequest(Request):
    """Starlette's request, with the address the caller used, and a bound on what is collected."""

    def __init__(self, scope: Scope, receive: Receive, *, most_bytes: int) -> None:
        super().__init__(scope, receive)
        self._address = _address(scope)
        self._most_bytes = most_bytes
        self._is_collected = False  # the body is held in memory, so the bound counts
        self.was_too_large = False  # set when a body went beyond the bound

    @property
    def url(self) -> URL:
        """The URL as the caller wrote it, as far as a proxy lets us know."""
        return self._address

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes.

        Raises   ClientDisconnect; BadRequest[RequestTooLarge] when `body` or `form` asked
        """
        size = 0
        async for part in super().stream():
            size += len(part)
            if self._is_collected and size > self._most_bytes:
                self.was_too_large = True
                text = _BODY_TOO_LARGE.format(limit=self._most_bytes)
                raise BadRequest(text, code="RequestTooLarge")
            yield part

    async def body(self) -> bytes:
        """The whole body.

        Raises   BadRequest[RequestTooLarge] beyond the limit, which callers see as status 413
        """
        self._is_collected = True
        return await super().body()

    def form(self, **bounds: Any) -> Any:
        """The fields of a form, as Starlette reads them; together no longer than a body may be.

        Raises   as `body`
        """
        self._is_collected = True
        return super().form(**bounds)


async def answer_request(
    backend: Backend, scope: Scope, receive: Receive, send: Send, *, caller: Caller | None = None
) -> Outcome | None:
    """Answer one request to a site. How the handler's call ended, if there was one.

    Shapes   scope: with `path` and `raw_path` as on the site. caller: instead of the one that the
             `Authorization` header names
    """
    runner = backend.runner
    router = runner.app.http
    method = scope["method"]
    if router is None:
        await PlainTextResponse(_NO_ROUTER, 404)(scope, receive, send)
        return None
    if method not in METHODS and method != "HEAD":
        await Response(status_code=405)(scope, receive, send)
        return None
    route = router.lookup(scope["raw_path"].decode("latin-1"), method)
    if route is None:
        await PlainTextResponse(_NO_ROUTE, 404)(scope, receive, send)
        return None
    return await _Call(backend, route, scope, receive, send).run(caller)


class _Call:
    """One request and its response."""

    def __init__(
        self, backend: Backend, route: Route, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._backend = backend
        self._route = route
        self._scope = scope
        self._send = send
        self._receive = _without_body(receive) if scope["method"] in _BODILESS else receive
        limits = backend.limits
        self._most_bytes = limits.http_response_bytes
        self._request = HttpRequest(scope, self._receive, most_bytes=limits.http_body_bytes)
        self._is_head = scope["method"] == "HEAD"
        self._has_started = False
        self._is_complete = False
        self._is_cut = False
        self._sent_bytes = 0
        self._request_id = ""

    async def run(self, caller: Caller | None) -> Outcome | None:
        backend = self._backend
        outcome: Outcome | None = None
        try:
            if caller is None:
                caller = await _caller(backend, self._request)
            if caller.request is not None:
                self._request_id = caller.request.request_id
            outcome = await backend.runner.http(self._route, self._request, self._respond, caller)
        except StoreError as error:  # the deployment's own trouble, not the app's
            if not self._has_started:
                await self._plain(error_response(error, backend.runtime))
            else:
                _log.warning("HTTP action cut short code=%s message=%s", error.code, error.message)
        else:
            if isinstance(outcome, Failure) and not self._has_started:
                await self._plain(self._failure(outcome))
        if self._has_started and not self._is_complete:
            await self._end()
        return outcome

    async def _respond(self, response: object) -> None:
        """Send what a handler returned."""
        if not isinstance(response, Response):
            lines = LogLines.current()
            if lines is not None:
                lines.add("ERROR", _NO_RESPONSE)
            response = PlainTextResponse(_NO_RESPONSE, 500)
        try:
            await response(self._scope, self._receive, self._forward)
        except _Enough:
            if response.background is not None:
                await response.background()
        except ClientDisconnect:
            pass  # nobody is there any more; the rest was for nobody

    async def _forward(self, message: Message) -> None:
        """Pass on a message of the response, as far as it goes."""
        if message["type"] == "http.response.start":
            message = {**message, "headers": _checked_headers(message)}
            self._has_started = True
            await self._send(message)
            if self._is_head:
                await self._finish(b"")
                raise _Enough
            return
        if message["type"] != "http.response.body" or self._is_cut:
            return
        body = message.get("body", b"")
        self._sent_bytes += len(body)
        if self._sent_bytes > self._most_bytes:
            self._is_cut = True
            lines = LogLines.current()
            if lines is not None:
                lines.add("ERROR", _TOO_LARGE.format(limit=self._most_bytes // _MIB))
            rest = len(body) - (self._sent_bytes - self._most_bytes)
            await self._send(
                {"type": "http.response.body", "body": bytes(body[:rest]), "more_body": True}
            )
            raise _Enough
        if message.get("more_body", False):
            await self._send(message)
        else:
            await self._finish(body)

    async def _finish(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        self._is_complete = True  # unless the server refused it: shorter than it said, say

    async def _end(self) -> None:
        """End a response in the middle: by closing the connection, where that can be done."""
        self._is_complete = True
        if not abort(self._scope):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _plain(self, response: Response) -> None:
        await response(self._scope, self._receive, self._forward_whole)

    async def _forward_whole(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_started = True
        elif self._is_head:
            message = {**message, "body": b""}
        self._is_complete = self._is_complete or not message.get("more_body", False)
        await self._send(message)

    def _failure(self, failure: Failure) -> Response:
        """The answer for a handler that failed before its response began."""
        backend = self._backend
        if self._request.was_too_large:
            text = _BODY_TOO_LARGE.format(limit=backend.limits.http_body_bytes)
            return PlainTextResponse(text, 413)
        code = f"[Request ID: {self._request_id}] Server Error"
        content: dict[str, Any] = {"code": code}
        if not backend.settings.redact:
            trace = failure.message
            message = trace.partition("\n    at ")[0].rstrip("\n")
            content = {"code": f"{code}: {message}", "trace": trace}
        if failure.data is not None:
            content["data"] = orjson.Fragment(failure.data)
        return Response(orjson.dumps(content), 500, media_type="application/json")


def _checked_headers(start: Message) -> list[tuple[bytes, bytes]]:
    """The headers of a response, when it can be sent.

    How a body is framed is the server's affair, so a copied `Transfer-Encoding` is left out.

    Raises   ValueError
    """
    status = start["status"]
    if not 200 <= status <= 599:
        raise ValueError(f"A response cannot have the status {status}")
    headers: Iterable[tuple[bytes, bytes]] = start.get("headers", ())
    checked = []
    for name, value in headers:
        lower, stripped = name.lower(), value.strip(b" \t")
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"A response cannot have a header named {_shown(name)}")
        if not _HEADER_VALUE.fullmatch(stripped):
            raise ValueError(f"The header {_shown(name)} cannot be {_shown(stripped)}")
        if lower == b"content-length" and not stripped.isdigit():
            raise ValueError(f"The header {_shown(name)} cannot be {_shown(stripped)}")
        if lower != b"transfer-encoding":
            checked.append((name, stripped))
    if len({value for name, value in checked if name.lower() == b"content-length"}) > 1:
        raise ValueError("A response cannot have several lengths")
    return checked


def _shown(text: bytes) -> str:
    return repr(text[:100].decode("latin-1"))


class _Enough(Exception):
    """Nothing more of this response is sent."""


async def _caller(backend: Backend, request: HttpRequest) -> Caller:
    """Who asks; nobody, when the header is not ours or names nobody."""
    caller = ANONYMOUS
    if "authorization" in request.headers:
        with contextlib.suppress(StoreError):  # an issuer that fails names nobody either
            caller = await caller_of_request(request.headers, {}, backend.authenticator)
    return from_request(caller, request, backend.runtime.random_bytes(8).hex())


def _site_scope(scope: Scope) -> Scope:
    """The request as one to the site: its path is what lies below `/http`."""
    path = route_path(scope)
    prefix = scope["path"].removesuffix(path) + _PREFIX
    raw: bytes | None = scope.get("raw_path")
    encoded = prefix.encode("latin-1", "replace")
    if raw is not None and raw.startswith(encoded):
        raw = raw.removeprefix(encoded)
    else:
        raw = quote(path.removeprefix(_PREFIX)).encode("ascii")
    return {
        **scope,
        "path": path.removeprefix(_PREFIX),
        "raw_path": raw,
        "root_path": "",
        "app_root_path": "",
        "path_params": {},
    }


def _without_body(receive: Receive) -> Receive:
    """A way to receive nothing but the end: of the body at once, of the connection when it is."""
    is_told = False

    async def receive_without_body() -> Message:
        nonlocal is_told
        if not is_told:
            is_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message

    return receive_without_body


def _address(scope: Scope) -> URL:
    headers = Headers(scope=scope)
    forwarded = _forwarded(headers.get("forwarded", ""))
    scheme = (
        _first(headers.get("x-forwarded-proto")) or forwarded.get("proto") or scope.get("scheme")
    )
    host = forwarded.get("host") or _first(headers.get("x-forwarded-host")) or headers.get("host")
    if not host:
        name, port = scope.get("server") or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    path = scope["raw_path"].decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    return URL(f"{scheme or 'http'}://{host}{path}{'?' if query else ''}{query}")


def _first(value: str | None) -> str | None:
    """What the proxy next to the caller said, of several in a row."""
    return None if value is None else value.partition(",")[0].strip() or None


def _forwarded(value: str) -> dict[str, str]:
    """The pairs of the first element of a `Forwarded` header."""
    pairs: dict[str, str] = {}
    for pair in value.partition(",")[0].split(";"):
        name, equals, text = pair.partition("=")
        if equals:
            pairs[name.strip().lower()] = text.strip().strip('"')
    return pairs
