"""What can go wrong, as a tree. Knows nothing else.

A class exists because some caller handles it differently; `code` (stable, CapitalCamel) says what
happened; `message` is for people and may change. Programs compare codes, never messages.

StoreError                 code, message
├─ ConvexError             thrown by the app on purpose; .data is any value; always shown in full
├─ BadRequest              the same input fails again
├─ Unauthenticated         no token, or a bad one
│  └─ AuthUpdateFailed     a running session offered a token that was refused
├─ Forbidden               known but not allowed
├─ NotFound                a resource outside functions: a file, an export, a route
├─ Retry                   try again later, nothing happened
│  ├─ Conflict             lost the race; the runner runs it again
│  ├─ OutOfRetention       too old to read; take a new timestamp
│  └─ Overloaded           a queue or limit of the server is full
├─ ProtocolError           the peer broke the sync protocol; the connection ends
├─ FilesUnavailable        the place for files is full or out of reach; the file alone is affected
└─ StoreFailed             the disk did not take a write; the node stops accepting writes

Any other exception is a bug in the app (shown in dev, redacted in production) or ours.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AuthUpdateFailed",
    "BadRequest",
    "Conflict",
    "ConvexError",
    "FilesUnavailable",
    "Forbidden",
    "NotFound",
    "OutOfRetention",
    "Overloaded",
    "ProtocolError",
    "Retry",
    "StoreError",
    "StoreFailed",
    "Unauthenticated",
]


class StoreError(Exception):
    """Something went wrong that a caller can name.

    `code` is stable and CapitalCamel; `message` is for people.
    """

    code: str = "InternalServerError"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ConvexError(StoreError):
    """An error the app raises on purpose; its data reaches the client unredacted.

    Shapes   data is any Convex value: a string, a dict, a list …
    Source   the class of the same name in Convex's libraries
    """

    code = "ConvexError"

    def __init__(self, data: Any) -> None:
        super().__init__(data if isinstance(data, str) else repr(data))
        self.data = data


class BadRequest(StoreError):
    """The same input would fail again: the caller has to change it.

    `data`, when given, is shown to clients like the data of a ConvexError (used by InvalidCursor).
    """

    code = "BadRequest"

    def __init__(self, message: str, *, code: str | None = None, data: Any = None) -> None:
        super().__init__(message, code=code)
        self.data = data


class Unauthenticated(StoreError):
    """No token, or one that cannot be accepted."""

    code = "Unauthenticated"


class AuthUpdateFailed(Unauthenticated):
    """A running session offered a token that was refused."""


class Forbidden(StoreError):
    """The caller is known and may not do this."""

    code = "Forbidden"


class NotFound(StoreError):
    """A resource outside functions does not exist."""

    code = "NotFound"


class Retry(StoreError):
    """Nothing happened; the same call may succeed later."""

    code = "Retry"


class Conflict(Retry):
    """A commit changed what this transaction had read.

    `table` and `document_id` name the first document that disagreed, when known.
    """

    code = "OptimisticConcurrencyControlFailure"

    def __init__(
        self, message: str, *, table: str | None = None, document_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.table = table
        self.document_id = document_id


class OutOfRetention(Retry):
    """The timestamp is older than what is kept."""

    code = "OutOfRetention"


class Overloaded(Retry):
    """A queue or limit of the server is full. `code` is also the close reason clients match on."""

    code = "TooManyConcurrentRequests"


class ProtocolError(StoreError):
    """The peer broke the sync protocol."""

    code = "WSMessageInvalidJson"


class FilesUnavailable(StoreError):
    """The place where files are kept is full or out of reach: this file was not stored, or read.

    No `Retry`: an app may catch it, and nothing else of the deployment is in trouble.
    """

    code = "FileStorageUnavailable"


class StoreFailed(StoreError):
    """The disk did not take a write. The node stops accepting writes until it is restarted."""

    code = "StoreFailed"
