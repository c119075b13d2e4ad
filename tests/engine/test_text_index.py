"""The index in memory against the plain model: any history, any overlay, the same bits."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.engine import text_index
from reactive_store.engine.search_terms import SearchEntry, parse_query
from reactive_store.engine.text_index import Overlay, TextIndex
from reactive_store.errors import BadRequest
from reactive_store.values.order import encode_key
from tests.engine.search_model import Stored, find

WORDS = ("a", "ab", "abc", "abd", "b", "ba", "cat", "dog", "x" * 40)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
VALUES = (None, 1, "room")


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def entry_of(document: Stored) -> SearchEntry:
    filters = tuple(map(encode_key, document.filters))
    return SearchEntry(document.text, document.created, filters)


class World:
    """An index and the documents it should hold."""

    def __init__(self) -> None:
        self.index = TextIndex(1)
        self.documents: dict[bytes, Stored] = {}

    def put(self, document: Stored) -> None:
        old = self.documents.get(document.id)
        if old is None:
            self.index.put(document.id, entry_of(document))
        else:
            self.index.replace(document.id, entry_of(old), entry_of(document))
        self.documents[document.id] = document

    def remove(self, id: bytes) -> None:
        self.index.remove(id, entry_of(self.documents.pop(id)))

    def found(
        self, text: str, filters: dict[int, object], overlay: Overlay, most: int, expansions: int
    ) -> list[tuple[float, bytes]]:
        query = parse_query(text, 16)
        if query is None:
            return []
        keys = {position: encode_key(value) for position, value in filters.items()}
        ranked = self.index.rank(query, keys, overlay, most, expansions)
        assert ranked.expanded == sorted(ranked.expanded)
        assert len(ranked.expanded) <= expansions
        return [(match.score, match.id) for match in ranked.matches]


def documents(ids: int = 12) -> st.SearchStrategy[Stored]:
    return st.builds(
        Stored,
        st.integers(0, ids - 1).map(name),
        st.integers(0, 3).map(float),
        TEXTS,
        st.tuples(st.sampled_from(VALUES)),
    )


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.one_of(documents(), st.integers(0, 11).map(name)), max_size=40),
    st.lists(st.one_of(documents(14), st.integers(0, 13).map(name)), max_size=6),
    TEXTS,
    st.one_of(st.just({}), st.sampled_from(VALUES).map(lambda value: {0: value})),
    st.integers(1, 5),
    st.sampled_from((1, 2, 64)),
    st.sampled_from((2, 1 << 30)),
)
def test_any_history_and_overlay_rank_as_the_model_does(
    history, changes, text, filters, most, expansions, block
):
    world = World()
    for step in history:
        if isinstance(step, Stored):
            world.put(step)
        elif step in world.documents:
            world.remove(step)
    world.index.check()
    state = dict(world.documents)
    overlay: dict[bytes, SearchEntry | None] = {}
    for change in changes:
        if isinstance(change, Stored):
            state[change.id], overlay[change.id] = change, entry_of(change)
        else:
            state.pop(change, None)
            overlay[change] = None
    with patch.object(text_index, "_BLOCK", block), patch.object(text_index, "_FEW", 2):
        expected = find(list(state.values()), text, filters, expansions=expansions)
        assert world.found(text, filters, overlay, 1 << 20, expansions) == expected
        assert world.found(text, filters, overlay, most, expansions) == expected[:most]
        plain = find(list(world.documents.values()), text, filters, expansions=expansions)
        assert world.found(text, filters, {}, most, expansions) == plain[:most]


def test_many_documents_rank_as_the_model_does():
    chance = random.Random(7)
    world = World()
    words = [f"w{number}" for number in range(40)]
    weights = [1 / (number + 1) for number in range(40)]

    def some(number: int) -> Stored:
        text = " ".join(chance.choices(words, weights, k=chance.randint(1, 30)))
        return Stored(name(number), float(chance.randint(0, 50)), text, (chance.choice(VALUES),))

    for number in range(900):
        world.put(some(number))
    for number in chance.sample(range(900), 300):
        world.remove(name(number))
    for number in chance.sample(sorted(world.documents), 200):
        world.put(some(int.from_bytes(number, "big")))
    for number in range(2000, 2100):
        world.put(some(number))
    world.index.check()
    gone = chance.sample(sorted(world.documents), 60)
    state = {key: each for key, each in world.documents.items() if key not in gone}
    overlay: dict[bytes, SearchEntry | None] = dict.fromkeys(gone)
    for number in range(3000, 3050):
        extra = some(number)
        state[extra.id], overlay[extra.id] = extra, entry_of(extra)
    for block in (64, 1 << 30):
        with patch.object(text_index, "_BLOCK", block):
            for text in ("w0 w1", "w5", "w3 w", "w39 w38 w37", "w0 w0 w1 nothing"):
                for filters in ({}, {0: 1}):
                    expected = find(list(state.values()), text, filters, expansions=64)
                    for most in (1, 10, 2000):
                        found = world.found(text, filters, overlay, most, 64)
                        assert found == expected[:most]


def test_what_ties_in_everything_comes_by_the_highest_id():
    world = World()
    for number in (5, 1, 3, 2, 4):
        world.put(Stored(name(number), 1.0, "same", (None,)))
    found = [key for _, key in world.found("same", {}, {}, 3, 64)]
    assert found == [name(5), name(4), name(3)]


def test_a_word_counts_at_most_255_times():
    world = World()
    world.put(Stored(name(1), 1.0, "a " * 255 + "b", (None,)))
    world.put(Stored(name(2), 1.0, "a " * 256, (None,)))
    first, second = world.found("a", {}, {}, 2, 64)
    assert first[0] == second[0]


def test_words_and_values_nobody_has_any_more_are_forgotten():
    world = World()
    for number in range(100):
        world.put(Stored(name(number), 1.0, f"shared own{number}", (number,)))
    for number in range(99):
        world.remove(name(number))
    world.index.check()
    assert world.index.terms == 2
    assert len(world.index._values[0].numbers) == 1
    assert len(world.index._places[b"shared"]) < 70  # empty places went
    world.put(Stored(name(7), 1.0, "shared", ("new",)))
    world.index.check()
    assert world.index.documents == 2


def test_an_index_that_is_full_says_so():
    world = World()
    with patch.object(text_index, "MOST_ROWS", 2):
        world.put(Stored(name(1), 1.0, "a", (None,)))
        world.put(Stored(name(2), 1.0, "a", (None,)))
        with pytest.raises(BadRequest, match="at most 2 documents"):
            world.put(Stored(name(3), 1.0, "a", (None,)))


def test_places_of_removed_documents_are_taken_again():
    world = World()
    for number in range(40):
        world.put(Stored(name(number), 1.0, "a b", (None,)))
    for number in range(40):
        world.remove(name(number))
        world.put(Stored(name(100 + number), 1.0, "a b", (None,)))
    world.index.check()
    assert len(world.index._ids) == 40
    assert len(world.index._places[b"a"]) == 40
