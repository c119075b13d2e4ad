"""The checker itself: every class of anomaly is found, what has an order is left alone.

The histories are made up here, not the product's, and counted by names of their own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.trust.conftest import Say
from tests.trust.effort import EFFORT
from tests.trust.history.elle import check, described
from tests.trust.history.models import serial_history, spoiled
from tests.trust.history.record import FAIL, NEVER_ASKED, NO_ANSWER, OK, UNKNOWN, Txn, numbered


def t(text: str, **fields: Any) -> Txn:
    """A transaction from a line such as `a x 1, r x 1 2, w y 3, g y -`.

    Without instants of its own it overlaps everything.
    """
    ops = []
    for part in text.split(","):
        word, key, *values = part.split()
        numbers = [int(value) for value in values if value != "-"]
        match word:
            case "a":
                ops.append(("append", key, numbers[0]))
            case "r":
                ops.append(("read", key, numbers))
            case "w":
                ops.append(("write", key, numbers[0]))
            case _:
                ops.append(("get", key, numbers[0] if numbers else None))
    return Txn(ops, **{"invoke": 0.0, "complete": 100.0, **fields})


def at(invoke: float, complete: float) -> dict[str, float]:
    return {"invoke": invoke, "complete": complete}


def names(*transactions: Txn) -> set[str]:
    return {anomaly.name for anomaly in check(numbered(transactions))}


# What it is called, and the smallest history that has it.
ANOMALIES: list[tuple[str, Sequence[Txn]]] = [
    ("G0", [t("a x 1, a y 1"), t("a x 2, a y 2"), t("r x 1 2, r y 2 1")]),
    ("G1a", [t("a x 1", status=FAIL), t("r x 1")]),
    ("G1a", [t("w x 1", status=FAIL), t("g x 1")]),
    ("G1b", [t("a x 1, a x 2"), t("r x 1"), t("r x 1 2")]),
    ("G1b", [t("w x 1, w x 2"), t("g x 1")]),
    ("G1c", [t("a x 1, r y 2"), t("a y 2, r x 1")]),
    ("G1c", [t("w x 1, g y 2"), t("w y 2, g x 1")]),
    # Saw one half of a transaction: a fractured read.
    ("G-single", [t("a x 1, a y 1"), t("r x 1, r y -"), t("r x 1, r y 1")]),
    ("G-single", [t("w x 1, w y 1", ts=1), t("g x 1, g y -")]),
    # Write skew.
    ("G2", [t("r x -, a y 1"), t("r y -, a x 1"), t("r x 1, r y 1")]),
    ("G2", [t("g x -, w y 1"), t("g y -, w x 1")]),
    # A long fork: two readers see two writes in opposite orders.
    ("G2", [t("a x 1"), t("a y 1"), t("r x 1, r y -"), t("r x -, r y 1"), t("r x 1, r y 1")]),
    ("lost-update", [t("r x -, a x 1"), t("r x -, a x 2"), t("r x 1 2")]),
    ("lost-update", [t("w x 1"), t("g x 1, w x 2"), t("g x 1, w x 3")]),
    ("incompatible-order", [t("a x 1"), t("a x 2"), t("r x 1 2"), t("r x 2 1")]),
    ("duplicate", [t("a x 1"), t("r x 1 1")]),
    ("garbage", [t("r x 7")]),
    ("garbage", [t("g x 7")]),
    ("internal", [t("a x 1"), t("r x 1, a x 2, r x 1"), t("r x 1 2")]),
    ("internal", [t("a x 1, r x -")]),
    ("internal", [t("w x 1, g x -")]),
    ("internal", [t("a x 1"), t("r x 1, r x -")]),
    ("internal", [t("g x 1, w x 1")]),
    ("cyclic-versions", [t("g x 1, w x 2"), t("g x 2, w x 1")]),
    # A read of what had been overwritten before it was asked, and of what was not there any more.
    ("G-single-realtime", [t("a x 1", **at(0, 1)), t("r x -", **at(2, 3)), t("r x 1", **at(4, 5))]),
    ("G-single-realtime", [t("w x 1", **at(0, 1)), t("g x -", **at(2, 3))]),
    # An append that was acknowledged and is gone at the end.
    ("G-single-realtime", [t("a x 1", **at(0, 1)), t("a x 2", **at(2, 3)), t("r x 1", **at(4, 5))]),
    ("G0-realtime", [t("a x 1", **at(0, 1)), t("a x 2", **at(2, 3)), t("r x 2 1")]),
    ("G1c-realtime", [t("r x 1", **at(0, 1)), t("a x 1", **at(2, 3))]),
    (
        "G2-realtime",
        [
            t("r x -, a y 1", **at(0, 9)),
            t("a x 1", **at(0, 1)),
            t("r y -", **at(2, 3)),
            t("r x 1, r y 1"),
        ],
    ),
    # A client that no longer sees what it had seen, and one that misses its own write.
    (
        "G-single-session",
        [t("a x 1"), t("r x 1", session="s", place=0), t("r x -", session="s", place=1)],
    ),
    (
        "G-single-session",
        [t("w x 1", session="s", place=0), t("g x -", session="s", place=1)],
    ),
    ("G-single-timestamp", [t("a x 1", ts=1), t("r x -", ts=2), t("r x 1")]),
    ("G1c-timestamp", [t("a x 1", ts=2), t("r x 1", ts=1)]),
    ("G0-timestamp", [t("a x 1", ts=1), t("a x 2", ts=2), t("r x 2 1")]),
    ("order-timestamp", [t("a x 1", ts=2, **at(0, 1)), t("a y 1", ts=1, **at(2, 3))]),
    ("timestamp-reuse", [t("a x 1", ts=1), t("a y 1", ts=1)]),
]

CLEAN: list[tuple[str, Sequence[Txn]]] = [
    ("nothing", []),
    ("own writes are seen", [t("a x 1, r x 1, a x 2, r x 1 2"), t("r x 1 2")]),
    ("own register", [t("g x -, w x 1, g x 1, w x 2, g x 2")]),
    (
        "an unknown write that happened",
        [t("a x 1", status=UNKNOWN, **at(0, NO_ANSWER)), t("r x 1")],
    ),
    ("an unknown write that did not", [t("a x 1", status=UNKNOWN, **at(0, NO_ANSWER)), t("r x -")]),
    (
        "an unknown write that happened late",
        [
            t("a x 1", status=UNKNOWN, **at(0, NO_ANSWER)),
            t("r x -", **at(5, 6)),
            t("r x 1", **at(7, 8)),
        ],
    ),
    ("a failed write", [t("a x 1", status=FAIL), t("r x -")]),
    ("a read while it is being written", [t("a x 1", **at(0, 5)), t("r x -", **at(1, 2))]),
    (
        "readers of one timestamp in either order",
        [t("a x 1", ts=1, **at(0, 1)), t("r x 1", ts=1, **at(4, 5)), t("r x 1", ts=1, **at(2, 3))],
    ),
    (
        "a push of a while ago",
        [
            t("a x 1", ts=1, **at(0, 1)),
            t("a x 2", ts=2, **at(2, 3)),
            t("r x 1", ts=1, invoke=NEVER_ASKED, complete=4.0),
            t("r x 1 2"),
        ],
    ),
    ("writers that never read", [t("w x 1"), t("w x 2"), t("g x 1"), t("g x 2")]),
    ("write skew that has an order", [t("r x -, a y 1"), t("r y 1, a x 1"), t("r x 1, r y 1")]),
]


@pytest.mark.parametrize(("name", "history"), ANOMALIES)
def test_every_anomaly_is_found(name: str, history: Sequence[Txn]) -> None:
    assert name in names(*history)


@pytest.mark.parametrize(("text", "history"), CLEAN, ids=[text for text, _ in CLEAN])
def test_what_has_an_order_is_left_alone(text: str, history: Sequence[Txn]) -> None:
    assert names(*history) == set()


def test_the_shortest_cycle_is_told_with_its_transactions() -> None:
    noise = [t(f"a n{number} 1, r n{number} 1") for number in range(20)]
    skew = [t("r x -, a y 1"), t("r y -, a x 1"), t("r x 1, r y 1")]
    history = numbered([*noise[:10], *skew, *noise[10:]])
    (anomaly,) = check(history)
    assert sorted(anomaly.ids) == [10, 11]
    text = described(history, [anomaly])
    assert "T10 before T11 (rw): did not see 1, appended to x by the other" in text
    assert "T11 ? ok: read y [] append x 1" in text


def test_a_transaction_with_a_cycle_in_data_is_not_accused_of_timestamps_too() -> None:
    assert names(t("r x -, a y 1", ts=1), t("r y -, a x 1", ts=2), t("r x 1, r y 1", ts=3)) == {
        "G2"
    }


def test_a_serial_store_is_never_accused(evidence: Say) -> None:
    histories = transactions = 0

    @hypothesis.seed(EFFORT.seed)
    @given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 5), st.booleans())
    def holds(seed: int, count: int, keys: int, with_ts: bool) -> None:
        nonlocal histories, transactions
        history = serial_history(seed, count, keys=keys, with_ts=with_ts)
        anomalies = check(history)
        assert anomalies == [], described(history, anomalies)
        histories, transactions = histories + 1, transactions + len(history)

    holds()
    evidence("serializable", checker_histories=histories, checker_transactions=transactions)


def test_one_stale_read_is_found(evidence: Say) -> None:
    histories = 0

    @hypothesis.seed(EFFORT.seed)
    @given(st.integers(0, 2**32), st.integers(5, 60), st.integers(1, 4), st.booleans())
    def holds(seed: int, count: int, keys: int, with_ts: bool) -> None:
        nonlocal histories
        history = serial_history(seed, count, keys=keys, with_ts=with_ts)
        done = spoiled(history, random.Random(seed))
        assume(done is not None)
        assert check(history) != [], done
        histories += 1

    holds()
    evidence("serializable", checker_histories=histories, found=histories)


def test_a_vanished_append_is_found(evidence: Say) -> None:
    histories = 0

    @hypothesis.seed(EFFORT.seed)
    @given(st.integers(0, 2**32), st.integers(5, 60), st.data())
    def holds(seed: int, count: int, data: st.DataObject) -> None:
        nonlocal histories
        history = serial_history(seed, count)
        acknowledged = [
            (key, value)
            for txn in history
            for kind, key, value in txn.ops
            if kind == "append" and txn.status == OK
        ]
        assume(acknowledged)
        _forget(history, *data.draw(st.sampled_from(acknowledged)))
        assert check(history) != []
        histories += 1

    holds()
    evidence("durable", checker_histories=histories, found=histories)


def _forget(history: Sequence[Txn], gone: Any, element: Any) -> None:
    """Take an element out of every read of its list."""
    for txn in history:
        txn.ops = [
            (kind, key, [each for each in value if each != element])
            if (kind, key) == ("read", gone)
            else (kind, key, value)
            for kind, key, value in txn.ops
        ]


@hypothesis.seed(EFFORT.seed)
@given(st.integers(0, 2**32), st.permutations(range(12)))
def test_the_order_of_the_records_does_not_matter(seed: int, order: list[int]) -> None:
    history = serial_history(seed, 12)[:12]
    spoiled(history, random.Random(seed))
    shuffled = [history[position] for position in order if position < len(history)]
    is_clean = not check(numbered(history))
    assert (not check(numbered(shuffled))) is is_clean


@pytest.mark.parametrize("with_ts", [True, False])
def test_twenty_thousand_transactions_take_seconds(with_ts: bool, evidence: Say) -> None:
    history = serial_history(7, 20_000, keys=400, clients=32, with_ts=with_ts)
    started = time.process_time()
    assert check(history) == []
    seconds = time.process_time() - started
    assert seconds < 20, "the checker is too slow to be used"
    spoiled(history, random.Random(7))
    assert check(history) != []
    evidence("serializable", checker_transactions=len(history), checker_seconds=round(seconds, 1))
