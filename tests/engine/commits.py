"""Commits as the engine describes them, made by hand: for tests below the transaction."""

from __future__ import annotations

from collections.abc import Mapping

from reactive_store.engine.interval import Interval
from reactive_store.engine.reads import (
    CommitChanges,
    DocumentChange,
    KeyChange,
    Read,
    ReadSet,
    SearchChange,
)
from reactive_store.engine.search_terms import SearchEntry
from reactive_store.persistence.contract import Row
from reactive_store.values.value import Value
from reactive_store.values.wire import dumps

TABLE = "notes"
BY_N = (TABLE, "by_n")
BY_TEXT = (TABLE, "by_text")


def name(letter: str) -> bytes:
    """An internal id."""
    return letter.encode() * 16


def row(letter: str, fields: Mapping[str, Value] | None = None, *, ts: int = 0) -> Row:
    """A document's version."""
    return Row(name(letter), name(letter), ts, dumps(dict(fields or {})))


def change(
    letter: str,
    old: tuple[bytes, Mapping[str, Value]] | None,
    new: tuple[bytes, Mapping[str, Value]] | None,
    *,
    ts: int = 0,
) -> DocumentChange:
    """A document's change; each version is its key in `by_n` and its fields."""
    identity = name(letter)
    return DocumentChange(
        TABLE,
        identity,
        None if old is None else row(letter, old[1]),
        None if new is None else row(letter, new[1], ts=ts),
        (
            KeyChange((TABLE, "by_id"), old and identity, new and identity),
            KeyChange(BY_N, old and old[0], new and new[0]),
        ),
    )


def search_change(
    letter: str,
    old: str | None,
    new: str | None,
    *,
    moved: tuple[bytes, ...] = (),
    fields: Mapping[str, Value] | None = None,
) -> DocumentChange:
    """A document's change in a table with one search index; each version is its text."""
    search = SearchChange(
        BY_TEXT,
        ("text", ()),
        None if old is None else SearchEntry(old, 1.0, ()),
        None if new is None else SearchEntry(new, 1.0, ()),
    )
    search.moved = list(moved)
    versions = [None if text is None else row(letter, fields) for text in (old, new)]
    return DocumentChange(TABLE, name(letter), *versions, (), (search,))


def commit(ts: int, *changes: DocumentChange) -> CommitChanges:
    """A commit of these changes."""
    return CommitChanges(ts, changes)


def reading(*intervals: Interval, index: tuple[str, str] = BY_N) -> ReadSet:
    """A read set of plain intervals of one index."""
    reads = ReadSet()
    for interval in intervals:
        reads.add(index, Read(interval, 0, None))
    return reads
