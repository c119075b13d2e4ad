"""Pages that a client holds, while others write, always join to what a whole read gives.

The client is a model of what the official hooks do with pages: each page is a live query of its
own, pages that should or must be split are replaced by their halves, and after a lost connection
every page is asked for again with the journal it had.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.engine.interval import EVERYTHING
from reactive_store.functions.live_queries import Watch
from reactive_store.functions.names import parse_path
from reactive_store.limits import Limits
from reactive_store.values.document import Document
from reactive_store.values.wire import dumps
from tests.functions.running import Running

pytestmark = pytest.mark.timeout(900)  # the thorough profile takes minutes

FIRST_ITEMS = 3

SCHEMA = """
schema = define_schema({
    "t": define_table({"n": v.number(), "keep": v.boolean()}).index("by_n", ["n"]),
})
"""

MODULE = """
def ordered(ctx, descending, filtered):
    query = ctx.db.query("t").with_index("by_n").order("desc" if descending else "asc")
    return query.filter(lambda f: f.eq(f.field("keep"), True)) if filtered else query

@query
async def page(ctx, descending: bool, filtered: bool, pagination_opts: PaginationOpts):
    return await ordered(ctx, descending, filtered).paginate(pagination_opts)

@mutation
async def insert(ctx, numbers: list[float]):
    for n in numbers:
        await ctx.db.insert("t", {"n": n, "keep": n % 3 != 0})

@mutation
async def change(ctx, id: Id["t"], n: float):
    if await ctx.db.get(id):
        await ctx.db.patch(id, {"n": n, "keep": n % 3 != 0})

@mutation
async def remove(ctx, ids: list[Id["t"]]):
    for id in ids:
        if await ctx.db.get(id):
            await ctx.db.delete(id)
"""


@dataclass
class HeldPage:
    """One page: what was asked for, and what the server said last."""

    options: dict[str, Any]
    watch: Watch
    journal: str | None = None
    value: dict[str, Any] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return [document["_id"] for document in self.value["page"]]

    @property
    def is_to_be_split(self) -> bool:
        return bool(self.value["splitCursor"]) and (
            self.value["pageStatus"] is not None or len(self.value["page"]) > 2 * FIRST_ITEMS
        )


class Client:
    """A list of pages and what its user sees."""

    def __init__(self, store: Running, *, descending: bool, filtered: bool) -> None:
        self.store = store
        self.query = {"descending": descending, "filtered": filtered}
        self.pages = [self._open({"numItems": FIRST_ITEMS, "cursor": None, "id": 1})]

    def _open(self, options: dict[str, Any], journal: str | None = None) -> HeldPage:
        args = dumps({**self.query, "paginationOpts": options})
        path = parse_path("m:page")
        watch = self.store.live.watch(path, args, ANONYMOUS, journal, lambda: None)
        return HeldPage(options, watch, journal)

    async def _read(self, page: HeldPage, at: Any) -> None:
        result = await page.watch.result(at)
        answer = json.loads(b"{" + result.modification)
        assert not result.failed, answer
        page.value, page.journal = answer["value"], answer["journal"]

    async def settle(self) -> None:
        """All pages as of one instant; then the splits this asks for, until there are none."""
        while True:
            at = self.store.now
            for page in self.pages:
                await self._read(page, at)
            page = next((each for each in self.pages if each.is_to_be_split), None)
            if page is None:
                return
            value = page.value
            left = self._open({**page.options, "endCursor": value["splitCursor"]})
            right = self._open(
                {
                    **page.options,
                    "cursor": value["splitCursor"],
                    "endCursor": value["continueCursor"],
                }
            )
            place = self.pages.index(page)
            self.pages[place : place + 1] = [left, right]
            page.watch.close()

    def load_more(self) -> None:
        value = self.pages[-1].value
        if not value["isDone"]:
            cursor = value["continueCursor"]
            self.pages.append(self._open({"numItems": FIRST_ITEMS, "cursor": cursor, "id": 1}))

    def reconnect(self) -> None:
        """Everything is forgotten on the other side; journals come back as they were."""
        old = self.pages
        self.pages = [self._open(page.options, page.journal) for page in old]
        for page in old:
            page.watch.close()

    def close(self) -> None:
        for page in self.pages:
            page.watch.close()


numbers = st.integers(0, 40).map(float)
steps = st.lists(
    st.tuples(st.just("insert"), st.lists(numbers, min_size=1, max_size=25))
    | st.tuples(st.just("insert"), st.lists(numbers, min_size=1, max_size=2))
    | st.tuples(st.just("flood"), numbers)
    | st.tuples(st.just("change"), st.integers(0, 99), numbers)
    | st.tuples(st.just("remove"), st.integers(0, 99), st.integers(1, 5))
    | st.tuples(st.just("more"))
    | st.tuples(st.just("reconnect")),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans(), st.booleans())
def test_pages_that_are_held_join_to_the_whole(steps: list[Any], descending: bool, filtered: bool):
    # So few that pages have to be split, and halves of them again.
    limits = Limits(read_documents=12)

    async def run(folder: str) -> None:
        async with Running.open(Path(folder), MODULE, schema=SCHEMA, limits=limits) as store:
            await store.mutation("insert", numbers=[float(n) for n in range(0, 40, 5)])
            client = Client(store, descending=descending, filtered=filtered)

            def whole() -> list[str]:
                tx = store.database.begin()
                tx.limits = Limits()
                scan = tx.scan("t", "by_n", EVERYTHING)
                found = [Document(row.value, "t") for row in iter(scan.next, None)]
                ids = [str(each["_id"]) for each in found if each["keep"] or not filtered]
                return ids[::-1] if descending else ids

            def check(expected: list[str]) -> None:
                seen = [each for page in client.pages for each in page.ids]
                assert seen == expected[: len(seen)], "a gap, or something twice"
                if client.pages[-1].value["isDone"]:
                    assert seen == expected
                for page, following in zip(client.pages, client.pages[1:], strict=False):
                    assert not page.value["isDone"]
                    assert page.value["continueCursor"] == following.options["cursor"]

            for _ in range(2):
                await client.settle()
                check(whole())
                client.load_more()
            await client.settle()
            for step in steps:
                known = whole()
                match step:
                    case ("insert", new):
                        await store.mutation("insert", numbers=new)
                    case ("flood", n):  # more than can be read at once, in one place
                        await store.mutation("insert", numbers=[n + k / 100 for k in range(25)])
                    case ("change", one, n) if known:
                        await store.mutation("change", id=known[one % len(known)], n=n)
                    case ("remove", first, count) if known:
                        start = first % len(known)
                        await store.mutation("remove", ids=known[start : start + count])
                    case ("more",):
                        client.load_more()
                    case ("reconnect",):
                        client.reconnect()
                await client.settle()
                check(whole())
            while not client.pages[-1].value["isDone"]:
                client.load_more()
                await client.settle()
            check(whole())
            client.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder))
