"""Dependencies between transactions, and the shortest cycles among them.

A cycle means that no serial order exists. What it consists of says which rule was broken:

    G0          writes only (ww)
    G1c         writes and reads of writes (ww, wr)
    G-single    and one read of what was overwritten later (rw)
    G2          and several of those
    order       nothing but orders that contradict each other

with `-session`, `-realtime` or `-timestamp` behind when it takes the order in which a client saw
things happen, the clock on the wall, or the timestamps the store gave out, to close the cycle.

Source: Adya, "Weak Consistency" (1999) for the classes; Kingsbury and Alvaro, "Elle" (2020) for
finding them by their edges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["RT", "RW", "SS", "TS", "WR", "WW", "Cycle", "Graph", "Step"]

WW, WR, RW, SS, RT, TS = 1, 2, 4, 8, 16, 32
_WORDS = {WW: "ww", WR: "wr", RW: "rw", SS: "session", RT: "realtime", TS: "timestamp"}
_DATA = WW | WR | RW

# How many edges are looked at per class in one knot of transactions. What is found by then is the
# shortest cycle through the starts that were tried.
_MOST_EFFORT = 1_000_000


class Step(NamedTuple):
    """One edge: `source` comes before `target`."""

    source: int
    target: int
    kind: int
    why: str


@dataclass(frozen=True, slots=True)
class Cycle:
    """A closed walk."""

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """Its class."""
        kinds = [step.kind for step in self.steps]
        antis = kinds.count(RW)
        if antis > 1:
            name = "G2"
        elif antis == 1:
            name = "G-single"
        elif WR in kinds:
            name = "G1c"
        else:
            name = "G0" if WW in kinds else "order"
        for kind in (TS, RT, SS):
            if kind in kinds:
                return f"{name}-{_WORDS[kind]}"
        return name

    @property
    def ids(self) -> tuple[int, ...]:
        """The transactions on it."""
        return tuple(step.source for step in self.steps)

    def __str__(self) -> str:
        return "\n".join(
            f"  T{step.source} before T{step.target} ({_WORDS[step.kind]}): {step.why}"
            for step in self.steps
        )


class Graph:
    """Edges between transactions 0 … count - 1; several kinds may lie between two."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._edges: list[dict[int, int]] = [{} for _ in range(count)]  # target → kinds
        self._why: dict[tuple[int, int, int], tuple[str, object, object]] = {}

    def add(
        self,
        source: int,
        target: int,
        kind: int,
        why: str = "",
        first: object = "",
        second: object = "",
    ) -> None:
        """An edge. `why` may have two places for `first` and `second`; the first reason stays."""
        if source == target:
            return
        targets = self._edges[source]
        kinds = targets.get(target, 0)
        if not kinds & kind:
            targets[target] = kinds | kind
            self._why[source, target, kind] = (why, first, second)

    def __len__(self) -> int:
        return len(self._why)

    def cycles(self) -> Iterator[Cycle]:
        """Of every knot the shortest cycle of each class, of the most telling family only."""
        for knot in self._knots(range(self.count), _DATA | SS | RT | TS):
            yield from self._cycles_in(set(knot))

    def _cycles_in(self, knot: set[int]) -> list[Cycle]:
        for extra, family in ((0, 0), (SS, SS), (SS | RT, RT), (SS | RT | TS, TS)):
            found: dict[str, Cycle] = {}
            for first, rest, needed in (
                (family or WW, WW | extra, 0),
                (WR, WW | WR | extra, family),
                (RW, WW | WR | extra, family),
                (RW, _DATA | extra, family or RW),
            ):
                cycle = self._shortest(knot, first, rest, needed)
                if cycle is not None:
                    known = found.get(cycle.name)
                    if known is None or len(cycle.steps) < len(known.steps):
                        found[cycle.name] = cycle
            if found:
                return list(found.values())
        return []

    def _shortest(self, knot: set[int], first: int, rest: int, needed: int) -> Cycle | None:
        """The shortest cycle of one edge `first` and others of `rest`, one of them `needed`."""
        best: list[tuple[int, int, int]] | None = None
        effort = _MOST_EFFORT
        for part in self._knots(knot, first | rest):
            members = set(part)
            for source in part:
                for target, kinds in self._edges[source].items():
                    if not kinds & first or target not in members:
                        continue
                    longest = len(members) if best is None else len(best) - 2
                    path, cost = self._path(members, target, source, rest, needed, longest)
                    effort -= cost
                    if path is not None:
                        best = [(source, target, first), *path]
                    if effort < 0 or (best is not None and len(best) == 2):
                        return self._explained(best)
        return self._explained(best)

    def _path(
        self, members: set[int], start: int, end: int, allowed: int, needed: int, longest: int
    ) -> tuple[list[tuple[int, int, int]] | None, int]:
        """The fewest edges from start to end, at most `longest`; and how many were looked at."""
        begin = (start, needed == 0)  # a state: where, and whether a `needed` edge was met
        came: dict[tuple[int, bool], tuple[tuple[int, bool], int, int]] = {begin: (begin, 0, 0)}
        queue = deque([begin])
        cost = 1
        while queue:
            state = queue.popleft()
            here, met = state
            length = came[state][2]
            if here == end and met:
                path = []
                while state != begin:
                    before, kind, _ = came[state]
                    path.append((before[0], state[0], kind))
                    state = before
                return path[::-1], cost
            if length == longest:
                continue
            cost += len(self._edges[here])
            for target, kinds in self._edges[here].items():
                kinds &= allowed
                if not kinds or target not in members:
                    continue
                kind = kinds & needed if not met and kinds & needed else kinds
                kind &= -kind
                following = (target, met or bool(kind & needed))
                if following not in came:
                    came[following] = (state, kind, length + 1)
                    queue.append(following)
        return None, cost

    def _explained(self, path: list[tuple[int, int, int]] | None) -> Cycle | None:
        if path is None:
            return None
        steps = []
        for source, target, kind in path:
            text, first, second = self._why[source, target, kind]
            steps.append(Step(source, target, kind, text.format(first, second)))
        return Cycle(tuple(steps))

    def _knots(self, among: Iterable[int], kinds: int) -> Iterator[list[int]]:
        """Strongly connected components of more than one (Tarjan, without recursion)."""
        members = among if isinstance(among, set | range) else set(among)
        order: dict[int, int] = {}
        low: dict[int, int] = {}
        on_stack: set[int] = set()
        stack: list[int] = []
        edges = self._edges
        for root in members:
            if root in order:
                continue
            order[root] = low[root] = len(order)
            stack.append(root)
            on_stack.add(root)
            work = [(root, iter(edges[root].items()))]
            while work:
                here, targets = work[-1]
                for target, of_kinds in targets:
                    if not of_kinds & kinds or target not in members:
                        continue
                    if target not in order:
                        order[target] = low[target] = len(order)
                        stack.append(target)
                        on_stack.add(target)
                        work.append((target, iter(edges[target].items())))
                        break
                    if target in on_stack and order[target] < low[here]:
                        low[here] = order[target]
                else:
                    work.pop()
                    if work and low[here] < low[work[-1][0]]:
                        low[work[-1][0]] = low[here]
                    if low[here] == order[here]:
                        knot = []
                        while not knot or knot[-1] != here:
                            knot.append(stack.pop())
                            on_stack.discard(knot[-1])
                        if len(knot) > 1:
                            yield knot
