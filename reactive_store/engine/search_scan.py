"""One search of one transaction: what it asks, what answers it, and the walk through the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, Self

from reactive_store.engine.interval import EVERYTHING, Interval
from reactive_store.engine.reads import Predicate, Read
from reactive_store.engine.search_ranking import rank_key
from reactive_store.engine.search_terms import QueryTerms
from reactive_store.engine.staging import Staging
from reactive_store.engine.text_index import Match
from reactive_store.errors import BadRequest
from reactive_store.persistence.contract import Row
from reactive_store.schema.tables import SearchIndexDefinition

__all__ = ["SearchFound", "SearchQuestion", "SearchScan", "Searches"]


class SearchQuestion(NamedTuple):
    """A search, its words and filters checked against the index."""

    query: QueryTerms
    filters: dict[int, bytes]  # by position among the filter fields: the encoded value demanded
    predicate: Predicate | None  # the same condition on a document
    most: int  # documents
    expansions: int  # words a prefix may stand for


class SearchFound(NamedTuple):
    """The answer, and what was read to give it."""

    matches: list[Match]  # best first
    reads: list[Read]


class Searches(Protocol):
    """The search indexes, as a transaction sees them; `engine.search_indexes` has them."""

    def wait_ready(self, table: str, definition: SearchIndexDefinition) -> Awaitable[None] | None:
        """What a search has to wait for beforehand; None: nothing."""
        ...

    def search(
        self,
        table: str,
        definition: SearchIndexDefinition,
        question: SearchQuestion,
        at: int,
        staging: Staging,
    ) -> SearchFound:
        """The best documents in the state at `at` with the writes staged over it."""
        ...


class SearchScan:
    """A walk through what a search found, best first; the keys of its rows are those of ranks.

    Only what lies in the interval is walked through, but every document before it counts towards
    how many a search may read.
    """

    __slots__ = ("_end", "_fetch", "_matches", "_most", "_position", "_start")

    def __init__(
        self,
        matches: list[Match],
        most: int,
        fetch: Callable[[bytes], Row],
        interval: Interval,
    ) -> None:
        self._matches = matches
        self._most = most
        self._fetch = fetch  # a document's version in the transaction, counted as read
        self._start, self._end = interval
        self._position = 0

    @classmethod
    def empty(cls) -> Self:
        """The walk through the answer to no words."""

        def fetch(id: bytes) -> Row:
            raise AssertionError(f"nothing was found, yet {id!r} is read")

        return cls([], 0, fetch, EVERYTHING)

    def next(self) -> Row | None:
        """The next row, or None at the end of the interval.

        Raises   BadRequest[SearchQueryScannedTooManyDocumentsError]; as `Scan.next`
        """
        while self._position < len(self._matches):
            if self._position >= self._most:
                raise BadRequest(
                    f"Search query scanned too many documents (fetched {self._most}). Consider "
                    "using a smaller limit, paginating the query, or using a filter field to "
                    "limit the number of documents pulled from the search index.",
                    code="SearchQueryScannedTooManyDocumentsError",
                )
            match = self._matches[self._position]
            key = rank_key(*match)
            if self._end is not None and key >= self._end:
                return None
            self._position += 1
            if key < self._start:
                continue
            row = self._fetch(match.id)
            return Row(key, row.id, row.ts, row.value)
        return None

    def take(self, count: int) -> list[Row]:
        """Up to `count` rows; fewer only at the end of the interval."""
        rows: list[Row] = []
        while len(rows) < count and (row := self.next()) is not None:
            rows.append(row)
        return rows
