"""Commits kept in memory, for tests and throw-away deployments. Durable means: until it is closed.

A table is an index over internal ids, so one structure answers `scan` and `scan_table`. Each index
keeps its present entries apart from the ended ones: reads of the newest state never walk over the
past, and reads of the past pay for what ended since. Ended things lie in the order of their ends,
which is the order `trim` drops them in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    BackfillEntry,
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    Page,
    Row,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sorted_keys import SortedKeys

__all__ = ["MemoryPersistence"]


class _Document:
    """One document with all its versions."""

    __slots__ = ("id", "past", "ts", "value")

    def __init__(self, internal_id: bytes) -> None:
        self.id = internal_id
        self.ts = 0  # the commit that made the newest version
        self.value: bytes | None = None  # the newest version; None: deleted
        self.past: deque[tuple[int, int, bytes]] = deque()  # (ts, end_ts, value), ends ascending

    def row(self, key: bytes, at: int) -> Row | None:
        """The version of `at` as a row found under `key`."""
        if self.ts <= at:
            return None if self.value is None else Row(key, self.id, self.ts, self.value)
        for ts, end_ts, value in reversed(self.past):
            if ts <= at:
                return Row(key, self.id, ts, value) if at < end_ts else None
        return None


class _Entry:
    """A present key of an index."""

    __slots__ = ("document", "row", "ts")

    def __init__(self, document: _Document, ts: int) -> None:
        self.document = document
        self.ts = ts
        # What the newest state's readers get; made by the first of them after each change of the
        # document, so that a range read again and again builds no rows.
        self.row: Row | None = None


class _Index:
    """Present entries by key, and the ended ones by the time they ended."""

    __slots__ = ("ended", "keys", "present")

    def __init__(self) -> None:
        self.keys = SortedKeys()
        self.present: dict[bytes, _Entry] = {}  # the same keys
        self.ended: deque[tuple[int, bytes, int, _Document]] = deque()  # (end_ts, key, ts, …)

    def begin(self, key: bytes, document: _Document, ts: int) -> None:
        if key not in self.present:
            self.present[key] = _Entry(document, ts)
            self.keys.add(key)

    def finish(self, key: bytes, document: _Document, ts: int) -> None:
        entry = self.present.get(key)
        if entry is not None and entry.document is document:
            del self.present[key]
            self.keys.remove(key)
            self.ended.append((ts, key, entry.ts, document))

    def scan(
        self, start: bytes, end: bytes | None, at: int, *, descending: bool, limit: int
    ) -> Page:
        rows = self._present_rows(start, end, at, descending, limit + 1)
        past = self._past_rows(start, end, at)
        if past:
            rows += past
            rows.sort(reverse=descending)
        if len(rows) > limit:
            return Page(rows[:limit], exhausted=False)
        return Page(rows, exhausted=True)

    def _present_rows(
        self, start: bytes, end: bytes | None, at: int, descending: bool, wanted: int
    ) -> list[Row]:
        """The first `wanted` rows of entries that are present now and were at `at`."""
        present, rows = self.present, list[Row]()
        while True:
            missing = wanted - len(rows)
            if descending:
                keys = self.keys.descending(start, end, missing)
            else:
                keys = self.keys.ascending(start, end, missing)
            for key in keys:
                entry = present[key]
                document = entry.document
                if entry.ts <= at and document.ts <= at:
                    row = entry.row
                    if row is None or row.ts != document.ts:
                        row = entry.row = document.row(key, at)
                else:
                    row = document.row(key, at) if entry.ts <= at else None
                if row is not None:
                    rows.append(row)
            if len(keys) < missing or len(rows) == wanted:
                return rows
            # Some entries began after `at`; more may lie beyond the last key seen.
            if descending:
                end = keys[-1]
            else:
                start = keys[-1] + b"\x00"

    def _past_rows(self, start: bytes, end: bytes | None, at: int) -> list[Row]:
        """Rows of entries of the range that have ended since `at`."""
        rows: list[Row] = []
        for end_ts, key, ts, document in reversed(self.ended):
            if end_ts <= at:
                break
            if ts <= at and start <= key and (end is None or key < end):
                row = document.row(key, at)
                if row is not None:
                    rows.append(row)
        return rows


class MemoryPersistence:
    """The contract's promises without a disk.

    Cost     a range of 20 rows read at the newest timestamp: some microseconds
    """

    __slots__ = ("_documents", "_ended", "_globals", "_indexes", "_last_ts", "_limits", "_tables")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = Limits() if limits is None else limits
        self._last_ts = 0
        self._documents: dict[tuple[int, bytes], _Document] = {}  # deleted ones until trimmed
        self._tables: dict[int, _Index] = {}
        self._indexes: dict[int, _Index] = {}
        self._globals: dict[str, bytes] = {}
        # Every end of a version, in order; the pair names the document.
        self._ended: deque[tuple[int, tuple[int, bytes]]] = deque()

    @property
    def last_ts(self) -> Timestamp:
        return Timestamp(self._last_ts)

    async def append(self, commits: Sequence[Commit]) -> None:
        last_ts = self._last_ts
        for commit in commits:
            if commit.ts <= last_ts:
                raise AssertionError(f"commit {commit.ts} is not above {last_ts}")
            last_ts = commit.ts
        for commit in commits:
            self._assert_keys_free(commit)
            for document in commit.documents:
                self._write_document(document, commit.ts)
            self._write_entries(commit.entries, commit.ts)
            self._last_ts = commit.ts

    def _write_document(self, write: DocumentWrite, ts: int) -> None:
        pair = (write.table, write.id)
        document = self._documents.get(pair)
        if document is None:
            if write.value is None:
                return
            document = self._documents[pair] = _Document(write.id)
        elif document.value is not None:
            document.past.append((document.ts, ts, document.value))
            self._ended.append((ts, pair))
        table = self._tables.get(write.table)
        if table is None:
            table = self._tables[write.table] = _Index()
        document.ts, document.value = ts, write.value
        if write.value is None:
            table.finish(write.id, document, ts)
        else:
            table.begin(write.id, document, ts)

    def _write_entries(self, writes: Iterable[IndexWrite], ts: int) -> None:
        # Ends first: a key one document leaves may be taken by another in the same commit.
        for write in writes:
            if not write.present:
                index = self._indexes.get(write.index)
                document = self._documents.get((write.table, write.id))
                if index is not None and document is not None:
                    index.finish(write.key, document, ts)
        for write in writes:
            if write.present:
                index = self._indexes.get(write.index)
                if index is None:
                    index = self._indexes[write.index] = _Index()
                index.begin(write.key, self._documents[write.table, write.id], ts)

    def _assert_keys_free(self, commit: Commit) -> None:
        """Refuse a commit whose entries break promise 5, before it acts."""
        left = {(write.index, write.key) for write in commit.entries if not write.present}
        written = {(write.table, write.id): write.value for write in commit.documents}
        for write in commit.entries:
            pair = (write.table, write.id)
            is_refused = pair not in written
            if write.present and not is_refused:
                document = self._documents.get(pair)
                index = self._indexes.get(write.index)
                holder = None if index is None else index.present.get(write.key)
                is_taken = (
                    holder is not None
                    and holder.document is not document
                    and (write.index, write.key) not in left
                )
                is_refused = is_taken or written[pair] is None
            if is_refused:
                raise AssertionError(f"index {write.index}: key {write.key.hex()} cannot be given")

    def get(self, table: TableNumber, id: bytes, at: Timestamp) -> Row | None:
        document = self._documents.get((table, id))
        return None if document is None else document.row(id, at)

    def scan(
        self,
        index: IndexId,
        start: bytes,
        end: bytes | None,
        at: Timestamp,
        *,
        descending: bool,
        limit: int,
    ) -> Page:
        found = self._indexes.get(index)
        if found is None:
            return Page([], exhausted=True)
        return found.scan(start, end, at, descending=descending, limit=limit)

    def scan_table(
        self,
        table: TableNumber,
        start: bytes,
        end: bytes | None,
        at: Timestamp,
        *,
        descending: bool,
        limit: int,
    ) -> Page:
        found = self._tables.get(table)
        if found is None:
            return Page([], exhausted=True)
        return found.scan(start, end, at, descending=descending, limit=limit)

    async def backfill(self, index: IndexId, entries: Sequence[BackfillEntry]) -> int:
        filled = self._indexes.setdefault(index, _Index())
        added = 0
        for entry in entries:
            document = self._documents.get((entry.table, entry.id))
            if document is None or document.value is None or document.ts != entry.seen_ts:
                continue
            if entry.key not in filled.present:
                filled.begin(entry.key, document, document.ts)
                added += 1
        return added

    async def drop_index(self, index: IndexId) -> None:
        self._indexes.pop(index, None)

    async def trim(self, before: Timestamp) -> int:
        room = self._limits.trim_rows
        for index in self._indexes.values():
            while room and index.ended and index.ended[0][0] <= before:
                index.ended.popleft()
                room -= 1
        while room and self._ended and self._ended[0][0] <= before:
            _, pair = self._ended.popleft()
            document = self._documents[pair]
            document.past.popleft()
            room -= 1
            if document.value is None and not document.past and document.ts <= before:
                del self._documents[pair]
        for table in self._tables.values():
            # They describe the versions counted above, so they are not counted again.
            while table.ended and table.ended[0][0] <= before:
                table.ended.popleft()
        return self._limits.trim_rows - room

    def get_global(self, name: str) -> bytes | None:
        return self._globals.get(name)

    async def set_global(self, name: str, value: bytes) -> None:
        self._globals[name] = value

    async def close(self) -> None:
        """Nothing to let go of: what was written stays readable until the object goes."""

    def statistics(self) -> dict[str, int]:
        """How much is held: documents (deleted ones not yet trimmed too), present and past keys."""
        indexes = list(self._indexes.values())
        return {
            "documents": len(self._documents),
            "ended_versions": len(self._ended),
            "entries": sum(len(index.present) for index in indexes),
            "ended_entries": sum(len(index.ended) for index in indexes),
        }

    def check(self) -> None:
        """Assert the invariants; for tests."""
        for index in (*self._tables.values(), *self._indexes.values()):
            index.keys.check()
            assert len(index.keys) == len(index.present)
            for entry in index.present.values():
                assert entry.document.value is not None
                assert entry.ts <= entry.document.ts <= self._last_ts
            ends = [end_ts for end_ts, *_ in index.ended]
            assert ends == sorted(ends)
        for document in self._documents.values():
            last_end = 0
            for ts, end_ts, _ in document.past:
                assert last_end <= ts < end_ts <= document.ts
                last_end = end_ts
