"""Which client is calling, and whether it is served."""

import pytest

from reactive_store.errors import BadRequest
from reactive_store.server.client_version import (
    client_of_header,
    client_of_path,
    deprecation_headers,
    support_of,
)
from reactive_store.sync.messages import ClientVersion

HEADERS = [
    ("npm-1.48.0", ClientVersion("npm", (1, 48, 0))),
    ("npm-cli-1.2.3", ClientVersion("npm-cli", (1, 2, 3))),
    ("NPM-1.48.0", ClientVersion("npm", (1, 48, 0))),
    ("python-0.8.1", ClientVersion("python", (0, 8, 1))),
    ("python-convex-0.8.1", ClientVersion("python", (0, 8, 1))),
    ("python-0.7.0-a1", ClientVersion("python", (0, 7, 0))),
    ("npm-1.2.3-alpha.1+build.5", ClientVersion("npm", (1, 2, 3))),
    ("rust-0.8.1", ClientVersion("rust", (0, 8, 1))),
    ("big-brain-20220101000000Z", ClientVersion("big", None)),
    ("npm-next", ClientVersion("npm", None)),
    ("npm-1.2", ClientVersion("npm", None)),
    ("npm-01.2.3", ClientVersion("npm", None)),
]


@pytest.mark.parametrize(("header", "client"), HEADERS)
def test_a_header_names_client_and_version(header, client):
    assert client_of_header(header) == client


@pytest.mark.parametrize("header", ["", "npm", "1.48.0", "-1.48.0"])
def test_a_header_without_a_name_and_a_dash_is_refused(header):
    with pytest.raises(BadRequest) as refused:
        client_of_header(header)
    assert refused.value.code == "InvalidClientVersion"


def test_a_version_in_the_path_is_that_of_the_npm_package():
    assert client_of_path("1.48.0") == ClientVersion("npm", (1, 48, 0))


@pytest.mark.parametrize("segment", ["notsemver", "1.48", "v1.48.0", "1.48.0 ", ""])
def test_a_path_without_a_version_is_refused(segment):
    with pytest.raises(BadRequest) as refused:
        client_of_path(segment)
    assert refused.value.code == "InvalidClientVersion"


@pytest.mark.parametrize(
    ("name", "version", "state"),
    [
        ("npm", (1, 48, 0), "Supported"),
        ("npm", (0, 19, 2), "Supported"),
        ("npm", (0, 19, 1), "Unsupported"),
        ("npm", (0, 2, 100), "Unsupported"),
        ("npm", None, "Unsupported"),
        ("npm-cli", (0, 19, 1), "Unsupported"),
        ("actions", (0, 19, 1), "Unsupported"),
        ("python", (0, 8, 1), "Supported"),
        ("python", (0, 2, 1), "Supported"),
        ("python", (0, 2, 0), "UpgradeRequired"),
        ("python", (0, 0, 3), "UpgradeRequired"),
        ("python", (0, 0, 2), "Unsupported"),
        ("rust", (0, 0, 1), "Unsupported"),
        ("rust", (0, 0, 2), "Supported"),
        ("dashboard", (0, 0, 0), "Supported"),
        ("unheard-of", None, "Supported"),
        ("", None, "Supported"),
    ],
)
def test_only_versions_with_known_defects_are_turned_away(name, version, state):
    assert support_of(ClientVersion(name, version)).state == state


def test_an_outdated_client_is_told_with_two_headers():
    headers = dict(deprecation_headers(support_of(ClientVersion("python", (0, 2, 0)))))
    assert headers[b"x-convex-deprecation-state"] == b"UpgradeRequired"
    assert b"0.2.0" in headers[b"x-convex-deprecation-message"]
    assert deprecation_headers(support_of(ClientVersion("npm", (1, 48, 0)))) == []


HTTP = [
    ("npm-1.48.0", 200, None, None),
    ("python-0.2.0", 200, None, "UpgradeRequired"),
    ("npm-0.19.1", 400, "ClientVersionUnsupported", "Unsupported"),
    ("nonsense", 400, "InvalidClientVersion", None),
]


@pytest.mark.parametrize(("client", "status", "code", "state"), HTTP)
async def test_every_api_endpoint_looks_at_the_client(http, client, status, code, state):
    for method, path in (("POST", "/api/query_ts"), ("GET", "/instance_name")):
        response = await http.request(method, path, headers={"Convex-Client": client})
        assert response.status_code == status
        assert response.headers.get("x-convex-deprecation-state") == state
        assert ("x-convex-deprecation-message" in response.headers) == (state is not None)
        if code is not None:
            assert response.json()["code"] == code
            assert response.headers["access-control-allow-credentials"] == "true"


async def test_machines_outside_the_api_are_not_asked_for_a_client(http):
    response = await http.get("/version", headers={"Convex-Client": "nonsense"})
    assert response.status_code == 200
