"""An immutable view of all data at one timestamp.

Durable data comes from hot ranges in memory or from the persistence, accepted but not yet durable
data from the pending overlay. Everything is synchronous; the timestamp makes it repeatable, no lock
or open database transaction does. What is too old to be read completely is refused, even when it
has become so while the view was in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from reactive_store.engine.catalog import SESSION_REQUESTS, Table
from reactive_store.engine.hot_ranges import HotRanges
from reactive_store.engine.pending import PendingCommits
from reactive_store.engine.range_index import BY_ID, RangeIndex
from reactive_store.engine.reads import IndexName
from reactive_store.errors import OutOfRetention
from reactive_store.persistence.contract import Persistence, Row, Timestamp

__all__ = ["Horizon", "MergedPage", "Snapshot", "merge_overlay"]


class Horizon:
    """How far back reads are complete; one per database, moved by retention before it trims."""

    __slots__ = ("oldest_ts",)

    def __init__(self, oldest_ts: int = 0) -> None:
        self.oldest_ts = oldest_ts

    def check(self, ts: int) -> None:
        """Refuse a timestamp whose versions may be gone.

        Raises   OutOfRetention
        """
        if ts < self.oldest_ts:
            raise OutOfRetention(
                f"Timestamp {ts} is older than what is kept (since {self.oldest_ts}). "
                "Take a new one."
            )


class MergedPage(NamedTuple):
    """A piece of a scan after overlays.

    `rows` may be empty although the scan goes on; `last_key` then says how far it has come.
    """

    rows: list[Row]
    last_key: bytes | None  # the last key looked at; None: the interval is exhausted


def merge_overlay(
    page: MergedPage, overlay: Mapping[bytes, Row | None], *, descending: bool
) -> MergedPage:
    """Put changed keys over a page: rows replaced, added or (None) removed, up to its last key."""
    if not overlay:
        return page
    merged: dict[bytes, Row] = {row.key: row for row in page.rows}
    last = page.last_key
    for key, row in overlay.items():
        if last is not None and (key < last if descending else key > last):
            continue  # a later page will meet it
        if row is None:
            merged.pop(key, None)
        else:
            merged[key] = row
    return MergedPage([merged[key] for key in sorted(merged, reverse=descending)], last)


class Snapshot:
    """All data at `ts`.

    `pending` is None for readers of durable data only: queries and clients. `hot` is None for
    walks through everything, which would only push out what is hot.
    """

    __slots__ = ("_horizon", "_hot", "_pending", "_persistence", "ts")

    def __init__(
        self,
        persistence: Persistence,
        pending: PendingCommits | None,
        ts: Timestamp,
        horizon: Horizon,
        hot: HotRanges | None = None,
    ) -> None:
        self._persistence = persistence
        self._hot = hot
        self._pending = pending
        self._horizon = horizon
        self.ts = ts

    def get(self, table: Table, id: bytes) -> Row | None:
        """A document's version, or None.

        Raises   OutOfRetention
        """
        if self.ts < self._horizon.oldest_ts:
            self._horizon.check(self.ts)
        if self._pending:
            found = self._pending.get(table.name, id, self.ts)
            if found is not None:
                return found[1]
        hot = self._hot
        # Request records are looked for before they exist: nothing to be hot about.
        if hot is None or table.name == SESSION_REQUESTS:
            return self._persistence.get(table.number, id, self.ts)
        at = self._base_ts(hot)
        known = hot.get(table.name, id, at)
        if known is not None:
            return known[0]
        row = self._persistence.get(table.number, id, at)
        if at == hot.newest_ts:
            hot.keep_document(table.name, id, row, at)
        return row

    def page(
        self,
        table: Table,
        index: RangeIndex | None,
        start: bytes,
        end: bytes | None,
        *,
        descending: bool,
        limit: int,
    ) -> MergedPage:
        """The next rows of an index (None: `by_id`) with start <= key < end.

        Cost     one page of the persistence; `limit` is aimed at, overlays may add a few rows
        Raises   OutOfRetention
        """
        if self.ts < self._horizon.oldest_ts:
            self._horizon.check(self.ts)
        if index is not None and self.ts < index.since_ts:
            raise OutOfRetention(
                f"Index {table.name}.{index.name} was built after timestamp {self.ts}. "
                "Take a new one."
            )
        name = (table.name, BY_ID if index is None else index.name)
        page = self._durable_page(
            name, table, index, start, end, descending=descending, limit=limit
        )
        if not self._pending:
            return page
        overlay = self._pending.overlay(name, start, end, self.ts)
        return merge_overlay(page, overlay, descending=descending)

    def _base_ts(self, hot: HotRanges) -> Timestamp:
        # What is pending above the newest durable commit lies over the base either way.
        return self.ts if self._pending is None else Timestamp(min(self.ts, hot.newest_ts))

    def _durable_page(
        self,
        name: IndexName,
        table: Table,
        index: RangeIndex | None,
        start: bytes,
        end: bytes | None,
        *,
        descending: bool,
        limit: int,
    ) -> MergedPage:
        hot = None if table.name == SESSION_REQUESTS else self._hot
        at = self.ts if hot is None else self._base_ts(hot)
        if hot is not None:
            known = hot.page(name, start, end, at, descending=descending, limit=limit)
            if known is not None:
                return MergedPage(*known)
        if index is None:
            rows, exhausted = self._persistence.scan_table(
                table.number, start, end, at, descending=descending, limit=limit
            )
        else:
            rows, exhausted = self._persistence.scan(
                index.id, start, end, at, descending=descending, limit=limit
            )
        last = None if exhausted else rows[-1].key
        if hot is not None and at == hot.newest_ts:
            hot.keep_page(name, start, end, at, rows, last, descending=descending)
        return MergedPage(rows, last)
