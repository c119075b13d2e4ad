"""The guard: no question's ratio may fall by more than a third below the one kept.

Only ratios are kept, since machines differ. A question that seems worse is asked again, three
times in all, and its best answer counts: noise makes things slower now and then, never faster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.answer import Answer

__all__ = ["BASELINE", "TRIES", "check", "floor", "read", "write"]

BASELINE = Path(__file__).resolve().parent / "baseline.json"
TRIES = 3
_SHARE = 2 / 3


def read(path: Path = BASELINE) -> dict[str, float]:
    """Ratio by question."""
    kept: dict[str, float] = json.loads(path.read_text())["ratios"]
    return kept


def write(answers: Sequence[Answer], path: Path = BASELINE) -> None:
    """Keep the ratios of these answers; those of other questions stay."""
    ratios = read(path) if path.exists() else {}
    ratios |= {answer.question: round(answer.ratio, 3) for answer in answers}
    text = json.dumps({"ratios": dict(sorted(ratios.items()))}, indent=2)
    path.write_text(text + "\n")


def floor(kept: float) -> float:
    """The least ratio that is still good."""
    return kept * _SHARE


def check(
    kept: Mapping[str, float],
    ask: Callable[[str], Answer],
    questions: Sequence[str],
    say: Callable[[str], None],
) -> list[str]:
    """Ask the questions; returns those that are worse by more than a third, best of three."""
    worse = []
    for question in questions:
        if question not in kept:
            say(f"{question}: no ratio is kept, so nothing is compared")
            continue
        best = 0.0
        for attempt in range(1, TRIES + 1):
            best = max(best, ask(question).ratio)
            fine = best >= floor(kept[question])
            say(
                f"{question}: ratio {best:.3f}, kept {kept[question]:.3f}, "
                f"floor {floor(kept[question]):.3f}: "
                + ("good" if fine else f"too low (try {attempt} of {TRIES})")
            )
            if fine:
                break
        else:
            worse.append(question)
    return worse
