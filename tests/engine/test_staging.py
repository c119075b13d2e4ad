"""A transaction's write set: overlays, undo, and the change a commit records."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine.catalog import Table
from reactive_store.engine.range_index import BY_CREATION_TIME, IndexState, RangeIndex
from reactive_store.engine.reads import KeyChange
from reactive_store.engine.search_terms import SearchEntry
from reactive_store.engine.staging import StagedDocument, Staging
from reactive_store.persistence.contract import IndexId, Row, TableNumber
from reactive_store.schema.tables import SearchIndexDefinition
from tests.engine.commits import name

NOTES = Table(
    "notes",
    TableNumber(10001),
    (
        RangeIndex(BY_CREATION_TIME, IndexId(1000), (), IndexState.READY),
        RangeIndex("by_n", IndexId(1001), ("n",), IndexState.READY),
    ),
)


def version(letter: str, key: bytes) -> tuple[Row, tuple[bytes, bytes]]:
    return Row(name(letter), name(letter), 0, key), (b"t" + letter.encode(), key)


def staged(letter: str, before: bytes | None, after: bytes | None) -> StagedDocument:
    """A document whose key in `by_n` was `before` and is `after`."""
    old, old_keys = (None, ()) if before is None else version(letter, before)
    new, new_keys = (None, ()) if after is None else version(letter, after)
    return StagedDocument(NOTES, name(letter), old, old_keys, new, new_keys)


def overlay(staging: Staging, index: str = "by_n", start: bytes = b"", end: bytes | None = None):
    rows = staging.overlay(("notes", index), start, end)
    return {key: None if row is None else (row.key, row.value) for key, row in rows.items()}


def test_nothing_staged_is_false_and_overlays_nothing() -> None:
    staging = Staging()
    assert not staging
    assert overlay(staging) == {}
    assert staging.get("notes", name("x")) is None


def test_a_moved_document_hides_its_old_key_and_shows_its_new_one() -> None:
    staging = Staging()
    staging.put(staged("x", b"a", b"c"))
    assert overlay(staging) == {b"a": None, b"c": (b"c", b"c")}
    assert overlay(staging, BY_CREATION_TIME) == {b"tx": (b"tx", b"c")}
    assert overlay(staging, "by_id") == {name("x"): (name("x"), b"c")}
    assert overlay(staging, start=b"b", end=b"c") == {}
    assert overlay(staging, start=b"b", end=b"d") == {b"c": (b"c", b"c")}


def test_a_deleted_document_hides_all_its_keys() -> None:
    staging = Staging()
    staging.put(staged("x", b"a", None))
    assert overlay(staging) == {b"a": None}
    assert overlay(staging, "by_id") == {name("x"): None}


def test_the_last_write_of_a_document_counts() -> None:
    staging = Staging()
    for after in (b"b", b"c", b"d"):
        staging.put(staged("x", b"a", after))
    assert overlay(staging) == {b"a": None, b"d": (b"d", b"d")}
    assert len(list(staging)) == 1


def test_rolling_back_restores_what_was_staged_before() -> None:
    staging = Staging()
    staging.put(staged("x", b"a", b"b"))
    position = staging.position
    staging.put(staged("x", b"a", b"c"))
    staging.put(staged("y", None, b"m"))
    staging.rollback(position)
    assert overlay(staging) == {b"a": None, b"b": (b"b", b"b")}
    staging.rollback(0)
    assert not staging
    assert overlay(staging) == {}


@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.sampled_from([None, b"a", b"b", b"c"])), max_size=8
    ),
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([None, b"a", b"d"])), max_size=8),
)
def test_a_rollback_leaves_exactly_what_was_there(kept, undone) -> None:
    indexes = ("by_n", "by_id", BY_CREATION_TIME)
    before = {"x": b"a", "y": None, "z": b"c"}

    def write(staging: Staging, letter: str, after: bytes | None) -> None:
        key = None if after is None else after + letter.encode()
        old = before[letter]
        staging.put(staged(letter, None if old is None else old + letter.encode(), key))

    plain, rolled = Staging(), Staging()
    for letter, after in kept:
        write(plain, letter, after)
        write(rolled, letter, after)
    position = rolled.position
    # One index is looked at from here on, the others for the first time at the end.
    assert overlay(rolled) == overlay(plain)
    for letter, after in undone:
        write(rolled, letter, after)
    looked_at_late = Staging()
    for letter, after in (*kept, *undone):
        write(looked_at_late, letter, after)
    assert overlay(rolled) == overlay(looked_at_late)
    rolled.rollback(position)
    for index in indexes:
        assert overlay(rolled, index) == overlay(plain, index)
    assert {document.id: document for document in rolled} == {
        document.id: document for document in plain
    }


def test_a_change_names_the_keys_of_every_index() -> None:
    row = Row(name("x"), name("x"), 7, b"c")
    change = staged("x", b"a", b"c").change(row)
    assert change.new is row
    assert change.keys == (
        KeyChange(("notes", "by_id"), name("x"), name("x")),
        KeyChange(("notes", BY_CREATION_TIME), b"tx", b"tx"),
        KeyChange(("notes", "by_n"), b"a", b"c"),
    )
    inserted = staged("x", None, b"c").change(row)
    assert [key.old for key in inserted.keys] == [None, None, None]
    deleted = staged("x", b"a", None).change(None)
    assert [key.new for key in deleted.keys] == [None, None, None]


def test_documents_of_other_tables_are_not_in_the_overlay() -> None:
    others = Table("others", TableNumber(10002), NOTES.indexes)
    staging = Staging()
    staging.put(staged("x", None, b"a"))
    staging.put(staged("y", None, b"b")._replace(table=others))
    assert overlay(staging) == {b"a": (b"a", b"a")}
    staging.put(staged("z", None, b"c")._replace(table=others))
    assert overlay(staging) == {b"a": (b"a", b"a")}


def test_a_change_says_what_a_search_index_saw_and_sees() -> None:
    definition = SearchIndexDefinition("s", "text", ("room",))
    table = replace(NOTES, search_indexes=(definition,))
    old, new = SearchEntry("a", 1.0, (b"",)), SearchEntry("b", 1.0, (b"",))
    (row, keys), (later, _) = version("x", b"a"), version("x", b"b")
    for before, after in ((old, new), (old, None), (None, new)):
        document = StagedDocument(
            table,
            name("x"),
            before and row,
            keys if before else (),
            after and later,
            keys if after else (),
            (before,) if before else (),
            (after,) if after else (),
        )
        (search,) = document.change(after and later).searches
        assert (search.index_name, search.fields) == (("notes", "s"), ("text", ("room",)))
        assert (search.old, search.new) == (before, after)
    assert staged("x", None, b"a").change(row).searches == ()
