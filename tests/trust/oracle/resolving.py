"""From references by position to ids, values and cursors, as they are at the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.trust.oracle.model import State

__all__ = ["PageSource", "page_of", "resolved_program", "resolved_writes"]

PageSource = tuple[Any, str]
"""A page somebody has: its scan without the ending, and where it goes on."""

_UNKNOWN = object()


def resolved_program(program: Sequence[Any], state: State, pages: Sequence[PageSource]) -> Any:
    """The program with ids for positions and cursors for sources.

    What refers to a document of an empty table is left out, or null where it stands for a value.
    """
    return tuple(_step(step, state, pages) for step in program)


def _step(step: Any, state: State, pages: Sequence[PageSource]) -> Any:
    match step:
        case ("get", reference):
            return ("get", _value(reference, state))
        case ("scan", scan) | ("refuse", scan):
            return (step[0], _scan(scan, state, pages))
        case ("join", scan, name):
            return ("join", _scan(scan, state, pages), name)
        case ("if", scan, then, otherwise):
            return (
                "if",
                _scan(scan, state, pages),
                resolved_program(then, state, pages),
                resolved_program(otherwise, state, pages),
            )
        case _:
            return step


def _scan(scan: Any, state: State, pages: Sequence[PageSource]) -> Any:
    table, index, bounds, conditions, order, ending = scan
    if ending[0] == "page":
        _, size, source, side = ending
        if source is not None and pages:
            same, cursor = pages[source % len(pages)]
            start, end = (cursor, None) if side == "from" else (None, cursor)
            return (*same, ("page", size, start, end))
        ending = ("page", size, None, None)
    placed = []
    for comparator, path, reference in bounds:
        value = _value(reference, state)
        if value is None and path in ("_id", "_creationTime"):
            break
        placed.append((comparator, path, value))
    tests = tuple(_condition(condition, state) for condition in conditions)
    return (table, index, tuple(placed), tests, order, ending)


def _condition(condition: Any, state: State) -> Any:
    kind = condition[0]
    if kind in ("and", "or", "not"):
        return (kind, *(_condition(part, state) for part in condition[1:]))
    if kind in ("paths", "sum", "is"):
        return condition
    comparator, path, value, style = condition
    return (comparator, path, _value(value, state), style)


def _value(value: Any, state: State) -> Any:
    if not isinstance(value, tuple):
        return value
    what, table, place = value
    docs = list(state.get(table, {}).values())
    if not docs:
        return None
    doc = docs[place % len(docs)]
    return doc.id if what == "doc" else doc.created


def page_of(program: Sequence[Any]) -> Any:
    """The scan a resolved program takes its page of, without the ending, or None."""
    for step in program:
        if step[0] == "scan" and step[1][5][0] == "page":
            return step[1][:5]
        if step[0] == "if" and (found := page_of((*step[2], *step[3]))) is not None:
            return found
    return None


def resolved_writes(
    writes: Sequence[Any], state: State, gone: dict[str, set[str]]
) -> tuple[Any, ...]:
    """The writes with ids for positions; those without a target are left out.

    `gone` names documents that an earlier mutation of the same burst deletes; what this one
    deletes is added. A document of this very mutation is ("new", its number).
    """
    present: dict[str, list[Any]] = {
        table: [each for each in docs if each not in gone.get(table, ())]
        for table, docs in state.items()
    }
    return tuple(_Placing(state, present, gone).place(writes))


class _Placing:
    """The documents there are while the writes of a mutation are gone through."""

    def __init__(
        self, state: State, present: dict[str, list[Any]], gone: dict[str, set[str]]
    ) -> None:
        self._state = state
        self._present = present
        self._gone = gone
        self._inserts = 0

    def place(self, writes: Sequence[Any], *, nested: bool = False) -> list[Any]:
        placed: list[Any] = []
        for write in writes:
            match write:
                case ("insert", table, fields):
                    placed.append(("insert", table, self._fields(fields)))
                    self._inserted(table, nested)
                case ("nested", inner, fails):
                    placed.append(self._nest(inner, fails))
                case ("raise",):
                    placed.append(write)
                case (kind, table, place, *rest):
                    target = self._target(kind, table, place, nested)
                    if target is not _UNKNOWN:
                        placed.append((kind, table, target, *map(self._fields, rest)))
        return placed

    def _nest(self, inner: Sequence[Any], fails: bool) -> Any:
        before = {table: list(docs) for table, docs in self._present.items()}
        gone = {table: set(ids) for table, ids in self._gone.items()}
        placed = ("nested", tuple(self.place(inner, nested=True)), fails)
        if fails:
            self._present.clear()
            self._present.update(before)
            self._gone.clear()
            self._gone.update(gone)
        return placed

    def _inserted(self, table: str, nested: bool) -> None:
        if not nested:  # the outer mutation counts its own documents only
            self._present.setdefault(table, []).append(("new", self._inserts))
        self._inserts += 1

    def _target(self, kind: str, table: str, place: int, nested: bool) -> Any:
        docs = self._present.get(table, [])
        known = [each for each in docs if isinstance(each, str)] if nested else docs
        if not known:
            return _UNKNOWN
        target = known[place % len(known)]
        if kind in ("delete", "again"):
            docs.remove(target)
            if isinstance(target, str):
                self._gone.setdefault(table, set()).add(target)
        if kind == "again":
            self._inserted(table, nested)
        return target

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _value(value, self._state) for name, value in fields.items()}
