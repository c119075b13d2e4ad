"""Putting new code and a new schema in force, as functions of the app see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reactive_store.errors import BadRequest
from reactive_store.functions.loader import load_app
from tests.functions.running import INLINE, FailedCall, Running, write_app

VERSION = """
@query
async def version(ctx):
    return {}
"""


def schema(document: str = '{"n": v.number()}', indexes: str = "", options: str = "") -> str:
    return f'schema = define_schema({{"t": define_table({document}){indexes}}}{options})'


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    modules = {"inline": INLINE, "m": VERSION.format(1)}
    async with Running.open(tmp_path / "1", modules, schema=schema()) as running:
        await running.writes(put(3, 1, 2))
        yield running


def put(*numbers: Any) -> Any:
    async def body(ctx: Any) -> list[str]:
        return [await ctx.db.insert("t", {"n": n}) for n in numbers]

    return body


def read(index: str | None = None) -> Any:
    async def body(ctx: Any) -> list[Any]:
        query = ctx.db.query("t")
        query = query if index is None else query.with_index(index)
        return [document["n"] for document in await query.collect()]

    return body


async def push(store: Running, text: str, version: int = 2) -> None:
    modules = {"inline": INLINE, "m": VERSION.format(version)}
    await store.backend.reload(write_app(store.root.parent / str(version), modules, text))


async def refused(store: Running, body: Any) -> str:
    with pytest.raises(FailedCall) as caught:
        await store.writes(body)
    return caught.value.failure.message.partition("\n    at ")[0]


async def test_a_schema_that_stored_documents_break_leaves_everything_as_it_was(store: Running):
    """F187, V96."""
    (bad,) = await store.writes(put(4))
    await store.writes(lambda ctx: ctx.db.patch(bad, {"n": 4.5}))
    narrower = schema('{"n": v.union(v.literal(1), v.literal(2), v.literal(3))}')
    with pytest.raises(BadRequest) as caught:
        await push(store, narrower)
    assert caught.value.message == (
        f'Document with ID "{bad}" in table "t" does not match the schema: '
        "Value does not match validator.\nPath: .n\nValue: 4.5\n"
        "Validator: v.union(v.literal(1.0), v.literal(2.0), v.literal(3.0))"
    )
    assert await store.query("version") == 1
    await store.writes(lambda ctx: ctx.db.patch(bad, {"n": 5}))
    assert "does not match the schema" in await refused(store, put("text"))
    await store.writes(lambda ctx: ctx.db.delete(bad))
    await push(store, narrower)
    assert await store.query("version") == 2
    assert "does not match the schema" in await refused(store, put(5))


async def test_a_new_index_is_complete_when_the_push_returns_and_a_staged_one_is_closed(
    store: Running,
):
    """F188, V99, V100."""
    await push(store, schema(indexes='.index("by_n", ["n"])'))
    assert await store.reads(read("by_n")) == [1, 2, 3]
    await push(store, schema(indexes='.index("by_n", ["n"], staged=True)'), 3)
    assert await refused(store, read("by_n")) == (
        "Uncaught Error: Index t.by_n is currently staged and not available to query until it is "
        "enabled."
    )
    await store.writes(put(0))
    await push(store, schema(indexes='.index("by_n", ["n"])'), 4)
    assert await store.reads(read("by_n")) == [0, 1, 2, 3]
    await push(store, schema(), 5)
    assert await refused(store, read("by_n")) == "Uncaught Error: Index t.by_n not found."


async def test_a_table_out_of_the_schema_keeps_its_documents_and_takes_any(store: Running):
    """F189."""
    await push(store, "schema = define_schema({})")
    assert await store.reads(read()) == [3, 1, 2]
    await store.writes(put("text", None))
    assert await store.reads(read()) == [3, 1, 2, "text", None]


async def test_without_validation_documents_are_free_and_indexes_work(store: Running):
    """F190."""
    index = '.index("by_n", ["n"])'
    await push(store, schema(indexes=index, options=", schema_validation=False"))
    await store.writes(put("text", None))
    assert await store.reads(read("by_n")) == [None, 1, 2, 3, "text"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            schema("v.string()"),
            "The document validator in a schema must be an object, a union of objects, or `v.any",
        ),
        (
            schema(indexes='.index("by_n", ["nope"])'),
            'In table "t" the index "by_n" is invalid because it references the field "nope" tha',
        ),
        (
            schema(indexes='.index("by_id", ["n"])'),
            'In table "t" cannot name an index "by_id" because the name is reserved.',
        ),
        (
            schema(indexes='.index("by_n", [])'),
            'In table "t" index "by_n" must have at least one field.',
        ),
        (
            schema(indexes='.index("a", ["n"]).index("b", ["n"])'),
            'In table "t" index "b" and index "a" have the same fields. Indexes must be unique',
        ),
        (
            schema(indexes='.vector_index("e", vector_field="n", dimensions=1)'),
            'In table "t": Dimensions 1 must be between 2 and 4096.',
        ),
        (
            schema(indexes='.search_index("by_n", search_field="n").index("by_n", ["n"])'),
            'Table "t" has two or more definitions of index "by_n".',
        ),
    ],
)
async def test_a_mistake_in_a_definition_fails_the_push(
    store: Running, tmp_path: Path, text: str, told: str
):
    """F191."""
    with pytest.raises(BadRequest) as caught:
        await push(store, text)
    assert caught.value.message.startswith(f"Hit an error while evaluating your schema:\n{told}")
    assert await store.query("version") == 1
    with pytest.raises(BadRequest):
        load_app(tmp_path / "2")
