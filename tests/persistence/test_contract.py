"""Every promise of `persistence.contract`, held against every implementation."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    BackfillEntry,
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    Persistence,
    Row,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence

TABLE = TableNumber(7)
OTHER_TABLE = TableNumber(8)
INDEX = IndexId(1)
OTHER_INDEX = IndexId(2)
A, B, C = (letter * 16 for letter in (b"a", b"b", b"c"))


def insert(doc, value=b"1", table=TABLE):
    return DocumentWrite(table, doc, value, True)


def update(doc, value, table=TABLE):
    return DocumentWrite(table, doc, value, False)


def delete(doc, table=TABLE):
    return DocumentWrite(table, doc, None, False)


def begins(key, doc, index=INDEX, table=TABLE):
    return IndexWrite(index, key, table, doc, True)


def ends(key, doc, index=INDEX, table=TABLE):
    return IndexWrite(index, key, table, doc, False)


def commit(ts, *writes):
    documents = tuple(write for write in writes if isinstance(write, DocumentWrite))
    entries = tuple(write for write in writes if isinstance(write, IndexWrite))
    return Commit(Timestamp(ts), documents, entries)


def scan(store, at, *, start=b"", end=None, descending=False, limit=100, index=INDEX):
    return store.scan(index, start, end, Timestamp(at), descending=descending, limit=limit)


def keys(page):
    return [row.key for row in page.rows]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path) -> AsyncIterator[Persistence]:
    if request.param == "memory":
        opened: Persistence = MemoryPersistence(Limits(trim_rows=3))
    else:
        opened = await SqlitePersistence.open(tmp_path / "data.sqlite3", limits=Limits(trim_rows=3))
    yield opened
    await opened.close()


# 1. Order


async def test_an_empty_store_has_no_last_timestamp_and_no_rows(store):
    assert store.last_ts == 0
    assert store.get(TABLE, A, Timestamp(10)) is None
    assert scan(store, 10) == ([], True)
    assert store.scan_table(TABLE, b"", None, 10, descending=True, limit=5) == ([], True)


async def test_the_last_timestamp_is_that_of_the_newest_commit(store):
    await store.append([commit(5, insert(A)), commit(9)])
    assert store.last_ts == 9


async def test_an_empty_batch_changes_nothing(store):
    await store.append([])
    assert store.last_ts == 0


@pytest.mark.parametrize("timestamps", [(5,), (4,), (6, 6), (7, 6)])
async def test_timestamps_that_do_not_ascend_are_refused_and_nothing_is_written(store, timestamps):
    await store.append([commit(5, insert(A))])
    with pytest.raises(AssertionError):
        await store.append([commit(ts, update(A, b"wrong")) for ts in timestamps])
    assert store.last_ts == 5
    assert store.get(TABLE, A, Timestamp(100)) == (A, A, 5, b"1")
    await store.append([commit(6, update(A, b"right"))])
    assert store.get(TABLE, A, Timestamp(6)).value == b"right"


# 2. Atomic


@pytest.mark.parametrize(
    "writes",
    [
        (begins(b"m", B),),
        (begins(b"m", A),),
        (ends(b"k", A),),
        (update(A, b"2"), begins(b"m", B)),
        (delete(A), begins(b"m", A)),
    ],
    ids=["unknown", "not written", "ended alone", "another", "deleted"],
)
async def test_an_entry_without_a_write_of_its_document_is_refused_as_a_whole(store, writes):
    await store.append([commit(1, insert(A), begins(b"k", A))])
    with pytest.raises(AssertionError):
        await store.append([commit(2, *writes)])
    assert store.last_ts == 1
    assert scan(store, 2) == ([Row(b"k", A, 1, b"1")], True)
    await store.append([commit(2, update(A, b"2"))])
    assert scan(store, 2) == ([Row(b"k", A, 2, b"2")], True)


# 3. Snapshots


async def test_each_snapshot_shows_the_version_of_its_time(store):
    await store.append([commit(10, insert(A, b"one"), begins(b"k", A))])
    await store.append([commit(20, update(A, b"two"))])
    await store.append([commit(30, delete(A), ends(b"k", A))])
    expected = {9: None, 10: b"one", 19: b"one", 20: b"two", 29: b"two", 30: None, 99: None}
    for at, value in expected.items():
        row = store.get(TABLE, A, Timestamp(at))
        assert (row and row.value) == value
        assert [row.value for row in scan(store, at).rows] == ([value] if value else [])
        page = store.scan_table(TABLE, b"", None, at, descending=False, limit=10)
        assert [row.value for row in page.rows] == ([value] if value else [])


async def test_versions_made_within_one_batch_are_all_kept(store):
    await store.append(
        [
            commit(1, insert(A, b"1"), begins(b"a1", A)),
            commit(2, update(A, b"2"), ends(b"a1", A), begins(b"a2", A)),
            commit(3, update(A, b"3")),
            commit(4, delete(A), ends(b"a2", A)),
            commit(5, insert(A, b"5"), begins(b"a1", A)),
        ]
    )
    seen = {at: scan(store, at).rows for at in range(7)}
    assert seen == {
        0: [],
        1: [Row(b"a1", A, 1, b"1")],
        2: [Row(b"a2", A, 2, b"2")],
        3: [Row(b"a2", A, 3, b"3")],
        4: [],
        5: [Row(b"a1", A, 5, b"5")],
        6: [Row(b"a1", A, 5, b"5")],
    }


async def test_a_key_may_pass_from_one_document_to_another_in_one_commit(store):
    await store.append([commit(1, insert(A), insert(B), begins(b"k", A), begins(b"m", B))])
    swap = (ends(b"k", A), begins(b"k", B), begins(b"m", A), ends(b"m", B))
    await store.append([commit(2, update(A, b"2"), update(B, b"2"), *swap)])
    assert [row.id for row in scan(store, 1).rows] == [A, B]
    assert [row.id for row in scan(store, 2).rows] == [B, A]


async def test_a_key_written_again_in_the_commit_that_ends_it_goes_on(store):
    await store.append([commit(1, insert(A), begins(b"k", A))])
    await store.append([commit(2, update(A, b"2"), begins(b"k", A), ends(b"k", A))])
    assert [scan(store, at).rows[0].value for at in (1, 2)] == [b"1", b"2"]


async def test_a_key_begun_twice_by_one_document_keeps_its_past(store):
    await store.append([commit(1, insert(A), begins(b"k", A))])
    await store.append([commit(2, update(A, b"2"), begins(b"k", A))])
    await store.append([commit(3, delete(A), ends(b"k", A))])
    assert [len(scan(store, at).rows) for at in range(4)] == [0, 1, 1, 0]


async def test_reads_while_a_batch_is_on_its_way_see_all_of_a_commit_or_nothing(store):
    await store.append([commit(1, *(insert(doc, b"0") for doc in (A, B)), begins(b"0", A))])
    await store.backfill(INDEX, [BackfillEntry(b"z", TABLE, B, 1)])
    for ts in range(2, 40):
        old, new = b"%d" % (ts - 2), b"%d" % (ts - 1)
        moved = (ends(old, A), begins(new, A))
        writing = asyncio.ensure_future(
            store.append([commit(ts, update(A, new), update(B, new), *moved)])
        )
        before = [(old, old), (b"z", old)]
        after = [(new, new), (b"z", new)]
        while not writing.done():
            await asyncio.sleep(0)
            assert {store.get(TABLE, doc, Timestamp(ts - 1)).value for doc in (A, B)} == {old}
            assert [(row.key, row.value) for row in scan(store, ts - 1).rows] == before
            # Not durable yet: one read may show it already, but never a part of it.
            assert [(row.key, row.value) for row in scan(store, ts).rows] in (before, after)
        await writing
        assert [(row.key, row.value) for row in scan(store, ts).rows] == after


# 4. Pages


async def test_pages_follow_the_keys_and_say_when_nothing_is_left(store):
    ids = [bytes([n]) * 16 for n in range(10)]
    await store.append(
        [commit(n + 1, insert(doc), begins(b"k%d" % n, doc)) for n, doc in enumerate(ids)]
    )
    first = scan(store, 10, limit=4)
    assert (keys(first), first.exhausted) == ([b"k0", b"k1", b"k2", b"k3"], False)
    rest = scan(store, 10, start=b"k3\x00", limit=6)
    assert (keys(rest), rest.exhausted) == ([b"k4", b"k5", b"k6", b"k7", b"k8", b"k9"], True)
    down = scan(store, 10, start=b"k2", end=b"k6", descending=True, limit=3)
    assert (keys(down), down.exhausted) == ([b"k5", b"k4", b"k3"], False)
    assert scan(store, 10, start=b"k6", end=b"k2") == ([], True)
    assert scan(store, 10, limit=0) == ([], False)


async def test_pages_of_the_past_are_as_long_as_those_of_the_present(store):
    ids = [bytes([n]) * 16 for n in range(20)]
    await store.append(
        [commit(1, *(insert(doc) for doc in ids), *(begins(doc, doc) for doc in ids))]
    )
    gone = ids[::2]
    await store.append([commit(2, *map(delete, gone), *(ends(doc, doc) for doc in gone))])
    fresh = [bytes([n]) * 16 + b"x" for n in range(20)]
    await store.append(
        [commit(3, *(insert(doc) for doc in fresh), *(begins(doc, doc) for doc in fresh))]
    )
    for descending in (False, True):
        page = scan(store, 1, limit=7, descending=descending)
        assert keys(page) == (ids[::-1] if descending else ids)[:7]
        assert not page.exhausted
        table = store.scan_table(TABLE, b"", None, 1, limit=7, descending=descending)
        assert table == page
        assert keys(scan(store, 1, descending=descending, limit=20)) == sorted(
            ids, reverse=descending
        )
        assert scan(store, 1, descending=descending, limit=20).exhausted


async def test_tables_and_indexes_are_apart(store):
    await store.append(
        [commit(1, insert(A), insert(A, b"2", OTHER_TABLE), begins(b"k", A, OTHER_INDEX))]
    )
    assert scan(store, 1) == ([], True)
    assert store.get(OTHER_TABLE, A, Timestamp(1)).value == b"2"
    page = store.scan_table(OTHER_TABLE, b"", None, 1, descending=False, limit=9)
    assert page == ([Row(A, A, 1, b"2")], True)


# 5. Unchanged keys


async def test_an_update_that_moves_no_key_is_found_under_it(store):
    await store.append([commit(1, insert(A, b"old"), begins(b"k", A))])
    assert scan(store, 1).rows == [Row(b"k", A, 1, b"old")]
    await store.append([commit(2, update(A, b"new"))])
    assert scan(store, 2).rows == [Row(b"k", A, 2, b"new")]
    assert scan(store, 1).rows == [Row(b"k", A, 1, b"old")]


# 6. Backfill


async def test_backfill_adds_entries_of_documents_that_stayed_as_seen(store):
    await store.append([commit(1, insert(A)), commit(2, insert(B)), commit(3, insert(C))])
    await store.append([commit(4, update(B, b"2"), begins(b"new", B)), commit(5, delete(C))])
    seen = [
        BackfillEntry(b"a", TABLE, A, 1),
        BackfillEntry(b"old", TABLE, B, 2),
        BackfillEntry(b"c", TABLE, C, 3),
        BackfillEntry(b"nobody", TABLE, b"z" * 16, 1),
    ]
    assert await store.backfill(INDEX, seen) == 1
    assert keys(scan(store, 5)) == [b"a", b"new"]
    assert await store.backfill(INDEX, seen) == 0


async def test_backfill_leaves_an_entry_that_a_commit_wrote(store):
    await store.append([commit(1, insert(A), begins(b"k", A)), commit(2, insert(B))])
    assert await store.backfill(INDEX, [BackfillEntry(b"k", TABLE, B, 2)]) == 0
    assert scan(store, 2).rows == [Row(b"k", A, 1, b"1")]


async def test_a_read_after_backfill_or_drop_sees_it_without_a_commit_in_between(store):
    await store.append([commit(1, insert(A))])
    assert scan(store, 1) == ([], True)
    await store.backfill(INDEX, [BackfillEntry(b"k", TABLE, A, 1)])
    assert keys(scan(store, 1)) == [b"k"]
    await store.drop_index(INDEX)
    assert scan(store, 1) == ([], True)


async def test_a_backfilled_entry_ends_like_any_other(store):
    await store.append([commit(1, insert(A))])
    await store.backfill(INDEX, [BackfillEntry(b"k", TABLE, A, 1)])
    await store.append([commit(2, update(A, b"2"), ends(b"k", A), begins(b"m", A))])
    assert [keys(scan(store, at)) for at in (1, 2)] == [[b"k"], [b"m"]]


# 7. Trim, and dropping an index


async def test_trim_forgets_what_ended_and_reads_from_then_on_stay(store):
    await store.append([commit(1, insert(A), begins(b"k1", A))])
    for ts in range(2, 10):
        moved = (ends(b"k%d" % (ts - 1), A), begins(b"k%d" % ts, A))
        await store.append([commit(ts, update(A, b"%d" % ts), *moved)])
    await store.append([commit(10, delete(A), ends(b"k9", A))])
    before = {at: scan(store, at).rows for at in range(6, 11)}
    counts = []
    while count := await store.trim(Timestamp(6)):
        counts.append(count)
    assert sum(counts) == 10
    assert max(counts) <= 3
    assert {at: scan(store, at).rows for at in range(6, 11)} == before
    while await store.trim(Timestamp(10)):
        pass
    assert scan(store, 10) == ([], True)
    assert store.get(TABLE, A, Timestamp(10)) is None
    await store.append([commit(11, insert(A, b"again"), begins(b"k", A))])
    assert scan(store, 11).rows == [Row(b"k", A, 11, b"again")]


async def test_a_dropped_index_is_empty_and_its_neighbours_stay(store):
    ids = [bytes([n]) * 16 for n in range(8)]
    for ts, doc in enumerate(ids, start=1):
        await store.append(
            [commit(ts, insert(doc), begins(doc, doc), begins(doc, doc, OTHER_INDEX))],
        )
    await store.append([commit(20, delete(ids[0]), ends(ids[0], ids[0]))])
    await store.drop_index(INDEX)
    assert scan(store, 20) == ([], True)
    assert scan(store, 19) == ([], True)
    assert len(scan(store, 19, index=OTHER_INDEX).rows) == 8
    await store.drop_index(IndexId(99))


# 8. Globals


async def test_globals_are_kept_by_name(store):
    assert store.get_global("key") is None
    await store.set_global("key", b"\x00one")
    await store.set_global("other", b"")
    assert (store.get_global("key"), store.get_global("other")) == (b"\x00one", b"")
    await store.set_global("key", b"two")
    assert store.get_global("key") == b"two"


async def test_close_may_be_called_twice(store):
    await store.append([commit(1, insert(A))])
    await store.close()
    await store.close()


# All of it at once, against a model that keeps every version in a list.

_IDS = [(table, bytes([n]) * 16) for table in (TABLE, OTHER_TABLE) for n in range(3)]
_KEYS = [b"", b"\x00", b"a", b"a\x00", b"b", b"\xff", b"\xff\xff"]
_INDEXES = {IndexId(1): TABLE, IndexId(2): TABLE, IndexId(3): OTHER_TABLE}
_BOUNDS = st.sampled_from([*_KEYS, b"aa", b"c"])


class _Model:
    """Every version and every entry that ever was, in lists."""

    def __init__(self):
        self.versions = {}  # (table, doc) -> [(ts, value)], ascending
        self.entries = []  # [index, key, (table, doc), begin, end]
        self.last_ts = 0

    def version(self, name, at):
        found = None
        for ts, value in self.versions.get(name, ()):
            if ts <= at:
                found = (ts, value)
        return None if found is None or found[1] is None else found

    def row(self, name, key, at):
        version = self.version(name, at)
        return None if version is None else Row(key, name[1], *version)

    def present(self, index):
        return {entry[1]: entry for entry in self.entries if entry[0] == index and not entry[4]}

    def in_index(self, index, at):
        return [
            self.row(name, key, at)
            for number, key, name, begin, end in self.entries
            if number == index and begin <= at and (not end or at < end)
        ]

    def in_table(self, table, at):
        rows = (self.row(name, name[1], at) for name in self.versions if name[0] == table)
        return [row for row in rows if row is not None]

    def apply(self, written):
        self.last_ts = written.ts
        for write in written.documents:
            self.versions.setdefault((write.table, write.id), []).append((written.ts, write.value))
        for write in written.entries:
            if not write.present:
                entry = self.present(write.index).get(write.key)
                if entry is not None and entry[2] == (write.table, write.id):
                    entry[4] = written.ts
        for write in written.entries:
            if write.present and write.key not in self.present(write.index):
                name = (write.table, write.id)
                self.entries.append([write.index, write.key, name, written.ts, 0])


class _Stores(RuleBasedStateMachine):
    """Both implementations and the model, fed alike; every read must agree."""

    @initialize()
    def open_stores(self):
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "data.sqlite3"
        self.limits = Limits(trim_rows=4)
        self.memory = MemoryPersistence(self.limits)
        self.open_sqlite()
        self.model = _Model()
        self.oldest = 0  # reads below may miss rows
        self.held = None  # set it to let the writer of the tables go on

    def open_sqlite(self):
        opening = SqlitePersistence.open(self.path, synchronous="NORMAL", limits=self.limits)
        self.sqlite = self.runner.run(opening)

    @precondition(lambda self: self.held is None)
    @rule()
    def begin_a_round_that_does_not_end(self):
        """From here on commits lie in two memtables, and some also in the tables."""

        async def begin():
            self.held = threading.Event()
            self.sqlite._tables.thread.submit(lambda _, held=self.held: held.wait(), lambda _: None)
            if self.sqlite._materialiser._round is None:
                self.sqlite._materialiser._begin_round()
            await asyncio.sleep(0)

        self.runner.run(begin())

    @rule()
    def let_the_round_go_on(self):
        """The thread may write the tables at once; the loop hears of it when it runs again."""
        if self.held is not None:
            self.held.set()
            self.held = None

    @rule()
    def settle(self):
        self.let_the_round_go_on()
        self.runner.run(self.sqlite._materialiser.settle())
        assert not self.sqlite._materialiser.layers[0].commits

    def both(self, call):
        results = [self.runner.run(call(store)) for store in (self.memory, self.sqlite)]
        assert results[0] == results[1]
        return results[0]

    def draw_commit(self, data, model):
        """A commit that keeps the engine's side of the contract, applied to the model."""
        names = data.draw(st.lists(st.sampled_from(_IDS), unique=True, max_size=3))
        documents, entries = [], []
        leaving = {}
        ts = model.last_ts + data.draw(st.integers(1, 3))
        for table, doc in names:
            live = model.version((table, doc), model.last_ts)
            value = b"v%d" % ts
            if live is not None and data.draw(st.integers(0, 3)) == 0:
                value = None
            documents.append(DocumentWrite(table, doc, value, live is None))
            for index in (index for index, of in _INDEXES.items() if of == table):
                present = model.present(index)
                held = [key for key, entry in present.items() if entry[2] == (table, doc)]
                moves = value is None or data.draw(st.booleans())
                if held and moves:
                    entries.append(IndexWrite(index, held[0], table, doc, False))
                    leaving.setdefault(index, set()).add(held[0])
                if value is not None and (moves or not held):
                    taken = (set(present) - leaving.get(index, set())) | {
                        write.key for write in entries if write.present and write.index == index
                    }
                    free = [key for key in _KEYS if key not in taken]
                    if free and data.draw(st.booleans()):
                        key = data.draw(st.sampled_from(free))
                        entries.append(IndexWrite(index, key, table, doc, True))
        order = data.draw(st.permutations(entries))
        drawn = Commit(Timestamp(ts), tuple(documents), tuple(order))
        model.apply(drawn)
        return drawn

    @rule(data=st.data(), count=st.integers(1, 4))
    def append(self, data, count):
        commits = [self.draw_commit(data, self.model) for _ in range(count)]
        self.both(lambda store: store.append(commits))

    @rule(start=_BOUNDS, end=st.none() | _BOUNDS, limit=st.integers(1, 4))
    def read_ranges(self, start, end, limit):
        for at in self.recent_times():
            self.read(at, start, end, limit)

    def recent_times(self):
        return range(max(self.oldest, self.model.last_ts - 8), self.model.last_ts + 1)

    def read(self, at, start, end, limit):
        """Every table and index between two keys, both ways, page by page."""
        for descending in (False, True):
            shape = (start, end, descending, limit)
            for index in _INDEXES:
                self.compare(self.model.in_index(index, at), "scan", index, at, shape)
            for table in (TABLE, OTHER_TABLE):
                self.compare(self.model.in_table(table, at), "scan_table", table, at, shape)

    def compare(self, rows, method, space, at, shape):
        """Page through a range in both stores; the pages must be those of the model."""
        start, end, descending, limit = shape
        expected = sorted(
            (row for row in rows if start <= row.key and (end is None or row.key < end)),
            reverse=descending,
        )
        for store in (self.memory, self.sqlite):
            low, high, found = start, end, []
            while True:
                read = getattr(store, method)
                page = read(space, low, high, at, descending=descending, limit=limit)
                found += page.rows
                assert page.exhausted == (len(found) >= len(expected))
                if page.exhausted:
                    break
                assert len(page.rows) == limit
                if descending:
                    high = page.rows[-1].key
                else:
                    low = page.rows[-1].key + b"\x00"
            assert found == expected

    @rule(data=st.data(), index=st.sampled_from(list(_INDEXES)))
    def backfill(self, data, index):
        self.let_the_round_go_on()
        of_table = [name for name in _IDS if name[0] == _INDEXES[index]]
        names = data.draw(st.lists(st.sampled_from(of_table), unique=True))
        entries, expected = [], 0
        for table, doc in names:
            versions = self.model.versions.get((table, doc), [(0, None)])
            seen = data.draw(st.sampled_from(versions))
            present = self.model.present(index)
            if any(entry[2] == (table, doc) for entry in present.values()):
                continue
            key = data.draw(st.sampled_from(_KEYS))
            if any(entry.key == key for entry in entries):
                continue
            of_others = {entry[2] for entry in self.model.entries if entry[:2] == [index, key]}
            if of_others - {(table, doc)}:
                continue  # the engine's keys end in their document's id: nobody inherits one
            entries.append(BackfillEntry(key, table, doc, seen[0]))
            if seen == versions[-1] and seen[1] is not None and key not in present:
                began_before_trim = any(
                    entry[:2] == [index, key] and entry[4] > seen[0] for entry in self.model.entries
                )
                if began_before_trim:
                    entries.pop()  # only an index that commits never wrote is filled like this
                    continue
                self.model.entries.append([index, key, (table, doc), seen[0], 0])
                expected += 1
        assert self.both(lambda store: store.backfill(index, entries)) == expected

    @rule(back=st.integers(0, 10))
    def trim(self, back):
        self.let_the_round_go_on()
        before = Timestamp(max(self.oldest, self.model.last_ts - back))
        self.oldest = before
        while count := self.both(lambda store: store.trim(before)):
            assert count <= self.limits.trim_rows

    @rule(index=st.sampled_from(list(_INDEXES)))
    def drop_index(self, index):
        self.let_the_round_go_on()
        self.both(lambda store: store.drop_index(index))
        self.model.entries = [entry for entry in self.model.entries if entry[0] != index]

    @rule(value=st.binary(max_size=8))
    def set_global(self, value):
        self.let_the_round_go_on()
        self.both(lambda store: store.set_global("name", value))
        assert self.memory.get_global("name") == self.sqlite.get_global("name") == value

    @precondition(lambda self: self.model.last_ts)
    @rule()
    def reopen(self):
        self.let_the_round_go_on()
        self.runner.run(self.sqlite.close())
        self.open_sqlite()

    @invariant()
    def stores_are_sound(self):
        assert self.memory.last_ts == self.sqlite.last_ts == self.model.last_ts
        self.memory.check()
        assert self.sqlite.check() == []
        for layer in self.sqlite._materialiser.layers:
            layer.check()

    @invariant()
    def every_recent_snapshot_is_right(self):
        for at in self.recent_times():
            self.read(at, b"", None, 3)
            for name in _IDS:
                expected = self.model.row(name, name[1], at)
                assert self.memory.get(*name, at) == self.sqlite.get(*name, at) == expected

    def teardown(self):
        if hasattr(self, "sqlite"):
            self.let_the_round_go_on()
            self.runner.run(self.sqlite.close())
            self.runner.close()
            self.directory.cleanup()


def test_every_read_agrees_with_a_list_of_versions():
    run_state_machine_as_test(
        _Stores,
        settings=settings(
            max_examples=max(5, settings.default.max_examples // 4),
            stateful_step_count=30,
            deadline=None,
        ),
    )
