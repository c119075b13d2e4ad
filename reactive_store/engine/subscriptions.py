"""Who is told when a commit touches what they read.

A subscription is a read set and a plain function. It fires once, for the first commit that touches
it, and is gone. Finding the touched ones asks the interval map per changed key, never every
subscription; a property test keeps the answer equal to `reads.touches`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from reactive_store.engine.interval import IntervalMap
from reactive_store.engine.reads import (
    CommitChanges,
    DocumentChange,
    IndexName,
    Predicate,
    ReadSet,
    passes,
)

__all__ = ["Subscription", "Subscriptions"]

_LOG = logging.getLogger(__name__)


class Subscription:
    """One waiting reader."""

    __slots__ = ("is_active", "on_touched", "reads")

    def __init__(self, reads: ReadSet, on_touched: Callable[[int], None]) -> None:
        self.reads = reads
        # Called with the timestamp of the commit, inside publish: it marks and returns.
        self.on_touched = on_touched
        # True while filed; a fired or cancelled subscription never fires again.
        self.is_active = True


_Filed = tuple[Subscription, Predicate | None]


class Subscriptions:
    """Every active subscription, filed by the intervals it read."""

    __slots__ = ("_count", "_maps")

    def __init__(self) -> None:
        self._maps: dict[IndexName, IntervalMap[_Filed]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, reads: ReadSet, on_touched: Callable[[int], None]) -> Subscription:
        """File a subscription.

        Cost     one entry per read
        """
        subscription = Subscription(reads, on_touched)
        for index, (interval, prefix_bytes, predicate) in reads:
            if interval.is_empty:
                continue
            of_index = self._maps.get(index)
            if of_index is None:
                of_index = self._maps[index] = IntervalMap()
            of_index.add(interval, prefix_bytes, (subscription, predicate))
        self._count += 1
        return subscription

    def cancel(self, subscription: Subscription) -> None:
        """Forget a subscription; harmless when it has fired."""
        if not subscription.is_active:
            return
        subscription.is_active = False
        self._count -= 1
        for index, (interval, prefix_bytes, predicate) in subscription.reads:
            if interval.is_empty:
                continue
            of_index = self._maps[index]
            of_index.remove(interval, prefix_bytes, (subscription, predicate))
            if not of_index:
                del self._maps[index]

    def touched(self, commit: CommitChanges) -> list[Subscription]:
        """The subscriptions a commit touches, each once. They stay filed.

        Cost     O(keys changed), flat in the number of subscriptions that do not match
        """
        found: dict[Subscription, None] = {}
        for change in commit.documents:
            for index, old, new in change.keys:
                of_index = self._maps.get(index)
                if of_index is None:
                    continue
                if old is not None:
                    _collect(of_index, old, change, found, is_old=True)
                if new is not None:
                    _collect(of_index, new, change, found, is_old=False)
            for search in change.searches:
                of_index = self._maps.get(search.index_name)
                if of_index is None:
                    continue
                if search.old is not None:
                    for key in search.old.counts:
                        _collect(of_index, key, change, found, is_old=True)
                if search.new is not None:
                    for key in search.new.counts:
                        _collect(of_index, key, change, found, is_old=False)
                for key in search.moved:
                    for subscription, _ in of_index.stab(key):
                        found[subscription] = None
        return list(found)

    def publish(self, commit: CommitChanges) -> int:
        """Fire every subscription the commit touches. Returns how many fired."""
        touched = self.touched(commit)
        for subscription in touched:
            self.cancel(subscription)
        for subscription in touched:
            try:
                subscription.on_touched(commit.ts)
            except Exception:  # noqa: BLE001 - one reader's bug must not stop everybody's commits
                _LOG.exception("a subscriber failed ts=%d", commit.ts)
        return len(touched)

    def check(self) -> None:
        """Assert the invariants; for tests."""
        for of_index in self._maps.values():
            assert of_index
            of_index.check()


def _collect(
    of_index: IntervalMap[_Filed],
    key: bytes,
    change: DocumentChange,
    found: dict[Subscription, None],
    *,
    is_old: bool,
) -> None:
    for subscription, predicate in of_index.stab(key):
        if subscription in found:
            continue
        if predicate is not None:
            document = change.old_document if is_old else change.new_document
            if not passes(predicate, document):
                continue
        found[subscription] = None
