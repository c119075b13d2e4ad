"""Changes of every document of a table, in batches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store import MutationCtx, define_schema, define_table, v
from reactive_store.kit.migrations import Migrations, migration_tables
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import FunctionError, TestBackend

SCHEMA = define_schema(
    {
        **migration_tables(),
        "messages": define_table({"n": v.number(), "times": v.optional(v.number())}),
        "log": define_table({"text": v.any()}),
    }
)

FUNCTIONS = """
from typing import Any

from reactive_store import Document, MutationCtx, QueryCtx, mutation, query
from reactive_store.kit.migrations import Migrations

migrations = Migrations()
migrations_turn = migrations.function


@migrations.define("messages", batch=10)
async def mark(ctx: MutationCtx, doc: Document) -> dict[str, Any] | None:
    if doc["n"] == {BAD}:
        raise ValueError("not this one")
    return {"times": doc.get("times", 0) + 1}


@migrations.define("messages", batch=10)
async def drop_even(ctx: MutationCtx, doc: Document) -> None:
    if doc["n"] % 2 == 0:
        await ctx.db.delete(doc["_id"])


@migrations.define("messages", batch=1000)
async def look(ctx: MutationCtx, doc: Document) -> None:
    pass


@mutation
async def start(
    ctx: MutationCtx, names: list[str], reset: bool = False, count: bool = True
) -> None:
    await migrations.start(ctx, *names, reset=reset, count=count)


@mutation
async def cancel(ctx: MutationCtx, name: str) -> bool:
    return await migrations.cancel(ctx, name)


@mutation
async def dry_run(ctx: MutationCtx, name: str) -> Any:
    found = await migrations.dry_run(ctx, name)
    return [found.processed, found.changed, [list(pair) for pair in found.samples]]


@query
async def status(ctx: QueryCtx, name: str) -> Any:
    return await migrations.status(ctx, name)


@query
async def statuses(ctx: QueryCtx) -> Any:
    return [[each["name"], each["state"]] for each in await migrations.statuses(ctx)]
"""


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., Path]:
    def write(bad: int = -1) -> Path:
        folder = tmp_path / "functions"
        folder.mkdir(exist_ok=True)
        text = FUNCTIONS.replace("{BAD}", str(bad))
        (folder / "moves.py").write_text(text, encoding="utf-8")
        return folder

    return write


async def fill(ctx: MutationCtx) -> None:
    for n in range(35):
        await ctx.db.insert("messages", {"n": n})


async def times(ctx: MutationCtx) -> list[Any]:
    return [each.get("times", 0) for each in await ctx.db.query("messages").collect()]


async def test_every_document_is_changed_once_and_progress_is_live(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        await t.run(fill)
        assert await t.query("moves:status", name="mark") is None
        seen = []
        async with t.subscribe("moves:status", name="mark") as live:
            assert await live.next() is None
            await t.mutation("moves:start", names=["mark"])
            while not seen or seen[-1]["state"] != "done":
                seen.append(await live.next())
        assert {"counting", "running", "done"} >= {each["state"] for each in seen}
        processed = [each["processed"] for each in seen]
        assert processed == sorted(processed)
        assert processed[-1] == seen[-1]["total"] == 35
        assert await t.run(times) == [1] * 35
        await t.mutation("moves:start", names=["mark"])
        await t.finish_scheduled_functions()
        assert await t.run(times) == [1] * 35  # done is done
        await t.mutation("moves:start", names=["mark"], reset=True, count=False)
        await t.finish_scheduled_functions()
        assert await t.run(times) == [2] * 35
        assert (await t.query("moves:status", name="mark"))["total"] is None


async def test_an_error_names_the_document_and_a_new_start_goes_on_there(app: Callable[..., Path]):
    disk = MemoryPersistence()
    async with TestBackend(SCHEMA, app(bad=24), persistence=disk) as t:
        await t.run(fill)
        await t.mutation("moves:start", names=["mark", "look"])
        await t.finish_scheduled_functions()
        status = await t.query("moves:status", name="mark")
        assert (status["state"], status["processed"]) == ("failed", 20)
        assert status["error"].startswith("messages ")
        assert status["error"].endswith(": ValueError: not this one")
        assert await t.run(times) == [1] * 20 + [0] * 15
        assert await t.query("moves:status", name="look") is None
    async with TestBackend(SCHEMA, app(), persistence=disk, seed=1) as t:
        await t.mutation("moves:start", names=["mark", "look"])
        await t.finish_scheduled_functions()
        assert await t.run(times) == [1] * 35
        assert await t.query("moves:statuses") == [["look", "done"], ["mark", "done"]]


async def test_a_restart_in_the_middle_changes_nothing(app: Callable[..., Path]):
    disk = MemoryPersistence()
    folder = app()
    async with TestBackend(SCHEMA, folder, persistence=disk) as t:
        await t.run(fill)
        async with t.subscribe("moves:status", name="mark") as live:
            await t.mutation("moves:start", names=["mark"])
            while not (value := await live.next()) or value["processed"] < 10:
                pass
            assert value["state"] == "running"
    async with TestBackend(SCHEMA, folder, persistence=disk, seed=1) as t:
        await t.advance(timedelta(seconds=5))
        assert (await t.query("moves:status", name="mark"))["state"] == "done"
        assert await t.run(times) == [1] * 35


async def test_several_run_one_after_the_other(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        await t.run(fill)
        await t.mutation("moves:start", names=["drop_even", "mark", "look"])
        await t.finish_scheduled_functions()
        assert await t.run(times) == [1] * 17
        status = await t.query("moves:status", name="mark")
        assert (status["processed"], status["total"]) == (17, 17)
        assert (await t.query("moves:status", name="drop_even"))["processed"] == 35


async def test_a_canceled_one_stops_and_goes_on_when_it_is_started_again(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        await t.run(fill)
        async with t.subscribe("moves:status", name="mark") as live:
            await t.mutation("moves:start", names=["mark", "look"])
            while not (value := await live.next()) or value["processed"] < 10:
                pass
            assert await t.mutation("moves:cancel", name="mark")
        await t.finish_scheduled_functions()
        status = await t.query("moves:status", name="mark")
        assert status["state"] == "canceled"
        assert status["processed"] < 35
        assert sum(await t.run(times)) == status["processed"]
        assert not await t.mutation("moves:cancel", name="mark")
        await t.mutation("moves:start", names=["mark"])
        await t.finish_scheduled_functions()
        assert await t.run(times) == [1] * 35


async def test_a_dry_run_tells_and_undoes(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        await t.run(fill)
        processed, changed, samples = await t.mutation("moves:dryRun", name="mark")
        assert (processed, changed, len(samples)) == (10, 10, 3)
        before, after = samples[0]
        assert "times" not in before
        assert after["times"] == 1
        processed, changed, samples = await t.mutation("moves:dryRun", name="drop_even")
        assert (processed, changed, samples[0][1]) == (10, 5, None)
        assert await t.run(times) == [0] * 35
        assert await t.query("moves:statuses") == []
    async with TestBackend(SCHEMA, app(bad=3)) as t:
        await t.run(fill)
        with pytest.raises(FunctionError, match="not this one"):
            await t.mutation("moves:dryRun", name="mark")


async def test_an_empty_table_is_done_at_once(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        await t.mutation("moves:start", names=["mark"])
        await t.finish_scheduled_functions()
        status = await t.query("moves:status", name="mark")
        assert (status["state"], status["processed"], status["total"]) == ("done", 0, 0)
        with pytest.raises(FunctionError, match="no migration 'nothing'"):
            await t.mutation("moves:start", names=["nothing"])


def test_mistakes_at_definition_are_named():
    migrations = Migrations()
    with pytest.raises(ValueError, match="at least one"):
        migrations.define("messages", batch=0)

    async def twice(ctx: Any, doc: Any) -> None: ...

    migrations.define("messages")(twice)
    with pytest.raises(ValueError, match="already"):
        migrations.define("messages")(twice)
