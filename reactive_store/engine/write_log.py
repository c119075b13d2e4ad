"""The recent commits, in order: since when is this read set stale?

Commits enter when they are accepted, before they are durable, so a transaction that read pending
data is checked against pending data. The log is bounded, in commits and in bytes; what it no longer
covers cannot be checked, and the transaction has to be run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import takewhile

from reactive_store.engine.reads import CommitChanges, DocumentChange, ReadSet, touches

__all__ = ["WriteLog"]

_TERM_BYTES = 120  # of each word a search index counts in a version
_CHANGE_BYTES = 600  # what a change holds besides the document's versions: keys, records


class WriteLog:
    """Commits of the recent past, newest last."""

    __slots__ = ("_bytes", "_capacity", "_commits", "_forgotten_ts", "_most_bytes", "_sizes")

    def __init__(self, *, start_ts: int, capacity: int, most_bytes: int) -> None:
        self._commits: deque[CommitChanges] = deque()
        self._capacity = capacity
        self._sizes: deque[int] = deque()  # of the commits, in the same order
        self._bytes = 0
        self._most_bytes = most_bytes
        # Everything up to here is no longer listed: it was forgotten or lies before the start.
        self._forgotten_ts = start_ts

    def append(self, commit: CommitChanges) -> None:
        """Add an accepted commit; timestamps ascend."""
        size = _size_of(commit)
        self._commits.append(commit)
        self._sizes.append(size)
        self._bytes += size
        while len(self._commits) > self._capacity or self._bytes > self._most_bytes:
            self._forgotten_ts = self._commits.popleft().ts
            self._bytes -= self._sizes.popleft()

    def __len__(self) -> int:
        """How many commits are listed."""
        return len(self._commits)

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


def _size_of(commit: CommitChanges) -> int:
    """About how many bytes a commit holds on to."""
    size = 0
    for change in commit.documents:
        size += _CHANGE_BYTES
        if change.old is not None:
            size += len(change.old.value)
        if change.new is not None:
            size += len(change.new.value)
        for search in change.searches:
            for entry in {search.old, search.new}:
                if entry is not None:
                    size += _TERM_BYTES * len(entry.counts)
            size += _TERM_BYTES * len(search.moved)
    return size
