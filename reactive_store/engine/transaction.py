"""One transaction: reads of one instant, staged writes it can see itself, every read remembered.

Invariants
- Reads come from one snapshot, overlaid with the transaction's own writes.
- Every read is in the read set, narrowed to what was consumed; a failed part's reads stay.
- A document is staged only when it fits the structure rules, the schema and the limits, so a
  commit cannot fail for a reason of its own.
- The limits on documents and bytes are the app's: system tables do not count, and their documents
  may be larger (a request's record holds its whole result).
- Nothing here awaits; whoever reads much pauses between calls.

Source: docs/reference/limits.md for the bounds; the texts are Convex's, clients show them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

from reactive_store.engine.catalog import (
    INDEXES,
    SYSTEM_TABLES,
    TABLES,
    Catalog,
    Table,
    index_document,
    table_document,
)
from reactive_store.engine.interval import EVERYTHING, Interval, after
from reactive_store.engine.range_index import BY_CREATION_TIME, BY_ID, IndexState, RangeIndex
from reactive_store.engine.reads import IndexName, Predicate, Read, ReadSet
from reactive_store.engine.search_scan import Searches, SearchQuestion, SearchScan
from reactive_store.engine.search_terms import SearchEntry
from reactive_store.engine.snapshot import MergedPage, Snapshot, merge_overlay
from reactive_store.engine.staging import StagedDocument, Staging
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.contract import IndexId, Row, Timestamp
from reactive_store.values.ids import encode_id
from reactive_store.values.names import check_identifier
from reactive_store.values.order import encode_key
from reactive_store.values.render import render
from reactive_store.values.size import check_document, check_document_size, format_size
from reactive_store.values.value import Id, Unset, Value
from reactive_store.values.wire import encode_normalized, loads

__all__ = ["IdSource", "Savepoint", "Scan", "Transaction", "Usage"]

_ADVICE = (
    "Consider using smaller limits in your queries, paginating your queries, or using indexed "
    "queries with a selective index range expressions."
)
_FIRST_PAGE, _MAX_PAGE = 16, 256
_SYSTEM_FIELDS = ("_id", "_creationTime")


class IdSource(Protocol):
    """Where new documents get their identity; one per node."""

    def internal_id(self) -> bytes:
        """16 fresh bytes."""
        ...

    def creation_time(self, at_least: float) -> float:
        """Unix milliseconds, above every earlier answer."""
        ...


@dataclass(slots=True)
class Usage:
    """What a transaction has used of its limits."""

    read_documents: int = 0
    read_bytes: int = 0
    written_documents: int = 0
    written_bytes: int = 0
    scheduled_functions: int = 0
    scheduled_bytes: int = 0  # of their arguments


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A point in a transaction's writes. Reads are not undone, the write budget is."""

    position: int
    catalog: Catalog
    written_documents: int
    written_bytes: int
    scheduled_functions: int
    scheduled_bytes: int


class Transaction:
    """Reads at one timestamp and staged writes.

    `catalog_at_begin` is compared when committing: definitions that changed meanwhile are a
    conflict. `catalog` is that value plus the tables this transaction creates.
    """

    __slots__ = (
        "_ids",
        "_open_scans",
        "_reads",
        "_searches",
        "_snapshot",
        "begin_ts",
        "catalog",
        "catalog_at_begin",
        "is_read_only",
        "limits",
        "now_ms",
        "staging",
        "usage",
    )

    def __init__(
        self,
        snapshot: Snapshot,
        catalog: Catalog,
        *,
        limits: Limits,
        ids: IdSource,
        now_ms: float,
        is_read_only: bool,
        searches: Searches | None = None,
    ) -> None:
        self._searches = searches
        self._snapshot = snapshot
        self._ids = ids
        self._reads = ReadSet()
        self._open_scans: set[Scan] = set()
        self.begin_ts: Timestamp = snapshot.ts
        self.catalog = catalog
        self.catalog_at_begin = catalog
        self.limits = limits
        self.now_ms = now_ms  # the wall clock when the transaction began, for ctx.now
        self.is_read_only = is_read_only
        self.staging = Staging()
        self.usage = Usage()

    def without_writes(self) -> Transaction:
        """The same instant as it was before this transaction wrote anything.

        What is read there is not remembered here, so it cannot conflict; it counts for the limits.
        """
        before = Transaction(
            self._snapshot,
            self.catalog_at_begin,
            limits=self.limits,
            ids=self._ids,
            now_ms=self.now_ms,
            is_read_only=True,
        )
        before.usage = self.usage
        return before

    # Names and definitions.

    def table_name(self, number: int) -> str | None:
        """The table with that number, or None."""
        return self.catalog.table_name(number)

    def table_number(self, name: str) -> int | None:
        """The number of that table, or None."""
        return self.catalog.table_number(name)

    def index_fields(self, table: str, index: str) -> tuple[str, ...]:
        """The declared fields of an index, without the automatic creation time and id.

        Raises   BadRequest[IndexNotFoundError, IndexBackfillingError, IndexStagedError]
        """
        if table.startswith("_") and index not in (BY_ID, BY_CREATION_TIME):
            # Other indexes of system tables are for the loops that keep them.
            raise BadRequest(f"Index {table}.{index} not found.", code="IndexNotFoundError")
        found = self.catalog.index_for_query(table, index)
        return () if found is None else found.fields

    # Reads.

    def read_set(self) -> ReadSet:
        """Everything read so far; scans still open count as far as they have come."""
        for scan in tuple(self._open_scans):
            scan.remember()
        return self._reads

    def get(self, table: str, id: bytes) -> Row | None:
        """A document's version by internal id, or None.

        Cost     one point read
        Raises   BadRequest[TooManyReads, TooManyDocumentsRead, TooManyBytesRead]; OutOfRetention
        """
        self.remember(table, id)
        row = self._peek(table, id)
        if row is not None and not table.startswith("_"):
            self._count_read(row)
        return row

    def remember(self, table: str, id: bytes) -> None:
        """Count a document as read whose state the caller knows without reading it.

        Cost     no read
        Raises   BadRequest[TooManyReads]
        """
        self._reads.add((table, BY_ID), Read(Interval(id, after(id)), len(id), None))
        self._check_intervals()

    def scan(
        self,
        table: str,
        index: str,
        interval: Interval,
        *,
        prefix_bytes: int = 0,
        descending: bool = False,
        predicate: Predicate | None = None,
    ) -> Scan:
        """Walk an interval of an index; rows come one by one, read in growing pages.

        A table that does not exist has no rows; the read is remembered all the same.
        `predicate` only sharpens what counts as touched; filtering is the caller's.

        Raises   BadRequest[IndexNotFoundError …] for an index that cannot be queried,
                 BadRequest[TooManyReads]
        """
        of_table = self.catalog.tables.get(table)
        index_object = None
        if of_table is not None or index not in (BY_CREATION_TIME, BY_ID):
            index_object = self.catalog.index_for_query(table, index)
        scan = Scan(
            self,
            of_table,
            index_object,
            (table, index),
            interval,
            prefix_bytes=prefix_bytes,
            descending=descending,
            predicate=predicate,
        )
        self._open_scans.add(scan)
        self._check_intervals()
        return scan

    def wait_for_search(self, table: str, index: str) -> Awaitable[None] | None:
        """What to await before `search`; None: nothing. An index is built when the process starts.

        Raises   BadRequest[IndexNotFoundError, NotSearchIndexError, IndexStagedError];
                 OutOfRetention for an index that has been replaced
        """
        definition = self.catalog.search_index_for_query(table, index)
        assert self._searches is not None
        return self._searches.wait_ready(table, definition)

    def search(
        self, table: str, index: str, question: SearchQuestion, interval: Interval = EVERYTHING
    ) -> SearchScan:
        """Walk through the documents that answer a search, best first, own writes included.

        Shapes   interval: of the keys of ranks; what lies outside is passed over
        Cost     as `SearchIndexes.search`, and a point read for each row
        Raises   as `wait_for_search`; OutOfRetention; BadRequest[TooManyReads]
        """
        definition = self.catalog.search_index_for_query(table, index)
        assert self._searches is not None
        found = self._searches.search(table, definition, question, self.begin_ts, self.staging)
        for read in found.reads:
            self._reads.add((table, index), read)
        self._check_intervals()

        def fetch(id: bytes) -> Row:
            row = self._peek(table, id)
            assert row is not None, "the index has a document that the snapshot has not"
            self._count_read(row)
            return row

        return SearchScan(found.matches, self.limits.search_results, fetch, interval)

    def _peek(self, table: str, id: bytes) -> Row | None:
        staged = self.staging.get(table, id)
        if staged is not None:
            return staged.after
        of_table = self.catalog.tables.get(table)
        return None if of_table is None else self._snapshot.get(of_table, id)

    def _page(
        self,
        table: Table,
        index: RangeIndex | None,
        name: IndexName,
        interval: Interval,
        *,
        descending: bool,
        limit: int,
    ) -> MergedPage:
        start, end = interval
        page = self._snapshot.page(table, index, start, end, descending=descending, limit=limit)
        if not self.staging:
            return page
        return merge_overlay(page, self.staging.overlay(name, start, end), descending=descending)

    def _check_intervals(self) -> None:
        # Checked when a read begins, so that asking for the read set later cannot fail.
        if len(self._reads) + len(self._open_scans) > self.limits.read_intervals:
            raise BadRequest(
                "Too many reads in a single function execution "
                f"(limit: {self.limits.read_intervals}). {_ADVICE}",
                code="TooManyReads",
            )

    def _count_read(self, row: Row) -> None:
        usage, limits = self.usage, self.limits
        usage.read_documents += 1
        usage.read_bytes += len(row.value)
        if usage.read_documents > limits.read_documents:
            raise BadRequest(
                "Too many documents read in a single function execution "
                f"(limit: {limits.read_documents}). {_ADVICE}",
                code="TooManyDocumentsRead",
            )
        if usage.read_bytes > limits.read_bytes:
            raise BadRequest(
                "Too many bytes read in a single function execution "
                f"(limit: {limits.read_bytes} bytes). {_ADVICE}",
                code="TooManyBytesRead",
            )

    # Writes.

    def insert(
        self, table: str, fields: dict[str, Value], *, internal_id: bytes | None = None
    ) -> Id:
        """Add a document; the table comes into being when it is unknown.

        Shapes   fields: normalised values without `_id` and `_creationTime`
                 internal_id: 16 bytes chosen by the caller (system tables only)
        Raises   BadRequest[SchemaEnforcementError, InvalidDocumentError, TooManyWrites …]
        """
        of_table = self.catalog.tables.get(table)
        if of_table is None:
            of_table = self.create_table(table)
        identity = self._ids.internal_id() if internal_id is None else internal_id
        document_id = Id(encode_id(of_table.number, identity), table)
        created = self._ids.creation_time(self.base_creation_time())
        self._write(of_table, identity, None, document_id, created, fields)
        return document_id

    def record(self, table: str, id: bytes, fields: dict[str, Any]) -> None:
        """Add a document of a system table, unread so far, under an id of the caller's.

        Shapes   fields: normal values, names in order and above `_id`; not checked again
        Cost     about a quarter of `insert`
        """
        of_table = self.catalog.tables[table]
        created = self._ids.creation_time(self.base_creation_time())
        document_id = encode_id(of_table.number, id)
        document = {"_creationTime": created, "_id": document_id, **fields}
        row = Row(id, id, 0, encode_normalized(document))
        keys = _keys(of_table, document, id)
        self.staging.put(StagedDocument(of_table, id, None, (), row, keys))

    def replace(
        self,
        table: str,
        id: bytes,
        fields: dict[str, Value],
        *,
        verb: str = "Replace",
    ) -> None:
        """Put a whole new document in place of a stored one; id and creation time stay.

        Raises   BadRequest[NonexistentDocument …] with `verb` in the text, and as `insert`
        """
        of_table, row, stored = self._target(table, id, verb)
        self._overwrite(of_table, row, stored, fields)

    def patch(self, table: str, id: bytes, changes: Mapping[str, Value | Unset]) -> None:
        """Change some top-level fields; UNSET removes one.

        Raises   BadRequest[NonexistentDocument …], and as `insert`
        """
        of_table, row, stored = self._target(table, id, "Update")
        fields = dict(stored)
        for name, value in changes.items():
            if isinstance(value, Unset):
                if name not in _SYSTEM_FIELDS:
                    fields.pop(name, None)
            else:
                fields[name] = value
        self._overwrite(of_table, row, stored, fields)

    def delete(self, table: str, id: bytes) -> None:
        """Remove a document.

        Raises   BadRequest[NonexistentDocument]
        """
        of_table, row, stored = self._target(table, id, "Delete")
        if not of_table.is_system:
            self._count_write(0)
        self._stage(of_table, id, row, stored, None, None)

    def create_table(self, name: str) -> Table:
        """Bring a table into being, with the one index every table has.

        Raises   BadRequest[InvalidTableName, TooManyTables]
        """
        self._check_new_table(name)
        number = self.catalog.free_table_number()
        index = RangeIndex(BY_CREATION_TIME, IndexId(self.catalog.next_index), (), IndexState.READY)
        document_id = self.insert(TABLES, table_document(name, number))
        self.insert(INDEXES, index_document(name, index))
        table = Table(name, number, (index,), None, document_id)
        self.catalog = self.catalog.with_table(table)
        return table

    def _check_new_table(self, name: str) -> None:
        try:
            check_identifier(name)
        except BadRequest as error:
            raise BadRequest(
                f"Invalid table name {name!r}: {error.message}", code="InvalidTableName"
            ) from error
        if name.startswith("_"):
            raise BadRequest(f"{name} is a reserved table name.", code="TableNameReserved")
        if len(self.catalog.tables) - len(SYSTEM_TABLES) >= self.limits.tables:
            raise BadRequest(
                f"Number of tables cannot exceed {self.limits.tables}.", code="TooManyTables"
            )

    def savepoint(self) -> Savepoint:
        """Where the writes stand now."""
        return Savepoint(
            self.staging.position,
            self.catalog,
            self.usage.written_documents,
            self.usage.written_bytes,
            self.usage.scheduled_functions,
            self.usage.scheduled_bytes,
        )

    def rollback(self, savepoint: Savepoint) -> None:
        """Undo the writes made since; what was read stays read."""
        self.staging.rollback(savepoint.position)
        self.catalog = savepoint.catalog
        self.usage.written_documents = savepoint.written_documents
        self.usage.written_bytes = savepoint.written_bytes
        self.usage.scheduled_functions = savepoint.scheduled_functions
        self.usage.scheduled_bytes = savepoint.scheduled_bytes

    def base_creation_time(self) -> float:
        """What a document inserted first would get: the later of the snapshot and the clock."""
        whole, rest = divmod(int(self.begin_ts), 1_000_000)
        return max(self.now_ms, whole + rest * 1e-6)

    def _target(self, table: str, id: bytes, verb: str) -> tuple[Table, Row, dict[str, Value]]:
        row = self.get(table, id)
        of_table = self.catalog.tables.get(table)
        if row is None or of_table is None:
            number = self.catalog.table_number(table)
            text = encode_id(number, id) if number is not None else ""
            raise BadRequest(
                f"{verb} on nonexistent document ID {text}", code="NonexistentDocument"
            )
        stored = loads(row.value)
        assert isinstance(stored, dict)
        return of_table, row, stored

    def _overwrite(
        self, table: Table, row: Row, stored: dict[str, Value], fields: dict[str, Value]
    ) -> None:
        document_id, created = stored["_id"], stored["_creationTime"]
        assert isinstance(document_id, str)
        assert isinstance(created, int | float)
        if fields.get("_id", document_id) != document_id:
            raise BadRequest(
                f"Provided document ID {render(document_id)} doesn't match '_id' field "
                f"{render(fields['_id'])}",
                code="InvalidIdError",
            )
        if fields.get("_creationTime", created) != created:
            raise BadRequest(
                f"Provided creation time {render(created)} doesn't match '_creationTime' field "
                f"in {render(fields)}",
                code="InvalidCreationTimeError",
            )
        own = {name: value for name, value in fields.items() if name not in _SYSTEM_FIELDS}
        self._write(table, row.id, (row, stored), Id(document_id, table.name), created, own)

    def _write(
        self,
        table: Table,
        id: bytes,
        stored: tuple[Row, dict[str, Value]] | None,
        document_id: Id,
        created: float,
        fields: dict[str, Value],
    ) -> None:
        # The encoder writes names in the order it finds them; stored documents have them sorted.
        document: dict[str, Value] = dict(
            sorted({**fields, "_id": document_id, "_creationTime": created}.items())
        )
        # Documents of ours hold the app's values deeper than the app's own may lie.
        is_system = table.is_system
        size = 0 if is_system else check_document(document, self.limits)
        encoded = encode_normalized(document)
        if stored is not None and encoded == stored[0].value:
            return  # nothing changes: no write, no schema check, nothing is touched
        if table.validator is not None:
            try:
                table.validator.check(fields, self)
            except BadRequest as error:
                raise BadRequest(
                    f'Failed to insert or update a document in table "{table.name}" because it '
                    f"does not match the schema: {error.message}",
                    code="SchemaEnforcementError",
                ) from error
        if not is_system:
            if size > self.limits.document_bytes:
                check_document_size(document, self.limits)  # raises, with the text
            self._count_write(size)
        row = Row(id, id, 0, encoded)
        if stored is None:
            self._stage(table, id, None, None, row, document)
        else:
            self._stage(table, id, stored[0], stored[1], row, document)

    def _stage(
        self,
        table: Table,
        id: bytes,
        current: Row | None,
        current_fields: Mapping[str, Value] | None,
        after_row: Row | None,
        after_fields: Mapping[str, Value] | None,
    ) -> None:
        staged = self.staging.get(table.name, id)
        if staged is not None:
            before, before_keys = staged.before, staged.before_keys
        elif current is None:
            before, before_keys = None, ()
        else:
            assert current_fields is not None
            before, before_keys = current, _keys(table, current_fields, id)
        after_keys = () if after_fields is None else _keys(table, after_fields, id)
        if not table.search_indexes:
            self.staging.put(StagedDocument(table, id, before, before_keys, after_row, after_keys))
            return
        if staged is not None:
            known, before_entries = staged.after_entries, staged.before_entries
        else:
            known = () if current_fields is None else _entries(table, current_fields)
            before_entries = known
        entries = (
            () if after_fields is None else _entries(table, after_fields, current_fields, known)
        )
        self.staging.put(
            StagedDocument(
                table, id, before, before_keys, after_row, after_keys, before_entries, entries
            )
        )

    def _count_write(self, size: int) -> None:
        usage, limits = self.usage, self.limits
        usage.written_documents += 1
        usage.written_bytes += size
        if usage.written_documents > limits.written_documents:
            raise BadRequest(
                "Too many writes in a single function execution "
                f"(limit: {limits.written_documents})",
                code="TooManyWrites",
            )
        if usage.written_bytes > limits.written_bytes:
            raise BadRequest(
                "Too many bytes written in a single function execution "
                f"(limit: {format_size(limits.written_bytes)})",
                code="TooManyBytesWritten",
            )


def _keys(table: Table, fields: Mapping[str, Value], id: bytes) -> tuple[bytes, ...]:
    created = fields["_creationTime"]
    suffix = encode_key(created) + id
    return tuple([encoder(fields) + suffix for _, encoder in table.encoders])


def _entries(
    table: Table,
    fields: Mapping[str, Value],
    known_fields: Mapping[str, Value] | None = None,
    known: tuple[SearchEntry | None, ...] = (),
) -> tuple[SearchEntry | None, ...]:
    """What a version is to the table's search indexes, given what another one is."""
    makers = table.entry_makers
    return tuple(
        [
            make(fields, known_fields, entry)
            for make, entry in zip(makers, known or repeat(None), strict=False)
        ]
    )


class Scan:
    """A walk through an interval of an index. What was returned is what counts as read."""

    __slots__ = (
        "_buffer",
        "_consumed",
        "_counts",
        "_descending",
        "_exhausted",
        "_index",
        "_limit",
        "_name",
        "_position",
        "_predicate",
        "_prefix_bytes",
        "_rest",
        "_table",
        "_transaction",
        "_whole",
    )

    def __init__(
        self,
        transaction: Transaction,
        table: Table | None,
        index: RangeIndex | None,
        name: IndexName,
        interval: Interval,
        *,
        prefix_bytes: int,
        descending: bool,
        predicate: Predicate | None,
    ) -> None:
        self._transaction = transaction
        self._table = table
        self._counts = table is not None and not table.is_system
        self._index = index
        self._name = name
        self._whole = interval
        self._prefix_bytes = prefix_bytes
        self._descending = descending
        self._predicate = predicate
        self._rest: Interval | None = interval  # not yet fetched; None: all was
        self._buffer: list[Row] = []
        self._position = 0
        self._limit = _FIRST_PAGE
        self._consumed: bytes | None = None  # key of the last row returned
        self._exhausted = False
        if table is None or interval.is_empty:
            self._rest = None

    def next(self) -> Row | None:
        """The next row, or None at the end of the interval.

        Raises   BadRequest[TooManyDocumentsRead, TooManyBytesRead]; OutOfRetention
        """
        while self._position >= len(self._buffer):
            if self._rest is None:
                if not self._exhausted:
                    self._exhausted = True
                    self.remember()
                return None
            self._fetch(self._limit)
            self._limit = min(self._limit * 4, _MAX_PAGE)
        row = self._buffer[self._position]
        self._position += 1
        self._consumed = row.key
        if self._counts:
            self._transaction._count_read(row)
        return row

    def take(self, count: int) -> list[Row]:
        """Up to `count` rows; fewer only at the end of the interval."""
        self._limit = max(1, min(count, _MAX_PAGE))
        rows: list[Row] = []
        while len(rows) < count:
            position = self._position
            found = self._buffer[position : position + count - len(rows)]
            if not found or not self._counted(found):
                row = self.next()  # which reads on, or finds that a limit is reached
                if row is None:
                    break
                rows.append(row)
                continue
            self._position = position + len(found)
            self._consumed = found[-1].key
            rows += found
        return rows

    def _counted(self, rows: list[Row]) -> bool:
        """Count rows as read together. False, and nothing counted, when they exceed a limit."""
        if not self._counts:
            return True
        usage, limits = self._transaction.usage, self._transaction.limits
        documents = usage.read_documents + len(rows)
        read_bytes = usage.read_bytes + sum([len(row.value) for row in rows])
        if documents > limits.read_documents or read_bytes > limits.read_bytes:
            return False
        usage.read_documents, usage.read_bytes = documents, read_bytes
        return True

    def remember(self) -> None:
        """Put what was consumed so far into the read set; the scan is closed when exhausted."""
        transaction = self._transaction
        if self._exhausted:
            transaction._open_scans.discard(self)
            consumed = self._whole
        elif self._consumed is None:
            return
        elif self._descending:
            consumed = Interval(self._consumed, self._whole.end)
        else:
            consumed = Interval(self._whole.start, after(self._consumed))
        transaction._reads.add(self._name, Read(consumed, self._prefix_bytes, self._predicate))

    def _fetch(self, limit: int) -> None:
        assert self._rest is not None
        assert self._table is not None
        rows, last = self._transaction._page(
            self._table,
            self._index,
            self._name,
            self._rest,
            descending=self._descending,
            limit=limit,
        )
        self._buffer, self._position = rows, 0
        if last is None:
            self._rest = None
        elif self._descending:
            self._rest = Interval(self._rest.start, last)
        else:
            self._rest = Interval(after(last), self._rest.end)
