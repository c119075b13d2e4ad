"""A memtable over tables reads like tables that hold everything."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    Row,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.memtable import UNKNOWN, Memtable, Overlay, Space, find_row

TABLE, INDEX = TableNumber(1), IndexId(1)
_IDS = [bytes([n]) * 16 for n in range(40)]


def history(seed, count):
    """Commits that insert, change, move and delete documents, each under one key."""
    chance = random.Random(seed)
    keys = {}
    commits = []
    for ts in range(1, count + 1):
        name = chance.choice(_IDS)
        old = keys.pop(name, None)
        entries = []
        value = b"%d" % ts if old is None or chance.random() < 0.7 else None
        if old is not None and (value is None or chance.random() < 0.5):
            entries.append(IndexWrite(INDEX, old, TABLE, name, False))
            old = None
        if value is not None:
            keys[name] = old or bytes([chance.randrange(8)]) + name
            if old is None:
                entries.append(IndexWrite(INDEX, keys[name], TABLE, name, True))
        write = DocumentWrite(TABLE, name, value, False)
        commits.append(Commit(Timestamp(ts), (write,), tuple(entries)))
    return commits


def filled(*pieces):
    layers = []
    for piece in pieces:
        layer = Memtable()
        layer.add(piece, 0)
        layer.check()
        layers.insert(0, layer)
    return layers


@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 120), min_size=3, max_size=3),
    overlap=st.integers(0, 20),
    start=st.binary(max_size=2),
    end=st.none() | st.binary(max_size=2),
    descending=st.booleans(),
    limit=st.integers(1, 30),
)
async def test_layers_over_tables_read_like_one_store(
    seed, cuts, overlap, start, end, descending, limit
):
    first, second, at = sorted(cuts)
    commits = history(seed, 120)
    whole, tables = MemoryPersistence(), MemoryPersistence()
    await whole.append(commits)
    # The tables may hold more than where the layers begin.
    await tables.append(commits[: first + overlap])
    layers = filled(commits[first:second], commits[second:])
    documents = [layer.documents[TABLE] for layer in layers if layer.documents]
    indexes = [layer.indexes[INDEX] for layer in layers if layer.indexes]
    for overlay, store, name in (
        (Overlay(indexes, documents), "scan", INDEX),
        (Overlay(None, documents), "scan_table", TABLE),
    ):

        def read(low, high, count, store=store, name=name):
            return getattr(tables, store)(
                name, low, high, at, descending=descending, limit=count
            ).rows

        rows = overlay.merge_rows(read, start, end, at, descending=descending, count=limit)
        page = getattr(whole, store)(name, start, end, at, descending=descending, limit=limit)
        assert rows == page.rows


def test_the_newest_layer_that_knows_a_document_answers():
    old, new = Space(1), Space(1)
    old.put(b"a", 5, b"five")
    old.put(b"b", 5, b"five")
    new.put(b"a", 7, None)
    assert find_row([new, old], b"k", b"a", 4) is UNKNOWN
    assert find_row([new, old], b"k", b"a", 6) == Row(b"k", b"a", 5, b"five")
    assert find_row([new, old], b"k", b"a", 7) is None
    assert find_row([new, old], b"k", b"b", 9) == Row(b"k", b"b", 5, b"five")


def test_keys_are_put_in_order_when_somebody_reads():
    space = Space(1)
    for key in (b"c", b"a", b"b", b"a"):
        space.put(key, 1, b"")
    space.check()
    assert space.keys(b"", None, False, 9) == [b"a", b"b", b"c"]
    space.put(b"aa", 2, b"")
    assert space.keys(b"a", b"c", True, 2) == [b"b", b"aa"]
    space.check()


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_passed_on_within_one_commit_is_that_of_its_new_document(order):
    ends = IndexWrite(INDEX, b"k", TABLE, _IDS[0], False)
    begins = IndexWrite(INDEX, b"k", TABLE, _IDS[1], True)
    writes = tuple(DocumentWrite(TABLE, name, b"1", False) for name in _IDS[:2])
    layer = Memtable()
    layer.add([Commit(Timestamp(3), writes, (ends, begins)[::order])], 100)
    version = layer.indexes[INDEX].at(b"k", 3)
    assert version == (3, _IDS[1], None)
    layer.check()


def test_size_is_counted_in_rows_and_bytes():
    layer = Memtable()
    layer.add(history(1, 10), 1000)
    writes = sum(len(c.documents) + len(c.entries) for c in layer.commits)
    assert layer.rows == writes
    assert layer.bytes > 1000 + writes


async def test_a_range_hidden_by_deletions_is_read_on_beyond_them():
    ids = [n.to_bytes(16, "big") for n in range(500)]
    tables = MemoryPersistence()
    await tables.append(
        [
            Commit(
                Timestamp(1),
                tuple(DocumentWrite(TABLE, name, b"1", True) for name in ids),
                tuple(IndexWrite(INDEX, name, TABLE, name, True) for name in ids),
            )
        ]
    )
    layer = Memtable()
    gone = ids[:490]
    layer.add(
        [
            Commit(
                Timestamp(2),
                tuple(DocumentWrite(TABLE, name, None, False) for name in gone),
                tuple(IndexWrite(INDEX, name, TABLE, name, False) for name in gone),
            )
        ],
        0,
    )
    overlay = Overlay([layer.indexes[INDEX]], [layer.documents[TABLE]])

    def read(low, high, count):
        return tables.scan(INDEX, low, high, 2, descending=False, limit=count).rows

    rows = overlay.merge_rows(read, b"", None, 2, descending=False, count=5)
    assert [row.key for row in rows] == ids[490:495]
