"""What every store of commits promises, and the records it exchanges with the engine.

The store keeps *document versions* and *index entries*, both with the timestamp that made them and
the one that ended them. It knows nothing of tables' names, schemas or values: a document is bytes.

Promises, held by one suite against every implementation:

1. **Order.** Commits arrive in ascending timestamp order, across restarts too. A commit whose
   timestamp is not above `last_ts` is refused with an AssertionError: it is a bug of ours.
2. **Atomic and durable.** When `append` returns, every commit of the batch survives loss of power
   (as configured); when it raises, or the process dies before it returns, each commit of the batch
   is there completely or not at all, and a commit is there only if all earlier ones are. After
   StoreFailed every write is refused: what the disk holds is for the next start to find out.
3. **Snapshots.** `get` and `scan` at timestamp T see exactly the commits up to T, however many
   commits follow, as long as T is at or above the last `trim`. They never see half a commit.
   They may be called at any time, also while `append` runs. At a T above `last_ts` a call may show
   a commit that is on its way, all of it or nothing; the next call may show another.
4. **Pages.** `scan` returns up to `limit` rows of the interval in key order (or reverse), and says
   whether rows may remain.
5. **Keys.** Within one commit ends take effect before beginnings, in whatever order they are
   listed, so a key one document leaves another may take. Beginning a key that its own document
   already holds changes nothing. An index holds documents of one table. The commit that carries an
   IndexWrite writes its document too, and a key begins only for a document the commit leaves alive:
   anything else is an AssertionError and nothing is written. No key is given to a second document
   while the first has it; the caller sees to that, and a store that notices, at once or when it
   puts the commit into its final place, takes no more. An update that changes no key carries no
   IndexWrite: the entry keeps pointing at the document, and reads at T return the version of T.
6. **Backfill.** `backfill` adds entries to an index for documents whose current version is still
   the one seen; others are skipped, since a later commit has already written their entry. For that,
   while an index is under construction, every write of a document carries its IndexWrites, also
   where the key stays. `backfill` never overwrites an entry a commit wrote. Durable when it
   returns. Reads of the index at timestamps before the last `backfill` may miss entries.
7. **Trim.** After `trim(before)` reads at or above `before` are unchanged; older ones may fail or
   miss rows. A call drops at most `limits.trim_rows` versions and entries and returns how many, so
   it is called until it returns 0.
8. **Globals** are small named byte strings, durable when the setter returns.

Reads are plain functions: the rows are near (memory, page cache), and a thread hop costs more than
the read. Writes are coroutines: they wait for the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, NewType, Protocol

__all__ = [
    "BackfillEntry",
    "Commit",
    "DocumentWrite",
    "IndexId",
    "IndexWrite",
    "Page",
    "Persistence",
    "Row",
    "TableNumber",
    "Timestamp",
]

Timestamp = NewType("Timestamp", int)
"""Commit timestamp: nanoseconds since the Unix epoch, strictly increasing per commit."""

TableNumber = NewType("TableNumber", int)
"""The number inside a document id; 1 … 4294967295."""

IndexId = NewType("IndexId", int)
"""A number the engine's catalog gives to each index; never reused."""


class Row(NamedTuple):
    """One document version as a read returns it."""

    key: bytes  # the index key it was found under; for `get` and `scan_table` the internal id
    id: bytes  # internal id, 16 bytes
    ts: int  # the commit that made this version
    value: bytes  # the document as encoded JSON


class Page(NamedTuple):
    """A piece of a scan."""

    rows: list[Row]
    exhausted: bool  # True: nothing of the interval lies beyond the last row


class DocumentWrite(NamedTuple):
    """One new version of a document."""

    table: TableNumber
    id: bytes
    value: bytes | None  # None: deleted
    is_insert: bool  # True: no version existed before


class IndexWrite(NamedTuple):
    """One change of an index's keys. An update that moves a document carries two."""

    index: IndexId  # type: ignore[assignment]  # a field, not the method of tuple
    key: bytes
    table: TableNumber
    id: bytes
    present: bool  # True: the entry begins here; False: it ends here


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction changed, at one timestamp. At most one DocumentWrite per document."""

    ts: Timestamp
    documents: tuple[DocumentWrite, ...]
    entries: tuple[IndexWrite, ...]


class BackfillEntry(NamedTuple):
    """An entry to be added to an index under construction."""

    key: bytes
    table: TableNumber
    id: bytes
    seen_ts: int  # timestamp of the version the key was computed from


class Persistence(Protocol):
    """A store of commits. See the module's promises."""

    @property
    def last_ts(self) -> Timestamp:
        """Timestamp of the newest durable commit; 0 when there is none."""
        ...

    async def append(self, commits: Sequence[Commit]) -> None:
        """Make a batch durable.

        Cost     one durable write, whatever the size of the batch
        Raises   StoreFailed when the disk did not take it; nothing may be appended afterwards
        """
        ...

    def get(self, table: TableNumber, id: bytes, at: Timestamp) -> Row | None:
        """The document's version at `at`, or None when it did not exist then."""
        ...

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
        """Rows of an index with start <= key < end (end None: no upper bound) at `at`."""
        ...

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
        """Rows of a table by internal id; what `scan` is for an index."""
        ...

    async def backfill(self, index: IndexId, entries: Sequence[BackfillEntry]) -> int:
        """Add entries whose document still has the version seen. Returns how many were added."""
        ...

    async def drop_index(self, index: IndexId) -> None:
        """Forget every entry of an index, present and past."""
        ...

    async def trim(self, before: Timestamp) -> int:
        """Forget versions and entries that ended at or before `before`.

        Returns how many: at most `limits.trim_rows` per call. 0: there are no more.
        """
        ...

    def get_global(self, name: str) -> bytes | None:
        """A named byte string, or None."""
        ...

    async def set_global(self, name: str, value: bytes) -> None:
        """Store a named byte string durably."""
        ...

    async def close(self) -> None:
        """Wait for writes under way, then let go of the file. Idempotent."""
        ...
