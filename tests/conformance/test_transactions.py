"""What functions can observe of writes, transactions and reactivity: F79–F116 of
docs/reference/functions.md, one test per statement.

Not part of this release, by decision of the public API: F94 (placeholders for the commit's
timestamp), F110 (a Python function cannot be kept from the clock or the network; it is told where
the deterministic ones are) and F116 (stale snapshots). F98 cannot happen: a mutation that lost five
times runs alone and wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactive_store.errors import ConvexError
from reactive_store.functions.runner import SessionRequest
from reactive_store.limits import Limits
from reactive_store.values.value import UNSET
from tests.functions.running import INLINE, FailedCall, Running, user

SCHEMA = """
schema = define_schema({
    "t": define_table(v.any()).index("by_a", ["a"]),
    "strict": define_table({"name": v.string(), "age": v.optional(v.number())}),
})
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    async with Running.open(tmp_path, {"inline": INLINE}, schema=SCHEMA) as running:
        yield running


async def put(store: Running, *documents: dict[str, Any], table: str = "t") -> list[str]:
    async def body(ctx: Any) -> list[str]:
        return [await ctx.db.insert(table, document) for document in documents]

    ids: list[str] = await store.writes(body)
    return ids


async def everything(store: Running, table: str = "t") -> list[Any]:
    found: list[Any] = await store.reads(lambda ctx: ctx.db.query(table).collect())
    return found


async def refused(store: Running, body: Any) -> str:
    with pytest.raises(FailedCall) as caught:
        await store.writes(body)
    return caught.value.failure.message


async def test_f79_system_fields_are_not_the_authors(store: Running):
    (ident,) = await put(store, {})
    for fields, text in (
        ({"_id": ident}, "doesn't match '_id' field"),
        ({"_creationTime": 1}, "doesn't match '_creationTime' field"),
        ({"_x": 1}, "Field '_x' starts with an underscore, which is only allowed for system"),
    ):
        assert text in await refused(store, lambda ctx, fields=fields: ctx.db.insert("t", fields))


async def test_f80_system_tables_are_read_only(store: Running):
    for table in ("_storage", "_tables", "_new"):
        assert "System tables (prefixed with `_`) are read-only." in await refused(
            store, lambda ctx, table=table: ctx.db.insert(table, {})
        )


async def test_f81_a_patch_removes_unset_and_replaces_objects_whole(store: Running):
    (ident,) = await put(store, {"a": 1, "b": 2, "o": {"p": 1, "q": 2}})
    await store.writes(lambda ctx: ctx.db.patch(ident, {"a": UNSET, "o": {"p": 3}, "c": 4}))
    (document,) = await everything(store)
    fields = {name: value for name, value in document.items() if not name.startswith("_")}
    assert fields == {"b": 2, "c": 4, "o": {"p": 3}}


async def test_f82_a_document_must_be_there_to_be_changed(store: Running):
    (ident,) = await put(store, {})
    await store.writes(lambda ctx: ctx.db.delete(ident))
    for body, verb in (
        (lambda ctx: ctx.db.patch(ident, {}), "Update"),
        (lambda ctx: ctx.db.replace(ident, {}), "Replace"),
        (lambda ctx: ctx.db.delete(ident), "Delete"),
    ):
        assert f"{verb} on nonexistent document ID {ident}" in await refused(store, body)


async def test_f83_replace_keeps_the_identity(store: Running):
    (ident,) = await put(store, {"a": 1, "b": 2})
    (before,) = await everything(store)
    await store.writes(lambda ctx: ctx.db.replace(ident, {"c": 3}))
    (after,) = await everything(store)
    assert after == {"_id": ident, "_creationTime": before["_creationTime"], "c": 3}


async def test_f84_a_write_that_changes_nothing_is_none(store: Running):
    (ident,) = await put(store, {"a": 1})
    watch = store.watches(lambda ctx: ctx.db.get(ident))
    await watch.read()
    await store.writes(lambda ctx: ctx.db.patch(ident, {"a": 1}))
    await store.writes(lambda ctx: ctx.db.replace(ident, {"a": 1}))
    assert watch.told == 0


async def test_f85_the_table_may_be_named_and_must_be_right(store: Running):
    (ident,) = await put(store, {"name": "x"}, table="strict")
    for body in (
        lambda ctx: ctx.db.patch("t", ident, {}),
        lambda ctx: ctx.db.replace("t", ident, {}),
        lambda ctx: ctx.db.delete("t", ident),
    ):
        assert 'expected to be an Id<"t">, got Id<"strict"> instead.' in await refused(store, body)
    await store.writes(lambda ctx: ctx.db.patch("strict", ident, {"age": 3}))
    assert (await everything(store, "strict"))[0]["age"] == 3


async def test_f86_a_document_that_does_not_fit_can_be_caught(store: Running):
    wrong = {"name": 3}
    text = await refused(store, lambda ctx: ctx.db.insert("strict", wrong))
    assert (
        'Failed to insert or update a document in table "strict" because it does not match the '
        "schema: "
    ) in text

    async def careful(ctx: Any) -> str:
        try:
            await ctx.db.insert("strict", wrong)
        except Exception:
            await ctx.db.insert("strict", {"name": "right"})
        return "went on"

    assert await store.writes(careful) == "went on"
    assert [d["name"] for d in await everything(store, "strict")] == ["right"]


async def test_f87_documents_have_bounds(store: Running):
    deep: Any = 1
    for _ in range(17):
        deep = [deep]
    for fields, text in (
        ({"a": "x" * 1024 * 1024}, "Value is too large"),
        ({"a": deep}, "levels deep > maximum nesting 16"),
        ({f"f{n}": 1 for n in range(1025)}, "maximum number 1024"),
        ({"a": [1] * 8193}, "Array length is too long (8193 > maximum length 8192)"),
    ):
        assert text in await refused(store, lambda ctx, fields=fields: ctx.db.insert("t", fields))


async def test_f88_own_writes_are_seen_by_nobody_else(store: Running):
    async def body(ctx: Any) -> list[Any]:
        ident = await ctx.db.insert("t", {"a": 1})
        others = len(await everything(store))
        await ctx.db.patch(ident, {"a": 2})
        return [
            (await ctx.db.get(ident))["a"],
            len(await ctx.db.query("t").with_index("by_a", a=1).collect()),
            len(await ctx.db.query("t").with_index("by_a", a=2).collect()),
            others,
        ]

    assert await store.writes(body) == [2, 0, 1, 0]
    assert len(await everything(store)) == 1


async def test_f89_what_writes_return(store: Running):
    async def body(ctx: Any) -> list[Any]:
        ident = await ctx.db.insert("t", {})
        return [
            ident == (await ctx.db.get(ident))["_id"],
            await ctx.db.patch(ident, {"a": 1}),
            await ctx.db.replace(ident, {}),
            await ctx.db.delete(ident),
        ]

    assert await store.writes(body) == [True, None, None, None]


async def test_f90_an_uncaught_error_undoes_everything(store: Running):
    async def body(ctx: Any) -> None:
        await ctx.db.insert("t", {})
        await ctx.db.insert("new_table", {})
        raise ValueError("no")

    await refused(store, body)
    assert await everything(store) == []
    assert store.database.catalog.table_number("new_table") is None


async def test_f91_f92_a_caught_child_undoes_itself_only(store: Running):
    async def child(ctx: Any) -> None:
        await ctx.db.insert("t", {"n": "child"})
        raise ConvexError("child")

    async def count(ctx: Any) -> int:
        return len(await ctx.db.query("t").collect())

    async def parent(ctx: Any) -> list[int]:
        await ctx.db.insert("t", {"n": "before"})
        counts = [await ctx.run_query("inline:read", key=store.keep(count))]
        with pytest.raises(ConvexError):
            await ctx.run_mutation("inline:write", key=store.keep(child))
        counts.append(await count(ctx))
        await ctx.db.insert("t", {"n": "after"})
        return counts

    assert await store.writes(parent) == [1, 1]
    assert [d["n"] for d in await everything(store)] == ["before", "after"]


async def test_f93_a_failed_child_gives_its_budget_back_but_its_reads_stay(tmp_path: Path):
    limits = replace(Limits(), written_documents=5)
    async with Running.open(tmp_path, {"inline": INLINE}, schema=SCHEMA, limits=limits) as store:
        waiting = asyncio.Event()
        go_on = asyncio.Event()
        runs = []

        async def child(ctx: Any) -> None:
            await ctx.db.query("t").with_index("by_a", a=1).collect()
            for _ in range(4):
                await ctx.db.insert("strict", {"name": "child"})
            raise ConvexError("child")

        async def parent(ctx: Any) -> None:
            runs.append(1)
            with pytest.raises(ConvexError):
                await ctx.run_mutation("inline:write", key=store.keep(child))
            for _ in range(4):
                await ctx.db.insert("strict", {"name": "parent"})
            waiting.set()
            await go_on.wait()

        running = asyncio.create_task(store.writes(parent))
        await waiting.wait()
        await put(store, {"a": 1})  # what only the child has read
        go_on.set()
        await running
        assert len(runs) == 2
        assert len(await everything(store, "strict")) == 4


# Transactions.


async def test_f95_two_that_read_and_write_one_document_both_succeed(store: Running):
    (ident,) = await put(store, {"n": 0})

    async def add(ctx: Any) -> int:
        n = (await ctx.db.get(ident))["n"]
        await asyncio.sleep(0.002)
        await ctx.db.patch(ident, {"n": n + 1})
        return int(n)

    assert sorted(await asyncio.gather(*(store.writes(add) for _ in range(6)))) == list(range(6))
    assert (await everything(store))[0]["n"] == 6


async def test_f96_inserts_that_read_nothing_do_not_conflict(store: Running):
    await put(store, {})

    async def insert(ctx: Any) -> None:
        await ctx.db.insert("t", {"a": 1})
        await asyncio.sleep(0.002)

    await asyncio.gather(*(store.writes(insert) for _ in range(20)))
    assert store.database.statistics().conflicts == 0
    assert len(await everything(store)) == 21


async def test_f97_an_empty_range_is_read_too(store: Running):
    """Only one of two that insert when nothing is there may find nothing."""

    async def insert_if_none(ctx: Any) -> bool:
        if await ctx.db.query("t").with_index("by_a", a=1).first() is not None:
            return False
        await asyncio.sleep(0.002)
        await ctx.db.insert("t", {"a": 1})
        return True

    results = await asyncio.gather(*(store.writes(insert_if_none) for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]
    assert len(await everything(store)) == 1


async def test_f98_whoever_keeps_losing_wins_in_the_end(store: Running):
    (ident,) = await put(store, {"n": 0})
    stop = asyncio.Event()
    runs = []

    async def quick(ctx: Any) -> None:
        await ctx.db.patch(ident, {"n": (await ctx.db.get(ident))["n"] + 1})

    async def slow(ctx: Any) -> None:
        runs.append(1)
        n = (await ctx.db.get(ident))["n"]
        await asyncio.sleep(0.005)
        await ctx.db.patch(ident, {"n": n + 1000})

    async def storm() -> None:
        while not stop.is_set():
            await store.writes(quick)

    storming = asyncio.create_task(storm())
    await asyncio.wait_for(store.writes(slow), 10)
    stop.set()
    await storming
    assert len(runs) == 6
    assert (await everything(store))[0]["n"] > 1000


async def test_f99_an_exception_is_not_retried(store: Running):
    runs = []

    async def body(ctx: Any) -> None:
        runs.append(1)
        raise ValueError("no")

    await refused(store, body)
    assert len(runs) == 1


# Reactivity.


async def test_f100_other_documents_do_not_matter_to_a_get(store: Running):
    one, two = await put(store, {}, {})
    watch = store.watches(lambda ctx: ctx.db.get(one))
    await watch.read()
    await store.writes(lambda ctx: ctx.db.patch(two, {"a": 1}))
    assert watch.told == 0
    await store.writes(lambda ctx: ctx.db.patch(one, {"a": 1}))
    assert watch.told == 1


async def test_f101_moving_into_and_out_of_a_range(store: Running):
    one, two = await put(store, {"a": 1}, {"a": 2})
    watch = store.watches(lambda ctx: ctx.db.query("t").with_index("by_a", a=1).collect())
    await watch.read()
    await store.writes(lambda ctx: ctx.db.patch(two, {"a": 3}))
    assert watch.told == 0
    await store.writes(lambda ctx: ctx.db.patch(two, {"a": 1}))
    assert watch.told == 1
    assert len(await watch.read()) == 2
    await store.writes(lambda ctx: ctx.db.patch(one, {"a": 9}))
    assert watch.told == 2


async def test_f102_a_filtered_scan_runs_again_only_for_what_passes(store: Running):
    """More precise than Convex, which runs it again for any write to the table."""
    one, two = await put(store, {"a": 1}, {"a": 2})
    watch = store.watches(
        lambda ctx: ctx.db.query("t").filter(lambda f: f.eq(f.field("a"), 1)).collect()
    )
    await watch.read()
    await store.writes(lambda ctx: ctx.db.patch(two, {"a": 3}))
    assert watch.told == 0
    await store.writes(lambda ctx: ctx.db.patch(one, {"b": 3}))
    assert watch.told == 1


async def test_f103_what_comes_after_the_first_does_not_matter(store: Running):
    await put(store, {"a": 2})
    watch = store.watches(lambda ctx: ctx.db.query("t").with_index("by_a").first())
    await watch.read()
    await put(store, {"a": 3})
    assert watch.told == 0
    await put(store, {"a": 1})
    assert watch.told == 1


async def test_f104_an_equal_answer_need_not_be_sent(store: Running):
    watch = store.watches(lambda ctx: _sum(ctx))
    before = await watch.result()
    await put(store, {"n": 0})
    after = await watch.result()
    assert watch.told == 1
    assert (after.fingerprint, after.modification) == (before.fingerprint, before.modification)


async def _sum(ctx: Any) -> int:
    return sum([document["n"] async for document in ctx.db.query("t")])


async def test_f105_answers_are_shared_until_somebody_looks_at_the_identity(store: Running):
    async def open_to_all(ctx: Any) -> int:
        return len(await ctx.db.query("t").collect())

    async def personal(ctx: Any) -> Any:
        return (await ctx.auth.get_user_identity()).subject

    shared = [store.watches(open_to_all, by=user(name)) for name in "abc"]
    assert [await watch.read() for watch in shared] == [0, 0, 0]
    assert store.live.counters.runs == 1
    own = [store.watches(personal, by=user(name)) for name in "abc"]
    assert [await watch.read() for watch in own] == ["a", "b", "c"]


async def test_f106_errors_are_not_kept_for_the_next_one(store: Running):
    runs = []

    async def body(ctx: Any) -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("the first time")
        return len(runs)

    first = store.watches(body)
    assert (await first.result()).failed
    assert await store.watches(body).read() == 2


async def test_f107_f108_time_stands_still_and_does_not_end_an_answer(store: Running):
    async def body(ctx: Any) -> bool:
        before = ctx.now
        await asyncio.sleep(0.003)
        return bool(ctx.now == before)

    watch = store.watches(body)
    assert await watch.read() is True
    await asyncio.sleep(0.01)
    await put(store, {})
    assert watch.told == 0


async def test_f109_chance_is_the_same_for_all_while_the_answer_holds(store: Running):
    async def body(ctx: Any) -> float:
        return float(ctx.random.random())

    one, two = store.watches(body), store.watches(body, by=user("other"))
    assert await one.read() == await two.read()


async def test_f111_mutations_sent_one_after_the_other_take_effect_in_that_order(store: Running):
    for n in range(10):
        await store.writes(lambda ctx, n=n: ctx.db.insert("t", {"n": n}))
    assert [d["n"] for d in await everything(store)] == list(range(10))


async def test_f112_a_request_takes_effect_once(store: Running):
    runs = []

    async def body(ctx: Any) -> int:
        runs.append(1)
        await ctx.db.insert("t", {})
        return len(runs)

    key = store.keep(body)
    request = SessionRequest("s", 1)
    results = [await store.mutation("inline:write", at=request, key=key) for _ in range(3)]
    assert results == [1, 1, 1]
    assert len(await everything(store)) == 1


async def test_f113_a_variable_matters_to_who_read_it(store: Running):
    await store.backend.environment.update({"A": "1", "B": "1"})

    async def read_a(ctx: Any) -> str:
        return str(ctx.env["A"])

    async def read_b(ctx: Any) -> str:
        return str(ctx.env["B"])

    a, b = store.watches(read_a), store.watches(read_b)
    await a.read()
    await b.read()
    await store.backend.environment.update({"A": "2"})
    assert (a.told, b.told) == (1, 0)
    assert await a.read() == "2"


async def test_f114_answers_at_one_timestamp_agree(store: Running):
    """However commits fall between the reads, answers at one timestamp are of one state."""

    async def count(ctx: Any) -> int:
        return len(await ctx.db.query("t").collect())

    async def last(ctx: Any) -> Any:
        document = await ctx.db.query("t").order("desc").first()
        return None if document is None else document["n"]

    counting, latest = store.watches(count), store.watches(last)
    for n in range(20):
        at = store.now
        counted = await counting.read(at)
        await put(store, {"n": n})
        newest = await latest.read(at)
        assert counted == (0 if newest is None else newest + 1) == n


async def test_f115_a_mutations_timestamp_is_that_of_its_state(store: Running):
    watch = store.watches(lambda ctx: ctx.db.query("t").collect())
    await watch.read()
    key = store.keep(lambda ctx: ctx.db.insert("t", {"n": 1}))
    outcome = await store.outcome("mutation", "inline:write", {"key": key}, user("u"))
    ts = outcome.ts  # type: ignore[union-attr]
    assert ts is not None
    assert len(await watch.read(ts)) == 1
    assert await store.query("inline:read", key=store.keep(lambda ctx: ctx.db.query("t").collect()))
