"""What is particular to `MemoryPersistence`; its promises are in test_contract.py."""

from __future__ import annotations

import pytest

from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.memory import MemoryPersistence

TABLE, INDEX = TableNumber(1), IndexId(1)


def write(ts, doc, value, key, present=True):
    document = DocumentWrite(TABLE, doc, value, ts == 1)
    return Commit(Timestamp(ts), (document,), (IndexWrite(INDEX, key, TABLE, doc, present),))


async def test_trim_leaves_nothing_behind_of_what_is_gone():
    store = MemoryPersistence(Limits(trim_rows=1000))
    for n in range(50):
        doc = bytes([n]) * 16
        await store.append([write(2 * n + 1, doc, b"1", doc)])
        await store.append([write(2 * n + 2, doc, None, doc, present=False)])
    assert store.statistics() == {
        "documents": 50,
        "ended_versions": 50,
        "entries": 0,
        "ended_entries": 50,
    }
    assert await store.trim(store.last_ts) == 100
    assert set(store.statistics().values()) == {0}
    store.check()


async def test_a_commit_that_gives_a_key_to_two_documents_is_refused_as_a_whole():
    store = MemoryPersistence()
    await store.append([write(1, b"a" * 16, b"1", b"k")])
    with pytest.raises(AssertionError):
        await store.append([write(2, b"b" * 16, b"1", b"k")])
    assert store.last_ts == 1
    assert store.get(TABLE, b"b" * 16, Timestamp(2)) is None
    rows = store.scan(INDEX, b"", None, Timestamp(2), descending=False, limit=9).rows
    assert [row.id for row in rows] == [b"a" * 16]


async def test_rows_of_the_newest_state_are_made_once():
    store = MemoryPersistence()
    await store.append([write(1, b"a" * 16, b"1", b"k")])

    def read():
        return store.scan(INDEX, b"", None, store.last_ts, descending=False, limit=1).rows[0]

    assert read() is read()
    await store.append([write(2, b"a" * 16, b"2", b"k")])
    assert read().value == b"2"
