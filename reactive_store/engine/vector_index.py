"""Vector indexes of a deployment: built from what is stored, then following every durable commit.

    prepare    a push builds what its schema needs before it is in force
    declare    the schema in force says which exist; new ones begin to build in the background
    follow     a commit only notes which documents it changed; the index's own task reads them
    search     waits until everything noted so far is in the matrix, then shares a scan with the
               other searches that wait

One task per index does all work on its matrix, so a scan in another thread sees a state that
stands still, and a search sees all that was committed when it was asked for. Nothing is kept on
disk: a restart builds anew, and the first searches wait for that.

A document is in an index when its field is an array of exactly as many numbers as declared, all of
them finite; others are passed over.

Source: docs/decisions/0016-vector-search.md; what Convex's open server puts into a vector index.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from reactive_store.engine.committer import Committer
from reactive_store.engine.range_index import FieldPath, parse_field_path
from reactive_store.engine.reads import CommitChanges
from reactive_store.engine.snapshot import Horizon, Snapshot
from reactive_store.engine.vector_matrix import Found, Vector, VectorMatrix, VectorQuery, unit
from reactive_store.errors import BadRequest, Retry
from reactive_store.persistence.contract import Persistence
from reactive_store.runtime import Runtime
from reactive_store.schema.tables import Schema, VectorIndexDefinition
from reactive_store.values.order import encode_key, field_value
from reactive_store.values.value import UNSET
from reactive_store.values.wire import from_json, parse_stored

__all__ = ["VectorIndex", "VectorIndexState", "VectorIndexes", "VectorReader"]

_LOG = logging.getLogger(__name__)

_SLICE_NUMBERS: Final = 40_000
"""So many numbers of vectors are read from documents before others run: about 2 ms."""

_INLINE_NUMBERS: Final = 500_000
"""A matrix up to this size is scanned at once (0.1 ms), a larger one in another thread."""

_SHARED_SCAN: Final = 16  # searches that use one pass over the matrix
_PROGRESS_SECONDS: Final = 5.0
_LARGEST_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class VectorIndexState:
    """How far one index is, and what it holds."""

    table: str
    name: str
    documents: int
    matrix_bytes: int
    is_built: bool


class VectorReader:
    """From a stored document to its vector and filter values."""

    __slots__ = ("_dimensions", "_filters", "_path")

    def __init__(self, definition: VectorIndexDefinition) -> None:
        self._dimensions = definition.dimensions
        self._path = parse_field_path(definition.vector_field)
        self._filters = tuple(parse_field_path(path) for path in definition.filter_fields)

    def read(self, document: bytes) -> tuple[Vector, tuple[bytes, ...]] | None:
        """A vector of length one with the keys of the filter values; None: not in this index.

        Cost     25 µs for 384 dimensions, 70 µs for 1536; nearly all of it is the parsing
        """
        fields = parse_stored(document)
        numbers = field_value(fields, self._path)
        if type(numbers) is not list or len(numbers) != self._dimensions:
            return None
        vector = _to_vector(numbers, may_hold_booleans=b"true" in document or b"false" in document)
        if vector is None:
            return None
        return vector, tuple(_filter_key(fields, path) for path in self._filters)


def _to_vector(numbers: list[Any], *, may_hold_booleans: bool) -> Vector | None:
    if may_hold_booleans and bool in map(type, numbers):
        return None  # they would pass for 0 and 1
    try:
        packed = array("d", numbers)
    except TypeError:
        # Something else than a number, or a number that JSON has no form for, such as -0.
        decoded = [from_json(number) for number in numbers]
        if not {type(number) for number in decoded} <= {int, float}:
            return None
        packed = array("d", decoded)
    return unit(np.frombuffer(packed, np.float64))


def _filter_key(fields: Mapping[str, Any], path: FieldPath) -> bytes:
    found = field_value(fields, path)
    return encode_key(UNSET if found is UNSET else from_json(found))


class _Waiting(NamedTuple):
    """A search that has not been answered."""

    query: VectorQuery
    answer: asyncio.Future[list[Found]]


class VectorIndex:
    """One vector index. Its task begins with `start` and ends with `stop`."""

    def __init__(
        self,
        table: str,
        definition: VectorIndexDefinition,
        committer: Committer,
        persistence: Persistence,
        runtime: Runtime,
    ) -> None:
        self.table = table
        self.definition = definition
        self._committer = committer
        self._persistence = persistence
        self._runtime = runtime
        self._reader = VectorReader(definition)
        self._slice = max(1, _SLICE_NUMBERS // definition.dimensions)
        self._matrix = self._empty()
        # Changed documents that are not in the matrix yet; None for deleted ones.
        self._changed: dict[bytes, bytes | None] = {}
        self._waiting: list[_Waiting] = []
        # Set when there are changes or searches.
        self._wake = asyncio.Event()
        # Set once what was stored at the start is in the matrix, or will never be.
        self._built = asyncio.Event()
        # Why the task has ended; None while it runs. The next search begins anew.
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> VectorIndexState:
        """How far it is, and what it holds."""
        matrix = self._matrix
        return VectorIndexState(
            self.table,
            self.definition.name,
            len(matrix),
            matrix.matrix_bytes,
            self._built.is_set() and self._failure is None,
        )

    def start(self) -> None:
        """Begin to build, and to follow."""
        name = f"vector index {self.table}.{self.definition.name}"
        self._task = self._runtime.spawn(self._run(), name=name)

    async def stop(self) -> None:
        """End; searches that wait are refused."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._fail(Retry("The vector index is closing.", code="Closing"))

    def note(self, id: bytes, document: bytes | None) -> None:
        """A durable commit has written, or (None) deleted, a document. Called inside publish."""
        if self._failure is None:
            self._changed[id] = document
            self._wake.set()

    async def wait_built(self) -> None:
        """Return once everything that was stored at the start is in the index.

        Raises   what reading the store raised; Retry when the index stops
        """
        await self._built.wait()
        if self._failure is not None:
            raise self._failure

    async def search(self, query: VectorQuery) -> list[Found]:
        """The best documents by falling score, then by falling id, of all committed by now.

        Raises   Retry when the index stops; what reading the store raises while it is built
        """
        if self._failure is not None:
            self._restart()
        answer: asyncio.Future[list[Found]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(query, answer))
        self._wake.set()
        return await answer

    def _empty(self) -> VectorMatrix:
        return VectorMatrix(self.definition.dimensions, len(self.definition.filter_fields))

    def _restart(self) -> None:
        """Begin anew after a failure: nobody knows what the matrix holds."""
        self._matrix = self._empty()
        self._changed = {}
        self._failure = None
        self._built.clear()
        self.start()

    async def _run(self) -> None:
        try:
            await self._build()
            while True:
                await self._wake.wait()
                self._wake.clear()
                # Whoever waits now sees what is noted now; what comes meanwhile is for the next.
                waiting, self._waiting = self._waiting, []
                try:
                    await self._catch_up()
                    await self._answer(waiting)
                except BaseException:
                    self._waiting = waiting + self._waiting
                    raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            _LOG.exception("vector index failed %s.%s", self.table, self.definition.name)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._built.set()
        self._changed = {}
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(error)

    async def _build(self) -> None:
        """Read what is stored. Each page is of the newest durable state, so later notes win."""
        table = self._committer.durable_catalog.tables.get(self.table)
        began = told = self._runtime.monotonic_s()
        start: bytes | None = b"" if table is not None else None
        while start is not None:
            assert table is not None
            snapshot = Snapshot(self._persistence, None, self._committer.durable_ts, Horizon())
            limit = min(self._slice, _LARGEST_PAGE)
            rows, last = snapshot.page(table, None, start, None, descending=False, limit=limit)
            for row in rows:
                self._put(row.id, row.value)
            await self._runtime.sleep(0)
            await self._catch_up()
            start = None if last is None else last + b"\x00"
            now = self._runtime.monotonic_s()
            if now - told >= _PROGRESS_SECONDS:
                told = now
                self._tell("building", now - began)
        self._built.set()
        if len(self._matrix):
            self._tell("built", self._runtime.monotonic_s() - began)

    def _tell(self, what: str, seconds: float) -> None:
        _LOG.info(
            "vector index %s table=%s index=%s documents=%d megabytes=%.1f seconds=%.1f",
            what,
            self.table,
            self.definition.name,
            len(self._matrix),
            self._matrix.matrix_bytes / 1e6,
            seconds,
        )

    async def _catch_up(self) -> None:
        """Bring what is noted by now into the matrix."""
        changed, self._changed = self._changed, {}
        for number, (id, document) in enumerate(changed.items(), 1):  # noqa: A001
            self._put(id, document)
            if number % self._slice == 0:
                await self._runtime.sleep(0)

    def _put(self, id: bytes, document: bytes | None) -> None:
        entry = None if document is None else self._reader.read(document)
        if entry is None:
            self._matrix.remove(id)
        else:
            self._matrix.put(id, *entry)

    async def _answer(self, waiting: list[_Waiting]) -> None:
        matrix = self._matrix
        while waiting:
            together = waiting[:_SHARED_SCAN]
            queries = [query for query, _ in together]
            if len(matrix) * matrix.dimensions * len(queries) <= _INLINE_NUMBERS:
                found = matrix.search(queries)
            else:
                found = await asyncio.to_thread(matrix.search, queries)
            for (_, answer), documents in zip(together, found, strict=True):
                if not answer.done():  # else whoever asked has left
                    answer.set_result(documents)
            del waiting[:_SHARED_SCAN]


class VectorIndexes:
    """Every vector index of a deployment, as the schema in force declares them."""

    def __init__(self, committer: Committer, persistence: Persistence, runtime: Runtime) -> None:
        self._committer = committer
        self._persistence = persistence
        self._runtime = runtime
        self._by_table: _Indexes = {}
        # Built ahead by `prepare`, for the next `declare`.
        self._prepared: _Indexes = {}

    async def prepare(self, schema: Schema) -> None:
        """Build what the schema needs besides; until `declare` nobody sees a difference.

        Cost     nothing for an index whose definition stays; reads the table of one that is new
        Raises   what reading the store raises
        """
        old, self._prepared = self._prepared, {}
        for table, definition in _definitions(schema):
            if _matching(self._by_table, table, definition) is None:
                index = self._found_or_new(old, table, definition)
                self._prepared.setdefault(table, {})[definition.name] = index
        self._follow_if_needed()
        await _stop_others(old, self._prepared)
        for index in list(_each_of(self._prepared)):
            await index.wait_built()

    async def declare(self, schema: Schema) -> None:
        """Have exactly the indexes of the schema. New ones build in the background.

        Cost     nothing for an index whose definition stays; no wait for those that are new
        """
        old, prepared = self._by_table, self._prepared
        self._by_table, self._prepared = {}, {}
        for table, definition in _definitions(schema):
            index = _matching(old, table, definition)
            if index is None:
                index = self._found_or_new(prepared, table, definition)
            index.definition = definition  # it may be staged no more
            self._by_table.setdefault(table, {})[definition.name] = index
        self._follow_if_needed()
        await _stop_others(old, self._by_table)
        await _stop_others(prepared, self._by_table)

    async def wait_built(self) -> None:
        """Return once every declared index is complete."""
        for index in list(_each_of(self._by_table)):
            await index.wait_built()

    async def close(self) -> None:
        """Stop all of them. Idempotent."""
        closing = self._by_table, self._prepared
        self._by_table, self._prepared = {}, {}
        self._follow_if_needed()
        for indexes in closing:
            await _stop_others(indexes, {})

    def follow(self, commit: CommitChanges) -> None:
        """Note what a durable commit has changed. Called inside publish."""
        for change in commit.documents:
            for indexes in (self._by_table, self._prepared):
                for index in indexes.get(change.table, _NONE).values():
                    index.note(change.id, None if change.new is None else change.new.value)

    def find(self, table: str, name: str) -> VectorIndex | None:
        """The index to search; None when there is no such table.

        Raises   BadRequest[IndexNotFoundError, IndexStagedError]
        """
        index = self._by_table.get(table, _NONE).get(name)
        if index is None:
            if table not in self._committer.durable_catalog.tables:
                return None
            raise BadRequest(f"Index {table}.{name} not found.", code="IndexNotFoundError")
        if index.definition.staged:
            raise BadRequest(
                f"Index {table}.{name} is currently staged and not available to query until it is "
                "enabled.",
                code="IndexStagedError",
            )
        return index

    def states(self) -> list[VectorIndexState]:
        """How far each index is, and what it holds."""
        return [index.state for index in _each_of(self._by_table)]

    def _follow_if_needed(self) -> None:
        followers = self._committer.followers
        is_needed = bool(self._by_table or self._prepared)
        if is_needed and self.follow not in followers:
            followers.append(self.follow)
        elif not is_needed and self.follow in followers:
            followers.remove(self.follow)

    def _found_or_new(
        self, indexes: _Indexes, table: str, definition: VectorIndexDefinition
    ) -> VectorIndex:
        found = _matching(indexes, table, definition)
        if found is not None:
            return found
        index = VectorIndex(table, definition, self._committer, self._persistence, self._runtime)
        index.start()
        return index


_Indexes = dict[str, dict[str, VectorIndex]]
_NONE: Final[Mapping[str, VectorIndex]] = {}


def _definitions(schema: Schema) -> Iterator[tuple[str, VectorIndexDefinition]]:
    for name, table in schema.tables.items():
        for definition in table.vector_indexes.values():
            yield name, definition


def _matching(
    indexes: _Indexes, table: str, definition: VectorIndexDefinition
) -> VectorIndex | None:
    """The index that holds what the definition says, under its name."""
    index = indexes.get(table, _NONE).get(definition.name)
    if index is None or _holds(index.definition) != _holds(definition):
        return None
    return index


def _holds(definition: VectorIndexDefinition) -> tuple[Any, ...]:
    return definition.vector_field, definition.dimensions, tuple(definition.filter_fields)


def _each_of(indexes: _Indexes) -> Iterator[VectorIndex]:
    for of_table in indexes.values():
        yield from of_table.values()


async def _stop_others(indexes: _Indexes, kept: _Indexes) -> None:
    """Stop those that are not kept."""
    staying = set(map(id, _each_of(kept)))
    for index in list(_each_of(indexes)):
        if id(index) not in staying:
            await index.stop()
