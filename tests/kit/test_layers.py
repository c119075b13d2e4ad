"""Layers over `ctx.db`: everything passes through, and every write passes one method."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from reactive_store import (
    DatabaseReader,
    DatabaseWriter,
    MutationCtx,
    define_schema,
    define_table,
    v,
)
from reactive_store.kit.layers import ReaderLayer, Write, WriterLayer
from reactive_store.testing import FunctionError, TestBackend

SCHEMA = define_schema({"notes": define_table({"text": v.string()})})


class Noting(WriterLayer):
    """Writes down what is written."""

    __slots__ = ("seen",)

    seen: list[tuple[str, Any]]

    async def _write(self, write: Write) -> Any:
        self.seen.append((write.operation, write.args[-1]))
        return await super()._write(write)


def noting(db: DatabaseWriter) -> Noting:
    layer = Noting.around(db)
    layer.seen = []
    return layer


async def test_each_write_is_seen_with_or_without_its_table():
    async def work(ctx: MutationCtx) -> None:
        db = noting(ctx.db)
        note = await db.insert("notes", {"text": "a"})
        await db.patch(note, {"text": "b"})
        await db.patch("notes", note, {"text": "c"})
        await db.replace("notes", note, {"text": "d"})
        found = await db.get("notes", note)
        assert found is not None
        assert found["text"] == "d"
        assert len(await db.query("notes").collect()) == 1
        assert db.normalize_id("notes", note) == note
        await db.delete("notes", note)
        assert await db.system.query("_storage").collect() == []
        assert db.seen == [
            ("insert", {"text": "a"}),
            ("patch", {"text": "b"}),
            ("patch", {"text": "c"}),
            ("replace", {"text": "d"}),
            ("delete", note),
        ]

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


@pytest.mark.parametrize(
    ("method", "args", "text"),
    [
        ("insert", ("notes",), "arg 2 `value` to `insert`"),
        ("patch", (), "arg 1 `id` to `patch`"),
        ("replace", ("x",), "arg 2 `value` to `replace`"),
        ("delete", (), "arg 1 `id` to `delete`"),
    ],
)
async def test_what_is_missing_is_said_as_without_a_layer(method, args, text):
    async def work(ctx: MutationCtx) -> None:
        await getattr(noting(ctx.db), method)(*args)

    async with TestBackend(schema=SCHEMA) as t:
        with pytest.raises(TypeError, match=text):
            await t.run(work)


async def test_a_forgotten_await_of_a_layer_is_found():
    async def work(ctx: MutationCtx) -> None:
        noting(ctx.db).insert("notes", {"text": "a"})  # type: ignore[unused-coroutine]

    async with TestBackend(schema=SCHEMA) as t:
        with pytest.raises(FunctionError, match=r"`insert\(…\)` was called without `await`"):
            await t.run(work)


async def test_a_savepoint_undoes_what_an_exception_leaves_behind():
    async def broken(ctx: MutationCtx) -> None:
        with ctx.db.savepoint():
            await ctx.db.insert("notes", {"text": "inside"})
            with ctx.db.savepoint():
                await ctx.db.insert("notes", {"text": "kept by the inner one"})
            raise ValueError("stop")

    async def work(ctx: MutationCtx) -> list[str]:
        await ctx.db.insert("notes", {"text": "before"})
        with pytest.raises(ValueError, match="stop"):
            await broken(ctx)
        with noting(ctx.db).savepoint():
            await ctx.db.insert("notes", {"text": "after"})
        return [note["text"] for note in await ctx.db.query("notes").collect()]

    async with TestBackend(schema=SCHEMA) as t:
        assert await t.run(work) == ["before", "after"]


def test_nothing_that_reads_or_writes_goes_past_a_layer():
    """A new method of ctx.db must be thought about: rules and triggers rest on it."""
    passed_on = {"get", "query", "insert", "patch", "replace", "delete"}
    untouched = {"normalize_id", "over", "close", "system", "journal_in", "journal_out"}
    for layer, kind in ((WriterLayer, DatabaseWriter), (ReaderLayer, DatabaseReader)):
        public = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}
        more = {"savepoint"} if kind is DatabaseWriter else set()
        assert public - set(vars(layer)) - more == untouched
        assert set(vars(layer)) >= passed_on & public
