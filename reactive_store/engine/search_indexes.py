"""Search indexes of a deployment: built from what is stored, then following every durable commit.

    build     page by page while writes continue; the loop runs in between
    follow    inside publish: the index is at the newest durable commit whenever anybody looks
    mark      inside accept: the commit names the rounded statistics it moves (`search_ranking`)
    search    the index, overlaid with what is different in the searcher's state

Nothing is kept on disk: a restart builds anew in the background, and the first search waits for it.
A schema change builds new indexes before it takes effect.

Source: docs/decisions/0015-text-search.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from reactive_store.engine.backfill import table_pages
from reactive_store.engine.catalog import Table
from reactive_store.engine.committer import Committer
from reactive_store.engine.interval import Interval, after, prefix_interval
from reactive_store.engine.reads import (
    CommitChanges,
    DocumentChange,
    IndexName,
    Read,
    SearchChange,
)
from reactive_store.engine.search_ranking import SIZES_KEY, Sizes, count_key, passes_mark
from reactive_store.engine.search_scan import SearchFound, SearchQuestion
from reactive_store.engine.search_terms import SearchEntry, Term, entry_maker
from reactive_store.engine.staging import Staging
from reactive_store.engine.text_index import Overlay, TextIndex
from reactive_store.errors import OutOfRetention, Retry
from reactive_store.persistence.contract import Persistence
from reactive_store.runtime import Runtime
from reactive_store.schema.tables import SearchIndexDefinition
from reactive_store.values.wire import loads

__all__ = ["SearchIndexState", "SearchIndexes"]

_LOG = logging.getLogger(__name__)

_SLICE_SECONDS: Final = 0.004
"""How long a build works before others run."""
_SLICE_DOCUMENTS: Final = 32
_PROGRESS_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class SearchIndexState:
    """How far one index is, and what it holds."""

    table: str
    name: str
    documents: int
    terms: int
    is_built: bool


class _Followed:
    """One index and how it stands to the commits."""

    def __init__(self, index_name: IndexName, definition: SearchIndexDefinition) -> None:
        self.index_name = index_name
        self.definition = definition
        self.fields = definition.content
        self.make = entry_maker(definition)
        self.index = TextIndex(len(definition.filter_fields))
        # While it is built: documents that commits have changed, which the build passes over.
        self.changed: set[bytes] | None = set()
        # Set, and replaced, now and then during the build and when it ends.
        self.news = asyncio.Event()
        self.failure: Exception | None = None
        self.task: asyncio.Task[None] | None = None
        # What accepted commits add that are not durable yet: documents and words, and documents
        # that have a word.
        self.ahead = Sizes(0, 0)
        self.ahead_having: dict[Term, int] = {}
        # From this durable timestamp on, index and `ahead` together are the accepted state.
        self.exact_from: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it holds all there is."""
        return self.changed is None

    def tell(self) -> None:
        """Wake who waits for the build."""
        self.news.set()
        self.news = asyncio.Event()

    def find(self, change: DocumentChange) -> SearchChange | None:
        """The part of a change that is about this index; None when the writer did not know it."""
        for search in change.searches:
            if search.index_name == self.index_name and search.fields == self.fields:
                return search
        return None

    def entries(self, change: DocumentChange) -> tuple[SearchEntry | None, SearchEntry | None]:
        """The document before and after, as this index sees it."""
        found = self.find(change)
        if found is not None:
            return found.old, found.new
        old = new = None
        if change.old is not None:
            old = self.make(_fields(change.old.value), None, None)
        if change.new is not None:
            new = self.make(_fields(change.new.value), None, None)
        return old, new

    def follow(self, change: DocumentChange) -> None:
        """Apply a change that is durable from now on."""
        old, new = self.entries(change)
        found = self.find(change)
        if found is not None and found.marked_by is self:
            self._count(new, old)  # no longer ahead
        index, id = self.index, change.id  # noqa: A001
        if self.changed is not None:
            self.changed.add(id)
            if id not in index:
                old = None  # the build would have brought it
        if old is None:
            if new is not None:
                index.put(id, new)
        elif new is None:
            index.remove(id, old)
        elif new is not old:
            index.replace(id, old, new)

    def mark(self, change: SearchChange, committer: Committer) -> None:
        """Name the statistics that an accepted change moves past a mark."""
        old, new = change.old, change.new
        if old is new:
            return
        change.marked_by = self
        if not self._is_exact(committer):
            change.moved = list(_all_marks(old, new))
            self._count(old, new)
            return
        sizes = self._sizes().rounded()
        having, ahead = self.index.having, self.ahead_having
        moved = change.moved = []
        # A count that is left or reached by one step passes a mark with the larger of the two.
        for term in _terms_of(old, without=new):
            count = ahead.get(term, 0)
            if passes_mark(having(term) + count):
                moved.append(count_key(term))
            ahead[term] = count - 1
        for term in _terms_of(new, without=old):
            count = ahead.get(term, 0) + 1
            if passes_mark(having(term) + count):
                moved.append(count_key(term))
            ahead[term] = count
        self._count_sizes(old, new)
        if self._sizes().rounded() != sizes:
            moved.append(SIZES_KEY)

    def _is_exact(self, committer: Committer) -> bool:
        if self.changed is not None:
            return False
        if self.exact_from is None:
            # What was accepted by now, in part before this index was in force, is still to come.
            self.exact_from = committer.accepted_ts
        return committer.durable_ts >= self.exact_from

    def _sizes(self) -> Sizes:
        index, ahead = self.index, self.ahead
        return Sizes(index.documents + ahead.documents, index.words + ahead.words)

    def _count(self, gone: SearchEntry | None, come: SearchEntry | None) -> None:
        """One version less and one more in what is ahead."""
        if gone is come:
            return
        self._count_sizes(gone, come)
        having = self.ahead_having
        for entry, other, step in ((gone, come, -1), (come, gone, 1)):
            for term in _terms_of(entry, without=other):
                count = having.get(term, 0) + step
                if count:
                    having[term] = count
                else:
                    del having[term]

    def _count_sizes(self, gone: SearchEntry | None, come: SearchEntry | None) -> None:
        documents, words = self.ahead
        if gone is not None:
            documents, words = documents - 1, words - gone.length
        if come is not None:
            documents, words = documents + 1, words + come.length
        self.ahead = Sizes(documents, words)


def _fields(value: bytes) -> dict[str, object]:
    fields = loads(value)
    assert isinstance(fields, dict)
    return fields


def _terms_of(entry: SearchEntry | None, *, without: SearchEntry | None) -> Iterable[Term]:
    if entry is None:
        return ()
    return entry.counts if without is None else entry.counts.keys() - without.counts


def _all_marks(old: SearchEntry | None, new: SearchEntry | None) -> Iterator[bytes]:
    yield SIZES_KEY
    for entry in (old, new):
        if entry is not None:
            yield from map(count_key, entry.counts)


_Key = tuple[IndexName, tuple[str, tuple[str, ...]]]


class SearchIndexes:
    """Every search index of a deployment, as the catalog declares them."""

    def __init__(self, committer: Committer, persistence: Persistence, runtime: Runtime) -> None:
        self._committer = committer
        self._persistence = persistence
        self._runtime = runtime
        self._followed: dict[_Key, _Followed] = {}
        self._by_table: dict[str, list[_Followed]] = {}
        self._is_closed = False

    # Which exist.

    async def build(self, table: Table, definition: SearchIndexDefinition) -> None:
        """Have an index that is about to be declared; returns when it is complete.

        Cost     reads the table once
        Raises   what reading the store raised; BadRequest[SearchIndexFull]
        """
        await self._wait_complete(self._obtain(table.name, definition))

    async def wait_built(self) -> None:
        """Return once every index there is now is complete.

        Raises   as `build`
        """
        for followed in tuple(self._followed.values()):
            await self._wait_complete(followed)

    def settle(self) -> None:
        """Have what the catalogs declare, and nothing else. New ones build in the background."""
        declared: dict[_Key, tuple[str, SearchIndexDefinition]] = {}
        for catalog in (self._committer.durable_catalog, self._committer.catalog):
            for table in catalog.tables.values():
                for definition in table.search_indexes:
                    declared[_key(table.name, definition)] = table.name, definition
        for key, followed in tuple(self._followed.items()):
            if key not in declared:
                self._let_go(followed, Retry("The search index was removed.", code="IndexRemoved"))
        for name, definition in declared.values():
            self._obtain(name, definition)

    async def close(self) -> None:
        """Stop building; searches that wait are refused."""
        self._is_closed = True
        tasks = [each.task for each in self._followed.values() if each.task is not None]
        for followed in tuple(self._followed.values()):
            self._let_go(followed, Retry("The deployment is closing.", code="Closing"))
        await asyncio.gather(*tasks, return_exceptions=True)

    def states(self) -> list[SearchIndexState]:
        """How far each index is."""
        return [
            SearchIndexState(
                *followed.index_name,
                followed.index.documents,
                followed.index.terms,
                followed.is_complete,
            )
            for followed in self._followed.values()
        ]

    # Commits.

    def mark(self, commit: CommitChanges) -> None:
        """Complete a commit that is about to be accepted. Called inside accept."""
        for change in commit.documents:
            for search in change.searches:
                followed = self._followed.get((search.index_name, search.fields))
                if followed is not None:
                    followed.mark(search, self._committer)
                elif search.old is not search.new:
                    search.moved = list(_all_marks(search.old, search.new))

    def follow(self, commit: CommitChanges) -> None:
        """Apply a commit that is durable from now on. Called inside publish; does not raise."""
        for change in commit.documents:
            for followed in self._by_table.get(change.table, ()):
                try:
                    followed.follow(change)
                except Exception as error:  # noqa: BLE001 - one index must not stop commits
                    _LOG.exception("search index failed %s.%s", *followed.index_name)
                    self._let_go(followed, error)

    # Searches.

    def wait_ready(self, table: str, definition: SearchIndexDefinition) -> Awaitable[None] | None:
        """What a search has to wait for before `search`; None: nothing.

        Raises   OutOfRetention for an index that is no longer declared; once awaited,
                 Retry[SearchIndexesUnavailable] for one whose build takes more than some seconds
        """
        followed = self._followed.get(_key(table, definition))
        if followed is not None and followed.is_complete:
            return None
        if followed is None:
            catalogs = (self._committer.durable_catalog, self._committer.catalog)
            if not any(
                each.content == definition.content
                for catalog in catalogs
                if table in catalog.tables
                for each in catalog.tables[table].search_indexes
                if each.name == definition.name
            ):
                raise OutOfRetention(
                    f"Index {table}.{definition.name} has changed. Take a new timestamp."
                )
            followed = self._obtain(table, definition)
        return self._wait_some(followed)

    def search(
        self,
        table: str,
        definition: SearchIndexDefinition,
        question: SearchQuestion,
        at: int,
        staging: Staging,
    ) -> SearchFound:
        """The best documents in the state of the commit at `at` with the writes staged over it.

        Cost     O(documents that have the words), 10 ns each; and O(documents changed between the
                 newest durable commit and that state)
        Raises   OutOfRetention when that state is too long ago
        """
        followed = self._followed.get(_key(table, definition))
        if followed is None or not followed.is_complete:
            raise OutOfRetention(f"Index {table}.{definition.name} is not built. Try again.")
        overlay = self._overlay(followed, table, at, staging)
        ranked = followed.index.rank(
            question.query, question.filters, overlay, question.most, question.expansions
        )
        return SearchFound(ranked.matches, _reads(question, ranked.expanded))

    def _overlay(self, followed: _Followed, table: str, at: int, staging: Staging) -> Overlay:
        committer = self._committer
        durable = committer.durable_ts
        overlay: dict[bytes, SearchEntry | None] = {}
        if at < durable:
            if not committer.log.covers(at):
                raise OutOfRetention(
                    f"Timestamp {at} is too long ago for a search. Take a new one."
                )
            for commit in committer.log.since(at):
                if commit.ts <= durable:
                    for change in commit.documents:
                        if change.table == table:
                            overlay[change.id] = followed.entries(change)[0]
        elif at > durable:
            for commit in committer.pending:
                if commit.ts > at:
                    break
                for change in commit.documents:
                    if change.table == table:
                        overlay[change.id] = followed.entries(change)[1]
        for staged in staging:
            if staged.table.name == table:
                position = staged.table.search_fields.index(followed.fields)
                entries = staged.after_entries
                overlay[staged.id] = entries[position] if staged.after is not None else None
        return overlay

    # Building.

    def _obtain(self, table: str, definition: SearchIndexDefinition) -> _Followed:
        key = _key(table, definition)
        followed = self._followed.get(key)
        if followed is None:
            if self._is_closed:
                raise Retry("The deployment is closing.", code="Closing")
            followed = _Followed((table, definition.name), replace(definition, staged=False))
            self._followed[key] = followed
            self._by_table.setdefault(table, []).append(followed)
            self._listen()
            name = f"search index {table}.{definition.name}"
            followed.task = self._runtime.spawn(self._build(followed), name=name)
        return followed

    def _let_go(self, followed: _Followed, error: Exception) -> None:
        key = followed.index_name, followed.fields
        if self._followed.get(key) is not followed:
            return
        del self._followed[key]
        table = followed.index_name[0]
        # A new list: `follow` may be walking through the old one.
        self._by_table[table] = [each for each in self._by_table[table] if each is not followed]
        if not self._by_table[table]:
            del self._by_table[table]
        followed.failure = error
        followed.tell()
        if followed.task is not None:
            followed.task.cancel()
        self._listen()

    def _listen(self) -> None:
        """Hear of commits as long as there is an index."""
        followers = self._committer.followers
        if self._followed and self.follow not in followers:
            followers.append(self.follow)
        elif not self._followed and self.follow in followers:
            followers.remove(self.follow)

    async def _wait_complete(self, followed: _Followed) -> None:
        while not followed.is_complete:
            await followed.news.wait()
            if followed.failure is not None:
                raise followed.failure

    async def _wait_some(self, followed: _Followed) -> None:
        await followed.news.wait()
        if followed.failure is not None:
            raise followed.failure
        if not followed.is_complete:
            # A function must not wait for minutes. Who asked tries again; live queries do so alone.
            name = ".".join(followed.index_name)
            raise Retry(
                f"Search index {name} is being built ({followed.index.documents} documents so far)",
                code="SearchIndexesUnavailable",
            )

    async def _build(self, followed: _Followed) -> None:
        try:
            await self._fill(followed)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            _LOG.exception("search index failed %s.%s", *followed.index_name)
            followed.task = None
            self._let_go(followed, error)
        else:
            followed.task = None

    async def _fill(self, followed: _Followed) -> None:
        """Read what is stored. Each page is of the newest durable state, and what commits change
        from then on `follow` has put there.
        """
        runtime, index, changed = self._runtime, followed.index, followed.changed
        assert changed is not None
        began = told = runtime.monotonic_s()
        table = self._committer.durable_catalog.tables.get(followed.index_name[0])
        if table is not None:
            slice_began = began
            async for rows in table_pages(self._committer, self._persistence, runtime, table):
                for number, row in enumerate(rows):
                    if row.id not in changed:
                        entry = followed.make(_fields(row.value), None, None)
                        if entry is not None:
                            index.put(row.id, entry)
                    if number % _SLICE_DOCUMENTS == _SLICE_DOCUMENTS - 1:
                        now = runtime.monotonic_s()
                        if now - slice_began >= _SLICE_SECONDS:
                            await runtime.sleep(0)
                            slice_began = runtime.monotonic_s()
                        if now - told >= _PROGRESS_SECONDS:
                            told = now
                            _tell("building", followed, now - began)
                            followed.tell()
        followed.changed = None
        followed.tell()
        if index.documents:
            _tell("built", followed, runtime.monotonic_s() - began)


def _tell(what: str, followed: _Followed, seconds: float) -> None:
    _LOG.info(
        "search index %s table=%s index=%s documents=%d terms=%d seconds=%.1f",
        what,
        *followed.index_name,
        followed.index.documents,
        followed.index.terms,
        seconds,
    )


def _key(table: str, definition: SearchIndexDefinition) -> _Key:
    return (table, definition.name), definition.content


def _reads(question: SearchQuestion, expanded: list[Term]) -> list[Read]:
    """What a search has read: the words it asked for, and the statistics its ranks rest on."""
    terms, prefix = question.query
    span = prefix_interval(prefix)
    if len(expanded) == question.expansions:
        span = Interval(prefix, after(expanded[-1]))  # words beyond would not have been looked at
    reads = [
        Read(Interval(SIZES_KEY, after(SIZES_KEY)), len(SIZES_KEY), None),
        Read(span, len(prefix), question.predicate),
        _counts_read(prefix, span),
    ]
    for term in terms:
        if term != prefix:
            reads.append(Read(Interval(term, after(term)), len(term), question.predicate))
            key = count_key(term)
            reads.append(Read(Interval(key, after(key)), len(key), None))
    return reads


def _counts_read(prefix: Term, span: Interval) -> Read:
    start = count_key(span.start)
    end = None if span.end is None else count_key(span.end)
    if end is None:
        end = prefix_interval(start).end
    return Read(Interval(start, end), len(count_key(prefix)), None)
