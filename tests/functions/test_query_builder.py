from __future__ import annotations

import asyncio
import operator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.functions.query_builder import Query
from reactive_store.limits import Limits
from reactive_store.values.document import Document
from reactive_store.values.order import compare, sort_key
from reactive_store.values.value import UNSET, normalize
from tests.functions.small_world import SmallWorld, edgy_values

INDEXES = {"t": {"by_a": ["a"], "by_a_b": ["a", "b"], "by_nested": ["o.x"]}, "u": {}}
COMPARATORS = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


async def world_with(*documents: dict[str, Any], **options: Any) -> SmallWorld:
    world = await SmallWorld.open(INDEXES, **options)
    await world.insert("t", *documents)
    return world


def numbers(documents: list[Document], name: str = "n") -> list[Any]:
    return [document[name] for document in documents]


# ---- order ----


async def test_documents_come_in_order_of_creation_and_reversed_on_demand():
    world = await world_with(*({"n": n} for n in range(40)))
    query = world.reader().query("t")
    assert numbers(await query.collect()) == list(range(40))
    assert numbers(await query.order("asc").collect()) == list(range(40))
    assert numbers(await query.order("desc").collect()) == list(range(40))[::-1]


async def test_ties_of_an_index_are_resolved_by_age():
    world = await world_with(*({"a": n % 2, "n": n} for n in range(6)))
    query = world.reader().query("t").with_index("by_a")
    assert numbers(await query.collect()) == [0, 2, 4, 1, 3, 5]
    assert numbers(await query.order("desc").collect()) == [5, 3, 1, 4, 2, 0]


async def test_creation_times_ascend_within_a_mutation():
    world = await world_with(*({"n": n} for n in range(5)))
    times = numbers(await world.reader().query("t").collect(), "_creationTime")
    assert times == sorted(set(times))


async def test_missing_fields_come_before_null():
    world = await world_with({"a": 1, "n": 0}, {"a": None, "n": 1}, {"n": 2})
    assert numbers(await world.reader().query("t").with_index("by_a").collect()) == [2, 1, 0]


# ---- model ----

documents = st.lists(
    st.fixed_dictionaries({}, optional={"a": edgy_values(), "b": edgy_values()}), max_size=12
)
comparisons = st.tuples(
    st.sampled_from(sorted(COMPARATORS)),
    st.sampled_from(["a", "b"]),
    edgy_values() | st.just(UNSET),
)


@st.composite
def index_bounds(draw: st.DrawFn) -> list[tuple[str, str, Any]]:
    values = edgy_values() | st.just(UNSET)
    equal = draw(st.integers(0, 2))
    bounds = [("eq", name, draw(values)) for name in ("a", "b")[:equal]]
    if equal < 2:
        name = ("a", "b")[equal]
        bounds += [("gt", name, draw(values))] if draw(st.booleans()) else []
        bounds += [("lte", name, draw(values))] if draw(st.booleans()) else []
    return bounds


def holds(document: dict[str, Any], comparator: str, field: str, value: Any) -> bool:
    held = document.get(field, UNSET)
    sides = [UNSET if side is UNSET else normalize(side) for side in (held, value)]
    return COMPARATORS[comparator](compare(*sides), 0)


@settings(max_examples=150)
@given(
    documents,
    index_bounds(),
    st.lists(comparisons, max_size=2),
    st.booleans(),
    st.none() | st.integers(0, 13),
    st.booleans(),
)
def test_any_query_gives_what_sorting_and_filtering_a_list_gives(
    stored, bounds, filters, descending, limit, uncommitted
):
    async def run() -> None:
        world = await SmallWorld.open(INDEXES)
        numbered = [{**document, "n": n} for n, document in enumerate(stored)]
        if uncommitted:
            db = world.writer()
            for document in numbered:
                await db.insert("t", document)
        else:
            await world.insert("t", *numbered)
            db = world.reader()

        def build(r):
            for comparator, field, value in bounds:
                r = getattr(r, comparator)(field, value)
            return r

        query = db.query("t").with_index("by_a_b", build).order("desc" if descending else "asc")
        for comparator, field, value in filters:
            query = query.filter(
                lambda f, c=comparator, n=field, v=value: getattr(f, c)(f.field(n), v)
            )

        def key(document: dict[str, Any]) -> Any:
            sides = [document.get(name, UNSET) for name in ("a", "b")]
            return [sort_key(s if s is UNSET else normalize(s)) for s in sides], document["n"]

        everything = [
            document["n"]
            for document in sorted(numbered, key=key, reverse=descending)
            if all(holds(document, *condition) for condition in [*bounds, *filters])
        ]
        expected = everything[:limit]
        found = await (query.collect() if limit is None else query.take(limit))
        assert numbers(found) == expected
        streamed: list[Any] = []
        async for document in query:
            if len(streamed) == limit:
                break
            streamed.append(document["n"])
        assert streamed == expected
        first = await query.first()
        assert ([] if first is None else [first["n"]]) == everything[:1]
        if len(everything) < 2:
            only = await query.unique()
            assert ([] if only is None else [only["n"]]) == everything

    asyncio.run(run())


# ---- index ranges through the builder ----


async def test_keywords_are_equalities_in_any_order():
    world = await world_with(*({"a": a, "b": b, "n": 10 * a + b} for a in (1, 2) for b in (1, 2)))
    query = world.reader().query("t")
    assert numbers(await query.with_index("by_a_b", a=2).collect()) == [21, 22]
    assert numbers(await query.with_index("by_a_b", b=2, a=1).collect()) == [12]
    assert numbers(await query.with_index("by_a_b", lambda r: r.gt("b", 1), a=2).collect()) == [22]
    assert numbers(await query.with_index("by_a_b").collect()) == [11, 12, 21, 22]


async def test_a_range_after_equalities_may_limit_the_creation_time():
    world = await world_with(*({"a": 1, "n": n} for n in range(4)))
    stored = await world.reader().query("t").collect()
    query = (
        world.reader()
        .query("t")
        .with_index("by_a", lambda r: r.eq("a", 1).gt("_creationTime", stored[1]["_creationTime"]))
    )
    assert numbers(await query.collect()) == [2, 3]


async def test_upper_bounds_include_missing_and_null_and_lower_bounds_later_types():
    world = await world_with({"a": 7, "n": 0}, {"a": "x", "n": 1}, {"a": None, "n": 2}, {"n": 3})
    query = world.reader().query("t")
    assert numbers(await query.with_index("by_a", lambda r: r.lt("a", 5)).collect()) == [3, 2]
    assert numbers(await query.with_index("by_a", lambda r: r.gt("a", 5)).collect()) == [0, 1]
    assert numbers(await query.with_index("by_a", a=UNSET).collect()) == [3]


async def test_nested_fields_are_named_by_their_path():
    world = await world_with({"o": {"x": 1}, "n": 0}, {"o": "no object", "n": 1}, {"n": 2})
    query = world.reader().query("t")
    assert numbers(await query.with_index("by_nested", lambda r: r.eq("o.x", 1)).collect()) == [0]
    found = await query.with_index("by_nested", lambda r: r.eq("o.x", UNSET)).collect()
    assert numbers(found) == [1, 2]


async def test_ids_bound_ranges():
    world = await world_with({"n": 0})
    (of_t,) = await world.reader().query("t").collect()
    (of_u,) = await world.insert("u", {})
    query = world.reader().query("t")
    assert numbers(await query.with_index("by_id", _id=of_t["_id"]).collect()) == [0]
    assert await query.with_index("by_id", lambda r: r.gt("_id", of_t["_id"])).collect() == []
    for wrong in (of_u, None, UNSET):
        with pytest.raises(BadRequest, match='"_id" takes an id of t'):
            await query.with_index("by_id", _id=wrong).collect()
    with pytest.raises(BadRequest, match="Unable to decode ID"):
        await query.with_index("by_id", _id="junk").collect()


async def test_indexes_that_do_not_exist_are_refused_when_the_query_runs():
    world = await world_with()
    for table, index in (("t", "by_x"), ("nowhere", "by_x"), ("nowhere", "by_creation_time")):
        query = world.reader().query(table).with_index(index)
        with pytest.raises(BadRequest, match=rf"Index {table}\.{index} not found\.") as caught:
            await query.collect()
        assert caught.value.code == "IndexNotFoundError"


async def test_ranges_that_break_the_rules_are_refused():
    query = (await world_with()).reader().query("t")
    with pytest.raises(BadRequest, match="didn't use the index fields in order"):
        await query.with_index("by_a_b", b=1).collect()
    with pytest.raises(BadRequest, match="doesn't index this field"):
        await query.with_index("by_a", z=1).first()
    with pytest.raises(TypeError, match="a range is a function"):
        query.with_index("by_a", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must return the chain"):
        query.with_index("by_a", lambda r: None)  # type: ignore[arg-type,return-value]


# ---- results ----


async def test_first_take_and_unique():
    world = await world_with({"a": 1, "n": 0}, {"a": 1, "n": 1}, {"a": 2, "n": 2})
    query = world.reader().query("t").with_index
    assert (await query("by_a", a=2).first()) == (await query("by_a", a=2).unique())
    assert await query("by_a", a=3).first() is None
    assert await query("by_a", a=3).unique() is None
    assert await query("by_a").take(0) == []
    assert numbers(await query("by_a").take(2)) == [0, 1]
    assert numbers(await query("by_a").take(2.0)) == [0, 1]  # type: ignore[arg-type]
    ids = numbers(await query("by_a", a=1).collect(), "_id")
    with pytest.raises(BadRequest) as caught:
        await query("by_a", a=1).unique()
    assert caught.value.message == (
        f"unique() query returned more than one result from table t:\n [{ids[0]}, {ids[1]}, ...]"
    )


@pytest.mark.parametrize("n", [-1, 1.5, "3", None, True, float("inf"), float("nan")])
async def test_take_wants_a_count(n):
    query = (await world_with()).reader().query("t")
    with pytest.raises(BadRequest, match="Arg 1 `n` to `take` must be a non-negative integer"):
        await query.take(n)


async def test_documents_know_their_table():
    world = await world_with({"n": 0})
    (document,) = await world.reader().query("t").collect()
    assert document["_id"].table == "t"


async def test_filters_apply_in_order():
    world = await world_with({"n": 1}, {"n": "text"}, {"n": 5})
    query = world.reader().query("t")
    bare = query.filter(lambda f: f.field("n") + 1 > 3)
    with pytest.raises(BadRequest, match=r"Cannot add \"text\" \(type String\)"):
        await bare.collect()
    guarded = query.filter(lambda f: f.field("n") < "").filter(lambda f: f.field("n") + 1 > 3)
    assert numbers(await guarded.collect()) == [5]


async def test_long_scans_let_others_run():
    world = await world_with(*({"n": n} for n in range(2001)))
    query = world.reader().query("t")
    assert len(await query.collect()) == 2001
    assert world.pauses == 2
    assert await query.filter(lambda f: f.field("n") < 0).collect() == []
    assert world.pauses == 4
    assert len([document async for document in query]) == 2001
    assert world.pauses == 6
    assert len(await query.take(1000)) == 1000
    assert len(await query.take(1500)) == 1500


# ---- a query is a value ----


async def test_queries_can_be_kept_branched_and_run_again():
    world = await world_with(*({"n": n} for n in range(4)))
    query = world.reader().query("t")
    small = query.filter(lambda f: f.field("n") < 2)
    assert numbers(await small.order("desc").collect()) == [1, 0]
    assert numbers(await small.collect()) == [0, 1]
    assert numbers(await small.collect()) == [0, 1]
    assert numbers(await query.collect()) == [0, 1, 2, 3]
    assert numbers(await query.full_table_scan().collect()) == [0, 1, 2, 3]


async def test_steps_out_of_place_are_refused():
    query = (await world_with()).reader().query("t")
    for early in (query.order("asc"), query.filter(lambda f: True), query.full_table_scan()):
        with pytest.raises(BadRequest, match="must be the first step"):
            early.with_index("by_a")
        with pytest.raises(BadRequest, match="must be the first step"):
            early.full_table_scan()
    with pytest.raises(BadRequest, match="Queries may only specify order at most once"):
        query.order("asc").order("desc")
    with pytest.raises(BadRequest, match='order takes "asc" or "desc"'):
        query.order("descending")  # type: ignore[arg-type]
    searching = query.with_search_index("search", lambda s: s.search("s", "x"))
    for step in (searching.with_index, searching.with_search_index):
        with pytest.raises(BadRequest, match="must be the first step"):
            step("search", lambda s: s)
    with pytest.raises(BadRequest, match="must be the first step"):
        query.filter(lambda f: True).with_search_index("search", lambda s: s.search("s", "x"))


async def test_a_query_has_at_most_256_operators():
    query = (await world_with()).reader().query("t")
    for _ in range(256):
        query = query.filter(lambda f: True)
    assert await query.collect() == []
    too_many = "Can't construct query with more than 256 operators"
    with pytest.raises(BadRequest, match=too_many):
        query.filter(lambda f: True)
    for run in (query.first, query.unique, lambda: query.take(1)):
        with pytest.raises(BadRequest, match=too_many):
            await run()


async def test_a_query_awaited_by_mistake_says_what_to_do():
    query = (await world_with()).reader().query("t").with_index("by_a")
    assert isinstance(query, Query)
    with pytest.raises(BadRequest, match=r"A query cannot be awaited.*\.collect\(\)"):
        await query
    assert repr(query) == "<Query of t by by_a, not run>"


# ---- what counts as read ----


async def test_a_table_never_written_is_empty_and_watched():
    world = await world_with()
    tx = world.database.begin()
    assert await world.reader(tx=tx).query("later").collect() == []
    assert await world.is_touched(tx, ("insert", "later", {}))
    assert not await world.is_touched(tx, ("insert", "t", {}))


async def test_only_the_range_read_is_watched():
    world = await world_with(*({"a": a} for a in (1, 2, 3)))
    tx = world.database.begin()
    await world.reader(tx=tx).query("t").with_index("by_a", a=2).collect()
    assert not await world.is_touched(tx, ("insert", "t", {"a": 1}))
    assert await world.is_touched(tx, ("insert", "t", {"a": 2}))


async def test_first_does_not_watch_what_follows():
    world = await world_with(*({"a": a} for a in (2, 4)))
    tx = world.database.begin()
    await world.reader(tx=tx).query("t").with_index("by_a").first()
    assert not await world.is_touched(tx, ("insert", "t", {"a": 3}))
    assert await world.is_touched(tx, ("insert", "t", {"a": 1}))


@pytest.mark.parametrize(("order", "seen", "unseen"), [("asc", 3, 7), ("desc", 5, 1)])
async def test_an_iteration_stopped_early_watches_what_it_saw(order, seen, unseen):
    world = await world_with(*({"a": a} for a in (2, 4, 6)))
    tx = world.database.begin()
    async for document in world.reader(tx=tx).query("t").with_index("by_a").order(order):
        if document["a"] == 4:
            break
    assert await world.is_touched(tx, ("insert", "t", {"a": seen}))
    assert not await world.is_touched(tx, ("insert", "t", {"a": unseen}))


async def test_what_a_filter_drops_is_not_watched():
    world = await world_with({"a": 1})
    tx = world.database.begin()
    query = world.reader(tx=tx).query("t").filter(lambda f: f.field("a") > 5)
    await query.filter(lambda f: f.field("a") < 9).collect()
    assert not await world.is_touched(tx, ("insert", "t", {"a": 2}))
    assert not await world.is_touched(tx, ("insert", "t", {"a": 10}))
    assert await world.is_touched(tx, ("insert", "t", {"a": 6}))


async def test_rows_a_filter_drops_count_as_read():
    world = await world_with(*({"n": n} for n in range(6)), limits=Limits(read_documents=5))
    with pytest.raises(BadRequest, match="Too many documents read") as caught:
        await world.reader().query("t").filter(lambda f: False).collect()
    assert caught.value.code == "TooManyDocumentsRead"
