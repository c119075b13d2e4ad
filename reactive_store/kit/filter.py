"""A query kept down by any Python condition, which may itself read from the database.

`ctx.db.query(…).filter(…)` takes an expression that the engine evaluates row by row. `filtered`
takes a function: it can look up other documents, call the app's code, do anything a query may do.

- The result is a query with everything a query has: index, order, further filters, `first`, `take`,
  `unique`, `paginate`, `async for`. Nothing is read before a result is asked for.
- Documents are read in order until enough have passed; each that was looked at counts as read, and
  a change of any of them makes a live query run again, as does a change of what the condition read.
- A page holds the documents of its range that pass, so it may be shorter than asked for, even
  empty, without being the last one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Literal, NoReturn, Self

from reactive_store import Document, Page, PaginationOpts, Query

__all__ = ["filtered", "nothing"]

Condition = Callable[[Document], bool | Awaitable[bool]]
"""Whether a document is kept. May be `async def`."""


def nothing(_document: Document, /) -> bool:
    """The condition that no document meets: a query filtered by it is empty and reads nothing."""
    return False


def filtered(query: Query, condition: Condition) -> Query:
    """The query without the documents for which the condition does not hold.

    Shapes   condition: `lambda doc: …`, or an `async def` that may read
    Cost     one call per document read
    """
    kept = _FilteredQuery.over(query)
    kept._inner = query
    kept._condition = condition
    return kept


class _FilteredQuery(Query):
    """Made by `filtered`. Steps go to the query inside; results are taken from it one by one."""

    __slots__ = ("_condition", "_inner")

    _inner: Query
    _condition: Condition

    # Steps.

    def with_index(self, name: str, range: Any = None, /, **equalities: object) -> Query:
        return filtered(self._inner.with_index(name, range, **equalities), self._condition)

    def with_search_index(self, name: str, build: Callable[[Any], object], /) -> Query:
        return filtered(self._inner.with_search_index(name, build), self._condition)

    def full_table_scan(self) -> Query:
        return filtered(self._inner.full_table_scan(), self._condition)

    def order(self, order: Literal["asc", "desc"], /) -> Query:
        return filtered(self._inner.order(order), self._condition)

    def filter(self, build: Callable[[Any], object], /) -> Query:
        return filtered(self._inner.filter(build), self._condition)

    # Results.

    async def collect(self) -> list[Document]:
        return await self._first(None)

    async def take(self, n: int, /) -> list[Document]:
        if type(n) is not int or n < 0:
            await self._inner.take(n)  # says why this is no number of documents, unless it is 2.0
        return await self._first(int(n))

    async def first(self) -> Document | None:
        found = await self._first(1)
        return found[0] if found else None

    async def unique(self) -> Document | None:
        found = await self._first(2)
        if len(found) > 1:
            raise LookupError(
                f"unique() of {self!r} found more than one document that passes the condition, "
                f"{found[0]['_id']} and {found[1]['_id']}: use first(), or make the condition "
                "stricter"
            )
        return found[0] if found else None

    async def paginate(self, options: PaginationOpts | Mapping[str, Any], /) -> Page:
        page = await self._inner.paginate(options)
        if self._condition is nothing:
            return dataclasses.replace(page, page=[], is_done=True)
        kept = [document for document in page.page if await _holds(self._condition, document)]
        return dataclasses.replace(page, page=kept)

    def __aiter__(self) -> AsyncIterator[Document]:
        return _Walk(self._inner, self._condition)

    def __await__(self) -> NoReturn:
        self._inner.__await__()

    def __repr__(self) -> str:
        return f"<filtered {self._inner!r}>"

    async def _first(self, count: int | None) -> list[Document]:
        found: list[Document] = []
        if count == 0 or self._condition is nothing:
            return found
        async for document in self._inner:
            if await _holds(self._condition, document):
                found.append(document)
                if len(found) == count:
                    break
        return found


class _Walk:
    """One `async for` over a filtered query."""

    __slots__ = ("_condition", "_documents")

    def __init__(self, query: Query, condition: Condition) -> None:
        self._documents = query.__aiter__()
        self._condition = condition

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Document:
        while self._condition is not nothing:
            document = await self._documents.__anext__()
            if await _holds(self._condition, document):
                return document
        raise StopAsyncIteration


async def _holds(condition: Condition, document: Document) -> bool:
    answer = condition(document)
    return bool(await answer if inspect.isawaitable(answer) else answer)
