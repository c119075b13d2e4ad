"""A worker between a transport that remembers and a scripted store, runner and live queries."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS, Caller
from reactive_store.errors import Conflict, OutOfRetention, Overloaded, StoreFailed, Unauthenticated
from reactive_store.functions.live_queries import LiveResult
from reactive_store.functions.outcome import Failure, Outcome, Success
from reactive_store.functions.runner import Accepted, SessionRequest
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.runtime import SystemRuntime
from reactive_store.sync.frames import SharedFrame
from reactive_store.sync.messages import (
    Action,
    ActionResponse,
    AddQuery,
    Arguments,
    Authenticate,
    AuthError,
    ClientMessage,
    ClientVersion,
    Connect,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    Ping,
    QueryFailed,
    QueryUpdated,
    RemoveQuery,
    ServerMessage,
    Transition,
    TransitionChunk,
)
from reactive_store.sync.protocol import decode_server, encode_client
from reactive_store.sync.worker import Pump, Worker

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
NO_ARGS = Arguments(b"{}")
ADMIN = Caller(None, is_admin=True)


class Clock(SystemRuntime):
    """The real loop under a clock that is set by hand; sleeping waits for `wake`."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.naps: list[tuple[float, asyncio.Future[None]]] = []
        self.tasks = 0

    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        nap = asyncio.get_running_loop().create_future()
        self.naps.append((seconds, nap))
        await nap

    def wake(self) -> float:
        seconds, nap = self.naps.pop(0)
        nap.set_result(None)
        return seconds

    def spawn(self, work: Any, *, name: str) -> asyncio.Task[None]:
        self.tasks += 1
        return super().spawn(work, name=name)


class Line:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.is_writable = True
        self.sent: list[bytes] = []
        self.together: list[int] = []  # how many frames left in each common write
        self.shared: list[SharedFrame] = []
        self.closed: tuple[int, str] | None = None

    def send(self, frame: bytes) -> None:
        assert self.closed is None
        self.sent.append(frame)

    def send_all(self, frames: Sequence[bytes]) -> None:
        assert self.closed is None
        self.together.append(len(frames))
        self.sent += frames

    def send_shared(self, frame: SharedFrame) -> None:
        self.shared.append(frame)
        self.send(frame.text)

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None
        self.closed = (code, reason)

    def take(self) -> list[ServerMessage]:
        sent, self.sent = self.sent, []
        return [decode_server(frame) for frame in sent]


class Store:
    """A counter with its versions, its live queries, and a runner that adds to it.

    A query named `m.js:slow` waits for `gate`; mutations wait for `commit_gate` when there is one.
    """

    def __init__(self) -> None:
        self.versions = [(Timestamp(100), 0)]
        self.watches: list[Counted] = []
        self.faults: list[Exception] = []  # raised by the next calls, in order
        self.calls: list[tuple[Any, ...]] = []
        self.gate: asyncio.Future[None] | None = None
        self.commit_gate: asyncio.Future[None] | None = None
        self.outcome: Outcome | None = None
        self.reads = 0

    @property
    def latest_ts(self) -> Timestamp:
        return self.versions[-1][0]

    def at(self, ts: int) -> int:
        return [value for version, value in self.versions if version <= ts][-1]

    def commit(self) -> Timestamp:
        self.versions.append((Timestamp(self.latest_ts + 1), self.versions[-1][1] + 1))
        for watch in list(self.watches):
            watch.touch()
        return self.latest_ts

    # LiveQueries.

    def watch(
        self,
        path: str,
        args: bytes,
        caller: Caller,
        journal: str | None,
        on_invalid: Callable[[], None],
    ) -> Counted:
        watch = Counted(self, path, caller, on_invalid)
        self.watches.append(watch)
        return watch

    # Runner.

    async def accept_mutation(
        self, path: str, args: bytes, caller: Caller, *, session: SessionRequest | None = None
    ) -> Accepted:
        self.calls.append(("mutation", path, args, caller, session))
        if self.faults:
            raise self.faults.pop(0)
        if self.outcome is not None:
            return Accepted(self.outcome, self.latest_ts)
        if self.commit_gate is not None:
            await self.commit_gate
        ts = self.commit()
        return Accepted(Success(b"%d.0" % self.at(ts), ("[LOG] 'added'",), ts), ts)

    def when_durable(self, _ts: int, told: Callable[[None], None]) -> None:
        told(None)

    async def action(self, path: str, args: bytes, caller: Caller) -> Outcome:
        self.calls.append(("action", path, args, caller))
        if self.faults:
            raise self.faults.pop(0)
        if path.endswith("slow"):
            assert self.gate is not None
            await self.gate
        return self.outcome or Success(b"null", ("[LOG] 'acted'",))

    # Authenticator.

    async def authenticate(self, token: str) -> Caller:
        if self.gate is not None:
            await self.gate
        raise Unauthenticated(f"no {token}")

    def admin(self, key: str, acting_as: object) -> Caller:
        if self.faults:
            raise self.faults.pop(0)
        assert key == "key"
        return ADMIN


class Counted:
    """A watch of the counter."""

    def __init__(
        self, store: Store, path: str, caller: Caller, on_invalid: Callable[[], None]
    ) -> None:
        self.store = store
        self.path = path
        self.caller = caller
        self.on_invalid = on_invalid
        self.is_armed = False
        self.shared: LiveResult | None = None  # given instead of an answer of its own

    def ready(self, at: Timestamp) -> None:
        pass  # nothing is at hand

    async def result(self, at: Timestamp) -> LiveResult:
        store = self.store
        assert self in store.watches, "read after it was closed"
        store.reads += 1
        if self.path.endswith("slow") and store.gate is not None:
            await store.gate
        if store.faults:
            raise store.faults.pop(0)
        value = store.at(at)
        self.is_armed = True
        if store.latest_ts > at:
            self.touch()
        if self.shared is not None:
            return self.shared
        body = b'"value":%d.0,"logLines":[],"journal":null}' % value
        return LiveResult(body, False, b"%d" % value, None)

    def touch(self) -> None:
        if self.is_armed:
            self.is_armed = False
            self.on_invalid()

    def close(self) -> None:
        self.store.watches.remove(self)


class Bench:
    """One worker with everything around it."""

    def __init__(
        self,
        *,
        store: Store | None = None,
        pump: Pump | None = None,
        redact: bool = False,
        client: ClientVersion | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.store = Store() if store is None else store
        self.clock = Clock()
        self.line = Line()
        fake: Any = self.store
        self.worker = Worker(
            fake,
            fake,
            fake,
            fake,
            self.clock,
            limits or Limits(),
            self.line,
            client or ClientVersion("npm", (1, 48, 0)),
            redact,
            pump,
        )

    def say(self, *messages: ClientMessage) -> None:
        for message in messages:
            self.worker.receive(encode_client(message))

    async def hear(self, *messages: ClientMessage) -> list[ServerMessage]:
        self.say(*messages)
        await settled()
        return self.line.take()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def query_set(base: int, *changes: AddQuery | RemoveQuery) -> ModifyQuerySet:
    return ModifyQuerySet(base, base + 1, changes)


def add(query_id: int, path: str = "m:q", args: Arguments = NO_ARGS) -> AddQuery:
    return AddQuery(query_id, path, args)


def values(transition: ServerMessage) -> dict[int, bytes]:
    assert isinstance(transition, Transition)
    return {
        change.query_id: change.value
        for change in transition.modifications
        if isinstance(change, QueryUpdated)
    }


CONNECT = Connect(SESSION, 0)
MUTATION = Mutation(0, "m:x", NO_ARGS)
NINE = LiveResult(b'"value":9.0,"logLines":[],"journal":null}', False, b"9", None)


async def test_a_subscription_is_answered_and_kept_current():
    bench = Bench()
    (first,) = await bench.hear(CONNECT, query_set(0, add(0)))
    assert values(first) == {0: b"0.0"}
    bench.store.commit()
    await settled()
    (second,) = bench.line.take()
    assert values(second) == {0: b"1.0"}
    assert isinstance(first, Transition)
    assert isinstance(second, Transition)
    assert second.start == first.end


async def test_a_response_comes_before_the_transition_that_reflects_it():  # F115
    bench = Bench()
    await bench.hear(CONNECT, query_set(0, add(0)))
    response, transition = await bench.hear(MUTATION)
    assert response == MutationResponse(0, True, b"1.0", 101, ("[LOG] 'added'",))
    assert values(transition) == {0: b"1.0"}


async def test_a_response_and_the_transition_that_reflects_it_leave_in_one_write():
    bench = Bench()
    await bench.hear(CONNECT, query_set(0, add(0)))
    await bench.hear(MUTATION)
    assert bench.line.together == [2]


async def test_a_response_does_not_wait_for_a_query_that_takes_long():
    bench = Bench()
    await bench.hear(CONNECT, query_set(0, add(0, "m:slow")))
    bench.store.gate = asyncio.get_running_loop().create_future()
    (response,) = await bench.hear(MUTATION)
    assert isinstance(response, MutationResponse)
    bench.store.gate.set_result(None)
    await settled()
    (transition,) = bench.line.take()
    assert values(transition) == {0: b"1.0"}


async def test_watchers_of_one_result_are_sent_one_frame_and_a_late_one_has_its_own_clock():
    store, pump = Store(), Pump(SystemRuntime())
    benches = [Bench(store=store, pump=pump) for _ in range(3)]
    for bench in benches:
        await bench.hear(CONNECT, query_set(0, add(0)))
    slow = Bench(store=store, pump=pump)
    await slow.hear(CONNECT, query_set(0, add(0, "m:slow")))
    for watch in store.watches:
        watch.shared = NINE
    store.gate = asyncio.get_running_loop().create_future()
    store.commit()
    await settled()
    assert len({frame for bench in benches for frame in bench.line.shared}) == 1
    assert slow.line.shared == []
    slow.clock.now_s = 77.0
    store.gate.set_result(None)
    await settled()
    (late,) = slow.line.take()
    assert isinstance(late, Transition)
    assert late.server_ts_ns == 77_000_000_000


async def test_the_response_comes_first_when_the_commit_is_waited_for():
    bench = Bench()
    await bench.hear(CONNECT, query_set(0, add(0)))
    bench.store.commit_gate = asyncio.get_running_loop().create_future()
    assert await bench.hear(MUTATION) == []
    # A commit is published: watches are told, and whoever waited for it is woken.
    bench.store.commit_gate.set_result(None)
    bench.store.commit()
    await settled()
    heard = bench.line.take()
    assert [type(message) for message in heard][:2] == [MutationResponse, Transition]


async def test_somebody_elses_mutation_does_not_overtake_a_response():
    store = Store()
    pump = Pump(SystemRuntime())
    one, two = Bench(store=store, pump=pump), Bench(store=store, pump=pump)
    await one.hear(CONNECT, query_set(0, add(0)))
    await two.hear(query_set(0, add(0)))
    heard_one, heard_two = await one.hear(MUTATION), two.line.take()
    assert [type(message) for message in heard_one] == [MutationResponse, Transition]
    assert [values(message) for message in heard_two] == [{0: b"1.0"}]


async def test_pipelined_mutations_run_in_order_and_one_may_fail():
    bench = Bench()
    bench.say(CONNECT)
    heard = await bench.hear(*[Mutation(n, "m:x", NO_ARGS) for n in range(3)])
    assert [m.request_id for m in heard if isinstance(m, MutationResponse)] == [0, 1, 2]
    bench.store.outcome = Failure("Uncaught Error: bad\n", None, ())
    heard = await bench.hear(Mutation(3, "m:x", NO_ARGS))
    assert isinstance(heard[-1], Transition)
    bench.store.outcome = None
    response, *_ = await bench.hear(Mutation(4, "m:x", NO_ARGS))
    assert isinstance(response, MutationResponse)
    assert response.success


async def test_mutations_are_exactly_once_only_with_a_session():
    bench = Bench()
    await bench.hear(MUTATION)
    await bench.hear(CONNECT, Mutation(7, "m", Arguments(b'{"a":1.0}')))
    assert bench.store.calls == [
        ("mutation", "m.js:x", b"{}", ANONYMOUS, None),
        ("mutation", "m.js:default", b'{"a":1.0}', ANONYMOUS, SessionRequest(SESSION, 7)),
    ]


async def test_an_error_names_its_request_and_keeps_its_data():
    bench = Bench()
    bench.store.outcome = Failure("Uncaught ConvexError: x\n", b'"x"', ("[LOG] 'a'",))
    mutation, _, action, _ = [
        *(await bench.hear(CONNECT, MUTATION)),
        *(await bench.hear(Action(1, "m:a", NO_ARGS))),
    ]
    for request_id, message in enumerate((mutation, action)):
        assert isinstance(message, MutationResponse | ActionResponse)
        named = hashlib.sha256(f"{SESSION}|{request_id}".encode()).hexdigest()[:16]
        assert message.result == f"[Request ID: {named}] Server Error\nUncaught ConvexError: x\n"
        assert (message.error_data, message.log_lines) == (b'"x"', ("[LOG] 'a'",))


async def test_a_plain_error_has_no_data_key_and_a_null_timestamp():
    bench = Bench()
    bench.store.outcome = Failure("Uncaught Error: x\n", None, ())
    bench.say(CONNECT, MUTATION)
    await settled()
    fields = json.loads(bench.line.sent[0])
    assert fields["ts"] is None
    assert "errorData" not in fields


async def test_redaction_hides_texts_and_lines_but_not_data():
    bench = Bench(redact=True)
    bench.store.outcome = Failure("Uncaught ConvexError: x\n", b"null", ("[LOG] 'a'",))
    mutation, *_ = await bench.hear(MUTATION)
    action, *_ = await bench.hear(Action(1, "m:a", NO_ARGS))
    for message in (mutation, action):
        assert isinstance(message, MutationResponse | ActionResponse)
        assert isinstance(message.result, str)
        assert message.result.endswith("] Server Error")
        assert (message.error_data, message.log_lines) == (b"null", ())
    bench.store.outcome = None
    mutation, *_ = await bench.hear(Mutation(2, "m:x", NO_ARGS))
    assert isinstance(mutation, MutationResponse)
    assert mutation.log_lines == ()


async def test_wrong_arguments_fail_the_call_and_reach_no_function():
    bench = Bench()
    text = json.dumps(
        {"type": "Mutation", "requestId": 0, "udfPath": "m:x", "args": [{}, 5]},
    )
    bench.worker.receive(text)
    await settled()
    response, transition = bench.line.take()
    assert isinstance(response, MutationResponse)
    assert isinstance(response.result, str)
    assert response.result.endswith("Instead received 2 arguments: [{},5]\n")
    assert isinstance(transition, Transition)
    bench.worker.receive(text.replace("Mutation", "Action"))
    await settled()
    assert isinstance(bench.line.take()[0], ActionResponse)
    assert bench.store.calls == []


async def test_a_query_with_wrong_arguments_fails_once_and_can_be_removed():
    bench = Bench()
    change = {"type": "Add", "queryId": 0, "udfPath": "m:q", "args": "text"}
    bench.worker.receive(
        json.dumps(
            {
                "type": "ModifyQuerySet",
                "baseVersion": 0,
                "newVersion": 1,
                "modifications": [change],
            }
        )
    )
    await settled()
    (transition,) = bench.line.take()
    assert isinstance(transition, Transition)
    (failed,) = transition.modifications
    assert isinstance(failed, QueryFailed)
    assert failed.error_message.endswith(
        "Server Error\nInvalid arguments for m.js:q: expected an array of arguments\n"
    )
    assert failed.error_data is None
    (again,) = await bench.hear(Authenticate(0, "None"))
    assert isinstance(again, Transition)
    assert again.modifications == ()
    (gone,) = await bench.hear(query_set(1, RemoveQuery(0)))
    assert isinstance(gone, Transition)
    assert len(gone.modifications) == 1
    assert bench.store.reads == 0


async def test_a_slow_action_delays_nothing():
    bench = Bench()
    bench.store.gate = asyncio.get_running_loop().create_future()
    heard = await bench.hear(
        CONNECT,
        Action(0, "m:slow", NO_ARGS),
        Action(1, "m:a", NO_ARGS),
        Mutation(2, "m:x", NO_ARGS),
    )
    answered = [m.request_id for m in heard if isinstance(m, MutationResponse | ActionResponse)]
    assert sorted(answered) == [1, 2]
    bench.store.gate.set_result(None)
    await settled()
    response, transition = bench.line.take()
    assert response == ActionResponse(0, True, b"null", ("[LOG] 'acted'",))
    assert isinstance(transition, Transition)


async def test_a_mutation_that_waits_delays_no_results():
    bench = Bench()
    bench.store.commit_gate = asyncio.get_running_loop().create_future()
    (transition,) = await bench.hear(MUTATION, query_set(0, add(0)))
    assert values(transition) == {0: b"0.0"}
    bench.store.commit()
    await settled()
    assert [values(message) for message in bench.line.take()] == [{0: b"1.0"}]


async def test_a_slow_query_delays_no_mutation_and_no_other_socket():
    store = Store()
    store.gate = asyncio.get_running_loop().create_future()
    pump = Pump(SystemRuntime())
    slow, quick = Bench(store=store, pump=pump), Bench(store=store, pump=pump)
    slow.say(query_set(0, add(0, "m:slow")))
    quick.say(query_set(0, add(0)))
    await settled()
    (response,) = await slow.hear(MUTATION)
    assert isinstance(response, MutationResponse)
    assert {0: b"1.0"} in [values(message) for message in quick.line.take()]
    store.gate.set_result(None)
    await settled()
    heard = slow.line.take()
    assert values(heard[0]) == {0: b"0.0"}  # of its own, older instant
    assert values(heard[1]) == {0: b"1.0"}


async def test_all_results_of_a_transition_are_of_one_instant():  # F114
    bench = Bench()
    bench.store.gate = asyncio.get_running_loop().create_future()
    bench.say(query_set(0, add(0), add(1, "m:slow"), add(2)))
    await settled()
    bench.store.commit()
    bench.store.gate.set_result(None)
    await settled()
    first, second = bench.line.take()
    assert values(first) == {0: b"0.0", 1: b"0.0", 2: b"0.0"}
    assert values(second) == {0: b"1.0", 1: b"1.0", 2: b"1.0"}


async def test_a_new_identity_watches_anew_and_lets_go_of_the_old_watches():
    bench = Bench()
    await bench.hear(query_set(0, add(0), add(1)))
    (transition,) = await bench.hear(Authenticate(0, "Admin", "key"))
    assert isinstance(transition, Transition)
    assert transition.end.identity == 1
    assert [watch.caller for watch in bench.store.watches] == [ADMIN, ADMIN]
    await bench.hear(query_set(1, RemoveQuery(0)))
    assert len(bench.store.watches) == 1


async def test_a_refused_token_is_told_and_ends_the_socket():
    bench = Bench()
    heard = await bench.hear(CONNECT, Authenticate(0, "User", "token"), query_set(0, add(0)))
    assert heard == [AuthError("no token", 0, True)]
    assert bench.line.closed == (1000, "")
    assert bench.store.watches == []


async def test_a_message_behind_an_authenticate_waits_for_the_verdict():
    bench = Bench()
    bench.store.gate = asyncio.get_running_loop().create_future()
    assert await bench.hear(Authenticate(0, "User", "token"), MUTATION) == []
    assert bench.store.calls == []
    bench.store.gate.set_result(None)
    await settled()
    assert bench.store.calls == []
    assert bench.line.closed is not None


async def test_invalid_json_is_fatal():
    bench = Bench()
    bench.worker.receive("nonsense")
    (fatal,) = bench.line.take()
    assert isinstance(fatal, FatalError)
    assert fatal.error.startswith("Received Invalid JSON on websocket: ")
    assert bench.line.closed == (1000, "")
    bench.worker.receive("nonsense")  # nobody listens any more
    assert bench.worker.is_closed


async def test_a_close_of_ours_lets_go_of_the_watches():
    bench = Bench()
    await bench.hear(query_set(0, add(0)))
    bench.worker.receive("nonsense")
    assert bench.store.watches == []


async def test_a_binary_frame_ends_the_socket():
    bench = Bench()
    bench.worker.receive_binary()
    assert bench.line.closed == (1011, "InternalServerError")


@pytest.mark.parametrize(
    ("fault", "closed", "is_logged"),
    [
        (Conflict("lost"), (1013, "OptimisticConcurrencyControlFailure"), False),
        (Overloaded("full"), (1013, "TooManyConcurrentRequests"), False),
        (StoreFailed("disk"), (1011, "InternalServerError"), True),
        (KeyError("bug"), (1011, "InternalServerError"), True),
    ],
)
@pytest.mark.parametrize("message", [MUTATION, Action(0, "m:a", NO_ARGS)])
async def test_faults_of_the_platform_close_the_socket(
    message: ClientMessage,
    fault: Exception,
    closed: tuple[int, str],
    is_logged: bool,
    caplog: pytest.LogCaptureFixture,
):
    bench = Bench()
    bench.store.faults = [fault]
    with caplog.at_level(logging.ERROR, "reactive_store.sync"):
        assert await bench.hear(message) == []
    assert bench.line.closed == closed
    assert bool(caplog.records) is is_logged


async def test_a_query_that_cannot_run_now_is_tried_again_later_and_later():
    bench = Bench()
    bench.store.faults = [OutOfRetention("old"), Overloaded("full"), Overloaded("full")]
    assert await bench.hear(query_set(0, add(0))) == []
    delays = []
    while bench.clock.naps:
        bench.store.commit()
        delays.append(bench.clock.wake())
        await settled()
    assert delays == [0.5, 1.0, 2.0]
    (transition,) = bench.line.take()
    assert values(transition) == {0: b"3.0"}
    bench.store.faults = [Overloaded("full")]
    bench.store.commit()
    await settled()
    assert bench.clock.wake() == 0.5


async def test_a_socket_that_ends_closes_its_watches_and_lets_calls_end():  # F123
    bench = Bench()
    bench.store.gate = asyncio.get_running_loop().create_future()
    bench.store.commit_gate = asyncio.get_running_loop().create_future()
    await bench.hear(query_set(0, add(0), add(1)))
    await bench.hear(MUTATION, Mutation(1, "m:x", NO_ARGS), Action(2, "m:slow", NO_ARGS))
    bench.worker.on_disconnect()
    assert bench.store.watches == []
    bench.store.commit_gate.set_result(None)
    bench.store.gate.set_result(None)
    await settled()
    assert bench.store.at(bench.store.latest_ts) == 1  # the one that ran; the waiting one is gone
    assert bench.line.take() == []
    assert bench.worker.statistics().queries == 0


async def test_a_socket_that_ends_while_queries_run_reads_no_more():
    bench = Bench()
    bench.store.gate = asyncio.get_running_loop().create_future()
    await bench.hear(query_set(0, add(0, "m:slow"), add(1)))
    bench.worker.on_disconnect()
    bench.store.gate.set_result(None)
    await settled()
    assert bench.store.reads == 1
    assert bench.line.take() == []


async def test_a_slow_peer_gets_two_transitions_and_then_merged_ones():
    bench = Bench()
    await bench.hear(query_set(0, add(0)))
    bench.line.is_writable = False
    for _ in range(5):
        bench.store.commit()
        await settled()
    assert [values(message) for message in bench.line.take()] == [{0: b"1.0"}, {0: b"2.0"}]
    bench.line.is_writable = True
    bench.worker.on_writable()
    await settled()
    assert [values(message) for message in bench.line.take()] == [{0: b"5.0"}]


async def test_ticks_say_ping_and_end_a_silent_socket():
    bench = Bench()
    bench.worker.on_pong()
    bench.clock.now_s = 15.0
    bench.worker.on_tick()
    assert bench.line.take() == [Ping()]
    bench.clock.now_s = 121.0
    bench.worker.on_tick()
    assert bench.line.closed == (1000, "ClientDisconnected")


@pytest.mark.parametrize(
    ("client", "kind"),
    [
        (ClientVersion("npm", (1, 48, 0)), TransitionChunk),
        (ClientVersion("python", (0, 8, 1)), Transition),
        (ClientVersion(), Transition),
    ],
)
async def test_only_npm_gets_large_transitions_in_pieces(client: ClientVersion, kind: type):
    bench = Bench(client=client, limits=Limits(chunk_bytes=50))
    heard = await bench.hear(query_set(0, add(0)))
    assert {type(message) for message in heard} == {kind}


async def test_many_sockets_hear_of_a_commit_through_few_tasks():
    store = Store()
    clock = Clock()
    pump = Pump(clock)
    benches = [Bench(store=store, pump=pump) for _ in range(300)]
    for bench in benches:
        bench.say(query_set(0, add(0)))
    await settled()
    clock.tasks = 0
    store.commit()
    await settled()
    assert all(values(bench.line.take()[-1]) == {0: b"1.0"} for bench in benches)
    assert clock.tasks <= 4


async def test_the_loop_breathes_between_many_sockets():
    store = Store()
    pump = Pump(SystemRuntime())
    benches = [Bench(store=store, pump=pump) for _ in range(300)]
    for bench in benches:
        bench.say(query_set(0, add(0)))
    told, steps = 0, []
    while told < 300:
        await asyncio.sleep(0)
        now = sum(bool(bench.line.sent) for bench in benches)
        steps.append(now - told)
        told = now
    assert max(steps) <= 128


async def test_work_that_vanished_costs_no_task():
    clock = Clock()
    pump = Pump(clock)
    bench = Bench(pump=pump)
    await bench.hear(query_set(0, add(0)))
    clock.tasks = 0
    bench.store.commit()
    bench.worker.on_disconnect()
    await settled()
    assert clock.tasks == 0


async def test_an_idle_socket_costs_no_task():
    clock = Clock()
    pump = Pump(clock)
    bench = Bench(pump=pump)
    await bench.hear(CONNECT)
    assert clock.tasks == 0


async def test_one_socket_that_waits_does_not_hold_up_the_rest_of_its_batch():
    store = Store()
    store.gate = asyncio.get_running_loop().create_future()
    pump = Pump(SystemRuntime())
    benches = [Bench(store=store, pump=pump) for _ in range(9)]
    for number, bench in enumerate(benches):
        bench.say(query_set(0, add(0, "m:q" if number % 3 else "m:slow")))
    await settled()
    assert [len(bench.line.take()) for bench in benches] == [0, 1, 1] * 3
    store.gate.set_result(None)
    await settled()
    assert [len(bench.line.take()) for bench in benches] == [1, 0, 0] * 3


async def test_closing_the_pump_ends_what_runs():
    store = Store()
    store.gate = asyncio.get_running_loop().create_future()
    pump = Pump(SystemRuntime())
    bench = Bench(store=store, pump=pump)
    await bench.hear(Action(0, "m:slow", NO_ARGS), query_set(0, add(0, "m:slow")))
    await pump.close()
    assert bench.line.take() == []
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("sync")] == []
