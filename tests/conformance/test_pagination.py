"""What clients get on the wire for paginated queries: C80–C84, each a live query of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.functions.pagination import PaginationOpts
from tests.functions.running import Running, Watched

SCHEMA = """
schema = define_schema({"t": define_table({"n": v.number()}).index("by_n", ["n"])})
"""

MODULE = """
@query
async def ascending(ctx, pagination_opts: PaginationOpts):
    return await ctx.db.query("t").with_index("by_n").paginate(pagination_opts)

@query
async def descending(ctx, pagination_opts: PaginationOpts):
    return await ctx.db.query("t").with_index("by_n").order("desc").paginate(pagination_opts)

@mutation
async def put(ctx, numbers: list[float]):
    for n in numbers:
        await ctx.db.insert("t", {"n": n})
"""


@pytest.fixture(params=[False, True], ids=["plain", "redacted"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with Running.open(tmp_path, MODULE, schema=SCHEMA, redact=request.param) as running:
        await running.mutation("put", numbers=[0, 1, 2, 3, 4, 5, 6, 7])
        yield running


def watched(store: Running, path: str = "ascending", **options: Any) -> Watched:
    return store.watch(path, paginationOpts={"cursor": None, "id": 1, **options})


async def answer(watch: Watched) -> dict[str, Any]:
    """What the modification of a transition says besides the query's id."""
    result = await watch.result()
    return json.loads(b"{" + result.modification)


async def page(store: Running, path: str = "ascending", **options: Any) -> dict[str, Any]:
    watch = watched(store, path, **options)
    value = (await answer(watch))["value"]
    watch.watch.close()
    return value


def numbers(value: dict[str, Any]) -> list[float]:
    return [document["n"] for document in value["page"]]


async def test_a_page_grows_and_keeps_its_cursor(store: Running):
    """C80."""
    watch = watched(store, numItems=3)
    first = await answer(watch)
    value = first["value"]
    assert set(value) == {"page", "isDone", "continueCursor", "splitCursor", "pageStatus"}
    assert type(value["continueCursor"]) is str
    assert (value["isDone"], value["pageStatus"]) == (False, None)
    assert type(value["splitCursor"]) is str
    assert type(first["journal"]) is str
    await store.mutation("put", numbers=[0.5, 1.5, 9])
    grown = await answer(watch)
    assert numbers(grown["value"]) == [0, 0.5, 1, 1.5, 2]
    assert grown["value"]["continueCursor"] == value["continueCursor"]
    assert grown["journal"] == first["journal"]
    following = await page(store, numItems=3, cursor=value["continueCursor"])
    assert numbers(following) == [3, 4, 5]


async def test_a_journal_brought_back_keeps_the_end(store: Running):
    watch = watched(store, numItems=3)
    journal = (await answer(watch))["journal"]
    watch.watch.close()
    await store.mutation("put", numbers=[0.5])
    args = {"paginationOpts": {"cursor": None, "id": 1, "numItems": 3}}
    again = Watched(store, "ascending", args, ANONYMOUS, journal)
    assert numbers((await answer(again))["value"]) == [0, 0.5, 1, 2]
    fresh = watched(store, numItems=3)
    assert numbers((await answer(fresh))["value"]) == [0, 0.5, 1]


async def test_a_page_that_holds_everything_is_not_done(store: Running):
    """C81."""
    value = await page(store, numItems=8)
    assert (len(value["page"]), value["isDone"]) == (8, False)
    after = await page(store, numItems=8, cursor=value["continueCursor"])
    assert (after["page"], after["isDone"]) == ([], True)
    assert type(after["continueCursor"]) is str


async def test_the_halves_of_a_page_join_to_it(store: Running):
    """C82."""
    value = await page(store, numItems=7)
    end, middle = value["continueCursor"], value["splitCursor"]
    left = await page(store, numItems=7, endCursor=middle)
    right = await page(store, numItems=7, cursor=middle, endCursor=end)
    assert numbers(left) + numbers(right) == numbers(value)
    assert (left["continueCursor"], right["continueCursor"]) == (middle, end)
    # Of more than was asked for, when the end says so; of less, too.
    assert numbers(await page(store, numItems=1, endCursor=end)) == numbers(value)
    assert len((await page(store, numItems=30, endCursor=end))["page"]) == 7


async def test_the_cursor_of_another_query_says_so_in_its_data(store: Running):
    """C83."""
    cursor = (await page(store, numItems=2))["continueCursor"]
    for wrong in (cursor, "no cursor at all"):
        failed = await answer(watched(store, "descending", numItems=2, cursor=wrong))
        assert failed["errorData"] == {
            "isConvexSystemError": True,
            "paginationError": "InvalidCursor",
        }
        assert failed["journal"] is None
        if not store.backend.settings.redact:
            assert "InvalidCursor" in failed["errorMessage"]


async def test_options_of_clients_and_of_python_are_taken(store: Running):
    """C84: the number that tells equal requests apart changes nothing."""
    first = await page(store, numItems=2, id=1)
    assert first == await page(store, numItems=2, id=-1) == await page(store, numItems=2)
    made = await store.query("ascending", pagination_opts=PaginationOpts(num_items=2))
    assert made["continueCursor"] == first["continueCursor"]


async def test_a_page_of_a_nested_query_is_not_pinned(tmp_path: Path):
    """Nested queries start without a journal, and theirs is not kept."""
    module = MODULE + (
        "\n@query\nasync def outer(ctx):\n"
        "    opts = PaginationOpts(num_items=2)\n"
        "    return await ctx.run_query('m:ascending', pagination_opts=opts)\n"
    )
    async with Running.open(tmp_path, module, schema=SCHEMA) as store:
        await store.mutation("put", numbers=[0, 1, 2])
        watch = store.watch("outer")
        first = await answer(watch)
        assert (numbers(first["value"]), first["journal"]) == ([0, 1], None)
        await store.mutation("put", numbers=[0.5])
        assert numbers((await answer(watch))["value"]) == [0, 0.5]
