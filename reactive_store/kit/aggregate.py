"""Counts, sums and ranks over ordered items, each in time that grows with the logarithm.

An aggregate keeps (key, id, value) items in order of key, then id, for each namespace. It answers
how many there are, what their values add up to, which is the first, the last or the n-th, and how
many come before a key; over all items or between bounds.

    scores = TableAggregate("scores", key=lambda doc: doc["score"])
    triggers.register("games", scores.trigger)
    better = await scores.count(ctx, bounds=Bounds(gt=1200))

How it is stored
- Everything is an entry (level, position, count, sum) in one table that the app declares
  (`aggregate_tables`). A position is the list [key, id]; the index of the table orders positions,
  so keys of any type compare as they do everywhere else.
- Level 0 is the items. An entry of a higher level stands for the entries of the level below it from
  its position up to the next one's, and holds their number of items and the sum of their values.
  Each of these levels begins with an entry at the position [].
- How high an item reaches is decided by a hash of its id: one in eight is a position of level 1 as
  well, one in 64 of level 2, and so on. So the shape depends on the items alone, not on the order
  in which they came, and adding or removing one touches one entry per level, about eight where it
  is itself a position of the level.
- There is no single root that every change would have to touch. The topmost level may have
  256 entries; when it outgrows that, a mutation builds the next level with an eighth of it.
  Mutations at different places of the order change different entries and do not conflict.

Invariants: every entry above level 0 agrees with the level below; removing an item undoes adding
it. `tests/kit/test_aggregate.py` compares with a sorted list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from reactive_store import (
    UNSET,
    DatabaseReader,
    DatabaseWriter,
    Document,
    MutationCtx,
    Query,
    QueryCtx,
    TableDefinition,
    define_table,
    v,
)
from reactive_store.kit.triggers import Change

__all__ = ["Aggregate", "Bounds", "Item", "TableAggregate", "aggregate_tables"]

_TABLE: Final = "aggregates"
_INDEX: Final = "by_position"

_FAN_OUT_BITS: Final = 3  # eight entries of a level are one of the next, on average
_HIGHEST: Final = 16

# Positions compare as lists do, and a list that goes on comes after one that ends. These compare
# after every id and after every key that is no object: bounds for "all with this key" and "all
# keys that begin so".
_AFTER_IDS: Final[list[Any]] = []
_AFTER_KEYS: Final[dict[str, Any]] = {}

Order = Literal["asc", "desc"]


def aggregate_tables(table: str = _TABLE) -> dict[str, TableDefinition]:
    """The table of all aggregates, to be merged into the schema."""
    fields = {
        "name": v.string(),
        "namespace": v.any(),
        "level": v.number(),
        "position": v.array(v.any()),
        "count": v.number(),
        "sum": v.number(),
    }
    index = ["name", "namespace", "level", "position"]
    return {table: define_table(fields).index(_INDEX, index)}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which keys count: `Bounds(gte=10, lt=20)`. Without any, all of them.

    `prefix` is for keys that are lists, and goes alone: all keys that begin with these elements.

    Raises   TypeError for two lower or two upper bounds, or a prefix beside others
    """

    gt: Any = UNSET
    gte: Any = UNSET
    lt: Any = UNSET
    lte: Any = UNSET
    prefix: list[Any] | tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        lower = [each for each in (self.gt, self.gte) if each is not UNSET]
        upper = [each for each in (self.lt, self.lte) if each is not UNSET]
        if len(lower) > 1 or len(upper) > 1:
            raise TypeError("Bounds take one of gt and gte, and one of lt and lte")
        if self.prefix is not None and (lower or upper):
            raise TypeError("Bounds take a prefix alone, without gt, gte, lt, lte")

    def positions(self) -> tuple[list[Any], list[Any] | None]:
        """The first position inside and the first one after; None: there is no end."""
        if self.prefix is not None:
            return [list(self.prefix)], [[*self.prefix, _AFTER_KEYS]]
        start: list[Any] = []
        end: list[Any] | None = None
        if self.gte is not UNSET:
            start = [self.gte]
        elif self.gt is not UNSET:
            start = [self.gt, _AFTER_IDS]
        if self.lt is not UNSET:
            end = [self.lt]
        elif self.lte is not UNSET:
            end = [self.lte, _AFTER_IDS]
        return start, end


_EVERYTHING: Final = Bounds()


@dataclass(frozen=True, slots=True)
class Item:
    """One item of an aggregate."""

    key: Any
    id: str
    value: float = 0


@dataclass(frozen=True, slots=True)
class _Sum:
    """How many items there are in a range, and what their values add up to."""

    count: float = 0
    sum: float = 0

    def __add__(self, other: _Sum) -> _Sum:
        return _Sum(self.count + other.count, self.sum + other.sum)

    def __sub__(self, other: _Sum) -> _Sum:
        return self + -other

    def __neg__(self) -> _Sum:
        return _Sum(-self.count, -self.sum)


class Aggregate:
    """An aggregate whose items the app adds and removes itself. Made once, at module level.

    Shapes   keys: any values without objects inside; ids: strings, unique within a namespace and
             key; values: numbers. Sums are exact for whole numbers up to 2**53
             widest: about how many entries the topmost level grows to. More mutations run without
             conflicts in a wide one, and walks read more
    Cost     "a walk" below reads the topmost level, then some eight entries of each one below;
             there is one more level for each factor of eight items beyond `widest`
    """

    def __init__(self, name: str, *, table: str = _TABLE, widest: int = 256) -> None:
        self._name = name
        self._table = table
        self._widest = widest

    # Changes.

    async def insert(self, ctx: MutationCtx, item: Item, *, namespace: Any = None) -> None:
        """Add an item.

        Cost     one write per level and one for the item
        Raises   ValueError when it is there already
        """
        if not await self.insert_if_missing(ctx, item, namespace=namespace):
            raise ValueError(
                f"{item.id} with key {item.key!r} is in aggregate {self._name} already: use "
                "insert_if_missing() where items may be added twice"
            )

    async def insert_if_missing(
        self, ctx: MutationCtx, item: Item, *, namespace: Any = None
    ) -> bool:
        """Add an item that is not there; whether it was added."""
        entries = self._entries(ctx, namespace)
        position = [item.key, item.id]
        if await entries.at(0, position) is not None:
            return False
        await _add(_Writer(ctx.db, entries), position, _Sum(1, item.value))
        return True

    async def delete(self, ctx: MutationCtx, item: Item, *, namespace: Any = None) -> None:
        """Remove an item, found by key and id.

        Cost     one write per level and one for the item
        Raises   ValueError when it is not there
        """
        if not await self.delete_if_present(ctx, item, namespace=namespace):
            raise ValueError(
                f"{item.id} with key {item.key!r} is not in aggregate {self._name}: add the "
                "documents that were there before it, or use delete_if_present()"
            )

    async def delete_if_present(
        self, ctx: MutationCtx, item: Item, *, namespace: Any = None
    ) -> bool:
        """Remove an item if it is there; whether it was."""
        entries = self._entries(ctx, namespace)
        found = await entries.at(0, [item.key, item.id])
        if found is None:
            return False
        await _remove(_Writer(ctx.db, entries), found)
        return True

    async def clear(
        self, ctx: MutationCtx, *, namespace: Any = None, limit: int | None = None
    ) -> bool:
        """Remove every item of a namespace; whether none is left.

        Shapes   limit: how many items to remove at most, where all are too many for a transaction
        """
        entries = self._entries(ctx, namespace)
        if limit is not None:
            items = await entries.between(0, [], None).take(limit)
            for item in items:
                await _remove(_Writer(ctx.db, entries), item)
            if len(items) == limit:
                return False
        for entry in await entries.all().collect():
            await ctx.db.delete(entry["_id"])
        return True

    # Questions.

    async def count(
        self, ctx: QueryCtx, *, namespace: Any = None, bounds: Bounds = _EVERYTHING
    ) -> int:
        """How many items there are. A walk for each bound."""
        return int((await self._total(ctx, namespace, bounds)).count)

    async def sum(
        self, ctx: QueryCtx, *, namespace: Any = None, bounds: Bounds = _EVERYTHING
    ) -> float:
        """What the items' values add up to. A walk for each bound."""
        return (await self._total(ctx, namespace, bounds)).sum

    async def min(
        self, ctx: QueryCtx, *, namespace: Any = None, bounds: Bounds = _EVERYTHING
    ) -> Item | None:
        """The first item in order; None when there is none. Reads one entry."""
        found = await self._items(ctx, namespace, bounds).first()
        return None if found is None else _item(found)

    async def max(
        self, ctx: QueryCtx, *, namespace: Any = None, bounds: Bounds = _EVERYTHING
    ) -> Item | None:
        """The last item in order; None when there is none. Reads one entry."""
        found = await self._items(ctx, namespace, bounds).order("desc").first()
        return None if found is None else _item(found)

    async def at(
        self, ctx: QueryCtx, offset: int, *, namespace: Any = None, bounds: Bounds = _EVERYTHING
    ) -> Item | None:
        """The item with `offset` items before it; None beyond the last.

        A negative offset counts from the end: -1 is the last. A walk, two with a lower bound or a
        negative offset.
        """
        entries = self._entries(ctx, namespace)
        start, end = bounds.positions()
        passed = await _within(entries, [], start) if start else _Sum()
        total = passed + await _within(entries, start, end)
        wanted = offset + (passed.count if offset >= 0 else total.count)
        if not passed.count <= wanted < total.count:
            return None
        found = await _find(entries, wanted)
        return None if found is None else _item(found)

    async def offset_of(
        self,
        ctx: QueryCtx,
        key: Any,
        *,
        id: str | None = None,
        namespace: Any = None,
        bounds: Bounds = _EVERYTHING,
        order: Order = "asc",
    ) -> int:
        """How many items come before a key: its rank, counted from zero.

        Shapes   id: count up to that item among those with the same key; without it, before all of
                 them. order: "desc" counts the items that come after instead
        Cost     a walk for each bound and one for the key
        """
        entries = self._entries(ctx, namespace)
        start, end = bounds.positions()
        if order == "asc":
            found = await _within(entries, start, [key] if id is None else [key, id])
        else:
            after = [key, _AFTER_IDS] if id is None else [key, id + "\0"]
            found = await _within(entries, after, end)
        # The key itself may lie outside of the bounds, beyond the end that was not looked at.
        if (end if order == "asc" else start or None) is None:
            return int(found.count)
        return int(min(found.count, (await _within(entries, start, end)).count))

    def _entries(self, ctx: QueryCtx, namespace: Any) -> _Entries:
        return _Entries(ctx.db, self._table, self._name, namespace, self._widest)

    def _items(self, ctx: QueryCtx, namespace: Any, bounds: Bounds) -> Query:
        start, end = bounds.positions()
        return self._entries(ctx, namespace).between(0, start, end)

    async def _total(self, ctx: QueryCtx, namespace: Any, bounds: Bounds) -> _Sum:
        start, end = bounds.positions()
        return await _within(self._entries(ctx, namespace), start, end)


class TableAggregate(Aggregate):
    """An aggregate of the documents of a table, kept up to date by a trigger.

    Shapes   key, value, namespace: functions of a document. Without `key` items are ordered by
             their ids alone, which spreads changes best: right for plain counts and sums
    """

    def __init__(
        self,
        name: str,
        *,
        key: Callable[[Document], Any] = lambda _document: None,
        value: Callable[[Document], float] = lambda _document: 0,
        namespace: Callable[[Document], Any] = lambda _document: None,
        table: str = _TABLE,
        widest: int = 256,
    ) -> None:
        super().__init__(name, table=table, widest=widest)
        self._key = key
        self._value = value
        self._namespace = namespace

    def item(self, document: Document) -> Item:
        """What a document is in this aggregate."""
        return Item(self._key(document), document["_id"], self._value(document))

    async def trigger(self, ctx: MutationCtx, change: Change) -> None:
        """Follow a change: `triggers.register("games", scores.trigger)`.

        Documents that were there before the aggregate are missing from it until `backfill` has
        added them; changing or deleting one that is missing is no error.
        """
        old, new = change.old, change.new
        db = ctx.replace(db=change.inner_db)  # nobody has a trigger on the aggregate's own table
        if old is not None and new is not None:
            same = self.item(old) == self.item(new)
            if same and self._namespace(old) == self._namespace(new):
                return
        if old is not None:
            await self.delete_if_present(db, self.item(old), namespace=self._namespace(old))
        if new is not None:
            await self.insert_if_missing(db, self.item(new), namespace=self._namespace(new))

    async def backfill(self, ctx: MutationCtx, document: Document) -> bool:
        """Add a document that was there before the aggregate; whether it was missing.

        For a migration that goes over the table in batches while the trigger is in place already.
        """
        return await self.insert_if_missing(
            ctx, self.item(document), namespace=self._namespace(document)
        )


# ---- how entries are found and changed ----


class _Entries:
    """The entries of one namespace of one aggregate, as they are stored."""

    __slots__ = ("_db", "_name", "_namespace", "table", "widest")

    def __init__(
        self, db: DatabaseReader, table: str, name: str, namespace: Any, widest: int
    ) -> None:
        self._db = db
        self.table = table
        self.widest = widest
        self._name = name
        self._namespace = namespace

    def all(self) -> Query:
        """Every entry, and the one that says how many levels there are."""
        return self._db.query(self.table).with_index(
            _INDEX, name=self._name, namespace=self._namespace
        )

    def fields(self, level: int, position: list[Any], total: _Sum) -> dict[str, Any]:
        """A new entry."""
        return {
            "name": self._name,
            "namespace": self._namespace,
            "level": level,
            "position": position,
            "count": total.count,
            "sum": total.sum,
        }

    async def levels(self) -> tuple[int, Document | None]:
        """How many levels there are above the items, and the entry that says so."""
        found = await self.at(-1, [])
        return (0 if found is None else int(found["count"])), found

    async def at(self, level: int, position: list[Any]) -> Document | None:
        """The entry at exactly that position."""
        return await self._level(level, lambda r: r.eq("position", position)).first()

    async def covering(self, level: int, position: list[Any]) -> Document:
        """The last entry that begins at or before a position, of a level above the items."""
        return _there(
            await self._level(level, lambda r: r.lte("position", position)).order("desc").first()
        )

    async def preceding(self, level: int, position: list[Any]) -> Document:
        """The last entry that begins before a position, of a level above the items."""
        return _there(
            await self._level(level, lambda r: r.lt("position", position)).order("desc").first()
        )

    async def next_position(self, level: int, position: list[Any]) -> list[Any] | None:
        """Where the entry ends that covers a position; None: it is the last."""
        found = await self._level(level, lambda r: r.gt("position", position)).first()
        return None if found is None else found["position"]

    def between(self, level: int, start: list[Any], end: list[Any] | None) -> Query:
        """The entries of a level that begin in a range."""
        if end is None:
            return self._level(level, lambda r: r.gte("position", start))
        return self._level(level, lambda r: r.gte("position", start).lt("position", end))

    def _level(self, level: int, bounds: Callable[[Any], Any]) -> Query:
        name, namespace = self._name, self._namespace
        return self._db.query(self.table).with_index(
            _INDEX,
            lambda r: bounds(r.eq("name", name).eq("namespace", namespace).eq("level", level)),
        )


class _Writer:
    """Changes entries."""

    __slots__ = ("_db", "entries")

    def __init__(self, db: DatabaseWriter, entries: _Entries) -> None:
        self._db = db
        self.entries = entries

    async def insert(self, level: int, position: list[Any], total: _Sum) -> None:
        await self._db.insert(self.entries.table, self.entries.fields(level, position, total))

    async def change(self, entry: Document, by: _Sum) -> None:
        total = _sum(entry) + by
        await self._db.patch(entry["_id"], {"count": total.count, "sum": total.sum})

    async def delete(self, entry: Document) -> None:
        await self._db.delete(entry["_id"])


async def _within(entries: _Entries, start: list[Any], end: list[Any] | None) -> _Sum:
    """What the items from one position to another come to. Reads nothing outside of the two."""
    levels, _ = await entries.levels()
    return await _part(entries, levels, start, end, is_whole=end is None)


async def _part(
    entries: _Entries, level: int, start: list[Any], end: list[Any] | None, *, is_whole: bool
) -> _Sum:
    """The same, by the entries of a level and, at both ends, those below it.

    `is_whole`: an entry of this level begins at `end`, so the one before it ends there.
    """
    first: list[Any] | None = None
    last: Document | None = None
    total = _Sum()
    async for entry in entries.between(level, start, end):
        if last is None:
            first = entry["position"]
        else:
            total += _sum(last)
        last = entry
    if last is None or first is None:
        if level == 0:
            return total
        return await _part(entries, level - 1, start, end, is_whole=is_whole)
    if level == 0 or is_whole:
        total += _sum(last)
    else:
        total += await _part(entries, level - 1, last["position"], end, is_whole=False)
    if level > 0 and first != start:
        total += await _part(entries, level - 1, start, first, is_whole=True)
    return total


async def _find(entries: _Entries, offset: float) -> Document | None:
    """The item with so many before it."""
    level, _ = await entries.levels()
    start: list[Any] = []
    while True:
        inside: Document | None = None
        async for entry in entries.between(level, start, None):
            if offset < entry["count"]:
                inside = entry
                break
            offset -= entry["count"]
        if inside is None or level == 0:
            return inside
        start = inside["position"]
        level -= 1


async def _add(writer: _Writer, position: list[Any], item: _Sum) -> None:
    entries = writer.entries
    height = _height(position)
    levels, state = await entries.levels()
    await writer.insert(0, position, item)
    for level in range(1, levels + 1):
        covering = await entries.covering(level, position)
        if level > height:
            await writer.change(covering, item)
            continue
        # It is where an entry of this level begins: the one it falls into is split there.
        right = _Sum()
        end = await entries.next_position(level, position)
        async for below in entries.between(level - 1, position, end):
            right += _sum(below)
        await writer.insert(level, position, right)
        await writer.change(covering, item - right)
    # Whether a level has grown too wide takes reading all of it, which conflicts with every other
    # change; so only one in 64 of its entries looks.
    if height >= levels + 2 and levels < _HIGHEST:
        await _grow(writer, levels, state)


async def _grow(writer: _Writer, levels: int, state: Document | None) -> None:
    """Build a further level when the topmost one has become too wide."""
    entries = writer.entries
    top = await entries.between(levels, [], None).collect()
    if len(top) <= entries.widest:
        return
    position: list[Any] = []
    total = _Sum()
    for entry in top:
        here = entry["position"]
        if here and _height(here) > levels:
            await writer.insert(levels + 1, position, total)
            position, total = here, _Sum()
        total += _sum(entry)
    await writer.insert(levels + 1, position, total)
    if state is None:
        await writer.insert(-1, [], _Sum(1))
    else:
        await writer.change(state, _Sum(1))


async def _remove(writer: _Writer, item: Document) -> None:
    entries = writer.entries
    position = item["position"]
    height = _height(position)
    levels, _ = await entries.levels()
    gone = _sum(item)
    await writer.delete(item)
    for level in range(1, levels + 1):
        if level > height:
            await writer.change(await entries.covering(level, position), -gone)
            continue
        # What began here falls to the entry before.
        entry = await entries.at(level, position)
        preceding = await entries.preceding(level, position)
        moved = _sum(_there(entry)) - gone
        await writer.delete(_there(entry))
        await writer.change(preceding, moved)


def _height(position: list[Any]) -> int:
    """Up to which level a position begins an entry, by its id."""
    digest = hashlib.blake2b(str(position[-1]).encode(), digest_size=8).digest()
    bits = int.from_bytes(digest, "big") | 1 << (_HIGHEST * _FAN_OUT_BITS)
    return ((bits & -bits).bit_length() - 1) // _FAN_OUT_BITS


def _sum(entry: Mapping[str, Any]) -> _Sum:
    return _Sum(entry["count"], entry["sum"])


def _item(entry: Mapping[str, Any]) -> Item:
    key, identity = entry["position"]
    return Item(key, identity, entry["sum"])


def _there(entry: Document | None) -> Document:
    if entry is None:
        raise LookupError(
            "an aggregate's table lacks entries: only Aggregate may write to it. Clear the "
            "aggregate and add its items again"
        )
    return entry
