"""One rule of a session per test: Connect, the query set, results. Calls: test_session_calls."""

from __future__ import annotations

import pytest

from reactive_store.errors import (
    OutOfRetention,
    StoreFailed,
)
from reactive_store.sync.messages import (
    Action,
    Arguments,
    Authenticate,
    ClientMessage,
    Connect,
    Event,
    FatalError,
    ModifyQuerySet,
    Mutation,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    RemoveQuery,
    Transition,
    Version,
)
from tests.sync.conversation import (
    NO_ARGS,
    SECOND_NS,
    SESSION,
    Conversation,
    add,
    connected,
    failed,
    mutate,
    query_set,
    updated,
)

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
    talk.say(query_set(2))
    assert talk.settle().modifications == ()


def test_an_id_removed_and_added_again_in_between_is_told_once():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.say(query_set(1, RemoveQuery(0), add(0, "m:other")))
    work = talk.transition()
    assert (work.closed, work.opened[0].path) == ((), "m.js:other")
    talk.done(work, {0: updated(1)})
    (transition,) = talk.heard()
    assert isinstance(transition, Transition)
    assert transition.modifications == (QueryUpdated(0, b"1"),)


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
    """F104."""
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
