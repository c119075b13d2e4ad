"""The product made wrong in one place each, where a history's order is decided."""

from __future__ import annotations

from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from reactive_store.engine.committer import Committer
from reactive_store.engine.database import Database
from reactive_store.engine.snapshot import MergedPage, merge_overlay
from reactive_store.engine.staging import Staging
from reactive_store.engine.transaction import Transaction
from reactive_store.functions.live_queries import LiveQueries
from reactive_store.persistence.contract import Timestamp
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES"]


def _no_conflicts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Committer, "stale_since", lambda self, transaction: None)


def _stale_queries(patch: pytest.MonkeyPatch) -> None:
    publish, begin = Committer._publish, Database.begin
    before: WeakKeyDictionary[Committer, Timestamp] = WeakKeyDictionary()

    def remember(self: Committer, batch: list[Any]) -> None:
        before[self] = self.durable_ts
        publish(self, batch)

    def stale(self: Database, at: Timestamp | None = None) -> Transaction:
        return begin(self, before.get(self.committer, at) if at is None else at)

    patch.setattr(Committer, "_publish", remember)
    patch.setattr(Database, "begin", stale)


def _dirty_reads(patch: pytest.MonkeyPatch) -> None:
    make, page, accept = Database._transaction, Transaction._page, Committer._accept
    running: deque[Transaction] = deque(maxlen=16)

    def begin(self: Database, *args: Any, **fields: Any) -> Transaction:
        transaction = make(self, *args, **fields)
        if not transaction.is_read_only:
            running.append(transaction)
        return transaction

    def peeking(
        self: Transaction, table: Any, index: Any, name: Any, interval: Any, **fields: Any
    ) -> MergedPage:
        found = page(self, table, index, name, interval, **fields)
        for other in tuple(running) if not self.is_read_only else ():
            if other is not self and other._ids is self._ids and other.staging:
                staged = other.staging.overlay(name, interval.start, interval.end)
                found = merge_overlay(found, staged, descending=fields["descending"])
        return found

    def end(self: Committer, transaction: Transaction) -> Timestamp:
        if transaction in running:
            running.remove(transaction)
        return accept(self, transaction)

    patch.setattr(Database, "_transaction", begin)
    patch.setattr(Transaction, "_page", peeking)
    patch.setattr(Committer, "_accept", end)


def _own_writes_hidden(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Staging, "overlay", lambda self, index, start, end: {})


def _timestamps_again(patch: pytest.MonkeyPatch) -> None:
    # The lie is in what is told, to the client and to the queries that wait for it. Two commits
    # stored at one timestamp are impossible: the store refuses them with an assertion.
    accept = Committer._accept
    of_each: WeakKeyDictionary[Committer, list[Timestamp]] = WeakKeyDictionary()

    def third_is_old(self: Committer, transaction: Transaction) -> Timestamp:
        told = of_each.setdefault(self, [])
        ts = accept(self, transaction)
        told.append(told[-1] if len(told) % 3 == 2 else ts)
        return told[-1]

    patch.setattr(Committer, "_accept", third_is_old)


def _old_pushes(patch: pytest.MonkeyPatch) -> None:
    run = LiveQueries._run
    runs: WeakKeyDictionary[LiveQueries, int] = WeakKeyDictionary()

    async def older(self: LiveQueries, query: Any, caller: Any, at: Timestamp) -> Any:
        runs[self] = runs.get(self, 0) + 1
        is_old = runs[self] % 2 and query.valid_from
        return await run(self, query, caller, query.valid_from if is_old else at)

    patch.setattr(LiveQueries, "_run", older)


BREAKAGES = [
    Breakage(
        "no-conflicts",
        "serializable",
        "the committer never finds a conflict: what a mutation has read is not checked",
        _no_conflicts,
    ),
    Breakage(
        "stale-queries",
        "serializable",
        "a query reads the state before the newest batch of commits",
        _stale_queries,
    ),
    Breakage(
        "dirty-reads",
        "serializable",
        "a mutation sees what others have staged and not committed",
        _dirty_reads,
    ),
    Breakage(
        "own-writes-hidden",
        "serializable",
        "a mutation does not find its own writes in an index",
        _own_writes_hidden,
    ),
    Breakage(
        "timestamps-again",
        "serializable",
        "every third commit is told to be at the timestamp of the one before; it is stored at its "
        "own, for the store refuses two commits at one timestamp",
        _timestamps_again,
    ),
    Breakage(
        "old-pushes",
        "consistent push",
        "every second live result is computed at an older timestamp than its transition says",
        _old_pushes,
    ),
]
