"""What functions can observe of full-text search: F152–F160 of docs/reference/functions.md.

Every body runs inside a real query or mutation of a running backend.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reactive_store import UNSET
from tests.functions.running import INLINE, FailedCall, Running

ROOT = Path(__file__).resolve().parents[2]

SCHEMA = """
schema = define_schema({
    "notes": define_table(v.any())
        .search_index("by_text", search_field="text", filter_fields=["room", "o.kind"])
        .search_index("staged", search_field="title", staged=True)
        .index("by_room", ["room"])
        .vector_index("by_v", vector_field="v", dimensions=2),
})
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    async with Running.open(tmp_path, {"inline": INLINE}, schema=SCHEMA) as running:
        yield running


async def put(store: Running, *texts: Any, **fields: Any) -> list[str]:
    """Add a note per text, each by a mutation of its own, the first the oldest."""
    ids: list[str] = []
    for text in texts:

        async def body(ctx: Any, text: Any = text) -> str:
            document = {**fields, **({} if text is UNSET else {"text": text})}
            added: str = await ctx.db.insert("notes", document)
            return added

        ids.append(await store.writes(body))
    return ids


def search(ctx: Any, text: str, *filters: tuple[str, Any], index: str = "by_text") -> Any:
    def build(s: Any) -> Any:
        s = s.search("text", text)
        for field, value in filters:
            s = s.eq(field, value)
        return s

    return ctx.db.query("notes").with_search_index(index, build)


async def texts(store: Running, text: str, *filters: tuple[str, Any]) -> list[Any]:
    async def body(ctx: Any) -> list[Any]:
        return [document["text"] for document in await search(ctx, text, *filters).collect()]

    found: list[Any] = await store.reads(body)
    return found


async def refused(store: Running, make: Any) -> str:
    async def body(ctx: Any) -> Any:
        return await make(ctx.db.query("notes")).collect()

    with pytest.raises(FailedCall) as caught:
        await store.reads(body)
    return caught.value.failure.message


async def test_f152_words_without_regard_to_case_and_punctuation(store: Running):
    await put(store, "Hello, WORLD!", "hello_there", "helloworld", "running", "x" * 32, "Ångström")
    assert await texts(store, "HELLO now") == ["hello_there", "Hello, WORLD!"]
    assert await texts(store, "there.") == ["hello_there"]
    assert await texts(store, "runs") == []  # no stemming
    assert await texts(store, "ångSTRÖM") == ["Ångström"]
    assert await texts(store, "x" * 32) == []  # too long for a word
    assert await texts(store, "x" * 31) == []


async def test_f153_only_the_last_word_is_a_prefix(store: Running):
    await put(store, "hello world", "help wanted")
    assert await texts(store, "hel") == ["help wanted", "hello world"]
    assert await texts(store, "hel wan") == ["help wanted"]
    assert await texts(store, "hel nothing") == []
    words = " ".join(f"w{number}" for number in range(15))
    assert await texts(store, f"{words} hello wanted") == ["hello world"]  # the 17th is ignored


async def test_f154_any_word_qualifies_and_bm25_orders(store: Running):
    await put(
        store,
        "red blue",  # both words
        "red red green",  # twice is more than once
        "red green green",
        "blue green and much else besides that makes it long",
        "green",
    )
    assert await texts(store, "red blue") == [
        "red blue",
        "red red green",
        "red green green",
        "blue green and much else besides that makes it long",
    ]
    # As common and as long as the other, but only begun: half the score.
    await put(store, "cat", "catalogue")
    assert await texts(store, "cat") == ["cat", "catalogue"]
    # Rare words say more than common ones.
    await put(store, "green zebra", "green red")
    assert (await texts(store, "red zebra"))[0] == "green zebra"


async def test_f155_equal_scores_newest_first(store: Running):
    ids = await put(store, "same", "same", "same")

    async def body(ctx: Any) -> list[str]:
        return [document["_id"] for document in await search(ctx, "same").collect()]

    assert await store.reads(body) == ids[::-1]


async def test_f156_filters(store: Running):
    """F156."""
    await put(store, "tea", room="a", o={"kind": 1})
    await put(store, "tea tea", room="b", o={"kind": 1})
    await put(store, "tea for two")
    assert await texts(store, "tea", ("room", "a")) == ["tea"]
    assert await texts(store, "tea", ("o.kind", 1)) == ["tea tea", "tea"]
    assert await texts(store, "tea", ("o.kind", 1), ("room", "b")) == ["tea tea"]
    assert await texts(store, "tea", ("room", UNSET)) == ["tea for two"]
    assert await texts(store, "tea", ("room", None)) == []
    assert await texts(store, "tea", ("room", "a"), ("room", "b")) == []
    wrong = {
        lambda s: s.search("text", "x").eq("color", 1): (
            'contains an equality filter on "color" but that field isn\'t indexed for filtering '
            "in `filterFields`."
        ),
        lambda s: s.eq("room", "a"): (
            "does not contain any search filters. You must include a search filter like "
            '`q.search("field", searchText)`.'
        ),
        lambda s: s.search("title", "x"): (
            'contains a search filter against "title", which doesn\'t match the indexed '
            '`searchField` "text".'
        ),
        lambda s: s.search("text", "x").search("text", "y"): (
            'contains multiple search filters against "text". Only one is allowed.'
        ),
    }
    for build, text in wrong.items():
        found = await refused(store, lambda q, build=build: q.with_search_index("by_text", build))
        assert f"Search query against notes.by_text {text}" in found

    def nine(s: Any) -> Any:
        s = s.search("text", "x")
        for _ in range(9):
            s = s.eq("room", "a")
        return s

    assert (
        "Search query against notes.by_text has too many filter conditions. Max: 8 Actual: 9"
        in await refused(store, lambda q: q.with_search_index("by_text", nine))
    )


async def test_a_builder_is_used_once(store: Running):
    def twice(s: Any) -> Any:
        s.search("text", "x")
        return s.search("text", "y")

    assert (
        "SearchFilterBuilder has already been used! Chain your method calls like "
        "`q => q.search(...).eq(...)`."
        in await refused(store, lambda q: q.with_search_index("by_text", twice))
    )


async def test_only_search_indexes_can_be_searched(store: Running):
    for name in ("by_room", "by_creation_time", "by_id", "by_v"):
        text = await refused(
            store, lambda q, name=name: q.with_search_index(name, lambda s: s.search("text", "x"))
        )
        assert f"Index notes.{name} is not a search index" in text
    text = await refused(
        store, lambda q: q.with_search_index("none", lambda s: s.search("text", "x"))
    )
    assert "Index notes.none not found." in text
    text = await refused(
        store, lambda q: q.with_search_index("staged", lambda s: s.search("title", "x"))
    )
    assert (
        "Index notes.staged is currently staged and not available to query until it is enabled."
        in text
    )


async def test_f157_no_words_no_results(store: Running):
    await put(store, "something", "", " , ", 7, None, UNSET, ["something"])
    for text in ("", "  ", "?!", "\u2014", "_"):
        assert await texts(store, text) == []
    assert await texts(store, "something") == ["something"]


async def test_f158_a_mutation_finds_what_it_wrote(store: Running):
    """F158."""
    (tea, coffee) = await put(store, "green tea", "coffee")

    async def body(ctx: Any) -> list[list[str]]:
        async def now(text: str) -> list[str]:
            return [document["text"] for document in await search(ctx, text).collect()]

        seen = [await now("tea")]
        await ctx.db.insert("notes", {"text": "black tea"})
        seen.append(await now("tea"))
        await ctx.db.patch(tea, {"text": "water"})
        await ctx.db.delete(coffee)
        seen += [await now("tea"), await now("wat"), await now("coffee")]
        return seen

    seen = [["green tea"], ["black tea", "green tea"], ["black tea"], ["water"], []]
    assert await store.writes(body) == seen
    assert await texts(store, "tea") == ["black tea"]


async def test_what_was_rolled_back_is_not_found(store: Running):
    async def body(ctx: Any) -> None:
        await ctx.db.insert("notes", {"text": "ghost"})
        assert len(await search(ctx, "ghost").collect()) == 1
        raise ValueError("no")

    with pytest.raises(FailedCall):
        await store.writes(body)
    assert await texts(store, "ghost") == []


async def test_a_live_search_hears_of_what_it_would_find_and_of_nothing_else(store: Running):
    """F158."""
    await put(store, *["filler text"] * 45, room="a")
    (tea,) = await put(store, "green tea", room="a")
    live = store.watches(lambda ctx: search(ctx, "tea", ("room", "a")).collect())
    assert [each["text"] for each in await live.read()] == ["green tea"]
    await put(store, "black coffee", room="a")
    await put(store, "old teapot", room="b")
    assert live.told == 1  # a new word that the prefix stands for
    await live.read()
    await put(store, "warm milk", "brown sugar", room="a")
    assert live.told == 1
    await put(store, "tea", room="a")
    assert live.told == 2
    assert [each["text"] for each in await live.read()] == ["tea", "green tea"]

    async def edit(ctx: Any) -> None:
        await ctx.db.patch(tea, {"seen": True})

    await store.writes(edit)
    assert live.told == 3
    assert [each.get("seen") for each in await live.read()] == [None, True]
    live.close()


async def test_f159_pages_of_a_search(store: Running):
    added = await put(store, *["tea"] * 25)
    visited: list[str] = []
    cursor: str | None = None
    while True:

        async def body(ctx: Any, cursor: str | None = cursor) -> Any:
            page = await search(ctx, "tea").paginate(
                {"numItems": 10, "cursor": cursor, "maximumRowsRead": 2}
            )
            return {**page, "page": [each["_id"] for each in page["page"]]}

        page = await store.reads(body)
        assert page["splitCursor"] is None
        assert page["pageStatus"] is None
        visited += page["page"]
        cursor = page["continueCursor"]
        if page["isDone"]:
            break
        assert len(page["page"]) == 10
    assert visited == added[::-1]

    async def other(ctx: Any) -> Any:
        return await search(ctx, "coffee").paginate({"numItems": 10, "cursor": cursor})

    with pytest.raises(FailedCall, match="InvalidCursor"):
        await store.reads(other)


async def test_f160_a_search_reads_1024_documents_at_most(store: Running):
    async def fill(ctx: Any) -> None:
        for number in range(1024):
            await ctx.db.insert("notes", {"text": "tea", "n": number})

    await store.writes(fill)

    async def everything(ctx: Any) -> int:
        return len(await search(ctx, "tea").collect())

    async def by_pages(ctx: Any) -> Any:
        page = await search(ctx, "tea").paginate({"numItems": 1000, "cursor": None})
        return page["continueCursor"]

    assert await store.reads(everything) == 1024  # there is nothing to read beyond them
    await put(store, "tea")
    text = (
        r"Search query scanned too many documents \(fetched 1024\). Consider using a smaller limit,"
        " paginating the query, or using a filter field to limit the number of documents pulled "
        "from the search index."
    )
    with pytest.raises(FailedCall, match=text):
        await store.reads(everything)
    cursor = await store.reads(by_pages)

    async def beyond(ctx: Any) -> Any:
        return await search(ctx, "tea").paginate({"numItems": 100, "cursor": cursor})

    with pytest.raises(FailedCall, match=text):
        await store.reads(beyond)

    async def taken(ctx: Any) -> list[int]:
        one = await search(ctx, "tea").first()
        some = await search(ctx, "tea").take(1024)
        walked = 0
        async for _ in search(ctx, "tea").filter(lambda f: f.field("n") == 3):
            walked += 1
            break
        return [one is not None, len(some), walked]

    assert await store.reads(taken) == [True, 1024, 1]


async def test_the_app_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / "docs" / "guide" / "search.md").read_text(encoding="utf-8")
    section = text.partition("## Text search\n")[2].partition("## Vector search\n")[0]
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in blocks] == [
        "schema.py",
        "functions/messages.py",
        "test_messages.py",
    ]
    for name, body in blocks:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(blocks[2][1], "test_messages.py", "exec"), names)
    await names["test_search_as_you_type"]()
