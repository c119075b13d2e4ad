"""`env`: variables of a running or stopped deployment."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(params=["stopped", "running"])
def deployment(request, project):
    if request.param == "running":
        request.getfixturevalue("server")
    (project / "functions" / "places.py").write_text(
        "from reactive_store import QueryCtx, query\n\n\n@query\n"
        "async def place(ctx: QueryCtx) -> str:\n    return ctx.env['PLACE']\n"
    )
    return project


def test_a_variable_is_set_read_listed_and_removed(deployment, program):
    at = ("--app", deployment)
    assert program("env", "set", "PLACE", "here = there", *at).code == 0
    assert program("env", "set", "OTHER=1=2", *at).code == 0
    assert program("env", "get", "PLACE", *at).out == "here = there\n"
    assert program("env", "get", "PLACE", "--json", *at).out == '"here = there"\n'
    assert program("env", "list", *at).out == "OTHER=1=2\nPLACE=here = there\n"
    listed = program("env", "list", "--json", *at).out
    assert json.loads(listed) == {"OTHER": "1=2", "PLACE": "here = there"}
    assert program("env", "remove", "OTHER", *at).code == 0
    assert program("env", "remove", "OTHER", *at).code == 0
    assert program("env", "list", *at).out == "PLACE=here = there\n"


def test_functions_read_what_was_set(project, program):
    (project / "functions" / "places.py").write_text(
        "from reactive_store import QueryCtx, query\n\n\n@query\n"
        "async def place(ctx: QueryCtx) -> str:\n    return ctx.env['PLACE']\n"
    )
    program("env", "set", "PLACE", "here", "--app", project)
    assert program("run", "places:place", "--app", project).out == '"here"\n'


def test_a_variable_that_is_not_set_is_a_failure(deployment, program):
    result = program("env", "get", "NOPE", "--app", deployment)
    assert (result.code, result.out) == (1, "")
    assert "NOPE is not set" in result.err


@pytest.mark.parametrize(("arguments", "text"), [(["1A", "x"], "1A"), (["A"], "env set A VALUE")])
def test_what_cannot_be_set_is_said(deployment, program, arguments, text):
    result = program("env", "set", *arguments, "--app", deployment)
    assert result.code == 1
    assert text in result.err
