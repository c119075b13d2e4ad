"""Finding who is touched by a commit gives what asking everybody gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine.interval import Interval, prefix_end
from reactive_store.engine.reads import (
    CommitChanges,
    DocumentChange,
    KeyChange,
    Read,
    ReadSet,
    touches,
)
from reactive_store.engine.subscriptions import Subscription, Subscriptions
from reactive_store.persistence.contract import Row
from reactive_store.values.wire import dumps

pytestmark = pytest.mark.timeout(900)  # the thorough profile takes minutes

INDEXES = [("notes", "by_n"), ("notes", "by_id"), ("people", "by_n")]

keys = st.lists(st.sampled_from([0, 1, 2, 255]), max_size=3).map(bytes)
fields = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 2))

predicates = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2)).map(
        # A document without the field makes it raise, which counts as passing.
        lambda pair: lambda document: document[pair[0]] == pair[1]
    ),
)


@st.composite
def reads(draw: st.DrawFn) -> Read:
    start = draw(keys)
    prefix_bytes = draw(st.integers(0, len(start)))
    end = draw(st.one_of(st.none(), keys))
    if prefix_bytes:
        # Inside an equality prefix: all keys share the first bytes of the start.
        bound = prefix_end(start[:prefix_bytes])
        if bound is not None and (end is None or end > bound):
            end = bound
        if bound is None:
            prefix_bytes = 0
    return Read(Interval(start, end), prefix_bytes, draw(predicates))


@st.composite
def read_sets(draw: st.DrawFn) -> ReadSet:
    found = ReadSet()
    for index, read in draw(
        st.lists(st.tuples(st.sampled_from(INDEXES), reads()), min_size=1, max_size=4)
    ):
        found.add(index, read)
    return found


@st.composite
def changes(draw: st.DrawFn) -> DocumentChange:
    identity = draw(st.binary(min_size=2, max_size=2))
    exists_before, exists_after = draw(
        st.sampled_from([(False, True), (True, False), (True, True)])
    )

    def version(exists: bool) -> Row | None:
        return Row(identity, identity, 1, dumps(draw(fields))) if exists else None

    def key(exists: bool) -> bytes | None:
        return draw(keys) if exists else None

    return DocumentChange(
        "notes",
        identity,
        version(exists_before),
        version(exists_after),
        tuple(KeyChange(index, key(exists_before), key(exists_after)) for index in INDEXES),
    )


commits = st.lists(changes(), min_size=1, max_size=3).map(
    lambda all_: CommitChanges(1, tuple(all_))
)


@given(
    st.lists(read_sets(), min_size=1, max_size=12),
    st.lists(st.one_of(commits, st.integers(0, 11)), min_size=1, max_size=6),
)
def test_the_subscriptions_found_are_those_whose_reads_are_touched(
    subscribed: list[ReadSet], steps: list[CommitChanges | int]
) -> None:
    subscriptions = Subscriptions()
    fired: list[ReadSet] = []
    live: dict[Subscription, ReadSet] = {}
    for read_set in subscribed:
        subscription = subscriptions.add(
            read_set, lambda _ts, read_set=read_set: fired.append(read_set)
        )
        live[subscription] = read_set
        subscriptions.check()
    for step in steps:
        if isinstance(step, int):
            for subscription in list(live)[step : step + 1]:
                subscriptions.cancel(subscription)
                del live[subscription]
        else:
            expected = {each for each, found in live.items() if touches(found, step) is not None}
            assert set(subscriptions.touched(step)) == expected
            fired.clear()
            assert subscriptions.publish(step) == len(expected)
            assert len(fired) == len(expected)
            for each in expected:
                del live[each]
        subscriptions.check()
        assert len(subscriptions) == len(live)
