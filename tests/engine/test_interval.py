"""Intervals and the map that finds them by a key."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine.interval import (
    EVERYTHING,
    Interval,
    IntervalMap,
    after,
    prefix_end,
    prefix_interval,
)

keys = st.binary(max_size=4).map(lambda raw: bytes(byte % 4 or 255 for byte in raw))
intervals = st.tuples(keys, st.one_of(st.none(), keys)).map(lambda pair: Interval(*pair))


def test_an_interval_includes_its_start_and_excludes_its_end() -> None:
    interval = Interval(b"b", b"d")
    assert [key for key in (b"a", b"b", b"c", b"cz", b"d") if interval.contains(key)] == [
        b"b",
        b"c",
        b"cz",
    ]


def test_everything_contains_every_key() -> None:
    assert EVERYTHING.contains(b"")
    assert EVERYTHING.contains(b"\xff" * 9)


def test_the_end_of_a_prefix_of_ff_bytes_is_open() -> None:
    assert prefix_end(b"\xff\xff") is None
    assert prefix_end(b"a\xff") == b"b"
    assert prefix_end(b"") is None


@given(prefix=keys, key=keys)
def test_a_prefix_interval_contains_exactly_the_keys_with_that_prefix(
    prefix: bytes, key: bytes
) -> None:
    assert prefix_interval(prefix).contains(key) == key.startswith(prefix)


@given(key=keys, other=keys)
def test_no_key_lies_between_a_key_and_the_one_after_it(key: bytes, other: bytes) -> None:
    assert not key < other < after(key)


@given(
    filed=st.lists(st.tuples(intervals, st.integers(0, 3)), max_size=12),
    removed=st.lists(st.integers(0, 11), max_size=12),
    probes=st.lists(keys, min_size=1, max_size=8),
)
def test_the_map_finds_what_a_scan_of_all_intervals_finds(
    filed: list[tuple[Interval, int]], removed: list[int], probes: list[bytes]
) -> None:
    of_keys: IntervalMap[int] = IntervalMap()
    live: dict[int, tuple[Interval, int]] = {}
    for number, (interval, wanted_prefix) in enumerate(filed):
        prefix_bytes = _shared_prefix(interval, wanted_prefix)
        live[number] = (interval, prefix_bytes)
        of_keys.add(interval, prefix_bytes, number)
        of_keys.check()
    for number in removed:
        if number in live:
            of_keys.remove(*live.pop(number), number)
            of_keys.check()
    assert len(of_keys) == sum(not interval.is_empty for interval, _ in live.values())
    for key in probes:
        expected = {number for number, (interval, _) in live.items() if interval.contains(key)}
        assert set(of_keys.stab(key)) == expected


def test_an_item_filed_twice_survives_one_removal() -> None:
    of_keys: IntervalMap[str] = IntervalMap()
    for _ in range(2):
        of_keys.add(EVERYTHING, 0, "x")
        of_keys.add(Interval(b"ab", b"ac"), 2, "y")
    of_keys.remove(EVERYTHING, 0, "x")
    of_keys.remove(Interval(b"ab", b"ac"), 2, "y")
    assert set(of_keys.stab(b"ab0")) == {"x", "y"}


def _shared_prefix(interval: Interval, wanted: int) -> int:
    """The longest equality prefix, up to `wanted` bytes, that all keys of the interval share."""
    length = min(wanted, len(interval.start))
    while length:
        bound = prefix_end(interval.start[:length])
        if interval.end is not None and (bound is None or interval.end <= bound):
            return length
        length -= 1
    return 0


def test_the_map_stays_right_when_it_grows_and_shrinks_by_thousands() -> None:
    chance = random.Random(3)
    of_keys: IntervalMap[int] = IntervalMap()
    live: dict[int, Interval] = {}
    for number in range(3000):
        start = chance.randbytes(2)
        end = None if chance.random() < 0.1 else start + chance.randbytes(chance.randrange(3))
        live[number] = Interval(start if number % 3 else b"", end)
        of_keys.add(live[number], 0, number)
    of_keys.check()
    for wanted in (3000, 1000, 40, 0):
        for number in chance.sample(sorted(live), len(live) - wanted):
            of_keys.remove(live.pop(number), 0, number)
        of_keys.check()
        for key in (b"", b"\x00", *(chance.randbytes(2) for _ in range(50)), b"\xff\xff\xff"):
            expected = {number for number, interval in live.items() if interval.contains(key)}
            assert set(of_keys.stab(key)) == expected
    assert len(of_keys) == 0


def test_ranges_within_each_other_take_memory_by_their_number() -> None:
    of_keys: IntervalMap[int] = IntervalMap()
    tracemalloc.start()
    for number in range(4000):
        of_keys.add(Interval(number.to_bytes(4, "big"), None), 0, number)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 4000 * 1000
    assert sum(1 for _ in of_keys.stab(b"\xff")) == 4000


def test_prefixes_of_one_length_are_counted_together() -> None:
    of_keys: IntervalMap[str] = IntervalMap()
    for item in ("ab", "cd", "xyz"):
        of_keys.add(prefix_interval(item.encode()), len(item), item)
        of_keys.check()
    assert [list(of_keys.stab(key)) for key in (b"abc", b"cd", b"xyzz", b"x")] == [
        ["ab"],
        ["cd"],
        ["xyz"],
        [],
    ]
    for item in ("ab", "xyz", "cd"):
        of_keys.remove(prefix_interval(item.encode()), len(item), item)
        of_keys.check()
    assert len(of_keys) == 0
