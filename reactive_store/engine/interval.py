"""Intervals of index keys, and the map that answers "which intervals contain this key?".

An interval is half-open over byte strings: start <= key < end, end None meaning no upper bound.
Keys of one index compare bytewise like the values they encode (`values.order`).

`IntervalMap` is the index behind `reads.touches`: both must always give the same answer.
Source: docs/architecture.md, "One live query".
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


_Span = tuple[bytes, bool, bytes]
"""An interval as something that sorts: (start, whether it has no end, end or nothing)."""

_BLOCK = 64  # intervals; a block of twice as many is cut in two


def _span(interval: Interval) -> _Span:
    start, end = interval
    return start, end is None, b"" if end is None else end


class _Block(Generic[T]):
    """Neighbours in the order of spans, each with its items and how often each was added."""

    __slots__ = ("items", "reach", "spans")

    def __init__(self, spans: list[_Span], items: list[dict[T, int]]) -> None:
        self.spans = spans
        self.items = items
        # The farthest end, as (no end, end): a key at or beyond it is in none of the intervals.
        self.reach: tuple[bool, bytes] = max((unbounded, end) for _, unbounded, end in spans)


class _Spans(Generic[T]):
    """Intervals without a usable prefix, sorted by their start and kept in blocks.

    Memory is proportional to the intervals, however they overlap. (Cutting the key space at every
    end and listing who covers each piece would find them faster, and would need the square of
    their number when they lie within each other, as the ranges of "newest twenty" do.) A stab looks
    at one pair per block and into the blocks that reach far enough.
    """

    __slots__ = ("_blocks", "_firsts")

    def __init__(self) -> None:
        self._blocks: list[_Block[T]] = []
        self._firsts: list[_Span] = []  # the first span of each block

    def _position(self, span: _Span) -> int:
        return max(0, bisect_right(self._firsts, span) - 1)

    def add(self, interval: Interval, item: T) -> None:
        span = _span(interval)
        if not self._blocks:
            self._blocks.append(_Block([span], [{item: 1}]))
            self._firsts.append(span)
            return
        position = self._position(span)
        block = self._blocks[position]
        at = bisect_left(block.spans, span)
        if at < len(block.spans) and block.spans[at] == span:
            counts = block.items[at]
            counts[item] = counts.get(item, 0) + 1
            return
        block.spans.insert(at, span)
        block.items.insert(at, {item: 1})
        block.reach = max(block.reach, span[1:])
        self._firsts[position] = block.spans[0]
        if len(block.spans) >= 2 * _BLOCK:
            halves = (
                _Block(block.spans[:_BLOCK], block.items[:_BLOCK]),
                _Block(block.spans[_BLOCK:], block.items[_BLOCK:]),
            )
            self._blocks[position : position + 1] = halves
            self._firsts[position : position + 1] = [half.spans[0] for half in halves]

    def remove(self, interval: Interval, item: T) -> None:
        span = _span(interval)
        position = self._position(span)
        block = self._blocks[position]
        at = bisect_left(block.spans, span)
        counts = block.items[at]
        if counts[item] > 1:
            counts[item] -= 1
            return
        del counts[item]
        if counts:
            return
        del block.spans[at], block.items[at]
        if not block.spans:
            del self._blocks[position], self._firsts[position]
            return
        self._firsts[position] = block.spans[0]
        if span[1:] == block.reach:
            block.reach = max((unbounded, end) for _, unbounded, end in block.spans)

    def stab(self, key: bytes) -> Iterator[T]:
        for block in self._blocks:
            if block.spans[0][0] > key:
                return
            unbounded, reach = block.reach
            if not unbounded and reach <= key:
                continue
            for (start, is_open, end), items in zip(block.spans, block.items, strict=True):
                if start > key:
                    return
                if is_open or key < end:
                    yield from items

    def check(self) -> None:
        spans = [span for block in self._blocks for span in block.spans]
        assert spans == sorted(set(spans))
        assert self._firsts == [block.spans[0] for block in self._blocks]
        for block in self._blocks:
            assert len(block.spans) == len(block.items) < 2 * _BLOCK
            assert all(block.items)
            assert block.reach == max(span[1:] for span in block.spans)


class IntervalMap(Generic[T]):
    """Intervals, each with an item, found by a key they contain.

    An interval inside an equality prefix is filed under that prefix: finding it costs one
    dictionary look-up per prefix length, however many intervals there are. The rest lies sorted in
    blocks. The same item may be added with several intervals; it must be hashable.
    """

    __slots__ = ("_by_prefix", "_count", "_lengths", "_rest", "_sorted_lengths")

    def __init__(self) -> None:
        self._count = 0
        # Each filed pair with how often it was added: a removal must not search through those who
        # wait for the same prefix.
        self._by_prefix: dict[bytes, dict[tuple[Interval, T], int]] = {}
        # How many prefixes of each length are filed; a length in use costs a look-up per stab.
        self._lengths: dict[int, int] = {}
        self._sorted_lengths: list[int] = []
        self._rest: _Spans[T] = _Spans()

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
            pair = (interval, item)
            filed[pair] = filed.get(pair, 0) + 1
            return
        self._by_prefix[prefix] = {(interval, item): 1}
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
        pair = (interval, item)
        if filed[pair] > 1:
            filed[pair] -= 1
            return
        del filed[pair]
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

        Cost     one look-up per prefix length in use that fits; of the rest, one comparison per 64
                 intervals that start below `key`, and a look into the blocks that reach beyond it
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
