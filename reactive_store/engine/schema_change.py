"""Put a schema in force: tables, indexes, and a check of what is stored.

    prepare    missing tables and new indexes are created; new indexes are under construction
    check      stored documents are held against the new schema where it is not known to be wider
    build      new indexes are filled
    finish     one commit: new indexes in service, old ones gone, validators switched

Writes continue throughout. From `prepare` on every accepted write is held against the new schema
too: the writer succeeds under the old one, and the change fails. Until `finish` nothing is visible;
after a failure nothing is left behind, and the old schema stays in force.

An index under construction carries its number behind its name, so that an index of the same name
stays in service until it is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reactive_store.engine.backfill import backfill_index, table_pages
from reactive_store.engine.catalog import (
    BUILDING_MARK,
    INDEXES,
    SCHEMAS,
    Table,
    index_document,
)
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import BY_CREATION_TIME, IndexState, RangeIndex
from reactive_store.engine.reads import CommitChanges
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest, Conflict
from reactive_store.persistence.contract import IndexId
from reactive_store.schema.subset import is_subset
from reactive_store.schema.tables import Schema
from reactive_store.schema.validators import Validator
from reactive_store.values.document import Document
from reactive_store.values.value import Value
from reactive_store.values.wire import dumps, loads

__all__ = ["apply_schema"]

_LOG = logging.getLogger(__name__)


async def apply_schema(database: Database, schema: Schema) -> None:
    """Put `schema` in force; returns when it is.

    Cost     nothing when it is the one in force; else a read of each table whose documents may not
             fit, and of each table that gets an index
    Raises   BadRequest[SchemaMismatch] naming table, document and field
    """
    change = _SchemaChange(database, schema)
    if change.is_in_force():
        change.switch_validators()
        return
    database.committer.observer = change.observe
    try:
        await change.prepare()
        await change.check()
        await change.build()
        await change.finish()
    except BaseException:
        await change.undo()
        raise
    finally:
        database.committer.observer = None
    await change.drop_removed()


@dataclass
class _SchemaChange:
    database: Database
    schema: Schema
    # What every document must match under the new schema; tables without entry are free.
    validators: dict[str, Validator] = field(init=False)
    text: str = field(init=False)
    # Indexes this change has put under construction, by number.
    building: dict[IndexId, tuple[str, RangeIndex]] = field(default_factory=dict)
    # Indexes out of service after `finish`; their entries are forgotten last.
    removed: list[IndexId] = field(default_factory=list)
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
        """Whether the stored schema is this one and everything it needs is in service."""
        if _active_schema(self.database.begin()) != self.text:
            return False
        tables = self.database.catalog.tables
        return all(
            table.is_system or all(not index.is_building for index in table.indexes)
            for table in tables.values()
        )

    def switch_validators(self) -> None:
        """Enforce the schema on writes; for a schema already in force in the store."""
        committer = self.database.committer
        committer.catalog = committer.catalog.with_validators(self.validators)

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
        """Create tables and indexes; leftovers of a change that never finished go."""
        await self._commit(self._stage_preparation)
        await self.database.committer.wait_durable(self.database.committer.accepted_ts)

    async def check(self) -> None:
        """Hold stored documents against the new schema.

        Raises   BadRequest[SchemaMismatch]
        """
        before = _stored_validators(_active_schema(self.database.begin()))
        for name, validator in sorted(self.validators.items()):
            old = before.get(name)
            if old is not None and is_subset(old, validator):
                continue
            table = self.database.catalog.tables[name]
            database = self.database
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
        for table_name, index in self.building.values():
            table = database.catalog.tables[table_name]
            added = await backfill_index(
                database.committer, database.persistence, database.runtime, table, index
            )
            _LOG.info("index built table=%s index=%s entries=%d", table_name, index.name, added)

    async def finish(self) -> None:
        """Switch, in one commit.

        Raises   BadRequest[SchemaMismatch] when a write since `prepare` does not fit
        """
        await self._commit(self._stage_finish)

    async def undo(self) -> None:
        """Take back what `prepare` put there."""
        if not self.building or self.database.failure is not None:
            return
        numbers = set(self.building)
        await self._commit(lambda transaction: _stage_removal(transaction, numbers))
        for number in numbers:
            await self.database.persistence.drop_index(number)

    async def drop_removed(self) -> None:
        """Forget the entries of indexes that are out of service."""
        for number in self.removed:
            await self.database.persistence.drop_index(number)

    async def _commit(self, stage: Any) -> None:
        while True:
            transaction = self.database.begin_mutation()
            stage(transaction)
            try:
                await self.database.commit(transaction)
            except Conflict:
                continue
            return

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

    def _stage_preparation(self, transaction: Transaction) -> None:
        self.building.clear()
        leftovers = {
            index.id
            for table in transaction.catalog.tables.values()
            for index in table.indexes
            if index.is_building
        }
        self.removed.extend(leftovers)
        _stage_removal(transaction, leftovers)
        for name in sorted(self.schema.tables):
            if name not in transaction.catalog.tables:
                transaction.create_table(name)
        for name, definition in sorted(self.schema.tables.items()):
            for index_name, declared in definition.indexes.items():
                table = transaction.catalog.tables[name]
                existing = table.index(index_name)
                if existing is not None and existing.fields == tuple(declared.fields):
                    continue
                number = IndexId(transaction.catalog.next_index)
                index = RangeIndex(
                    f"{index_name}{BUILDING_MARK}{number}",
                    number,
                    tuple(declared.fields),
                    IndexState.BACKFILLING,
                )
                transaction.insert(INDEXES, index_document(name, index))
                transaction.catalog = transaction.catalog.with_table(
                    table.with_indexes((*table.indexes, index))
                )
                self.building[number] = (name, index)

    def _stage_finish(self, transaction: Transaction) -> None:
        if self.offence is not None:
            raise self.offence
        self.removed = [
            index.id
            for table in transaction.catalog.tables.values()
            if not table.is_system
            for index in table.indexes
            if self._is_superseded(table, index)
        ]
        _stage_removal(transaction, set(self.removed))
        for name, definition in self.schema.tables.items():
            table = transaction.catalog.tables[name]
            indexes = []
            for index in table.indexes:
                plain = index.name.partition(BUILDING_MARK)[0]
                declared = definition.indexes.get(plain)
                if declared is None:
                    indexes.append(index)
                    continue
                state = IndexState.STAGED if declared.staged else IndexState.READY
                indexes.append(replace(index, name=plain, state=state))
            changed = {
                new.id: new for new, old in zip(indexes, table.indexes, strict=True) if new != old
            }
            _stage_update(transaction, name, changed)
            transaction.catalog = transaction.catalog.with_table(table.with_indexes(indexes))
        transaction.catalog = transaction.catalog.with_validators(self.validators)
        scan = transaction.scan(SCHEMAS, BY_CREATION_TIME, EVERYTHING)
        row = scan.next()
        assert row is not None
        transaction.patch(SCHEMAS, row.id, {"schema": self.text})

    def _is_superseded(self, table: Table, index: RangeIndex) -> bool:
        if index.name == BY_CREATION_TIME or index.id in self.building:
            return False
        definition = self.schema.tables.get(table.name)
        declared = None if definition is None else definition.indexes.get(index.name)
        return declared is None or tuple(declared.fields) != index.fields


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
        table["tableName"]: Validator.from_json(table["documentType"]) for table in schema["tables"]
    }


def _index_documents(transaction: Transaction) -> dict[IndexId, bytes]:
    scan = transaction.scan(INDEXES, BY_CREATION_TIME, EVERYTHING)
    found: dict[IndexId, bytes] = {}
    while (row := scan.next()) is not None:
        found[IndexId(Document(row.value, INDEXES)["index"])] = row.id
    return found


def _stage_removal(transaction: Transaction, numbers: set[IndexId]) -> None:
    """Take indexes out of the catalog."""
    if not numbers:
        return
    documents = _index_documents(transaction)
    for table in tuple(transaction.catalog.tables.values()):
        kept = [index for index in table.indexes if index.id not in numbers]
        if len(kept) != len(table.indexes):
            transaction.catalog = transaction.catalog.with_table(table.with_indexes(kept))
    for number in numbers:
        if number in documents:
            transaction.delete(INDEXES, documents[number])


def _stage_update(
    transaction: Transaction, table: str, changed: Mapping[IndexId, RangeIndex]
) -> None:
    if not changed:
        return
    documents = _index_documents(transaction)
    for number, index in changed.items():
        fields: dict[str, Value] = index_document(table, index)
        transaction.replace(INDEXES, documents[number], fields)
