"""Intervals of index keys, and the map that answers "which intervals contain this key?".

An interval is half-open over byte strings: start <= key < end, end None meaning no upper bound.
Keys of one index compare bytewise like the values they encode (`values.order`).

`IntervalMap` is the index behind `reads.touches`: both must always give the same answer.
Source: architecture.md 2.4.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

__all__ = ["EVERYTHING", "Interval", "IntervalMap", "after", "prefix_end", "prefix_interval"]

T = TypeVar("T")


class Interval(NamedTuple):
    """A half-open range of keys."""

    start: bytes
    end: bytes | None

    def contains(self, key: bytes) -> bool:
        """Whether start <= key < end."""
        return self.start <= key and (self.end is None or key < self.end)

    @property
    def is_empty(self) -> bool:
        """Whether no key can lie inside."""
        return self.end is not None and self.end <= self.start


EVERYTHING = Interval(b"", None)


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key above every key that starts with `prefix`; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def prefix_interval(prefix: bytes) -> Interval:
    """Every key that starts with `prefix`."""
    return Interval(prefix, prefix_end(prefix))


def after(key: bytes) -> bytes:
    """The smallest key above `key`."""
    return key + b"\x00"


class _Segments(Generic[T]):
    """Intervals without a usable prefix: boundaries cut the key space into segments.

    Each boundary key has the set of items that cover the segment starting there. Stabbing is one
    bisection; adding costs one insertion per segment covered.
    """

    __slots__ = ("_boundaries", "_covers", "_ends")

    def __init__(self) -> None:
        self._boundaries: list[bytes] = [b""]
        self._covers: list[dict[T, int]] = [{}]
        # How many live intervals end or start at a boundary; at zero the boundary goes.
        self._ends: dict[bytes, int] = {b"": 1}

    def _cut(self, key: bytes) -> int:
        position = bisect_left(self._boundaries, key)
        if position == len(self._boundaries) or self._boundaries[position] != key:
            self._boundaries.insert(position, key)
            self._covers.insert(position, dict(self._covers[position - 1]))
        self._ends[key] = self._ends.get(key, 0) + 1
        return position

    def _uncut(self, key: bytes) -> None:
        left = self._ends[key] - 1
        if left:
            self._ends[key] = left
            return
        del self._ends[key]
        position = bisect_left(self._boundaries, key)
        del self._boundaries[position]
        del self._covers[position]

    def add(self, interval: Interval, item: T) -> None:
        first = self._cut(interval.start)
        last = len(self._boundaries) if interval.end is None else self._cut(interval.end)
        for cover in self._covers[first:last]:
            cover[item] = cover.get(item, 0) + 1

    def remove(self, interval: Interval, item: T) -> None:
        first = bisect_left(self._boundaries, interval.start)
        last = (
            len(self._boundaries)
            if interval.end is None
            else bisect_left(self._boundaries, interval.end)
        )
        for cover in self._covers[first:last]:
            left = cover[item] - 1
            if left:
                cover[item] = left
            else:
                del cover[item]
        if interval.end is not None:
            self._uncut(interval.end)
        self._uncut(interval.start)

    def stab(self, key: bytes) -> Iterator[T]:
        return iter(self._covers[bisect_right(self._boundaries, key) - 1])

    def check(self) -> None:
        assert self._boundaries == sorted(set(self._boundaries))
        assert len(self._boundaries) == len(self._covers)
        assert set(self._boundaries) == set(self._ends)


class IntervalMap(Generic[T]):
    """Intervals, each with an item, found by a key they contain.

    An interval inside an equality prefix is filed under that prefix: finding it costs one
    dictionary look-up per prefix length, however many intervals there are. The rest lives in
    segments found by bisection. The same item may be added with several intervals; it must be
    hashable.
    """

    __slots__ = ("_by_prefix", "_count", "_lengths", "_rest", "_sorted_lengths")

    def __init__(self) -> None:
        self._count = 0
        self._by_prefix: dict[bytes, list[tuple[Interval, T]]] = {}
        # How many prefixes of each length are filed; a length in use costs a look-up per stab.
        self._lengths: dict[int, int] = {}
        self._sorted_lengths: list[int] = []
        self._rest: _Segments[T] = _Segments()

    def __len__(self) -> int:
        """How many intervals are filed."""
        return self._count

    def add(self, interval: Interval, prefix_bytes: int, item: T) -> None:
        """File `item` under `interval`, whose keys all share their first `prefix_bytes` bytes."""
        if interval.is_empty:
            return
        self._count += 1
        if not prefix_bytes:
            self._rest.add(interval, item)
            return
        prefix = interval.start[:prefix_bytes]
        filed = self._by_prefix.get(prefix)
        if filed is not None:
            filed.append((interval, item))
            return
        self._by_prefix[prefix] = [(interval, item)]
        count = self._lengths.get(prefix_bytes, 0)
        self._lengths[prefix_bytes] = count + 1
        if not count:
            insort(self._sorted_lengths, prefix_bytes)

    def remove(self, interval: Interval, prefix_bytes: int, item: T) -> None:
        """Undo one `add` with the same arguments."""
        if interval.is_empty:
            return
        self._count -= 1
        if not prefix_bytes:
            self._rest.remove(interval, item)
            return
        prefix = interval.start[:prefix_bytes]
        filed = self._by_prefix[prefix]
        filed.remove((interval, item))
        if filed:
            return
        del self._by_prefix[prefix]
        count = self._lengths[prefix_bytes] - 1
        if count:
            self._lengths[prefix_bytes] = count
        else:
            del self._lengths[prefix_bytes]
            self._sorted_lengths.remove(prefix_bytes)

    def stab(self, key: bytes) -> Iterator[T]:
        """Every item filed under an interval that contains `key`; an item may come repeatedly.

        Cost     one look-up per prefix length in use that fits, plus one bisection
        """
        for length in self._sorted_lengths:
            if length > len(key):
                break
            for interval, item in self._by_prefix.get(key[:length], ()):
                if interval.contains(key):
                    yield item
        yield from self._rest.stab(key)

    def check(self) -> None:
        """Assert the invariants; for tests."""
        self._rest.check()
        lengths: dict[int, int] = {}
        for prefix, filed in self._by_prefix.items():
            assert filed
            lengths[len(prefix)] = lengths.get(len(prefix), 0) + 1
            for interval, _ in filed:
                assert interval.start.startswith(prefix)
        assert lengths == self._lengths
        assert self._sorted_lengths == sorted(lengths)
