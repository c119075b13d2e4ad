"""What a client says on each occasion, and what it makes of what it hears."""

from __future__ import annotations

import pytest

from reactive_store.client.state import (
    AuthRefused,
    CallEnded,
    ClientEvent,
    ClientState,
    ConnectionLost,
    QueriesChanged,
    Stopped,
)
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
    Ping,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    RemoveQuery,
    ServerMessage,
    Transition,
    TransitionChunk,
    Version,
    decode_client,
    encode_server,
    split_transition,
)

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
NO_ARGS = Arguments(b"{}")


def said(state: ClientState) -> list[ClientMessage]:
    return [decode_client(frame) for frame in state.take_outgoing()]


def hear(state: ClientState, *messages: ServerMessage) -> list[ClientEvent]:
    events: list[ClientEvent] = []
    for message in messages:
        events += state.receive(encode_server(message))
    return events


def opened() -> ClientState:
    state = ClientState(SESSION)
    state.open()
    said(state)
    return state


def to(*version: int, start: tuple[int, int, int] = (0, 0, 0), changes: tuple = ()) -> Transition:
    return Transition(Version(*start), Version(*version), changes)


def test_a_first_socket_starts_with_connect_and_an_empty_query_set():
    state = ClientState(SESSION)
    state.open(client_ts_ms=5)
    assert said(state) == [
        Connect(SESSION, 0, "InitialConnect", None, 5),
        ModifyQuerySet(0, 1, ()),
    ]


def test_what_was_wished_for_before_the_socket_is_said_when_it_opens():
    state = ClientState(SESSION)
    state.authenticate("User", "token")
    assert state.subscribe("m:q", b'{"a":1}') == 0
    assert state.mutate("m:x", b"{}") == 0
    assert state.act("m:a", b"{}") == 1
    state.open()
    assert said(state)[1:] == [
        Authenticate(0, "User", "token"),
        ModifyQuerySet(0, 1, (AddQuery(0, "m:q", Arguments(b'{"a":1}')),)),
        Mutation(0, "m:x", NO_ARGS),
        Action(1, "m:a", NO_ARGS),
    ]


def test_changes_on_an_open_socket_are_said_at_once():
    state = opened()
    state.subscribe("m:q", b"{}")
    state.unsubscribe(0)
    state.authenticate("Admin", "key", {"subject": "u"})
    state.authenticate("None")
    assert said(state) == [
        ModifyQuerySet(1, 2, (AddQuery(0, "m:q", NO_ARGS),)),
        ModifyQuerySet(2, 3, (RemoveQuery(0),)),
        Authenticate(0, "Admin", "key", {"subject": "u"}),
        Authenticate(1, "None"),
    ]


def test_results_arrive_with_transitions():
    state = opened()
    state.subscribe("m:q", b"{}")
    state.subscribe("m:r", b"{}")
    assert state.result(0) is None
    changes = (QueryUpdated(0, b"1.0"), QueryFailed(1, "bad"), QueryUpdated(9, b"0"))
    assert hear(state, to(3, 0, 7, changes=changes)) == [QueriesChanged((0, 1))]
    assert state.result(0) == QueryUpdated(0, b"1.0")
    assert state.result(1) == QueryFailed(1, "bad")
    assert state.ts == 7
    assert state.is_settled


def test_a_mutation_ends_with_the_transition_that_reaches_its_commit():
    state = opened()
    state.mutate("m:x", b"{}")
    response = MutationResponse(0, True, b"null", 9)
    assert hear(state, response, to(1, 0, 8)) == []
    assert state.pending_calls() == [0]
    assert hear(state, to(1, 0, 9, start=(1, 0, 8))) == [CallEnded(0, response)]
    assert state.pending_calls() == []


def test_a_failure_ends_a_mutation_at_once():
    state = opened()
    state.mutate("m:x", b"{}")
    response = MutationResponse(0, False, "bad")
    assert hear(state, response) == [CallEnded(0, response)]


def test_an_action_ends_with_its_response():
    state = opened()
    state.act("m:a", b"{}")
    response = ActionResponse(0, True, b"1.0")
    assert hear(state, response) == [CallEnded(0, response)]


def test_answers_to_nothing_are_ignored():
    state = opened()
    assert hear(state, MutationResponse(5, True, b"1", 9), ActionResponse(6, True, b"1")) == []
    assert hear(state, Ping()) == []


def test_after_a_lost_socket_everything_unanswered_is_said_again():
    state = opened()
    state.subscribe("m:q", b"{}")
    state.subscribe("m:r", b"{}", "begun")
    state.unsubscribe(0)
    for path in ("m:answered", "m:committed", "m:unheard"):
        state.mutate(path, b"{}")
    state.act("m:a", b"{}")
    changes = (QueryUpdated(1, b"1", (), "j"),)
    hear(
        state,
        MutationResponse(0, False, "bad"),
        MutationResponse(1, True, b"null", 20),
        to(4, 0, 10, changes=changes),
    )
    assert state.lose("gone") == [CallEnded(3, ConnectionLost(3))]
    state.act("m:b", b"{}")
    assert said(state) == []
    state.open()
    assert said(state) == [
        Connect(SESSION, 1, "gone", 20),
        ModifyQuerySet(0, 1, (AddQuery(1, "m:r", NO_ARGS, "j"),)),
        Mutation(1, "m:committed", NO_ARGS),
        Mutation(2, "m:unheard", NO_ARGS),
        Action(4, "m:b", NO_ARGS),
    ]


def test_results_survive_a_lost_socket_until_newer_ones_come():
    state = opened()
    state.subscribe("m:q", b"{}")
    hear(state, to(2, 0, 10, changes=(QueryUpdated(0, b"1"),)))
    state.lose(None)
    state.open()
    assert state.result(0) == QueryUpdated(0, b"1")
    hear(state, to(1, 0, 12, changes=(QueryUpdated(0, b"2"),)))
    assert state.result(0) == QueryUpdated(0, b"2")


def test_a_missing_journal_keeps_the_one_before_and_null_forgets_it():
    state = opened()
    state.subscribe("m:q", b"{}")
    keep = QueryUpdated(0, b"2", (), None, has_journal=False)
    hear(state, to(2, 0, 10, changes=(QueryUpdated(0, b"1", (), "j"),)))
    hear(state, to(2, 0, 11, start=(2, 0, 10), changes=(keep,)))
    state.open()
    assert said(state)[1] == ModifyQuerySet(0, 1, (AddQuery(0, "m:q", NO_ARGS, "j"),))
    hear(state, to(1, 0, 12, changes=(QueryUpdated(0, b"1"),)))
    state.open()
    assert said(state)[1] == ModifyQuerySet(0, 1, (AddQuery(0, "m:q", NO_ARGS),))


def test_a_removed_query_has_no_result():
    state = opened()
    state.subscribe("m:q", b"{}")
    hear(state, to(2, 0, 10, changes=(QueryUpdated(0, b"1"),)))
    state.unsubscribe(0)
    assert state.result(0) is None
    assert hear(state, to(2, 0, 11, start=(2, 0, 10), changes=(QueryUpdated(0, b"2"),))) == []
    assert hear(state, to(3, 0, 11, start=(2, 0, 11), changes=(QueryRemoved(0),))) == []
    assert state.result(0) is None


@pytest.mark.parametrize(
    "transition",
    [
        to(1, 0, 5, start=(0, 0, 1)),
        to(1, 0, 5, start=(1, 0, 0)),
        to(0, 1, 5, start=(0, 1, 0)),
    ],
)
def test_a_transition_from_somewhere_else_is_refused(transition: Transition):
    with pytest.raises(ProtocolError, match="Invalid start version"):
        hear(opened(), transition)


@pytest.mark.parametrize("end", [(1, 0, 4), (0, 0, 6), (2, 0, 4)])
def test_a_transition_into_the_past_is_refused(end: tuple[int, int, int]):
    state = opened()
    hear(state, to(1, 0, 5))
    with pytest.raises(ProtocolError, match="goes back"):
        hear(state, to(*end, start=(1, 0, 5)))


def test_pieces_of_a_transition_are_put_together():
    state = opened()
    state.subscribe("m:q", b"{}")
    whole = encode_server(to(2, 0, 5, changes=(QueryUpdated(0, '"é"'.encode()),)))
    pieces = split_transition(whole, 20)
    assert all(state.receive(piece) == [] for piece in pieces[:-1])
    assert state.receive(pieces[-1]) == [QueriesChanged((0,))]


@pytest.mark.parametrize(
    "pieces",
    [
        [TransitionChunk("{", 1, 2, "a")],
        [TransitionChunk("{", 0, 2, "a"), TransitionChunk("}", 1, 3, "a")],
        [TransitionChunk("{", 0, 2, "a"), TransitionChunk("}", 1, 2, "b")],
        [TransitionChunk("{", 0, 2, "a"), Ping(), TransitionChunk("}", 1, 2, "a")],
        [TransitionChunk('{"type":"Ping"}', 0, 1, "a")],
    ],
)
def test_pieces_that_do_not_belong_together_are_refused(pieces: list[ServerMessage]):
    with pytest.raises(ProtocolError):
        hear(opened(), *pieces)


def test_refusals_are_told():
    assert hear(opened(), AuthError("no", 0, True)) == [AuthRefused("no", True)]
    assert hear(opened(), FatalError("no")) == [Stopped("no")]
