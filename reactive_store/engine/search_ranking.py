"""How well a document answers a search: BM25, over statistics that stand still most of the time.

    weight × idf(documents, documents with the word) × 2.2·tf / (tf + 0.3 + 0.9·length/average)

summed over the words that match. Every number is a double and every sum runs in the order of the
words, so arrays and plain Python give the same bits, and equal documents the same rank.

The counts are rounded before they are used, to four leading bits (the average length to an eighth
of an octave), so ranks change only when one of them passes a mark. Those marks are part of what a
search reads: a commit that passes one names it (`count_key`, `SIZES_KEY`) and touches every search
that used it. With the exact counts every write to a table would have to touch every search of it,
or live results would silently differ from fresh ones. Below 16 the counts are exact.

Source: docs/decisions/0015-text-search.md; Robertson and Zaragoza's BM25 with k1 = 1.2, b = 0.75,
as Convex's open server has it.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reactive_store.engine.search_terms import Term

__all__ = [
    "PREFIX_WEIGHT",
    "SIZES_KEY",
    "Sizes",
    "contribution",
    "contributions",
    "count_key",
    "inverse_frequency",
    "length_norm",
    "length_norms",
    "passes_mark",
    "rank_key",
    "rounded",
]

Doubles = NDArray[np.float64]

PREFIX_WEIGHT: Final = 0.5
"""What a word counts that only begins with what was asked."""

SIZES_KEY: Final = b"\x00"
"""The key under which a search reads how many documents there are and how long they are. Words
begin with a letter or a digit, so no word lies near it."""

_K1: Final = 1.2
_LENGTH_SHARE: Final = 0.75


def count_key(term: Term) -> bytes:
    """The key under which a search reads in how many documents a word is."""
    return b"\x01" + term


def rounded(count: int) -> int:
    """A count with its four leading bits."""
    spare = count.bit_length() - 4
    return count if spare <= 0 else count >> spare << spare


def passes_mark(count: int) -> bool:
    """Whether `count` and one less are rounded differently."""
    return count < 16 or not count & ((1 << (count.bit_length() - 4)) - 1)


class Sizes(NamedTuple):
    """How many documents an index has, and how many words they have together."""

    documents: int
    words: int

    def rounded(self) -> tuple[int, float]:
        """The documents and the words per document, as far as ranks know them."""
        if not self.documents or not self.words:
            return rounded(self.documents), 1.0
        octaves = round(8 * math.log2(self.words / self.documents))
        return rounded(self.documents), 2.0 ** (octaves / 8)


def inverse_frequency(documents: int, having: int) -> float:
    """How much it says that a document has a word which `having` of all have; both rounded."""
    return math.log(1.0 + (documents - having + 0.5) / (having + 0.5))


def length_norm(length: int, average: float) -> float:
    """What a document's length makes of its counts."""
    return _K1 * (1.0 - _LENGTH_SHARE) + _K1 * _LENGTH_SHARE * length / average


def length_norms(lengths: Doubles, average: float) -> Doubles:
    """The same for many documents at once, to the last bit."""
    return _K1 * (1.0 - _LENGTH_SHARE) + _K1 * _LENGTH_SHARE * lengths / average


def contribution(weight: float, count: int, norm: float) -> float:
    """What a word adds that a document has `count` times."""
    return weight * (_K1 + 1.0) * count / (count + norm)


def contributions(weight: float, counts: Doubles, norms: Doubles) -> Doubles:
    """The same for many documents at once, to the last bit. The two arrays are used up.

    Cost     in place, as fresh memory for each step would be most of it
    """
    norms += counts
    counts *= weight * (_K1 + 1.0)
    counts /= norms
    return counts


def rank_key(score: float, created: float, id: bytes) -> bytes:
    """A document's place in the result as bytes that sort like it.

    Best score first, then newest, then highest id. Scores are positive.
    """
    return (
        (~_ordered(score) & _ALL).to_bytes(8, "big")
        + (~_ordered(created) & _ALL).to_bytes(8, "big")
        + bytes([255 - byte for byte in id])
    )


_ALL: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
_DOUBLE: Final = Struct(">d")
_BITS: Final = Struct(">Q")


def _ordered(number: float) -> int:
    bits: int = _BITS.unpack(_DOUBLE.pack(number))[0]
    return bits ^ _ALL if bits & _SIGN else bits | _SIGN
