"""What the trust tests have seen: figures per test, kept in docs/reliability.json by `make trust`.

A test says at its end what it tried: `evidence("serializable", histories=400, transactions=9_600)`.
One that runs under a breakage says which: `evidence("serializable", breakage=…, found=3)`.
`reliability_page.py` makes docs/reliability.md of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.trust.breakage import Breakage

__all__ = ["PROMISES", "RECORD", "Evidence", "Seen", "function_of"]

RECORD = Path(__file__).resolve().parents[2] / "docs" / "reliability.json"

# The words of docs/architecture.md's table of contracts, and what "robust" and "compatible" add.
PROMISES = {
    "serializable": "every history has a serial order, equal to timestamp order",
    "durable": "what was acknowledged is on disk before anyone is told",
    "exactly once": "a mutation takes effect once, whatever connection or process dies",
    "consistent push": "a transition is of one timestamp; nobody loses sight of their own write",
    "complete push": "a changed result is always told; what was not touched is not re-run",
    "bounded": "memory and time have named limits and a clear answer when one is reached",
    "robust": "no input ends the process, hangs it, or shows one user's data to another",
    "compatible": "official clients, unmodified, see what the promises say",
}


def function_of(test: str) -> str:
    """A test's id without its parameters."""
    return test.partition("[")[0]


@dataclass(frozen=True, slots=True)
class Seen:
    """One test's figures: `figures` maps what was counted to how often."""

    promise: str
    sentence: str
    form: str
    seed: int
    seconds: float
    figures: dict[str, float]
    breakage: str | None = None
    breakage_text: str | None = None
    also: list[str] = field(default_factory=list)  # further promises it tries


@dataclass
class Evidence:
    """Collects over one pytest session."""

    seen: dict[str, Seen] = field(default_factory=dict)

    def add(
        self,
        test: str,
        promise: str,
        *,
        sentence: str,
        form: str,
        seed: int,
        seconds: float,
        figures: dict[str, float],
        breakage: Breakage | None,
        also: Sequence[str] = (),
    ) -> None:
        for one in (promise, *also):
            if one not in PROMISES:
                raise ValueError(f"no promise is called {one!r}; there are {', '.join(PROMISES)}")
        self.seen[test] = Seen(
            promise,
            sentence,
            form,
            seed,
            round(seconds, 1),
            figures,
            breakage.name if breakage else None,
            breakage.text if breakage else None,
            list(also),
        )

    def write(self, path: Path = RECORD, *, whole: Collection[str] = ()) -> None:
        """Keep this session's figures beside those of tests that did not run in it.

        `whole` has the ids of all cases of the functions of which the session chose every case.
        What is recorded of further cases of those functions is of cases that are gone.
        """
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        functions = {function_of(test) for test in whole}
        kept = {
            test: seen
            for test, seen in kept.items()
            if test in whole or function_of(test) not in functions
        }
        kept |= {test: asdict(seen) for test, seen in self.seen.items()}
        path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")
