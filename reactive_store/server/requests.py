"""What every endpoint does before and after its own work: the backend, the body, the errors.

Endpoints are plain coroutines from a request to a response that raise StoreErrors. `Endpoints`
turns them into routes: it finds the backend, lets only so many requests run at once, ends those
that take too long, and answers whatever was raised. No exception leaves it.

A request counts as running once its body is here, or more of it than the server would buffer
anyway; so callers that take their time with a body do not stand in the way of others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from reactive_store.backend import Backend
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.server.errors import error_response
from reactive_store.values.wire import parse_json

__all__ = ["Endpoint", "Endpoints", "json_body", "json_response", "read_body"]

Endpoint = Callable[[Backend, Request], Awaitable[Response]]

_DRAINED = 4
_LARGE_BYTES = 64 * 1024
_AT_ONCE = nullcontext()


class Endpoints:
    """Runs the endpoints of one application.

    `backend` gives the backend, opening it if need be; `limits` and `runtime` are needed before
    there is one.
    """

    def __init__(
        self, backend: Callable[[], Awaitable[Backend]], *, limits: Limits, runtime: Runtime
    ) -> None:
        self._backend = backend
        self._runtime = runtime
        self._request_seconds = limits.request_seconds
        # Callers above the limit wait here, in order.
        self._places = asyncio.Semaphore(limits.concurrent_requests)
        # Those with large bodies wait here first, before the rest of it is read: theirs are half
        # of the places, the other half is for who asks short and is done soon.
        self._large_places = asyncio.Semaphore(max(1, limits.concurrent_requests // 2))

    def route(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint as Starlette calls it."""

        async def answer(request: Request) -> Response:
            try:
                async with asyncio.timeout(self._request_seconds):
                    request, is_large = await _begun(request)
                    async with self._large_places if is_large else _AT_ONCE, self._places:
                        return await endpoint(await self._backend(), request)
            except TimeoutError:
                return Response(status_code=408)
            except ClientDisconnect:
                return Response(status_code=408)  # nobody is there to read it
            except Exception as error:  # noqa: BLE001 - the boundary that owns a request's failure
                return error_response(error, self._runtime)

        return answer


async def _begun(request: Request) -> tuple[Request, bool]:
    """The request once its body is here, and False; or once its body is large, and True."""
    receive = request.receive
    message = await receive()
    received = deque([message])
    size = len(message.get("body", b""))
    while message.get("more_body", False) and size <= _LARGE_BYTES:
        message = await receive()
        received.append(message)
        size += len(message.get("body", b""))

    async def replay() -> Message:
        return received.popleft() if received else await receive()

    return Request(request.scope, replay), size > _LARGE_BYTES


async def read_body(request: Request, limit: int, *, code: str = "BadJsonBody") -> bytes:
    """The whole body, as long as it is no longer than `limit` bytes.

    What is too long is still read, and dropped, up to `_DRAINED` times the limit: most clients
    look for an answer only after they have sent everything.

    Raises   BadRequest[code] when it is longer
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        else:
            parts.clear()
            if size > limit * _DRAINED:
                break
    if size > limit:
        raise BadRequest(f"The request's body is too large (maximum {limit} bytes)", code=code)
    return b"".join(parts)


async def json_body(request: Request, limits: Limits) -> dict[str, Any]:
    """The body as a JSON object.

    Raises   BadRequest[BadJsonBody] for another content type, a body that is too long, no JSON, or
             JSON that is not an object
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    if not is_json:
        raise BadRequest(
            "Expected request with `Content-Type: application/json`", code="BadJsonBody"
        )
    body = await read_body(request, limits.body_bytes)
    try:
        fields = parse_json(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"Failed to parse the request body as JSON: {error}", code="BadJsonBody"
        ) from error
    if type(fields) is not dict:
        raise BadRequest("The request body has to be a JSON object", code="BadJsonBody")
    return fields


def json_response(content: object, status: int = 200) -> Response:
    """A response of plain JSON (not of Convex values)."""
    return Response(orjson.dumps(content), status, media_type="application/json")
