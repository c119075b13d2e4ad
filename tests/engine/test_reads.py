"""Read sets, and the one question asked of them: does this commit touch that read?"""

from __future__ import annotations

import pytest

from reactive_store.engine.interval import EVERYTHING, Interval
from reactive_store.engine.reads import Read, ReadSet, passes, touches
from reactive_store.values.document import Document
from tests.engine.commits import (
    BY_N,
    BY_TEXT,
    TABLE,
    change,
    commit,
    name,
    reading,
    row,
    search_change,
)

B_TO_D = Interval(b"b", b"d")


@pytest.mark.parametrize(
    ("old", "new", "is_touched"),
    [
        (None, b"b", True),
        (None, b"d", False),
        (b"c", None, True),
        (b"a", None, False),
        (b"a", b"c", True),
        (b"c", b"z", True),
        (b"c", b"c", True),
        (b"a", b"z", False),
    ],
)
def test_a_commit_touches_a_read_that_holds_the_old_or_the_new_key(old, new, is_touched) -> None:
    written = change("x", old and (old, {}), new and (new, {}))
    assert touches(reading(B_TO_D), commit(1, written)) is (written if is_touched else None)


def test_the_first_change_that_touches_is_the_answer() -> None:
    changes = [change(letter, None, (key, {})) for letter, key in (("p", b"a"), ("q", b"c"))]
    assert touches(reading(EVERYTHING), commit(1, *changes)) is changes[0]
    assert touches(reading(B_TO_D), commit(1, *changes)) is changes[1]


def test_other_indexes_and_tables_are_not_touched() -> None:
    written = commit(1, change("x", None, (b"c", {})))
    assert touches(reading(EVERYTHING, index=(TABLE, "by_other")), written) is None
    assert touches(reading(EVERYTHING, index=("people", "by_n")), written) is None
    assert touches(reading(EVERYTHING, index=(TABLE, "by_id")), written) is not None
    assert touches(ReadSet(), written) is None


@pytest.mark.parametrize(
    ("old", "new", "is_touched"),
    [
        ({"done": True}, {"done": True}, False),
        ({"done": False}, {"done": True}, True),
        ({"done": True}, {"done": False}, True),
        (None, {"done": True}, False),
        (None, {"done": False}, True),
        ({"done": True}, None, False),
        ({}, None, True),  # the filter raises: the query would fail, which its reader must be told
    ],
)
def test_a_filtered_read_is_touched_only_by_what_passes_the_filter(old, new, is_touched) -> None:
    reads = ReadSet()
    reads.add(BY_N, Read(EVERYTHING, 0, lambda document: not document["done"]))
    written = change(
        "x", None if old is None else (b"c", old), None if new is None else (b"c", new)
    )
    assert (touches(reads, commit(1, written)) is not None) is is_touched


def test_a_filter_sees_the_version_whose_key_is_in_the_interval_only() -> None:
    reads = ReadSet()
    reads.add(BY_N, Read(B_TO_D, 0, lambda document: document["done"]))
    moved_in = change("x", (b"a", {"done": True}), (b"c", {"done": False}))
    assert touches(reads, commit(1, moved_in)) is None


def test_a_filter_that_raises_counts_as_passed() -> None:
    document = Document(row("x", {"n": 1}).value, TABLE)
    assert passes(None, document)
    assert passes(lambda seen: seen["n"] == 1, document)
    assert not passes(lambda seen: seen["n"] == 2, document)
    assert passes(lambda seen: seen["missing"] == 2, document)


def test_versions_are_decoded_once_for_all_filters() -> None:
    written = change("x", (b"a", {"n": 1}), (b"b", {"n": 2}))
    assert written.old_document is written.old_document
    assert written.new_document is written.new_document
    assert (written.old_document["n"], written.new_document["n"]) == (1, 2)


def test_equal_reads_are_kept_once_and_sets_can_be_joined() -> None:
    reads = reading(B_TO_D, B_TO_D, EVERYTHING)
    assert len(reads) == 2
    assert bool(reads)
    assert not ReadSet()
    other = reading(B_TO_D)
    other.add((TABLE, "by_id"), Read(Interval(name("a"), name("b")), 16, None))
    reads.merge(other)
    assert len(reads) == 3
    assert {index for index, _ in reads} == {BY_N, (TABLE, "by_id")}
    assert list(reads.of(BY_N)) == [Read(B_TO_D, 0, None), Read(EVERYTHING, 0, None)]
    assert not reads.of((TABLE, "by_other"))


@pytest.mark.parametrize(
    ("old", "new", "moved", "is_touched"),
    [
        (None, "red fox", (), True),
        ("a fox", None, (), True),
        ("fox", "fox", (), True),
        ("fo", "foxes", (), True),
        ("bird", "fish", (), False),
        (None, None, (b"\x01fox",), False),
        ("bird", "fish", (b"fox",), True),
    ],
)
def test_a_commit_touches_a_search_for_words_it_has_or_marks_it_moves(
    old, new, moved, is_touched
) -> None:
    written = search_change("x", old, new, moved=moved)
    reads = reading(Interval(b"fox", b"foy"), index=BY_TEXT)
    assert touches(reads, commit(1, written)) is (written if is_touched else None)
    assert touches(reading(EVERYTHING, index=(TABLE, "other")), commit(1, written)) is None


def test_a_search_is_sharpened_by_its_filters() -> None:
    reads = ReadSet()
    fox = Interval(b"fox", b"fox\x00")
    reads.add(BY_TEXT, Read(fox, 3, lambda document: document["room"] == 1))
    for room in (1, 2):
        for old, new in ((None, "fox"), ("fox", None)):
            written = search_change("x", old, new, fields={"room": room})
            assert (touches(reads, commit(1, written)) is not None) == (room == 1)
