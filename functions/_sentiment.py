"""How a number becomes a label, and many answers one breakdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

__all__ = ["SentimentBreakdown", "breakdown_of", "label_of", "most_frequent"]

# Answers weaker than this, either way, count as neutral.
_CLEAR = 0.25


class SentimentBreakdown(TypedDict):
    """How many answers of each kind, and their mean between -1 and 1."""

    positive: int
    neutral: int
    negative: int
    average: float


def label_of(sentiment: float) -> str:
    """The label of a sentiment between -1 and 1."""
    if sentiment >= _CLEAR:
        return "positive"
    return "negative" if sentiment <= -_CLEAR else "neutral"


def breakdown_of(results: Iterable[Mapping[str, Any]]) -> SentimentBreakdown:
    """The breakdown of rows of `experimentResults`; its average is 0 without any."""
    rows = list(results)
    labels = Counter(row["sentimentLabel"] for row in rows)
    average = sum(row["sentiment"] for row in rows) / len(rows) if rows else 0.0
    return {
        "positive": labels["positive"],
        "neutral": labels["neutral"],
        "negative": labels["negative"],
        "average": round(average, 4),
    }


def most_frequent(results: Iterable[Mapping[str, Any]], label: str, limit: int = 3) -> list[str]:
    """The key points that answers with this label made most often."""
    points = Counter(
        point for row in results if row["sentimentLabel"] == label for point in row["keyPoints"]
    )
    return [point for point, _ in points.most_common(limit)]
