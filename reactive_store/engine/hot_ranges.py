"""Key intervals that are complete in memory, as of the newest durable commit.

What was just read is likely to be read again: a live query runs again right after a write into
its range. Such ranges are kept as sorted rows, updated by publish in the same step that raises the
durable timestamp, and evicted whole, the least recently used first, when the budget is spent.

Invariants
- A range holds exactly the rows its interval has at every timestamp from its `changed_ts` to the
  newest durable one. A read of an earlier timestamp goes to the persistence.
- Ranges of one index do not overlap.
- Without this module everything gives the same answers, only slower.

Source: docs/architecture.md, "Documents are bytes".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field

from reactive_store.engine.reads import CommitChanges, IndexName
from reactive_store.persistence.contract import Row

__all__ = ["HotRangeCounters", "HotRanges"]

_ROW_OVERHEAD_BYTES = 240  # the row, its key twice, and its places in lists
_RANGE_OVERHEAD_BYTES = 600
_MOST_ROWS = 4096  # a longer walk is a scan, not a range that is hot

_DocumentName = tuple[str, bytes]


@dataclass(slots=True)
class HotRangeCounters:
    """What reads found since the start, and what is held now."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0


@dataclass(slots=True, eq=False)
class _Range:
    """One complete interval. `keys` and `rows` run in parallel, sorted by key."""

    index: IndexName
    start: bytes
    end: bytes | None
    keys: list[bytes]
    rows: list[Row]
    changed_ts: int  # the content is that of every timestamp from here to the newest
    size: int = field(default=0)

    def reaches(self, end: bytes | None) -> bool:
        """Whether the range goes at least up to `end`."""
        return self.end is None or (end is not None and end <= self.end)


@dataclass(slots=True, eq=False)
class _HotDocument:
    row: Row | None  # None: known not to exist
    changed_ts: int
    size: int


def _cost(row: Row) -> int:
    return len(row.value) + len(row.key) + _ROW_OVERHEAD_BYTES


class HotRanges:
    """The ranges and single documents of one database that are in memory."""

    def __init__(self, budget_bytes: int, *, newest_ts: int) -> None:
        self._budget = budget_bytes
        # Per index its ranges by start; the starts beside them for bisection.
        self._ranges: dict[IndexName, list[_Range]] = {}
        self._starts: dict[IndexName, list[bytes]] = {}
        # Least recently used first, ranges and documents together.
        self._order: OrderedDict[_Range | _HotDocument, _DocumentName | None] = OrderedDict()
        self._documents: dict[_DocumentName, _HotDocument] = {}
        self.counters = HotRangeCounters()
        # The newest durable timestamp: what a page that is to be kept must have been read at.
        self.newest_ts = newest_ts

    # Reading.

    def get(self, table: str, id: bytes, at: int) -> tuple[Row | None] | None:
        """The document's version as a 1-tuple, or None when memory does not know."""
        document = self._documents.get((table, id))
        if document is None or at < document.changed_ts:
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        self._order.move_to_end(document)
        return (document.row,)

    def page(
        self,
        index: IndexName,
        start: bytes,
        end: bytes | None,
        at: int,
        *,
        descending: bool,
        limit: int,
    ) -> tuple[list[Row], bytes | None] | None:
        """Up to `limit` rows and the last key looked at (None: exhausted), or None: not in memory.

        Cost     two bisections and a slice
        """
        found = self._covering(index, start, end, descending=descending)
        if found is None or at < found.changed_ts:
            self.counters.misses += 1
            return None
        low = bisect_left(found.keys, start)
        high = len(found.keys) if end is None else bisect_left(found.keys, end)
        is_exhausted = high - low <= limit
        if is_exhausted and not (found.start <= start and found.reaches(end)):
            self.counters.misses += 1
            return None  # the walk would leave the range
        self.counters.hits += 1
        self._order.move_to_end(found)
        if is_exhausted:
            rows = found.rows[low:high]
        elif descending:
            rows = found.rows[high - limit : high]
        else:
            rows = found.rows[low : low + limit]
        if descending:
            rows.reverse()
        return rows, (None if is_exhausted else rows[-1].key)

    # Filling. `at` is always the newest durable timestamp: what was read is current.

    def keep_document(self, table: str, id: bytes, row: Row | None, at: int) -> None:
        """Remember a document as just read."""
        size = _ROW_OVERHEAD_BYTES if row is None else _cost(row)
        if size > self._budget:
            return
        name = (table, id)
        old = self._documents.get(name)
        if old is not None:
            self._drop_document(old, name)
        document = _HotDocument(row, at, size)
        self._documents[name] = document
        self._order[document] = name
        self.counters.bytes += size
        self._make_room()

    def keep_page(
        self,
        index: IndexName,
        start: bytes,
        end: bytes | None,
        at: int,
        rows: list[Row],
        last_key: bytes | None,
        *,
        descending: bool,
    ) -> None:
        """Remember a page as just read from the persistence, before any overlay."""
        if last_key is not None:
            if descending:
                start = last_key
            else:
                end = last_key + b"\x00"
        if end is not None and end <= start:
            return
        ordered = rows[::-1] if descending else rows
        fresh = _Range(
            index, start, end, [row.key for row in ordered], list(ordered), changed_ts=at
        )
        for neighbour in self._touching(index, start, end):
            if len(fresh.keys) + len(neighbour.keys) > _MOST_ROWS:
                if self._overlaps(neighbour, start, end):
                    self._drop_range(neighbour)
                continue
            self._drop_range(neighbour)
            _join(fresh, neighbour)
        if len(fresh.keys) > _MOST_ROWS:
            return
        fresh.size = _RANGE_OVERHEAD_BYTES + sum(map(_cost, fresh.rows))
        if fresh.size > self._budget:
            return
        starts = self._starts.setdefault(index, [])
        position = bisect_left(starts, fresh.start)
        starts.insert(position, fresh.start)
        self._ranges.setdefault(index, []).insert(position, fresh)
        self._order[fresh] = None
        self.counters.bytes += fresh.size
        self._make_room()

    # Keeping current.

    def publish(self, commit: CommitChanges) -> None:
        """Apply a commit that is durable from now on."""
        self.newest_ts = commit.ts
        documents, ranges = self._documents, self._ranges
        for change in commit.documents:
            if documents:
                document = documents.get((change.table, change.id))
                if document is not None:
                    self._drop_document(document, (change.table, change.id))
                    row = change.new
                    self.keep_document(change.table, change.id, row, commit.ts)
            for index, old, new in change.keys:
                if index not in ranges:
                    continue
                if old is not None and old != new:
                    self._remove_key(index, old, commit.ts)
                if new is not None:
                    assert change.new is not None
                    self._put_key(index, new, change.new, commit.ts)

    def clear(self) -> None:
        """Forget everything."""
        self._ranges.clear()
        self._starts.clear()
        self._documents.clear()
        self._order.clear()
        self.counters.bytes = 0

    def check(self) -> None:
        """Assert the invariants; for tests."""
        total = 0
        for index, ranges in self._ranges.items():
            assert [found.start for found in ranges] == self._starts[index]
            previous: bytes | None = b""
            for found in ranges:
                assert previous is not None
                assert previous <= found.start
                assert found.keys == sorted(set(found.keys))
                assert found.keys == [row.key for row in found.rows]
                assert all(found.start <= key for key in found.keys)
                assert found.end is None or all(key < found.end for key in found.keys)
                assert found.size == _RANGE_OVERHEAD_BYTES + sum(map(_cost, found.rows))
                previous = found.end
                total += found.size
        total += sum(document.size for document in self._documents.values())
        assert total == self.counters.bytes <= self._budget

    def _covering(
        self, index: IndexName, start: bytes, end: bytes | None, *, descending: bool
    ) -> _Range | None:
        """The range that holds the end of the interval where the walk begins."""
        starts = self._starts.get(index)
        if not starts:
            return None
        if descending:
            position = len(starts) if end is None else bisect_left(starts, end)
            if not position:
                return None
            found = self._ranges[index][position - 1]
            return found if found.reaches(end) else None
        position = bisect_right(starts, start)
        if not position:
            return None
        found = self._ranges[index][position - 1]
        return found if found.end is None or start < found.end else None

    def _touching(self, index: IndexName, start: bytes, end: bytes | None) -> list[_Range]:
        """Ranges that overlap the interval or border on it."""
        ranges = self._ranges.get(index)
        if not ranges:
            return []
        first = max(0, bisect_left(self._starts[index], start) - 1)
        touching = []
        for position in range(first, len(ranges)):
            found = ranges[position]
            if end is not None and found.start > end:
                break
            if found.end is None or found.end >= start:
                touching.append(found)
        return touching

    @staticmethod
    def _overlaps(found: _Range, start: bytes, end: bytes | None) -> bool:
        return (found.end is None or found.end > start) and (end is None or found.start < end)

    def _holding(self, index: IndexName, key: bytes) -> _Range | None:
        position = bisect_right(self._starts[index], key)
        if not position:
            return None
        found = self._ranges[index][position - 1]
        return found if found.end is None or key < found.end else None

    def _remove_key(self, index: IndexName, key: bytes, ts: int) -> None:
        found = self._holding(index, key) if index in self._starts else None
        if found is None:
            return
        found.changed_ts = ts
        position = bisect_left(found.keys, key)
        if position < len(found.keys) and found.keys[position] == key:
            self._resize(found, -_cost(found.rows[position]))
            del found.keys[position]
            del found.rows[position]

    def _put_key(self, index: IndexName, key: bytes, version: Row, ts: int) -> None:
        found = self._holding(index, key) if index in self._starts else None
        if found is None:
            return
        row = Row(key, version.id, version.ts, version.value)
        found.changed_ts = ts
        position = bisect_left(found.keys, row.key)
        if position < len(found.keys) and found.keys[position] == row.key:
            self._resize(found, _cost(row) - _cost(found.rows[position]))
            found.rows[position] = row
        else:
            found.keys.insert(position, row.key)
            found.rows.insert(position, row)
            self._resize(found, _cost(row))
            if len(found.keys) > 2 * _MOST_ROWS:
                self._drop_range(found)
                return
        self._make_room()

    def _resize(self, found: _Range, by: int) -> None:
        found.size += by
        self.counters.bytes += by

    def _drop_range(self, found: _Range) -> None:
        starts = self._starts[found.index]
        position = bisect_left(starts, found.start)
        del starts[position]
        del self._ranges[found.index][position]
        if not starts:
            del self._starts[found.index]
            del self._ranges[found.index]
        del self._order[found]
        self.counters.bytes -= found.size

    def _drop_document(self, document: _HotDocument, name: _DocumentName) -> None:
        del self._documents[name]
        del self._order[document]
        self.counters.bytes -= document.size

    def _make_room(self) -> None:
        while self.counters.bytes > self._budget and self._order:
            oldest, name = next(iter(self._order.items()))
            self.counters.evictions += 1
            if isinstance(oldest, _Range):
                self._drop_range(oldest)
            else:
                assert name is not None
                self._drop_document(oldest, name)


def _join(fresh: _Range, neighbour: _Range) -> None:
    """Add what the neighbour holds outside of the fresh interval, and widen it."""
    below = bisect_left(neighbour.keys, fresh.start)
    above = len(neighbour.keys) if fresh.end is None else bisect_left(neighbour.keys, fresh.end)
    fresh.keys = [*neighbour.keys[:below], *fresh.keys, *neighbour.keys[above:]]
    fresh.rows = [*neighbour.rows[:below], *fresh.rows, *neighbour.rows[above:]]
    fresh.start = min(fresh.start, neighbour.start)
    if fresh.end is not None and (neighbour.end is None or neighbour.end > fresh.end):
        fresh.end = neighbour.end
    fresh.changed_ts = max(fresh.changed_ts, neighbour.changed_ts)
