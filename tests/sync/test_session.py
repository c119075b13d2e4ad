"""One rule of a session per test. `Conversation` plays the driver with work done by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS, Caller, Identity
from reactive_store.errors import (
    AuthUpdateFailed,
    BadRequest,
    Conflict,
    Forbidden,
    OutOfRetention,
    Overloaded,
    ProtocolError,
    StoreFailed,
    Unauthenticated,
)
from reactive_store.functions.live_queries import LiveResult
from reactive_store.limits import Limits
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
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    RemoveQuery,
    ServerMessage,
    Transition,
    TransitionChunk,
    Version,
)
from reactive_store.sync.protocol import decode_server
from reactive_store.sync.session import (
    ComputeTransition,
    RunAction,
    RunMutation,
    Session,
    Verified,
    Verify,
    Work,
)

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
SECOND_NS = 1_000_000_000
NO_ARGS = Arguments(b"{}")
ADMIN = Caller(None, is_admin=True)
ALICE = Caller(Identity({"tokenIdentifier": "i|alice", "issuer": "i", "subject": "alice"}))


def updated(value: Any, *, journal: str | None = None, line: str = "") -> LiveResult:
    text = json.dumps(value)
    lines = json.dumps([line] if line else [])
    body = f'"value":{text},"logLines":{lines},"journal":{json.dumps(journal)}}}'
    return LiveResult(body.encode(), False, (text + lines).encode(), journal)


def failed(text: str) -> LiveResult:
    body = f'"errorMessage":{json.dumps(text)},"logLines":[],"journal":null}}'
    return LiveResult(body.encode(), True, text.encode(), None)


class Conversation:
    """A session, a clock and a store whose newest timestamp is `ts`."""

    def __init__(self, *, takes_chunks: bool = False, **limits: Any) -> None:
        self.ts = 100
        self.now_s = 0.0
        self.limits = dataclasses.replace(Limits(), **limits)
        self.session = Session(self.limits, lambda: self.ts, self.now_s, takes_chunks=takes_chunks)
        self.closed: Close | None = None
        self.keeps_up = True  # the client reads what it is sent

    @property
    def now_ns(self) -> int:
        return int(self.now_s * SECOND_NS)

    def say(self, *messages: ClientMessage) -> None:
        for message in messages:
            self.session.receive(message, self.now_ns, self.now_s)
            self.session.check()

    def work(self) -> Work | None:
        work = self.session.next_work(self.now_ns)
        self.session.check()
        return work

    def no_work(self) -> None:
        assert not self.session.has_work
        assert self.work() is None

    def transition(self) -> ComputeTransition:
        assert self.session.has_work
        work = self.work()
        assert isinstance(work, ComputeTransition)
        return work

    def mutation(self) -> RunMutation:
        work = self.work()
        assert isinstance(work, RunMutation)
        return work

    def action(self) -> RunAction:
        work = self.work()
        assert isinstance(work, RunAction)
        return work

    def verify(self) -> Verify:
        work = self.work()
        assert isinstance(work, Verify)
        return work

    def done(self, work: Work, result: object) -> None:
        self.session.complete(work, result, self.now_ns)
        self.session.check()

    def heard(self) -> list[ServerMessage]:
        """What the client hears; a Close is kept aside."""
        heard: list[ServerMessage] = []
        for item in self.session.take_outgoing(self.now_s):
            if isinstance(item, Close):
                assert self.closed is None
                self.closed = item
            else:
                assert self.closed is None, "said something after the end"
                heard.append(decode_server(item))
        if self.keeps_up:
            self.session.drained()
        return heard

    def settle(self, *results: tuple[int, LiveResult]) -> Transition:
        """Complete the Transition that is due and give it as the client hears it."""
        work = self.transition()
        given = dict(results)
        assert set(work.reread) == set(given)
        self.done(work, given)
        heard = self.heard()
        assert len(heard) == 1
        assert isinstance(heard[0], Transition)
        return heard[0]

    def ends_with(self, code: int, reason: str = "") -> list[ServerMessage]:
        heard = self.heard()
        assert self.closed == Close(code, reason)
        assert self.session.is_closed
        self.no_work()
        self.session.check()
        return heard


def add(query_id: int, path: str = "m:q", args: Arguments = NO_ARGS, **more: Any) -> AddQuery:
    return AddQuery(query_id, path, args, **more)


def query_set(base: int, *changes: AddQuery | RemoveQuery) -> ModifyQuerySet:
    return ModifyQuerySet(base, base + 1, changes)


def mutate(request_id: int, path: str = "m:x", **more: Any) -> Mutation:
    return Mutation(request_id, path, NO_ARGS, **more)


def connected(**more: Any) -> Conversation:
    talk = Conversation(**more)
    talk.say(Connect(SESSION, 0))
    return talk


def become_admin(talk: Conversation) -> None:
    talk.say(Authenticate(0, "Admin", "key"))
    talk.done(talk.verify(), Verified(ADMIN))


# Connect and Event.


def test_connect_is_not_answered():
    talk = connected()
    talk.no_work()
    assert talk.heard() == []


@pytest.mark.parametrize(
    "first", [query_set(0), mutate(0), Action(0, "m:a", NO_ARGS), Authenticate(0, "None")]
)
def test_any_message_may_come_first(first: ClientMessage):
    talk = Conversation()
    talk.say(first)
    assert talk.work() is not None
    assert talk.heard() == []


def test_mutations_carry_the_session_of_the_last_connect():
    talk = Conversation()
    talk.say(mutate(0))
    assert talk.mutation().session_id is None
    other = SESSION.replace("0", "1")
    talk = Conversation()
    talk.say(Connect(SESSION, 0), Connect(other, 1), mutate(0))
    assert talk.mutation().session_id == other


@pytest.mark.parametrize("observed", [None, 0, 99, 100])
def test_a_client_that_saw_the_past_is_welcome(observed: int | None):
    talk = Conversation()
    talk.say(Connect(SESSION, 1, None, observed), query_set(0))
    assert talk.settle().end == Version(1, 0, 100)


def test_a_client_that_saw_the_future_is_sent_away():
    talk = Conversation()
    talk.say(Connect(SESSION, 1, None, 101))
    assert talk.ends_with(1011, "InternalServerError") == []


def test_clock_skew_is_the_clients_clock_minus_ours_and_repeated():
    talk = Conversation()
    talk.now_s = 10.0
    talk.say(Connect(SESSION, 0, None, None, 9_988), query_set(0))
    first = talk.settle()
    talk.now_s = 20.0
    talk.say(query_set(1))
    second = talk.settle()
    assert (first.clock_skew_ms, second.clock_skew_ms) == (-12, -12)
    assert (first.server_ts_ns, second.server_ts_ns) == (10 * SECOND_NS, 20 * SECOND_NS)


def test_unknown_clock_skew_is_not_told():
    talk = connected()
    talk.say(query_set(0))
    assert talk.settle().clock_skew_ms is None


def test_events_produce_nothing():
    talk = connected()
    talk.say(Event("ClientConnect"), Event("anything"))
    talk.no_work()
    assert talk.heard() == []


# Query set.


def test_an_empty_query_set_is_answered_by_a_transition():
    talk = connected()
    talk.say(query_set(0))
    assert talk.settle() == Transition(Version(0, 0, 0), Version(1, 0, 100), (), None, 0)


def test_each_transition_starts_where_the_last_one_ended():
    talk = connected()
    talk.say(query_set(0, add(0)))
    first = talk.settle((0, updated(1)))
    talk.ts = 107
    talk.say(query_set(1, add(1)))
    second = talk.settle((1, updated(2)))
    talk.say(query_set(2, RemoveQuery(0)))
    third = talk.settle()
    assert [t.start for t in (first, second, third)] == [
        Version(0, 0, 0),
        Version(1, 0, 100),
        Version(2, 0, 107),
    ]
    assert third.end == Version(3, 0, 107)
    assert third.modifications == (QueryRemoved(0),)


def test_quick_changes_are_folded_into_one_transition():
    talk = connected()
    talk.say(query_set(0, add(0), add(1)), query_set(1, RemoveQuery(0)), query_set(2, add(2)))
    transition = talk.settle((1, updated(1)), (2, updated(2)))
    assert transition.end.query_set == 3
    assert [change.query_id for change in transition.modifications] == [0, 1, 2]
    assert isinstance(transition.modifications[0], QueryRemoved)


def test_modifications_are_in_order_of_their_ids():
    talk = connected()
    talk.say(query_set(0, add(9), add(2), add(5)))
    work = talk.transition()
    assert work.reread == (2, 5, 9)
    talk.done(work, {9: updated(1), 2: failed("x"), 5: updated(3)})
    (transition,) = talk.heard()
    assert isinstance(transition, Transition)
    assert [change.query_id for change in transition.modifications] == [2, 5, 9]
    assert isinstance(transition.modifications[0], QueryFailed)


def test_added_queries_are_opened_with_what_the_client_gave():
    talk = connected()
    talk.say(query_set(0, add(3, "dir/mod", Arguments(b'{"a":1}'), journal="j")))
    (opening,) = talk.transition().opened
    assert opening.path == "dir/mod.js:default"
    assert (opening.args, opening.journal, opening.fault) == (b'{"a":1}', "j", None)


@pytest.mark.parametrize("spelling", ["messages", "messages:default", "messages.js:default"])
def test_all_spellings_of_a_path_are_one(spelling: str):
    talk = connected()
    talk.say(query_set(0, add(0, spelling)), mutate(0, spelling))
    assert talk.mutation().path == "messages.js:default"
    assert talk.transition().opened[0].path == "messages.js:default"


def test_one_question_under_two_ids_is_two_queries():
    talk = connected()
    talk.say(query_set(0, add(0), add(1)))
    transition = talk.settle((0, updated(1)), (1, updated(1)))
    assert len(transition.modifications) == 2


def test_a_removed_query_is_closed_and_never_mentioned_again():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.say(query_set(1, RemoveQuery(0)))
    work = talk.transition()
    assert (work.closed, work.reread) == ((0,), ())
    talk.done(work, {})
    talk.heard()
    talk.session.invalidate(0)
    talk.no_work()


def test_removal_while_a_transition_is_computed_waits_for_the_next():
    talk = connected()
    talk.say(query_set(0, add(0)))
    work = talk.transition()
    talk.say(query_set(1, RemoveQuery(0)))
    talk.no_work()
    talk.done(work, {0: updated(1)})
    (first,) = talk.heard()
    assert isinstance(first, Transition)
    assert first.end.query_set == 1
    assert first.modifications == (QueryUpdated(0, b"1"),)
    assert talk.settle().modifications == (QueryRemoved(0),)


@pytest.mark.parametrize("base", [1, 7])
def test_a_wrong_base_version_is_fatal(base: int):
    talk = connected()
    talk.say(query_set(base))
    assert talk.ends_with(1000) == [
        FatalError(f"Base version {base} passed up doesn't match the current version 0")
    ]


def test_the_base_version_is_that_of_the_last_message_not_of_the_last_transition():
    talk = connected()
    talk.say(query_set(0), query_set(1), query_set(1))
    assert talk.ends_with(1000) == [
        FatalError("Base version 1 passed up doesn't match the current version 2")
    ]


def test_a_version_may_jump_ahead():
    talk = connected()
    talk.say(ModifyQuerySet(0, 5, ()), query_set(5))
    assert talk.settle().end.query_set == 6


@pytest.mark.parametrize(
    "message",
    [
        ModifyQuerySet(0, 0, ()),
        query_set(0, RemoveQuery(0)),
        query_set(0, add(0), add(0)),
        query_set(0, add(0), RemoveQuery(0), RemoveQuery(0)),
    ],
)
def test_an_impossible_query_set_ends_the_socket(message: ModifyQuerySet):
    talk = connected()
    talk.say(message)
    assert talk.ends_with(1011, "InternalServerError") == []


def test_adding_a_live_query_again_ends_the_socket():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.say(query_set(1, add(0)))
    talk.ends_with(1011, "InternalServerError")


@pytest.mark.parametrize(
    "message", [query_set(0, add(0, "a b")), mutate(0, "m:1"), Action(0, ":x", NO_ARGS)]
)
def test_a_path_that_cannot_be_read_makes_the_message_invalid(message: ClientMessage):
    talk = connected()
    talk.say(message)
    (fatal,) = talk.ends_with(1000)
    assert isinstance(fatal, FatalError)
    assert fatal.error.startswith("Received Invalid JSON on websocket: ")


def test_wrong_arguments_are_a_fault_of_the_call_with_its_path():
    talk = connected()
    args = Arguments(b"", "Invalid arguments for {path}: {x}")
    talk.say(query_set(0, add(0, "m", args)), Mutation(0, "m:x", args), Action(1, "m:y", args))
    assert talk.mutation().fault == "Invalid arguments for m.js:x: {x}"
    assert talk.action().fault == "Invalid arguments for m.js:y: {x}"
    assert talk.transition().opened[0].fault == "Invalid arguments for m.js:default: {x}"


# Results.


def test_only_invalid_queries_are_read_again():
    talk = connected()
    talk.say(query_set(0, add(0), add(1), add(2)))
    talk.settle(*[(n, updated(n)) for n in range(3)])
    talk.no_work()
    talk.ts = 105
    talk.session.invalidate(1)
    work = talk.transition()
    assert (work.reread, work.opened, work.ts) == ((1,), (), 105)
    talk.done(work, {1: updated("new")})
    (transition,) = talk.heard()
    assert isinstance(transition, Transition)
    assert transition.modifications == (QueryUpdated(1, b'"new"'),)
    assert transition.end == Version(1, 0, 105)


def test_an_equal_result_is_not_sent_but_the_time_is():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.ts = 105
    talk.session.invalidate(0)
    transition = talk.settle((0, updated(1)))
    assert transition.modifications == ()
    assert transition.end.ts == 105


def test_a_changed_log_line_is_sent():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.session.invalidate(0)
    transition = talk.settle((0, updated(1, line="[LOG] 'x'")))
    assert transition.modifications == (QueryUpdated(0, b"1", ("[LOG] 'x'",)),)


def test_a_changed_journal_is_kept_but_not_sent():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1, journal="a")))
    talk.session.invalidate(0)
    assert talk.settle((0, updated(1, journal="b"))).modifications == ()
    talk.say(Authenticate(0, "None"))
    assert talk.transition().opened[0].journal == "b"


def test_a_query_that_becomes_stale_while_it_is_read_is_read_again():
    talk = connected()
    talk.say(query_set(0, add(0)))
    work = talk.transition()
    talk.ts = 105
    talk.session.invalidate(0)
    talk.no_work()  # one at a time
    talk.done(work, {0: updated(1)})
    (first,) = talk.heard()
    assert isinstance(first, Transition)
    assert first.end.ts == 100
    second = talk.settle((0, updated(2)))
    assert second.end.ts == 105


def test_a_result_that_cannot_be_had_now_is_owed_and_taken_at_a_new_time():
    talk = connected()
    talk.say(query_set(0, add(0), add(1)))
    talk.settle((0, updated(0)), (1, updated(1)))
    talk.say(query_set(1, RemoveQuery(0), add(2)))
    work = talk.transition()
    talk.done(work, OutOfRetention("too old"))
    talk.no_work()
    talk.say(query_set(2, add(3)))
    talk.session.invalidate(1)
    talk.no_work()
    talk.ts = 120
    talk.session.resume()
    transition = talk.settle((1, updated("b")), (2, updated("c")), (3, updated("d")))
    assert [change.query_id for change in transition.modifications] == [0, 1, 2, 3]
    assert (transition.start, transition.end) == (Version(1, 0, 100), Version(3, 0, 120))


def test_a_broken_store_under_a_query_ends_the_socket():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.done(talk.transition(), StoreFailed("disk"))
    talk.ends_with(1011, "InternalServerError")


# Mutations and actions.


def test_mutations_run_one_at_a_time_in_order():
    talk = connected()
    talk.say(mutate(0), mutate(1), mutate(2))
    first = talk.mutation()
    assert first.request_id == 0
    talk.no_work()
    talk.done(first, MutationResponse(0, True, b"null", 105))
    assert talk.mutation().request_id == 1


def test_a_failed_mutation_does_not_stop_the_next():
    talk = connected()
    talk.say(mutate(0), mutate(1))
    talk.done(talk.mutation(), MutationResponse(0, False, "bad"))
    assert talk.mutation().request_id == 1


@pytest.mark.parametrize(
    "response",
    [MutationResponse(0, True, b"1.0", 105), MutationResponse(0, False, "bad", None, (), b"null")],
)
def test_a_transition_follows_each_mutation_response(response: MutationResponse):
    talk = connected()
    talk.say(mutate(0))
    work = talk.mutation()
    talk.ts = 105
    talk.done(work, response)
    talk.done(talk.transition(), {})
    assert talk.heard() == [response, Transition(Version(0, 0, 0), Version(0, 0, 105), (), None, 0)]


def test_a_transition_computed_before_the_commit_is_followed_by_one_after_it():
    talk = connected()
    talk.say(query_set(0, add(0)), mutate(0))
    mutation = talk.mutation()
    early = talk.transition()
    talk.ts = 105
    talk.done(mutation, MutationResponse(0, True, b"null", 105))
    talk.done(early, {0: updated(1)})
    response, transition = talk.heard()
    assert isinstance(response, MutationResponse)
    assert isinstance(transition, Transition)
    assert transition.end.ts == 100
    assert talk.settle().end.ts == 105


def test_actions_start_at_once_and_answer_when_they_end():
    talk = connected()
    talk.say(mutate(0), Action(1, "m:a", NO_ARGS), Action(2, "m:b", NO_ARGS))
    talk.mutation()
    slow, fast = talk.action(), talk.action()
    talk.done(fast, ActionResponse(2, True, b"2.0"))
    talk.done(talk.transition(), {})
    talk.done(slow, ActionResponse(1, False, "bad"))
    talk.done(talk.transition(), {})
    assert [type(message) for message in talk.heard()] == [
        ActionResponse,
        Transition,
        ActionResponse,
        Transition,
    ]


def test_the_identity_is_the_one_when_the_message_came():
    talk = connected()
    talk.say(mutate(0), Authenticate(0, "User", "t"), mutate(1), Action(2, "m:a", NO_ARGS))
    talk.done(talk.verify(), Verified(ALICE))
    before = talk.mutation()
    assert before.caller == ANONYMOUS
    assert talk.action().caller == ALICE
    talk.say(Authenticate(1, "None"))
    talk.done(before, MutationResponse(0, False, "bad"))
    assert talk.mutation().caller == ALICE


def test_too_many_waiting_mutations_end_the_socket():
    talk = connected(pending_mutations=3)
    talk.say(mutate(0), mutate(1), mutate(2))
    talk.mutation()
    assert talk.session.statistics().pending_mutations == 3
    talk.say(mutate(3))
    talk.ends_with(1013, "TooManyConcurrentMutations")


def test_a_thousand_mutations_may_wait():
    talk = connected()
    talk.say(*map(mutate, range(1000)))
    assert not talk.session.is_closed
    talk.say(mutate(1000))
    talk.ends_with(1013, "TooManyConcurrentMutations")


def test_too_many_running_actions_end_the_socket():
    talk = connected(running_actions=2)
    talk.say(Action(0, "m:a", NO_ARGS), Action(1, "m:a", NO_ARGS))
    talk.done(talk.action(), ActionResponse(0, True, b"null"))
    talk.say(Action(2, "m:a", NO_ARGS))
    assert talk.session.statistics().running_actions == 2
    talk.say(Action(3, "m:a", NO_ARGS))
    talk.heard()
    assert talk.closed == Close(1013, "TooManyInflightActionsForSingleClient")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (Conflict("lost"), 1013, "OptimisticConcurrencyControlFailure"),
        (Overloaded("full"), 1013, "TooManyConcurrentRequests"),
        (Overloaded("full", code="CommitterFullError"), 1013, "CommitterFullError"),
        (OutOfRetention("old"), 1013, "OutOfRetention"),
        (StoreFailed("disk"), 1011, "InternalServerError"),
        (BadRequest("ours"), 1011, "InternalServerError"),
        (ValueError("bug"), 1011, "InternalServerError"),
    ],
)
@pytest.mark.parametrize("message", [mutate(0), Action(0, "m:a", NO_ARGS)])
def test_a_fault_of_the_platform_closes_so_that_the_client_tries_again(
    message: ClientMessage, error: Exception, code: int, reason: str
):
    talk = connected()
    talk.say(message)
    work = talk.work()
    assert work is not None
    talk.done(work, error)
    assert talk.ends_with(code, reason) == []


def test_a_mutation_that_takes_too_long_ends_the_socket():
    talk = connected()
    talk.say(mutate(0), mutate(1))
    first = talk.mutation()
    talk.session.tick(1.0)
    talk.session.tick(59.0)
    talk.done(first, MutationResponse(0, False, "bad"))
    talk.mutation()
    talk.session.tick(62.0)  # the second has its own time
    talk.session.tick(121.0)
    assert not talk.session.is_closed
    talk.session.tick(123.0)
    talk.heard()
    assert talk.closed == Close(1011, "InternalServerError")


# Identity.


def test_none_is_accepted_at_once():
    talk = connected()
    talk.say(Authenticate(0, "None"))
    assert talk.settle().end == Version(0, 1, 100)


def test_a_new_identity_opens_every_query_again_and_sends_only_what_changed():
    talk = connected()
    talk.say(query_set(0, add(0), add(1)))
    talk.settle((0, updated(0)), (1, updated(1)))
    talk.say(Authenticate(0, "User", "token"))
    verify = talk.verify()
    assert verify.message == Authenticate(0, "User", "token")
    talk.no_work()
    talk.done(verify, Verified(ALICE))
    work = talk.transition()
    assert work.caller == ALICE
    assert [opening.query_id for opening in work.opened] == [0, 1]
    talk.done(work, {0: updated(0), 1: updated("alice")})
    (transition,) = talk.heard()
    assert isinstance(transition, Transition)
    assert transition.end == Version(1, 1, 100)
    assert transition.modifications == (QueryUpdated(1, b'"alice"'),)


def test_messages_wait_for_the_verification_before_them():
    talk = connected()
    talk.say(Authenticate(0, "User", "a"), query_set(0, add(0)), Authenticate(1, "Admin", "k"))
    talk.say(query_set(1), mutate(0))
    assert talk.session.statistics().waiting_messages == 4
    talk.done(talk.verify(), Verified(ALICE))
    second = talk.verify()
    assert second.message.kind == "Admin"
    work = talk.transition()
    assert (work.query_set, work.identity, work.caller) == (1, 1, ALICE)
    talk.done(second, Verified(ADMIN))
    assert talk.mutation().caller == ADMIN


def test_too_many_messages_behind_a_verification_end_the_socket():
    talk = connected(pending_mutations=2)
    talk.say(Authenticate(0, "User", "a"), Event("x"), Event("x"), Event("x"))
    talk.heard()
    assert talk.closed == Close(1013, "TooManyConcurrentRequests")


@pytest.mark.parametrize(
    "error",
    [Unauthenticated("no"), AuthUpdateFailed("no"), Forbidden("no"), BadRequest("no")],
)
def test_a_refused_identity_is_told_with_the_applied_version(error: Exception):
    talk = connected()
    talk.say(Authenticate(0, "None"))
    talk.settle()
    talk.say(Authenticate(1, "None"), Authenticate(2, "User", "bad"), mutate(0))
    talk.done(talk.verify(), error)
    assert talk.ends_with(1000) == [AuthError("no", 1, True)]


def test_a_provider_that_does_not_answer_is_no_reason_to_drop_the_token():
    talk = connected()
    talk.say(Authenticate(0, "User", "t"))
    talk.done(talk.verify(), Overloaded("provider", code="AuthProviderDiscoveryFailed"))
    assert talk.ends_with(1013, "AuthProviderDiscoveryFailed") == []


def test_a_bug_while_verifying_is_no_reason_to_drop_the_token():
    talk = connected()
    talk.say(Authenticate(0, "User", "t"))
    talk.done(talk.verify(), KeyError("bug"))
    assert talk.ends_with(1011, "InternalServerError") == []


def test_a_wrong_identity_version_ends_the_socket():
    talk = connected()
    talk.say(Authenticate(1, "None"))
    talk.ends_with(1011, "InternalServerError")


EXPIRED = [AuthError("Convex token identity expired", 0, False)]


@pytest.mark.parametrize("message", [mutate(0), Action(0, "m:a", NO_ARGS)])
def test_an_identity_that_has_ended_cannot_call(message: ClientMessage):
    talk = connected()
    talk.say(Authenticate(0, "User", "t"))
    talk.done(talk.verify(), Verified(ALICE, 10 * SECOND_NS))
    talk.now_s = 9.9
    talk.say(Event("still there"))
    talk.now_s = 10.0
    talk.say(message)
    assert talk.ends_with(1000) == EXPIRED


def test_an_identity_that_has_ended_gets_no_results():
    talk = connected()
    talk.say(Authenticate(0, "User", "t"))
    talk.done(talk.verify(), Verified(ALICE, 10 * SECOND_NS))
    talk.now_s = 10.0
    assert talk.work() is None
    assert talk.ends_with(1000) == EXPIRED


# Components.


@pytest.mark.parametrize(
    "message",
    [
        query_set(0, add(0, component_path="")),
        mutate(0, component_path=""),
        Action(0, "m:a", NO_ARGS, "x"),
    ],
)
def test_only_administrators_may_name_a_component(message: ClientMessage):
    talk = connected()
    talk.say(message)
    talk.ends_with(1011, "InternalServerError")


def test_the_root_component_is_the_app():
    talk = connected()
    become_admin(talk)
    talk.say(mutate(0, component_path=""), query_set(0, add(0, component_path="")))
    assert talk.mutation().fault is None
    assert talk.transition().opened[0].fault is None


def test_an_unknown_component_is_an_error_of_the_function():
    talk = connected()
    become_admin(talk)
    talk.say(mutate(0, component_path="other"))
    assert talk.mutation().fault == "Could not find function for 'm:x' in component 'other'."


# Silence, slowness, size.


def test_a_silent_server_says_ping():
    talk = connected()
    talk.session.tick(14.9)
    assert talk.heard() == []
    talk.now_s = 15.0
    talk.session.tick(15.0)
    assert talk.heard() == [Ping()]
    talk.session.tick(29.9)
    assert talk.heard() == []


def test_any_frame_delays_the_ping():
    talk = connected()
    talk.now_s = 10.0
    talk.say(query_set(0))
    talk.settle()
    talk.session.tick(24.9)
    assert talk.heard() == []
    talk.session.tick(25.0)
    assert talk.heard() == [Ping()]


def test_a_silent_client_is_let_go():
    talk = connected()
    talk.session.hear(0.0)
    talk.now_s = 100.0
    talk.say(Event("x"))
    talk.session.tick(219.9)
    assert not talk.session.is_closed
    talk.session.hear(210.0)
    talk.session.tick(329.9)
    assert not talk.session.is_closed
    talk.session.tick(330.1)
    talk.heard()
    assert talk.closed == Close(1000, "ClientDisconnected")


def test_silence_is_not_judged_when_pongs_are_not_seen():
    talk = connected()
    talk.session.tick(100_000.0)
    assert not talk.session.is_closed


def test_a_slow_client_gets_merged_transitions():
    talk = connected()
    talk.keeps_up = False
    talk.say(query_set(0, add(0), add(1)))
    talk.settle((0, updated(0)), (1, updated(0)))
    talk.ts = 101
    talk.session.invalidate(0)
    talk.settle((0, updated(1)))
    assert talk.session.statistics().unsent_transitions == 2
    for ts, query_id in [(102, 0), (103, 1), (104, 0)]:
        talk.ts = ts
        talk.session.invalidate(query_id)
        talk.no_work()
    talk.session.drained()
    transition = talk.settle((0, updated(4)), (1, updated(3)))
    assert (transition.start.ts, transition.end.ts) == (101, 104)
    assert len(transition.modifications) == 2


def test_responses_do_not_wait_for_a_slow_client():
    talk = connected()
    talk.keeps_up = False
    for base in range(2):
        talk.say(query_set(base))
        talk.settle()
    talk.say(mutate(0))
    talk.done(talk.mutation(), MutationResponse(0, True, b"null", 100))
    assert [type(message) for message in talk.heard()] == [MutationResponse]
    talk.no_work()


@pytest.mark.parametrize("takes_chunks", [True, False])
def test_a_large_transition_comes_in_pieces_for_clients_that_take_them(takes_chunks: bool):
    talk = connected(takes_chunks=takes_chunks, chunk_bytes=1000)
    talk.say(query_set(0, add(0)))
    talk.done(talk.transition(), {0: updated("x" * 5000)})
    heard = talk.heard()
    if not takes_chunks:
        assert [type(message) for message in heard] == [Transition]
        return
    assert len(heard) > 5
    text = ""
    for message in heard:
        assert isinstance(message, TransitionChunk)
        text += message.chunk
    whole = decode_server(text)
    assert isinstance(whole, Transition)
    assert whole.modifications == (QueryUpdated(0, b'"' + b"x" * 5000 + b'"'),)


def test_a_transition_of_just_the_limit_stays_whole():
    talk = connected(takes_chunks=True)
    talk.say(query_set(0, add(0)))
    talk.done(talk.transition(), {0: updated(1)})
    (frame,) = talk.session.take_outgoing(0.0)
    assert isinstance(frame, bytes)
    talk = connected(takes_chunks=True, chunk_bytes=len(frame))
    talk.say(query_set(0, add(0)))
    assert talk.settle((0, updated(1))).modifications
    talk = connected(takes_chunks=True, chunk_bytes=len(frame) - 1)
    talk.say(query_set(0, add(0)))
    talk.done(talk.transition(), {0: updated(1)})
    assert len(talk.heard()) == 2


# The end.


@pytest.mark.parametrize(
    ("error", "heard", "close"),
    [
        (ProtocolError("bad"), [FatalError("bad")], Close(1000)),
        (Unauthenticated("who"), [AuthError("who", 0, False)], Close(1000)),
        (Overloaded("full"), [], Close(1013, "TooManyConcurrentRequests")),
        (RuntimeError("bug"), [], Close(1011, "InternalServerError")),
    ],
)
def test_each_class_of_error_has_its_ending(
    error: Exception, heard: list[ServerMessage], close: Close
):
    talk = connected()
    talk.session.fail(error)
    talk.session.fail(RuntimeError("once is enough"))
    assert talk.heard() == heard
    assert talk.closed == close


def test_nothing_is_taken_or_said_after_the_end():
    talk = connected()
    talk.say(query_set(0, add(0)), mutate(0), mutate(1), Action(2, "m:a", NO_ARGS))
    mutation, action, transition = talk.mutation(), talk.action(), talk.transition()
    talk.session.fail(RuntimeError("bug"))
    talk.heard()
    talk.done(mutation, MutationResponse(0, True, b"null", 105))
    talk.done(action, ActionResponse(2, True, b"null"))
    talk.done(transition, {0: updated(1)})
    talk.say(query_set(1))
    talk.session.invalidate(0)
    talk.session.tick(1000.0)
    talk.no_work()
    assert talk.heard() == []


def test_a_disconnected_session_forgets_what_waited_and_ignores_what_ends():
    talk = connected()
    talk.say(query_set(0, add(0)), mutate(0), mutate(1))
    mutation, transition = talk.mutation(), talk.transition()
    talk.session.disconnect()
    talk.done(mutation, MutationResponse(0, True, b"null", 105))
    talk.done(transition, OutOfRetention("old"))
    talk.no_work()
    assert talk.heard() == []
    statistics = talk.session.statistics()
    assert (statistics.queries, statistics.pending_mutations) == (0, 0)


def test_statistics_count_what_is_held():
    talk = connected()
    talk.say(query_set(0, add(0), add(1)), mutate(0), Action(1, "m:a", NO_ARGS))
    statistics = talk.session.statistics()
    assert statistics.queries == 2
    assert statistics.pending_mutations == 1
    assert statistics.running_actions == 1
    assert statistics.unsent_transitions == 0
    assert statistics.waiting_messages == 0
