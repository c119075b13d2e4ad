"""Full-text search said plainly: every document is looked at, every sum is written out.

What `engine.text_index` does with arrays must come to the same, to the last bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reactive_store.values.order import compare


class Stored(NamedTuple):
    """A document as far as a search sees it."""

    id: bytes
    created: float
    text: Any  # anything; a string is searched
    filters: tuple[Any, ...] = ()


def words_of(text: str) -> list[str]:
    """The words of an ASCII text."""
    found = re.findall(r"[A-Za-z0-9]+", text)
    return [word.lower() for word in found if len(word) < 32]


def floor4(count: int) -> int:
    """The four leading bits of a count."""
    step = 1
    while count // step >= 16:
        step *= 2
    return count // step * step


def average_of(documents: int, words: int) -> float:
    """The average length, to an eighth of an octave."""
    if not documents or not words:
        return 1.0
    return 2.0 ** (round(math.log2(words / documents) * 8) / 8)


def find(
    documents: Sequence[Stored],
    text: str,
    filters: Mapping[int, Any],
    *,
    expansions: int = 64,
    terms: int = 16,
) -> list[tuple[float, bytes]]:
    """Score and id of every match, best first."""
    indexed = [(each, words_of(each.text)) for each in documents if isinstance(each.text, str)]
    asked = words_of(text)[:terms]
    if not asked:
        return []
    vocabulary = sorted({word for _, words in indexed for word in words})
    weights: dict[str, float] = dict.fromkeys(asked, 1.0)
    for word in [each for each in vocabulary if each.startswith(asked[-1])][:expansions]:
        weights.setdefault(word, 0.5)
    average = average_of(len(indexed), sum(len(words) for _, words in indexed))
    having = {word: floor4(sum(word in words for _, words in indexed)) for word in weights}
    number = floor4(len(indexed))
    scored = []
    for document, words in indexed:
        if any(compare(document.filters[at], value) for at, value in filters.items()):
            continue
        score, norm = 0.0, 1.2 * (1.0 - 0.75) + 1.2 * 0.75 * len(words) / average
        for word, weight in weights.items():
            count = min(255, words.count(word))
            if count:
                rarity = math.log(1.0 + (number - having[word] + 0.5) / (having[word] + 0.5))
                score += weight * rarity * (1.2 + 1.0) * count / (count + norm)
        if score:
            scored.append((score, document.created, document.id))
    return [(score, name) for score, _, name in sorted(scored, reverse=True)]
