"""`ctx.db.query(…)`: immutable descriptions of a query, and the ways to run one.

A `Query` is a value: each step returns a new one, running it changes nothing, so it can be kept,
branched and run again. Nothing is read before a result is asked for.

Filters apply to rows after the index found them; the rows they drop count as read for the limits,
but a commit invalidates the query only if a row it touches passes the filter.

Source of facts: docs/reference/queries.md; the texts are those of Convex's npm client 1.48.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NoReturn, Self

from reactive_store.engine.interval import EVERYTHING, Interval
from reactive_store.engine.range_index import BY_CREATION_TIME
from reactive_store.engine.reads import Predicate
from reactive_store.engine.search_scan import SearchScan
from reactive_store.engine.transaction import Scan
from reactive_store.errors import BadRequest
from reactive_store.functions.filters import (
    Expression,
    FilterBuilder,
    compile_predicate,
    filter_expression,
)
from reactive_store.functions.index_range import Bound, IndexRangeBuilder, compile_range
from reactive_store.functions.pagination import (
    BREATH_ROWS,
    Page,
    PageSource,
    PaginationOpts,
    ReadScope,
    fingerprint,
    parse_options,
    read_page,
)
from reactive_store.functions.search_query import (
    SearchFilter,
    SearchFilterBuilder,
    build_search,
    compile_search,
)
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.order import encode_key
from reactive_store.values.render import render
from reactive_store.values.value import UNSET, Unset, Value

__all__ = ["UNRUN_QUERY", "Query"]

UNRUN_QUERY: Final = (
    "Return value is a Query. Results must be retrieved with `.collect()`, `.take(n), "
    "`.unique()`, or `.first()`."
)
"""What a function that returns a query without running it is told."""


_Opened = tuple[Scan | SearchScan, Predicate | None]


class Query:
    """A query of one table: choose an index, an order, filters; then run it.

    Run it with `collect`, `take`, `first`, `unique`, `paginate` or `async for`. Documents come in
    the order of the index, ties by creation time, then id; without an index by creation time.
    """

    __slots__ = ("_bounds", "_descending", "_filters", "_index", "_scope", "_search", "_table")

    def __init__(
        self,
        scope: ReadScope,
        table: str,
        *,
        index: str | None = None,
        bounds: tuple[Bound, ...] | None = None,
        descending: bool | None = None,
        filters: tuple[tuple[Expression, Predicate], ...] = (),
        search: tuple[SearchFilter, ...] | None = None,
    ) -> None:
        self._scope = scope
        self._table = table
        self._index = index  # None: not chosen yet, which means by creation time
        self._bounds = bounds  # None: the whole table, which may not exist
        self._descending = descending  # None: not chosen yet, which means ascending
        self._filters = filters
        self._search = search  # None: no search, a walk through an index

    @classmethod
    def over(cls, query: Query, /) -> Self:
        """One of a derived class that belongs to the same call as `query`.

        A class derived from this one may change what its methods do; `over` is how one is made. It
        usually keeps `query` and passes on to it.
        """
        layer = cls.__new__(cls)
        for name in Query.__slots__:
            setattr(layer, name, getattr(query, name))
        return layer

    # Steps.

    def with_index(
        self,
        name: str,
        range: Callable[[IndexRangeBuilder], IndexRangeBuilder] | None = None,
        /,
        **equalities: object,
    ) -> Query:
        """Read an index, or a range of it.

        Shapes   equalities: values of the index's first fields, named as they are stored;
                 range: `lambda r: r.eq("a", 1).gt("b", 2)`, which may name nested fields ("a.b")
        Raises   BadRequest when the index or its range cannot be read, once the query runs
        """
        self._check_first("with_index")
        builder = IndexRangeBuilder.of_equalities(equalities)
        if range is not None:
            if not callable(range):
                raise TypeError(
                    f"a range is a function such as lambda r: r.eq(…), not {range!r}; plain "
                    "equalities are keywords: with_index(name, field=value)"
                )
            built = range(builder)
            if not isinstance(built, IndexRangeBuilder):
                raise TypeError(
                    f"the function given to with_index returned {built!r}; it must return the "
                    "chain it builds, as in lambda r: r.eq(…).gt(…)"
                )
            builder = built
        return self._step(index=name, bounds=builder.finish())

    def with_search_index(
        self, name: str, build: Callable[[SearchFilterBuilder], object], /
    ) -> Query:
        """Search a text: documents with any of its words, the best first.

        Shapes   `lambda s: s.search("body", text).eq("channel", channel)`
        Raises   BadRequest when the index cannot be asked that, once the query runs
        """
        self._check_first("with_search_index")
        return self._step(index=name, search=build_search(build))

    def full_table_scan(self) -> Query:
        """Read the whole table by creation time, and say so."""
        self._check_first("full_table_scan")
        return self._step(index=BY_CREATION_TIME)

    def order(self, order: Literal["asc", "desc"], /) -> Query:
        """Choose the direction, ties included. Ascending unless told.

        Raises   BadRequest when it was chosen before or is neither of the two
        """
        if self._search is not None:
            raise _misuse(
                "Search queries must always be in relevance order. Can not set order manually."
            )
        if self._descending is not None:
            raise _misuse("Queries may only specify order at most once")
        if order not in ("asc", "desc"):
            raise _misuse(f'order takes "asc" or "desc", not {order!r}')
        return self._step(descending=order == "desc")

    def filter(self, build: Callable[[FilterBuilder], object], /) -> Query:
        """Keep the documents for which the condition holds. Several filters apply in order.

        Shapes   `lambda f: f.eq(f.field("role"), "user")`, or `lambda f: f.field("score") > 3`
        Raises   BadRequest beyond 256 filters; BadRequest[EvalError] when run on types that do
                 not fit
        """
        self._check_operators(1)
        expression = filter_expression(build)
        return self._step(filters=(*self._filters, (expression, compile_predicate(expression))))

    # Results.

    async def collect(self) -> list[Document]:
        """Every document.

        Cost     all rows of the range, which counts against the limits of a transaction
        """
        return await self._read(None)

    async def take(self, n: int, /) -> list[Document]:
        """The first `n` documents, or fewer when there are no more.

        Cost     the rows up to the last one returned
        """
        count = _count(n)
        self._check_operators(1)
        return await self._read(count)

    async def first(self) -> Document | None:
        """The first document, or None."""
        self._check_operators(1)
        found = await self._read(1)
        return found[0] if found else None

    async def unique(self) -> Document | None:
        """The only document, or None.

        Raises   BadRequest[NotUnique] when there are several
        """
        self._check_operators(1)
        found = await self._read(2)
        if len(found) > 1:
            ids = ", ".join(document["_id"] for document in found)
            raise BadRequest(
                f"unique() query returned more than one result from table {self._table}:\n "
                f"[{ids}, ...]",
                code="NotUnique",
            )
        return found[0] if found else None

    async def paginate(self, options: PaginationOpts | Mapping[str, Any], /) -> Page:
        """One page, as the client asked for it. One per function call.

        Raises   BadRequest[InvalidCursor …] as `parse_options` and `read_page`
        """
        request = parse_options(options, self._scope.tx.limits)
        if self._search is not None:
            return await read_page(self._scope, await self._search_source(self._search), request)
        return await read_page(self._scope, self._page_source(), request)

    def __aiter__(self) -> AsyncIterator[Document]:
        """The documents one by one. What was not asked for does not count as read."""
        if self._search is not None:
            return _Walk(self._scope, self._table, None, self._predicate(), self._open_any)
        scan, predicate = self._open()
        return _Walk(self._scope, self._table, scan, predicate)

    def __await__(self) -> NoReturn:
        raise _misuse(
            "A query cannot be awaited. Results must be retrieved with `.collect()`, `.take(n)`, "
            "`.first()`, `.unique()`, `.paginate(…)` or `async for`."
        )

    def __repr__(self) -> str:
        index = "" if self._index is None else f" by {self._index}"
        return f"<Query of {self._table}{index}, not run>"

    # How it runs.

    def _step(
        self,
        *,
        index: str | None = None,
        bounds: tuple[Bound, ...] | None = None,
        descending: bool | None = None,
        filters: tuple[tuple[Expression, Predicate], ...] = (),
        search: tuple[SearchFilter, ...] | None = None,
    ) -> Query:
        return Query(
            self._scope,
            self._table,
            index=self._index if index is None else index,
            bounds=self._bounds if bounds is None else bounds,
            descending=self._descending if descending is None else descending,
            filters=filters or self._filters,
            search=self._search if search is None else search,
        )

    def _check_first(self, step: str) -> None:
        if self._index is not None or self._descending is not None or self._filters:
            raise _misuse(f"{step} must be the first step of a query, and the only one of its kind")

    def _check_operators(self, added: int) -> None:
        most = self._scope.tx.limits.query_operators
        if len(self._filters) + added > most:
            raise _misuse(f"Can't construct query with more than {most} operators")

    def _range(self) -> tuple[str, Interval, int]:
        if self._index is None or self._bounds is None:
            return BY_CREATION_TIME, EVERYTHING, 0
        declared = self._scope.tx.index_fields(self._table, self._index)
        interval, prefix_bytes = compile_range(
            self._table, self._index, declared, self._bounds, self._id_bytes
        )
        return self._index, interval, prefix_bytes

    def _id_bytes(self, value: Value | Unset) -> bytes:
        if isinstance(value, str):
            decoded = decode_id(value)
            if self._scope.tx.table_name(decoded.table_number) == self._table:
                return decoded.internal_id
        raise BadRequest(
            f'A range on "_id" takes an id of {self._table}, not {render(value)}',
            code="InvalidId",
        )

    def _predicate(self) -> Predicate | None:
        if not self._filters:
            return None
        if len(self._filters) == 1:
            return self._filters[0][1]
        predicates = tuple(predicate for _, predicate in self._filters)
        return lambda document: all(predicate(document) for predicate in predicates)

    def _open(self) -> tuple[Scan, Predicate | None]:
        index, interval, prefix_bytes = self._range()
        predicate = self._predicate()
        scan = self._scope.tx.scan(
            self._table,
            index,
            interval,
            prefix_bytes=prefix_bytes,
            descending=self._descending is True,
            predicate=predicate,
        )
        return scan, predicate

    def _page_source(self) -> PageSource:
        index, interval, prefix_bytes = self._range()
        tx, table, descending = self._scope.tx, self._table, self._descending is True
        declared = () if self._bounds is None else tx.index_fields(table, index)
        end = b"" if interval.end is None else b"<" + interval.end
        shape = {
            "table": table,
            "index": index,
            "fields": declared,
            "descending": descending,
            "filters": [expression.to_json() for expression, _ in self._filters],
        }

        def open_range(part: Interval) -> Scan:
            return tx.scan(table, index, part, prefix_bytes=prefix_bytes, descending=descending)

        return PageSource(
            table,
            interval,
            descending,
            self._predicate(),
            fingerprint((json.dumps(shape, sort_keys=True).encode(), interval.start, end)),
            open_range,
        )

    async def _open_any(self, limit: int | None = None) -> _Opened:
        if self._search is None:
            return self._open()
        source = await self._search_source(self._search, None if self._filters else limit)
        return source.open(EVERYTHING), source.predicate

    async def _search_source(
        self, search: tuple[SearchFilter, ...], most: int | None = None
    ) -> PageSource:
        # `most`: the caller will not ask for more documents.
        tx, table, index = self._scope.tx, self._table, self._index
        assert index is not None
        definition = tx.catalog.search_index_for_query(table, index)
        question = compile_search(table, definition, search, tx.limits)
        waiting = tx.wait_for_search(table, index)
        if waiting is not None:
            await waiting
        shape = {
            "table": table,
            "index": index,
            "fields": definition.content,
            "search": [
                [is_search, field, None if value is UNSET else encode_key(value).hex()]
                for is_search, field, value in search
            ],
            "filters": [expression.to_json() for expression, _ in self._filters],
        }

        def open_range(part: Interval) -> Scan | SearchScan:
            if question is None:
                return SearchScan.empty()
            if most is not None:
                wanted = question._replace(most=min(max(1, most), question.most))
                return tx.search(table, index, wanted, part)
            return tx.search(table, index, question, part)

        return PageSource(
            table,
            EVERYTHING,
            False,
            self._predicate(),
            fingerprint((json.dumps(shape, sort_keys=True).encode(),)),
            open_range,
            is_ranked=True,
        )

    async def _read(self, limit: int | None) -> list[Document]:
        scan, predicate = self._open() if self._search is None else await self._open_any(limit)
        table, pause = self._table, self._scope.pause
        documents: list[Document] = []
        if predicate is not None:
            rows_read = 0
            while len(documents) != limit:
                row = scan.next()
                if row is None:
                    break
                document = Document(row.value, table)
                if predicate(document):
                    documents.append(document)
                rows_read += 1
                if rows_read % BREATH_ROWS == 0:
                    await pause()
            return documents
        while True:
            wanted = BREATH_ROWS if limit is None else min(BREATH_ROWS, limit - len(documents))
            rows = scan.take(wanted)
            documents += [Document(row.value, table) for row in rows]
            if len(rows) < BREATH_ROWS:
                return documents
            await pause()


class _Walk:
    """One `async for` over a query."""

    __slots__ = ("_open", "_predicate", "_rows_read", "_scan", "_scope", "_table")

    def __init__(
        self,
        scope: ReadScope,
        table: str,
        scan: Scan | SearchScan | None,
        predicate: Predicate | None,
        open_scan: Callable[[], Awaitable[_Opened]] | None = None,
    ) -> None:
        self._open = open_scan  # for a scan that may have to be waited for; else None
        self._scope = scope
        self._table = table
        self._scan = scan
        self._predicate = predicate
        self._rows_read = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Document:
        scan = self._scan
        if scan is None:
            assert self._open is not None
            scan = self._scan = (await self._open())[0]
        while True:
            row = scan.next()
            if row is None:
                raise StopAsyncIteration
            self._rows_read += 1
            if self._rows_read % BREATH_ROWS == 0:
                await self._scope.pause()
            document = Document(row.value, self._table)
            if self._predicate is None or self._predicate(document):
                return document


def _misuse(message: str) -> BadRequest:
    return BadRequest(message, code="InvalidQuery")


def _count(n: Any) -> int:
    is_number = isinstance(n, int | float) and not isinstance(n, bool)
    if is_number and n >= 0 and n == n // 1:
        return int(n)
    raise _misuse("Arg 1 `n` to `take` must be a non-negative integer")
