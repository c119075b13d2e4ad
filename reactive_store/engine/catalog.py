"""Tables and indexes: what exists, under which numbers, and in which state.

A `Catalog` is an immutable value; a change makes a new one. What it says is kept as documents of
the system tables `_tables` and `_indexes`, so it is versioned, durable and exported like data.
The system tables themselves are fixed here.

Source: Convex's table numbers (system tables from 513 up, user tables from 10001 up).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reactive_store.engine.range_index import BY_CREATION_TIME, BY_ID, IndexState, RangeIndex
from reactive_store.engine.reads import IndexName
from reactive_store.engine.search_terms import EntryMaker, entry_maker
from reactive_store.errors import BadRequest
from reactive_store.persistence.contract import IndexId, TableNumber
from reactive_store.schema.tables import (
    SearchIndexDefinition,
    TableDefinition,
    VectorIndexDefinition,
)
from reactive_store.schema.validators import Validator
from reactive_store.values.value import Int64, Value

__all__ = [
    "BLOBS",
    "BUILDING_MARK",
    "BY_COMPLETED_TIME",
    "BY_DELETED",
    "BY_NAME",
    "BY_STATE",
    "BY_UUID",
    "CRON_JOBS",
    "CRON_RUNS",
    "DROPPED",
    "DROPPING",
    "ENVIRONMENT",
    "FIRST_USER_INDEX",
    "FIRST_USER_TABLE",
    "INDEXES",
    "SCHEDULED_FUNCTIONS",
    "SCHEMAS",
    "SESSION_REQUESTS",
    "STORAGE",
    "SYSTEM_TABLES",
    "TABLES",
    "Catalog",
    "Table",
    "index_document",
    "parse_catalog",
    "table_document",
]

FIRST_USER_TABLE = 10001
FIRST_USER_INDEX = 1000

TABLES = "_tables"
INDEXES = "_indexes"
SCHEMAS = "_schemas"
SESSION_REQUESTS = "_session_requests"
ENVIRONMENT = "_environment_variables"
STORAGE = "_storage"
BLOBS = "_blobs"
SCHEDULED_FUNCTIONS = "_scheduled_functions"
CRON_JOBS = "_cron_jobs"
CRON_RUNS = "_cron_job_logs"

BY_STATE, BY_COMPLETED_TIME = "by_state", "by_completed_time"
"""Indexes of `_scheduled_functions` besides the usual: (state, due time), and when it was over."""
BY_NAME = "by_name"
"""The index of `_cron_job_logs` by cron and time."""

BY_UUID, BY_DELETED = "by_uuid", "by_deleted"
"""Indexes of `_blobs`: where the bytes are, and since when they are not needed any more."""

DROPPING, DROPPED = "dropping", "dropped"
"""States of an index's document once it is no index any more: its entries are to be forgotten, or
are. The document with the highest number stays, so that no number is given out twice."""

BUILDING_MARK = "#"
"""Between the name and the number of an index under construction; no index may be named so."""

KeyEncoder = Callable[[Mapping[str, Value]], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table with its indexes.

    `encoders` pairs every index but `by_id` with its key function, ready-made for commits;
    `index_names` are the names of all of them, `by_id` first, then in the order of `encoders`.
    """

    name: str
    number: TableNumber
    indexes: tuple[RangeIndex, ...]  # by_id is implied; by_creation_time comes first
    validator: Validator | None = None  # what the active schema demands of documents
    document_id: str | None = None  # its document in `_tables`; None for system tables
    # As the schema in force declares them, staged ones included; kept in memory, not as documents.
    search_indexes: tuple[SearchIndexDefinition, ...] = ()
    vector_indexes: tuple[VectorIndexDefinition, ...] = ()
    encoders: tuple[tuple[RangeIndex, KeyEncoder], ...] = field(init=False)
    index_names: tuple[IndexName, ...] = field(init=False)
    # Of `search_indexes`, in their order.
    search_names: tuple[IndexName, ...] = field(init=False)
    search_fields: tuple[tuple[str, tuple[str, ...]], ...] = field(init=False)
    entry_makers: tuple[EntryMaker, ...] = field(init=False)

    def __post_init__(self) -> None:
        encoders = tuple((index, index.key_encoder()) for index in self.indexes)
        object.__setattr__(self, "encoders", encoders)
        names = ((self.name, BY_ID), *((self.name, index.name) for index in self.indexes))
        object.__setattr__(self, "index_names", names)
        searches = self.search_indexes
        object.__setattr__(self, "search_names", tuple((self.name, each.name) for each in searches))
        object.__setattr__(self, "search_fields", tuple(each.content for each in searches))
        object.__setattr__(self, "entry_makers", tuple(map(entry_maker, searches)))

    @property
    def is_system(self) -> bool:
        """Whether the table is ours, not the app's."""
        return self.name.startswith("_")

    def index(self, name: str) -> RangeIndex | None:
        """The index of that name, `by_id` excepted."""
        for index in self.indexes:
            if index.name == name:
                return index
        return None

    def building(self, name: str) -> RangeIndex | None:
        """The index under construction that will have that name."""
        for index in self.indexes:
            if index.is_building and index.name.partition(BUILDING_MARK)[0] == name:
                return index
        return None

    def with_indexes(self, indexes: Iterable[RangeIndex]) -> Table:
        """The same table with other indexes."""
        return replace(self, indexes=tuple(indexes))

    def with_validator(self, validator: Validator | None) -> Table:
        """The same table under another schema."""
        return replace(self, validator=validator)

    def with_definition(self, definition: TableDefinition | None) -> Table:
        """The same table with the search and vector indexes a schema declares for it."""
        searches: tuple[SearchIndexDefinition, ...] = ()
        vectors: tuple[VectorIndexDefinition, ...] = ()
        if definition is not None:
            searches = tuple(definition.search_indexes.values())
            vectors = tuple(definition.vector_indexes.values())
        if (searches, vectors) == (self.search_indexes, self.vector_indexes):
            return self
        return replace(self, search_indexes=searches, vector_indexes=vectors)


def _system_table(
    name: str, number: int, index_id: int, **others: tuple[int, tuple[str, ...]]
) -> Table:
    """`others`: further indexes by name, each with its number and fields."""
    by_creation = RangeIndex(BY_CREATION_TIME, IndexId(index_id), (), IndexState.READY)
    further = [
        RangeIndex(other, IndexId(other_id), fields, IndexState.READY)
        for other, (other_id, fields) in others.items()
    ]
    return Table(name, TableNumber(number), (by_creation, *further))


SYSTEM_TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        _system_table(TABLES, 513, 1),
        _system_table(INDEXES, 514, 2),
        _system_table(SCHEMAS, 515, 3),
        _system_table(SESSION_REQUESTS, 516, 4),
        _system_table(ENVIRONMENT, 517, 5),
        _system_table("_modules", 521, 6),
        _system_table(CRON_JOBS, 522, 22),
        _system_table(CRON_RUNS, 523, 23, by_name=(24, ("name", "ts"))),
        _system_table(
            SCHEDULED_FUNCTIONS,
            539,
            7,
            by_state=(20, ("state.kind", "scheduledTime")),
            by_completed_time=(21, ("completedTime",)),
        ),
        _system_table(STORAGE, 540, 8),
        # One document per file, under the internal id of its document in `_storage`.
        _system_table(BLOBS, 541, 30, by_uuid=(31, ("uuid",)), by_deleted=(32, ("deleted",))),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Every table and index at one moment."""

    tables: Mapping[str, Table]
    next_index: int
    names: Mapping[int, str] = field(init=False)  # table number → name

    def __post_init__(self) -> None:
        names = {int(table.number): table.name for table in self.tables.values()}
        object.__setattr__(self, "names", names)

    @staticmethod
    def empty() -> Catalog:
        """The system tables alone."""
        return Catalog(dict(SYSTEM_TABLES), FIRST_USER_INDEX)

    def table_name(self, number: int) -> str | None:
        """The table with that number, or None."""
        return self.names.get(number)

    def table_number(self, name: str) -> int | None:
        """The number of that table, or None."""
        table = self.tables.get(name)
        return None if table is None else table.number

    def free_table_number(self) -> TableNumber:
        """The smallest user table number nobody has."""
        number = FIRST_USER_TABLE
        while number in self.names:
            number += 1
        return TableNumber(number)

    def with_table(self, table: Table) -> Catalog:
        """This catalog with a table added or replaced."""
        highest = max((index.id for index in table.indexes), default=0)
        return Catalog({**self.tables, table.name: table}, max(self.next_index, highest + 1))

    def with_validators(self, validators: Mapping[str, Validator]) -> Catalog:
        """This catalog under another schema; tables not named are free of checks."""
        tables = {
            name: table if table.is_system else table.with_validator(validators.get(name))
            for name, table in self.tables.items()
        }
        return replace(self, tables=tables)

    def with_definitions(self, definitions: Mapping[str, TableDefinition]) -> Catalog:
        """This catalog with the search and vector indexes of another schema, and no others."""
        tables = {
            name: table if table.is_system else table.with_definition(definitions.get(name))
            for name, table in self.tables.items()
        }
        return replace(self, tables=tables)

    def search_index_for_query(self, table_name: str, index_name: str) -> SearchIndexDefinition:
        """The search index a query may use.

        Raises   BadRequest[IndexNotFoundError, NotSearchIndexError, IndexStagedError]
        """
        table = self.tables.get(table_name)
        name = f"{table_name}.{index_name}"
        for definition in () if table is None else table.search_indexes:
            if definition.name != index_name:
                continue
            if definition.staged:
                raise _staged(name)
            return definition
        if table is not None and (
            index_name == BY_ID
            or table.index(index_name) is not None
            or any(each.name == index_name for each in table.vector_indexes)
        ):
            raise BadRequest(f"Index {name} is not a search index", code="NotSearchIndexError")
        raise BadRequest(f"Index {name} not found.", code="IndexNotFoundError")

    def index_for_query(self, table_name: str, index_name: str) -> RangeIndex | None:
        """The index a query may use; None for `by_id`.

        Raises   BadRequest[IndexNotFoundError, IndexBackfillingError, IndexStagedError]
        """
        table = self.tables.get(table_name)
        if table is not None and index_name == BY_ID:
            return None
        index = None if table is None else table.index(index_name)
        name = f"{table_name}.{index_name}"
        if index is None and table is not None:
            index = table.building(index_name)
        if index is None:
            raise BadRequest(f"Index {name} not found.", code="IndexNotFoundError")
        if index.is_building:
            raise BadRequest(
                f"Index {name} is currently backfilling and not available to query yet.",
                code="IndexBackfillingError",
            )
        if index.state is IndexState.STAGED:
            raise _staged(name)
        return index


def _staged(name: str) -> BadRequest:
    return BadRequest(
        f"Index {name} is currently staged and not available to query until it is enabled.",
        code="IndexStagedError",
    )


def table_document(name: str, number: TableNumber) -> dict[str, Value]:
    """What `_tables` keeps of a table."""
    return {"name": name, "number": int(number)}


def index_document(table: str, index: RangeIndex) -> dict[str, Value]:
    """What `_indexes` keeps of an index."""
    return {
        "fields": list(index.fields),
        "index": int(index.id),
        "name": index.name,
        "since": Int64(index.since_ts),
        "state": index.state.value,
        "table": table,
    }


def parse_catalog(
    tables: Iterable[Mapping[str, Any]], indexes: Iterable[Mapping[str, Any]]
) -> Catalog:
    """The catalog that the documents of `_tables` and `_indexes` describe."""
    by_table: dict[str, list[RangeIndex]] = {}
    highest = FIRST_USER_INDEX - 1
    for document in indexes:
        highest = max(highest, document["index"])
        if document["state"] in (DROPPING, DROPPED):
            continue
        index = RangeIndex(
            document["name"],
            IndexId(document["index"]),
            tuple(document["fields"]),
            IndexState(document["state"]),
            int(document["since"]),
        )
        by_table.setdefault(document["table"], []).append(index)
    found = dict(SYSTEM_TABLES)
    for document in tables:
        name = document["name"]
        ordered = sorted(by_table.get(name, ()), key=lambda index: index.id)
        found[name] = Table(
            name, TableNumber(document["number"]), tuple(ordered), None, document["_id"]
        )
    return Catalog(found, highest + 1)
