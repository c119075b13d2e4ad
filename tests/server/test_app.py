"""The application as a whole: its life, and life below another application."""

import asyncio
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from reactive_store.asgi import create_app
from reactive_store.auth.keys import AdminKeys
from reactive_store.backend import DATABASE_FILE
from reactive_store.config import Settings
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.server.app import app_for, build_app
from tests.server.conftest import client_for


def counting_app(backend, *, closes_backend=True):
    opened = []

    async def open_backend():
        opened.append(backend)
        await asyncio.sleep(0)
        return backend

    app = build_app(
        open_backend, limits=Limits(), runtime=SystemRuntime(), closes_backend=closes_backend
    )
    return app, opened


async def test_the_lifespan_opens_and_closes_the_backend(backend):
    app, opened = counting_app(backend)
    async with app.router.lifespan_context(app), client_for(app) as http:
        assert opened == [backend]
        assert (await http.get("/instance_name")).text == "test-store"
        assert backend.closed == 0
    assert backend.closed == 1
    assert opened == [backend]


async def test_a_backend_of_the_caller_stays_open(backend):
    app = app_for(backend)
    async with app.router.lifespan_context(app):
        pass
    assert backend.closed == 0


async def test_a_failure_to_open_stops_the_start():
    async def open_backend():
        raise ValueError("no data")

    app = build_app(open_backend, limits=Limits(), runtime=SystemRuntime(), closes_backend=True)
    with pytest.raises(ValueError, match="no data"):
        async with app.router.lifespan_context(app):
            pass


async def test_without_a_lifespan_the_first_request_opens_once(backend):
    app, opened = counting_app(backend)
    async with client_for(app) as http:
        responses = await asyncio.gather(*(http.get("/instance_name") for _ in range(5)))
    assert [response.text for response in responses] == ["test-store"] * 5
    assert opened == [backend]


@pytest.mark.parametrize("prefix", ["", "/store", "/a/b"])
async def test_it_works_below_a_prefix(backend, prefix):
    store = app_for(backend)
    host = Starlette(routes=[Mount(prefix or "/", store)], lifespan=store.router.lifespan_context)
    origin = {"Origin": "https://page.example"}
    async with host.router.lifespan_context(host), client_for(host) as http:
        response = await http.post(f"{prefix}/api/query", json={"path": "a:b"}, headers=origin)
        assert response.json() == {"status": "success", "value": None}
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        assert (await http.post(f"http://store.test{prefix}//api/query_ts")).status_code == 200
        assert (await http.get(f"{prefix}/version", headers=origin)).headers.get(
            "access-control-allow-origin"
        ) is None
        urls = await http.get(f"{prefix}/api/v1/get_canonical_urls", headers=backend.admin)
        assert urls.json()["convexCloudUrl"] == f"http://store.test{prefix}"
        unknown = await http.get(f"{prefix}/api/nothing", headers=backend.admin)
        assert unknown.json()["code"] == "UnsupportedEndpoint"


async def test_a_deployment_is_opened_from_its_settings_and_keeps_its_data_and_key(notes_app):
    keys = set()
    for round_ in range(2):
        app = create_app(Settings(app=notes_app))
        async with app.router.lifespan_context(app), client_for(app) as http:
            added = {"path": "notes:add", "args": {"body": "x"}}
            assert (await http.post("/api/mutation", json=added)).json()["status"] == "success"
            answer = await http.post("/api/query", json={"path": "notes:all"})
            assert answer.content == b'{"status":"success","value":[%s]}' % b",".join(
                [b'"x"'] * (round_ + 1)
            )
        keys.add(await admin_key(notes_app))
    assert len(keys) == 1


async def admin_key(app: Path) -> str:
    """The key as the data directory's owner would print it."""
    persistence = await SqlitePersistence.open(
        app / ".reactive_store" / DATABASE_FILE, limits=Limits()
    )
    try:
        secret = persistence.get_global("instance_secret")
        name = persistence.get_global("instance_name")
        assert secret is not None
        assert name is not None
        return AdminKeys(name.decode(), secret).issue()
    finally:
        await persistence.close()


async def test_an_app_that_cannot_be_loaded_stops_the_start(tmp_path):
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "broken.py").write_text("def (", encoding="utf-8")
    app = create_app(Settings(app=tmp_path))
    with pytest.raises(BadRequest, match=r"broken\.py"):
        async with app.router.lifespan_context(app):
            pass
