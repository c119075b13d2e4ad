"""The guard: no ratio of a question may fall by more than a third below the one kept.

Only ratios are kept, since machines differ: of every row, the 99th percentiles apart, which say
more about the machine's other guests than about us. A question with a row that seems worse is asked
again, three times in all, and each row's best answer counts: noise makes things slower now and
then, never faster.
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


def read(path: Path = BASELINE) -> dict[str, dict[str, float]]:
    """Ratio by question and row."""
    kept: dict[str, dict[str, float]] = json.loads(path.read_text())["ratios"]
    return kept


def write(answers: Sequence[Answer], path: Path = BASELINE) -> None:
    """Keep the ratios of these answers; those of other questions stay."""
    ratios = read(path) if path.exists() else {}
    ratios |= {answer.question: _ratios(answer) for answer in answers}
    text = json.dumps({"ratios": dict(sorted(ratios.items()))}, indent=2)
    path.write_text(text + "\n")


def _ratios(answer: Answer) -> dict[str, float]:
    return {row.name: round(row.ratio, 3) for row in answer.rows if "p99" not in row.name}


def floor(kept: float) -> float:
    """The least ratio that is still good."""
    return kept * _SHARE


def check(
    kept: Mapping[str, Mapping[str, float]],
    ask: Callable[[str], Answer],
    questions: Sequence[str],
    say: Callable[[str], None],
) -> list[str]:
    """Ask the questions; returns the rows that are worse by more than a third, best of three."""
    worse = []
    for question in questions:
        if question not in kept:
            worse.append(f"{question}: no ratio is kept; run with --update")
            continue
        best: dict[str, float] = {}
        for attempt in range(1, TRIES + 1):
            found = _ratios(ask(question))
            best = {name: max(best.get(name, 0.0), ratio) for name, ratio in found.items()}
            low = [name for name, ratio in kept[question].items() if _is_low(best, name, ratio)]
            for name, ratio in kept[question].items():
                fine = name not in low
                say(
                    f"{question}, {name}: ratio {best.get(name, 0.0):.3f}, kept {ratio:.3f}, "
                    f"floor {floor(ratio):.3f}: "
                    + ("good" if fine else f"too low (try {attempt} of {TRIES})")
                )
            if not low:
                break
        else:
            worse += [f"{question}: {name}" for name in low]
    return worse


def _is_low(best: Mapping[str, float], name: str, kept: float) -> bool:
    return best.get(name, 0.0) < floor(kept)
