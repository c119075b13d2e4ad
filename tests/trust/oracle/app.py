"""The app of every world: one query and one mutation that carry out the program they are given.

A program travels as an argument. A value in it that may be missing travels in a list: `[value]`,
`[]` for a missing one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from reactive_store import ConvexError, MutationCtx, QueryCtx, v
from reactive_store.functions.app import App
from reactive_store.functions.definitions import FunctionDef, FunctionKind
from reactive_store.values.value import UNSET
from reactive_store.values.wire import dumps
from tests.trust.oracle.model import count_inserts
from tests.trust.oracle.worlds import Table, schema_of

__all__ = ["ASK", "WRITE", "Runs", "app_of", "question", "writing"]

ASK = "oracle.js:ask"
WRITE = "oracle.js:write"


class Runs:
    """How often each program was run, by its arguments; while `counting`."""

    def __init__(self) -> None:
        self.counting = True
        self.of: dict[bytes, int] = {}

    def note(self, program: Any) -> None:
        if self.counting:
            args = dumps({"program": program})
            self.of[args] = self.of.get(args, 0) + 1

    def take(self) -> dict[bytes, int]:
        taken, self.of = self.of, {}
        return taken


def app_of(tables: Mapping[str, Table], runs: Runs) -> App:
    """The app for a schema; it reports to `runs`."""

    async def ask(ctx: QueryCtx, program: Any) -> Any:
        runs.note(program)
        return await _Asking(ctx).run(program)

    async def write(ctx: MutationCtx, program: Any) -> Any:
        told: list[Any] = []
        await _write(ctx, program, told)
        return told

    args = v.object({"program": v.any()})
    functions = {
        ASK: FunctionDef(FunctionKind.QUERY, "public", ask, args=args).at(ASK),
        WRITE: FunctionDef(FunctionKind.MUTATION, "public", write, args=args).at(WRITE),
    }
    return App(schema_of(dict(tables)), MappingProxyType(functions))


# ---- from resolved programs to arguments ----


def question(program: Any) -> bytes:
    """The arguments that ask a resolved program."""
    return dumps({"program": [_step(step) for step in program]})


def writing(writes: Any) -> bytes:
    """The arguments of a mutation, given resolved writes."""
    return dumps({"program": [_portable(write) for write in writes]})


def _boxed(value: Any) -> list[Any]:
    return [] if value is UNSET else [value]


def _step(step: Any) -> Any:
    match step:
        case ("scan", scan) | ("refuse", scan):
            return [step[0], _scan(scan)]
        case ("join", scan, name):
            return ["join", _scan(scan), name]
        case ("if", scan, then, otherwise):
            return ["if", _scan(scan), list(map(_step, then)), list(map(_step, otherwise))]
        case _:
            return list(step)


def _scan(scan: Any) -> Any:
    table, index, bounds, conditions, order, ending = scan
    return {
        "table": table,
        "index": list(index) if isinstance(index, tuple) else index,
        "bounds": [[comparator, path, _boxed(value)] for comparator, path, value in bounds],
        "conditions": list(map(_condition, conditions)),
        "order": order,
        "ending": [ending] if isinstance(ending, str) else list(ending),
    }


def _condition(condition: Any) -> Any:
    kind = condition[0]
    if kind in ("and", "or", "not"):
        return [kind, *map(_condition, condition[1:])]
    if kind in ("paths", "sum", "is"):
        return list(condition)
    comparator, path, value, style = condition
    return [comparator, path, _boxed(value), style]


def _portable(write: Any) -> Any:
    match write:
        case ("patch", table, target, changes):
            return ["patch", table, target, {name: _boxed(each) for name, each in changes.items()}]
        case ("nested", writes, fails):
            return ["nested", list(map(_portable, writes)), fails, count_inserts(writes)]
        case _:
            return list(write)


# ---- the query ----

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda left, right: left == right,
    "neq": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
}


class _Asking:
    """One run of a program."""

    def __init__(self, ctx: QueryCtx) -> None:
        self.ctx = ctx

    async def run(self, steps: list[Any]) -> list[Any]:
        return [await self.step(step) for step in steps]

    async def step(self, step: list[Any]) -> Any:
        db = self.ctx.db
        match step:
            case ["get", id]:
                return None if id is None else await db.get(id)
            case ["scan", scan]:
                return await self.scan(scan)
            case ["join", scan, name]:
                pairs = []
                for doc in _as_list(await self.scan(scan)):
                    other = doc[name]
                    pairs.append([doc, await db.get(other) if isinstance(other, str) else None])
                return pairs
            case ["if", scan, then, otherwise]:
                return await self.run(then if _as_list(await self.scan(scan)) else otherwise)
            case ["refuse", scan]:
                found = _as_list(await self.scan(scan))
                if found:
                    raise ConvexError({"found": len(found)})
                return None
            case ["pause", turns]:
                for _ in range(turns):
                    await asyncio.sleep(0)
                return None
            case _:
                identity = await self.ctx.auth.get_user_identity()
                return None if identity is None else identity.subject

    async def scan(self, scan: dict[str, Any]) -> Any:
        query = self.ctx.db.query(scan["table"])
        if isinstance(scan["index"], list):
            query = query.with_search_index(
                scan["index"][1], lambda builder: _range(builder, scan["bounds"])
            )
        elif scan["index"] is not None:
            query = query.with_index(scan["index"], lambda builder: _range(builder, scan["bounds"]))
        for condition in scan["conditions"]:
            query = query.filter(lambda f, condition=condition: _expression(f, condition))
        if scan["order"] is not None:
            query = query.order(scan["order"])
        match scan["ending"]:
            case ["take", count]:
                return await query.take(count)
            case ["walk", count]:
                return await _walk(query, count)
            case ["page", size, start, end]:
                options = {"numItems": size, "cursor": start}
                return await query.paginate(
                    options if end is None else {**options, "endCursor": end}
                )
            case [name]:
                ending: Awaitable[Any] = getattr(query, name)()
                return await ending


async def _walk(query: Any, count: int) -> list[Any]:
    """Some documents of a query whose walk is then given up."""
    walk = aiter(query)
    found: list[Any] = []
    while len(found) < count:
        try:
            found.append(await anext(walk))
        except StopAsyncIteration:
            break
    return found


def _as_list(found: Any) -> list[Any]:
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def _unboxed(boxed: list[Any]) -> Any:
    return boxed[0] if boxed else UNSET


def _range(builder: Any, bounds: list[Any]) -> Any:
    for comparator, path, boxed in bounds:
        builder = getattr(builder, comparator)(path, _unboxed(boxed))
    return builder


def _expression(f: Any, condition: list[Any]) -> Any:
    match condition:
        case ["and", *parts]:
            return f.and_(*[_expression(f, part) for part in parts])
        case ["or", left, right]:
            return _expression(f, left) | _expression(f, right)
        case ["not", part]:
            return f.not_(_expression(f, part))
        case ["paths", comparator, left, right]:
            return getattr(f, comparator)(f.field(left), f.field(right))
        case ["sum", path, addend, least]:
            return f.field(path) + addend > least
        case ["is", path]:
            return f.field(path)
    comparator, path, boxed, style = condition
    field, value = f.field(path), _unboxed(boxed)
    if style == "py":
        return _OPERATORS[comparator](field, value)
    if style == "swap":
        return getattr(f, _MIRRORED[comparator])(value, field)
    return getattr(f, comparator)(field, value)


_MIRRORED = {"eq": "eq", "neq": "neq", "lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}


# ---- the mutation ----


async def _write(ctx: MutationCtx, writes: list[Any], told: list[Any]) -> None:
    db = ctx.db

    async def insert(table: str, fields: Any) -> None:
        new = await db.insert(table, fields)
        doc = await db.get(new)
        assert doc is not None
        told.append({"id": new, "born": doc["_creationTime"]})

    for write in writes:
        match write:
            case ["insert", table, fields]:
                await insert(table, fields)
            case ["nested", inner, fails, inserts]:
                await _nested(ctx, inner, fails=fails, inserts=inserts, told=told)
            case ["raise"]:
                raise ConvexError("as told")
            case [kind, table, target, *rest]:
                place = target if isinstance(target, str) else told[target[1]]["id"]
                if kind == "patch":
                    changes = {name: _unboxed(boxed) for name, boxed in rest[0].items()}
                    await db.patch(place, changes)
                elif kind == "replace":
                    await db.replace(place, rest[0])
                elif kind == "delete":
                    await db.delete(place)
                else:
                    doc = await db.get(place)
                    assert doc is not None
                    own = {name: value for name, value in doc.items() if name[0] != "_"}
                    if kind == "touch":
                        await db.patch(place, own)
                    else:
                        await db.delete(place)
                        await insert(table, own)


async def _nested(
    ctx: MutationCtx, writes: list[Any], *, fails: bool, inserts: int, told: list[Any]
) -> None:
    if not fails:
        told += await ctx.run_mutation(WRITE, program=writes)
        return
    try:
        await ctx.run_mutation(WRITE, program=[*writes, ["raise"]])
    except ConvexError:
        told += [None] * inserts
