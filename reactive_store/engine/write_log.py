"""The recent commits, in order: since when is this read set stale?

Commits enter when they are accepted, before they are durable, so a transaction that read pending
data is checked against pending data. The log is bounded; what it no longer covers cannot be
checked, and the transaction has to be run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import takewhile

from reactive_store.engine.reads import CommitChanges, DocumentChange, ReadSet, touches

__all__ = ["WriteLog"]


class WriteLog:
    """Commits of the recent past, newest last."""

    __slots__ = ("_capacity", "_commits", "_forgotten_ts")

    def __init__(self, *, start_ts: int, capacity: int) -> None:
        self._commits: deque[CommitChanges] = deque()
        self._capacity = capacity
        # Everything up to here is no longer listed: it was forgotten or lies before the start.
        self._forgotten_ts = start_ts

    def append(self, commit: CommitChanges) -> None:
        """Add an accepted commit; timestamps ascend."""
        self._commits.append(commit)
        if len(self._commits) > self._capacity:
            self._forgotten_ts = self._commits.popleft().ts

    def covers(self, since: int) -> bool:
        """Whether every commit after `since` is still listed."""
        return since >= self._forgotten_ts

    def since(self, ts: int) -> Iterator[CommitChanges]:
        """Commits after `ts`, newest first."""
        return takewhile(lambda commit: commit.ts > ts, reversed(self._commits))

    def first_touch(
        self, reads: ReadSet, *, since: int, until: int | None = None
    ) -> tuple[int, DocumentChange] | None:
        """The oldest commit after `since` (up to `until`) that touches the reads, or None.

        Cost     O(commits after `since` × what `touches` costs)
        """
        found: tuple[int, DocumentChange] | None = None
        for commit in self.since(since):
            if until is not None and commit.ts > until:
                continue
            change = touches(reads, commit)
            if change is not None:
                found = (commit.ts, change)
        return found
