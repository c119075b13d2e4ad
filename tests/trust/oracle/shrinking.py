"""Makes a world that diverges small: fewer events, shorter programs, a simpler schema.

Each round proposes worlds with something taken out, the largest pieces first, and keeps what still
diverges. Nothing is proposed twice; `attempts` bounds the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tests.trust.oracle.driving import Divergence, Figures, play
from tests.trust.oracle.worlds import World

__all__ = ["WorldFailed", "diverges", "report", "shrink", "size_of"]


class WorldFailed(Exception):
    """Something other than a divergence came out of a world; its cause is what."""

    def __init__(self, world: World, error: Exception) -> None:
        super().__init__(f"seed {world.seed}, {type(error).__name__}: {error}\n\n{_test(world)}")


def diverges(world: World, figures: Figures | None = None) -> Divergence | None:
    """How the product and the oracle part in this world, or None.

    Raises   WorldFailed
    """
    try:
        asyncio.run(play(world, figures))
    except Divergence as divergence:
        return divergence
    except Exception as error:
        raise WorldFailed(world, error) from error
    return None


def shrink(
    world: World, divergence: Divergence, *, attempts: int = 400
) -> tuple[World, Divergence]:
    """The smallest world found that still diverges, and how."""
    world = replace(world, events=world.events[: divergence.step + 1])
    tried: set[str] = set()
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _candidates(world):
            text = repr(candidate)
            if text in tried:
                continue
            if len(tried) >= attempts:
                return world, divergence
            tried.add(text)
            try:
                found = diverges(candidate)
            except WorldFailed:
                continue  # not smaller but something else
            if found is not None:
                world, divergence, is_smaller = candidate, found, True
                break
    return world, divergence


def report(world: World, divergence: Divergence) -> str:
    """What to read first, and a test to paste."""
    return f"seed {world.seed}, {divergence}\n\n{_test(world)}"


def _test(world: World) -> str:
    return (
        "As a test (imports: asyncio; inf, nan from math; Int64; UNSET; World, Table; play):\n\n"
        "def test_this_world_agrees_with_the_oracle() -> None:\n"
        f"    asyncio.run(play({_shown(world)}))\n"
    )


def size_of(world: World) -> int:
    """Events, those of a rush one by one."""
    return sum(len(event[1]) if event[0] == "rush" else 1 for event in world.events)


def _shown(world: World) -> str:
    events = "".join(f"            {event!r},\n" for event in world.events)
    return (
        f"World(\n        {world.seed},\n        {world.tables!r},\n        {world.store!r},\n"
        f"        {world.memory},\n        (\n{events}        ),\n    )"
    )


def _candidates(world: World) -> Iterator[World]:
    for events in _without_pieces(world.events):
        yield replace(world, events=events)
    for at, event in enumerate(world.events):
        for simpler in _simpler_event(event):
            yield replace(world, events=(*world.events[:at], simpler, *world.events[at + 1 :]))
    if world.store != "memory":
        yield replace(world, store="memory")
    if world.memory:
        yield replace(world, memory=0)
    used = repr(world.events)
    for name, table in world.tables.items():
        others = {other: each for other, each in world.tables.items() if other != name}
        if f"'{name}'" not in used and f"ref:{name}'" not in repr(others):
            yield replace(world, tables=others)
        for index in table.indexes:
            if f"'{index}'" not in used:
                kept = {other: paths for other, paths in table.indexes.items() if other != index}
                yield replace(world, tables={**world.tables, name: replace(table, indexes=kept)})


def _without_pieces(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    size = len(items)
    while size:
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
        size //= 2


def _simpler_event(event: Any) -> Iterator[Any]:
    match event:
        case ("commit", mutations):
            for simpler in _simpler_mutations(mutations):
                yield ("commit", simpler)
        case ("reconnect", client, mutations):
            for simpler in _simpler_mutations(mutations):
                yield ("reconnect", client, simpler)
        case ("rush", events):
            for fewer in _without_pieces(events):
                yield ("rush", fewer)
            for at, inner in enumerate(events):
                for simpler in _simpler_event(inner):
                    yield ("rush", (*events[:at], simpler, *events[at + 1 :]))
        case ("watch", client, program):
            for simpler in _simpler_program(program):
                yield ("watch", client, simpler)


def _simpler_mutations(mutations: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    mutations = tuple(mutations)
    for fewer in _without_pieces(mutations):
        yield fewer
    for at, writes in enumerate(mutations):
        for fewer in _without_pieces(writes):
            yield (*mutations[:at], fewer, *mutations[at + 1 :])


def _simpler_program(program: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for fewer in _without_pieces(program):
        if fewer:
            yield fewer
    for at, step in enumerate(program):
        for simpler in _simpler_step(step):
            yield (*program[:at], simpler, *program[at + 1 :])


def _simpler_step(step: Any) -> Iterator[Any]:
    match step:
        case ("if", scan, then, otherwise):
            yield from (*then, *otherwise)
            yield ("scan", scan)
            for simpler in _simpler_scan(scan):
                yield ("if", simpler, then, otherwise)
        case ("join" | "refuse" | "scan", scan, *rest):
            if step[0] != "scan":
                yield ("scan", scan)
            for simpler in _simpler_scan(scan):
                yield (step[0], simpler, *rest)


def _simpler_scan(scan: Any) -> Iterator[Any]:
    table, index, bounds, conditions, order, ending = scan
    for fewer in _without_pieces(conditions):
        yield (table, index, bounds, fewer, order, ending)
    if bounds:
        yield (table, index, bounds[:-1], conditions, order, ending)
    elif index is not None:
        yield (table, None, (), conditions, order, ending)
    if order == "desc":
        yield (table, index, bounds, conditions, None, ending)
    if ending != "collect":
        yield (table, index, bounds, conditions, order, "collect")
