"""Cross-origin headers: on everything of the API, on nothing else."""

import pytest

ORIGIN = {"Origin": "https://page.example"}
VARY = "origin, access-control-request-method, access-control-request-headers"
COVERED = ["/", "/instance_name", "/instance_version", "/echo", "/api/query", "/api/x"]
NOT_COVERED = ["/version", "/metrics", "/http/hook"]


@pytest.mark.parametrize("path", COVERED)
async def test_a_preflight_is_answered_before_any_route(http, path):
    response = await http.options(
        path,
        headers={
            **ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,convex-client",
        },
    )
    assert response.status_code == 200
    assert response.content == b""
    headers = response.headers
    assert headers["access-control-allow-origin"] == "https://page.example"
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-allow-methods"] == "GET,POST,OPTIONS,PATCH,DELETE,PUT"
    assert headers["access-control-allow-headers"] == "content-type,convex-client"
    assert headers["access-control-max-age"] == "86400"
    assert headers["vary"] == VARY


async def test_an_options_request_without_an_origin_mirrors_nothing(http):
    response = await http.options("/api/query")
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers
    assert "access-control-allow-headers" not in response.headers
    assert response.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("POST", "/api/query_ts", 200),
        ("POST", "/api/query", 400),
        ("GET", "/api/check_admin_key", 403),
        ("GET", "/api/nothing", 404),
        ("PUT", "/api/query", 405),
        ("GET", "/api/sync", 400),
    ],
)
async def test_every_answer_of_the_api_lets_the_page_read_it(http, method, path, status):
    response = await http.request(method, path, headers=ORIGIN)
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["vary"] == VARY
    assert "access-control-max-age" not in response.headers


@pytest.mark.parametrize("path", NOT_COVERED)
async def test_the_rest_gets_no_headers(http, path):
    response = await http.get(path, headers=ORIGIN)
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_options_below_http_reaches_the_route(http):
    response = await http.options("/http/hook", headers=ORIGIN)
    assert response.status_code == 404
    assert "access-control-allow-origin" not in response.headers


async def test_an_unexpected_failure_can_be_read_by_the_page(http, backend):
    backend.runner.outcome = ZeroDivisionError("secret")
    response = await http.post("/api/query", json={"path": "a:b"}, headers=ORIGIN)
    assert response.status_code == 500
    assert response.json()["code"] == "InternalServerError"
    assert "secret" not in response.text
    assert response.headers["access-control-allow-origin"] == "https://page.example"
