"""`run`: any function, on a running or a stopped deployment, once or live."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess

TOOLS = """
from reactive_store import (
    ActionCtx, ConvexError, Int64, MutationCtx, QueryCtx, action, internal_mutation, internal, query
)


@query
async def who(ctx: QueryCtx) -> dict | None:
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else identity.to_json()


@query
async def increment(ctx: QueryCtx, by: Int64) -> Int64:
    print("adding", int(by))
    return Int64(by + 1)


@internal_mutation
async def wipe(ctx: MutationCtx) -> int:
    messages = await ctx.db.query("messages").collect()
    for message in messages:
        await ctx.db.delete(message["_id"])
    return len(messages)


@action
async def wipe_twice(ctx: ActionCtx) -> list[int]:
    return [await ctx.run_mutation(internal.tools.wipe) for _ in range(2)]


@query
async def at_most(ctx: QueryCtx, count: int) -> int:
    found = len(await ctx.db.query("messages").collect())
    if found > count:
        raise ConvexError({"found": found})
    return found
"""
HELLO = '{"author": "Ann", "body": "Hello"}'


@pytest.fixture
def project(project: Path) -> Path:
    (project / "functions" / "tools.py").write_text(TOOLS)
    return project


@pytest.fixture(params=["stopped", "running"])
def deployment(request, project: Path) -> Path:
    """The project's folder; with a server on it, or without."""
    if request.param == "running":
        request.getfixturevalue("server")
    return project


def test_a_function_of_any_kind_runs(deployment, program):
    assert program("run", "messages:send", HELLO, "--app", deployment).code == 0
    listed = program("run", "messages:list", "--app", deployment)
    assert [message["body"] for message in json.loads(listed.out)] == ["Hello"]
    assert program("run", "tools:wipeTwice", "--app", deployment, "--json").out == "[1,0]\n"
    assert program("run", "internal.tools.wipe", "--app", deployment).out == "0\n"
    assert program("run", "api.tools.who", "--app", deployment).out == "null\n"


def test_values_keep_their_types_and_prints_go_to_standard_error(deployment, program):
    one = '{"by": {"$integer": "AQAAAAAAAAA="}}'
    result = program("run", "tools:increment", one, "--json", "--app", deployment)
    assert json.loads(result.out) == {"$integer": "AgAAAAAAAAA="}
    assert result.err == "[tools:increment] [LOG] 'adding' 1\n"


def test_it_runs_as_a_user(deployment, program):
    user = '{"subject": "u1", "plan": "pro"}'
    result = program("run", "tools:who", "--as", user, "--app", deployment)
    assert json.loads(result.out) == {
        "issuer": "https://convex.test",
        "plan": "pro",
        "subject": "u1",
        "tokenIdentifier": "https://convex.test|u1",
    }


def test_a_failure_is_told_with_its_data(deployment, program):
    result = program("run", "messages:send", '{"author": "A", "body": ""}', "--app", deployment)
    assert (result.code, result.out) == (1, "")
    assert "Uncaught ConvexError" in result.err
    assert '{"code": "empty_message"}' in result.err


def test_a_function_that_is_missing_brings_up_those_there_are(deployment, program):
    result = program("run", "messages:lst", "--app", deployment)
    assert result.code == 1
    assert "messages:list, messages:send" in result.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["messages:list", "{"], "cannot be read as JSON"),
        (["messages:list", "[]"], "one JSON object"),
        (["messages:list", "--as", "u1"], "--as cannot be read as JSON"),
        (["messages list"], "not a valid path"),
    ],
)
def test_what_cannot_be_read_is_said(project, program, arguments, text):
    result = program("run", *arguments, "--app", project)
    assert result.code == 1
    assert text in result.err


def test_a_live_query_prints_every_new_value(server: ServerProcess, project, program, start):
    watching = start("run", "messages:list", "--watch", "--json", "--app", project)
    watching.wait_for(lambda: watching.out == "[]\n")
    program("run", "messages:send", HELLO, "--app", project)
    watching.wait_for(lambda: watching.out.count("\n") == 2)
    (message,) = json.loads(watching.out.splitlines()[1])
    assert message["body"] == "Hello"
    assert watching.stop(signal.SIGINT) == 130
    assert "Traceback" not in watching.err


def test_a_live_query_goes_on_when_the_server_comes_back(
    server: ServerProcess, project, program, start
):
    watching = start("run", "tools:atMost", '{"count": 9}', "--watch", "--json", "--app", project)
    watching.wait_for(lambda: watching.out == "0\n")
    server.restart()
    program("run", "messages:send", HELLO, "--app", project)
    watching.wait_for(lambda: watching.out == "0\n1\n")


def test_a_live_query_ends_with_its_error(server: ServerProcess, project, program, start):
    watching = start("run", "tools:atMost", '{"count": 0}', "--watch", "--json", "--app", project)
    watching.wait_for(lambda: watching.out == "0\n")
    program("run", "messages:send", HELLO, "--app", project)
    assert watching.process.wait(timeout=15) == 1
    assert '{"found": 1.0}' in watching.err


def test_a_live_query_of_a_stopped_deployment_shows_its_value(project, start):
    watching = start("run", "messages:list", "--watch", "--json", "--app", project)
    watching.wait_for(lambda: watching.out == "[]\n")
    assert watching.stop(signal.SIGINT) == 130


def test_a_redacting_server_is_explained(project, program):
    with ServerProcess(project, project / ".reactive_store"):
        result = program("run", "messages:send", '{"author": "A", "body": ""}', "--app", project)
    assert "--no-redact" in result.err
    assert "Uncaught" not in result.err
