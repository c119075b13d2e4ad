"""What happens in one simulated run: calls of the clients' users and faults, each with its time.

A plan is drawn from a seed, printed when it fails, and made shorter as long as it goes on failing.
Chance that is not in the plan (delays of frames, how long work takes) hangs on the seed and on what
it is for, not on what happened before: a plan with an operation less runs otherwise the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["Operation", "Plan", "draw", "shrink"]

_GAPS_MS = (0, 0, 0, 1, 3, 10, 40, 200, 1_000)
_STALLS_MS = (20, 300, 3_000, 70_000, 150_000)
_TOKENS = ("alice", "alice", "bob", "bob", "nobody", "nobody", "bad", "brief", "down")

# How often each kind is drawn. Faults are a quarter.
_KINDS = (
    ["watch"] * 5
    + ["unwatch"] * 3
    + ["burst"] * 2
    + ["mutate"] * 14
    + ["act"] * 3
    + ["become"] * 3
    + ["cut"] * 4
    + ["stall"] * 2
    + ["slow"] * 2
    + ["restart"]
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that happens, `at_ms` after the start, to one client (a restart: to all).

    Shapes   watch what=question · unwatch what=which of the live ones · burst what=seed amount=how
             many · mutate/act what=kind of call · become token · cut what=per cent of the frames
             under way that are lost, amount=ms until the server notices, -1 never by itself ·
             stall token=direction amount=ms · slow what=ms a frame amount=ms · restart amount=ms
    """

    at_ms: int
    client: int
    kind: str
    what: int = 0
    amount: int = 0
    token: str = ""

    def __str__(self) -> str:
        parts = [str(self.at_ms), str(self.client), repr(self.kind)]
        for name, value in (("what", self.what), ("amount", self.amount), ("token", self.token)):
            if value:
                parts.append(f"{name}={value!r}")
        return f"Operation({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run, and the chance that belongs to it."""

    seed: int
    operations: tuple[Operation, ...]
    clients: int = 2

    def __str__(self) -> str:
        lines = "".join(f"\n        {operation}," for operation in self.operations)
        return f"Plan(seed={self.seed}, clients={self.clients}, operations=({lines}\n    ))"

    def chance(self, *purpose: object) -> random.Random:
        """A generator of its own for one purpose."""
        return random.Random(":".join(map(str, (self.seed, *purpose))))


def draw(seed: int, *, length: int = 40, clients: int = 2) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"plan:{seed}")
    operations = [
        Operation(0, client, "watch", what=chance.randrange(99)) for client in range(clients)
    ]
    at_ms = 0
    for _ in range(length):
        at_ms += chance.choice(_GAPS_MS)
        if chance.random() < 0.03:
            at_ms += 70_000  # long enough for a client to give up a socket that says nothing
        client = chance.randrange(clients)
        kind = chance.choice(_KINDS)
        operation = Operation(at_ms, client, kind, what=chance.randrange(99))
        match kind:
            case "burst":
                operation = replace(operation, amount=chance.randrange(2, 7))
            case "become":
                operation = replace(operation, what=0, token=chance.choice(_TOKENS))
            case "cut":
                operation = replace(operation, amount=chance.choice((0, 0, 30, 2_000, -1)))
            case "stall":
                direction = chance.choice(("up", "down", "both"))
                amount = chance.choice(_STALLS_MS)
                operation = replace(operation, what=0, amount=amount, token=direction)
            case "slow":
                amount = chance.choice((500, 5_000))
                operation = replace(operation, what=chance.choice((20, 100)), amount=amount)
            case "restart":
                operation = replace(operation, client=0, what=0, amount=chance.choice((0, 300)))
        operations.append(operation)
    return Plan(seed, tuple(operations), clients)


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, runs: int = 400) -> Plan:
    """A plan without the operations that do not matter: none of those left can go alone.

    Cost     at most `runs` runs; what has been reached by then is returned
    """
    operations = plan.operations
    size = max(1, len(operations) // 2)
    while runs > 0:
        start, has_shrunk = 0, False
        while start < len(operations) and runs > 0:
            shorter = operations[:start] + operations[start + size :]
            runs -= 1
            if fails(replace(plan, operations=shorter)):
                operations, has_shrunk = shorter, True
            else:
                start += size
        if size > 1:
            size //= 2
        elif not has_shrunk:
            break
    return replace(plan, operations=operations)
