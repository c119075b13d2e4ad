"""What a transaction has written so far, readable by itself and undoable to any earlier point.

One entry per document: the version it had before the transaction and the one it has now. Keys in
every index are kept beside, sorted, so scans can be overlaid and the commit needs no second look.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reactive_store.engine.catalog import Table
from reactive_store.engine.range_index import BY_ID
from reactive_store.engine.reads import DocumentChange, IndexName, KeyChange
from reactive_store.persistence.contract import Row

__all__ = ["StagedDocument", "Staging"]


@dataclass(frozen=True, slots=True)
class StagedDocument:
    """One document as the transaction leaves it.

    Keys are those of `table.encoders`, in that order; empty when the version does not exist.
    """

    table: Table
    id: bytes
    before: Row | None  # the version in the snapshot; None: inserted by this transaction
    before_keys: tuple[bytes, ...]
    after: Row | None  # None: deleted
    after_keys: tuple[bytes, ...]

    def change(self, after: Row | None) -> DocumentChange:
        """The document's change, as a commit records it; `after` carries the commit's timestamp."""
        before = self.before
        name = self.table.name
        keys = [
            KeyChange(
                (name, BY_ID),
                None if before is None else self.id,
                None if after is None else self.id,
            )
        ]
        for position, (index, _) in enumerate(self.table.encoders):
            keys.append(
                KeyChange(
                    (name, index.name),
                    None if before is None else self.before_keys[position],
                    None if after is None else self.after_keys[position],
                )
            )
        return DocumentChange(name, self.id, before, after, tuple(keys))


class _Overlay:
    """Changed keys of one index: sorted, each with its row or None (the key is gone)."""

    __slots__ = ("keys", "rows")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.rows: dict[bytes, Row | None] = {}

    def put(self, key: bytes, row: Row | None) -> None:
        if key not in self.rows:
            insort(self.keys, key)
        self.rows[key] = row

    def drop(self, key: bytes) -> None:
        if key in self.rows:
            del self.rows[key]
            del self.keys[bisect_left(self.keys, key)]


class Staging:
    """The write set of one transaction."""

    __slots__ = ("_documents", "_overlays", "_undo")

    def __init__(self) -> None:
        self._documents: dict[tuple[str, bytes], StagedDocument] = {}
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
        """Changed keys of an index within start <= key < end."""
        overlay = self._overlays.get(index)
        if overlay is None:
            return {}
        first = bisect_left(overlay.keys, start)
        last = len(overlay.keys) if end is None else bisect_left(overlay.keys, end)
        return {key: overlay.rows[key] for key in overlay.keys[first:last]}

    def _install(self, reference: tuple[str, bytes], document: StagedDocument | None) -> None:
        current = self._documents.get(reference)
        if current is not None:
            for index, keys in self._keys_by_index(current):
                for key in keys:
                    self._overlays[index].drop(key)
        if document is None:
            self._documents.pop(reference, None)
            return
        self._documents[reference] = document
        for index, keys in self._keys_by_index(document):
            overlay = self._overlays.get(index)
            if overlay is None:
                overlay = self._overlays[index] = _Overlay()
            for key in keys:
                overlay.put(key, None)
        after = document.after
        if after is not None:
            name = document.table.name
            self._overlays[(name, BY_ID)].put(document.id, after)
            for (index_object, _), key in zip(
                document.table.encoders, document.after_keys, strict=True
            ):
                row = Row(key, after.id, after.ts, after.value)
                self._overlays[(name, index_object.name)].put(key, row)

    @staticmethod
    def _keys_by_index(document: StagedDocument) -> Iterator[tuple[IndexName, tuple[bytes, ...]]]:
        name = document.table.name
        yield (name, BY_ID), (document.id,)
        for position, (index, _) in enumerate(document.table.encoders):
            keys = tuple(
                versions[position]
                for versions in (document.before_keys, document.after_keys)
                if versions
            )
            yield (name, index.name), keys
