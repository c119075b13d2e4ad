"""What clients will do: random transactions, drawn before anything runs.

A plan says everything, pauses included, so that a shorter plan is a part of a longer one: what
fails can be made small by leaving steps out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.trust.history.record import Op

__all__ = ["KEYS", "Plan", "Step", "decoded", "make_plan", "ops_of", "shortened"]

KEYS = ("l0", "l1", "s0", "s1", "r0", "r1")

Kind = Literal["mutation", "query", "past", "cut", "leave"]
Plan = Sequence[Sequence["Step"]]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a client does.

    `kind`: a mutation; a query of now; of `past`, the newest commit this client knows; its
    connection is cut and made again; it leaves without waiting for the answer to `ops`.
    `ops`: as the app's `txn` takes them. `wait`: turns of the loop before it.
    """

    kind: Kind
    ops: tuple[tuple[Any, ...], ...] = ()
    wait: int = 0

    def __str__(self) -> str:
        ops = " ".join("·".join(map(str, op)) for op in self.ops)
        return f"{self.kind} after {self.wait}: {ops}"


@dataclass(slots=True)
class _Drawer:
    """Draws transactions; elements and values are never drawn twice."""

    chance: random.Random
    keys: Sequence[str]
    pauses: int
    next_value: int = field(default=1)

    def ops(self, *, only_reads: bool) -> tuple[tuple[Any, ...], ...]:
        chance = self.chance
        ops: list[tuple[Any, ...]] = []
        for _ in range(chance.randrange(1, 5)):
            key = chance.choice(self.keys)
            is_register = key.startswith("r")
            if only_reads or chance.random() < 0.45:
                ops.append(("get" if is_register else "read", key))
            else:
                ops.append(("write" if is_register else "append", key, self.next_value))
                self.next_value += 1
            if self.pauses and chance.random() < 0.5:
                ops.append(("pause", chance.randrange(1, self.pauses + 1)))
        if not only_reads and chance.random() < 0.05:
            ops.append(("fail",))
        return tuple(ops)


def make_plan(
    seed: int,
    *,
    clients: int,
    steps: int,
    keys: Sequence[str] = KEYS,
    pauses: int = 4,
    first_value: int = 1,
) -> list[list[Step]]:
    """What every client does. Clients with an even number have a session (a socket)."""
    chance = random.Random(seed)
    drawer = _Drawer(chance, keys, pauses, first_value)
    plan = []
    for client in range(clients):
        own = []
        for _ in range(steps):
            draw = chance.random()
            kind: Kind = "mutation" if draw < 0.6 else "query"
            if client % 2 and draw > 0.92:
                kind = "past"
            elif client % 2 == 0 and draw > 0.95:
                kind = "cut"
            only_reads = kind != "mutation" or chance.random() < 0.15
            ops = () if kind == "cut" else drawer.ops(only_reads=only_reads)
            own.append(Step(kind, ops, chance.randrange(6) if pauses else 0))
        if chance.random() < 0.3:
            own.append(Step("leave", drawer.ops(only_reads=False), chance.randrange(4)))
        plan.append(own)
    return plan


def ops_of(ops: Sequence[Sequence[Any]], answers: Sequence[Any] | None) -> list[Op]:
    """A transaction's operations as a history has them; without answers only what it wrote."""
    found: list[Op] = []
    for position, (word, *details) in enumerate(ops):
        if word in ("append", "write"):
            found.append((word, details[0], details[1]))
        elif word in ("read", "get") and answers is not None:
            found.append((word, details[0], answers[position]))
    return found


def decoded(text: str | bytes) -> Any:
    """Encoded JSON as a value; every number here is whole, whatever it looks like on the wire."""
    return json.loads(text, parse_float=lambda digits: int(float(digits)))


def shortened(
    plan: Plan, fails: Callable[[Plan], bool], *, most_runs: int = 150
) -> list[list[Step]]:
    """The plan with as many steps left out as possible, still failing (delta debugging)."""
    flat = [(client, step) for client, steps in enumerate(plan) for step in steps]
    size = max(1, len(flat) // 2)
    runs = 0
    while flat and runs < most_runs:
        smaller = None
        for start in range(0, len(flat), size):
            rest = flat[:start] + flat[start + size :]
            runs += 1
            if fails(_by_client(rest, len(plan))):
                smaller = rest
                break
            if runs >= most_runs:
                break
        if smaller is not None:
            flat = smaller
            size = min(size, max(1, len(flat) // 2))
        elif size == 1:
            break
        else:
            size = max(1, size // 2)
    return _by_client(flat, len(plan))


def _by_client(flat: Sequence[tuple[int, Step]], clients: int) -> list[list[Step]]:
    return [[step for owner, step in flat if owner == client] for client in range(clients)]
