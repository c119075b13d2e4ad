"""The one place where transactions become commits.

    accept    validate against everything accepted since → next timestamp → into the open batch
    write     one durable write per batch; a batch forms while the previous one is under way
    publish   durable timestamp, waiting callers, subscriptions: plain functions, no await

Accepting and publishing never await, so nothing can come between a check and the act it allows.
If a durable write fails, everything accepted and not yet durable fails with it, and the node
accepts no more: whether the write reached the disk is for recovery to find out. Whoever waits is
always answered: by the write, by its failure, or because the deployment is closing.

Source: docs/architecture.md, "One mutation, from frame to transition";
docs/decisions/0004-commit-and-durability.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple

from reactive_store.engine.catalog import Catalog
from reactive_store.engine.hot_ranges import HotRanges
from reactive_store.engine.pending import PendingCommits
from reactive_store.engine.range_index import IndexState
from reactive_store.engine.reads import CommitChanges
from reactive_store.engine.staging import StagedDocument
from reactive_store.engine.subscriptions import Subscriptions
from reactive_store.engine.transaction import Transaction
from reactive_store.engine.write_log import WriteLog
from reactive_store.errors import Conflict, Retry, StoreFailed
from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexWrite,
    Persistence,
    Row,
    Timestamp,
)
from reactive_store.runtime import Runtime
from reactive_store.values.ids import encode_id

__all__ = ["CommitCounters", "Committer"]

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class CommitCounters:
    """What has happened since the start."""

    commits: int = 0
    conflicts: int = 0
    batches: int = 0
    documents: int = 0
    touched: int = 0  # subscriptions fired


class _Accepted(NamedTuple):
    """A commit on its way to the disk."""

    commit: Commit
    changes: CommitChanges
    catalog: Catalog  # tables and indexes from this commit on


class Committer:
    """Accepts transactions, makes them durable in batches, publishes them."""

    def __init__(
        self,
        persistence: Persistence,
        catalog: Catalog,
        *,
        runtime: Runtime,
        limits: Limits,
        memory_bytes: int = 0,
    ) -> None:
        self._persistence = persistence
        self._runtime = runtime
        self._limits = limits
        # Tables and indexes as of the newest accepted commit, and as of the newest durable one:
        # what is read durably must not be read by an index that only a pending commit completes.
        self.catalog = catalog
        self.durable_catalog = catalog
        self.pending = PendingCommits()
        self.subscriptions = Subscriptions()
        self.counters = CommitCounters()
        # Newest durable commit: what queries and clients see. Only `_publish` moves it.
        self.durable_ts: Timestamp = persistence.last_ts
        # Newest accepted commit: what mutations see. Only `_accept` moves it.
        self.accepted_ts: Timestamp = persistence.last_ts
        self.log = WriteLog(
            start_ts=self.durable_ts,
            capacity=limits.write_log_commits,
            most_bytes=limits.write_log_bytes,
        )
        # What reads of the newest durable state find in memory; `_publish` keeps it current.
        self.hot = HotRanges(memory_bytes, newest_ts=self.durable_ts)
        # The batch that is filling up while the previous one is being written.
        self._batch: list[_Accepted] = []
        # Who is to be told when which timestamp is durable, or why it will never be.
        self._waiters: list[tuple[int, Callable[[StoreFailed | None], None]]] = []
        # Looks at every commit about to be accepted; set while a schema change is under way. Should
        # it raise, the commit is refused.
        self.observer: Callable[[CommitChanges], None] | None = None
        # Told of every durable commit inside publish, before waiters and subscribers are: what
        # keeps something in memory current. They must not raise.
        self.followers: list[Callable[[CommitChanges], None]] = []
        # Completes every commit about to be accepted by what it means to search indexes.
        self.mark: Callable[[CommitChanges], None] | None = None
        # Set once by a failed write; never cleared.
        self._failure: StoreFailed | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        # While a transaction runs alone others wait for this to be set again.
        self._shared = asyncio.Event()
        self._shared.set()
        self._alone = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        # Set once by `close`; what has not been accepted by then is refused.
        self._closing = False

    def start(self) -> None:
        """Start the task that writes batches."""
        self._writer = self._runtime.spawn(self._write_batches(), name="committer")

    async def close(self) -> None:
        """Write what was accepted, then stop. Commits not accepted by now are refused."""
        self._closing = True
        self._wake.set()
        self._room.set()
        self._shared.set()
        if self._writer is not None:
            await self._writer
            self._writer = None

    @property
    def failure(self) -> StoreFailed | None:
        """Why no more commits are accepted, or None."""
        return self._failure

    async def commit(self, transaction: Transaction, *, alone: bool = False) -> Timestamp:
        """`accept`, and wait until it is durable.

        Raises   as `accept`
        """
        ts = await self.accept(transaction, alone=alone)
        await self.wait_durable(ts)
        return ts

    async def accept(self, transaction: Transaction, *, alone: bool = False) -> Timestamp:
        """Validate a transaction and put it on its way to the disk; returns its timestamp.

        Nobody outside may hear of it before `wait_durable` or `when_durable` says so. A transaction
        without writes gets the timestamp it began at: what it saw may still be on its way.
        `alone`: the caller holds `run_alone`.

        Raises   Conflict when something it read has changed; StoreFailed; Retry[Closing]
        """
        while self._failure is None and not self._closing:
            # Waiting for one may last until the other no longer holds, so both are asked again.
            if not alone and not self._shared.is_set():
                await self._shared.wait()
            elif not self._room.is_set():
                await self._room.wait()
            else:
                break
        if self._failure is not None:
            raise StoreFailed(self._failure.message) from self._failure
        if not transaction.staging:
            return transaction.begin_ts
        if self._closing:
            raise Retry("The deployment is closing; nothing was written.", code="Closing")
        assert not transaction.is_read_only, "a read-only transaction has written"
        return self._accept(transaction)

    async def wait_durable(self, ts: int) -> None:
        """Wait until the commit at `ts`, already accepted, is durable.

        Raises   StoreFailed
        """
        if self.durable_ts >= ts:
            return
        if self._failure is not None:
            raise StoreFailed(self._failure.message) from self._failure
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((ts, partial(_settle, durable)))
        await durable

    def when_durable(self, ts: int, told: Callable[[StoreFailed | None], None]) -> None:
        """Call `told` once the commit at `ts`, already accepted, is durable, or with why not.

        At once, if it is known. Else inside publish: it must not raise, and only marks.
        """
        if self.durable_ts >= ts:
            told(None)
        elif self._failure is not None:
            told(StoreFailed(self._failure.message))
        else:
            self._waiters.append((ts, told))

    @asynccontextmanager
    async def run_alone(self) -> AsyncIterator[None]:
        """While inside, no other transaction is accepted: whoever keeps losing wins now."""
        async with self._alone:
            self._shared.clear()
            try:
                yield
            finally:
                self._shared.set()

    def replace_catalog(self, catalog: Catalog) -> None:
        """Put other definitions in force without a commit: the stored ones say the same."""
        self.catalog = catalog
        if not self.pending:
            self.durable_catalog = catalog
        self._batch = [accepted._replace(catalog=catalog) for accepted in self._batch]

    def stale_since(self, transaction: Transaction) -> Conflict | None:
        """Why the transaction cannot be committed any more, or None.

        Cost     O(commits accepted since it began)
        """
        if transaction.catalog_at_begin is not self.catalog:
            return Conflict("Tables or indexes changed while this mutation was being run.")
        since = transaction.begin_ts
        if since == self.accepted_ts:
            return None
        if not self.log.covers(since):
            return Conflict("This mutation ran longer than the recent history reaches.")
        found = self.log.first_touch(transaction.read_set(), since=since)
        if found is None:
            return None
        change = found[1]
        return Conflict(
            f'Documents read from or written to the "{change.table}" table changed while this '
            "mutation was being run.",
            table=change.table,
            document_id=encode_id(self.catalog.tables[change.table].number, change.id),
        )

    # From here to the end of the class: plain functions that must not be interrupted, and the
    # one task that waits for the disk.

    def _accept(self, transaction: Transaction) -> Timestamp:
        conflict = self.stale_since(transaction)
        if conflict is not None:
            self.counters.conflicts += 1
            raise conflict
        ts = Timestamp(max(self.accepted_ts + 1, self._runtime.now_ns()))
        commit, changes = _to_commit(transaction, ts)
        if self.observer is not None:
            self.observer(changes)
        if self.mark is not None:
            self.mark(changes)
        self.accepted_ts = ts
        self.catalog = transaction.catalog
        self.pending.add(changes)
        self.log.append(changes)
        self._batch.append(_Accepted(commit, changes, transaction.catalog))
        self._wake.set()
        if len(self.pending) >= self._limits.pending_commits:
            self._room.clear()
        return ts

    def _take_batch(self) -> list[_Accepted]:
        count = documents = 0
        for accepted in self._batch:
            documents += len(accepted.commit.documents)
            if count and documents > self._limits.batch_documents:
                break
            count += 1
        taken = self._batch[:count]
        del self._batch[:count]
        return taken

    async def _write_batches(self) -> None:
        while True:
            if not self._batch:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._take_batch()
            try:
                await self._persistence.append([accepted.commit for accepted in batch])
            except StoreFailed as error:
                self._fail(error)
                return
            except asyncio.CancelledError:
                self._fail(StoreFailed("The task that writes commits was cancelled."))
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                _LOG.exception("the store raised what its contract does not allow")
                self._fail(StoreFailed(f"The store failed unexpectedly: {error!r}"))
                return
            self._publish(batch)

    def _publish(self, batch: list[_Accepted]) -> None:
        self.counters.batches += 1
        self.durable_ts = batch[-1].commit.ts
        if batch[-1].catalog is not self.durable_catalog:
            self.durable_catalog = batch[-1].catalog
            self.hot.clear()  # an index may stand for other fields now
        self.pending.retire(self.durable_ts)
        for _, changes, _ in batch:
            self.hot.publish(changes)
            for follow in self.followers:
                follow(changes)
        # Whoever waits and whoever is subscribed only marks what there is to do.
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter[0] > self.durable_ts:
                self._waiters.append(waiter)
            else:
                _tell(waiter[1], None)
        for commit, changes, _ in batch:
            self.counters.commits += 1
            self.counters.documents += len(commit.documents)
            self.counters.touched += self.subscriptions.publish(changes)
        if not self._room.is_set() and len(self.pending) < self._limits.pending_commits:
            self._room.set()

    def _fail(self, error: StoreFailed) -> None:
        _LOG.critical("durable write failed, accepting no more commits: %s", error.message)
        self._failure = error
        self._batch.clear()
        self.pending.clear()
        self.hot.clear()
        # Back to what is durable: it is all that will ever be seen again.
        self.accepted_ts, self.catalog = self.durable_ts, self.durable_catalog
        self._room.set()
        waiters, self._waiters = self._waiters, []
        for _, told in waiters:
            _tell(told, StoreFailed(error.message))


def _tell(told: Callable[[StoreFailed | None], None], failure: StoreFailed | None) -> None:
    try:
        told(failure)
    except Exception:  # noqa: BLE001 - one that breaks its promise must not stop the others' commits
        _LOG.exception("being told of a commit failed")


def _settle(durable: asyncio.Future[None], failure: StoreFailed | None) -> None:
    if durable.done():
        return  # whoever waited has left
    if failure is None:
        durable.set_result(None)
    else:
        durable.set_exception(failure)


def _to_commit(transaction: Transaction, ts: Timestamp) -> tuple[Commit, CommitChanges]:
    documents: list[DocumentWrite] = []
    entries: list[IndexWrite] = []
    changes = []
    for staged in transaction.staging:
        before, after = staged.before, staged.after
        if before is None and after is None:
            continue  # inserted and deleted again
        table = staged.table
        committed = None if after is None else Row(after.key, after.id, ts, after.value)
        documents.append(
            DocumentWrite(
                table.number,
                staged.id,
                None if after is None else after.value,
                is_insert=before is None,
            )
        )
        number, id = table.number, staged.id  # noqa: A001
        if before is None:
            entries += [
                IndexWrite(index.id, key, number, id, True)
                for index, key in zip(table.indexes, staged.after_keys, strict=True)
            ]
        else:
            entries += _moved_entries(staged)
        changes.append(staged.change(committed))
    return (
        Commit(ts, tuple(documents), tuple(entries)),
        CommitChanges(ts, tuple(changes)),
    )


def _moved_entries(staged: StagedDocument) -> list[IndexWrite]:
    """The index entries that end and begin with a new version, or the end, of a document."""
    entries: list[IndexWrite] = []
    table = staged.table
    new_keys = repeat(None) if staged.after is None else staged.after_keys
    for index, old, new in zip(table.indexes, staged.before_keys, new_keys, strict=False):
        # An index under construction may lack the old entry, so the new one is always written.
        if old == new and index.state is not IndexState.BACKFILLING:
            continue
        if old != new:
            entries.append(IndexWrite(index.id, old, table.number, staged.id, present=False))
        if new is not None:
            entries.append(IndexWrite(index.id, new, table.number, staged.id, present=True))
    return entries
