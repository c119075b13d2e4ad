"""The engine's front door: begin, commit, subscribe, change the schema.

    query      begin() … read_set() → subscribe(reads, since, on_touched)
    mutation   begin_mutation() … await commit(transaction)

One `Database` owns one persistence. It starts from what is durable there, and gives out timestamps
that never go back, across restarts too.

Source: docs/architecture.md, "One mutation, from frame to transition"; the deep module of this
package.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from reactive_store.engine.catalog import (
    INDEXES,
    SCHEMAS,
    SYSTEM_TABLES,
    TABLES,
    Catalog,
    parse_catalog,
)
from reactive_store.engine.committer import CommitCounters, Committer
from reactive_store.engine.hot_ranges import HotRangeCounters
from reactive_store.engine.reads import ReadSet
from reactive_store.engine.search_indexes import SearchIndexes
from reactive_store.engine.snapshot import Horizon, Snapshot
from reactive_store.engine.subscriptions import Subscription
from reactive_store.engine.transaction import Transaction
from reactive_store.engine.vector_index import VectorIndexes
from reactive_store.errors import BadRequest, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Persistence, TableNumber, Timestamp
from reactive_store.runtime import Runtime
from reactive_store.values.document import Document
from reactive_store.values.ids import new_internal_id

__all__ = ["DEFAULT_MEMORY_BYTES", "Database", "DatabaseStatistics"]

_LOG = logging.getLogger(__name__)

_DAY_NS = 86_400 * 1_000_000_000
_PAGE = 1000

DEFAULT_MEMORY_BYTES = 256 * 1024 * 1024
_HORIZON = "oldest_readable_ts"  # the global that remembers how far history was trimmed


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """How much has happened, and how much is held."""

    latest_ts: int
    commits: int
    conflicts: int
    batches: int
    documents_written: int
    subscriptions: int
    subscriptions_touched: int
    pending_commits: int
    tables: int
    hot: HotRangeCounters


class _Ids:
    """Identity for new documents: random ids, creation times that strictly ascend."""

    __slots__ = ("_last_creation", "_runtime")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._last_creation = 0.0

    def internal_id(self) -> bytes:
        day = self._runtime.now_ns() // _DAY_NS
        return new_internal_id(self._runtime.random_bytes(14), day)

    def creation_time(self, at_least: float) -> float:
        self._last_creation = max(at_least, math.nextafter(self._last_creation, math.inf))
        return self._last_creation


class Database:
    """Snapshots, transactions, commits and subscriptions over one persistence."""

    def __init__(
        self,
        persistence: Persistence,
        catalog: Catalog,
        *,
        runtime: Runtime,
        limits: Limits,
        memory_bytes: int,
    ) -> None:
        self.persistence = persistence
        self.runtime = runtime
        self.limits = limits
        self.committer = Committer(
            persistence, catalog, runtime=runtime, limits=limits, memory_bytes=memory_bytes
        )
        self.vectors = VectorIndexes(self.committer, persistence, runtime)
        self.searches = SearchIndexes(self.committer, persistence, runtime)
        self.committer.mark = self.searches.mark
        self._ids = _Ids(runtime)
        self._horizon = Horizon(int(persistence.get_global(_HORIZON) or b"0"))

    @classmethod
    async def open(
        cls,
        persistence: Persistence,
        *,
        runtime: Runtime,
        limits: Limits,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> Database:
        """Start on what the persistence holds; a new one gets its first commit.

        Units    memory_bytes: what hot ranges may take; 0 keeps nothing
        Cost     reads the catalog, not the data
        """
        catalog = _load_catalog(persistence)
        database = cls(
            persistence, catalog, runtime=runtime, limits=limits, memory_bytes=memory_bytes
        )
        database.committer.start()
        if persistence.last_ts == 0:
            # Clients take timestamp 0 for "nothing seen yet", so there is always a first commit.
            transaction = database.begin_mutation()
            transaction.insert(SCHEMAS, {"state": "active", "schema": ""})
            try:
                await database.commit(transaction)
            except BaseException:
                await database.committer.close()
                raise
        return database

    async def close(self) -> None:
        """Make what was accepted durable, then let go of the persistence. Idempotent."""
        try:
            await self.vectors.close()
            await self.searches.close()
            await self.committer.close()
        finally:
            await self.persistence.close()

    @property
    def latest_ts(self) -> Timestamp:
        """The newest durable commit: what queries and clients see."""
        return self.committer.durable_ts

    @property
    def catalog(self) -> Catalog:
        """Tables and indexes as of the newest accepted commit."""
        return self.committer.catalog

    @property
    def failure(self) -> StoreFailed | None:
        """Why the node no longer accepts writes, or None."""
        return self.committer.failure

    def begin(self, at: Timestamp | None = None) -> Transaction:
        """A read-only transaction on durable data, at the latest commit or at an earlier one.

        Raises   OutOfRetention when `at` is older than what is kept,
                 BadRequest[TimestampInFuture] when nothing of that time can have been seen yet
        """
        committer = self.committer
        ts = committer.durable_ts
        if at is not None:
            if at > ts:
                raise BadRequest(
                    f"Timestamp {at} is later than the newest commit ({ts}).",
                    code="TimestampInFuture",
                )
            ts = at
            self._horizon.check(ts)
        snapshot = Snapshot(self.persistence, None, ts, self._horizon, committer.hot)
        return self._transaction(snapshot, committer.durable_catalog, is_read_only=True)

    def begin_mutation(self) -> Transaction:
        """A transaction on everything accepted, durable or not."""
        committer = self.committer
        snapshot = Snapshot(
            self.persistence,
            committer.pending,
            committer.accepted_ts,
            self._horizon,
            committer.hot,
        )
        return self._transaction(snapshot, committer.catalog, is_read_only=False)

    async def commit(self, transaction: Transaction, *, alone: bool = False) -> Timestamp:
        """Make a transaction's writes durable and visible, all of them or none.

        Raises   Conflict when something it read has changed; StoreFailed; Retry[Closing]
        """
        return await self.committer.commit(transaction, alone=alone)

    async def accept(self, transaction: Transaction, *, alone: bool = False) -> Timestamp:
        """The first half of `commit`: its timestamp, durable only when `when_durable` says so.

        Raises   as `commit`
        """
        return await self.committer.accept(transaction, alone=alone)

    def when_durable(self, ts: int, told: Callable[[StoreFailed | None], None]) -> None:
        """Call `told` once the accepted commit at `ts` is durable, or with why it is not.

        Maybe at once, maybe inside publish: it must not raise, and marks rather than works.
        """
        self.committer.when_durable(ts, told)

    def run_alone(self) -> AbstractAsyncContextManager[None]:
        """While inside, only commits with `alone=True` are accepted."""
        return self.committer.run_alone()

    @property
    def oldest_readable_ts(self) -> Timestamp:
        """Reads of earlier timestamps are refused."""
        return Timestamp(self._horizon.oldest_ts)

    async def forget_before(self, ts: Timestamp) -> bool:
        """Refuse reads below `ts` from now on, after a restart too; then they may be trimmed.

        Returns whether that is news.

        Cost     one durable write, if it is
        """
        if ts <= self._horizon.oldest_ts:
            return False
        self._horizon.oldest_ts = ts
        await self.persistence.set_global(_HORIZON, str(ts).encode())
        return True

    def subscribe(
        self, reads: ReadSet, since: Timestamp, on_touched: Callable[[int], None]
    ) -> Subscription | int:
        """Be told, once, of the first commit after `since` that touches `reads`.

        Returns the subscription; or, when it has already happened, that commit's timestamp.
        `on_touched` is called inside publish with the commit's timestamp: it marks and returns.
        """
        committer = self.committer
        if since < committer.durable_ts:
            if not committer.log.covers(since):
                return int(since) + 1
            touched = committer.log.first_touch(reads, since=since, until=committer.durable_ts)
            if touched is not None:
                return touched[0]
        return committer.subscriptions.add(reads, on_touched)

    def cancel(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self.committer.subscriptions.cancel(subscription)

    def statistics(self) -> DatabaseStatistics:
        """Counters since the start and present sizes."""
        committer = self.committer
        counters: CommitCounters = committer.counters
        return DatabaseStatistics(
            latest_ts=self.latest_ts,
            commits=counters.commits,
            conflicts=counters.conflicts,
            batches=counters.batches,
            documents_written=counters.documents,
            subscriptions=len(committer.subscriptions),
            subscriptions_touched=counters.touched,
            pending_commits=len(committer.pending),
            tables=len(committer.catalog.tables) - len(SYSTEM_TABLES),
            hot=committer.hot.counters,
        )

    def _transaction(
        self, snapshot: Snapshot, catalog: Catalog, *, is_read_only: bool
    ) -> Transaction:
        return Transaction(
            snapshot,
            catalog,
            limits=self.limits,
            ids=self._ids,
            now_ms=self.runtime.now_ns() / 1e6,
            is_read_only=is_read_only,
            searches=self.searches,
        )


def _load_catalog(persistence: Persistence) -> Catalog:
    return parse_catalog(_documents(persistence, TABLES), _documents(persistence, INDEXES))


def _documents(persistence: Persistence, table: str) -> list[Document]:
    number: TableNumber = SYSTEM_TABLES[table].number
    found: list[Document] = []
    start = b""
    while True:
        page = persistence.scan_table(
            number, start, None, persistence.last_ts, descending=False, limit=_PAGE
        )
        found.extend(Document(row.value, table) for row in page.rows)
        if page.exhausted:
            return found
        start = page.rows[-1].key + b"\x00"
