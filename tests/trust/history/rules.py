"""Rules of the app that every state keeps, as clients can see them: in each query and each push.

    money    the sum over two tables stays
    wards    of each ward somebody is on call (write skew)
    seats    no more than two in a group, and no name twice (phantoms)
    notes    a list only grows; what a client wrote stays where it saw it (sessions)

`Beholder` is a client's eye: it is shown everything the client is told, in order, and keeps what
breaks a rule.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from tests.trust.history.workload import Step

__all__ = ["OWNERS", "QUERIES", "RULES", "WARDS", "Beholder", "call_of", "make_rule_plan"]

RULES = ("money", "wards", "seats", "notes")
OWNERS = ("ann", "bob", "cem")
WARDS = ("north", "south")
GROUPS = ("table", "bench")
_SUM = len(OWNERS) * 2 * 1000
_SEATS = 2
_NOTES = "lnotes"

QUERIES: list[tuple[str, dict[str, Any]]] = [
    ("rules:checkingTotal", {}),
    ("rules:savingsTotal", {}),
    ("rules:total", {}),
    ("rules:onCall", {"wards": list(WARDS)}),
    *(("rules:seated", {"group": group}) for group in GROUPS),
    ("txns:read", {"keys": [_NOTES]}),
]


def make_rule_plan(
    seed: int, *, clients: int, steps: int, rules: Sequence[str] = RULES, pauses: int = 4
) -> list[list[Step]]:
    """What each client does; only about the rules named. Its calls are in `Step.ops`."""
    chance = random.Random(seed)
    plan = []
    for client in range(clients):
        own = []
        for number in range(steps):
            path, args = _call(chance, chance.choice(rules), f"c{client}", client * 1000 + number)
            if path.startswith("rules"):
                args["pauses"] = [chance.randrange(pauses + 1) for _ in range(2)]
            own.append(Step("mutation", ((path, json.dumps(args)),), chance.randrange(4)))
        plan.append(own)
    return plan


def _call(chance: random.Random, rule: str, name: str, element: int) -> tuple[str, dict[str, Any]]:
    match rule:
        case "money":
            giver, taker = chance.choice(OWNERS), chance.choice(OWNERS)
            cents = chance.randrange(-50, 50)
            return "rules:transfer", {"giver": giver, "taker": taker, "cents": cents}
        case "wards":
            path = chance.choice(("rules:leave", "rules:come"))
            return path, {"ward": chance.choice(WARDS), "name": chance.choice("ab")}
        case "seats":
            path = chance.choice(("rules:sit", "rules:sit", "rules:standUp"))
            return path, {"group": chance.choice(GROUPS), "name": name}
        case _:
            turns = chance.randrange(4)
            return "txns:txn", {"ops": [["pause", turns], ["append", _NOTES, element]]}


def call_of(step: Step) -> tuple[str, dict[str, Any]]:
    """The path and arguments of a step."""
    ((path, args),) = step.ops
    return path, json.loads(args)


class Beholder:
    """What one client has been told, against the rules."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.looks = 0
        self.problems: list[str] = []
        self._notes: list[Any] = []
        # What its own mutations say: a note or a seat is there, or not.
        self._own_notes: set[Any] = set()
        self._own_seats: dict[str, bool] = {}

    def answered(self, path: str, args: dict[str, Any], answer: Any) -> None:
        """A mutation of the client has ended: from now on its effect has to be in sight."""
        if path == "txns:txn":
            self._own_notes.add(args["ops"][-1][2])
        elif path in ("rules:sit", "rules:standUp") and answer:
            self._own_seats[args["group"]] = path == "rules:sit"

    def asked(self, path: str, args: dict[str, Any]) -> None:
        """A mutation is under way: what it changes may be seen from now on."""
        if path in ("rules:sit", "rules:standUp"):
            self._own_seats.pop(args["group"], None)

    def look(self, values: Sequence[Any]) -> None:
        """The answers of QUERIES, all of one instant."""
        self.looks += 1
        checking, savings, total, on_call, *seated, (notes,) = values
        if checking + savings != _SUM:
            self._blame(f"money: {checking} and {savings} are not {_SUM}")
        if total != _SUM:
            self._blame(f"money: one query saw {total}, not {_SUM}")
        for ward, count in zip(WARDS, on_call, strict=True):
            if not 1 <= count <= 2:
                self._blame(f"wards: {count} on call in {ward}")
        for group, names in zip(GROUPS, seated, strict=True):
            if len(names) > _SEATS or len(set(names)) < len(names):
                self._blame(f"seats: {names} at the {group}")
            own = self._own_seats.get(group)
            if own is not None and (self.name in names) is not own:
                state = "sits" if own else "has left"
                self._blame(f"seats: {self.name} {state}, and was shown {names} at the {group}")
        if notes[: len(self._notes)] != self._notes:
            self._blame(f"notes: {self._notes} became {notes}")
        missing = self._own_notes - set(notes)
        if missing:
            self._blame(f"notes: own {sorted(missing)} not among {notes}")
        self._notes = notes

    def _blame(self, text: str) -> None:
        self.problems.append(f"{self.name}, look {self.looks}: {text}")
