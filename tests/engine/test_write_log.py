"""The recent commits: what they cover, what they answer, and how much they may hold."""

from __future__ import annotations

from reactive_store.engine.interval import EVERYTHING, Interval
from reactive_store.engine.write_log import WriteLog
from tests.engine.commits import change, commit, reading, search_change


def log_of(*timestamps: int, capacity: int = 100, most_bytes: int = 1_000_000) -> WriteLog:
    """Commit T writes the key of its number."""
    log = WriteLog(start_ts=10, capacity=capacity, most_bytes=most_bytes)
    for ts in timestamps:
        log.append(commit(ts, change("x", None, (bytes([ts]), {}))))
    return log


def test_commits_after_a_timestamp_come_newest_first() -> None:
    log = log_of(11, 13, 15)
    assert [each.ts for each in log.since(11)] == [15, 13]
    assert [each.ts for each in log.since(15)] == []
    assert len(log) == 3


def test_what_lies_before_the_start_is_not_covered() -> None:
    log = log_of(11)
    assert log.covers(10)
    assert not log.covers(9)


def test_a_forgotten_commit_is_not_covered_and_its_successors_are() -> None:
    log = log_of(11, 12, 13, 14, capacity=2)
    assert len(log) == 2
    assert log.covers(12)
    assert not log.covers(11)


def test_the_oldest_commit_that_touches_is_found() -> None:
    log = log_of(11, 12, 13)
    found = log.first_touch(reading(Interval(b"\x0c", None)), since=10)
    assert found is not None
    assert found[0] == 12
    assert found[1].keys[1].new == b"\x0c"
    assert log.first_touch(reading(Interval(b"\x0e", None)), since=10) is None
    assert log.first_touch(reading(EVERYTHING), since=13) is None


def test_commits_after_the_end_asked_for_do_not_count() -> None:
    log = log_of(11, 12, 13)
    only_later = reading(Interval(b"\x0d", None))
    assert log.first_touch(only_later, since=10, until=12) is None
    assert log.first_touch(only_later, since=10, until=13) is not None


def test_large_commits_are_forgotten_for_their_bytes() -> None:
    log = WriteLog(start_ts=0, capacity=1000, most_bytes=25_000)
    for ts in range(1, 11):
        old, new = {"pad": "o" * 5000}, {"pad": "n" * 5000}
        log.append(commit(ts, change("x", (b"k", old), (b"k", new))))
    assert len(log) == 2
    assert log.covers(8)
    assert not log.covers(7)


def test_a_commit_larger_than_the_log_leaves_it_empty_and_right() -> None:
    log = WriteLog(start_ts=0, capacity=1000, most_bytes=1000)
    log.append(commit(5, change("x", None, (b"k", {"pad": "n" * 5000}))))
    assert len(log) == 0
    assert not log.covers(4)
    assert log.covers(5)
    log.append(commit(6, change("x", (b"k", {}), None)))
    assert log.covers(5)
    assert log.first_touch(reading(EVERYTHING), since=5) is not None


def test_words_of_search_indexes_count_as_bytes() -> None:
    plain, wordy = (WriteLog(start_ts=0, capacity=100, most_bytes=20_000) for _ in range(2))
    for ts in range(1, 20):
        plain.append(commit(ts, search_change("x", None, "one")))
        wordy.append(commit(ts, search_change("x", None, " ".join(map(str, range(100))))))
    assert len(plain) == 19
    assert len(wordy) == 1
