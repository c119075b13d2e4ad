"""What a call of a function came to, and how a failure reads.

A `Failure` holds the developer's text: a first line and, for exceptions of the app, one line per
frame of the app's own code. `client_message` puts the request id in front and hides the text where
it must be hidden; the data of a ConvexError is never hidden.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from types import TracebackType

from reactive_store.errors import BadRequest, ConvexError, StoreError
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.values.wire import dumps, error_data_message

__all__ = [
    "Failure",
    "Outcome",
    "RefusedCall",
    "Success",
    "client_message",
    "failure_of",
]


@dataclass(frozen=True, slots=True)
class Success:
    """The function returned."""

    value: bytes  # encoded JSON
    log_lines: tuple[str, ...]
    ts: Timestamp | None = None  # a mutation's commit, a query's snapshot
    journal: str | None = None  # where the page ended, for a paginated query


@dataclass(frozen=True, slots=True)
class Failure:
    """The function raised, or could not be called."""

    message: str  # every line newline-terminated
    data: bytes | None  # encoded JSON of a ConvexError's data; None: not an application error
    log_lines: tuple[str, ...]
    journal: str | None = None


Outcome = Success | Failure


class RefusedCall(BadRequest):
    """The call itself is wrong: unknown function, wrong kind, wrong arguments. Shown as it is."""

    code = "RefusedCall"


def client_message(failure: Failure, request_id: str, *, redact: bool) -> str:
    """The text clients get: `[Request ID: …] Server Error` and, unless redacted, the message."""
    head = f"[Request ID: {request_id}] Server Error"
    return head if redact else f"{head}\n{failure.message}"


def failure_of(
    error: Exception, log_lines: tuple[str, ...], limits: Limits, *, own_package: str
) -> Failure:
    """What an exception that left a handler (or the checks around it) tells the caller.

    `own_package` is the directory whose frames are ours, not the app's, and are left out.
    """
    data: bytes | None = None
    if isinstance(error, ConvexError):
        try:
            data = dumps(error.data)
            first = f"Uncaught ConvexError: {error_data_message(error.data)}"
        except BadRequest as invalid:
            data = None
            first = f"ConvexError with invalid data: {invalid.message}"
    elif isinstance(error, RefusedCall):
        first = error.message
    elif isinstance(error, StoreError):
        if isinstance(error, BadRequest) and error.data is not None:
            data = dumps(error.data)
        first = f"Uncaught Error: {error.message}"
    else:
        text = str(error)
        name = type(error).__name__
        first = f"Uncaught {name}: {text}" if text else f"Uncaught {name}"
    frames = () if isinstance(error, RefusedCall) else _frames(error.__traceback__, own_package)
    message = "\n".join((first, *frames, ""))
    encoded = message.encode("utf-8", "replace")
    if len(encoded) > limits.error_message_bytes:
        message = encoded[: limits.error_message_bytes].decode("utf-8", "ignore")
    return Failure(message, data, log_lines)


def _frames(trace: TracebackType | None, own_package: str) -> tuple[str, ...]:
    return tuple(
        f"    at {frame.name} ({frame.filename}:{frame.lineno})"
        for frame in reversed(traceback.extract_tb(trace))
        if not frame.filename.startswith(own_package) and not frame.filename.startswith("<")
    )
