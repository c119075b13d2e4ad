"""The server as an ASGI application, to be run by uvicorn or mounted into another application.

    app = create_app(load_settings(Path("myapp")))

A host application that mounts it passes the lifespan on, so that the backend closes in order:

    host = Starlette(routes=[Mount("/store", app)], lifespan=app.router.lifespan_context)
"""

from __future__ import annotations

from starlette.applications import Starlette

from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.runtime import Runtime, SystemRuntime
from reactive_store.server.app import app_for, build_app

__all__ = ["app_for", "create_app"]


def create_app(settings: Settings, *, runtime: Runtime | None = None) -> Starlette:
    """An application that opens the deployment when it starts and closes it when it ends.

    Raises   at start: BadRequest when the app cannot be loaded or does not fit its data
    """
    the_runtime = SystemRuntime() if runtime is None else runtime

    async def open_backend() -> Backend:
        app = load_app(settings.app, schema=settings.schema_file, functions=settings.functions)
        return await Backend.open(settings, app=app, runtime=the_runtime)

    return build_app(open_backend, limits=settings.limits, runtime=the_runtime, closes_backend=True)
