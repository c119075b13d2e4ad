"""What a question is answered with: figures of ours, each beside the ceiling of the same run.

A ratio of 1 is the ceiling, whatever is measured: rates are divided by the ceiling's, times and
sizes divide it.
"""

from __future__ import annotations

import math
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

__all__ = ["Answer", "Row", "machine", "median", "noise"]

_RATES = ("/s",)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    Units    unit ends in "/s" for a rate, where more is better; else less is
    """

    name: str
    ours: float
    ceiling: float
    unit: str

    @property
    def ratio(self) -> float:
        """Share of the ceiling that we reach; above 1 when we beat it."""
        over, under = self.ours, self.ceiling
        if not self.unit.endswith(_RATES):
            over, under = under, over
        return over / under if under else math.inf


@dataclass(frozen=True, slots=True)
class Answer:
    """All rows of one question. The first is the question's own; the rest stand in the details.

    Units    noise: how far apart the repeated ceilings lay, as a share
    """

    question: str
    title: str
    rows: Sequence[Row]
    noise: float
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The first row's."""
        return self.rows[0].ratio

    def to_json(self) -> dict[str, Any]:
        """The stable shape other programs read."""
        head = self.rows[0]
        rows = [
            {
                "name": row.name,
                "ours": row.ours,
                "ceiling": row.ceiling,
                "ratio": row.ratio,
                "unit": row.unit,
            }
            for row in self.rows
        ]
        return {
            "question": self.question,
            "ours": head.ours,
            "ceiling": head.ceiling,
            "ratio": head.ratio,
            "unit": head.unit,
            "details": {"title": self.title, "rows": rows, "noise": self.noise, **self.details},
            "machine": machine(),
        }

    def report(self) -> str:
        """For people: a line per row, then the notes."""
        lines = [f"{self.question}: {self.title}"]
        lines += [
            f"  {row.name:<44}{row.ours:>11,.2f} of {row.ceiling:>11,.2f} {row.unit:<11}"
            f"ratio {row.ratio:.2f}"
            for row in self.rows
        ]
        lines.append(f"  the ceiling moved by {self.noise:.0%} within this run")
        lines += [
            f"  {name.replace('_', ' ')}: {_shown(each)}" for name, each in self.details.items()
        ]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def median(values: Sequence[float]) -> float:
    """The middle one; of an even number the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def noise(values: Sequence[float]) -> float:
    """Distance of the extremes, as a share of the median; 0 when there is nothing to share."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def machine() -> str:
    """What the figures were measured on."""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, uvicorn {version('uvicorn')}, "
        f"websockets {version('websockets')}, SQLite {sqlite3.sqlite_version}"
    )
