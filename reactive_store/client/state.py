"""What a client of the sync protocol knows, and what it says. Pure: no socket, clock or chance.

The twin of `sync.session`, modelled on what Convex's npm client does: one query set and one list of
calls survive any number of sockets; a mutation is over only when results that contain it are here.

Invariants
- Every result held is of the same timestamp, that of the last Transition.
- A mutation that succeeded ends with the Transition that reaches its commit, never before.
- After a lost socket everything unanswered is said again, in the same order, under the same ids;
  only an action that was already sent is given up, because it may have run.

Source   behaviour of Convex's npm client 1.48 on the wire
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from reactive_store.errors import ProtocolError
from reactive_store.sync.protocol import (
    Action,
    ActionResponse,
    AddQuery,
    Arguments,
    Authenticate,
    AuthError,
    ClientMessage,
    Connect,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    RemoveQuery,
    Transition,
    TransitionChunk,
    Version,
    decode_server,
    encode_client,
)

__all__ = [
    "AuthRefused",
    "CallEnded",
    "ClientEvent",
    "ClientState",
    "ConnectionLost",
    "QueriesChanged",
    "Stopped",
]

_NOTHING = Version(0, 0, 0)


@dataclass(frozen=True, slots=True)
class QueriesChanged:
    """New results, or errors, are there for these ids."""

    query_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """Instead of a response: the socket went while the action was under way."""

    request_id: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A mutation or action is over. For a mutation that succeeded its effect is in the results."""

    request_id: int
    response: MutationResponse | ActionResponse | ConnectionLost


@dataclass(frozen=True, slots=True)
class AuthRefused:
    """The server does not accept the identity; it closes the socket."""

    error: str
    attempted: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """The server wants this client to stop for good."""

    error: str


ClientEvent: TypeAlias = QueriesChanged | CallEnded | AuthRefused | Stopped


class _Call:
    """A mutation or action that is not over."""

    __slots__ = ("is_sent", "message", "response")

    def __init__(self, message: Mutation | Action) -> None:
        self.message = message
        self.is_sent = False  # on the present socket
        # A mutation's success, while results that contain it are awaited.
        self.response: MutationResponse | None = None


class ClientState:
    """One client: its subscriptions, calls and identity, across sockets."""

    __slots__ = (
        "_calls",
        "_chunks",
        "_connection_count",
        "_identity_said",
        "_is_open",
        "_journals",
        "_last_close_reason",
        "_next_query_id",
        "_next_request_id",
        "_observed_ts",
        "_outgoing",
        "_queries",
        "_query_set",
        "_results",
        "_session_id",
        "_token",
        "_version",
    )

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id  # a UUID; what makes mutations exactly-once
        self._is_open = False
        self._connection_count = 0
        self._last_close_reason: str | None = "InitialConnect"
        self._next_query_id = 0
        self._next_request_id = 0
        # The newest commit timestamp seen anywhere; 0 before the first.
        self._observed_ts = 0
        # What is subscribed to, in order of subscribing, and what came back.
        self._queries: dict[int, AddQuery] = {}
        self._results: dict[int, QueryUpdated | QueryFailed] = {}
        self._journals: dict[int, str | None] = {}
        # In order of calling: that is the order they are sent again in.
        self._calls: dict[int, _Call] = {}
        # The identity wished for; None is anonymous.
        self._token: Authenticate | None = None
        # Of the present socket: version said, version told, pieces of a Transition.
        self._query_set = 0
        self._identity_said = 0
        self._version = _NOTHING
        self._chunks: list[TransitionChunk] = []
        self._outgoing: list[bytes] = []

    # What the user of the client does.

    def subscribe(self, path: str, args: bytes, journal: str | None = None) -> int:
        """Start a live query; its results are found under the id returned.

        Shapes   args: the encoded JSON object of the arguments
        """
        query_id = self._next_query_id
        self._next_query_id += 1
        self._queries[query_id] = AddQuery(query_id, path, Arguments(args), journal)
        self._journals[query_id] = journal
        self._say_query_change(self._queries[query_id])
        return query_id

    def unsubscribe(self, query_id: int) -> None:
        """End a live query and forget its result."""
        del self._queries[query_id]
        del self._journals[query_id]
        self._results.pop(query_id, None)
        self._say_query_change(RemoveQuery(query_id))

    def mutate(self, path: str, args: bytes) -> int:
        """Call a mutation; `CallEnded` comes with the id returned."""
        request_id = self._new_request_id()
        return self._call(Mutation(request_id, path, Arguments(args)))

    def act(self, path: str, args: bytes) -> int:
        """Call an action; `CallEnded` comes with the id returned."""
        request_id = self._new_request_id()
        return self._call(Action(request_id, path, Arguments(args)))

    def authenticate(
        self, kind: str, value: str = "", acting_as: Mapping[str, Any] | None = None
    ) -> None:
        """Be somebody else from now on: "User" with a token, "Admin" with a key, or "None"."""
        match kind:
            case "User":
                self._token = Authenticate(0, "User", value)
            case "Admin":
                self._token = Authenticate(0, "Admin", value, acting_as)
            case _:
                self._token = None
        if self._is_open:
            self._say_identity(self._identity_said)

    # What happens to its socket.

    def open(self, client_ts_ms: int | None = None) -> None:
        """A socket is open: say everything that the server has to know."""
        self._is_open = True
        self._version = _NOTHING
        self._query_set = 0
        self._identity_said = 0
        self._chunks = []
        self._outgoing = []
        self._say(
            Connect(
                self._session_id,
                self._connection_count,
                self._last_close_reason,
                self._observed_ts or None,
                client_ts_ms,
            )
        )
        self._connection_count += 1
        if self._token is not None:
            self._say_identity(0)
        self._query_set = 1
        additions = tuple(
            AddQuery(query.query_id, query.path, query.args, self._journals[query.query_id])
            for query in self._queries.values()
        )
        self._say(ModifyQuerySet(0, 1, additions))
        for call in self._calls.values():
            call.is_sent = True
            self._say(call.message)

    def lose(self, reason: str | None) -> list[ClientEvent]:
        """The socket is gone. Sent actions end here; the rest waits for the next socket."""
        self._is_open = False
        self._last_close_reason = reason
        self._outgoing = []
        ended: list[ClientEvent] = []
        for request_id, call in list(self._calls.items()):
            if call.is_sent and isinstance(call.message, Action):
                del self._calls[request_id]
                ended.append(CallEnded(request_id, ConnectionLost(request_id)))
            call.is_sent = False
        return ended

    def receive(self, text: str | bytes) -> list[ClientEvent]:
        """A frame of the server arrived.

        Raises   ProtocolError when it breaks the protocol; the socket should be closed then
        """
        return self._take(decode_server(text))

    def take_outgoing(self) -> list[bytes]:
        """Frames to send, in order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    # What is known.

    @property
    def ts(self) -> int:
        """The timestamp every result is of; 0 before the first Transition of a socket."""
        return self._version.ts

    @property
    def is_settled(self) -> bool:
        """Whether every subscription has its result and every call is over."""
        answered = self._results.keys() >= self._queries.keys()
        return answered and not self._calls and self._version.query_set == self._query_set

    def result(self, query_id: int) -> QueryUpdated | QueryFailed | None:
        """The newest result of a subscription; None before the first."""
        return self._results.get(query_id)

    def pending_calls(self) -> list[int]:
        """Ids of the calls that are not over, in order of calling."""
        return list(self._calls)

    # Speaking.

    def _say(self, message: ClientMessage) -> None:
        self._outgoing.append(encode_client(message))

    def _say_query_change(self, change: AddQuery | RemoveQuery) -> None:
        if self._is_open:
            self._query_set += 1
            self._say(ModifyQuerySet(self._query_set - 1, self._query_set, (change,)))

    def _say_identity(self, said: int) -> None:
        token = self._token
        if token is None:
            self._say(Authenticate(said, "None"))
        else:
            self._say(Authenticate(said, token.kind, token.value, token.acting_as))
        self._identity_said = said + 1

    def _new_request_id(self) -> int:
        self._next_request_id += 1
        return self._next_request_id - 1

    def _call(self, message: Mutation | Action) -> int:
        call = self._calls[message.request_id] = _Call(message)
        if self._is_open:
            call.is_sent = True
            self._say(message)
        return message.request_id

    # Listening.

    def _take(self, message: Any) -> list[ClientEvent]:
        if self._chunks and not isinstance(message, TransitionChunk):
            self._chunks = []  # a Transition in pieces that was given up
        match message:
            case Transition():
                return self._apply(message)
            case MutationResponse():
                return self._answer_mutation(message)
            case ActionResponse():
                call = self._calls.pop(message.request_id, None)
                return [] if call is None else [CallEnded(message.request_id, message)]
            case TransitionChunk():
                return self._take_chunk(message)
            case AuthError():
                return [AuthRefused(message.error, message.attempted)]
            case FatalError():
                return [Stopped(message.error)]
            case _:
                return []  # Ping

    def _answer_mutation(self, response: MutationResponse) -> list[ClientEvent]:
        call = self._calls.get(response.request_id)
        if call is None:
            return []
        if response.ts is None:
            del self._calls[response.request_id]
            return [CallEnded(response.request_id, response)]
        self._observed_ts = max(self._observed_ts, response.ts)
        call.response = response
        return []

    def _take_chunk(self, chunk: TransitionChunk) -> list[ClientEvent]:
        chunks = self._chunks
        if chunk.part_number != len(chunks) or any(
            (chunk.total_parts, chunk.transition_id) != (other.total_parts, other.transition_id)
            for other in chunks[:1]
        ):
            self._chunks = []
            raise ProtocolError("The pieces of a Transition do not belong together")
        chunks.append(chunk)
        if len(chunks) < chunk.total_parts:
            return []
        self._chunks = []
        whole = decode_server("".join(piece.chunk for piece in chunks))
        if not isinstance(whole, Transition):
            raise ProtocolError("The pieces of a Transition are something else")
        return self._apply(whole)

    def _apply(self, transition: Transition) -> list[ClientEvent]:
        if transition.start != self._version:
            raise ProtocolError(f"Invalid start version: {transition.start}, at {self._version}")
        if transition.end < transition.start or transition.end.ts < transition.start.ts:
            raise ProtocolError(f"Version goes back: {transition.start} to {transition.end}")
        self._version = transition.end
        self._observed_ts = max(self._observed_ts, transition.end.ts)
        changed = []
        for change in transition.modifications:
            query_id = change.query_id
            # A result may still come for what was unsubscribed a moment ago.
            if isinstance(change, QueryRemoved) or query_id not in self._queries:
                continue
            self._results[query_id] = change
            if change.has_journal:
                self._journals[query_id] = change.journal
            changed.append(query_id)
        events: list[ClientEvent] = [QueriesChanged(tuple(changed))] if changed else []
        for request_id, call in list(self._calls.items()):
            response = call.response
            if response is not None and response.ts is not None and response.ts <= self.ts:
                del self._calls[request_id]
                events.append(CallEnded(request_id, response))
        return events
