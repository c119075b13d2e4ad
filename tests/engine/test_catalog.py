"""Tables and indexes as a value, and as documents."""

from __future__ import annotations

import pytest

from reactive_store.engine.catalog import (
    DROPPED,
    DROPPING,
    FIRST_USER_INDEX,
    FIRST_USER_TABLE,
    SYSTEM_TABLES,
    Catalog,
    Table,
    index_document,
    parse_catalog,
    table_document,
)
from reactive_store.engine.range_index import BY_CREATION_TIME, BY_ID, IndexState, RangeIndex
from reactive_store.errors import BadRequest
from reactive_store.persistence.contract import IndexId, TableNumber
from reactive_store.schema.tables import define_table
from reactive_store.schema.validators import v

CREATION = RangeIndex(BY_CREATION_TIME, IndexId(1000), (), IndexState.READY)
BY_N = RangeIndex("by_n", IndexId(1001), ("n", "a.b"), IndexState.READY, since_ts=7)
STAGED = RangeIndex("by_s", IndexId(1002), ("s",), IndexState.STAGED)
BUILDING = RangeIndex("by_b#1003", IndexId(1003), ("b",), IndexState.BACKFILLING)
NOTES = Table("notes", TableNumber(FIRST_USER_TABLE), (CREATION, BY_N, STAGED, BUILDING))


def test_system_tables_have_fixed_numbers_below_those_of_users() -> None:
    """V48."""
    numbers = [table.number for table in SYSTEM_TABLES.values()]
    assert len(set(numbers)) == len(numbers)
    assert all(512 < number < FIRST_USER_TABLE for number in numbers)
    assert SYSTEM_TABLES["_scheduled_functions"].number == 539
    assert SYSTEM_TABLES["_storage"].number == 540
    ids = [index.id for table in SYSTEM_TABLES.values() for index in table.indexes]
    assert len(set(ids)) == len(ids)
    assert max(ids) < FIRST_USER_INDEX
    assert all(table.is_system for table in SYSTEM_TABLES.values())
    assert not NOTES.is_system


def test_names_and_numbers_lead_to_each_other() -> None:
    catalog = Catalog.empty().with_table(NOTES)
    assert catalog.table_name(FIRST_USER_TABLE) == "notes"
    assert catalog.table_number("notes") == FIRST_USER_TABLE
    assert catalog.table_name(99) is None
    assert catalog.table_number("ghosts") is None
    assert Catalog.empty().table_number("notes") is None, "a catalog never changes"


def test_new_numbers_are_the_lowest_free_and_those_of_indexes_only_grow() -> None:
    """V48."""
    assert Catalog.empty().free_table_number() == FIRST_USER_TABLE
    catalog = Catalog.empty().with_table(NOTES)
    assert catalog.free_table_number() == FIRST_USER_TABLE + 1
    assert catalog.next_index == 1004
    assert catalog.with_table(NOTES.with_indexes([CREATION])).next_index == 1004
    gap = Table("late", TableNumber(FIRST_USER_TABLE + 2), ())
    assert catalog.with_table(gap).free_table_number() == FIRST_USER_TABLE + 1


def test_an_index_is_found_by_its_name_and_one_under_construction_by_its_future_one() -> None:
    assert NOTES.index("by_n") is BY_N
    assert NOTES.index("by_b") is None
    assert NOTES.building("by_b") is BUILDING
    assert NOTES.building("by_n") is None


@pytest.mark.parametrize(
    ("table", "index", "code", "text"),
    [
        ("notes", "by_x", "IndexNotFoundError", "Index notes.by_x not found."),
        ("ghosts", "by_n", "IndexNotFoundError", "Index ghosts.by_n not found."),
        ("ghosts", BY_ID, "IndexNotFoundError", "Index ghosts.by_id not found."),
        (
            "notes",
            "by_b",
            "IndexBackfillingError",
            "Index notes.by_b is currently backfilling and not available to query yet.",
        ),
        (
            "notes",
            "by_s",
            "IndexStagedError",
            "Index notes.by_s is currently staged and not available to query until it is enabled.",
        ),
    ],
)
def test_an_index_that_cannot_be_queried_says_why(table, index, code, text) -> None:
    with pytest.raises(BadRequest) as refused:
        Catalog.empty().with_table(NOTES).index_for_query(table, index)
    assert (refused.value.code, refused.value.message) == (code, text)


def test_an_index_in_service_can_be_queried() -> None:
    catalog = Catalog.empty().with_table(NOTES)
    assert catalog.index_for_query("notes", "by_n") is BY_N
    assert catalog.index_for_query("notes", BY_CREATION_TIME) is CREATION
    assert catalog.index_for_query("notes", BY_ID) is None
    assert catalog.index_for_query("_storage", BY_CREATION_TIME) is not None


def test_validators_are_switched_as_a_whole_and_never_for_system_tables() -> None:
    first, second = v.object({"n": v.number()}), v.object({})
    catalog = Catalog.empty().with_table(NOTES).with_validators({"notes": first, "_storage": first})
    assert catalog.tables["notes"].validator == first
    assert catalog.tables["_storage"].validator is None
    assert catalog.with_validators({"others": second}).tables["notes"].validator is None
    assert catalog.tables["notes"].with_indexes([CREATION]).validator == first


def test_documents_describe_the_catalog_they_were_made_of() -> None:
    tables = [{**table_document("notes", NOTES.number), "_id": "id-of-notes"}]
    indexes = [index_document("notes", index) for index in reversed(NOTES.indexes)]
    catalog = parse_catalog(tables, indexes)
    table = catalog.tables["notes"]
    assert (table.number, table.indexes, table.document_id) == (
        NOTES.number,
        NOTES.indexes,
        "id-of-notes",
    )
    assert [index for index, _ in table.encoders] == list(NOTES.indexes)
    assert catalog.next_index == 1004
    assert catalog.tables.keys() == {*SYSTEM_TABLES, "notes"}
    assert parse_catalog([], []).next_index == FIRST_USER_INDEX


@pytest.mark.parametrize("state", [DROPPING, DROPPED])
def test_an_index_out_of_service_keeps_its_number_and_nothing_else(state: str) -> None:
    gone = {**index_document("notes", BUILDING), "state": state}
    catalog = parse_catalog(
        [{**table_document("notes", NOTES.number), "_id": "x"}],
        [gone, index_document("notes", CREATION)],
    )
    assert catalog.tables["notes"].indexes == (CREATION,)
    assert catalog.next_index == 1004


DEFINITION = (
    define_table(v.any())
    .search_index("s", search_field="text", filter_fields=["room"])
    .search_index("later", search_field="title", staged=True)
    .vector_index("v", vector_field="e", dimensions=2)
)


def test_a_schema_declares_search_and_vector_indexes_of_the_tables_there_are() -> None:
    catalog = Catalog.empty().with_table(NOTES)
    declared = catalog.with_definitions({"notes": DEFINITION, "ghosts": DEFINITION})
    table = declared.tables["notes"]
    assert [each.name for each in table.search_indexes] == ["s", "later"]
    assert [each.name for each in table.vector_indexes] == ["v"]
    assert table.search_names == (("notes", "s"), ("notes", "later"))
    assert table.search_fields == (("text", ("room",)), ("title", ()))
    assert "ghosts" not in declared.tables
    assert declared.with_definitions({"notes": DEFINITION}).tables["notes"] is table
    for changed in (table.with_indexes([CREATION]), table.with_validator(v.any())):
        assert changed.search_indexes == table.search_indexes
    assert declared.with_definitions({}).tables["notes"].search_indexes == ()


def test_only_a_search_index_in_service_can_be_searched() -> None:
    catalog = Catalog.empty().with_table(NOTES).with_definitions({"notes": DEFINITION})
    assert catalog.search_index_for_query("notes", "s").search_field == "text"
    for name, code in (
        ("later", "IndexStagedError"),
        ("by_n", "NotSearchIndexError"),
        ("by_id", "NotSearchIndexError"),
        ("v", "NotSearchIndexError"),
        ("none", "IndexNotFoundError"),
    ):
        with pytest.raises(BadRequest) as refused:
            catalog.search_index_for_query("notes", name)
        assert refused.value.code == code
    with pytest.raises(BadRequest, match=r"Index ghosts\.by_id not found"):
        catalog.search_index_for_query("ghosts", "by_id")
