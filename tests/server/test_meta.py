"""The deployment about itself."""

from __future__ import annotations

import pytest

from reactive_store.server.meta import server_version

TEXTS = [
    ("GET", "/", 200, "This Convex deployment is running. See https://docs.convex.dev/."),
    ("GET", "/version", 200, server_version()),
    ("GET", "/instance_version", 200, server_version()),
    ("GET", "/instance_name", 200, "test-store"),
    ("GET", "/http", 404, ""),
    ("GET", "/unknown", 404, ""),
    ("POST", "/version", 405, ""),
]


@pytest.mark.parametrize(("method", "path", "status", "text"), TEXTS)
async def test_plain_texts(http, method, path, status, text):
    response = await http.request(method, path)
    assert (response.status_code, response.text) == (status, text)
    if text:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("size", [0, 128, 4 * 1024 * 1024])
async def test_echo_gives_the_bytes_back(http, size):
    body = bytes(range(256)) * (size // 256) or b"x" * size
    kind = {"content-type": "text/html"}
    response = await http.post("/echo", content=body, headers=kind)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox"
    assert response.status_code == 200
    assert response.content == body


async def test_metrics_are_every_number_of_the_statistics(http):
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert response.text.splitlines() == [
        "reactive_store_sessions 2",
        "reactive_store_database_commits 3",
        "reactive_store_load 0.5",
    ]


FOR_ADMINISTRATORS = [
    ("GET", "/api/check_admin_key", None),
    ("GET", "/api/v1/get_canonical_urls", None),
    ("POST", "/api/update_canonical_url", {}),
    ("POST", "/api/v1/update_canonical_url", {}),
    ("GET", "/api/v1/deployment_info", None),
    ("GET", "/api/v1/list_environment_variables", None),
    ("POST", "/api/update_environment_variables", {"changes": []}),
    ("POST", "/api/v1/update_environment_variables", {"changes": []}),
]


@pytest.mark.parametrize(("method", "path", "body"), FOR_ADMINISTRATORS)
@pytest.mark.parametrize("header", [None, "Convex test-store|00"])
async def test_administrators_only(http, method, path, body, header):
    headers = {} if header is None else {"Authorization": header}
    response = await http.request(method, path, json=body, headers=headers)
    assert response.status_code == 403
    assert response.json()["code"] == "BadDeployKey"


async def test_a_good_key_may_do_everything(http, backend):
    response = await http.get("/api/check_admin_key", headers=backend.admin)
    assert response.json() == {"success": True, "allowedOps": [], "isReadOnly": False}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("http://store.test", "http://store.test:3211")),
        ({"port": 0}, ("http://store.test", "http://store.test/http")),
        (
            {"origin": "https://api.example", "site_origin": "https://site.example"},
            ("https://api.example", "https://site.example"),
        ),
        ({"origin": "http://[::1]:3210"}, ("http://[::1]:3210", "http://[::1]:3211")),
    ],
)
async def test_addresses_are_as_configured_or_as_asked_for(http, backend, settings, expected):
    backend.settings = type(backend.settings)(**settings)
    response = await http.get("/api/v1/get_canonical_urls", headers=backend.admin)
    cloud, site = expected
    assert response.json() == {"convexCloudUrl": cloud, "convexSiteUrl": site}


async def test_addresses_are_settings(http, backend):
    response = await http.post("/api/update_canonical_url", headers=backend.admin, json={})
    assert response.status_code == 403
    assert response.json()["code"] == "CanonicalUrlIsASetting"


async def test_a_push_of_javascript_is_refused_with_what_to_do(http):
    response = await http.post("/api/get_config_hashes", content=b"\x00brotli")
    assert response.status_code == 403
    assert response.json()["code"] == "PythonBackend"
    assert "reactive-store dev" in response.json()["message"]


async def test_the_deployment_says_what_it_is(http, backend):
    response = await http.get("/api/v1/deployment_info", headers=backend.admin)
    assert response.json() == {"kind": "selfHosted"}


@pytest.mark.parametrize("prefix", ["/api", "/api/v1"])
async def test_environment_variables_are_set_and_removed(http, backend, prefix):
    changes = [{"name": "NEW", "value": "2"}, {"name": "OLD", "value": None}, {"name": "NONE"}]
    response = await http.post(
        f"{prefix}/update_environment_variables",
        headers=backend.admin,
        json={"changes": changes},
    )
    assert (response.status_code, response.content) == (200, b"")
    listing = await http.get("/api/v1/list_environment_variables", headers=backend.admin)
    assert listing.json() == {"environmentVariables": {"NEW": "2"}}


@pytest.mark.parametrize(
    "body",
    [{}, {"changes": {}}, {"changes": [1]}, {"changes": [{"value": "x"}]},
     {"changes": [{"name": "A", "value": 1}]}],
)  # fmt: skip
async def test_malformed_changes_change_nothing(http, backend, body):
    response = await http.post(
        "/api/update_environment_variables", headers=backend.admin, json=body
    )
    assert response.status_code == 400
    assert response.json()["code"] == "BadJsonBody"
    assert backend.environment.variables == {"OLD": "1"}
