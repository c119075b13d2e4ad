"""One rule of a session per test: calls, identity, components, silence, the end."""

from __future__ import annotations

import pytest

from reactive_store.auth.identity import ANONYMOUS
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
from reactive_store.sync.messages import (
    Action,
    ActionResponse,
    Authenticate,
    AuthError,
    ClientMessage,
    Close,
    Event,
    FatalError,
    MutationResponse,
    Ping,
    QueryUpdated,
    RemoveQuery,
    ServerMessage,
    Transition,
    TransitionChunk,
    Version,
)
from reactive_store.sync.protocol import decode_server
from reactive_store.sync.session import (
    Verified,
)
from tests.sync.conversation import (
    ADMIN,
    ALICE,
    NO_ARGS,
    SECOND_NS,
    add,
    become_admin,
    connected,
    mutate,
    query_set,
    updated,
)

# Mutations and actions.


def test_mutations_run_one_at_a_time_in_order():
    """F111."""
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
    """C41."""
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
    """F77, F183, F184, F185."""
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


def test_calls_wait_while_a_client_does_not_take_the_answers_of_earlier_ones():
    talk = connected(unsent_answers=2)
    talk.keeps_up = False
    talk.say(*map(mutate, range(3)), Action(3, "m:a", NO_ARGS))
    for number in range(2):
        talk.done(talk.mutation(), MutationResponse(number, True, b"null", 100))
    # What they changed is still told.
    talk.done(talk.transition(), {})
    assert [type(message) for message in talk.heard()] == [
        MutationResponse,
        MutationResponse,
        Transition,
    ]
    talk.no_work()
    talk.session.drained()
    assert talk.mutation().request_id == 2
    assert talk.action().request_id == 3


def test_too_many_queries_end_the_socket():
    talk = connected(session_queries=2)
    talk.say(query_set(0, add(0), add(1)))
    assert not talk.session.is_closed
    talk.say(query_set(1, add(2)))
    talk.ends_with(1013, "TooManyQueries")


def test_too_many_changes_of_queries_that_no_transition_has_taken_end_the_socket():
    talk = connected(session_queries=2)
    for version in range(0, 4, 2):
        talk.say(query_set(version, add(0)), query_set(version + 1, RemoveQuery(0)))
    assert not talk.session.is_closed
    talk.say(query_set(4, add(0)), query_set(5, RemoveQuery(0)))
    talk.ends_with(1013, "TooManyQueries")


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
