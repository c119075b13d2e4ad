"""Where words begin and end, what a query looks for, what a document's entry holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine.search_terms import SearchEntry, entry_maker, parse_query, tokenize
from reactive_store.schema.tables import SearchIndexDefinition
from reactive_store.values.order import encode_key
from reactive_store.values.value import UNSET


def words(text: str) -> list[str]:
    return [term.decode() for term in tokenize(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("snake_case kebab-case", ["snake", "case", "kebab", "case"]),
        ("a.b@c 3.14", ["a", "b", "c", "3", "14"]),
        ("", []),
        (" \t\n?!", []),
        ("__", []),
        ("naïve Ærø", ["naïve", "ærø"]),
        ("日本語 text", ["日本語", "text"]),
        ("İstanbul", ["i\u0307stanbul"]),  # lowered after it was cut out
        ("ΟΔΟΣ", ["οδοσ"]),  # each letter by itself: no final sigma
        ("हिन्दी", ["हिन", "दी"]),  # vowel signs belong to a word, a virama does not
        ("Ⅷ ½ ²", ["ⅷ", "½", "²"]),
        ("x\ud800y", ["x", "y"]),
    ],
)  # fmt: skip
def test_words_are_runs_of_letters_and_digits_in_lower_case(text, expected):
    assert words(text) == expected


def test_words_of_32_bytes_are_left_out():
    assert words(f"{'a' * 31} {'b' * 32} {'c' * 40}") == ["a" * 31]
    assert words(f"{'é' * 15} {'é' * 16}") == ["é" * 15]


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_a_word_is_one_word_again(text):
    for word in words(text):
        assert words(word) in ([word], [])  # lowered, it may have come over the limit
        assert word == word.lower()


@given(st.text(max_size=60))
def test_ascii_and_other_texts_are_cut_alike(text):
    plain = text.encode("ascii", errors="ignore").decode()
    assert words(plain + " é") == [*words(plain), "é"]


def test_a_query_has_its_words_once_and_the_last_is_a_prefix():
    query = parse_query("b a B c a", 16)
    assert query is not None
    assert query.terms == (b"b", b"a", b"c")
    assert query.prefix == b"a"


def test_only_the_first_words_of_a_query_count():
    query = parse_query("a b c d", 2)
    assert query is not None
    assert query.terms == (b"a", b"b")
    assert query.prefix == b"b"
    assert parse_query(", ", 2) is None


DEFINITION = SearchIndexDefinition("s", "o.text", ("room", "o.kind"))


def fields(text: object, **others: object) -> dict:
    return {"_creationTime": 5, "o": {"text": text, "kind": 1}, **others}


def test_an_entry_counts_words_and_keeps_filter_values():
    entry = entry_maker(DEFINITION)(fields("b a b", room="x"), None, None)
    assert isinstance(entry, SearchEntry)
    assert (entry.length, entry.created) == (3, 5.0)
    assert dict(entry.counts) == {b"a": 1, b"b": 2}
    assert entry.keys == [b"a", b"b"]
    assert entry.filters == (encode_key("x"), encode_key(1))
    bare = entry_maker(DEFINITION)(fields(""), None, None)
    assert isinstance(bare, SearchEntry)
    assert bare.length == 0
    assert bare.filters[0] == encode_key(UNSET)


@pytest.mark.parametrize("text", [None, 3, ["a"], UNSET])
def test_what_is_not_text_has_no_place_in_the_index(text):
    assert entry_maker(DEFINITION)(fields(text), None, None) is None


def test_an_entry_is_made_anew_only_for_another_text_or_filter_value():
    make = entry_maker(DEFINITION)
    before = fields("a", room="x", seen=False)
    entry = make(before, None, None)
    assert make(fields("a", room="x", seen=True), before, entry) is entry
    for other in (fields("b", room="x"), fields("a", room="y"), fields("a")):
        changed = make(other, before, entry)
        assert changed is not None
        assert changed is not entry
