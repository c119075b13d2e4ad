"""HTTP actions over HTTP: what reaches a handler, what reaches its caller, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette import requests
from starlette.datastructures import FormData

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import Caller, Identity
from reactive_store.errors import Conflict
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.limits import Limits
from reactive_store.server.app import app_for
from reactive_store.server.serving import serve
from tests.functions.running import Running

HOST = "127.0.0.1"
MIB = 1024 * 1024

HTTP = """
import json
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse

http = HttpRouter()
events = []

@http.route("/echo", method="POST")
async def echo(ctx, request):
    kind = request.headers.get("content-type")
    return Response(await request.body(), 201, {"x-kind": "echo"}, kind)

@http.route("/about", method="GET")
@http.route("/about", method="OPTIONS")
@http.route("/about", method="DELETE")
@http.route("/a%20b", method="GET")
async def about(ctx, request):
    body = await request.body()
    return JSONResponse({
        "method": request.method, "url": str(request.url), "path": request.url.path,
        "query": dict(request.query_params), "body": body.decode(), "host": request.headers["host"],
    })

@http.route("/who", method="GET")
async def who(ctx, request):
    identity = await ctx.auth.get_user_identity()
    return JSONResponse(None if identity is None else identity.to_json())

@http.route("/made", method="POST")
async def make(ctx, request):
    status, headers, text = await request.json()
    response = PlainTextResponse(text, status)
    response.raw_headers = [tuple(text.encode("latin-1") for text in pair) for pair in headers]
    return response

@http.route("/form", method="POST")
async def form(ctx, request):
    return JSONResponse(len(await request.form()))

@http.route("/notes", method="POST")
async def add(ctx, request):
    print("adding")
    await ctx.run_mutation("data:add", text=(await request.json())["text"])
    return Response(json.dumps(await ctx.run_query("data:all")))

@http.route("/fail", method="POST")
async def fail(ctx, request):
    how = (await request.body()).decode()
    print("about to fail")
    if how == "data":
        raise ConvexError({"why": how})
    if how == "refused":
        await ctx.run_query("data:all", nope=1)
    if how == "exit":
        raise SystemExit(3)
    if how == "later":
        async def generate():
            yield b"one"
            raise ValueError("in the middle")
        return StreamingResponse(generate())
    if how == "nothing":
        return None
    if how == "text":
        return "text"
    if how == "unawaited":
        ctx.run_mutation("data:add", text="x")
        return Response("as if it had worked")
    raise ValueError(how)

@http.route(path_prefix="/stream/", method="GET")
@http.route(path_prefix="/stream/", method="POST")
async def stream(ctx, request):
    count = int(request.url.path.rpartition("/")[2])
    async def generate():
        for n in range(count):
            if n:
                await gates[n].wait()
            yield f"{n};".encode()
        print("streamed")
        events.append(len(await ctx.run_query("data:all")))
    return StreamingResponse(generate(), media_type="text/plain")

gates = [asyncio.Event() for _ in range(100)]

@http.route("/for-ever", method="GET")
async def for_ever(ctx, request):
    async def generate():
        try:
            while True:
                yield b"tick;"
                await asyncio.sleep(0.01)
        finally:
            events.append("stream ended")
    return StreamingResponse(generate())

@http.route("/slow", method="POST")
async def slow(ctx, request):
    events.append("begun")
    await gates[0].wait()
    events.append(f"gone: {await request.is_disconnected()}")
    await ctx.run_mutation("data:add", text="in spite of all")
    return Response("too late")

@http.route("/count", method="POST")
async def count(ctx, request):
    size = 0
    async for part in request.stream():
        size += len(part)
    return Response(str(size))

@http.route("/bytes", method="POST")
async def many(ctx, request):
    size, chunk = map(int, (await request.body()).split())
    if not chunk:
        return Response(b"x" * size)
    async def generate():
        for _ in range(size // chunk):
            yield b"x" * chunk
        events.append("all was sent")
    return StreamingResponse(generate())

@http.route("/afterwards", method="GET")
async def afterwards(ctx, request):
    async def work():
        events.append("afterwards")
    return PlainTextResponse("now", background=BackgroundTask(work))

@http.route("/elsewhere", method="GET")
async def elsewhere(ctx, request):
    return RedirectResponse("https://example.com/", 307)

@http.route("/file", method="GET")
async def file(ctx, request):
    return FileResponse(__file__)

@http.route("/meta", method="POST")
async def meta(ctx, request):
    function = await ctx.meta.get_function_metadata()
    source = await ctx.meta.get_request_metadata()
    return JSONResponse({"function": [function.name, function.type, function.visibility],
                         "ip": source.ip, "agent": source.user_agent, "id": source.request_id})
"""
DATA = """
@internal_mutation
async def add(ctx, text: str):
    await ctx.db.insert("notes", {"text": text})

@query
async def all(ctx):
    return [note["text"] for note in await ctx.db.query("notes").collect()]
"""


class Site:
    """A running backend, asked over ASGI; `over_tcp` asks over a socket."""

    def __init__(self, running: Running, http: httpx.AsyncClient) -> None:
        self.running = running
        self.backend = running.backend
        self.http = http
        self.ends: list[tuple[str, Outcome]] = []
        self.backend.runner.on_end = lambda path, outcome: self.ends.append((path, outcome))

    @property
    def names(self) -> dict[str, Any]:
        """The global names of http.py."""
        router = self.backend.runner.app.http
        assert router is not None
        return router.routes()[0].function.handler.__globals__

    @property
    def events(self) -> list[Any]:
        return self.names["events"]

    def open(self, number: int) -> None:
        self.names["gates"][number].set()

    @asynccontextmanager
    async def over_tcp(self, *, site: bool = False) -> AsyncIterator[httpx.AsyncClient]:
        urls: asyncio.Queue[str] = asyncio.Queue()
        stop = asyncio.Event()
        serving = asyncio.create_task(
            serve(self.backend, host=HOST, port=0, site_port=0, ready=urls.put_nowait, stop=stop)
        )
        api = await urls.get()
        url = self.backend._addresses.site_url if site else f"{api}/http"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=10) as client:
                yield client
        finally:
            stop.set()
            await serving


@asynccontextmanager
async def opened(
    tmp_path: Path, *, modules: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Site]:
    modules = {"http": HTTP, "data": DATA} if modules is None else modules
    async with Running.open(tmp_path, modules, **options) as running:
        transport = httpx.ASGITransport(app=app_for(running.backend))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://store.test/http"
        ) as client:
            yield Site(running, client)


@pytest.fixture
async def site(tmp_path: Path):
    async with opened(tmp_path) as opened_site:
        yield opened_site


# What reaches the handler.


async def test_status_headers_and_body_are_those_of_the_handler(site: Site):
    response = await site.http.post("/echo", content=b"\x00\xff", headers={"content-type": "a/b"})
    assert (response.status_code, response.content) == (201, b"\x00\xff")
    assert dict(response.headers) == {
        "x-kind": "echo", "content-type": "a/b", "content-length": "2",
    }  # fmt: skip


async def test_the_url_is_the_callers_without_the_prefix(site: Site):
    about = (await site.http.get("/about?a=1&b=%20x")).json()
    assert about == {
        "method": "GET", "url": "http://store.test/about?a=1&b=%20x", "path": "/about",
        "query": {"a": "1", "b": " x"}, "body": "", "host": "store.test",
    }  # fmt: skip
    assert (await site.http.get("/a%20b")).json()["path"] == "/a%20b"


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({"X-Forwarded-Proto": "https"}, "https://store.test"),
        ({"X-Forwarded-Proto": "https, http"}, "https://store.test"),
        ({"Forwarded": 'for=1.2.3.4;proto=https;host="my.app"'}, "https://my.app"),
        ({"X-Forwarded-Host": "my.app"}, "http://my.app"),
        ({"X-Forwarded-Proto": "https", "Forwarded": "proto=http"}, "https://store.test"),
        ({"Forwarded": "nonsense"}, "http://store.test"),
    ],
)
async def test_a_proxy_may_say_how_it_was_asked(site: Site, headers: dict[str, str], origin: str):
    about = (await site.http.get("/about", headers=headers)).json()
    assert about["url"] == f"{origin}/about"
    assert about["host"] == "store.test"  # headers are as they came


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_requests_that_have_no_body_have_none_for_the_handler(site: Site, method: str):
    about = (await site.http.request(method, "/about", content=b"ignored")).json()
    assert about["body"] == ""
    about = (await site.http.request("DELETE", "/about", content=b"kept")).json()
    assert about["body"] == "kept"


async def test_options_reach_the_apps_route_and_nothing_is_added_for_other_origins(site: Site):
    """C100."""
    headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    response = await site.http.options("/about", headers=headers)
    assert (response.status_code, response.json()["method"]) == (200, "OPTIONS")
    assert not [name for name in response.headers if name.startswith("access-control")]
    async with site.over_tcp(site=True) as client:
        response = await client.options("/about?x=1", headers=headers)
        assert response.json()["url"] == f"{client.base_url}/about?x=1"
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_a_handler_acts_as_an_action_does(site: Site):
    response = await site.http.post("/notes", json={"text": "milk"})
    assert response.json() == ["milk"]
    counters = site.backend.runner.counters
    assert (counters.http_actions, counters.mutations, counters.queries) == (1, 1, 1)
    assert site.ends[-1][0] == "POST /notes"
    assert site.ends[-1][1].log_lines == ("[LOG] 'adding'",)


async def test_a_handler_knows_its_route_and_where_the_request_came_from(site: Site):
    async with site.over_tcp() as client:
        answer = (await client.post("/meta", headers={"User-Agent": "me"})).json()
    assert answer.pop("id")
    assert answer == {
        "function": ["POST /meta", "httpAction", "public"], "ip": "127.0.0.1", "agent": "me",
    }  # fmt: skip


# Routes.


async def test_head_is_a_get_without_the_body(site: Site):
    """F169. Which route wins is tests/functions/test_router.py's."""
    response = await site.http.head("/about")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/json"
    assert (await site.http.head("/for-ever")).status_code == 200  # and it does end
    assert (await site.http.head("/echo")).status_code == 404
    assert (await site.http.get("/echo")).status_code == 404  # another method
    assert (await site.http.get("/about/")).status_code == 404
    assert (await site.http.get("/stream/1")).text == "0;"
    async with site.over_tcp() as client:
        assert (await client.head("/about")).content == b""


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND"])
async def test_methods_that_no_router_knows_are_not_allowed(site: Site, method: str):
    assert (await site.http.request(method, "/about")).status_code == 405


async def test_a_request_without_a_route_is_told_so(tmp_path: Path):
    """F171, C101."""
    async with opened(tmp_path) as site:
        response = await site.http.get("/nowhere")
        assert (response.status_code, response.text) == (404, "No matching routes found")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
    async with opened(tmp_path / "bare", modules={"data": DATA}) as site:
        for path in ("/", "/hook"):
            response = await site.http.get(path)
            assert (response.status_code, response.text) == (
                404,
                "This Convex deployment does not have HTTP actions enabled.",
            )
            assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_http_actions_cannot_be_called_by_name(tmp_path: Path):
    source = """
        @http_action
        async def receive(ctx, request):
            return Response("")
    """
    async with Running.open(tmp_path, {"hooks": source, "http": HTTP, "data": DATA}) as running:
        for kind in ("query", "mutation", "action"):
            outcome = await running.outcome(kind, "hooks:receive", {}, Caller(None))
            assert isinstance(outcome, Failure)
            assert outcome.message == (
                f"Trying to execute hooks.js:receive as {kind.capitalize()}, but it is defined as "
                "HttpAction.\n"
            )
            outcome = await running.outcome(kind, "http:who", {}, Caller(None))
            assert isinstance(outcome, Failure)
            assert outcome.message == "Could not find public function for 'http:who'.\n"


# Who asks.


@pytest.mark.parametrize(
    "header", ["Bearer not.a.token", "Bearer", "x", "Basic abc", "Convex wrong|key", "Convex a:%%%"]
)
async def test_a_header_that_names_nobody_does_not_stop_the_request(site: Site, header: str):
    """F168, C101."""
    response = await site.http.get("/who", headers={"Authorization": header})
    assert (response.status_code, response.json()) == (200, None)


async def test_a_good_token_is_somebody(site: Site, monkeypatch: pytest.MonkeyPatch):
    identity = Identity.from_attributes({"issuer": "https://id.test", "subject": "ann"})

    async def authenticate(self: Authenticator, token: str) -> Caller:
        assert token == "good"
        return Caller(identity)

    monkeypatch.setattr(Authenticator, "authenticate", authenticate)
    response = await site.http.get("/who", headers={"Authorization": "Bearer good"})
    assert response.json()["subject"] == "ann"


async def test_the_query_string_is_the_apps(site: Site):
    assert (await site.http.get("/who?adminKey=whatever")).json() is None


# Failures.


async def test_an_uncaught_error_is_told_with_its_text_and_place(site: Site):
    """F172, C101."""
    response = await site.http.post("/fail", content=b"broken")
    answer = response.json()
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/json"
    code, _, text = answer["code"].partition("] ")
    assert code.startswith("[Request ID: ")
    assert len(code) == len("[Request ID: ") + 16
    assert text == "Server Error: Uncaught ValueError: broken"
    assert answer["trace"].startswith(
        "Uncaught ValueError: broken\n    at fail (functions/http.py:"
    )
    assert "data" not in answer
    answer = (await site.http.post("/fail", content=b"data")).json()
    assert answer["data"] == {"why": "data"}
    answer = (await site.http.post("/fail", content=b"refused")).json()
    assert "Server Error: ArgumentValidationError" in answer["code"]
    assert site.backend.runner.counters.failures == 3
    assert site.ends[-1][1].log_lines == ("[LOG] 'about to fail'",)


async def test_in_production_only_the_data_is_told(tmp_path: Path):
    """F172, C101."""
    async with opened(tmp_path, redact=True) as site:
        answer = (await site.http.post("/fail", content=b"broken")).json()
        assert set(answer) == {"code"}
        assert answer["code"].endswith("] Server Error")
        answer = (await site.http.post("/fail", content=b"data")).json()
        assert set(answer) == {"code", "data"}
        assert answer["data"] == {"why": "data"}


@pytest.mark.parametrize("how", ["nothing", "text"])
async def test_a_handler_has_to_return_a_response(site: Site, how: str):
    """F174."""
    response = await site.http.post("/fail", content=how.encode())
    assert (response.status_code, response.text) == (500, "HTTP actions must return a Response")
    assert site.ends[-1][1].log_lines[-1] == "[ERROR] HTTP actions must return a Response"


@pytest.mark.parametrize(
    ("how", "text"), [("exit", "tried to exit the process"), ("unawaited", "without `await`")]
)
async def test_what_ends_an_action_ends_a_handler(site: Site, how: str, text: str):
    response = await site.http.post("/fail", content=how.encode())
    assert response.status_code == 500
    assert text in response.json()["code"]


async def test_a_deployment_in_trouble_answers_503(site: Site, monkeypatch: pytest.MonkeyPatch):
    async def conflict(*_: Any, **__: Any) -> None:
        raise Conflict("changed meanwhile")

    monkeypatch.setattr(site.backend.runner, "_committed", conflict)
    response = await site.http.post("/notes", json={"text": "milk"})
    assert response.status_code == 503
    assert response.json()["code"] == "OptimisticConcurrencyControlFailure"


async def test_a_handler_has_the_time_of_an_action(tmp_path: Path):
    async with opened(tmp_path, limits=replace(Limits(), action_seconds=0.05)) as site:
        response = await site.http.post("/slow")
        assert response.status_code == 500
        assert "timed out (maximum duration: 0.05s)" in response.json()["code"]


# Bodies.


async def test_a_response_streams_while_it_is_made(site: Site):
    async with site.over_tcp() as client, client.stream("GET", "/stream/3") as response:
        parts = response.aiter_text()
        assert await anext(parts) == "0;"
        site.open(1)
        assert await anext(parts) == "1;"
        assert site.ends == []
        site.open(2)
        assert await anext(parts) == "2;"
        assert [part async for part in parts] == []
    assert site.ends[-1][1].log_lines == ("[LOG] 'streamed'",)
    assert site.events == [0]


async def test_a_stream_that_fails_is_not_taken_for_whole(site: Site):
    async with site.over_tcp() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/fail", content=b"later")
        (end,) = (outcome for path, outcome in site.ends if path == "POST /fail")
        assert isinstance(end, Failure)
        assert end.message.startswith("Uncaught ValueError: in the middle\n    at generate")
        assert (await client.get("/who")).status_code == 200


@pytest.mark.parametrize("chunk", [0, 64 * 1024])
async def test_a_response_beyond_the_limit_is_cut(
    site: Site, chunk: int, caplog: pytest.LogCaptureFixture
):
    """F173."""
    whole = 20 * MIB
    assert len((await site.http.post("/bytes", content=f"{whole} {chunk}")).content) == whole
    site.events.clear()
    async with site.over_tcp() as client:
        size = 0

        async def read() -> None:
            nonlocal size
            async with client.stream("POST", "/bytes", content=f"{whole + MIB} {chunk}") as got:
                async for part in got.aiter_bytes():
                    size += len(part)

        with caplog.at_level(logging.ERROR), pytest.raises(httpx.RemoteProtocolError):
            await read()
        assert 0 < size <= whole
    assert site.events == []
    assert site.ends[-1][1].log_lines == (
        "[ERROR] HttpResponseTooLarge: HTTP actions support responses up to 20 MiB",
    )
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_body_read_as_a_stream_may_have_any_length(site: Site):
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(48):
            yield bytes(MIB)

    response = await site.http.post("/count", content=parts())
    assert response.text == str(48 * MIB)


async def test_a_body_read_as_a_whole_is_bounded(tmp_path: Path):
    async with opened(tmp_path, limits=replace(Limits(), http_body_bytes=1000)) as site:
        assert (await site.http.post("/echo", content=bytes(1000))).status_code == 201
        response = await site.http.post("/echo", content=bytes(1001))
        assert response.status_code == 413
        assert response.text == "The request's body is too large (maximum 1000 bytes)"
        response = await site.http.post("/notes", content=b'{"text": "' + b"x" * 1000 + b'"}')
        assert response.status_code == 413


async def test_a_form_is_no_longer_than_a_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # The library that reads forms is the app's choice; here is what matters of it.
    class Fields:
        def __init__(self, _headers: object, stream: AsyncIterator[bytes], **_: object) -> None:
            self.stream = stream

        async def parse(self) -> FormData:
            text = b"".join([part async for part in self.stream]).decode()
            return FormData([(field, "") for field in text.split("&")])

    kind = "application/x-www-form-urlencoded"
    monkeypatch.setattr(requests, "parse_options_header", lambda text: (text.encode(), {}))
    monkeypatch.setattr(requests, "FormParser", Fields)
    async with opened(tmp_path, limits=replace(Limits(), http_body_bytes=1000)) as site:
        headers = {"content-type": kind}
        assert (await site.http.post("/form", content=b"a&b", headers=headers)).json() == 2
        response = await site.http.post("/form", content=b"a" * 1001, headers=headers)
        assert response.status_code == 413


async def test_other_responses_of_starlette_work_as_they_are(site: Site):
    assert (await site.http.get("/afterwards")).text == "now"
    assert site.events == ["afterwards"]
    assert (await site.http.head("/afterwards")).text == ""
    assert site.events == ["afterwards"] * 2
    response = await site.http.get("/elsewhere")
    assert (response.status_code, response.headers["location"]) == (307, "https://example.com/")
    response = await site.http.get("/file", headers={"Range": "bytes=0-6"})
    assert (response.status_code, response.text) == (206, "\nimport")


# Responses that are no HTTP.


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (200, [["x-echo", "a\r\nset-cookie: b=1"]], r"The header 'x-echo' cannot be 'a\r\nset-"),
        (200, [["x-echo", "a\0"]], r"The header 'x-echo' cannot be 'a\x00'"),
        (200, [["a b", "c"]], "A response cannot have a header named 'a b'"),
        (200, [["", "c"]], "A response cannot have a header named ''"),
        (200, [["content-length", "-1"]], "The header 'content-length' cannot be '-1'"),
        (200, [["content-length", "2"], ["Content-Length", "3"]], "cannot have several lengths"),
        (42, [], "A response cannot have the status 42"),
        (101, [], "A response cannot have the status 101"),
        (1000, [], "A response cannot have the status 1000"),
    ],
)
async def test_a_response_that_is_no_http_is_the_handlers_error(
    site: Site, status: int, headers: list[list[str]], text: str
):
    async with site.over_tcp(site=True) as client:
        response = await client.post("/made", json=[status, headers, "ab"])
        assert response.status_code == 500
        assert text in response.json()["code"]
        assert "set-cookie" not in response.headers
        assert (await client.get("/who")).status_code == 200


async def test_a_header_that_a_proxy_copied_does_not_change_how_a_body_is_framed(site: Site):
    headers = [["transfer-encoding", "gzip"], ["x-a", " b\t"]]
    async with site.over_tcp(site=True) as client:
        response = await client.post("/made", json=[200, headers, "abc"])
        assert (response.status_code, response.content) == (200, b"abc")
        assert response.headers["x-a"] == "b"


@pytest.mark.parametrize("length", [1, 100])
async def test_a_body_of_another_length_than_was_said_ends_the_connection(site: Site, length: int):
    async with site.over_tcp(site=True) as client:
        async with asyncio.timeout(5):  # it would be left open, for the client to wait
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/made", json=[200, [["content-length", str(length)]], "abc"])
        assert (await client.get("/who")).status_code == 200


# Callers that leave, and crowds.


async def wait_for(site: Site, event: Any) -> None:
    async with asyncio.timeout(5):
        while event not in site.events:
            await asyncio.sleep(0.005)


async def test_a_handler_goes_on_when_its_caller_leaves(site: Site):
    async with site.over_tcp() as client:
        asking = asyncio.create_task(client.post("/slow"))
        await wait_for(site, "begun")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.05)
        site.open(0)
        await wait_for(site, "gone: True")
        async with asyncio.timeout(5):
            while not site.ends:
                await asyncio.sleep(0.005)
    assert await site.running.query("data:all") == ["in spite of all"]


async def test_a_stream_ends_when_its_caller_leaves(site: Site):
    async with site.over_tcp() as client:
        async with client.stream("GET", "/for-ever") as response:
            assert await anext(response.aiter_bytes())
        await wait_for(site, "stream ended")
    assert not isinstance(site.ends[-1][1], Failure)


async def test_more_than_may_run_wait_and_are_turned_away_in_the_end(tmp_path: Path):
    limits = replace(Limits(), http_actions=2, http_wait_seconds=0.1)
    async with opened(tmp_path, limits=limits) as site:
        first = [asyncio.create_task(site.http.post("/slow")) for _ in range(2)]
        await wait_for(site, "begun")
        response = await site.http.get("/who")
        assert response.status_code == 503
        assert response.json()["code"] == "TooManyConcurrentRequests"
        waiting = asyncio.create_task(site.http.get("/who"))
        await asyncio.sleep(0.02)
        site.open(0)
        assert (await waiting).status_code == 200
        assert {task.result().status_code for task in await _all(first)} == {200}


async def _all(tasks: list[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    await asyncio.wait(tasks)
    return tasks


async def test_slow_handlers_do_not_take_the_places_of_the_api(tmp_path: Path):
    limits = replace(Limits(), concurrent_requests=1)
    async with opened(tmp_path, limits=limits) as site:
        asking = asyncio.create_task(site.http.post("/slow"))
        await wait_for(site, "begun")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app_for(site.backend)), base_url="http://x.test"
        ) as api:
            body = {"path": "data:all", "args": {}}
            async with asyncio.timeout(2):
                response = await api.post("/api/query", json=body)
        assert json.loads(response.text)["status"] == "success"
        site.open(0)
        await asking


async def test_it_works_below_a_prefix_of_another_application(site: Site):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    host = Starlette(routes=[Mount("/store", app_for(site.backend))])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=host), base_url="http://host.test"
    ) as client:
        about = (await client.get("/store/http/about?x=1")).json()
    assert about["url"] == "http://host.test/about?x=1"


async def test_a_reload_puts_other_routes_in_force(site: Site, tmp_path: Path):
    from reactive_store.functions.loader import load_app

    (tmp_path / "functions" / "http.py").write_text(
        "from reactive_store import HttpRouter, Response\n"
        "http = HttpRouter()\n"
        "@http.route('/new', method='GET')\n"
        "async def new(ctx, request):\n    return Response('new')\n",
        encoding="utf-8",
    )
    await site.backend.reload(load_app(tmp_path))
    assert (await site.http.get("/new")).text == "new"
    assert (await site.http.get("/who")).status_code == 404
