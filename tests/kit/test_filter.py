"""Queries kept down by Python conditions."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from reactive_store import Document, MutationCtx, Query, define_schema, define_table, v
from reactive_store.kit import filter as kit_filter
from reactive_store.kit.filter import filtered, nothing
from reactive_store.testing import FunctionError, TestBackend

SCHEMA = define_schema(
    {
        "notes": define_table({"text": v.string(), "n": v.number()})
        .index("by_n", ["n"])
        .search_index("by_text", search_field="text"),
        "marks": define_table({"note": v.id("notes")}).index("by_note", ["note"]),
    }
)


async def fill(ctx: MutationCtx, count: int = 10) -> None:
    for n in range(count):
        await ctx.db.insert("notes", {"text": f"t{n}", "n": n})


def even(note: Document) -> bool:
    return note["n"] % 2 == 0


async def never_seen(note: Document) -> bool:
    raise AssertionError(f"{note} was looked at")


def ns(documents: list[Document]) -> list[int]:
    return [document["n"] for document in documents]


async def test_a_filtered_query_has_every_step_and_every_result():
    async def work(ctx: MutationCtx) -> None:
        await fill(ctx)
        query = filtered(ctx.db.query("notes"), even)
        assert ns(await query.collect()) == [0, 2, 4, 6, 8]
        assert ns(await query.take(2)) == [0, 2]
        assert ns(await query.take(2.0)) == [0, 2]  # type: ignore[arg-type]
        assert await query.take(0) == []
        first = await query.order("desc").first()
        assert first is not None
        assert first["n"] == 8
        assert ns(await query.with_index("by_n", lambda r: r.gt("n", 5)).collect()) == [6, 8]
        one = await query.with_index("by_n", n=4).unique()
        assert one is not None
        assert await query.with_index("by_n", n=5).unique() is None
        assert ns(await query.filter(lambda f: f.field("n") > 3).collect()) == [4, 6, 8]
        assert ns(await query.full_table_scan().collect()) == [0, 2, 4, 6, 8]
        assert [document["n"] async for document in query] == [0, 2, 4, 6, 8]
        # A condition on top of a condition; the first query is still what it was.
        assert ns(await filtered(query, lambda note: note["n"] > 3).collect()) == [4, 6, 8]
        assert ns(await query.collect()) == [0, 2, 4, 6, 8]
        with pytest.raises(LookupError, match="more than one document that passes"):
            await query.unique()
        with pytest.raises(Exception, match="non-negative integer"):
            await query.take(-1)

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_a_search_can_be_filtered():
    async def work(ctx: MutationCtx) -> None:
        for n in range(6):
            await ctx.db.insert("notes", {"text": "tea" if n < 4 else "coffee", "n": n})
        query = filtered(ctx.db.query("notes"), even)
        found = query.with_search_index("by_text", lambda s: s.search("text", "tea"))
        assert sorted(ns(await found.collect())) == [0, 2]
        assert len(await found.take(1)) == 1

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_a_page_holds_what_passes_of_its_range():
    async def one_page(ctx: MutationCtx, cursor: str | None) -> Any:
        query = filtered(ctx.db.query("notes"), lambda note: note["n"] in (0, 1, 8))
        return await query.paginate({"numItems": 4, "cursor": cursor})

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(fill)
        pages = []
        cursor = None
        while True:
            page = await t.run(lambda ctx, cursor=cursor: one_page(ctx, cursor))
            pages.append(ns(page.page))
            cursor = page.continue_cursor
            if page.is_done:
                break
        assert pages == [[0, 1], [], [8]]


async def test_a_condition_may_read_and_a_live_query_follows_what_it_read(tmp_path):
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "notes.py").write_text(
        """
from reactive_store import Id, MutationCtx, QueryCtx, mutation, query
from reactive_store.kit.filter import filtered

RUNS = []

@query
async def marked(ctx: QueryCtx):
    RUNS.append(1)
    async def is_marked(note):
        marks = ctx.db.query("marks").with_index("by_note", note=note["_id"])
        return await marks.first() is not None
    return [note["text"] for note in await filtered(ctx.db.query("notes"), is_marked).take(1)]

@query
async def runs(ctx: QueryCtx) -> int:
    return len(RUNS)

@mutation
async def add(ctx: MutationCtx, n: int):
    return await ctx.db.insert("notes", {"text": f"t{n}", "n": n})

@mutation
async def mark(ctx: MutationCtx, note: Id["notes"]) -> None:
    await ctx.db.insert("marks", {"note": note})
""",
        encoding="utf-8",
    )
    async with TestBackend(schema=SCHEMA, functions=functions) as t:
        first, second = await t.mutation("notes:add", n=1), await t.mutation("notes:add", n=2)
        async with t.subscribe("notes:marked") as live:
            assert await live.next() == []
            await t.mutation("notes:mark", note=second)
            assert await live.next() == ["t2"]
            await t.mutation("notes:mark", note=first)
            assert await live.next() == ["t1"]
            # It stopped at the first: what comes behind is none of its business any more.
            await t.mutation("notes:mark", note=second)
            await t.mutation("notes:add", n=3)
            assert await t.query("notes:runs") == 3


async def test_a_condition_nothing_meets_reads_nothing():
    async def work(ctx: MutationCtx) -> None:
        await fill(ctx, 3)
        query = filtered(filtered(ctx.db.query("notes"), never_seen), nothing)
        assert await query.collect() == []
        assert await query.first() is None
        assert await query.unique() is None
        assert [document async for document in query] == []
        page = await filtered(ctx.db.query("notes"), nothing).paginate(
            {"numItems": 1, "cursor": None}
        )
        assert (page.page, page.is_done) == ([], True)

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_a_query_that_was_not_run_is_no_answer():
    async def awaited(ctx: MutationCtx) -> None:
        query = filtered(ctx.db.query("notes"), even)
        assert repr(query) == f"<filtered {ctx.db.query('notes')!r}>"
        await query  # type: ignore[misc]

    async with TestBackend(schema=SCHEMA) as t:
        with pytest.raises(Exception, match="cannot be awaited"):
            await t.run(awaited)


async def test_a_forgotten_await_is_found():
    async def work(ctx: MutationCtx) -> None:
        filtered(ctx.db.query("notes"), even).collect()  # type: ignore[unused-coroutine]

    async with TestBackend(schema=SCHEMA) as t:
        with pytest.raises(FunctionError, match=r"`collect\(…\)` was called without `await`"):
            await t.run(work)


def test_nothing_a_query_can_do_goes_past_the_condition():
    """Rules rest on it: a new way to read documents must be filtered as well."""
    own = set(vars(kit_filter._FilteredQuery))
    public = {
        name
        for name, value in inspect.getmembers(Query)
        if (not name.startswith("_") or name in ("__aiter__", "__await__")) and callable(value)
    }
    assert public - own == {"over"}
