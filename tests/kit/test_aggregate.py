"""Aggregates against a sorted list, and at once from many sides."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reactive_store import MutationCtx, define_schema, define_table, v
from reactive_store.kit.aggregate import (
    Aggregate,
    Bounds,
    Item,
    TableAggregate,
    aggregate_tables,
)
from reactive_store.kit.triggers import Triggers
from reactive_store.testing import TestBackend

SCHEMA = define_schema(
    {
        **aggregate_tables(),
        "games": define_table({"player": v.string(), "score": v.number()}).index(
            "by_player", ["player"]
        ),
    }
)


async def check_levels(ctx: MutationCtx) -> int:
    """Every entry agrees with the level below; returns how many levels there are."""
    levels: dict[tuple[str, str, int], list[Any]] = {}
    highest = 0
    for entry in await ctx.db.query("aggregates").collect():
        key = (entry["name"], repr(entry["namespace"]), entry["level"])
        levels.setdefault(key, []).append(entry)
    for (name, namespace, level), entries in levels.items():
        if level < 1:
            continue
        highest = max(highest, level)
        entries.sort(key=lambda entry: entry["position"])
        below = sorted(
            levels.get((name, namespace, level - 1), []), key=lambda entry: entry["position"]
        )
        assert entries[0]["position"] == []
        for at, entry in enumerate(entries):
            start = entry["position"]
            end = entries[at + 1]["position"] if at + 1 < len(entries) else None
            inside = [
                each for each in below
                if each["position"] >= start and (end is None or each["position"] < end)
            ]  # fmt: skip
            assert entry["count"] == sum(each["count"] for each in inside)
            assert entry["sum"] == sum(each["sum"] for each in inside)
    return highest


def inside(bounds: Bounds, key: int) -> bool:
    lower = key > bounds.gt if isinstance(bounds.gt, int) else True
    lower = lower and (key >= bounds.gte if isinstance(bounds.gte, int) else True)
    upper = key < bounds.lt if isinstance(bounds.lt, int) else True
    return lower and upper and (key <= bounds.lte if isinstance(bounds.lte, int) else True)


KEYS = st.integers(0, 12)
BOUNDS = st.builds(
    lambda lower, upper: Bounds(**lower, **upper),
    st.sampled_from(["gt", "gte", ""]).flatmap(
        lambda name: KEYS.map(lambda key: {name: key} if name else {})
    ),
    st.sampled_from(["lt", "lte", ""]).flatmap(
        lambda name: KEYS.map(lambda key: {name: key} if name else {})
    ),
)


class AgainstASortedList(RuleBasedStateMachine):
    """One namespace of an aggregate, and the sorted list of (key, id, value) it must equal."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.backend = TestBackend(schema=SCHEMA)
        self.loop.run_until_complete(self.backend.__aenter__())
        # Narrow, so that a few dozen items make several levels.
        self.aggregate = Aggregate("model", widest=4)
        self.items: list[tuple[int, str, int]] = []

    def teardown(self) -> None:
        self.loop.run_until_complete(self.backend.__aexit__(None, None, None))
        self.loop.close()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(self.backend.run(work))

    @rule(items=st.lists(st.tuples(KEYS, st.integers(0, 400), st.integers(-9, 9)), max_size=40))
    def add(self, items: list[tuple[int, int, int]]) -> None:
        async def work(ctx: MutationCtx) -> list[bool]:
            return [
                await self.aggregate.insert_if_missing(ctx, Item(key, f"id{number}", value))
                for key, number, value in items
            ]

        for (key, number, value), added in zip(items, self.run(work), strict=True):
            known = any(each[:2] == (key, f"id{number}") for each in self.items)
            assert added is not known
            if added:
                self.items.append((key, f"id{number}", value))
        self.items.sort()

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(self.items), unique=True, max_size=12))

        async def work(ctx: MutationCtx) -> None:
            for key, identity, _ in gone:
                await self.aggregate.delete(ctx, Item(key, identity))

        self.run(work)
        self.items = [each for each in self.items if each not in gone]

    @rule(bounds=BOUNDS, offset=st.integers(-5, 60), key=KEYS, data=st.data())
    def ask(self, bounds: Bounds, offset: int, key: int, data: st.DataObject) -> None:
        model = [each for each in self.items if inside(bounds, each[0])]
        identity = data.draw(
            st.sampled_from([None, *(each[1] for each in self.items if each[0] == key)])
        )
        here = (key,) if identity is None else (key, identity)
        width = len(here)

        async def work(ctx: MutationCtx) -> None:
            of = self.aggregate
            assert await of.count(ctx, bounds=bounds) == len(model)
            assert await of.sum(ctx, bounds=bounds) == sum(each[2] for each in model)
            first, last = await of.min(ctx, bounds=bounds), await of.max(ctx, bounds=bounds)
            assert first == (Item(*model[0]) if model else None)
            assert last == (Item(*model[-1]) if model else None)
            inside_model = -len(model) <= offset < len(model)
            expected = Item(*model[offset]) if inside_model else None
            assert await of.at(ctx, offset, bounds=bounds) == expected
            before = await of.offset_of(ctx, key, id=identity, bounds=bounds)
            assert before == sum(each[:width] < here for each in model)
            after = await of.offset_of(ctx, key, id=identity, bounds=bounds, order="desc")
            assert after == sum(each[:width] > here for each in model)

        self.run(work)

    @rule(limit=st.integers(1, 30))
    def clear_some(self, limit: int) -> None:
        is_done = self.run(lambda ctx: self.aggregate.clear(ctx, limit=limit))
        self.items = self.items[limit:]
        assert not (is_done and self.items)

    @invariant()
    def levels_agree(self) -> None:
        if hasattr(self, "aggregate"):
            self.run(check_levels)


TestAgainstASortedList = AgainstASortedList.TestCase
TestAgainstASortedList.settings = settings(stateful_step_count=10, deadline=None)


async def test_levels_grow_and_every_offset_is_found():
    aggregate = Aggregate("many", widest=8)
    async with TestBackend(schema=SCHEMA) as t:
        for start in range(0, 800, 100):

            async def add(ctx: MutationCtx, start: int = start) -> None:
                for number in range(start, start + 100):
                    await aggregate.insert(ctx, Item((number * 37) % 800, f"i{number}", 1))

            await t.run(add)
        assert await t.run(check_levels) >= 2

        async def ask(ctx: MutationCtx) -> None:
            assert await aggregate.count(ctx) == await aggregate.sum(ctx) == 800
            for offset in range(0, 800, 7):
                found = await aggregate.at(ctx, offset)
                assert found is not None
                assert found.key == offset
                assert await aggregate.offset_of(ctx, offset) == offset

        await t.run(ask)
        assert await t.run(lambda ctx: aggregate.clear(ctx))
        assert await t.run(lambda ctx: aggregate.count(ctx)) == 0


async def test_namespaces_and_aggregates_do_not_see_each_other():
    one, two = Aggregate("one"), Aggregate("two")

    async def work(ctx: MutationCtx) -> None:
        await one.insert(ctx, Item(1, "a"), namespace="x")
        await one.insert(ctx, Item(1, "a"), namespace=["x", 2])
        await two.insert(ctx, Item(1, "a"), namespace="x")
        await two.insert(ctx, Item(2, "b"), namespace="x")
        assert await one.count(ctx, namespace="x") == 1
        assert await one.count(ctx, namespace=["x", 2]) == 1
        assert await one.count(ctx) == 0
        assert await two.count(ctx, namespace="x") == 2
        await two.clear(ctx, namespace="x")
        assert await one.count(ctx, namespace="x") == 1

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_keys_that_are_lists_can_be_asked_for_by_their_beginning():
    aggregate = Aggregate("scores")

    async def work(ctx: MutationCtx) -> None:
        for number, key in enumerate((["ann"], ["ann", 3], ["ann", 5], ["annette", 1], ["bob"])):
            await aggregate.insert(ctx, Item(key, f"i{number}", 1))
        assert await aggregate.count(ctx, bounds=Bounds(prefix=["ann"])) == 3
        assert await aggregate.count(ctx, bounds=Bounds(prefix=["ann", 5])) == 1
        assert await aggregate.max(ctx, bounds=Bounds(prefix=("ann",))) == Item(["ann", 5], "i2", 1)
        assert await aggregate.count(ctx, bounds=Bounds(gte=["ann", 4], lt=["b"])) == 2

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_keys_of_any_type_have_the_order_of_an_index():
    aggregate = Aggregate("mixed")
    keys = [None, -1.5, 2, True, "a", "é", b"x", [1]]

    async def work(ctx: MutationCtx) -> None:
        for number, key in enumerate(reversed(keys)):
            await aggregate.insert(ctx, Item(key, f"i{number}"))
        found = [await aggregate.at(ctx, offset) for offset in range(len(keys))]
        assert [each.key for each in found if each is not None] == keys
        assert await aggregate.count(ctx, bounds=Bounds(gte="a", lte="é")) == 2

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_what_is_there_twice_or_not_at_all_is_refused():
    aggregate = Aggregate("strict")

    async def work(ctx: MutationCtx) -> None:
        await aggregate.insert(ctx, Item(1, "a"))
        with pytest.raises(ValueError, match="is in aggregate strict already"):
            await aggregate.insert(ctx, Item(1, "a"))
        with pytest.raises(ValueError, match="is not in aggregate strict"):
            await aggregate.delete(ctx, Item(2, "a"))
        assert not await aggregate.delete_if_present(ctx, Item(2, "a"))
        assert await aggregate.count(ctx) == 1
        assert await aggregate.at(ctx, 0) == Item(1, "a", 0)
        assert await aggregate.at(ctx, 1) is None
        assert await aggregate.min(ctx, bounds=Bounds(gt=1)) is None

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


@pytest.mark.parametrize(
    "bounds", [{"gt": 1, "gte": 1}, {"lt": 1, "lte": 2}, {"prefix": [1], "gt": 0}]
)
def test_bounds_that_say_two_things_are_refused(bounds: dict[str, Any]):
    with pytest.raises(TypeError, match="Bounds take"):
        Bounds(**bounds)


async def test_a_trigger_follows_the_documents_of_a_table():
    triggers = Triggers[MutationCtx]()
    by_player = TableAggregate(
        "by_player",
        namespace=lambda game: game["player"],
        key=lambda game: game["score"],
        value=lambda game: game["score"],
    )
    triggers.register("games", by_player.trigger)

    async def play(ctx: MutationCtx) -> None:
        before = await ctx.db.insert("games", {"player": "ann", "score": 1})  # no trigger yet
        ctx = triggers.watch(ctx)
        first = await ctx.db.insert("games", {"player": "ann", "score": 10})
        second = await ctx.db.insert("games", {"player": "ann", "score": 30})
        assert await by_player.count(ctx, namespace="ann") == 2
        await ctx.db.patch(first, {"score": 40})
        assert await by_player.max(ctx, namespace="ann") == Item(40, first, 40)
        await ctx.db.patch(second, {"player": "bob"})
        assert await by_player.sum(ctx, namespace="ann") == 40
        assert await by_player.sum(ctx, namespace="bob") == 30
        await ctx.db.patch(before, {"score": 2})  # was missing, and is there from now on
        assert await by_player.count(ctx, namespace="ann") == 2
        stored = await ctx.db.get(second)
        assert stored is not None
        assert not await by_player.backfill(ctx, stored)
        await ctx.db.delete(second)
        assert await by_player.count(ctx, namespace="bob") == 0
        assert await by_player.backfill(ctx, stored)

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(play)


async def test_mutations_at_once_lose_nothing():
    aggregate = Aggregate("busy", widest=8)

    async with TestBackend(schema=SCHEMA) as t:

        async def client(number: int) -> None:
            for turn in range(20):

                async def work(ctx: MutationCtx, turn: int = turn) -> None:
                    await aggregate.insert(ctx, Item(ctx.random.random(), f"{number}-{turn}", 1))

                await t.run(work)

        await asyncio.gather(*(client(number) for number in range(8)))
        assert await t.run(lambda ctx: aggregate.count(ctx)) == 160
        assert await t.run(lambda ctx: aggregate.sum(ctx)) == 160
        assert await t.run(check_levels) >= 1


async def test_a_live_count_changes_only_with_its_own_range(tmp_path):
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "scores.py").write_text(
        """
from reactive_store import MutationCtx, QueryCtx, mutation, query
from reactive_store.kit.aggregate import Aggregate, Bounds, Item

scores = Aggregate("scores")
RUNS = []

@query
async def runs(ctx: QueryCtx) -> int:
    return len(RUNS)

@query
async def above(ctx: QueryCtx, score: float) -> int:
    RUNS.append(score)
    return await scores.count(ctx, bounds=Bounds(gt=score))

@mutation
async def add(ctx: MutationCtx, score: float, name: str) -> None:
    await scores.insert(ctx, Item(score, name))
""",
        encoding="utf-8",
    )
    async with (
        TestBackend(schema=SCHEMA, functions=functions) as t,
        t.subscribe("scores:above", score=10) as live,
    ):
        assert await live.next() == 0
        await t.mutation("scores:add", score=11, name="a")
        assert await live.next() == 1
        await t.mutation("scores:add", score=9, name="b")
        await t.mutation("scores:add", score=12, name="c")
        assert await live.next() == 2
        assert await t.query("scores:runs") == 3
