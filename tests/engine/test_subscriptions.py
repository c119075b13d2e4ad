"""Who is told of a commit, how often, and what is left behind."""

from __future__ import annotations

import logging

import pytest

from reactive_store.engine.interval import EVERYTHING, Interval
from reactive_store.engine.reads import Read, ReadSet
from reactive_store.engine.subscriptions import Subscription, Subscriptions
from tests.engine.commits import BY_N, BY_TEXT, TABLE, change, commit, name, reading, search_change


def test_a_touched_subscription_fires_once_with_the_commit_and_is_gone() -> None:
    subscriptions, fired = Subscriptions(), list[int]()
    subscription = subscriptions.add(reading(Interval(b"b", b"d")), fired.append)
    assert subscriptions.publish(commit(1, change("x", None, (b"z", {})))) == 0
    assert subscription.is_active
    assert subscriptions.publish(commit(2, change("x", (b"z", {}), (b"c", {})))) == 1
    assert subscriptions.publish(commit(3, change("x", (b"c", {}), None))) == 0
    assert fired == [2]
    assert not subscription.is_active
    assert len(subscriptions) == 0
    subscriptions.check()


def test_one_that_is_touched_by_several_keys_fires_once() -> None:
    subscriptions, fired = Subscriptions(), list[int]()
    reads = reading(EVERYTHING, Interval(b"a", b"b"))
    reads.merge(reading(Interval(name("x"), None), index=(TABLE, "by_id")))
    subscriptions.add(reads, fired.append)
    written = [change(letter, (b"a", {}), (b"b", {})) for letter in "xyz"]
    assert len(subscriptions.touched(commit(1, *written))) == 1
    subscriptions.publish(commit(1, *written))
    assert fired == [1]


def test_asking_who_is_touched_changes_nothing() -> None:
    subscriptions = Subscriptions()
    subscription = subscriptions.add(reading(EVERYTHING), lambda _: None)
    written = commit(1, change("x", None, (b"a", {})))
    assert subscriptions.touched(written) == [subscription]
    assert subscriptions.touched(written) == [subscription]
    assert len(subscriptions) == 1


def test_a_cancelled_subscription_does_not_fire_and_cancelling_again_is_harmless() -> None:
    subscriptions, fired = Subscriptions(), list[int]()
    subscription = subscriptions.add(reading(EVERYTHING), fired.append)
    subscriptions.cancel(subscription)
    subscriptions.cancel(subscription)
    assert subscriptions.publish(commit(1, change("x", None, (b"a", {})))) == 0
    assert fired == []
    assert len(subscriptions) == 0
    assert not subscriptions._maps


def test_filters_decide_per_version() -> None:
    subscriptions = Subscriptions()
    reads = ReadSet()
    reads.add(BY_N, Read(EVERYTHING, 0, lambda document: document["done"]))
    subscriptions.add(reads, lambda _: None)

    def touched(old: dict | None, new: dict | None) -> int:
        written = change("x", old and (b"a", old), new and (b"a", new))
        return len(subscriptions.touched(commit(1, written)))

    assert touched({"done": False}, {"done": False}) == 0
    assert touched({"done": True}, {"done": False}) == 1
    assert touched(None, {"done": True}) == 1
    assert touched({"done": False}, None) == 0
    assert touched({"other": 1}, None) == 1, "a filter that raises must be run again"


@pytest.mark.parametrize("empty_first", [True, False])
def test_an_empty_interval_is_filed_nowhere(empty_first: bool) -> None:
    subscriptions = Subscriptions()
    intervals = [Interval(b"b", b"d"), Interval(b"c", b"c")]
    subscription = subscriptions.add(
        reading(*(intervals[::-1] if empty_first else intervals)), lambda _: None
    )
    lonely = subscriptions.add(reading(Interval(b"x", b"x"), index=("t", "i")), lambda _: None)
    subscriptions.check()
    subscriptions.cancel(subscription)
    subscriptions.cancel(lonely)
    subscriptions.check()
    assert not subscriptions._maps


def test_one_subscriber_that_fails_does_not_keep_the_others_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subscriptions, fired = Subscriptions(), list[int]()

    def broken(ts: int) -> None:
        raise RuntimeError("a bug")

    subscriptions.add(reading(EVERYTHING), broken)
    subscriptions.add(reading(EVERYTHING), fired.append)
    with caplog.at_level(logging.ERROR):
        assert subscriptions.publish(commit(7, change("x", None, (b"a", {})))) == 2
    assert fired == [7]
    assert "a subscriber failed ts=7" in caplog.text
    assert len(subscriptions) == 0


def test_a_subscriber_may_subscribe_again_while_it_is_told() -> None:
    subscriptions, fired = Subscriptions(), list[int]()

    def again(ts: int) -> None:
        fired.append(ts)
        subscriptions.add(reading(EVERYTHING), again)

    subscriptions.add(reading(EVERYTHING), again)
    for ts in (1, 2):
        subscriptions.publish(commit(ts, change("x", None, (b"a", {}))))
    assert fired == [1, 2]
    assert len(subscriptions) == 1


def test_many_with_one_prefix_come_and_go_without_searching_each_other() -> None:
    subscriptions = Subscriptions()
    reads = ReadSet()
    reads.add(BY_N, Read(Interval(b"room", b"room\xff"), 4, None))
    filed: list[Subscription] = [subscriptions.add(reads, lambda _: None) for _ in range(2000)]
    for subscription in reversed(filed):
        subscriptions.cancel(subscription)
    assert not subscriptions._maps


@pytest.mark.parametrize(
    ("written", "fires"),
    [
        (search_change("x", None, "red fox"), True),
        (search_change("x", "fox", None), True),
        (search_change("x", "bird", "fish"), False),
        (search_change("x", "bird", "fish", moved=(b"fox",)), True),
        (change("x", None, (b"fox", {})), False),
    ],
)
def test_a_search_hears_of_its_words_and_marks(written, fires) -> None:
    subscriptions, fired = Subscriptions(), list[int]()
    reads = ReadSet()
    reads.add(BY_TEXT, Read(Interval(b"fox", b"fox\x00"), 3, None))
    subscriptions.add(reads, fired.append)
    subscriptions.publish(commit(7, written))
    assert fired == ([7] if fires else [])
    subscriptions.check()
