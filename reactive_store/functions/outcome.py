"""What a call of a function came to, and how a failure reads.

A `Failure` holds the developer's text: a first line and, for exceptions of the app, one line per
frame of the app's own code, with files named from the app's folder. `client_message` puts the
request id in front and hides the text where it must be hidden; the data of a ConvexError is never
hidden. Every text is valid Unicode, whatever the app raised.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reactive_store.errors import BadRequest, ConvexError, StoreError
from reactive_store.functions.metering import FunctionTimeout, Place
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
    "shown_place",
]

# The directory of this package: its frames say nothing to an app's author.
_OWN = str(Path(__file__).resolve().parent.parent) + os.sep
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


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
    error: Exception, log_lines: tuple[str, ...], limits: Limits, *, root: Path | None = None
) -> Failure:
    """What an exception that left a handler (or the checks around it) tells the caller.

    `root` is the app's folder: frames of files in it are shown, named from there; others are left
    out. Without it (an app that was not loaded from files) files are named alone.
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
        first = f"Uncaught {type(error).__name__}"
        if text := _text_of(error):
            first += f": {text}"
    lines = "\n".join((first, *_frames(error, root), ""))
    return Failure(_bounded(lines, limits.error_message_bytes), data, log_lines)


def shown_place(place: Place, root: Path | None) -> str | None:
    """`file:line` as an app's author reads it; None for code that is not the app's."""
    file = place.file
    if file.startswith((_OWN, "<")) or any(part in file for part in _LIBRARIES):
        return None
    if root is None:
        return f"{Path(file).name}:{place.line}"
    folder = f"{root}{os.sep}"
    if not file.startswith(folder):
        return None
    return f"{file[len(folder) :].replace(os.sep, '/')}:{place.line}"


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception of the app may fail at describing itself
        return ""


def _frames(error: Exception, root: Path | None) -> Iterable[str]:
    if isinstance(error, RefusedCall):
        return
    if isinstance(error, FunctionTimeout):
        places: Iterable[Place] = error.stack
    else:
        frames = traceback.walk_tb(error.__traceback__)
        places = reversed(
            [Place(frame.f_code.co_name, frame.f_code.co_filename, line) for frame, line in frames]
        )
    for place in places:
        shown = shown_place(place, root)
        if shown is not None:
            yield f"    at {place.function} ({shown})"


def _bounded(text: str, most_bytes: int) -> str:
    encoded = text.encode("utf-8", "replace")  # a text of the app may hold half a character
    if len(encoded) > most_bytes:
        return encoded[: most_bytes - 1].decode("utf-8", "ignore") + "\n"
    return encoded.decode()
