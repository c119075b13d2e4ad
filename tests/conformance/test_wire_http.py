"""The HTTP API on a real port: calls, refusals, CORS, plain texts, errors and log lines."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from reactive_store.server.meta import server_version
from tests.conformance.wire import WireServer, add, serving
from tests.e2e.sync_socket import timestamp

ENCODED = "convex_encoded_json"
KINDS = ["query", "mutation", "action"]


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with serving() as running:
        yield running


@pytest.fixture
async def http(server: WireServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url) as client:
        yield client


async def call(http: httpx.AsyncClient, kind: str, path: str, args: Any = None, **more: Any) -> Any:
    """A call that is answered with 200."""
    body = {"path": path, "args": {} if args is None else args, "format": ENCODED, **more}
    response = await http.post(f"/api/{kind}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("kind", KINDS)
async def test_arguments_come_in_a_list_and_as_an_object(http: httpx.AsyncClient, kind: str):
    """C90."""
    path, args = {
        "query": ("messages:chatter", {"lines": 1, "characters": 0}),
        "mutation": ("messages:send", {"body": "x"}),
        "action": ("messages:quick", {}),
    }[kind]
    for form in (args, [args]):
        assert (await call(http, kind, path, form))["status"] == "success"


@pytest.mark.parametrize(
    ("kind", "path", "args"),
    [
        ("query", "messages:failReading", {}),
        ("query", "messages:nothing", {}),
        ("query", "messages:send", {"body": "x"}),
        ("mutation", "messages:fail", {}),
        ("mutation", "messages:refuse", {"data": "sorry"}),
        ("mutation", "messages:send", {"body": 5}),
        ("action", "messages:stumble", {}),
    ],
)
async def test_an_error_of_a_function_is_no_error_of_http(
    http: httpx.AsyncClient, kind: str, path: str, args: dict[str, Any]
):
    """C91."""
    answer = await call(http, kind, path, args)
    assert answer["status"] == "error"
    assert isinstance(answer["errorMessage"], str)


async def test_a_float_has_a_fraction(http: httpx.AsyncClient):
    """C92. What the Python client reads is tests/e2e/test_python_client.py's."""
    body = {"path": "messages:seventeen", "args": {}, "format": ENCODED}
    response = await http.post("/api/query", json=body)
    assert '"value":17.0' in response.text


async def test_what_is_empty_is_left_out(http: httpx.AsyncClient):
    """C93."""
    assert await call(http, "query", "messages:bodies") == {"status": "success", "value": []}
    told = await call(http, "mutation", "messages:send", {"body": "x"})
    assert told == {"status": "success", "value": 1.0, "logLines": ["[LOG] 'sent' 'x'"]}
    assert "errorData" not in await call(http, "action", "messages:stumble")
    assert (await call(http, "mutation", "messages:refuse", {"data": None}))["errorData"] is None


async def test_a_body_of_another_type_is_refused(http: httpx.AsyncClient):
    """C94."""
    text = json.dumps({"path": "messages:bodies", "args": {}})
    for header in ({}, {"Content-Type": "text/plain"}):
        response = await http.post("/api/query", content=text, headers=header)
        assert response.status_code == 400
        assert response.json() == {
            "code": "BadJsonBody",
            "message": "Expected request with `Content-Type: application/json`",
        }
    good = {"Content-Type": "application/vnd.x+json"}
    assert (await http.post("/api/query", content=text, headers=good)).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/api/query", "{", {}, 400, "BadJsonBody"),
        ("/api/query", '{"args":{}}', {}, 400, "BadJsonBody"),
        ("/api/query", '{"path":"a b","args":{}}', {}, 400, "BadConvexFunctionIdentifier"),
        ("/api/query", '{"path":"a:b","args":{},"format":"x"}', {}, 400, "BadFormat"),
        ("/api/query", "{}", {"Authorization": "x"}, 400, "InvalidHeaderFailure"),
        ("/api/query", "{}", {"Authorization": "Basic abc"}, 400, "InvalidAdminKey"),
        ("/api/query", "{}", {"Authorization": "Convex a|b"}, 401, "BadAdminKey"),
        ("/api/query", "{}", {"Convex-Client": "nodash"}, 400, "InvalidClientVersion"),
        ("/api/query", "{}", {"Convex-Client": "npm-0.1.0"}, 400, "ClientVersionUnsupported"),
        ("/api/function", '{"path":"a:b","args":{}}', {}, 403, "BadDeployKey"),
        ("/api/run/alone", '{"args":{}}', {}, 400, "MissingIdentifier"),
    ],
)
async def test_every_refusal_has_a_code_and_a_message(
    http: httpx.AsyncClient, path: str, body: str, headers: dict[str, str], status: int, code: str
):
    """C94."""
    response = await http.post(
        path, content=body, headers={"Content-Type": "application/json", **headers}
    )
    assert response.status_code == status
    assert response.headers["content-type"].startswith("application/json")
    refusal = response.json()
    assert refusal.keys() == {"code", "message"}
    assert refusal["code"] == code
    assert refusal["message"]


async def test_a_query_at_a_time_does_not_see_what_came_later(http: httpx.AsyncClient):
    """C95."""
    await call(http, "mutation", "messages:send", {"body": "before"})
    response = await http.post("/api/query_ts", headers={"Content-Type": "application/json"})
    told = response.json()
    assert told.keys() == {"ts"}
    assert timestamp(told["ts"]) > 0
    await call(http, "mutation", "messages:send", {"body": "after"})
    for _ in range(2):
        then = await call(http, "query_at_ts", "messages:bodies", [{}], ts=told["ts"])
        assert then["value"] == ["before"]
    assert (await call(http, "query", "messages:bodies"))["value"] == ["before", "after"]


async def test_any_function_is_for_administrators(http: httpx.AsyncClient, server: WireServer):
    """C96."""
    body = {"path": "messages:hidden", "args": {}, "format": ENCODED}
    refused = await http.post("/api/function", json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "BadDeployKey")
    assert "was invalid for this deployment" in refused.json()["message"]
    admin = {"Authorization": f"Convex {server.backend.admin_keys.issue()}"}
    for path, args, value in [
        ("messages:hidden", {}, "hidden"),
        ("messages:send", {"body": "x"}, 1.0),
        ("messages:quick", {}, "quick"),
    ]:
        sent = {**body, "path": path, "args": args}
        answer = (await http.post("/api/function", json=sent, headers=admin)).json()
        assert (answer["status"], answer["value"]) == ("success", value)
    assert "Could not find" in (await call(http, "query", "messages:hidden"))["errorMessage"]


async def test_a_function_can_be_run_by_its_path(http: httpx.AsyncClient):
    """C97."""
    response = await http.post("/api/run/deep/mod/kinds", json={"args": {}})
    plain = {"big": str(2**62), "bytes": "AAE=", "endless": "Infinity", "five": 5.0}
    assert response.json() == {"status": "success", "value": plain}
    response = await http.post("/api/run/messages/send", json={"args": {"body": "x"}})
    assert response.json()["value"] == 1.0


async def test_a_preflight_from_anywhere_is_granted(http: httpx.AsyncClient):
    """C99."""
    origin = {"Origin": "https://page.example"}
    asked = {**origin, "Access-Control-Request-Headers": "content-type,x-anything"}
    for path in ("/api/query", "/api/storage/upload", "/api/nowhere", "/instance_name"):
        response = await http.options(path, headers=asked)
        assert (response.status_code, response.content) == (200, b"")
        allowed = {
            name.removeprefix("access-control-"): value
            for name, value in response.headers.items()
            if name.startswith("access-control-")
        }
        assert allowed.pop("allow-methods") == "GET,POST,OPTIONS,PATCH,DELETE,PUT"
        assert allowed == {
            "allow-origin": "https://page.example",
            "allow-credentials": "true",
            "allow-headers": "content-type,x-anything",
            "max-age": "86400",
        }
    for path, status in [("/api/query", 400), ("/api/nowhere", 404), ("/api/function", 403)]:
        body = "{" if status == 400 else '{"path":"a:b","args":{}}'
        kind = {"Content-Type": "application/json"}
        response = await http.post(path, content=body, headers={**origin, **kind})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        assert response.headers["access-control-allow-credentials"] == "true"


async def test_what_the_deployment_is_can_be_read_as_text(
    http: httpx.AsyncClient, server: WireServer
):
    """C104."""
    for path, text in [
        ("/version", server_version()),
        ("/instance_version", server_version()),
        ("/instance_name", server.backend.instance_name),
        ("/", "This Convex deployment is running. See https://docs.convex.dev/."),
    ]:
        response = await http.get(path)
        assert (response.status_code, response.text) == (200, text)
        assert response.headers["content-type"].startswith("text/plain")


# ---- what is shown of errors and logs ----

SHOWN = re.compile(r"\[Request ID: [0-9a-f]{16}\] Server Error\n")
HIDDEN = re.compile(r"\[Request ID: [0-9a-f]{16}\] Server Error")


@pytest.mark.parametrize(
    ("args", "line", "data"),
    [
        ({}, "Uncaught ValueError: plain", ...),
        ({"plain": False, "data": "sorry"}, "Uncaught ConvexError: sorry", "sorry"),
        ({"plain": False}, "Uncaught ConvexError: null", None),
    ],
)
async def test_an_error_is_shown_or_hidden_and_its_data_always_there(
    args: dict[str, Any], line: str, data: Any
):
    """C110, C111."""
    for redact in (False, True):
        async with (
            serving(redact=redact) as server,
            httpx.AsyncClient(base_url=server.url) as http,
        ):
            over_http = await call(http, "query", "messages:failReading", args)
            socket = await server.socket()
            await socket.modify(add(0, "messages:failReading", args=[args]))
            (over_socket,) = (await socket.transition())["modifications"]
        for answer in (over_http, over_socket):
            assert answer.get("errorData", ...) == data
            message = answer["errorMessage"]
            if redact:
                assert HIDDEN.fullmatch(message)
                assert not answer.get("logLines")
                continue
            head = SHOWN.match(message)
            assert head is not None
            first, *frames = message[head.end() :].split("\n")
            assert first == line
            assert frames.pop() == ""
            assert frames
            assert all(frame.startswith("    at ") for frame in frames)
            assert answer["logLines"] == ["[LOG] 'reading'"]
        assert over_socket["logLines"] == ([] if redact else ["[LOG] 'reading'"])
        assert ("logLines" in over_http) is not redact


async def test_log_lines_begin_with_their_level(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
):
    """C111."""
    caplog.set_level(logging.DEBUG)
    lines = (await call(http, "query", "messages:levels"))["logLines"]
    assert all(re.match(r"\[(LOG|INFO|WARN|ERROR|DEBUG)\] ", line) for line in lines)
    assert lines == [
        "[DEBUG] 'one'",
        "[INFO] 'two'",
        "[WARN] 'three'",
        "[ERROR] 'four'",
        "[LOG] 'five' 5 [None]",
    ]


async def test_many_and_long_log_lines_are_cut(http: httpx.AsyncClient):
    """C112."""
    for count in (255, 256, 257, 1000):
        args = {"lines": count, "characters": 0}
        lines = (await call(http, "query", "messages:chatter", args))["logLines"]
        if count <= 256:
            assert len(lines) == count
            continue
        assert lines[:256] == [f"[LOG] {number}" for number in range(256)]
        assert lines[256:] == ["[ERROR] Log overflow (maximum 256). Remaining log lines omitted."]
    for characters in (32_766, 32_767, 50_000):
        args = {"lines": 0, "characters": characters}
        (line,) = (await call(http, "query", "messages:chatter", args))["logLines"]
        text = line.removeprefix("[LOG] ")
        if characters == 32_766:  # with its quotes, exactly as long as a line may be
            assert text == "'" + "x" * characters + "'"
        else:
            assert text == "'" + "x" * 32_767 + " (truncated due to length)"
