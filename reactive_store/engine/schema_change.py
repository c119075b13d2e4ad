"""Put a schema in force: tables, indexes, and a check of what is stored.

    prepare    new indexes of existing tables are created, under construction
    check      stored documents are held against the new schema where it is not known to be wider
    build      new indexes are filled
    finish     one commit: new tables, new indexes in service, old ones gone, validators switched

Writes continue throughout. From `prepare` on every accepted write is held against the new schema
too: the writer succeeds under the old one, and the change fails. Until `finish` nothing is visible;
after a failure nothing is left behind, and the old schema stays in force. What a process that died
half-way has left goes when the next schema is applied.

An index under construction carries its number behind its name, so that an index of the same name
stays in service until it is replaced. One that is out of service keeps its entries until
`engine.retention` forgets the last timestamp at which somebody may still be reading it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from reactive_store.engine.backfill import backfill_index, table_pages
from reactive_store.engine.catalog import (
    BUILDING_MARK,
    DROPPING,
    INDEXES,
    SCHEMAS,
    Catalog,
    Table,
    index_document,
)
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import BY_CREATION_TIME, IndexState, RangeIndex
from reactive_store.engine.reads import CommitChanges
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest, Conflict, StoreError
from reactive_store.persistence.contract import IndexId
from reactive_store.schema.subset import is_subset
from reactive_store.schema.tables import Schema, TableDefinition, define_table
from reactive_store.schema.validators import Validator
from reactive_store.values.document import Document
from reactive_store.values.value import Value
from reactive_store.values.wire import dumps, loads

__all__ = ["apply_schema"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


async def apply_schema(database: Database, schema: Schema) -> None:
    """Put `schema` in force; returns when it is. One call at a time.

    Cost     nothing when it is the one in force; else a read of each table whose documents may not
             fit, and of each table that gets an index
    Raises   BadRequest[SchemaMismatch] naming table, document and field
    """
    change = _SchemaChange(database, schema)
    if not change.is_in_force():
        committer = database.committer
        assert committer.observer is None, "another schema change is under way"
        committer.observer = change.observe
        try:
            while not await change.attempt():
                _LOG.info("a table of the new schema came into being meanwhile; once more")
        except BaseException:
            await change.undo()
            database.searches.settle()
            raise
        finally:
            committer.observer = None
    change.switch_validators()
    await database.vectors.declare(schema)
    database.searches.settle()


@dataclass
class _SchemaChange:
    database: Database
    schema: Schema
    # What every document must match under the new schema; tables without entry are free.
    validators: dict[str, Validator] = field(init=False)
    text: str = field(init=False)
    # Indexes `prepare` has put under construction, each with its table's name.
    building: list[tuple[str, RangeIndex]] = field(default_factory=list)
    # Why a write accepted meanwhile makes the change fail.
    offence: BadRequest | None = None

    def __post_init__(self) -> None:
        self.text = dumps(self.schema.to_json()).decode()
        self.validators = (
            {name: table.enforced for name, table in self.schema.tables.items()}
            if self.schema.schema_validation
            else {}
        )

    def is_in_force(self) -> bool:
        """Whether the stored schema is this one and no change was left half-way."""
        if _active_schema(self.database.begin()) != self.text:
            return False
        return not _under_construction(self.database.catalog)

    def switch_validators(self) -> None:
        """Enforce the schema on writes, should the stored one be this one without a commit of ours.

        Nothing happens when it is enforced already: new definitions make running mutations repeat.
        """
        committer = self.database.committer
        validators, definitions = self.validators, self.schema.tables
        if any(
            not table.is_system
            and (
                table.validator != validators.get(name)
                or table.with_definition(definitions.get(name)) is not table
            )
            for name, table in committer.catalog.tables.items()
        ):
            catalog = committer.catalog.with_validators(validators)
            committer.replace_catalog(catalog.with_definitions(definitions))

    async def attempt(self) -> bool:
        """Go through all steps. False: a table appeared that has to go through them too.

        Raises   BadRequest[SchemaMismatch]
        """
        await self.prepare()
        await self.check()
        await self.build()
        return await self._commit(self._stage_finish)

    def observe(self, commit: CommitChanges) -> None:
        """Hold an accepted commit against the new schema."""
        if self.offence is not None:
            return
        for change in commit.documents:
            validator = self.validators.get(change.table)
            if validator is None or change.new is None:
                continue
            self.offence = self._offence(
                validator,
                change.table,
                change.new.value,
                'New document in table "{table}" does not match the schema: ',
            )
            if self.offence is not None:
                return

    async def prepare(self) -> None:
        """Create indexes; those of a change that never finished go."""
        self.building = await self._commit(self._stage_preparation)
        await self.database.committer.wait_durable(self.database.committer.accepted_ts)

    async def check(self) -> None:
        """Hold stored documents against the new schema.

        Raises   BadRequest[SchemaMismatch]
        """
        database = self.database
        before = _stored_validators(_active_schema(database.begin()))
        for name, validator in sorted(self.validators.items()):
            table = database.catalog.tables.get(name)
            old = before.get(name)
            if table is None or (old is not None and is_subset(old, validator)):
                continue
            pages = table_pages(database.committer, database.persistence, database.runtime, table)
            async for rows in pages:
                for row in rows:
                    offence = self._offence(
                        validator,
                        name,
                        row.value,
                        'Document with ID "{id}" in table "{table}" does not match the schema: ',
                    )
                    if offence is not None:
                        raise offence

    async def build(self) -> None:
        """Fill the new indexes."""
        database = self.database
        for table_name, index in self.building:
            table = database.catalog.tables[table_name]
            added = await backfill_index(
                database.committer, database.persistence, database.runtime, table, index
            )
            _LOG.info("index built table=%s index=%s entries=%d", table_name, index.name, added)
        for name, definition in sorted(self.schema.tables.items()):
            existing = database.catalog.tables.get(name)
            for search in definition.search_indexes.values():
                if existing is not None and not search.staged:
                    await database.searches.build(existing, search)

    async def undo(self) -> None:
        """Take back what `prepare` put there. Should that fail too, the next change does it."""
        try:
            for number in await self._commit(_stage_demolition):
                await self.database.persistence.drop_index(number)
        except StoreError as error:
            _LOG.warning("a failed schema change could not be undone: %s", error.message)

    async def _commit(self, stage: Callable[[Transaction], T]) -> T:
        while True:
            transaction = self.database.begin_mutation()
            result = stage(transaction)
            try:
                await self.database.commit(transaction)
            except Conflict:
                continue
            return result

    def _offence(
        self, validator: Validator, table: str, value: bytes, prefix: str
    ) -> BadRequest | None:
        document = loads(value)
        assert isinstance(document, dict)
        own = {name: item for name, item in document.items() if not name.startswith("_")}
        try:
            validator.check(own, self.database.catalog)
        except BadRequest as error:
            text = prefix.format(table=table, id=document["_id"])
            return BadRequest(text + error.message, code="SchemaMismatch")
        return None

    def _stage_preparation(self, transaction: Transaction) -> list[tuple[str, RangeIndex]]:
        _stage_demolition(transaction)
        building: list[tuple[str, RangeIndex]] = []
        for name, definition in sorted(self.schema.tables.items()):
            if name not in transaction.catalog.tables:
                continue  # nothing to check or to fill: `finish` makes it whole
            for index_name, declared in definition.indexes.items():
                table = transaction.catalog.tables[name]
                existing = table.index(index_name)
                fields = tuple(declared.fields)
                if existing is not None and existing.fields == fields:
                    continue
                number = transaction.catalog.next_index
                index = RangeIndex(
                    f"{index_name}{BUILDING_MARK}{number}",
                    IndexId(number),
                    fields,
                    IndexState.BACKFILLING,
                )
                _stage_index(transaction, table, index)
                building.append((name, index))
        return building

    def _stage_finish(self, transaction: Transaction) -> bool:
        if self.offence is not None:
            raise self.offence
        existing = {
            name: definition
            for name, definition in self.schema.tables.items()
            if name in transaction.catalog.tables
        }
        for name, definition in existing.items():
            if not _has_indexes(transaction.catalog.tables[name], definition):
                return False
        _stage_removal(
            transaction,
            {
                index.id
                for table in transaction.catalog.tables.values()
                if not table.is_system
                for index in table.indexes
                if self._is_superseded(table, index)
            },
        )
        for name, definition in existing.items():
            self._stage_service(transaction, name, definition)
        for name, definition in sorted(self.schema.tables.items()):  # so they get their numbers
            if name not in existing:
                _stage_new_table(transaction, name, definition)
        transaction.catalog = transaction.catalog.with_validators(self.validators).with_definitions(
            self.schema.tables
        )
        row = transaction.scan(SCHEMAS, BY_CREATION_TIME, EVERYTHING).next()
        assert row is not None
        transaction.patch(SCHEMAS, row.id, {"schema": self.text})
        return True

    def _stage_service(
        self, transaction: Transaction, name: str, definition: TableDefinition
    ) -> None:
        """Put a table's new indexes in service, and each in the state the schema says."""
        table = transaction.catalog.tables[name]
        indexes = []
        for index in table.indexes:
            plain = index.name.partition(BUILDING_MARK)[0]
            declared = definition.indexes.get(plain)
            if declared is None:
                indexes.append(index)  # by_creation_time
                continue
            # Complete for what is durable by now; the commits since have kept it so.
            since = self.database.latest_ts if index.is_building else index.since_ts
            state = IndexState.STAGED if declared.staged else IndexState.READY
            indexes.append(replace(index, name=plain, state=state, since_ts=since))
        changed = {
            new.id: new for new, old in zip(indexes, table.indexes, strict=True) if new != old
        }
        _stage_update(transaction, name, changed)
        transaction.catalog = transaction.catalog.with_table(table.with_indexes(indexes))

    def _is_superseded(self, table: Table, index: RangeIndex) -> bool:
        if index.name == BY_CREATION_TIME or index.is_building:
            return False
        definition = self.schema.tables.get(table.name)
        declared = None if definition is None else definition.indexes.get(index.name)
        return declared is None or tuple(declared.fields) != index.fields


def _under_construction(catalog: Catalog) -> set[IndexId]:
    return {
        index.id
        for table in catalog.tables.values()
        for index in table.indexes
        if index.is_building
    }


def _has_indexes(table: Table, definition: TableDefinition) -> bool:
    """Whether each declared index is there, in service or under construction."""
    return all(
        any(
            index is not None and index.fields == tuple(declared.fields)
            for index in (table.index(name), table.building(name))
        )
        for name, declared in definition.indexes.items()
    )


def _active_schema(transaction: Transaction) -> str:
    row = transaction.scan(SCHEMAS, BY_CREATION_TIME, EVERYTHING).next()
    return "" if row is None else str(Document(row.value, SCHEMAS)["schema"])


def _stored_validators(text: str) -> Mapping[str, Validator]:
    """What the stored schema guarantees of each table's documents."""
    if not text:
        return {}
    schema: Any = loads(text)
    if not schema.get("schemaValidation"):
        return {}
    return {
        table["tableName"]: define_table(Validator.from_json(table["documentType"])).enforced
        for table in schema["tables"]
    }


def _index_documents(transaction: Transaction) -> dict[IndexId, bytes]:
    scan = transaction.scan(INDEXES, BY_CREATION_TIME, EVERYTHING)
    found: dict[IndexId, bytes] = {}
    while (row := scan.next()) is not None:
        found[IndexId(Document(row.value, INDEXES)["index"])] = row.id
    return found


def _stage_index(transaction: Transaction, table: Table, index: RangeIndex) -> None:
    """Add an index to the catalog."""
    transaction.insert(INDEXES, index_document(table.name, index))
    indexes = (*table.indexes, index)
    transaction.catalog = transaction.catalog.with_table(table.with_indexes(indexes))


def _stage_new_table(transaction: Transaction, name: str, definition: TableDefinition) -> None:
    """Create a table with its indexes, in service at once: there are no documents."""
    transaction.create_table(name)
    for index_name, declared in definition.indexes.items():
        index = RangeIndex(
            index_name,
            IndexId(transaction.catalog.next_index),
            tuple(declared.fields),
            IndexState.STAGED if declared.staged else IndexState.READY,
        )
        _stage_index(transaction, transaction.catalog.tables[name], index)


def _stage_demolition(transaction: Transaction) -> set[IndexId]:
    """Take every index under construction away."""
    numbers = _under_construction(transaction.catalog)
    _stage_removal(transaction, numbers)
    return numbers


def _stage_removal(transaction: Transaction, numbers: set[IndexId]) -> None:
    """Take indexes out of the catalog; their entries are forgotten later."""
    if not numbers:
        return
    documents = _index_documents(transaction)
    for table in tuple(transaction.catalog.tables.values()):
        kept = [index for index in table.indexes if index.id not in numbers]
        if len(kept) != len(table.indexes):
            transaction.catalog = transaction.catalog.with_table(table.with_indexes(kept))
    for number in sorted(numbers):
        transaction.patch(INDEXES, documents[number], {"state": DROPPING})


def _stage_update(
    transaction: Transaction, table: str, changed: Mapping[IndexId, RangeIndex]
) -> None:
    if not changed:
        return
    documents = _index_documents(transaction)
    for number, index in changed.items():
        fields: dict[str, Value] = index_document(table, index)
        transaction.replace(INDEXES, documents[number], fields)
