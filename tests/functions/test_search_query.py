"""The chain of a search, and what it comes to. The errors' texts: conformance/test_search.py."""

from __future__ import annotations

import pytest

from reactive_store.errors import BadRequest
from reactive_store.functions.search_query import (
    SearchFilter,
    SearchFilterBuilder,
    build_search,
    compile_search,
)
from reactive_store.limits import Limits
from reactive_store.schema.tables import SearchIndexDefinition
from reactive_store.values.document import Document
from reactive_store.values.order import encode_key
from reactive_store.values.value import UNSET, Int64
from reactive_store.values.wire import dumps

DEFINITION = SearchIndexDefinition("s", "text", ("room", "o.kind"))


def compiled(build, limits: Limits | None = None):
    return compile_search("t", DEFINITION, build_search(build), limits or Limits())


def test_a_chain_is_kept_in_order_with_normal_values():
    links = build_search(lambda s: s.eq("room", (1, 2)).search("text", "x").eq("o.kind", UNSET))
    assert links == (
        SearchFilter(False, "room", [1, 2]),
        SearchFilter(True, "text", "x"),
        SearchFilter(False, "o.kind", UNSET),
    )


def test_each_link_is_continued_once():
    first = SearchFilterBuilder().search("text", "x")
    first.eq("room", 1)
    for again in (lambda: first.eq("room", 2), lambda: first.search("text", "y"), first.finish):
        with pytest.raises(BadRequest) as refused:
            again()
        assert refused.value.code == "SearchFilterBuilderReused"


@pytest.mark.parametrize("build", ["text", None, lambda s: None, lambda s: "x"])
def test_what_is_no_search_is_a_mistake_of_the_program(build):
    with pytest.raises(TypeError, match="search"):
        build_search(build)


def test_texts_are_strings_and_fields_are_paths():
    with pytest.raises(TypeError, match="the text to search for is a string"):
        SearchFilterBuilder().search("text", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="path is a string"):
        SearchFilterBuilder().eq(3, 3)  # type: ignore[arg-type]


def test_a_question_has_words_filters_and_limits():
    question = compiled(lambda s: s.search("text", "Hello wor").eq("o.kind", 1))
    assert question is not None
    assert question.query.terms == (b"hello", b"wor")
    assert question.filters == {1: encode_key(1)}
    assert (question.most, question.expansions) == (1025, 64)
    short = compiled(lambda s: s.search("text", "a b c"), Limits(search_terms=2))
    assert short is not None
    assert short.query.terms == (b"a", b"b")
    assert short.predicate is None


def test_the_predicate_is_the_filters():
    question = compiled(lambda s: s.search("text", "x").eq("room", 1).eq("o.kind", UNSET))
    assert question is not None
    assert question.predicate is not None
    for fields, passes in (
        ({"room": 1}, True),
        ({"room": 1, "o": {"kind": 1}}, False),
        ({"room": Int64(1)}, False),
        ({}, False),
    ):
        assert question.predicate(Document(dumps(fields), "t")) is passes


def test_nothing_can_match_no_words_or_two_values_of_one_field():
    assert compiled(lambda s: s.search("text", " ?")) is None
    assert compiled(lambda s: s.search("text", "x").eq("room", 1).eq("room", 2)) is None
    assert compiled(lambda s: s.search("text", "x").eq("room", 1).eq("room", 1)) is not None
    with pytest.raises(BadRequest, match="isn't indexed for filtering"):
        compiled(lambda s: s.search("text", "").eq("nope", 1))  # even then


def test_filters_are_counted_as_written():
    def build(s):
        s = s.search("text", "x")
        for _ in range(3):
            s = s.eq("room", 1)
        return s

    assert compiled(build, Limits(search_filters=3)) is not None
    with pytest.raises(BadRequest, match="Max: 2 Actual: 3"):
        compiled(build, Limits(search_filters=2))
