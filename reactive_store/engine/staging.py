"""What a transaction has written so far, readable by itself and undoable to any earlier point.

One entry per document: the version it had before the transaction and the one it has now, with the
keys in every index beside, so the commit needs no second look. The changed keys of one index are
sorted when the first scan of that index asks for them, and kept current from then on: most
mutations never read what they have written.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import NamedTuple

from reactive_store.engine.catalog import Table
from reactive_store.engine.reads import DocumentChange, IndexName, KeyChange, SearchChange
from reactive_store.engine.search_terms import SearchEntry
from reactive_store.persistence.contract import Row

__all__ = ["StagedDocument", "Staging"]


class StagedDocument(NamedTuple):
    """One document as the transaction leaves it.

    Keys are those of `table.encoders`, in that order; empty when the version does not exist.
    """

    table: Table
    id: bytes
    before: Row | None  # the version in the snapshot; None: inserted by this transaction
    before_keys: tuple[bytes, ...]
    after: Row | None  # None: deleted
    after_keys: tuple[bytes, ...]
    # In the order of `table.search_indexes`; empty when the version does not exist.
    before_entries: tuple[SearchEntry | None, ...] = ()
    after_entries: tuple[SearchEntry | None, ...] = ()

    def change(self, after: Row | None) -> DocumentChange:
        """The document's change, as a commit records it; `after` carries the commit's timestamp."""
        table, before, id = self.table, self.before, self.id  # noqa: A001
        old = repeat(None) if before is None else (id, *self.before_keys)
        new = repeat(None) if after is None else (id, *self.after_keys)
        keys = tuple(map(KeyChange, table.index_names, old, new))
        if not table.search_indexes:
            return DocumentChange(table.name, id, before, after, keys)
        return DocumentChange(table.name, id, before, after, keys, self._searches(after))

    def _searches(self, after: Row | None) -> tuple[SearchChange, ...]:
        before_entries = repeat(None) if self.before is None else self.before_entries
        after_entries = repeat(None) if after is None else self.after_entries
        names, fields = self.table.search_names, self.table.search_fields
        return tuple(map(SearchChange, names, fields, before_entries, after_entries))


class _Overlay:
    """Changed keys of one index: sorted, each with its row or None (the key is gone)."""

    __slots__ = ("index", "keys", "rows")

    def __init__(self, index: IndexName) -> None:
        self.index = index
        self.keys: list[bytes] = []
        self.rows: dict[bytes, Row | None] = {}

    def cover(self, document: StagedDocument) -> None:
        """Add the keys of a document; harmless when it is of another table."""
        after = document.after
        before_key, after_key = self._keys_in(document)
        if before_key is not None:
            self._put(before_key, None)
        if after_key is not None and after is not None:
            self._put(after_key, Row(after_key, after.id, after.ts, after.value))

    def uncover(self, document: StagedDocument) -> None:
        """Take the keys of a document away again."""
        for key in self._keys_in(document):
            if key in self.rows:
                del self.rows[key]
                del self.keys[bisect_left(self.keys, key)]

    def _keys_in(self, document: StagedDocument) -> tuple[bytes | None, bytes | None]:
        """The document's keys in this index: of the version before, and of the one after."""
        names = document.table.index_names
        if self.index not in names:
            return None, None
        position = names.index(self.index)
        before = None if document.before is None else (document.id, *document.before_keys)[position]
        after = None if document.after is None else (document.id, *document.after_keys)[position]
        return before, after

    def _put(self, key: bytes, row: Row | None) -> None:
        if key not in self.rows:
            insort(self.keys, key)
        self.rows[key] = row


class Staging:
    """The write set of one transaction."""

    __slots__ = ("_documents", "_overlays", "_undo")

    def __init__(self) -> None:
        self._documents: dict[tuple[str, bytes], StagedDocument] = {}
        # The indexes that were scanned since the first write.
        self._overlays: dict[IndexName, _Overlay] = {}
        # What each write replaced, oldest first; rollback walks it backwards.
        self._undo: list[tuple[tuple[str, bytes], StagedDocument | None]] = []

    def __bool__(self) -> bool:
        return bool(self._documents)

    def __iter__(self) -> Iterator[StagedDocument]:
        """The documents changed, in the order they were first written."""
        return iter(self._documents.values())

    def get(self, table: str, id: bytes) -> StagedDocument | None:
        """What is staged for a document."""
        return self._documents.get((table, id))

    def put(self, document: StagedDocument) -> None:
        """Stage a document's new state."""
        reference = (document.table.name, document.id)
        self._undo.append((reference, self._documents.get(reference)))
        self._install(reference, document)

    @property
    def position(self) -> int:
        """A point `rollback` can return to."""
        return len(self._undo)

    def rollback(self, position: int) -> None:
        """Undo every write made after `position` was taken."""
        while len(self._undo) > position:
            reference, previous = self._undo.pop()
            self._install(reference, previous)

    def overlay(
        self, index: IndexName, start: bytes, end: bytes | None
    ) -> Mapping[bytes, Row | None]:
        """Changed keys of an index within start <= key < end.

        Cost     the first time for an index O(documents staged), then a slice
        """
        overlay = self._overlays.get(index)
        if overlay is None:
            overlay = self._overlays[index] = _Overlay(index)
            for document in self._documents.values():
                overlay.cover(document)
        if not overlay.keys:
            return {}
        first = bisect_left(overlay.keys, start)
        last = len(overlay.keys) if end is None else bisect_left(overlay.keys, end)
        return {key: overlay.rows[key] for key in overlay.keys[first:last]}

    def _install(self, reference: tuple[str, bytes], document: StagedDocument | None) -> None:
        current = self._documents.get(reference) if self._overlays else None
        if document is None:
            self._documents.pop(reference, None)
        else:
            self._documents[reference] = document
        for overlay in self._overlays.values():
            if current is not None:
                overlay.uncover(current)
            if document is not None:
                overlay.cover(document)
