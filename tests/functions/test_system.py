"""System queries: what administrators' tools see, live like any query, and nobody else."""

from __future__ import annotations

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.functions.outcome import Failure
from reactive_store.testing import FunctionError, TestBackend

SOURCE = """
from reactive_store import MutationCtx, QueryCtx, internal_query, mutation, query


@mutation
async def add(ctx: MutationCtx, table: str, number: int) -> str:
    return await ctx.db.insert(table, {"number": number})


@internal_query
async def hidden(ctx: QueryCtx) -> None:
    pass
"""
FIRST = {"cursor": None, "numItems": 10}


@pytest.fixture
async def t(tmp_path):
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "m.py").write_text(SOURCE)
    async with TestBackend(app=tmp_path) as backend:
        yield backend


async def test_tables_are_listed_by_name_as_they_come_into_being(t):
    path = "_system/cli/tables:default"
    async with t.subscribe(path, paginationOpts=FIRST) as live:
        assert await live.next() == {"page": [], "isDone": True, "continueCursor": "end"}
        for table in ("zebras", "apes"):
            await t.mutation("m:add", table=table, number=1)
        assert (await live.next())["page"] == [{"name": "apes"}, {"name": "zebras"}]


@pytest.mark.parametrize(
    ("order", "numbers"), [({}, [0, 1]), ({"order": "asc"}, [0, 1]), ({"order": "desc"}, [2, 1])]
)
async def test_documents_come_in_pages_in_either_order(t, order, numbers):
    for number in range(3):
        await t.mutation("m:add", table="rows", number=number)
    args = {"table": "rows", **order}
    page = await t.query(
        "_system/cli/tableData", paginationOpts={"cursor": None, "numItems": 2}, **args
    )
    assert [document["number"] for document in page["page"]] == numbers
    assert not page["isDone"]
    options = {"cursor": page["continueCursor"], "numItems": 2}
    rest = await t.query("_system/cli/tableData", paginationOpts=options, **args)
    assert len(rest["page"]) == 1
    assert rest["isDone"]


@pytest.mark.parametrize("table", ["_storage", "_scheduled_functions", "unknown"])
async def test_a_table_without_documents_is_an_empty_page(t, table):
    page = await t.query("_system/cli/tableData", table=table, paginationOpts=FIRST)
    assert (page["page"], page["isDone"]) == ([], True)


@pytest.mark.parametrize("table", ["_tables", "_environment_variables", "_session_requests"])
async def test_private_tables_stay_private(t, table):
    with pytest.raises(FunctionError, match=table):
        await t.query("_system/cli/tableData", table=table, paginationOpts=FIRST)


async def test_environment_variables_are_listed_and_read_live(t):
    listing = "_system/cli/queryEnvironmentVariables"
    async with t.subscribe(f"{listing}:get", name="B") as live:
        assert await live.next() is None
        await t.backend.environment.update({"B": "2", "A": "1"})
        assert await live.next() == {"name": "B", "value": "2"}
    assert await t.query(listing) == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]


async def test_functions_are_described_internal_ones_too(t):
    spec = await t.query("_system/cli/modules:apiSpec", componentId=None)
    assert [(each["identifier"], each["visibility"]["kind"]) for each in spec] == [
        ("m.js:add", "public"),
        ("m.js:hidden", "internal"),
    ]


async def test_the_address_is_the_announced_one(t):
    assert await t.query("_system/cli/convexUrl:cloudUrl") is None
    t.backend.announce("http://127.0.0.1:3210")
    assert await t.query("_system/cli/convexUrl:cloudUrl") == "http://127.0.0.1:3210"


async def test_there_are_no_components(t):
    with pytest.raises(FunctionError, match="no component 'x'"):
        await t.query("_system/cli/convexUrl:cloudUrl", componentId="x")


async def test_only_administrators_may_ask(t):
    for path in t.backend.runner.system_functions:
        outcome = await t.backend.runner.query(path, {}, ANONYMOUS)
        assert isinstance(outcome, Failure)
        assert "permission" in outcome.message
