"""How much a trust test tries: a seed, and the short or the long form.

The short form runs with everything else on every change and always tries the same seeds; the long
form (`make trust`) tries many more, from a seed it draws and prints. `TRUST_SEED=N` repeats one.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["EFFORT", "Effort"]

SHORT_SEED = 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """One run's form and first seed."""

    seed: int
    long: bool

    @classmethod
    def from_environment(cls) -> Effort:
        long = os.environ.get("TRUST") == "long"
        drawn = random.SystemRandom().randrange(1, 1_000_000_000) if long else SHORT_SEED
        return cls(seed=int(os.environ.get("TRUST_SEED", drawn)), long=long)

    def pick(self, short: T, long: T) -> T:
        """The amount for this form: runs, seconds, clients."""
        return long if self.long else short

    def seeds(self, short: int, long: int) -> range:
        """The seeds of this run, one after another from the first."""
        return range(self.seed, self.seed + self.pick(short, long))


EFFORT = Effort.from_environment()
