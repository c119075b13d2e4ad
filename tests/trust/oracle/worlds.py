"""Random worlds: a schema, and a history of writes, watches, lost sockets and restarts, as data.

A `World` prints as the Python that makes it, so a failing one can be pasted into a test. References
inside are by position ("the third document of this table that is there"), so that a history with a
step taken out is a history still.

    value        a value, or ("doc", table, n) for the id of the n-th document there is
    bound        (comparator, field, value)
    condition    ("eq" | "neq" | "lt" | "lte" | "gt" | "gte", path, value, "f" | "py" | "swap")
                 ("paths", comparator, path, path), ("sum", path, addend, least), ("is", path)
                 ("and" | "or", condition, …), ("not", condition)
    scan         (table, index or None, bounds, conditions, order or None, ending)
                 (table, ("search", index), (("search", field, text), ("eq", field, value) …),
                 conditions, None, ending)
    ending       "collect" "first" "unique" ("take", n) ("walk", n)
                 ("page", n, whose cursor, "from" | "to" it)
    step         ("get", value) ("scan", scan) ("join", scan, field) ("if", scan, steps, steps)
                 ("refuse", scan) ("who",) ("pause", turns of the loop)
    write        ("insert", table, fields) ("patch" | "replace", table, n, fields)
                 ("delete" | "touch" | "again", table, n) ("nested", writes, fails) ("raise",)
    event        ("commit", mutations) ("watch", client, program) ("unwatch", n)
                 ("reconnect", client, mutations) ("become", client, who) ("restart", how)
                 ("rush", events), one after another before anything has come to rest
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

from reactive_store import Int64, define_schema, define_table, v
from reactive_store.schema.tables import Schema
from reactive_store.values.value import UNSET

__all__ = ["CLIENTS", "POOLS", "WHO", "Table", "World", "random_world", "schema_of"]

WHO = ("nobody", "alice", "bob")
CLIENTS = 3
LATE = "late"  # a table that the schema does not know; it comes into being with its first document

# Few values, near to each other and to the edges of the order, so that ranges are really hit.
_NUMBERS: list[Any] = [0, 1, 2, 1, 2, 3, 2.5, -1, -0.0, inf, -inf, nan]
_TEXTS: list[Any] = ["", "a", "b", "a", "b", "a\0", "a\0b", "aa", "é", "\U0001f600"]
POOLS: dict[str, list[Any]] = {
    "number": _NUMBERS,
    "int64": [Int64(0), Int64(1), Int64(2), Int64(1), Int64(-5), Int64(300), Int64(2**40)],
    "boolean": [False, True],
    "string": _TEXTS,
    "bytes": [b"", b"\0", b"a", b"a\0", b"\xff"],
    "null": [None],
    "any": [None, False, True, 0, 1, Int64(1), "", "a", b"", [], [1], {}, {"x": 1}, {"x": "a"}],
    "optional": [UNSET, UNSET, 0, 1, 2],
    "union": [None, "a", "b", 0, 1, 2],
    "literal": ["x", "y", "z"],
    "array": [[], [1], [1, 2], [2], [nan]],
    "object": [{"x": 1}, {"x": 2}, {"x": "a"}, {"x": 1, "y": "a"}, {"x": 1, "y": "b"}, {"x": None}],
    "record": [{}, {"k": 1}, {"k": 2}, {"k": 1, "l": 0}],
    # Drawn for fields that are searched, and for the texts searched for.
    "words": ["", "a", "b", "a b", "ab", "abc a", "b b a", "c ab", "A, b!", "abd", "c", UNSET],
}
_KINDS = tuple(kind for kind in POOLS if kind != "words")
_VALIDATORS: dict[str, Any] = {
    "number": v.number(),
    "int64": v.int64(),
    "boolean": v.boolean(),
    "string": v.string(),
    "bytes": v.bytes(),
    "null": v.null(),
    "any": v.any(),
    "optional": v.optional(v.number()),
    "union": v.union(v.string(), v.number(), v.null()),
    "literal": v.union(v.literal("x"), v.literal("y"), v.literal("z")),
    "array": v.array(v.number()),
    "object": v.object({"x": v.any(), "y": v.optional(v.string())}),
    "record": v.record(v.string(), v.number()),
    "words": v.optional(v.string()),
}
_COMPARATORS = ("eq", "neq", "lt", "lte", "gt", "gte")


@dataclass(frozen=True)
class Table:
    """`fields` maps names to kinds (keys of the pools, or "ref:table"), `indexes` to paths.

    `searches` maps names to the field searched and those that filter.
    """

    fields: dict[str, str]
    indexes: dict[str, tuple[str, ...]]
    searches: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """`memory` is the budget of hot ranges in bytes; `store` is "memory" or "sqlite"."""

    seed: int
    tables: dict[str, Table]
    store: str
    memory: int
    events: tuple[Any, ...]


def schema_of(tables: dict[str, Table]) -> Schema:
    """The schema as an app declares it."""
    declared = {}
    for name, table in tables.items():
        definition = define_table({field: _validator(kind) for field, kind in table.fields.items()})
        for index, paths in table.indexes.items():
            definition = definition.index(index, list(paths))
        for index, (searched, filters) in table.searches.items():
            definition = definition.search_index(
                index, search_field=searched, filter_fields=filters
            )
        declared[name] = definition
    return define_schema(declared)


def _validator(kind: str) -> Any:
    if kind.startswith("ref:"):
        return v.union(v.id(kind[4:]), v.null())
    return _VALIDATORS[kind]


def random_world(seed: int, *, commits: int = 15, watches: int = 8) -> World:
    """The world of a seed."""
    return _Drawing(seed).world(commits, watches)


class _Drawing:
    """One stream of chance and what was drawn from it so far."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(f"world {seed}")
        # What is searched comes from a stream of its own: the rest of a seed's world is as before.
        self.searching = random.Random(f"searching {seed}")
        self.tables: dict[str, Table] = {}

    def chance(self, of_hundred: int) -> bool:
        return self.random.randrange(100) < of_hundred

    def world(self, commits: int, watches: int) -> World:
        pick = self.random
        names = [f"t{position}" for position in range(pick.randint(1, 4))]
        for name in names:
            self.tables[name] = self.table(names)
        store = "sqlite" if self.chance(12) else "memory"
        memory = pick.choice([0, 1 << 24, 1 << 24, 2500, 6000])
        events: list[Any] = [("commit", (self.filling(),))]
        events += [("become", client, who) for client, who in enumerate(WHO) if self.chance(60)]
        # Some questions are asked by several clients.
        asked = [self.program() for _ in range(max(1, watches * 2 // 3))]
        events += [("watch", pick.randrange(CLIENTS), pick.choice(asked)) for _ in range(watches)]
        left = commits
        while left > 0:
            drawn = pick.randrange(100)
            if drawn < 64:
                left -= 1
                events.append(("commit", (self.mutation(),)))
            elif drawn < 76:
                rush = [self.hasty(asked, watches) for _ in range(pick.randint(2, 4))]
                left -= sum(event[0] == "commit" for event in rush)
                events.append(("rush", tuple(rush)))
            elif drawn < 80:
                left -= 2
                events.append(("commit", tuple(self.mutation() for _ in range(pick.randint(2, 3)))))
            elif drawn < 85:
                program = self.program() if self.chance(50) else pick.choice(asked)
                events.append(("watch", pick.randrange(CLIENTS), program))
            elif drawn < 88:
                events.append(("unwatch", pick.randrange(watches)))
            elif drawn < 94:
                away = tuple(self.mutation() for _ in range(pick.randint(0, 2)))
                left -= len(away)
                events.append(("reconnect", pick.randrange(CLIENTS), away))
            elif drawn < 97:
                events.append(("become", pick.randrange(CLIENTS), pick.choice(WHO)))
            elif store == "sqlite":
                events.append(("restart", pick.choice(["close", "crash"])))
        if store == "sqlite":
            events.append(("restart", pick.choice(["close", "crash"])))
            events.append(("commit", (self.mutation(),)))
        return World(self.seed, self.tables, store, memory, tuple(events))

    def hasty(self, asked: list[Any], watches: int) -> Any:
        drawn = self.random.randrange(100)
        if drawn < 75:
            return ("commit", (self.mutation(),))
        if drawn < 85:
            return ("watch", self.random.randrange(CLIENTS), self.random.choice(asked))
        if drawn < 92:
            return ("unwatch", self.random.randrange(watches))
        return ("reconnect", self.random.randrange(CLIENTS), ())

    # Schemas.

    def table(self, names: list[str]) -> Table:
        pick = self.random
        fields: dict[str, str] = {}
        for name in ("a", "b", "c", "d", "e")[: pick.randint(2, 5)]:
            if self.chance(15):
                fields[name] = f"ref:{pick.choice(names)}"
            else:
                fields[name] = pick.choice(_KINDS)
        paths = list(fields) + [f"{name}.x" for name, kind in fields.items() if kind == "object"]
        indexes: dict[str, tuple[str, ...]] = {}
        for position in range(pick.randint(0, 4)):
            chosen = tuple(pick.sample(paths, min(len(paths), pick.randint(1, 3))))
            if chosen not in indexes.values():
                indexes[f"i{position}"] = chosen
        return self.searchable(fields, indexes)

    def searchable(self, fields: dict[str, str], indexes: dict[str, tuple[str, ...]]) -> Table:
        pick = self.searching
        searches: dict[str, tuple[str, tuple[str, ...]]] = {}
        if pick.randrange(100) < 60:
            paths = tuple(fields)
            fields = {**fields, "words": "words"}
            searches["s0"] = ("words", ())
            searches["s1"] = ("words", tuple(pick.sample(paths, pick.randint(1, 2))))
        return Table(fields, indexes, searches)

    def words(self) -> Any:
        return self.searching.choice(POOLS["words"])

    def value(self, table: str, path: str) -> Any:
        """A value that the field may have."""
        if table == LATE:
            return self.random.choice([1, 2])
        name, _, rest = path.partition(".")
        kind = self.tables[table].fields[name]
        if kind == "words":
            return self.words()
        if kind.startswith("ref:"):
            if self.chance(25):
                return None
            return ("doc", kind[4:], self.random.randrange(6))
        value = self.random.choice(POOLS[kind])
        return value.get(rest, UNSET) if rest else value

    def fields(self, table: str) -> dict[str, Any]:
        if table == LATE:
            return {"a": self.random.choice([1, 2])}
        drawn = {name: self.value(table, name) for name in self.tables[table].fields}
        return {name: value for name, value in drawn.items() if value is not UNSET}

    # Writes.

    def written_table(self) -> str:
        return LATE if self.chance(2) else self.random.choice(list(self.tables))

    def filling(self) -> tuple[Any, ...]:
        writes = []
        for table in self.tables:
            for _ in range(self.random.choice([0, 3, 6, 10, 24])):
                writes.append(("insert", table, self.fields(table)))  # noqa: PERF401
        return tuple(writes)

    def mutation(self) -> tuple[Any, ...]:
        writes = [self.write() for _ in range(self.random.choice([1, 1, 1, 2, 3, 4]))]
        if self.chance(8):
            nested = tuple(self.write() for _ in range(self.random.randint(1, 2)))
            writes.append(("nested", nested, self.chance(60)))
        if self.chance(5):
            writes.append(("raise",))
        return tuple(writes)

    def write(self) -> tuple[Any, ...]:
        table = self.written_table()
        place = self.random.randrange(24)
        drawn = self.random.randrange(100)
        if drawn < 30:
            return ("insert", table, self.fields(table))
        if drawn < 62:
            names = ["a"] if table == LATE else self.plain_fields(table)
            chosen = self.random.sample(names, min(len(names), self.random.choice([1, 1, 2])))
            changes = {name: self.value(table, name) for name in chosen}
            if table != LATE and self.tables[table].searches and self.searching.randrange(2):
                changes["words"] = self.words()
            return ("patch", table, place, changes)
        if drawn < 72:
            return ("replace", table, place, self.fields(table))
        if drawn < 88:
            return ("delete", table, place)
        if drawn < 94:
            return ("touch", table, place)
        return ("again", table, place)

    # Questions.

    def program(self) -> tuple[Any, ...]:
        count = self.random.choice([1, 1, 2, 2, 3])
        steps = [self.step() for _ in range(count)]
        if self.chance(20):
            steps.insert(self.random.randrange(len(steps) + 1), ("who",))
        if self.chance(15):
            steps.insert(self.random.randrange(len(steps)), ("pause", self.random.randint(1, 6)))
        if self.chance(22):
            scan = self.scan()
            size = self.random.choice([1, 2, 3, 5])
            source = self.random.randrange(8) if self.chance(35) else None
            side = "to" if self.chance(30) else "from"
            page = ("scan", (*scan[:5], ("page", size, source, side)))
            # Sometimes the page is only there while something else is.
            steps.append(("if", self.scan(), (page,), ()) if self.chance(15) else page)
        return tuple(steps)

    def step(self) -> tuple[Any, ...]:
        drawn = self.random.randrange(100)
        if drawn < 12:
            table = self.random.choice(list(self.tables))
            return ("get", ("doc", table, self.random.randrange(12)))
        if drawn < 64:
            return ("scan", self.scan())
        if drawn < 86:
            joins = [
                (table, name)
                for table, of in self.tables.items()
                for name, kind in of.fields.items()
                if kind.startswith("ref:")
            ]
            if joins:
                table, name = self.random.choice(joins)
                return ("join", self.scan(table), name)
            return ("scan", self.scan())
        if drawn < 95:
            then = (("who",),) if self.chance(25) else (("scan", self.scan()),)
            otherwise = (("scan", self.scan()),) if self.chance(70) else ()
            return ("if", self.scan(), then, otherwise)
        return ("refuse", self.scan())

    def scan(self, table: str | None = None) -> tuple[Any, ...]:
        walk = self.walk(table)
        if self.searching.randrange(100) < 20 and walk[0] != LATE:
            return self.search(walk)
        return walk

    def search(self, walk: tuple[Any, ...]) -> tuple[Any, ...]:
        """A search in place of a walk through an index, with the rest of it."""
        table, _, _, conditions, _, ending = walk
        pick = self.searching
        searches = self.tables[table].searches
        if not searches:
            return walk
        index = pick.choice(list(searches))
        searched, filters = searches[index]
        text = " ".join(str(self.words()) for _ in range(pick.randint(1, 2)))
        links: list[Any] = [("search", searched, text.replace("UNSET", "a"))]
        for path in filters:
            if pick.randrange(100) < 70:
                links.insert(pick.randint(0, len(links)), ("eq", path, self.filtered(table, path)))
        return (table, ("search", index), tuple(links), conditions, None, ending)

    def filtered(self, table: str, path: str) -> Any:
        kind = self.tables[table].fields[path]
        if kind.startswith("ref:"):
            return ("doc", kind[4:], self.searching.randrange(6))
        return self.searching.choice(POOLS[kind])

    def plain_fields(self, table: str) -> list[str]:
        return [name for name, kind in self.tables[table].fields.items() if kind != "words"]

    def walk(self, table: str | None = None) -> tuple[Any, ...]:
        if table is None:
            table = LATE if self.chance(2) else self.random.choice(list(self.tables))
        index: str | None = None
        bounds: tuple[Any, ...] = ()
        if table != LATE and self.chance(80):
            named = [*self.tables[table].indexes] * 3
            index = self.random.choice([*named, "by_id", "by_creation_time"])
            bounds = self.bounds(table, index)
        paths = ["a"] if table == LATE else self.paths(table)
        conditions = tuple(
            self.condition(table, paths, depth=0)
            for _ in range(self.random.choice([0, 0, 0, 1, 1, 2]))
        )
        order = self.random.choice([None, "asc", "desc", "desc"])
        number = self.random.choice([0, 1, 2, 3, 5])
        ending = self.random.choice(
            [
                "collect",
                "collect",
                "first",
                "unique",
                ("take", number),
                ("take", number),
                ("walk", number),
            ]
        )
        return (table, index, bounds, conditions, order, ending)

    def paths(self, table: str) -> list[str]:
        fields = self.tables[table].fields
        plain = self.plain_fields(table)
        return [*plain, *(f"{name}.x" for name, kind in fields.items() if kind == "object")]

    def bounds(self, table: str, index: str) -> tuple[Any, ...]:
        pick = self.random
        if index in ("by_id", "by_creation_time"):
            field = "_id" if index == "by_id" else "_creationTime"
            declared: tuple[str, ...] = (field,)
        else:
            declared = self.tables[table].indexes[index]
            if self.chance(6):
                declared = (*declared, "_creationTime")
        equal = pick.randint(0, len(declared))
        bounds = [("eq", path, self.bound(table, path)) for path in declared[:equal]]
        if equal < len(declared) and self.chance(75):
            path = declared[equal]
            sides = pick.choice(
                [("gt",), ("gte",), ("lt",), ("lte",), ("gte", "lt"), ("gt", "lte")]
            )
            low_high = [self.bound(table, path) for _ in sides]
            bounds += [(side, path, value) for side, value in zip(sides, low_high, strict=True)]
        return tuple(bounds)

    def bound(self, table: str, path: str) -> Any:
        if path in ("_id", "_creationTime"):
            return ("doc" if path == "_id" else "born", table, self.random.randrange(12))
        if self.chance(6):
            return self.random.choice([UNSET, None, 1, "a", Int64(1)])
        return self.value(table, path)

    def condition(self, table: str, paths: list[str], *, depth: int) -> tuple[Any, ...]:
        pick = self.random
        drawn = pick.randrange(100)
        path = pick.choice(paths)
        if depth < 2 and drawn < 22:
            parts = [self.condition(table, paths, depth=depth + 1) for _ in range(2)]
            return (pick.choice(["and", "or"]), *parts)
        if depth < 2 and drawn < 30:
            return ("not", self.condition(table, paths, depth=depth + 1))
        if drawn < 36:
            return ("paths", pick.choice(_COMPARATORS), path, pick.choice(paths))
        if drawn < 41:
            return ("sum", path, 1, 2)
        if drawn < 44:
            return ("is", path)
        style = pick.choice(["f", "f", "py", "swap"])
        return (pick.choice(_COMPARATORS), path, self.value(table, path), style)
