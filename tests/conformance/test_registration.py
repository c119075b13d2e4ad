"""Registration, arguments and paths as callers over HTTP see them; see test_functions.py too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactive_store.server.app import app_for
from reactive_store.values.ids import decode_id, encode_id
from tests.functions.running import ADMIN, FailedCall, Running
from tests.server.conftest import client_for

APP = """
@query
async def default(ctx):
    return "the default export"

@query
async def bare(ctx, **given):
    return given

@query()
async def called(ctx, **given):
    return given

@query
async def first_of_all(ctx):
    return "first"

@query(args={"id": v.id("notes")})
async def of_notes(ctx, id):
    return id

@query(args={"x": v.any()})
async def echo(ctx, x):
    return x

@internal_query
async def hidden(ctx):
    return "hidden"

@mutation
async def note(ctx):
    return await ctx.db.insert("notes", {})

@action
async def by_every_name(ctx):
    from_text = await ctx.run_query("notes:hidden")
    with_js = await ctx.run_query("notes.js:hidden")
    by_object = await ctx.run_query(hidden)
    return [from_text, with_js, by_object, await ctx.run_query(api.notes.hidden)]

@action
async def cannot_be_called(ctx):
    texts = []
    for wrong in (17, None, api, api.notes):
        try:
            await ctx.run_query(wrong)
        except Exception as error:
            texts.append(str(error))
    return texts
"""
MODULES = {"notes": APP, "deep/down/notes": APP}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    async with Running.open(tmp_path, MODULES) as running:
        yield running


@pytest.fixture
async def http(store: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(app_for(store.backend)) as client:
        yield client


async def asked(http: httpx.AsyncClient, path: str, kind: str = "query", **fields: Any) -> Any:
    answer = await http.post(f"/api/{kind}", json={"path": path, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def value_of(http: httpx.AsyncClient, path: str, kind: str = "query", **fields: Any) -> Any:
    answer = await asked(http, path, kind, **fields)
    assert answer["status"] == "success", answer
    return answer["value"]


async def fault_of(http: httpx.AsyncClient, path: str, kind: str = "query", **fields: Any) -> str:
    """The text without the line that names the request."""
    answer = await asked(http, path, kind, **fields)
    assert answer["status"] == "error", answer
    head, _, text = answer["errorMessage"].partition("\n")
    assert head.startswith("[Request ID: ")
    return str(text)


async def test_the_decorator_may_be_called_or_not(http: httpx.AsyncClient):
    """F1."""
    for path in ("notes:bare", "notes:called"):
        assert await value_of(http, path, args={"a": 1, "b": [None]}) == {"a": 1, "b": [None]}


async def test_an_id_of_no_table_at_all_is_no_id(http: httpx.AsyncClient):
    """F8, V50."""
    ident = await value_of(http, "notes:note", "mutation")
    assert await value_of(http, "notes:ofNotes", args={"id": ident}) == ident
    nowhere = encode_id(19_999, decode_id(ident).internal_id)
    assert await fault_of(http, "notes:ofNotes", args={"id": nowhere}) == (
        "ArgumentValidationError: Value does not match validator.\n"
        f'Path: .id\nValue: "{nowhere}"\nValidator: v.id("notes")\n'
    )


@pytest.mark.parametrize("module", ["notes", "deep/down/notes"])
async def test_a_path_has_several_spellings(http: httpx.AsyncClient, module: str):
    """F17."""
    for path in (module, f"{module}:default", f"{module}.js:default", f"{module}.js"):
        assert await value_of(http, path) == "the default export"
    for path in (f"{module}:firstOfAll", f"{module}.js:firstOfAll", f"{module}:first_of_all"):
        assert await value_of(http, path) == "first"


async def test_what_a_stranger_may_not_call_is_not_there(http: httpx.AsyncClient):
    """F18, F19."""
    texts = {
        await fault_of(http, path, kind)
        for path in ("notes:hidden", "notes:nothing", "nowhere:hidden", "notes.js:hidden")
        for kind in ("query", "mutation", "action")
    }
    assert texts == {
        f"Could not find public function for '{path}'.\n"
        for path in ("notes:hidden", "notes:nothing", "nowhere:hidden")
    }
    assert await fault_of(http, "notes:note") == (
        "Trying to execute notes.js:note as Query, but it is defined as Mutation.\n"
    )


async def test_nothing_said_about_arguments_means_none(http: httpx.AsyncClient):
    """F27."""
    for fields in ({}, {"args": {}}, {"args": []}, {"args": [{}]}):
        assert await value_of(http, "notes:firstOfAll", **fields) == "first"


async def test_functions_are_named_by_text_object_and_reference(http: httpx.AsyncClient):
    """F20, F21."""
    assert await value_of(http, "notes:byEveryName", "action") == ["hidden"] * 4


async def test_what_names_no_function_is_refused(http: httpx.AsyncClient):
    """F22."""
    form = "API path is expected to be of the form `api.moduleName.functionName`. Found: "
    assert await value_of(http, "notes:cannotBeCalled", "action") == [
        "17 is not a functionReference",
        "None is not a functionReference",
        f"{form}`api`",
        f"{form}`api.notes`",
    ]


async def test_arguments_are_one_object(http: httpx.AsyncClient):
    """V92."""
    single = "ArgumentValidationError: Expected to receive a single object as the function's "
    assert await fault_of(http, "notes:echo", args=[{}, 5]) == (
        f"{single}argument. Instead received 2 arguments: [{{}},5]\n"
    )
    one = "ArgumentValidationError: Expected to receive an object as the function's argument. "
    assert await fault_of(http, "notes:echo", args=["x"]) == f'{one}Instead received: "x"\n'


async def test_arguments_are_read_in_the_encoded_form_whatever_the_answers_is(
    http: httpx.AsyncClient,
):
    """V19."""
    args = {"x": {"big": {"$integer": "AQAAAAAAAAA="}, "n": 5}}
    answers = {
        name: await value_of(http, "notes:echo", args=args, format=name)
        for name in ("convex_encoded_json", "json", "export_json")
    }
    assert answers == {
        "convex_encoded_json": args["x"],
        "json": {"big": "1", "n": 5},
        "export_json": {"big": 1, "n": 5},
    }


async def test_arguments_may_be_63_levels_deep(http: httpx.AsyncClient):
    """V33."""

    def deep(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    assert await value_of(http, "notes:echo", args={"x": deep(62)}) == deep(62)
    assert await fault_of(http, "notes:echo", args={"x": deep(63)}) == (
        "Invalid arguments for notes:echo: "
        "Value is too nested (nested 65 levels deep > maximum nesting 64)\n"
    )


async def test_a_module_that_is_not_there_is_named_to_who_may_know(store: Running):
    """F18."""
    with pytest.raises(FailedCall) as caught:
        await store.query("notes:nothing", by=ADMIN)
    assert caught.value.failure.message == 'Couldn\'t find "nothing" in module "notes.js".\n'
