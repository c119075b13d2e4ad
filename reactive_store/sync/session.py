"""One client's side of the conversation: its versions, queries and pending calls.

Pure and synchronous: no clock, loop or chance inside. A driver feeds it (`receive`, `invalidate`,
`complete`, `tick`), asks what to do (`next_work`) and sends what it has to say (`take_outgoing`).

Invariants
- Each Transition starts at the version where the one before it ended; versions never decrease.
- All results of a Transition, and every result not mentioned, are of its end timestamp: the
  timestamp and the set of invalid queries are taken in one step.
- At most one mutation runs, at most one Transition is computed, at any moment.
- A mutation or action runs as whoever the client was when its message arrived.
- After every response, of success or failure, a Transition follows.
- Nothing is said after a Close.

Source   Convex's sync protocol as its npm client 1.48 and PyPI client 0.8.1 rely on it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from reactive_store.auth.identity import ANONYMOUS, Caller
from reactive_store.errors import (
    BadRequest,
    Forbidden,
    ProtocolError,
    Retry,
    StoreError,
    Unauthenticated,
)
from reactive_store.functions.live_queries import LiveResult
from reactive_store.functions.names import display_path, parse_path
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.sync.frames import Moment, SharedFrame
from reactive_store.sync.messages import (
    Action,
    ActionResponse,
    AddQuery,
    Arguments,
    Authenticate,
    AuthError,
    ClientMessage,
    Close,
    Connect,
    Event,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    Ping,
    RemoveQuery,
    Version,
)
from reactive_store.sync.protocol import (
    encode_removal,
    encode_result,
    encode_server,
    encode_transition,
    split_transition,
)

__all__ = [
    "ComputeTransition",
    "OpenQuery",
    "RunAction",
    "RunMutation",
    "Session",
    "SessionStatistics",
    "Verified",
    "Verify",
    "Work",
]

_PING = encode_server(Ping())
_GOING_AWAY = Close(1000)  # the last word was said in a message
_BROKEN = Close(1011, "InternalServerError")
_EXPIRED = "Convex token identity expired"


@dataclass(frozen=True, slots=True)
class Verify:
    """Find out who the client is. Its later messages wait. Completed with `Verified`."""

    message: Authenticate


@dataclass(frozen=True, slots=True)
class Verified:
    """The answer to `Verify`. `expires_ns`: wall clock, None when it never ends."""

    caller: Caller
    expires_ns: int | None = None


@dataclass(slots=True)
class RunMutation:
    """Run a mutation. Completed with a `MutationResponse`.

    Shapes   fault: not to be run; the text of the function's error. session_id: None when the
             client never said Connect, then nothing makes it exactly-once.
    """

    request_id: int
    path: str
    args: bytes
    fault: str | None
    caller: Caller
    session_id: str | None


@dataclass(frozen=True, slots=True)
class RunAction:
    """Run an action beside everything else. Completed with an `ActionResponse`."""

    request_id: int
    path: str
    args: bytes
    fault: str | None
    caller: Caller
    session_id: str | None


@dataclass(frozen=True, slots=True)
class OpenQuery:
    """A query to be watched from now on, instead of what was watched under its id."""

    query_id: int
    path: str
    args: bytes
    fault: str | None
    journal: str | None


@dataclass(slots=True)
class ComputeTransition:
    """Bring the client to `ts`. Completed with the results of `reread` at `ts`, by query id.

    Shapes   opened: watch these as `caller` first; closed: then stop watching these
    """

    query_set: int
    identity: int
    ts: Timestamp
    caller: Caller
    opened: tuple[OpenQuery, ...]
    closed: tuple[int, ...]
    reread: tuple[int, ...]


Work: TypeAlias = Verify | RunMutation | RunAction | ComputeTransition


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """How much one session holds."""

    queries: int
    pending_mutations: int
    running_actions: int
    unsent_transitions: int
    waiting_messages: int


class _Query:
    """One live query of the client."""

    __slots__ = ("args", "fault", "fingerprint", "journal", "path")

    def __init__(self, path: str, args: bytes, fault: str | None, journal: str | None) -> None:
        self.path = path
        self.args = args
        self.fault = fault
        # Of the last result, or what the client brought along. Given to the next opening.
        self.journal = journal
        # Of the last result the client was told; None until the first.
        self.fingerprint: bytes | None = None


class Session:
    """The state of one socket.

    `latest_ts` gives the newest timestamp that can be read; it must not decrease. Times passed in:
    `now_ns` is the wall clock (Unix nanoseconds), `now_s` a clock that only runs forward.
    """

    __slots__ = (
        "_actions_running",
        "_actions_waiting",
        "_applied",
        "_caller",
        "_changes",
        "_clock_skew_ms",
        "_computing",
        "_declared",
        "_expires_ns",
        "_heard_s",
        "_identity",
        "_inbox",
        "_invalid",
        "_is_closed",
        "_is_due",
        "_is_paused",
        "_latest_ts",
        "_limits",
        "_mutation_running",
        "_mutation_seen",
        "_mutations_waiting",
        "_outgoing",
        "_queries",
        "_query_set",
        "_removed",
        "_session_id",
        "_spoke_s",
        "_takes_chunks",
        "_unsent",
        "_unsent_answers",
        "_verify",
        "_verify_started",
    )

    def __init__(
        self,
        limits: Limits,
        latest_ts: Callable[[], Timestamp],
        now_s: float,
        *,
        takes_chunks: bool = False,
    ) -> None:
        self._limits = limits
        self._latest_ts = latest_ts
        self._takes_chunks = takes_chunks
        # Set once, by anything that ends the conversation. Then every input is ignored.
        self._is_closed = False
        # Frames and at most one Close, which is the last. Emptied by `take_outgoing`.
        self._outgoing: list[bytes | Close] = []
        # Transitions, and answers to calls, said since the transport was last known to be drained.
        self._unsent = self._unsent_answers = 0
        # When the last frame was taken; when the peer was last heard. None: silence is not judged,
        # because the transport does not report pongs.
        self._spoke_s = now_s
        self._heard_s: float | None = None

        # Connect: overwritten by the next one; both None until the first.
        self._session_id: str | None = None
        self._clock_skew_ms: int | None = None

        # Versions. Received run ahead of applied while a Transition is owed.
        self._applied = Version(0, 0, 0)  # end of the last Transition said
        self._query_set = 0
        self._identity = 0

        # Who the client is now. Replaced when a Verify is completed or at once for None.
        self._caller = ANONYMOUS
        self._expires_ns: int | None = None
        # The Authenticate under way, whether the driver has it, and what came after it. The inbox
        # is empty whenever `_verify` is None.
        self._verify: Verify | None = None
        self._verify_started = False
        self._inbox: list[tuple[ClientMessage, int]] = []

        # Query set: ids the client believes in, changes no Transition has taken yet, the queries of
        # the changes taken, removals taken but not said, and what is known to be stale. A fresh
        # query is stale; an id in `_invalid` is always in `_queries`.
        self._declared: set[int] = set()
        self._changes: list[AddQuery | RemoveQuery] = []
        self._queries: dict[int, _Query] = {}
        self._removed: set[int] = set()
        self._invalid: set[int] = set()
        # A Transition is owed, even an empty one. Cleared when one is begun.
        self._is_due = False
        self._is_paused = False  # the driver asked for time after a Retry; cleared by `resume`
        self._computing: ComputeTransition | None = None

        # Calls. Waiting ones are handed out in order, mutations one at a time. Lists, as the inbox:
        # they are short, and nearly always empty, when a deque would hold ten times the memory.
        self._mutations_waiting: list[RunMutation] = []
        self._mutation_running: RunMutation | None = None
        self._mutation_seen: tuple[RunMutation, float] | None = None  # by `tick`, and when
        self._actions_waiting: list[RunAction] = []
        self._actions_running = 0

    # What comes in.

    def receive(self, message: ClientMessage, now_ns: int, now_s: float) -> None:
        """Take a message of the client."""
        if self._is_closed:
            return
        if self._heard_s is not None:
            self._heard_s = now_s
        if self._verify is None:
            self._handlers[type(message)](self, message, now_ns)
        elif len(self._inbox) < self._limits.pending_mutations:
            self._inbox.append((message, now_ns))
        else:
            self._end(Close(1013, "TooManyConcurrentRequests"))

    def hear(self, now_s: float) -> None:
        """The peer's socket is alive (a pong, say). From the first call on, silence is judged."""
        self._heard_s = now_s

    def invalidate(self, query_id: int) -> bool:
        """The last result of a query may have changed; is there work? Unknown ids do no harm."""
        if query_id in self._queries:
            self._invalid.add(query_id)
            self._is_due = True
        return self._may_compute()

    def drained(self) -> None:
        """Everything said so far has left the process."""
        self._unsent = self._unsent_answers = 0

    def resume(self) -> None:
        """Transitions may be computed again after one was completed with a Retry."""
        self._is_paused = False

    def disconnect(self) -> None:
        """The socket is gone: forget what waits. Work under way may still be completed."""
        self._is_closed = True
        self._forget()

    def tick(self, now_s: float) -> None:
        """Time has passed: say Ping, or end what has been silent or slow for too long."""
        if self._is_closed:
            return
        limits = self._limits
        if self._heard_s is not None and now_s - self._heard_s > limits.silence_seconds:
            self._end(Close(1000, "ClientDisconnected"))
            return
        running = self._mutation_running
        if running is not None:
            if self._mutation_seen is None or self._mutation_seen[0] is not running:
                self._mutation_seen = running, now_s
            elif now_s - self._mutation_seen[1] > limits.mutation_seconds:
                self._end(_BROKEN)
                return
        if now_s - self._spoke_s >= limits.ping_seconds:
            self._outgoing.append(_PING)

    def fail(self, error: Exception) -> None:
        """End the conversation because of `error`, as its class demands."""
        if self._is_closed:
            return
        match error:
            case ProtocolError():
                self._say_last(encode_server(FatalError(error.message)), _GOING_AWAY)
            case Unauthenticated():
                self._refuse(error.message, attempted=False)
            case Retry():
                self._end(Close(1013, error.code))
            case _:
                self._end(_BROKEN)

    # What goes out.

    def take_outgoing(self, now_s: float) -> Sequence[bytes | Close]:
        """Frames to send now, in order. A Close comes last and only once."""
        outgoing = self._outgoing
        if not outgoing:
            return ()
        self._outgoing = []
        self._spoke_s = now_s
        return outgoing

    @property
    def has_outgoing(self) -> bool:
        """Whether `take_outgoing` would give something."""
        return bool(self._outgoing)

    # What is to be done.

    @property
    def is_closed(self) -> bool:
        """Whether the conversation has ended."""
        return self._is_closed

    @property
    def has_work(self) -> bool:
        """Whether `next_work` would give something."""
        if self._is_closed:
            return False
        return (
            (self._verify is not None and not self._verify_started)
            or self._may_call()
            or self._may_compute()
        )

    def next_work(self, now_ns: int) -> Work | None:
        """One thing to do; None when there is nothing to start now.

        What was given out is under way until `complete`; meanwhile there may be other work.
        """
        if self._is_closed:
            return None
        if self._verify is not None and not self._verify_started:
            self._verify_started = True
            return self._verify
        if self._may_call():
            if self._mutation_running is None and self._mutations_waiting:
                self._mutation_running = self._mutations_waiting.pop(0)
                return self._mutation_running
            self._actions_running += 1
            return self._actions_waiting.pop(0)
        return self._begin_transition(now_ns) if self._may_compute() else None

    def _may_call(self) -> bool:
        return self._unsent_answers < self._limits.unsent_answers and bool(
            self._actions_waiting or (self._mutation_running is None and self._mutations_waiting)
        )

    def begin_push(self, now_ns: int) -> ComputeTransition | None:
        """`next_work` for the most frequent case, in fewer steps: one stale query, nothing else.

        None: it is not that case, or the Transition may not be computed now.
        """
        applied = self._applied
        if (
            len(self._invalid) != 1  # as when closed
            or self._changes
            or self._removed
            or self._mutations_waiting
            or self._actions_waiting
            or self._verify is not None
            or (self._expires_ns is not None and now_ns >= self._expires_ns)
            or not self._is_due  # from here on as in `_may_compute`
            or self._computing is not None
            or self._is_paused
            or self._unsent >= self._limits.unsent_transitions
            or self._identity != applied.identity
            or self._query_set != applied.query_set
        ):
            return None
        self._is_due = False
        work = self._computing = ComputeTransition(
            applied.query_set,
            applied.identity,
            self._latest_ts(),
            self._caller,
            (),
            (),
            (self._invalid.pop(),),
        )
        return work

    def push(
        self, work: ComputeTransition, result: LiveResult, moment: Moment
    ) -> SharedFrame | None:
        """`complete` for what `begin_push` gave. The frame is the caller's to send, now; nothing is
        left to do. None: the Transition was said as usual, and waits for `take_outgoing`.
        """
        query_id = work.reread[0]
        query = self._queries.get(query_id)
        if (
            query is None
            or query.fingerprint == result.fingerprint
            or self._outgoing
            or (self._takes_chunks and len(result.modification) > self._limits.chunk_bytes // 2)
        ):
            self.complete(work, {query_id: result}, moment.now_ns)
            return None
        self._computing = None
        query.journal = result.journal
        query.fingerprint = result.fingerprint
        start, self._unsent, self._spoke_s = self._applied, self._unsent + 1, moment.now_s
        end = self._applied = Version(work.query_set, work.identity, work.ts)
        return moment.transition(start, end, query_id, result, self._clock_skew_ms)

    def complete(self, work: Work, result: Any, now_ns: int) -> None:
        """Report how a piece of work ended: with what it asks for, or with the exception raised."""
        match work:
            case ComputeTransition():
                self._computing = None
            case RunMutation():
                self._mutation_running = None
            case RunAction():
                self._actions_running -= 1
            case Verify():
                self._verify = None
        if self._is_closed:
            return
        if isinstance(result, Exception):
            self._complete_badly(work, result)
        elif isinstance(work, ComputeTransition):
            self._say_transition(work, result, now_ns)
        elif isinstance(work, Verify):
            self._become(result)
            self._handle_inbox()
        else:
            response: MutationResponse | ActionResponse = result
            self._outgoing.append(encode_server(response))
            self._unsent_answers += 1
            self._is_due = True

    def statistics(self) -> SessionStatistics:
        """What the session holds right now."""
        return SessionStatistics(
            queries=len(self._declared),
            pending_mutations=self._pending_mutations(),
            running_actions=self._actions_running + len(self._actions_waiting),
            unsent_transitions=self._unsent,
            waiting_messages=len(self._inbox),
        )

    def check(self) -> None:
        """Assert the invariants; for tests."""
        assert self._invalid <= self._queries.keys()
        assert not self._removed & self._queries.keys()
        assert self._applied.query_set <= self._query_set
        assert self._applied.identity <= self._identity
        assert self._applied.ts <= self._latest_ts()
        assert self._verify is not None or not self._inbox
        assert all(type(item) is bytes for item in self._outgoing[:-1])
        assert 0 <= self._actions_running <= self._limits.running_actions
        assert self._pending_mutations() <= self._limits.pending_mutations
        if self._is_closed:
            assert not self._queries
            assert not self._mutations_waiting
            return
        expected = set(self._queries)
        for change in self._changes:
            if isinstance(change, AddQuery):
                assert change.query_id not in expected
                expected.add(change.query_id)
            else:
                expected.remove(change.query_id)
        assert expected == self._declared
        told = [q for q, query in self._queries.items() if query.fingerprint is None]
        rereading = set(self._computing.reread) if self._computing is not None else set()
        assert set(told) <= self._invalid | rereading
        if self._changes or self._invalid or self._identity != self._applied.identity:
            assert self._is_due or self._computing is not None

    # Messages.

    def _on_connect(self, message: Connect, now_ns: int) -> None:
        if message.max_observed_ts is not None and message.max_observed_ts > self._latest_ts():
            # The client has seen a future that this store does not know.
            self._end(_BROKEN)
            return
        self._session_id = message.session_id
        if message.client_ts_ms is not None:
            self._clock_skew_ms = message.client_ts_ms - now_ns // 1_000_000

    def _on_modify_query_set(self, message: ModifyQuerySet, _now_ns: int) -> None:
        if message.base_version != self._query_set:
            self.fail(
                ProtocolError(
                    f"Base version {message.base_version} passed up doesn't match "
                    f"the current version {self._query_set}"
                )
            )
            return
        if message.new_version <= message.base_version:
            self._end(_BROKEN)
            return
        self._query_set = message.new_version
        for change in message.modifications:
            known = change.query_id in self._declared
            if known == isinstance(change, AddQuery):  # added twice, or removed without being there
                self._end(_BROKEN)
                return
            if isinstance(change, RemoveQuery):
                self._declared.discard(change.query_id)
                self._changes.append(change)
                continue
            place = self._place(change.path, change.args, change.component_path)
            if place is None:
                return
            path, fault = place
            self._declared.add(change.query_id)
            self._changes.append(
                AddQuery(
                    change.query_id, path, Arguments(change.args.encoded, fault), change.journal
                )
            )
        self._is_due = True
        if max(len(self._declared), len(self._changes) // 2) > self._limits.session_queries:
            self._end(Close(1013, "TooManyQueries"))

    def _on_mutation(self, message: Mutation, now_ns: int) -> None:
        if self._is_expired(now_ns):
            return
        place = self._place(message.path, message.args, message.component_path)
        if place is None:
            return
        if self._pending_mutations() >= self._limits.pending_mutations:
            self._end(Close(1013, "TooManyConcurrentMutations"))
            return
        path, fault = place
        self._mutations_waiting.append(
            RunMutation(
                message.request_id,
                path,
                message.args.encoded,
                fault,
                self._caller,
                self._session_id,
            )
        )

    def _on_action(self, message: Action, now_ns: int) -> None:
        if self._is_expired(now_ns):
            return
        place = self._place(message.path, message.args, message.component_path)
        if place is None:
            return
        if self._actions_running + len(self._actions_waiting) >= self._limits.running_actions:
            self._end(Close(1013, "TooManyInflightActionsForSingleClient"))
            return
        path, fault = place
        self._actions_waiting.append(
            RunAction(
                message.request_id,
                path,
                message.args.encoded,
                fault,
                self._caller,
                self._session_id,
            )
        )

    def _on_authenticate(self, message: Authenticate, _now_ns: int) -> None:
        if message.base_version != self._identity:
            self._end(_BROKEN)
        elif message.kind == "None":
            self._become(Verified(ANONYMOUS))
        else:
            self._verify = Verify(message)
            self._verify_started = False

    def _on_event(self, _message: Event, _now_ns: int) -> None:
        """Telemetry; nobody is waiting for an answer."""

    _handlers: ClassVar[Mapping[type, Callable[[Session, Any, int], None]]] = {
        Connect: _on_connect,
        ModifyQuerySet: _on_modify_query_set,
        Mutation: _on_mutation,
        Action: _on_action,
        Authenticate: _on_authenticate,
        Event: _on_event,
    }

    def _handle_inbox(self) -> None:
        while self._inbox and self._verify is None and not self._is_closed:
            message, now_ns = self._inbox.pop(0)
            self._handlers[type(message)](self, message, now_ns)

    def _place(
        self, path: str, args: Arguments, component: str | None
    ) -> tuple[str, str | None] | None:
        """The canonical path and what makes the call a function error; None: it ended the session.

        There is only the root component, "", and naming it is for administrators.
        """
        if component is not None and not self._caller.is_admin:
            self._end(_BROKEN)
            return None
        try:
            canonical = parse_path(path)
        except BadRequest as error:
            self.fail(ProtocolError(f"Received Invalid JSON on websocket: {error.message}"))
            return None
        if component:
            shown = display_path(canonical)
            return canonical, f"Could not find function for '{shown}' in component '{component}'."
        fault = args.fault
        return canonical, fault and fault.replace("{path}", canonical)

    # Identity.

    def _become(self, verified: Verified) -> None:
        self._caller = verified.caller
        self._expires_ns = verified.expires_ns
        self._identity += 1
        self._is_due = True

    def _is_expired(self, now_ns: int) -> bool:
        """Whether the identity has ended; if so, the client is told and the session is over."""
        if self._expires_ns is None or now_ns < self._expires_ns:
            return False
        self._refuse(_EXPIRED, attempted=False)
        return True

    def _refuse(self, text: str, *, attempted: bool) -> None:
        frame = encode_server(AuthError(text, self._applied.identity, attempted))
        self._say_last(frame, _GOING_AWAY)

    # Transitions.

    def _may_compute(self) -> bool:
        return (
            self._is_due
            and self._computing is None
            and not self._is_paused
            and self._unsent < self._limits.unsent_transitions
        )

    def _begin_transition(self, now_ns: int) -> ComputeTransition | None:
        if self._is_expired(now_ns):
            return None
        queries = self._queries
        opened: set[int] = set()
        for change in self._changes:
            query_id = change.query_id
            if isinstance(change, AddQuery):
                args = change.args
                queries[query_id] = _Query(change.path, args.encoded, args.fault, change.journal)
                opened.add(query_id)
                self._removed.discard(query_id)
            else:
                del queries[query_id]
                opened.discard(query_id)
                self._invalid.discard(query_id)
                self._removed.add(query_id)
        self._changes.clear()
        if self._identity != self._applied.identity:
            opened.update(queries)
        reread = sorted(self._invalid | opened)
        self._invalid.clear()
        self._is_due = False
        self._computing = ComputeTransition(
            query_set=self._query_set,
            identity=self._identity,
            ts=self._latest_ts(),
            caller=self._caller,
            opened=tuple(self._opening(query_id) for query_id in sorted(opened)),
            closed=tuple(self._removed),
            reread=tuple(reread),
        )
        return self._computing

    def _opening(self, query_id: int) -> OpenQuery:
        query = self._queries[query_id]
        return OpenQuery(query_id, query.path, query.args, query.fault, query.journal)

    def _say_transition(
        self, work: ComputeTransition, results: Mapping[int, LiveResult], now_ns: int
    ) -> None:
        changed = {query_id: encode_removal(query_id) for query_id in self._removed}
        self._removed.clear()
        for query_id, result in results.items():
            query = self._queries[query_id]
            query.journal = result.journal
            if query.fingerprint != result.fingerprint:
                query.fingerprint = result.fingerprint
                changed[query_id] = encode_result(
                    query_id, failed=result.failed, body=result.modification
                )
        end = Version(work.query_set, work.identity, work.ts)
        frame = encode_transition(
            self._applied,
            end,
            [changed[query_id] for query_id in sorted(changed)],
            self._clock_skew_ms,
            now_ns,
        )
        self._applied = end
        self._unsent += 1
        if self._takes_chunks and len(frame) > self._limits.chunk_bytes:
            self._outgoing.extend(split_transition(frame, self._limits.chunk_bytes))
        else:
            self._outgoing.append(frame)

    def _complete_badly(self, work: Work, error: Exception) -> None:
        if isinstance(work, Verify) and isinstance(error, Unauthenticated | Forbidden | BadRequest):
            self._refuse(error.message, attempted=True)
        elif isinstance(work, ComputeTransition) and isinstance(error, Retry):
            # Nothing was said, so everything is still owed. A new timestamp is taken then.
            self._invalid.update(work.reread)
            self._is_due = True
            self._is_paused = True
        else:
            self.fail(error if isinstance(error, StoreError) else RuntimeError("unexpected"))

    # The end.

    def _pending_mutations(self) -> int:
        return len(self._mutations_waiting) + (self._mutation_running is not None)

    def _say_last(self, frame: bytes, close: Close) -> None:
        self._outgoing.append(frame)
        self._end(close)

    def _end(self, close: Close) -> None:
        self._is_closed = True
        self._outgoing.append(close)
        self._forget()

    def _forget(self) -> None:
        self._mutations_waiting.clear()
        self._actions_waiting.clear()
        self._inbox.clear()
        self._changes.clear()
        self._declared.clear()
        self._queries.clear()
        self._removed.clear()
        self._invalid.clear()
