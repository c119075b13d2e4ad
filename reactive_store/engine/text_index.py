"""The words of a table's documents, in memory, and the search over them.

Each document has a row number; each word has the rows it is in, ascending, with how often. A row
whose document is gone keeps its number for the next one. Where a word leaves a document its place
stays with a count of 0, until the places of that word are half empty; nothing is ever renumbered,
so there is no moment at which everything has to be written anew.

The index holds the newest durable state. A search of another one brings an *overlay*: the
documents that differ there, each with its entry. They are left out of the arrays and ranked one by
one, and the statistics count them as they are there; the answer is exactly that of the other state.

Source: docs/decisions/0015-text-search.md.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reactive_store.engine.interval import prefix_end
from reactive_store.engine.search_ranking import (
    PREFIX_WEIGHT,
    Sizes,
    contribution,
    contributions,
    inverse_frequency,
    length_norm,
    length_norms,
    rounded,
)
from reactive_store.engine.search_terms import QueryTerms, SearchEntry, Term
from reactive_store.errors import BadRequest
from reactive_store.persistence.sorted_keys import SortedKeys

__all__ = ["MOST_ROWS", "Match", "Overlay", "Ranked", "TextIndex"]

MOST_ROWS: Final = (1 << 24) - 1
"""Documents an index can hold: a place is a row number and, in its last byte, a count."""

_COUNT_BITS, _MOST_COUNT = 8, 255
_BLOCK = 8192  # rows that are scored together
_FEW = 32  # documents of an overlay that are looked up one by one
_FIRST_ROWS = 64

Overlay = Mapping[bytes, SearchEntry | None]
"""Documents, by id, that are different in the state searched; None: not in the index there."""

_Doubles = NDArray[np.float64]
_Rows = NDArray[np.intp]
_Packed = NDArray[np.uint32]


class _Weighed(NamedTuple):
    """A word a search looks for, and what it says."""

    term: Term
    weight: float


class Match(NamedTuple):
    """A document found. The greater of two comes first: best score, newest, highest id."""

    score: float
    created: float
    id: bytes


class Ranked(NamedTuple):
    """What a search found."""

    matches: list[Match]  # best first
    expanded: list[Term]  # the words the prefix stood for, in order


class TextIndex:
    """One search index.

    Cost     put, replace and remove: 0.3 µs per word that comes, changes or goes; common words are
             a short memory move dearer. A search: O(places of its words), 10 ns each.
    """

    __slots__ = (
        "_codes",
        "_created",
        "_empty",
        "_free",
        "_ids",
        "_lengths",
        "_norm_average",
        "_norms",
        "_places",
        "_rows",
        "_terms",
        "_values",
        "documents",
        "words",
    )

    def __init__(self, filters: int = 0) -> None:
        self.documents = 0
        self.words = 0  # of all documents, repetitions included
        self._rows: dict[bytes, int] = {}
        # By row. What stands in a free row means nothing.
        self._ids: list[bytes] = []
        self._lengths = np.zeros(_FIRST_ROWS, np.float64)
        # What the lengths make of counts, given the rounded average of the last search.
        self._norm_average = 1.0
        self._norms = length_norms(self._lengths, 1.0)
        self._created = np.zeros(_FIRST_ROWS, np.float64)
        self._codes = [np.zeros(_FIRST_ROWS, np.int32) for _ in range(filters)]
        self._free: list[int] = []
        # Which number stands for a value of a filter field.
        self._values = [_Values() for _ in range(filters)]
        # Each word's places, ascending: row << 8 | count, a count above 255 being 255.
        self._places: dict[Term, array[int]] = {}
        self._empty: dict[Term, int] = {}  # how many of a word's places have a count of 0
        self._terms = SortedKeys()  # the keys of `_places`

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    @property
    def sizes(self) -> Sizes:
        """How much it holds."""
        return Sizes(self.documents, self.words)

    @property
    def terms(self) -> int:
        """How many different words it knows."""
        return len(self._places)

    def having(self, term: Term) -> int:
        """How many documents have a word."""
        places = self._places.get(term)
        if places is None:
            return 0
        return len(places) - self._empty.get(term, 0) if self._empty else len(places)

    def put(self, id: bytes, entry: SearchEntry) -> None:
        """Add a document that is not there."""
        is_last = not self._free
        row = len(self._ids) if is_last else self._free.pop()
        if is_last:
            if row == MOST_ROWS:
                raise BadRequest(
                    f"A search index holds at most {MOST_ROWS} documents.", code="SearchIndexFull"
                )
            self._ids.append(id)
            if row == len(self._lengths):
                self._grow()
        self._ids[row] = id
        self._rows[id] = row
        self._measure(row, entry)
        for codes, values, value in zip(self._codes, self._values, entry.filters, strict=True):
            codes[row] = values.take(value)
        self.documents += 1
        self.words += entry.length
        if not is_last:
            for term, count in entry.counts.items():
                self._set(term, row, count)
            return
        # Its places come last everywhere, so nothing has to be looked for.
        known = self._places
        first = row << _COUNT_BITS
        for term, count in entry.counts.items():
            place = first | (count if count < _MOST_COUNT else _MOST_COUNT)  # noqa: FURB136 - hot
            places = known.get(term)
            if places is None:
                known[term] = array("I", (place,))
                self._terms.add(term)
            else:
                places.append(place)

    def remove(self, id: bytes, entry: SearchEntry) -> None:
        """Take a document out; `entry` is what was put."""
        row = self._rows.pop(id)
        self._free.append(row)
        for values, value in zip(self._values, entry.filters, strict=True):
            values.leave(value)
        self.documents -= 1
        self.words -= entry.length
        for term in entry.counts:
            self._clear(term, row)

    def replace(self, id: bytes, old: SearchEntry, new: SearchEntry) -> None:
        """Put another version of a document in place of the one that is there."""
        row = self._rows[id]
        self._measure(row, new)
        for codes, values, before, after in zip(
            self._codes, self._values, old.filters, new.filters, strict=True
        ):
            if before != after:
                codes[row] = values.take(after)
                values.leave(before)
        self.words += new.length - old.length
        for term, count in new.counts.items():
            if old.counts.get(term) != count:
                self._set(term, row, count)
        for term in old.counts:
            if term not in new.counts:
                self._clear(term, row)

    def rank(
        self,
        query: QueryTerms,
        filters: Mapping[int, bytes],
        overlay: Overlay,
        most: int,
        expansions: int,
    ) -> Ranked:
        """The `most` best documents that have one of the words, in the state of the overlay.

        Shapes   filters: positions of filter fields, each with the encoded value demanded;
                 expansions: words the prefix may stand for, the first in order
        """
        hidden = [self._rows[name] for name in overlay if name in self._rows]
        shown = [(name, entry) for name, entry in overlay.items() if entry is not None]
        search = _Search(self, hidden, [entry for _, entry in shown])
        documents, average = search.sizes().rounded()
        weighed: list[_Weighed] = []
        expanded = search.expand(query.prefix, expansions)
        found = dict.fromkeys(query.terms, 1.0)
        for term in expanded:
            found.setdefault(term, PREFIX_WEIGHT)
        for term, weight in found.items():
            having = search.having(term)
            if having:
                frequency = inverse_frequency(documents, rounded(having))
                weighed.append(_Weighed(term, weight * frequency))
        rows, scores = self._score(weighed, filters, hidden, average, most)
        created = self._created[rows]
        best = _best(scores, created, most)
        ids = self._ids
        scores, created = scores[best], created[best]
        order = np.lexsort((created, scores))[::-1]
        names = [ids[row] for row in rows[best[order]].tolist()]
        found_here = zip(scores[order].tolist(), created[order].tolist(), names, strict=True)
        matches = list(map(Match._make, found_here))
        for name, entry in shown:
            if any(entry.filters[position] != value for position, value in filters.items()):
                continue
            score = _score_of(entry, weighed, average)
            if score:
                matches.append(Match(score, entry.created, name))
        matches.sort(reverse=True)  # what ties in both by id, and the overlay's among the others
        return Ranked(matches[:most], expanded)

    def _score(
        self,
        weighed: Sequence[_Weighed],
        filters: Mapping[int, bytes],
        hidden: Sequence[int],
        average: float,
        most: int,
    ) -> tuple[_Rows, _Doubles]:
        """The rows that have a word and pass the filters, with their scores.

        Of many rows, the `most` best are among them and those that tie; not all the others.
        """
        wanted = []
        for position, value in filters.items():
            code = self._values[position].numbers.get(value)
            if code is None:
                return np.empty(0, np.intp), np.empty(0, np.float64)
            wanted.append((self._codes[position], code))
        # Views, not copies: they are gone before a word can get another place.
        parts = [
            (np.frombuffer(places, np.uint32), weight)
            for term, weight in weighed
            if (places := self._places.get(term)) is not None
        ]
        norms = self._norms_for(average)
        scores_of = _Scores(norms, wanted, np.array(sorted(hidden), np.intp))
        if sum(len(places) for places, _ in parts) <= _BLOCK:
            return scores_of.few(parts)
        return scores_of.many(parts, len(self._ids), most)

    def _measure(self, row: int, entry: SearchEntry) -> None:
        self._lengths[row] = entry.length
        self._norms[row] = length_norm(entry.length, self._norm_average)
        self._created[row] = entry.created

    def _norms_for(self, average: float) -> _Doubles:
        if average != self._norm_average:
            self._norm_average, self._norms = average, length_norms(self._lengths, average)
        return self._norms

    def _set(self, term: Term, row: int, count: int) -> None:
        place = row << _COUNT_BITS | min(count, _MOST_COUNT)
        places = self._places.get(term)
        if places is None:
            self._places[term] = array("I", (place,))
            self._terms.add(term)
            return
        if places[-1] >> _COUNT_BITS < row:
            places.append(place)
            return
        first = row << _COUNT_BITS
        position = bisect_left(places, first)
        if places[position] >> _COUNT_BITS != row:
            places.insert(position, place)
            return
        if places[position] == first:
            self._fewer_empty(term)
        places[position] = place

    def _clear(self, term: Term, row: int) -> None:
        places = self._places[term]
        first = row << _COUNT_BITS
        empty = self._empty.get(term, 0) + 1
        if empty == len(places):
            del self._places[term]
            self._empty.pop(term, None)
            self._terms.remove(term)
            return
        places[bisect_left(places, first)] = first
        if empty > _FEW and 2 * empty > len(places):
            packed = np.array(places, np.uint32)
            self._places[term] = array("I", packed[packed & _MOST_COUNT != 0].tobytes())
            del self._empty[term]
        else:
            self._empty[term] = empty

    def _fewer_empty(self, term: Term) -> None:
        if self._empty[term] == 1:
            del self._empty[term]
        else:
            self._empty[term] -= 1

    def _grow(self) -> None:
        self._lengths = np.concatenate((self._lengths, np.zeros_like(self._lengths)))
        self._norms = length_norms(self._lengths, self._norm_average)
        self._created = np.concatenate((self._created, np.zeros_like(self._created)))
        self._codes = [np.concatenate((codes, np.zeros_like(codes))) for codes in self._codes]

    def check(self) -> None:
        """Assert the invariants; for tests."""
        self._terms.check()
        assert self._terms.ascending(b"", None, 1 << 40) == sorted(self._places)
        assert len(self._rows) == self.documents
        assert {row: self._ids[row] for row in self._rows.values()} == {
            row: name for name, row in self._rows.items()
        }
        assert sorted([*self._rows.values(), *self._free]) == list(range(len(self._ids)))
        live = set(self._rows.values())
        assert self._norms.tolist() == length_norms(self._lengths, self._norm_average).tolist()
        assert self.words == sum(int(self._lengths[row]) for row in live)
        for term, places in self._places.items():
            rows = [place >> _COUNT_BITS for place in places]
            assert rows == sorted(set(rows))
            empty = sum(not place & _MOST_COUNT for place in places)
            assert empty == self._empty.get(term, 0) < len(places)
            assert all(row in live for row, place in zip(rows, places, strict=True) if place & 255)
        for codes, values in zip(self._codes, self._values, strict=True):
            values.check([int(codes[row]) for row in live])


class _Values:
    """The values of one filter field: numbers for them, as long as some document has them."""

    __slots__ = ("_counts", "_free", "numbers")

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self._counts: list[int] = []  # by number: how many documents have it
        self._free: list[int] = []

    def take(self, value: bytes) -> int:
        """The number of a value that one more document has."""
        number = self.numbers.get(value)
        if number is None:
            if self._free:
                number = self._free.pop()
            else:
                number = len(self._counts)
                self._counts.append(0)
            self.numbers[value] = number
        self._counts[number] += 1
        return number

    def leave(self, value: bytes) -> None:
        """One document fewer has the value."""
        number = self.numbers[value]
        self._counts[number] -= 1
        if not self._counts[number]:
            del self.numbers[value]
            self._free.append(number)

    def check(self, held: list[int]) -> None:
        """Assert that the counts are those of the documents' numbers."""
        assert sorted(self.numbers.values()) == sorted(set(held))
        assert all(self._counts[number] == held.count(number) for number in set(held))


class _Search:
    """The statistics of one state: the index without the hidden rows, with the shown entries."""

    __slots__ = ("_hidden", "_index", "_mask", "_shown")

    def __init__(self, index: TextIndex, hidden: list[int], shown: list[SearchEntry]) -> None:
        self._index = index
        self._hidden = hidden
        self._shown = shown
        self._mask: NDArray[np.bool_] | None = None
        if len(hidden) > _FEW:
            self._mask = np.zeros(len(index._ids), np.bool_)
            self._mask[hidden] = True

    def sizes(self) -> Sizes:
        lengths = self._index._lengths
        return Sizes(
            self._index.documents - len(self._hidden) + len(self._shown),
            self._index.words
            - sum([int(lengths[row]) for row in self._hidden])
            + sum([entry.length for entry in self._shown]),
        )

    def having(self, term: Term) -> int:
        """How many documents have a word."""
        having = self._index.having(term)
        if self._hidden and having:
            having -= self._hidden_having(self._index._places[term])
        if self._shown:
            having += sum([term in entry.counts for entry in self._shown])
        return having

    def _hidden_having(self, places: array[int]) -> int:
        if self._mask is not None:
            packed = np.array(places, np.uint32)
            packed = packed[packed & _MOST_COUNT != 0]
            return int(np.count_nonzero(self._mask[packed >> _COUNT_BITS]))
        count = 0
        for row in self._hidden:
            above = bisect_left(places, (row << _COUNT_BITS) + 1)
            count += above < len(places) and places[above] >> _COUNT_BITS == row
        return count

    def expand(self, prefix: Term, most: int) -> list[Term]:
        """The first words in order that begin with the prefix, of those some document has."""
        end = prefix_end(prefix)
        known = self._index._terms
        if not self._hidden and not self._shown:
            return known.ascending(prefix, end, most)
        shown = {term for entry in self._shown for term in entry.counts if term.startswith(prefix)}
        found: list[Term] = []
        start = prefix
        while True:
            # What is in hidden documents alone is passed over, so there may have to be more.
            some = known.ascending(start, end, most)
            found += [term for term in some if term not in shown and self.having(term)]
            if len(some) < most or len(found) >= most:
                return sorted([*found, *shown])[:most]
            start = some[-1] + b"\x00"


_Part = tuple[_Packed, float]
"""A word's places, and what it says."""


class _Scores:
    """How rows answer a search, apart from those that are hidden."""

    __slots__ = ("_hidden", "_norms", "_wanted")

    def __init__(
        self,
        norms: _Doubles,
        wanted: list[tuple[NDArray[np.int32], int]],
        hidden: _Rows,
    ) -> None:
        self._norms = norms
        self._wanted = wanted  # columns of filter values, each with the number demanded
        self._hidden = hidden  # ascending

    def few(self, parts: list[_Part]) -> tuple[_Rows, _Doubles]:
        """The scores of everything, for words that are rare."""
        each = [self._of_word(places, weight) for places, weight in parts]
        if not each:
            return np.empty(0, np.intp), np.empty(0, np.float64)
        rows, inverse = np.unique(np.concatenate([rows for rows, _ in each]), return_inverse=True)
        scores = _sums(inverse, np.concatenate([scores for _, scores in each]), len(rows))
        keep = scores > 0.0
        if len(self._hidden):
            keep &= ~np.isin(rows, self._hidden)
        return rows[keep].astype(np.intp), scores[keep]

    def many(self, parts: list[_Part], size: int, most: int) -> tuple[_Rows, _Doubles]:
        """The best scores, for words that many rows have.

        Block by block, so that nothing large is ever allocated: touching fresh memory would cost
        several times the arithmetic.
        """
        edges = np.arange(0, size + _BLOCK, _BLOCK)
        # Of the places' own type, or they would be copied into another one.
        firsts = np.minimum(edges << _COUNT_BITS, 0xFFFFFFFF).astype(np.uint32)
        cuts = [np.searchsorted(places, firsts).tolist() for places, _ in parts]
        hidden_cuts = np.searchsorted(self._hidden, edges).tolist()
        kept_rows: list[_Rows] = []
        kept: list[_Doubles] = []
        count, bound = 0, 0.0
        for block, base in enumerate(edges[:-1].tolist()):
            sums = np.zeros(_BLOCK, np.float64)
            for (places, weight), cut in zip(parts, cuts, strict=True):
                low, high = cut[block], cut[block + 1]
                if low < high:
                    rows, scores = self._of_word(places[low:high], weight)
                    rows -= np.uint32(base)
                    sums += _sums(rows, scores, _BLOCK)
            low, high = hidden_cuts[block], hidden_cuts[block + 1]
            if low < high:
                sums[self._hidden[low:high] - base] = 0.0
            found = np.flatnonzero(sums >= bound if bound else sums)
            kept.append(sums[found])
            kept_rows.append(found + base)
            count += len(found)
            if count > 2 * most + _BLOCK:
                rows_so_far, so_far = np.concatenate(kept_rows), np.concatenate(kept)
                bound = float(np.partition(so_far, count - most)[count - most])
                keep = so_far >= bound
                kept_rows, kept = [rows_so_far[keep]], [so_far[keep]]
                count = len(kept[0])
        return np.concatenate(kept_rows), np.concatenate(kept)

    def _of_word(self, places: _Packed, weight: float) -> tuple[_Packed, _Doubles]:
        """What a word adds, by row. Where a place is empty that is nothing."""
        rows: _Packed = places >> np.uint32(_COUNT_BITS)
        for codes, code in self._wanted:
            keep = codes[rows] == code
            places, rows = places[keep], rows[keep]
        counts = (places & np.uint32(_MOST_COUNT)).astype(np.float64)
        return rows, contributions(weight, counts, self._norms[rows])


def _sums(positions: NDArray[Any], numbers: _Doubles, size: int) -> _Doubles:
    """The numbers of each position, added in their order."""
    return np.bincount(positions, numbers, size).astype(np.float64, copy=False)


def _score_of(entry: SearchEntry, weighed: Iterable[_Weighed], average: float) -> float:
    norm = length_norm(entry.length, average)
    counts = entry.counts
    score = 0.0
    for term, weight in weighed:
        count = counts.get(term)
        if count is not None:
            score += contribution(weight, min(count, _MOST_COUNT), norm)
    return score


def _best(scores: _Doubles, created: _Doubles, most: int) -> NDArray[np.intp]:
    """Positions of the `most` best, and of all that tie with the last of them."""
    if len(scores) <= most:
        return np.arange(len(scores))
    lowest = np.partition(scores, len(scores) - most)[len(scores) - most]
    above = np.flatnonzero(scores > lowest)
    ties = np.flatnonzero(scores == lowest)
    wanted = most - len(above)
    if len(ties) > wanted:
        born = created[ties]
        oldest = np.partition(born, len(born) - wanted)[len(born) - wanted]
        ties = ties[born >= oldest]
    return np.concatenate((above, ties))
