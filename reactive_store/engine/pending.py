"""Commits that are accepted but not yet durable, readable by later mutations.

What is here is missing from the persistence; what has become durable leaves in the same step that
raises the durable timestamp, so a read of "persistence, overlaid with pending" at one timestamp is
the same before and after. Reads name their timestamp: commits accepted later are invisible.

The changed keys of an index are sorted when the first scan of it asks for them, and kept current
until nothing is pending any more. Mutations that read by id alone cost no index anything.

Source: docs/architecture.md, "One mutation, from frame to transition".
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

from reactive_store.engine.reads import CommitChanges, IndexName
from reactive_store.persistence.contract import Row

__all__ = ["PendingCommits", "Versions"]

Versions = list[tuple[int, Row | None]]


class _KeyVersions:
    """The changed keys of one index, sorted, each with its versions in commit order."""

    __slots__ = ("keys", "versions")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.versions: dict[bytes, Versions] = {}

    def add(self, key: bytes, ts: int, row: Row | None) -> None:
        versions = self.versions.get(key)
        if versions is None:
            self.versions[key] = [(ts, row)]
            insort(self.keys, key)
        else:
            # One commit writes a key once: keys end in the id of their document.
            versions.append((ts, row))

    def apply(self, index: IndexName, commit: CommitChanges) -> None:
        """Add what a commit changed in this index."""
        for change in commit.documents:
            if change.table != index[0]:
                continue
            for name, old, new in change.keys:
                if name != index:
                    continue
                if old is not None and old != new:
                    self.add(old, commit.ts, None)
                if new is not None:
                    row = change.new
                    assert row is not None
                    self.add(new, commit.ts, Row(new, row.id, row.ts, row.value))

    def forget(self, key: bytes, ts: int) -> None:
        versions = self.versions.get(key)
        if versions is None or versions[0][0] > ts:
            return
        kept = [version for version in versions if version[0] > ts]
        if kept:
            self.versions[key] = kept
        else:
            del self.versions[key]
            del self.keys[bisect_left(self.keys, key)]


class PendingCommits:
    """The overlay of everything accepted above the durable timestamp."""

    __slots__ = ("_by_id", "_commits", "_indexes")

    def __init__(self) -> None:
        self._commits: deque[CommitChanges] = deque()
        self._indexes: dict[IndexName, _KeyVersions] = {}  # those that were scanned
        self._by_id: dict[tuple[str, bytes], Versions] = {}

    def __len__(self) -> int:
        return len(self._commits)

    def __bool__(self) -> bool:
        return bool(self._commits)

    def __iter__(self) -> Iterator[CommitChanges]:
        return iter(self._commits)

    def add(self, commit: CommitChanges) -> None:
        """Overlay an accepted commit."""
        self._commits.append(commit)
        ts, by_id = commit.ts, self._by_id
        for change in commit.documents:
            reference = (change.table, change.id)
            versions = by_id.get(reference)
            if versions is None:
                by_id[reference] = [(ts, change.new)]
            else:
                versions.append((ts, change.new))
        for index, of_index in self._indexes.items():
            of_index.apply(index, commit)

    def retire(self, durable_ts: int) -> None:
        """Let go of everything up to the durable timestamp."""
        if self._commits and self._commits[-1].ts <= durable_ts:
            self.clear()
            return
        while self._commits and self._commits[0].ts <= durable_ts:
            commit = self._commits.popleft()
            for change in commit.documents:
                reference = (change.table, change.id)
                versions = [v for v in self._by_id.get(reference, ()) if v[0] > durable_ts]
                if versions:
                    self._by_id[reference] = versions
                else:
                    self._by_id.pop(reference, None)
                for index, old, new in change.keys:
                    of_index = self._indexes.get(index)
                    if of_index is None:
                        continue
                    if old is not None:
                        of_index.forget(old, durable_ts)
                    if new is not None:
                        of_index.forget(new, durable_ts)

    def clear(self) -> None:
        """Forget everything: all of it is durable, or has failed."""
        self._commits.clear()
        self._indexes.clear()
        self._by_id.clear()

    def get(self, table: str, id: bytes, at: int) -> tuple[int, Row | None] | None:
        """The newest pending version up to `at` as (ts, row or None), or None: not pending."""
        for version in reversed(self._by_id.get((table, id), ())):
            if version[0] <= at:
                return version
        return None

    def overlay(
        self, index: IndexName, start: bytes, end: bytes | None, at: int
    ) -> dict[bytes, Row | None]:
        """Keys of an index changed up to `at` within start <= key < end; None: the key is gone.

        Cost     the first time for an index O(documents pending), then a slice
        """
        of_index = self._indexes.get(index)
        if of_index is None:
            of_index = self._indexes[index] = _KeyVersions()
            for commit in self._commits:
                of_index.apply(index, commit)
        first = bisect_left(of_index.keys, start)
        last = len(of_index.keys) if end is None else bisect_left(of_index.keys, end)
        found: dict[bytes, Row | None] = {}
        for key in of_index.keys[first:last]:
            for ts, row in reversed(of_index.versions[key]):
                if ts <= at:
                    found[key] = row
                    break
        return found
