"""What the writer's thread does inside one transaction of the data file.

A batch of commits is worked through in three steps: load the newest versions and present entries
it touches, apply the commits to them in order, store what differs. So a document written by a
hundred commits of a batch is read once and stored once, every version in between goes to the
history, and the number of statements depends on the kinds of rows, not on the number of commits.
That number matters: between two statements the interpreter lock changes hands.

These are plain functions over a connection; the caller opens and closes the transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from reactive_store.persistence.contract import (
    BackfillEntry,
    Commit,
    IndexId,
    IndexWrite,
    Timestamp,
)
from reactive_store.persistence.statements import RowStatement, load_statements

__all__ = [
    "SQL",
    "begin_drop",
    "drop_rows",
    "fill_entries",
    "read_clock",
    "read_drops",
    "store_global",
    "trim_rows",
    "write_commits",
]

SQL: Final = load_statements("sqlite")

_LOAD_DOCUMENTS: Final = RowStatement(SQL["load_documents"])
_LOAD_ENTRIES: Final = RowStatement(SQL["load_entries"])
_STORE_DOCUMENTS: Final = RowStatement(SQL["store_documents"])
_STORE_HISTORY: Final = RowStatement(SQL["store_history"])
_REMOVE_ENTRIES: Final = RowStatement(SQL["remove_entries"])
_STORE_ENTRIES: Final = RowStatement(SQL["store_entries"])
_STORE_ENTRY_HISTORY: Final = RowStatement(SQL["store_entry_history"])
_BACKFILL: Final = RowStatement(SQL["backfill"])

_DocumentName = tuple[int, bytes]  # table number, internal id
_EntryName = tuple[int, bytes]  # index, key


class _Batch:
    """The state a batch of commits touches, before and after."""

    __slots__ = (
        "_before",
        "_connection",
        "_documents",
        "_ended_entries",
        "_ended_versions",
        "_entries",
        "_written",
        "next_doc",
    )

    def __init__(self, connection: sqlite3.Connection, next_doc: int) -> None:
        self._connection = connection
        self.next_doc = next_doc
        # Newest versions: (document number, ts, value).
        self._documents: dict[_DocumentName, tuple[int, int, bytes | None]] = {}
        self._written: dict[_DocumentName, None] = {}  # a set that remembers the order
        # Present entries: (document number, ts); None: none is present.
        self._entries: dict[_EntryName, tuple[int, int] | None] = {}
        self._before: dict[_EntryName, tuple[int, int]] = {}
        self._ended_versions: list[tuple[int, int, int, bytes]] = []
        self._ended_entries: list[tuple[int, int, bytes, int, int]] = []

    def load(self, commits: Sequence[Commit]) -> None:
        wanted: dict[_DocumentName, None] = {}
        for commit in commits:
            for write in commit.documents:
                wanted[write.table, write.id] = None
            for entry in commit.entries:
                wanted[entry.table, entry.id] = None
        for table, name, doc, ts, value in _LOAD_DOCUMENTS.fetch(self._connection, list(wanted)):
            self._documents[table, name] = (doc, ts, value)
        self._load_entries(commits)

    def _load_entries(self, commits: Sequence[Commit]) -> None:
        wanted: dict[_EntryName, None] = {}
        for commit in commits:
            for entry in commit.entries:
                # A new document has no entries yet; should another one hold the key, storing fails.
                if (entry.table, entry.id) in self._documents:
                    wanted[entry.index, entry.key] = None
        for index, key, doc, ts in _LOAD_ENTRIES.fetch(self._connection, list(wanted)):
            self._before[index, key] = self._entries[index, key] = (doc, ts)

    def apply(self, commit: Commit) -> None:
        self._apply_documents(commit)
        self._apply_entries(commit.entries, commit.ts)

    def _apply_documents(self, commit: Commit) -> None:
        ts = commit.ts
        for write in commit.documents:
            name = (write.table, write.id)
            known = self._documents.get(name)
            if known is None:
                if write.value is None:
                    continue
                doc = self.next_doc
                self.next_doc += 1
            else:
                doc, old_ts, old_value = known
                if old_value is not None:
                    self._ended_versions.append((doc, ts, old_ts, old_value))
            self._documents[name] = (doc, ts, write.value)
            self._written[name] = None

    def _apply_entries(self, writes: Sequence[IndexWrite], ts: int) -> None:
        # Ends first: a key one document leaves may be taken by another in the same commit.
        for write in writes:
            if write.present:
                continue
            name = (write.index, write.key)
            held = self._entries.get(name)
            document = self._documents.get((write.table, write.id))
            if held is not None and document is not None and held[0] == document[0]:
                self._ended_entries.append((write.index, ts, write.key, *held))
                self._entries[name] = None
        for write in writes:
            if not write.present:
                continue
            name = (write.index, write.key)
            held = self._entries.get(name)
            document = self._documents.get((write.table, write.id))
            if (
                document is None
                or document[2] is None
                or (held is not None and held[0] != document[0])
            ):
                raise AssertionError(f"index {write.index}: key {write.key.hex()} cannot be given")
            if held is None:
                self._entries[name] = (document[0], ts)

    def store(self) -> int:
        """Write what differs. Returns the number of rows."""
        before = self._before
        removed = [name for name, held in before.items() if self._entries[name] != held]
        begun = sorted(
            (*name, *held)
            for name, held in self._entries.items()
            if held is not None and before.get(name) != held
        )
        documents = [
            (doc, *name, ts, value)
            for name in self._written
            for doc, ts, value in (self._documents[name],)
        ]
        stores: tuple[tuple[RowStatement, Sequence[Sequence[Any]]], ...] = (
            (_STORE_HISTORY, self._ended_versions),
            (_STORE_DOCUMENTS, documents),
            (_REMOVE_ENTRIES, removed),
            (_STORE_ENTRY_HISTORY, self._ended_entries),
            (_STORE_ENTRIES, begun),
        )
        for statement, rows in stores:
            if rows:
                statement.execute(self._connection, rows)
        return sum(len(rows) for _, rows in stores)


def write_commits(
    connection: sqlite3.Connection, commits: Sequence[Commit], next_doc: int
) -> tuple[int, int]:
    """Store a batch. Returns the next free document number and how many rows were written.

    Raises   AssertionError when a commit gives a key to two documents: a bug of the caller
    """
    batch = _Batch(connection, next_doc)
    batch.load(commits)
    for commit in commits:
        batch.apply(commit)
    try:
        rows = batch.store()
    except sqlite3.IntegrityError as error:
        raise AssertionError(f"a key was given to two documents: {error}") from error
    connection.execute(SQL["set_clock"], (commits[-1].ts, batch.next_doc))
    return batch.next_doc, rows


def fill_entries(
    connection: sqlite3.Connection, index: IndexId, entries: Sequence[BackfillEntry]
) -> int:
    """Store entries whose document was not written since. Returns how many."""
    rows = [(index, entry.key, entry.table, entry.id, entry.seen_ts) for entry in entries]
    return _BACKFILL.execute(connection, rows)


def trim_rows(connection: sqlite3.Connection, before: Timestamp, limit: int) -> int:
    """Delete up to `limit` ended entries and versions. Returns how many."""
    room, index = limit, -1
    while room:
        (index,) = connection.execute(SQL["next_index_with_history"], (index,)).fetchone()
        if index is None:
            break
        room -= connection.execute(SQL["trim_entries"], (index, before, room)).rowcount
    if room:
        room -= connection.execute(SQL["trim_versions"], (before, room)).rowcount
    if room:
        # Not counted: each stands for a version that was.
        connection.execute(SQL["trim_tombstones"], (before, limit))
    return limit - room


def begin_drop(connection: sqlite3.Connection, index: IndexId) -> None:
    """Remember that an index is to be emptied."""
    connection.execute(SQL["begin_drop"], (index,))


def drop_rows(connection: sqlite3.Connection, index: int, limit: int) -> bool:
    """Delete up to `limit` entries of an index. True once none is left."""
    room = limit
    for statement in ("drop_entries", "drop_entry_history"):
        if room:
            room -= connection.execute(SQL[statement], (index, room)).rowcount
    if room:
        connection.execute(SQL["end_drop"], (index,))
    return room > 0


def store_global(connection: sqlite3.Connection, name: str, value: bytes) -> None:
    """Store a named byte string."""
    connection.execute(SQL["set_global"], (name, value))


def read_clock(connection: sqlite3.Connection) -> tuple[int, int]:
    """The newest commit's timestamp and the next free document number.

    Raises   sqlite3.DatabaseError when they are not there
    """
    found = connection.execute(SQL["read_clock"]).fetchone()
    if found is None or not all(isinstance(number, int) for number in found):
        raise sqlite3.DatabaseError("its clock is damaged")
    last_ts, next_doc = found
    return last_ts, next_doc


def read_drops(connection: sqlite3.Connection) -> list[int]:
    """Indexes whose emptying was begun and not finished."""
    return [index for (index,) in connection.execute(SQL["list_drops"])]
