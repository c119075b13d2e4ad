"""What functions can observe of reading: F30–F78 of docs/reference/functions.md, one test each.

Every body runs inside a real query or mutation of a running backend.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactive_store.limits import Limits
from reactive_store.values.value import UNSET, Int64
from tests.functions.running import INLINE, FailedCall, Running, user

SCHEMA = """
schema = define_schema({
    "t": define_table(v.any())
        .index("by_a", ["a"]).index("by_a_b", ["a", "b"]).index("by_nested", ["o.p"])
        .search_index("search", search_field="s"),
    "other": define_table(v.any()).index("by_a", ["a"]),
})
"""
NAN = float("nan")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    async with Running.open(tmp_path, {"inline": INLINE}, schema=SCHEMA) as running:
        yield running


async def put(store: Running, *documents: dict[str, Any], table: str = "t") -> list[str]:
    async def body(ctx: Any) -> list[str]:
        return [await ctx.db.insert(table, document) for document in documents]

    ids: list[str] = await store.writes(body)
    return ids


async def refused(store: Running, body: Any) -> str:
    with pytest.raises(FailedCall) as caught:
        await store.reads(body)
    return caught.value.failure.message


def by_a(ctx: Any, *range: Any, **equal: Any) -> Any:
    return ctx.db.query("t").with_index("by_a", *range, **equal)


async def names(store: Running, make: Any) -> list[Any]:
    async def body(ctx: Any) -> list[Any]:
        return [document["n"] for document in await make(ctx).collect()]

    found: list[Any] = await store.reads(body)
    return found


async def test_f30_get_of_what_is_not_there(store: Running):
    (ident,) = await put(store, {})
    await store.writes(lambda ctx: ctx.db.delete(ident))
    assert await store.reads(lambda ctx: ctx.db.get(ident)) is None
    assert "Invalid argument `id` for `db.get`: Unable to decode ID: " in await refused(
        store, lambda ctx: ctx.db.get("junk!")
    )
    unknown = encode_unknown(ident)
    assert await store.reads(lambda ctx: ctx.db.get(unknown)) is None


def encode_unknown(ident: str) -> str:
    from reactive_store.values.ids import decode_id, encode_id

    return encode_id(19999, decode_id(ident).internal_id)


async def test_f31_get_with_the_wrong_table(store: Running):
    (ident,) = await put(store, {}, table="other")
    text = await refused(store, lambda ctx: ctx.db.get("t", ident))
    assert 'expected to be an Id<"t">, got Id<"other"> instead.' in text
    assert (await store.reads(lambda ctx: ctx.db.get("other", ident)))["_id"] == ident


async def test_f32_normalize_id(store: Running):
    (ident,) = await put(store, {})
    (of_other,) = await put(store, {}, table="other")
    await store.writes(lambda ctx: ctx.db.delete(ident))

    async def body(ctx: Any) -> list[Any]:
        return [
            ctx.db.normalize_id(*pair)
            for pair in (("t", ident), ("t", of_other), ("t", "junk"), ("nope", ident))
        ]

    assert await store.reads(body) == [ident, None, None, None]


async def test_f33_system_tables_have_a_reader_of_their_own(store: Running):
    async def wrong_side(ctx: Any) -> None:
        ctx.db.query("_storage")

    async def other_wrong_side(ctx: Any) -> None:
        ctx.db.system.query("users")

    async def hidden(ctx: Any) -> None:
        await ctx.db.system.query("_session_requests").collect()

    assert "System tables can only be accessed from db.system.query()." in await refused(
        store, wrong_side
    )
    assert "User tables can only be accessed from db.query()." in await refused(
        store, other_wrong_side
    )
    await refused(store, hidden)
    for table in ("_storage", "_scheduled_functions"):

        async def visible(ctx: Any, table: str = table) -> Any:
            return await ctx.db.system.query(table).collect()

        assert await store.reads(visible) == []


async def test_f34_a_table_nobody_wrote_is_empty_and_live(store: Running):
    watch = store.watches(lambda ctx: ctx.db.query("never").collect())
    assert await watch.read() == []
    await put(store, {"n": 1}, table="never")
    assert watch.told == 1
    assert [document["n"] for document in await watch.read()] == [1]


async def test_f35_the_order_of_creation_and_its_reverse(store: Running):
    await put(store, *({"n": n, "a": 1} for n in range(5)))
    for make in (lambda ctx: ctx.db.query("t"), lambda ctx: by_a(ctx, a=1)):
        assert await names(store, make) == [0, 1, 2, 3, 4]
        assert await names(store, lambda ctx, make=make: make(ctx).order("desc")) == [4, 3, 2, 1, 0]


async def test_f36_creation_times_of_one_mutation_ascend(store: Running):
    await put(store, *({} for _ in range(50)))
    times = [d["_creationTime"] for d in await store.reads(lambda ctx: ctx.db.query("t").collect())]
    assert times == sorted(set(times))


async def test_f37_ties_are_in_order_of_creation(store: Running):
    await put(store, {"n": 1, "a": 2}, {"n": 2, "a": 1}, {"n": 3, "a": 2}, {"n": 4, "a": 1})
    assert await names(store, by_a) == [2, 4, 1, 3]


async def test_f38_f39_f40_the_order_of_all_types(store: Running):
    ascending = [
        None, Int64(-3), Int64(7), float("-inf"), -1.5, 0, 2, float("inf"), False, True,
        "", "a", "\uff5e", "\U0001f600", b"", b"\x01", [], [1], {}, {"k": 1},
    ]  # fmt: skip
    documents = [{"n": n, "a": value} for n, value in enumerate(ascending, 1)]
    await put(store, *reversed(documents), {"n": 0})
    assert await names(store, by_a) == list(range(len(ascending) + 1))


async def test_f41_minus_zero_and_nan(store: Running):
    await put(store, {"n": "zero", "a": 0.0}, {"n": "minus", "a": -0.0}, {"n": "nan", "a": NAN})
    assert (await names(store, by_a))[:2] == ["minus", "zero"]
    assert await names(store, lambda ctx: by_a(ctx, a=0.0)) == ["zero"]
    assert await names(store, lambda ctx: by_a(ctx, a=-0.0)) == ["minus"]
    assert await names(store, lambda ctx: by_a(ctx, a=NAN)) == ["nan"]


async def test_f42_an_unknown_index(store: Running):
    text = await refused(store, lambda ctx: ctx.db.query("t").with_index("by_x").collect())
    assert "Index t.by_x not found." in text


@pytest.mark.parametrize(
    ("number", "index", "build", "text"),
    [
        (43, "by_a_b", lambda r: r.eq("b", 1), "didn't use the index fields in order"),
        (44, "by_a", lambda r: r.eq("c", 1), "doesn't index this field"),
        (45, "by_a", lambda r: r.gt("a", 1).gte("a", 2), "Already defined lower bound"),
        (
            45,
            "by_a_b",
            lambda r: r.gt("a", 1).lt("b", 2),
            "can only be applied to a single index field",
        ),
    ],
)
async def test_f43_f44_f45_ranges_that_cannot_be(
    store: Running, number: int, index: str, build: Any, text: str
):
    assert text in await refused(
        store, lambda ctx: ctx.db.query("t").with_index(index, build).collect()
    ), number


async def test_f46_equality_and_a_range_on_the_next_field(store: Running):
    await put(store, *({"n": b, "a": a, "b": b} for a in (1, 2) for b in range(5)))

    def between(r: Any) -> Any:
        return r.eq("a", 1).gt("b", 0).lt("b", 4)

    assert await names(store, lambda ctx: ctx.db.query("t").with_index("by_a_b", between)) == [
        1, 2, 3,
    ]  # fmt: skip
    documents = await store.reads(lambda ctx: by_a(ctx, a=2).collect())
    time = documents[2]["_creationTime"]

    def since(r: Any) -> Any:
        return r.eq("a", 2).gte("_creationTime", time)

    assert await names(store, lambda ctx: by_a(ctx, since)) == [2, 3, 4]


async def test_f47_a_bound_crosses_types(store: Running):
    await put(
        store, {"n": "absent"}, {"n": "null", "a": None}, {"n": "big", "a": Int64(9)},
        {"n": "four", "a": 4}, {"n": "six", "a": 6}, {"n": "text", "a": "x"},
    )  # fmt: skip
    assert await names(store, lambda ctx: by_a(ctx, lambda r: r.lt("a", 5.0))) == [
        "absent", "null", "big", "four",
    ]  # fmt: skip
    assert await names(store, lambda ctx: by_a(ctx, lambda r: r.gt("a", 5.0))) == ["six", "text"]


async def test_f48_missing_is_not_null(store: Running):
    await put(store, {"n": "absent"}, {"n": "null", "a": None})
    assert await names(store, lambda ctx: by_a(ctx, a=UNSET)) == ["absent"]
    assert await names(store, lambda ctx: by_a(ctx, a=None)) == ["null"]


async def test_f49_a_contradiction_is_empty(store: Running):
    await put(store, *({"n": n, "a": n} for n in range(9)))
    assert await names(store, lambda ctx: by_a(ctx, lambda r: r.gt("a", 5).lt("a", 3))) == []


async def test_f50_a_range_builder_is_used_once(store: Running):
    def twice(r: Any) -> Any:
        r.gt("a", 1)
        return r.lt("a", 2)

    text = await refused(store, lambda ctx: by_a(ctx, twice).collect())
    assert "IndexRangeBuilder has already been used!" in text


def kept(condition: Any) -> Any:
    return lambda ctx: ctx.db.query("t").filter(condition)


async def test_f51_a_missing_field_is_undefined(store: Running):
    await put(store, {"n": 1})
    assert await names(store, kept(lambda f: f.eq(f.field("missing"), None))) == []
    assert await names(store, kept(lambda f: f.eq(f.field("missing"), UNSET))) == [1]


async def test_f52_comparisons_cross_types(store: Running):
    await put(store, {"n": 1, "s": "text"})
    assert await names(store, kept(lambda f: f.lt(f.field("s"), 5.0))) == []
    assert await names(store, kept(lambda f: f.gt(f.field("s"), 5.0))) == [1]


async def test_f53_arithmetic_does_not_mix_numbers(store: Running):
    await put(store, {"n": 1, "a": Int64(1)})
    text = await refused(
        store, lambda ctx: kept(lambda f: f.eq(f.add(f.field("a"), 1.0), 2))(ctx).collect()
    )
    assert "Cannot add 1 (type Int64) and 1.0 (type Float64)" in text


async def test_f54_a_filter_is_a_boolean(store: Running):
    await put(store, {"n": 1, "s": "text"})
    text = await refused(store, lambda ctx: kept(lambda f: f.field("s"))(ctx).collect())
    assert "as a Boolean" in text


async def test_f55_and_or_go_from_left_to_right(store: Running):
    await put(store, {"n": 1, "s": "text"})
    assert await names(store, kept(lambda f: f.and_(False, f.not_("x")))) == []
    assert await names(store, kept(lambda f: f.or_(True, f.not_("x")))) == [1]
    assert await names(store, kept(lambda f: f.and_())) == [1]
    assert await names(store, kept(lambda f: f.or_())) == []


async def test_f56_several_filters_are_an_and_in_order(store: Running):
    await put(store, *({"n": n, "s": n if n < 5 else "x"} for n in range(9)))

    def make(ctx: Any) -> Any:
        # The second one would fail on the documents that the first one drops.
        return (
            ctx.db.query("t")
            .filter(lambda f: f.lt(f.field("n"), 5))
            .filter(lambda f: f.gt(f.add(f.field("s"), 1), 3))
        )

    assert await names(store, make) == [3, 4]


async def test_f57_fields_inside_fields(store: Running):
    await put(store, {"n": 1, "o": {"p": 7}}, {"n": 2, "o": "flat"}, {"n": 3})
    assert await names(store, kept(lambda f: f.eq(f.field("o.p"), 7))) == [1]
    assert await names(store, kept(lambda f: f.eq(f.field("o.p"), UNSET))) == [2, 3]


async def test_f58_unique(store: Running):
    unique = store.reads
    assert await unique(lambda ctx: ctx.db.query("t").unique()) is None
    (first,) = await put(store, {})
    assert (await unique(lambda ctx: ctx.db.query("t").unique()))["_id"] == first
    second, _ = await put(store, {}, {})
    text = await refused(store, lambda ctx: ctx.db.query("t").unique())
    assert text.startswith(
        "Uncaught Error: unique() query returned more than one result from table t:\n "
        f"[{first}, {second}, ...]\n"
    )


async def test_f59_first_and_take(store: Running):
    assert await store.reads(lambda ctx: ctx.db.query("t").first()) is None
    await put(store, {"n": 1}, {"n": 2})
    assert (await store.reads(lambda ctx: ctx.db.query("t").first()))["n"] == 1
    assert await store.reads(lambda ctx: ctx.db.query("t").take(0)) == []
    for wrong in (-1, 1.5):
        text = await refused(store, lambda ctx, wrong=wrong: ctx.db.query("t").take(wrong))
        assert "Arg 1 `n` to `take` must be a non-negative integer" in text


async def test_f60_queries_are_values(store: Running):
    """The public API decides otherwise than Convex: builders are immutable and may be reused."""
    await put(store, *({"n": n, "a": n % 2} for n in range(4)))

    async def body(ctx: Any) -> list[int]:
        odd = by_a(ctx, a=1)
        backwards = odd.order("desc")
        found = [await odd.collect(), await odd.collect(), await backwards.take(1)]
        return [d["n"] for documents in found for d in documents]

    assert await store.reads(body) == [1, 3, 1, 3, 3]


async def test_f61_one_order(store: Running):
    text = await refused(store, lambda ctx: ctx.db.query("t").order("asc").order("desc").collect())
    assert "Queries may only specify order at most once" in text


async def test_f62_a_search_has_its_own_order(store: Running):
    async def body(ctx: Any) -> None:
        ctx.db.query("t").with_search_index("search", lambda s: s.search("s", "x")).order("desc")

    text = await refused(store, body)
    assert "Search queries must always be in relevance order. Can not set order manually." in text


async def test_f63_256_operators(store: Running):
    async def filtered(ctx: Any, count: int) -> Any:
        query = ctx.db.query("t")
        for _ in range(count):
            query = query.filter(lambda f: True)
        return await query.collect()

    assert await store.reads(lambda ctx: filtered(ctx, 256)) == []
    text = await refused(store, lambda ctx: filtered(ctx, 257))
    assert "Can't construct query with more than 256 operators" in text


async def test_f64_what_was_not_asked_for_is_not_read(store: Running):
    ids = await put(store, *({"n": n} for n in range(5)))

    async def first_two(ctx: Any) -> list[int]:
        found = []
        async for document in ctx.db.query("t"):
            found.append(document["n"])
            if len(found) == 2:
                break
        return found

    watch = store.watches(first_two)
    assert await watch.read() == [0, 1]
    await store.writes(lambda ctx: ctx.db.patch(ids[3], {"n": 33}))
    await put(store, {"n": 5})
    assert watch.told == 0
    await store.writes(lambda ctx: ctx.db.delete(ids[1]))
    assert watch.told == 1


# Pages.


def page(ctx: Any, cursor: str | None = None, items: Any = 2, **more: Any) -> Any:
    return ctx.db.query("t").paginate({"numItems": items, "cursor": cursor, **more})


def read_page(store: Running, *args: Any, **options: Any) -> Any:
    return store.reads(lambda ctx: page(ctx, *args, **options))


def numbers(found: Any) -> list[Any]:
    return [document["n"] for document in found["page"]]


async def test_f65_the_number_of_items(store: Running):
    for items, text in (
        (0, "Must request at least 1 document while paginating"),
        (-1, "`options.numItems` must be a positive number"),
        ("x", "`options.numItems` must be a positive number"),
        (32_001, "Requested too many items: 32001"),
    ):
        assert text in await refused(store, lambda ctx, items=items: page(ctx, items=items))


async def test_f66_f67_f68_the_end_is_seen_when_it_is_met(store: Running):
    await put(store, *({"n": n} for n in range(4)))
    exact = await read_page(store, items=4)
    assert (numbers(exact), exact["isDone"]) == ([0, 1, 2, 3], False)
    after = await read_page(store, exact["continueCursor"], items=4)
    assert (after["page"], after["isDone"]) == ([], True)
    assert (await read_page(store, items=5))["isDone"] is True
    seen, cursor, done = [], None, False
    while not done:
        found = await read_page(store, cursor, items=3)
        seen += numbers(found)
        cursor, done = found["continueCursor"], found["isDone"]
    assert seen == [0, 1, 2, 3]


async def test_f69_a_cursor_belongs_to_its_query(store: Running):
    await put(store, *({"n": n, "a": 1} for n in range(4)))
    cursor = (await read_page(store))["continueCursor"]

    def paginated(query: Any, cursor: str = cursor) -> Any:
        return query.paginate({"numItems": 2, "cursor": cursor})

    for other in (
        lambda ctx: paginated(ctx.db.query("other")),
        lambda ctx: paginated(by_a(ctx)),
        lambda ctx: paginated(ctx.db.query("t").filter(lambda f: True)),
        lambda ctx: paginated(ctx.db.query("t").order("desc")),
    ):
        with pytest.raises(FailedCall) as caught:
            await store.reads(other)
        assert "InvalidCursor: Tried to run a query starting from a cursor" in str(caught.value)
        assert caught.value.data == {
            "isConvexSystemError": True,
            "paginationError": "InvalidCursor",
        }
    assert "Failed to parse cursor" in await refused(store, lambda ctx: page(ctx, "random"))


async def test_f70_an_end_cursor_decides(store: Running):
    await put(store, *({"n": n} for n in range(6)))
    end = (await read_page(store, items=4))["continueCursor"]
    found = await read_page(store, items=1, endCursor=end)
    assert (numbers(found), found["continueCursor"]) == ([0, 1, 2, 3], end)


async def test_f71_a_page_that_is_watched_keeps_its_end(store: Running):
    ids = await put(store, *({"n": n, "a": n} for n in range(4)))
    watch = store.watches(
        lambda ctx: by_a(ctx).paginate({"numItems": 2, "cursor": None}), by=user("u")
    )
    assert numbers(await watch.read()) == [0, 1]
    await put(store, {"n": 0.5, "a": 0.5})
    assert numbers(await watch.read()) == [0, 0.5, 1]
    await put(store, {"n": 9, "a": 9})
    assert watch.told == 1
    await store.writes(lambda ctx: ctx.db.delete(ids[1]))
    assert numbers(await watch.read()) == [0, 0.5]
    whole = store.watches(lambda ctx: by_a(ctx).paginate({"numItems": 50, "cursor": None}))
    await whole.read()
    await put(store, {"n": 10, "a": 10})
    assert numbers(await whole.read())[-1] == 10


async def test_f72_filters_come_before_counting(store: Running):
    await put(store, *({"n": n} for n in range(20)))

    def body(ctx: Any) -> Any:
        query = ctx.db.query("t").filter(lambda f: f.eq(f.mod(f.field("n"), 5), 0))
        return query.paginate({"numItems": 3, "cursor": None})

    assert numbers(await store.reads(body)) == [0, 5, 10]


async def test_f73_f74_the_rows_a_page_may_read(store: Running):
    await put(store, *({"n": n} for n in range(20)))

    def body(cursor: str | None, rows: int) -> Any:
        def paginated(ctx: Any) -> Any:
            query = ctx.db.query("t").filter(lambda f: f.eq(f.mod(f.field("n"), 4), 3))
            return query.paginate({"numItems": 9, "cursor": cursor, "maximumRowsRead": rows})

        return paginated

    first = await store.reads(body(None, 6))
    assert (numbers(first), first["isDone"]) == ([3], False)
    assert first["pageStatus"] == "SplitRequired"
    second = await store.reads(body(first["continueCursor"], 6))
    assert numbers(second) == [7, 11]
    assert "maximumRowsRead and maximumBytesRead must be greater than 0" in await refused(
        store, body(None, 0)
    )


async def test_f75_a_split_cursor_halves_the_page(store: Running):
    await put(store, *({"n": n} for n in range(9)))
    assert (await read_page(store, items=2))["splitCursor"] is None
    whole = await read_page(store, items=7)
    end = whole["continueCursor"]
    one = await read_page(store, items=1, endCursor=whole["splitCursor"])
    two = await read_page(store, whole["splitCursor"], items=1, endCursor=end)
    assert numbers(one) + numbers(two) == numbers(whole)
    assert numbers(one)
    assert numbers(two)


async def test_f76_one_page_per_function(store: Running):
    async def twice(ctx: Any) -> None:
        await page(ctx)
        await page(ctx)

    async def nested(ctx: Any) -> list[Any]:
        return [await page(ctx), await ctx.run_query("inline:read", key=store.keep(page))]

    assert "ran multiple paginated queries" in await refused(store, twice)
    assert len(await store.reads(nested)) == 2


async def test_f78_from_the_end_there_is_nothing_more(store: Running):
    await put(store, {"n": 1})
    end = (await read_page(store, items=9))["continueCursor"]
    after = await read_page(store, end)
    assert (after["page"], after["isDone"], after["continueCursor"]) == ([], True, end)


async def test_a_page_that_meets_a_limit_of_the_transaction_is_short(tmp_path: Path):
    limits = replace(Limits(), read_documents=5)
    async with Running.open(tmp_path, {"inline": INLINE}, schema=SCHEMA, limits=limits) as store:
        await put(store, *({"n": n} for n in range(9)))
        found = await read_page(store, items=9)
        assert (numbers(found), found["isDone"]) == ([0, 1, 2, 3, 4], False)
        assert found["pageStatus"] == "SplitRequired"
