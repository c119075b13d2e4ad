"""Hot ranges: the same answers as without, within the budget, whatever happens."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine.hot_ranges import HotRanges
from reactive_store.engine.reads import CommitChanges, DocumentChange, KeyChange
from reactive_store.persistence.contract import Row

INDEX = ("notes", "by_n")


def row(key: bytes, ts: int, text: bytes = b"{}") -> Row:
    return Row(key, key, ts, text)


class _Stored:
    """The naive truth: one sorted list, the newest state only."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Row] = {}
        self.ts = 1

    def page(
        self, start: bytes, end: bytes | None, *, descending: bool, limit: int
    ) -> tuple[list[Row], bytes | None]:
        keys = sorted(self.rows)
        found = keys[
            bisect_left(keys, start) : len(keys) if end is None else bisect_left(keys, end)
        ]
        if descending:
            found.reverse()
        taken = [self.rows[key] for key in found[:limit]]
        return taken, (found[limit - 1] if len(found) > limit else None)

    def write(self, key: bytes, text: bytes | None) -> CommitChanges:
        self.ts += 1
        old = self.rows.pop(key, None)
        new = None if text is None else row(key, self.ts, text)
        if new is not None:
            self.rows[key] = new
        change = DocumentChange(
            "notes",
            key,
            old,
            new,
            (KeyChange(INDEX, None if old is None else key, None if new is None else key),),
        )
        return CommitChanges(self.ts, (change,) if old or new else ())


keys = st.integers(0, 40).map(lambda number: bytes([number]))
reads = st.tuples(
    st.just("read"), keys, st.one_of(st.none(), keys), st.booleans(), st.integers(1, 8)
)
writes = st.tuples(st.just("write"), keys, st.one_of(st.none(), st.binary(max_size=60)))
gets = st.tuples(st.just("get"), keys)


@given(
    budget=st.sampled_from([2_000, 6_000, 10_000_000]),
    steps=st.lists(st.one_of(reads, writes, gets), max_size=60),
)
def test_memory_answers_as_the_store_does_or_not_at_all(budget: int, steps: list) -> None:
    stored, hot = _Stored(), HotRanges(budget, newest_ts=1)
    for step in steps:
        match step:
            case ("write", key, text):
                hot.publish(stored.write(key, text))
            case ("get", key):
                known = hot.get("notes", key, stored.ts)
                truth = stored.rows.get(key)
                if known is None:
                    hot.keep_document("notes", key, truth, stored.ts)
                else:
                    assert known == (truth,)
            case ("read", start, end, descending, limit):
                truth = stored.page(start, end, descending=descending, limit=limit)
                known = hot.page(INDEX, start, end, stored.ts, descending=descending, limit=limit)
                if known is None:
                    hot.keep_page(INDEX, start, end, stored.ts, *truth, descending=descending)
                else:
                    assert known == truth
        hot.check()


def test_the_same_question_again_is_answered_from_memory_also_after_a_write() -> None:
    stored, hot = _Stored(), HotRanges(1_000_000, newest_ts=1)
    for number in range(30):
        stored.write(bytes([number]), b"{}")
    question = {"descending": True, "limit": 20}
    page = stored.page(b"", None, **question)
    hot.keep_page(INDEX, b"", None, stored.ts, *page, descending=True)
    for number in range(30, 60):
        hot.publish(stored.write(bytes([number]), b"{}"))
        assert hot.page(INDEX, b"", None, stored.ts, **question) == stored.page(
            b"", None, **question
        )
    assert hot.counters.misses == 0


def test_a_read_of_the_past_is_not_answered() -> None:
    stored, hot = _Stored(), HotRanges(1_000_000, newest_ts=1)
    hot.keep_page(INDEX, b"", None, stored.ts, [], None, descending=False)
    hot.keep_document("notes", b"\x01", None, stored.ts)
    before = stored.ts
    hot.publish(stored.write(b"\x01", b"{}"))
    assert hot.page(INDEX, b"", None, before, descending=False, limit=5) is None
    assert hot.get("notes", b"\x01", before) is None
    assert hot.get("notes", b"\x01", stored.ts) is not None


def test_the_least_recently_used_goes_first_and_whole() -> None:
    hot = HotRanges(3_000, newest_ts=1)
    for number in range(3):
        rows = [row(bytes([number, low]), 1) for low in range(2)]
        hot.keep_page(("notes", f"by_{number}"), b"", None, 1, rows, None, descending=False)
    question = {"descending": False, "limit": 9}
    assert hot.page(("notes", "by_0"), b"", None, 1, **question) is None
    assert hot.page(("notes", "by_1"), b"", None, 1, **question) is not None
    hot.keep_page(("notes", "by_3"), b"", None, 1, [row(b"x", 1)], None, descending=False)
    assert hot.page(("notes", "by_2"), b"", None, 1, **question) is None
    assert hot.page(("notes", "by_1"), b"", None, 1, **question) is not None
    hot.check()


def test_a_walk_too_long_to_be_hot_is_not_kept() -> None:
    stored, hot = _Stored(), HotRanges(100_000_000, newest_ts=1)
    for number in range(5_000):
        stored.write(number.to_bytes(2, "big"), b"{}")
    page = stored.page(b"", None, descending=False, limit=5_000)
    hot.keep_page(INDEX, b"", None, stored.ts, *page, descending=False)
    assert hot.counters.bytes == 0
