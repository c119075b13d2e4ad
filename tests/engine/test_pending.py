"""The overlay of commits on their way: per timestamp, per key, and gone once they are durable."""

from __future__ import annotations

from reactive_store.engine.pending import PendingCommits
from tests.engine.commits import BY_N, TABLE, change, commit, name


def moving() -> PendingCommits:
    """A document that is inserted at 10, moved at 20, deleted at 30; another inserted at 20."""
    pending = PendingCommits()
    pending.add(commit(10, change("x", None, (b"a", {"n": 1}), ts=10)))
    pending.add(
        commit(
            20,
            change("x", (b"a", {"n": 1}), (b"b", {"n": 2}), ts=20),
            change("y", None, (b"c", {"n": 3}), ts=20),
        )
    )
    pending.add(commit(30, change("x", (b"b", {"n": 2}), None)))
    return pending


def keys(pending: PendingCommits, at: int, start: bytes = b"", end: bytes | None = None):
    overlay = pending.overlay(BY_N, start, end, at)
    return {key: None if row is None else row.ts for key, row in overlay.items()}


def test_each_timestamp_sees_the_commits_up_to_it() -> None:
    pending = moving()
    assert keys(pending, 9) == {}
    assert keys(pending, 10) == {b"a": 10}
    assert keys(pending, 20) == {b"a": None, b"b": 20, b"c": 20}
    assert keys(pending, 99) == {b"a": None, b"b": None, b"c": 20}


def test_an_overlay_ends_at_the_interval() -> None:
    pending = moving()
    assert keys(pending, 20, b"b", b"c") == {b"b": 20}
    assert keys(pending, 20, b"c") == {b"c": 20}
    assert pending.overlay((TABLE, "by_other"), b"", None, 99) == {}


def test_rows_carry_the_key_they_are_found_under() -> None:
    row = moving().overlay(BY_N, b"", None, 20)[b"c"]
    assert row is not None
    assert (row.key, row.id) == (b"c", name("y"))


def test_get_tells_a_deleted_document_from_one_that_is_not_pending() -> None:
    pending = moving()
    assert pending.get(TABLE, name("x"), 9) is None
    found = pending.get(TABLE, name("x"), 25)
    assert found is not None
    assert found[0] == 20
    assert pending.get(TABLE, name("x"), 30) == (30, None)
    assert pending.get(TABLE, name("z"), 99) is None


def test_a_document_that_stays_under_its_key_is_renewed_there() -> None:
    pending = PendingCommits()
    pending.add(commit(10, change("x", (b"a", {"n": 1}), (b"a", {"n": 1}), ts=10)))
    pending.add(commit(20, change("x", (b"a", {"n": 1}), (b"a", {"n": 1}), ts=20)))
    assert keys(pending, 15) == {b"a": 10}
    assert keys(pending, 20) == {b"a": 20}


def test_what_is_durable_leaves_and_the_rest_stays() -> None:
    pending = moving()
    pending.retire(10)
    assert len(pending) == 2
    assert keys(pending, 99) == {b"a": None, b"b": None, b"c": 20}
    assert pending.get(TABLE, name("x"), 99) == (30, None)
    pending.retire(20)
    assert keys(pending, 99) == {b"b": None}
    pending.retire(30)
    assert not pending
    assert keys(pending, 99) == {}
    assert pending.get(TABLE, name("x"), 99) is None


def test_retiring_everything_leaves_nothing_behind() -> None:
    pending = moving()
    pending.retire(99)
    assert not pending
    assert not pending._indexes
    assert not pending._by_id
    pending.retire(100)
    assert len(pending) == 0


def test_clearing_forgets_everything() -> None:
    pending = moving()
    pending.clear()
    assert not pending
    assert keys(pending, 99) == {}
    assert pending.get(TABLE, name("y"), 99) is None


def test_an_index_looked_at_early_and_one_looked_at_late_say_the_same() -> None:
    early, late = moving(), moving()
    assert early.overlay(BY_N, b"", None, 0) == {}  # from here on it is kept current
    for pending in (early, late):
        pending.add(commit(40, change("y", (b"c", {"n": 3}), (b"d", {"n": 4}), ts=40)))
        pending.retire(20)
        pending.add(commit(50, change("z", None, (b"e", {"n": 5}), ts=50)))
    for at in (9, 30, 40, 99):
        assert keys(early, at) == keys(late, at)
    assert keys(late, 99) == {b"b": None, b"c": None, b"d": 40, b"e": 50}


def test_an_index_is_found_anew_after_everything_was_durable() -> None:
    pending = moving()
    assert keys(pending, 99)
    pending.retire(30)
    assert keys(pending, 99) == {}
    pending.add(commit(40, change("z", None, (b"e", {"n": 5}), ts=40)))
    assert keys(pending, 99) == {b"e": 40}


def test_commits_come_in_their_order() -> None:
    assert [each.ts for each in moving()] == [10, 20, 30]
