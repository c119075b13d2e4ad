"""What a history is: the transactions clients ran, as far as the clients can know.

A transaction has operations in their order:

    ("append", key, element)      to a list; elements are unique per key
    ("read", key, [elements])     of a list; None where the answer never came
    ("write", key, value)         to a register; values are unique per key
    ("get", key, value or None)   of a register

and two instants on one clock: when it was asked and when its answer was there. A pushed result is
a transaction too; it was never asked, so nothing is known to have come before it but what its own
session had already been told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FAIL", "NEVER_ASKED", "NO_ANSWER", "OK", "UNKNOWN", "Op", "Txn", "as_text", "numbered"]

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
NEVER_ASKED, NO_ANSWER = -math.inf, math.inf

Op = tuple[str, Any, Any]


@dataclass(slots=True)
class Txn:
    """One transaction.

    `ts`: the commit's timestamp (of a reader: its snapshot's), None when nobody told it.
    `session`: those that name the same one followed each other there, in order of `place`.
    """

    ops: Sequence[Op]
    process: str = ""
    invoke: float = NEVER_ASKED
    complete: float = NO_ANSWER
    status: str = OK
    ts: int | None = None
    session: str | None = None
    place: int = 0
    id: int = -1

    @property
    def writes(self) -> bool:
        """Whether any of its operations changes something."""
        return any(kind in ("append", "write") for kind, _, _ in self.ops)

    def __str__(self) -> str:
        ops = " ".join(f"{kind} {key} {json.dumps(value)}" for kind, key, value in self.ops)
        at = "" if self.ts is None else f" @{self.ts}"
        return f"T{self.id} {self.process or '?'} {self.status}{at}: {ops}"


def numbered(transactions: Iterable[Txn]) -> list[Txn]:
    """The transactions as a history: each one's id is its position."""
    history = list(transactions)
    for position, transaction in enumerate(history):
        transaction.id = position
    return history


def as_text(history: Sequence[Txn], ids: Iterable[int]) -> str:
    """Some transactions of a history, a line each, in the order they were asked."""
    chosen = sorted((history[each] for each in set(ids)), key=lambda txn: (txn.complete, txn.id))
    return "\n".join(f"  {transaction}" for transaction in chosen)
