"""From an error to what an HTTP caller sees: one table of statuses, one form of body.

Every response that is not a success and has a body says `{"code": …, "message": …}`; callers
compare the code. Errors that are not ours to explain are logged under an id and shown as one
fixed text.

Source: the classes of Convex's HTTP API; its Python client reads `code` and `message` of every
refusal and fails without them
"""

from __future__ import annotations

import logging

import orjson
from starlette.responses import Response

from reactive_store.errors import (
    BadRequest,
    ConvexError,
    FilesUnavailable,
    Forbidden,
    NotFound,
    Overloaded,
    ProtocolError,
    Retry,
    StoreError,
    StoreFailed,
    Unauthenticated,
)
from reactive_store.runtime import Runtime

__all__ = ["STATUS_OF_CLASS", "STATUS_OF_CODE", "error_body", "error_response", "status_of"]

_log = logging.getLogger("reactive_store.server")

_UNEXPECTED_CODE = "InternalServerError"
_UNEXPECTED_MESSAGE = "Your request couldn't be completed. Try again later."

# By class, the most derived entry counts …
STATUS_OF_CLASS: dict[type[BaseException], int] = {
    BadRequest: 400,
    ProtocolError: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Retry: 503,
    Overloaded: 503,
    FilesUnavailable: 503,
    StoreFailed: 500,
    ConvexError: 500,  # an app's error belongs inside a function's answer; here it is a bug of ours
}
# … except for codes whose status clients rely on.
STATUS_OF_CODE: dict[str, int] = {"TooManyConcurrentRequests": 429, "FileTooLarge": 413}


def status_of(error: BaseException) -> int:
    """The HTTP status for an error; 500 for anything that has no class of its own."""
    if isinstance(error, StoreError) and error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    for cls in type(error).__mro__:
        status = STATUS_OF_CLASS.get(cls)
        if status is not None:
            return status
    return 500


def error_body(code: str, message: str) -> bytes:
    """The body that says what went wrong."""
    return orjson.dumps({"code": code, "message": message})


def error_response(error: Exception, runtime: Runtime, *, status: int | None = None) -> Response:
    """The response for an error that ended a request. Logs what the caller is not told."""
    status = status_of(error) if status is None else status
    if not isinstance(error, StoreError) or isinstance(error, ConvexError):
        incident = runtime.random_bytes(8).hex()
        _log.error("request failed incident=%s", incident, exc_info=error)
        body = error_body(_UNEXPECTED_CODE, _UNEXPECTED_MESSAGE)
    else:
        if status >= 500:
            _log.warning("request refused code=%s message=%s", error.code, error.message)
        body = error_body(error.code, error.message)
    return Response(body, status, media_type="application/json")
