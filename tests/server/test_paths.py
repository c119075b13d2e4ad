"""Paths below a mount point and with doubled slashes."""

import pytest

from reactive_store.server.paths import LeadingSlashes, is_api_path, route_path


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/api/sync", "", "/api/sync"),
        ("/store/api/sync", "/store", "/api/sync"),
        ("/store", "/store", ""),
        ("/storeroom", "/store", "/storeroom"),
        ("/api/sync", "/store", "/api/sync"),
    ],
)
def test_a_route_path_is_what_lies_below_the_mount_point(path, root, expected):
    assert route_path({"path": path, "root_path": root}) == expected


@pytest.mark.parametrize("path", ["/", "", "/api/query", "/api", "/echo", "/instance_name"])
def test_the_api_is_open_to_every_origin(path):
    assert is_api_path(path)


@pytest.mark.parametrize("path", ["/http/x", "/version", "/metrics", "/apis", "/unknown"])
def test_the_rest_is_not_the_api(path):
    assert not is_api_path(path)


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("//api/sync", "", "/api/sync"),
        ("///api/sync", "", "/api/sync"),
        ("/api//sync", "", "/api//sync"),
        ("/store//api/sync", "/store", "/store/api/sync"),
        ("/api/sync", "", "/api/sync"),
    ],
)
async def test_doubled_leading_slashes_are_one(path, root, expected):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["path"])

    scope = {"type": "websocket", "path": path, "root_path": root}
    await LeadingSlashes(app)(scope, None, None)
    assert seen == [expected]
    assert scope["path"] == path
