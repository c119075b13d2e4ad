"""Build an index while writes continue.

From the commit that adds the index on, every commit keeps it current. What existed before is added
here, page by page: each entry only if its document still has the version the key was computed
from, since a later commit has written its own entry.
"""

from __future__ import annotations

from reactive_store.engine.catalog import Table
from reactive_store.engine.committer import Committer
from reactive_store.engine.range_index import RangeIndex
from reactive_store.engine.snapshot import Horizon, Snapshot
from reactive_store.persistence.contract import BackfillEntry, Persistence, Row
from reactive_store.runtime import Runtime
from reactive_store.values.order import encode_key
from reactive_store.values.wire import loads

__all__ = ["backfill_index", "table_pages"]

_PAGE = 500


class table_pages:  # noqa: N801 - reads like the loop it is used in
    """`async for rows in table_pages(…)`: every document of a table, some at a time.

    Each page is of the newest durable state: a document that exists throughout is seen once, in
    the version it has then. The loop runs between pages.
    """

    def __init__(
        self, committer: Committer, persistence: Persistence, runtime: Runtime, table: Table
    ) -> None:
        self._committer = committer
        self._persistence = persistence
        self._runtime = runtime
        self._table = table
        self._start = b""
        self._is_done = False

    def __aiter__(self) -> table_pages:
        return self

    async def __anext__(self) -> list[Row]:
        if self._is_done:
            raise StopAsyncIteration
        await self._runtime.sleep(0)
        # The newest state never gets too old between here and the next line.
        snapshot = Snapshot(self._persistence, None, self._committer.durable_ts, Horizon())
        rows, last = snapshot.page(
            self._table, None, self._start, None, descending=False, limit=_PAGE
        )
        if last is None:
            self._is_done = True
        else:
            self._start = last + b"\x00"
        return rows


async def backfill_index(
    committer: Committer,
    persistence: Persistence,
    runtime: Runtime,
    table: Table,
    index: RangeIndex,
) -> int:
    """Add the entries of documents that are older than the index. Returns how many.

    Cost     reads the table once
    """
    encoder = index.key_encoder()
    added = 0
    async for rows in table_pages(committer, persistence, runtime, table):
        entries = []
        for row in rows:
            fields = loads(row.value)
            assert isinstance(fields, dict)
            key = encoder(fields) + encode_key(fields["_creationTime"]) + row.id
            entries.append(BackfillEntry(key, table.number, row.id, row.ts))
        if entries:
            added += await persistence.backfill(index.id, entries)
    return added
