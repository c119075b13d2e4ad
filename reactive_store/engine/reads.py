"""What a transaction read, what a commit changed, and whether the second touches the first.

`touches` is the one overlap test. Conflict checks ask it directly; live queries ask its inverse
through the interval map (`engine.subscriptions`), and a property test keeps the two equal.

A read is an interval of an index's keys, narrowed to what was really consumed, with the predicate
it was filtered by, if any. A commit touches a read when a written document's old or new key lies
in the interval and that version passes the predicate. A predicate that raises counts as passed:
the query would fail now, which its reader must be told.

Source: docs/architecture.md, "The idea" and "One live query".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from reactive_store.engine.interval import Interval
from reactive_store.engine.search_terms import SearchEntry
from reactive_store.persistence.contract import Row
from reactive_store.values.document import Document

__all__ = [
    "CommitChanges",
    "DocumentChange",
    "IndexName",
    "KeyChange",
    "Predicate",
    "Read",
    "ReadSet",
    "SearchChange",
    "passes",
    "touches",
]

IndexName = tuple[str, str]
"""(table name, index name): names, since a table that does not exist yet can be read too."""

Predicate = Callable[[Document], bool]
"""A filter's condition, pure; it may raise."""


class Read(NamedTuple):
    """One interval of one index, as far as it was consumed."""

    interval: Interval
    prefix_bytes: int  # keys of the interval share that many first bytes (the equality prefix)
    predicate: Predicate | None


class KeyChange(NamedTuple):
    """Where an index held a document before and after a commit; equal when it did not move."""

    index_name: IndexName
    old: bytes | None
    new: bytes | None


class SearchChange:
    """What a document was to a search index before a commit, and is after it.

    Its keys there are its words; a search reads the words it asks for. Ranks also depend on how
    many documents there are and how many have a word, in rounded numbers: where a commit moves one
    of those, `moved` names it (`engine.search_ranking`), whatever document did it.
    """

    __slots__ = ("fields", "index_name", "marked_by", "moved", "new", "old")

    def __init__(
        self,
        index_name: IndexName,
        fields: tuple[str, tuple[str, ...]],
        old: SearchEntry | None,
        new: SearchEntry | None,
    ) -> None:
        self.index_name = index_name
        self.fields = fields  # the search field and the filter fields
        self.old = old
        self.new = new
        # Both set when the commit is accepted; the latter to whoever counts it as not yet durable.
        self.moved: list[bytes] = []
        self.marked_by: object = None


class DocumentChange:
    """One document's change in a commit, with its keys in every index of the table."""

    __slots__ = ("_new", "_old", "id", "keys", "new", "old", "searches", "table")

    def __init__(
        self,
        table: str,
        id: bytes,
        old: Row | None,
        new: Row | None,
        keys: tuple[KeyChange, ...],
        searches: tuple[SearchChange, ...] = (),
    ) -> None:
        self.table = table
        self.id = id
        self.old = old
        self.new = new
        self.keys = keys
        self.searches = searches  # one for each search index of the table
        # Decoded views for predicates, made when the first one asks and then shared by all.
        self._old: Document | None = None
        self._new: Document | None = None

    @property
    def old_document(self) -> Document:
        """The version before; only when `old` is not None."""
        if self._old is None:
            assert self.old is not None
            self._old = Document(self.old.value, self.table)
        return self._old

    @property
    def new_document(self) -> Document:
        """The version after; only when `new` is not None."""
        if self._new is None:
            assert self.new is not None
            self._new = Document(self.new.value, self.table)
        return self._new


class CommitChanges(NamedTuple):
    """Everything one commit changed."""

    ts: int
    documents: tuple[DocumentChange, ...]


def passes(predicate: Predicate | None, document: Document) -> bool:
    """Whether a document version passes a read's filter. Raising counts as passing."""
    if predicate is None:
        return True
    try:
        return predicate(document)
    except Exception:  # noqa: BLE001 - app-given conditions may raise anything
        return True


class ReadSet:
    """The reads of one transaction, by index. Equal reads are kept once."""

    __slots__ = ("_reads",)

    def __init__(self) -> None:
        self._reads: dict[IndexName, dict[Read, None]] = {}

    def add(self, index: IndexName, read: Read) -> None:
        """Remember a read."""
        of_index = self._reads.get(index)
        if of_index is None:
            self._reads[index] = {read: None}
        else:
            of_index[read] = None

    def merge(self, other: ReadSet) -> None:
        """Add every read of another set."""
        for index, reads in other._reads.items():
            self._reads.setdefault(index, {}).update(reads)

    def of(self, index: IndexName) -> dict[Read, None]:
        """The reads of one index; a mapping used as an ordered set."""
        return self._reads.get(index, {})

    def __iter__(self) -> Iterator[tuple[IndexName, Read]]:
        for index, reads in self._reads.items():
            for read in reads:
                yield index, read

    def __len__(self) -> int:
        return sum(map(len, self._reads.values()))

    def __bool__(self) -> bool:
        return bool(self._reads)


def touches(reads: ReadSet, commit: CommitChanges) -> DocumentChange | None:
    """The first change of the commit that falls into the reads, or None.

    Cost     O(keys changed × reads of those indexes)
    """
    for change in commit.documents:
        for key_change in change.keys:
            for interval, _, predicate in reads.of(key_change.index_name):
                old, new = key_change.old, key_change.new
                if (
                    old is not None
                    and interval.contains(old)
                    and passes(predicate, change.old_document)
                ):
                    return change
                if (
                    new is not None
                    and interval.contains(new)
                    and passes(predicate, change.new_document)
                ):
                    return change
        if change.searches and _touches_search(reads, change):
            return change
    return None


def _touches_search(reads: ReadSet, change: DocumentChange) -> bool:
    for search in change.searches:
        for interval, _, predicate in reads.of(search.index_name):
            old, new = search.old, search.new
            if (
                old is not None
                and _any_within(old.keys, interval)
                and passes(predicate, change.old_document)
            ):
                return True
            if (
                new is not None
                and _any_within(new.keys, interval)
                and passes(predicate, change.new_document)
            ):
                return True
            if any(map(interval.contains, search.moved)):
                return True
    return False


def _any_within(keys: list[bytes], interval: Interval) -> bool:
    position = bisect_left(keys, interval.start)
    return position < len(keys) and (interval.end is None or keys[position] < interval.end)
