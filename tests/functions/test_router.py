"""Routes: what may be added, in which order they are tried, and what an app lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.functions.definitions import http_action, query
from reactive_store.functions.router import METHODS, HttpRouter
from tests.functions.running import write_app


async def handler(ctx: Any, request: Any) -> None: ...


@http_action
async def decorated(ctx: Any, request: Any) -> None: ...


@query
async def a_query(ctx: Any) -> None: ...


def found(router: HttpRouter, path: str, method: str = "GET") -> str | None:
    route = router.lookup(path, method)
    return None if route is None else route.name


def test_a_decorated_function_stays_the_function_it_was():
    router = HttpRouter()
    assert router.route("/a", method="GET")(handler) is handler
    assert router.route("/b", method="GET", handler=handler) is None
    assert [route.name for route in router.routes()] == ["GET /a", "GET /b"]


def test_an_exact_path_wins_then_the_longest_prefix():
    """F169."""
    router = HttpRouter()
    for path in ("/", "/files/one"):
        router.route(path, method="GET", handler=handler)
    for prefix in ("/", "/files/", "/files/deep/"):
        router.route(path_prefix=prefix, method="GET", handler=handler)
    assert {
        path: found(router, path)
        for path in ("/", "/files/one", "/files/one/", "/files/", "/files/deep/x/y", "/files")
    } == {
        "/": "GET /",
        "/files/one": "GET /files/one",
        "/files/one/": "GET /files/*",
        "/files/": "GET /files/*",
        "/files/deep/x/y": "GET /files/deep/*",
        "/files": "GET /*",
    }


def test_each_method_has_routes_of_its_own_and_head_those_of_get():
    """F169."""
    router = HttpRouter()
    router.route("/a", method="GET", handler=handler)
    router.route("/a", method="POST", handler=decorated)
    assert found(router, "/a", "HEAD") == "GET /a"
    assert found(router, "/a", "POST") == "POST /a"
    assert found(router, "/a", "PUT") is None
    assert found(router, "/b") is None


def test_paths_are_compared_as_they_stand_in_a_url():
    router = HttpRouter()
    router.route("/grüße an", method="GET", handler=handler)
    router.route("/50%25", method="GET", handler=handler)
    assert found(router, "/gr%C3%BC%C3%9Fe%20an") == "GET /grüße an"
    assert found(router, "/50%25") == "GET /50%25"
    assert found(router, "/a%2Fb") is None


@given(
    st.lists(st.text("ab/", max_size=6).map(lambda text: f"/{text}/"), max_size=6, unique=True),
    st.text("ab/", max_size=12).map(lambda text: f"/{text}"),
)
def test_the_longest_of_all_matching_prefixes_is_found(prefixes: list[str], path: str):
    router = HttpRouter()
    for prefix in prefixes:
        router.route(path_prefix=prefix, method="GET", handler=handler)
    matching = [prefix for prefix in prefixes if path.startswith(prefix)]
    wanted = f"GET {max(matching, key=len)}*" if matching else None
    assert found(router, path) == wanted


def test_routes_are_listed_exact_ones_first_in_order():
    router = HttpRouter()
    router.route(path_prefix="/a/", method="GET", handler=handler)
    router.route("/b", method="POST", handler=handler)
    router.route("/b", method="DELETE", handler=handler)
    router.route("/a", method="GET", handler=handler)
    names = [route.name for route in router.routes()]
    assert names == ["GET /a", "DELETE /b", "POST /b", "GET /a/*"]


async def plain(ctx: Any) -> None: ...


def taken() -> HttpRouter:
    router = HttpRouter()
    router.route("/taken", method="GET", handler=handler)
    router.route(path_prefix="/taken/", method="GET", handler=handler)
    return router


_NO_METHOD = "is not an allowed HTTP method (like GET, POST, PUT etc.)"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"path": "/x", "method": "GET", "handler": None}, "route requires handler"),
    ({"path": "/x"}, "route requires method"),
    ({"path": "/x", "method": "get"}, f"'get' {_NO_METHOD}"),
    ({"path": "/x", "method": "HEAD"}, f"'HEAD' {_NO_METHOD}"),
    (
        {"path": "/x", "path_prefix": "/x/", "method": "GET"},
        "Invalid httpRouter route: cannot contain both 'path' and 'pathPrefix'",
    ),
    (
        {"method": "GET"},
        "Invalid httpRouter route entry: must contain either field 'path' or 'pathPrefix'",
    ),
    ({"path": "x", "method": "GET"}, "path 'x' does not start with a /"),
    ({"path": "/.files", "method": "GET"}, "path '/.files' is reserved"),
    ({"path": "/.files/x", "method": "GET"}, "path '/.files/x' is reserved"),
    ({"path_prefix": "/.files/", "method": "GET"}, "pathPrefix '/.files/' is reserved"),
    ({"path": "/taken", "method": "GET"}, "Path '/taken' for method GET already in use"),
    ({"path_prefix": "x/", "method": "GET"}, "pathPrefix 'x/' does not start with a /"),
    ({"path_prefix": "/x", "method": "GET"}, "pathPrefix /x must end with a /"),
    ({"path_prefix": "/taken/", "method": "GET"}, "GET pathPrefix /taken/ is already defined"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_cannot_be_a_route_is_refused_where_it_stands(entry: dict[str, Any], text: str):
    """F170."""
    with pytest.raises(BadRequest) as caught:
        taken().route(**entry)
    assert caught.value.code == "InvalidFunction"
    place, _, said = caught.value.message.partition(": ")
    assert said == text
    assert place.startswith(f"{__file__}:")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (plain, "takes the ctx and the request"),
        (a_query, "`a_query` is a query, which HTTP requests cannot call"),
        (lambda ctx, request: None, "is a plain def"),
        ("text", "is no function"),
    ],
)
def test_what_cannot_handle_a_request_is_refused(wrong: Any, text: str):
    with pytest.raises(BadRequest, match=text):
        HttpRouter().route("/x", method="GET", handler=wrong)
    with pytest.raises(BadRequest, match=text):
        HttpRouter().route("/x", method="GET")(wrong)


def test_a_route_that_was_taken_meanwhile_is_refused_at_its_function():
    router = HttpRouter()
    first = router.route("/x", method="GET")
    router.route("/x", method="GET", handler=handler)
    with pytest.raises(BadRequest, match="already in use"):
        first(handler)


def test_a_decorator_without_a_function_is_noticed_when_the_module_is_loaded():
    router = HttpRouter()
    router.route("/x", method="GET")
    with pytest.raises(BadRequest, match=r"test_router\.py:\d+: route requires handler"):
        router.close()


def test_after_loading_there_are_no_further_routes():
    router = HttpRouter()
    router.close()
    with pytest.raises(BadRequest, match="not by a function"):
        router.route("/x", method="GET", handler=handler)


def test_every_method_of_the_list_may_be_used():
    router = HttpRouter()
    for method in METHODS:
        router.route("/x", method=method, handler=handler)
    assert [route.method for route in router.routes()] == list(METHODS)


HTTP = """
from functions.hooks import receive

http = HttpRouter()

@http.route("/hello", method="GET")
async def hello(ctx, request):
    return Response("hi")

http.route("/hook", method="POST", handler=receive)
http.route(path_prefix="/files/", method="GET", handler=receive)
"""
HOOKS = """
@http_action
async def receive(ctx: ActionCtx, request: Request) -> Response:
    return Response("received")
"""


def test_an_app_has_the_routes_of_its_http_module_and_lists_them(tmp_path: Path):
    app = write_app(tmp_path, {"http": HTTP, "hooks": HOOKS})
    assert app.http is not None
    assert app.spec() == [
        {"functionType": "HttpAction", "method": "GET", "path": "/hello"},
        {"functionType": "HttpAction", "method": "POST", "path": "/hook"},
        {"functionType": "HttpAction", "method": "GET", "path": "/files/*"},
    ]
    route = app.http.lookup("/hook", "POST")
    assert route is not None
    assert route.function.path == "hooks.js:receive"
    hello = app.http.lookup("/hello", "GET")
    assert hello is not None
    assert hello.function.path == "GET /hello"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("http = HttpRouter()\nhttp.route('x', method='GET')", "does not start with a /"),
        ("http = HttpRouter()\nhttp.route('/x', method='GET')", "route requires handler"),
        ("router = HttpRouter()", "defines no `http`: write `http = HttpRouter()`"),
        ("http = 5", "defines `http` as something else"),
    ],
)  # fmt: skip
def test_a_mistake_in_http_py_stops_the_load_naming_the_file(
    tmp_path: Path, source: str, text: str
):
    with pytest.raises(BadRequest, match=re.escape(text)) as caught:
        write_app(tmp_path, {"http": source})
    assert caught.value.code == "AppLoadFailed"
    assert str(tmp_path / "functions" / "http.py") in caught.value.message
