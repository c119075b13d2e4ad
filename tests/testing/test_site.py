"""`TestBackend.fetch`: requests to the app's own routes, as a test sends them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_store.testing import TestBackend

HTTP = """
from reactive_store import HttpRouter, JSONResponse, Response, StreamingResponse

http = HttpRouter()

@http.route("/echo", method="POST")
async def echo(ctx, request):
    print("echoed")
    return JSONResponse({
        "url": str(request.url), "type": request.headers.get("content-type"),
        "body": (await request.body()).decode(), "x": request.headers.get("x-x"),
    }, 201, {"X-Kind": "echo"})

@http.route("/who", method="GET")
async def who(ctx, request):
    identity = await ctx.auth.get_user_identity()
    source = await ctx.meta.get_request_metadata()
    return JSONResponse([identity and identity.subject, source.ip])

@http.route("/fail", method="GET")
async def fail(ctx, request):
    raise ValueError("broken")

@http.route("/much", method="GET")
async def much(ctx, request):
    async def generate():
        for _ in range(21):
            yield bytes(1024 * 1024)
    return StreamingResponse(generate())
"""


@pytest.fixture
async def t(app_folder: Path):
    (app_folder / "functions" / "http.py").write_text(HTTP, encoding="utf-8")
    async with TestBackend(app=app_folder) as backend:
        yield backend


async def test_a_request_is_answered_by_the_apps_route(t: TestBackend):
    response = await t.fetch("/echo?a=1", method="POST", headers={"X-X": "y"}, body="grüße")
    assert response.status_code == 201
    assert response.headers["x-kind"] == response.headers["X-KIND"] == "echo"
    assert response.is_complete
    assert response.json() == {
        "url": "http://site.test/echo?a=1", "type": "text/plain;charset=UTF-8", "body": "grüße",
        "x": "y",
    }  # fmt: skip
    assert t.log_lines == ["[LOG] 'echoed'"]


@pytest.mark.parametrize(
    ("options", "kind", "body"),
    [
        ({"json": {"a": 1}}, "application/json", '{"a": 1}'),
        ({"json": [], "headers": {"content-type": "a/b"}}, "a/b", "[]"),
        ({"body": b"bytes"}, None, "bytes"),
        ({}, None, ""),
    ],
)
async def test_a_body_is_bytes_text_or_json(t: TestBackend, options, kind, body):
    answer = (await t.fetch("/echo", method="POST", **options)).json()
    assert (answer["type"], answer["body"]) == (kind, body)


async def test_a_request_without_a_route_is_a_404(t: TestBackend):
    response = await t.fetch("/nowhere")
    assert (response.status_code, response.text) == (404, "No matching routes found")


async def test_a_handler_that_fails_is_a_500_with_its_text(t: TestBackend):
    response = await t.fetch("/fail")
    assert response.status_code == 500
    assert "Uncaught ValueError: broken" in response.json()["trace"]


async def test_a_response_that_was_cut_says_so(t: TestBackend):
    response = await t.fetch("/much")
    assert (response.is_complete, len(response.content)) == (False, 20 * 1024 * 1024)


async def test_a_user_and_the_place_of_a_request_may_be_given(t: TestBackend):
    assert (await t.fetch("/who")).json() == [None, "127.0.0.1"]
    ann = t.with_identity(subject="ann")
    assert (await ann.fetch("/who")).json() == ["ann", None]
    somewhere = ann.with_request_metadata(ip="192.0.2.1")
    assert (await somewhere.fetch("/who")).json() == ["ann", "192.0.2.1"]
    assert (await somewhere.with_identity(subject="bob").fetch("/who")).json() == [
        "bob", "192.0.2.1",
    ]  # fmt: skip


async def test_what_is_no_request_is_refused(t: TestBackend):
    with pytest.raises(ValueError, match="begins with a slash"):
        await t.fetch("echo")
    with pytest.raises(TypeError, match="not both"):
        await t.fetch("/echo", method="POST", body="a", json=1)
