"""Frames that sessions share: who shares one, and who must not."""

from __future__ import annotations

import json

import pytest

from reactive_store.functions.live_queries import LiveResult
from reactive_store.sync.frames import Moment, SharedFrame
from reactive_store.sync.messages import Authenticate, Version
from reactive_store.sync.session import Verified
from tests.sync.conversation import (
    ALICE,
    SECOND_NS,
    Conversation,
    add,
    connected,
    mutate,
    query_set,
    updated,
)

BEFORE, AFTER = Version(1, 0, 100), Version(1, 0, 101)
RESULT = updated("hello")


def told(**changes: object) -> dict[str, object]:
    case: dict[str, object] = {
        "start": BEFORE, "end": AFTER, "query_id": 0, "result": RESULT, "clock_skew_ms": None,
    }  # fmt: skip
    return case | changes


def watching(talk: Conversation) -> Conversation:
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.ts += 1
    talk.session.invalidate(0)
    return talk


def pushed(talk: Conversation, result: LiveResult, moment: Moment) -> SharedFrame | None:
    work = talk.session.begin_push(talk.now_ns)
    assert work is not None
    frame = talk.session.push(work, result, moment)
    talk.session.check()
    return frame


def test_sessions_that_agree_share_a_frame():
    moment = Moment(7, 0.0)
    frame = moment.transition(**told())
    assert moment.transition(**told()) is frame
    assert json.loads(frame.text)["serverTs"] == 7


@pytest.mark.parametrize(
    "change",
    [
        {"start": Version(1, 0, 99)},
        {"end": Version(1, 0, 102)},
        {"query_id": 1},
        {"result": updated("hello", journal="j")},
        {"clock_skew_ms": 0},
        {"clock_skew_ms": -12},
    ],
)
def test_sessions_that_differ_in_anything_do_not(change):
    moment = Moment(7, 0.0)
    one, other = moment.transition(**told()), moment.transition(**told(**change))
    assert one.text != other.text
    assert moment.transition(**told()) is one


def test_frames_do_not_outlive_their_moment():
    first, second = Moment(1, 0.0).transition(**told()), Moment(2, 0.0).transition(**told())
    assert (json.loads(first.text)["serverTs"], json.loads(second.text)["serverTs"]) == (1, 2)


def test_a_push_says_what_the_ordinary_way_says():
    moment = Moment(5 * SECOND_NS, 5.0)
    quick, ordinary = watching(connected()), watching(connected())
    frame = pushed(quick, RESULT, moment)
    assert frame is not None
    ordinary.session.complete(ordinary.transition(), {0: RESULT}, 5 * SECOND_NS)
    assert ordinary.session.take_outgoing(5.0) == [frame.text]
    assert quick.heard() == []
    for talk in (quick, ordinary):
        talk.ts += 1
        talk.session.invalidate(0)
    assert quick.settle((0, updated(2))) == ordinary.settle((0, updated(2)))


def test_two_sessions_in_one_state_are_pushed_one_frame():
    moment = Moment(5, 0.0)
    frames = {pushed(watching(connected()), RESULT, moment) for _ in range(3)}
    assert len(frames) == 1
    assert None not in frames


def test_an_equal_answer_is_not_repeated_but_time_moves_on():
    talk = watching(connected())
    assert pushed(talk, updated(1), Moment(5, 0.0)) is None
    (transition,) = talk.heard()
    assert (transition.modifications, transition.end.ts) == ((), 101)


def test_an_answer_that_may_need_pieces_goes_the_ordinary_way():
    talk = watching(connected(takes_chunks=True, chunk_bytes=1000))
    assert pushed(talk, updated("x" * 2000), Moment(5, 0.0)) is None
    assert len(talk.heard()) > 1


def test_what_was_said_before_is_not_overtaken():
    talk = connected()
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.session.invalidate(0)
    work = talk.session.begin_push(talk.now_ns)
    talk.now_s = 1000.0
    talk.session.tick(1000.0)  # says Ping
    assert talk.session.push(work, RESULT, Moment(5, 0.0)) is None
    assert len(talk.heard()) == 2


def test_a_session_that_ended_meanwhile_says_nothing():
    talk = watching(connected())
    work = talk.session.begin_push(talk.now_ns)
    talk.session.disconnect()
    assert talk.session.push(work, RESULT, Moment(5, 0.0)) is None
    assert talk.heard() == []


def also_mutates(talk: Conversation) -> None:
    talk.say(mutate(0))


def also_subscribes(talk: Conversation) -> None:
    talk.say(query_set(1, add(1)))


def is_behind(talk: Conversation) -> None:
    talk.keeps_up = False
    for _ in range(talk.limits.unsent_transitions):
        talk.done(talk.transition(), {0: updated(talk.ts)})
        talk.session.invalidate(0)


def is_computing(talk: Conversation) -> None:
    talk.transition()
    talk.session.invalidate(0)


def has_ended(talk: Conversation) -> None:
    talk.session.disconnect()


@pytest.mark.parametrize(
    "happens", [also_mutates, also_subscribes, is_behind, is_computing, has_ended]
)
def test_only_one_stale_query_and_nothing_else_is_pushed(happens):
    talk = watching(connected())
    happens(talk)
    assert talk.session.begin_push(talk.now_ns) is None


def test_two_stale_queries_take_the_ordinary_way():
    talk = Conversation()
    talk.say(query_set(0, add(0), add(1)))
    talk.settle((0, updated(1)), (1, updated(2)))
    talk.session.invalidate(0)
    talk.session.invalidate(1)
    assert talk.session.begin_push(talk.now_ns) is None


def test_who_has_a_token_is_pushed_to_until_it_ends():
    talk = connected()
    talk.say(Authenticate(0, "User", "token"))
    talk.done(talk.verify(), Verified(ALICE, expires_ns=10 * SECOND_NS))
    talk.say(query_set(0, add(0)))
    talk.settle((0, updated(1)))
    talk.now_s = 9.0
    talk.ts += 1
    talk.session.invalidate(0)
    assert pushed(talk, updated(2), Moment(talk.now_ns, talk.now_s)) is not None
    talk.session.drained()
    talk.now_s = 10.0
    talk.ts += 1
    talk.session.invalidate(0)
    assert talk.session.begin_push(talk.now_ns) is None
    assert talk.session.next_work(talk.now_ns) is None
    assert talk.session.is_closed
