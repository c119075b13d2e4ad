"""What crosses the sync socket, as frozen values.

Invariants
- Values (arguments, results, error data) are encoded JSON bytes; nobody here looks inside.
- A field is None when the peer left it out or does not know it.

Source   what Convex's npm client 1.48 and PyPI client 0.8.1 send and accept on their sockets
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = [
    # client → server
    "Connect",
    "AddQuery",
    "RemoveQuery",
    "ModifyQuerySet",
    "Arguments",
    "Mutation",
    "Action",
    "Authenticate",
    "Event",
    "ClientMessage",
    # server → client
    "Version",
    "QueryUpdated",
    "QueryFailed",
    "QueryRemoved",
    "Modification",
    "Transition",
    "TransitionChunk",
    "MutationResponse",
    "ActionResponse",
    "AuthError",
    "FatalError",
    "Ping",
    "ServerMessage",
    # beside the frames
    "Close",
    "ClientVersion",
]

_CLOSE_REASON_BYTES = 123  # what the websocket protocol leaves for text in a close frame


# Client → server.


@dataclass(frozen=True, slots=True)
class Connect:
    """Who is calling. May come late, twice or never.

    Units    max_observed_ts: commit timestamp; client_ts_ms: the client's clock
    """

    session_id: str
    connection_count: int
    last_close_reason: str | None = None
    max_observed_ts: int | None = None
    client_ts_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call.

    Shapes   encoded: JSON of the single argument, keys sorted; fault: what is wrong with the list
             of arguments itself (then `encoded` is meaningless), to be reported as an error of the
             function. "{path}" in it stands for the canonical path.
    """

    encoded: bytes
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class AddQuery:
    """Subscribe. `path` is as the client spelled it."""

    query_id: int
    path: str
    args: Arguments
    journal: str | None = None
    component_path: str | None = None


@dataclass(frozen=True, slots=True)
class RemoveQuery:
    """End a subscription."""

    query_id: int


@dataclass(frozen=True, slots=True)
class ModifyQuerySet:
    """Changes of the set of subscriptions, in order."""

    base_version: int
    new_version: int
    modifications: tuple[AddQuery | RemoveQuery, ...]


@dataclass(frozen=True, slots=True)
class Mutation:
    """Run a mutation. `request_id` is shared with actions and unique in the client's session."""

    request_id: int
    path: str
    args: Arguments
    component_path: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """Run an action."""

    request_id: int
    path: str
    args: Arguments
    component_path: str | None = None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Become somebody else.

    Shapes   value: the token or admin key, "" for None; acting_as: user attributes, Admin only
    """

    base_version: int
    kind: Literal["None", "User", "Admin"]
    value: str = ""
    acting_as: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Telemetry of the client; never answered."""

    event_type: str


ClientMessage: TypeAlias = Connect | ModifyQuerySet | Mutation | Action | Authenticate | Event


# Server → client.


class Version(NamedTuple):
    """Where a client stands: what it asked for, as whom, and the time of every result it holds."""

    query_set: int
    identity: int
    ts: int


@dataclass(frozen=True, slots=True)
class QueryUpdated:
    """A new result. `value` is encoded JSON. Without `has_journal` the client keeps what it has."""

    query_id: int
    value: bytes
    log_lines: tuple[str, ...] = ()
    journal: str | None = None
    has_journal: bool = True


@dataclass(frozen=True, slots=True)
class QueryFailed:
    """The query raised. `error_data` (encoded JSON) is there for errors the app meant."""

    query_id: int
    error_message: str
    error_data: bytes | None = None
    log_lines: tuple[str, ...] = ()
    journal: str | None = None
    has_journal: bool = True


@dataclass(frozen=True, slots=True)
class QueryRemoved:
    """The subscription has ended; its id is not used again."""

    query_id: int


Modification: TypeAlias = QueryUpdated | QueryFailed | QueryRemoved


@dataclass(frozen=True, slots=True)
class Transition:
    """Every changed result of one instant.

    Units    clock_skew_ms: client clock minus server clock; server_ts_ns: server clock when sent
    """

    start: Version
    end: Version
    modifications: tuple[Modification, ...] = ()
    clock_skew_ms: int | None = None
    server_ts_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TransitionChunk:
    """A piece of a Transition's JSON text."""

    chunk: str
    part_number: int
    total_parts: int
    transition_id: str


@dataclass(frozen=True, slots=True)
class MutationResponse:
    """How a mutation ended. `result` is the encoded value, or the error's text; `ts` its commit."""

    request_id: int
    success: bool
    result: bytes | str
    ts: int | None = None
    log_lines: tuple[str, ...] = ()
    error_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class ActionResponse:
    """How an action ended. `result` is the encoded value, or the error's text."""

    request_id: int
    success: bool
    result: bytes | str
    log_lines: tuple[str, ...] = ()
    error_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class AuthError:
    """The identity was refused (`attempted`) or has ended. `base_version` is the applied one."""

    error: str
    base_version: int | None
    attempted: bool


@dataclass(frozen=True, slots=True)
class FatalError:
    """The client is at fault and has to stop for good."""

    error: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Nothing new; the socket is alive."""


ServerMessage: TypeAlias = (
    Transition | TransitionChunk | MutationResponse | ActionResponse | AuthError | FatalError | Ping
)


@dataclass(frozen=True, slots=True)
class Close:
    """End the socket with this status. The reason is cut to what a close frame can hold."""

    code: int
    reason: str = ""

    def __post_init__(self) -> None:
        encoded = self.reason.encode()
        if len(encoded) > _CLOSE_REASON_BYTES:
            cut = encoded[:_CLOSE_REASON_BYTES].decode(errors="ignore")
            object.__setattr__(self, "reason", cut)


@dataclass(frozen=True, slots=True)
class ClientVersion:
    """Which program is at the other end.

    Shapes   name: lower case ("npm", "python", …), "" when unknown; version: (major, minor, patch),
             None when it could not be read
    """

    name: str = ""
    version: tuple[int, int, int] | None = None

    @property
    def takes_chunks(self) -> bool:
        """Whether a large Transition may come in pieces."""
        return self.name == "npm" and self.version is not None and self.version >= (1, 28, 0)
