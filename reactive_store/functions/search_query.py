"""Searches: from `s.search("body", "hello wor").eq("channel", c)` to a question to the index.

One `search` and up to eight `eq`, in any order. A value is compared exactly, types included; UNSET
is a missing field. The words of the text are searched for one by one, any of them is enough, and
the last may go on: it also stands for the words that begin with it.

Source of facts: docs/guide/search.md; the texts are those of Convex's open server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from reactive_store.engine.range_index import parse_field_path
from reactive_store.engine.reads import Predicate
from reactive_store.engine.search_scan import SearchQuestion
from reactive_store.engine.search_terms import parse_query
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.schema.index_rules import SearchIndexDefinition
from reactive_store.values.order import encode_key, field_value
from reactive_store.values.value import UNSET, Unset, Value, normalize

__all__ = ["SearchFilter", "SearchFilterBuilder", "build_search", "compile_search"]


class SearchFilter(NamedTuple):
    """One link of a chain."""

    is_search: bool
    field: str  # dotted, as the index declares it
    value: Value | Unset


class SearchFilterBuilder:
    """What the function given to `with_search_index` receives; each call gives the next link.

    A link may be continued once.
    """

    __slots__ = ("_filters", "_is_used")

    def __init__(self, filters: tuple[SearchFilter, ...] = ()) -> None:
        self._filters = filters
        self._is_used = False

    def search(self, field: str, text: str, /) -> SearchFilterBuilder:
        """The field, the one the index is over, has one of the words of the text."""
        if not isinstance(text, str):
            raise TypeError(f"the text to search for is a string, not {text!r}")
        return self._add(SearchFilter(True, _path(field), text))

    def eq(self, field: str, value: object, /) -> SearchFilterBuilder:
        """The field, one of the index's filter fields, equals the value."""
        plain = UNSET if value is UNSET else normalize(value)
        return self._add(SearchFilter(False, _path(field), plain))

    def finish(self) -> tuple[SearchFilter, ...]:
        """All links of the chain; the builder is used up."""
        self._use()
        return self._filters

    def _add(self, link: SearchFilter) -> SearchFilterBuilder:
        self._use()
        return SearchFilterBuilder((*self._filters, link))

    def _use(self) -> None:
        if self._is_used:
            raise BadRequest(
                "SearchFilterBuilder has already been used! Chain your method calls like "
                "`q => q.search(...).eq(...)`.",
                code="SearchFilterBuilderReused",
            )
        self._is_used = True


def build_search(build: Callable[[SearchFilterBuilder], object]) -> tuple[SearchFilter, ...]:
    """The links that the function given to `with_search_index` puts together."""
    if not callable(build):
        raise TypeError(
            f'a search is a function such as lambda s: s.search("field", text), not {build!r}'
        )
    built = build(SearchFilterBuilder())
    if not isinstance(built, SearchFilterBuilder):
        raise TypeError(
            f"the function given to with_search_index returned {built!r}; it must return the "
            "chain it builds, as in lambda s: s.search(…).eq(…)"
        )
    return built.finish()


def compile_search(
    table: str,
    definition: SearchIndexDefinition,
    filters: Sequence[SearchFilter],
    limits: Limits,
) -> SearchQuestion | None:
    """What to ask the index; None when nothing can match, as the text has no word.

    Raises   BadRequest[InvalidSearchQuery]
    """
    name = f"{table}.{definition.name}"
    text: str | None = None
    wanted: list[SearchFilter] = []
    for link in filters:
        if not link.is_search:
            if link.field not in definition.filter_fields:
                raise _invalid(
                    name,
                    f'contains an equality filter on "{link.field}" but that field isn\'t indexed '
                    "for filtering in `filterFields`.",
                )
            wanted.append(link)
            continue
        if text is not None:
            raise _invalid(
                name,
                f'contains multiple search filters against "{link.field}". Only one is allowed.',
            )
        if link.field != definition.search_field:
            raise _invalid(
                name,
                f'contains a search filter against "{link.field}", which doesn\'t match the '
                f'indexed `searchField` "{definition.search_field}".',
            )
        assert isinstance(link.value, str)
        text = link.value
    if len(wanted) > limits.search_filters:
        raise _invalid(
            name,
            f"has too many filter conditions. Max: {limits.search_filters} Actual: {len(wanted)}",
        )
    if text is None:
        raise _invalid(
            name,
            "does not contain any search filters. You must include a search filter like "
            '`q.search("field", searchText)`.',
        )
    query = parse_query(text, limits.search_terms)
    keys = {link.field: encode_key(link.value) for link in wanted}
    if query is None or any(keys[link.field] != encode_key(link.value) for link in wanted):
        return None  # no word, or a field that would have to have two values
    positions = {definition.filter_fields.index(field): key for field, key in keys.items()}
    return SearchQuestion(
        query,
        positions,
        _predicate(keys),
        limits.search_results + 1,  # one more, to know whether there is one
        limits.search_expansions,
    )


def _predicate(keys: Mapping[str, bytes]) -> Predicate | None:
    if not keys:
        return None
    wanted = [(parse_field_path(field), key) for field, key in keys.items()]

    def passes(document: Mapping[str, Any]) -> bool:
        return all(encode_key(field_value(document, path)) == key for path, key in wanted)

    return passes


def _path(field: object) -> str:
    if not isinstance(field, str):
        raise TypeError(f"a field's path is a string, not {field!r}")
    return field


def _invalid(name: str, problem: str) -> BadRequest:
    return BadRequest(f"Search query against {name} {problem}", code="InvalidSearchQuery")
