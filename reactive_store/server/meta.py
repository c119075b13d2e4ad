"""The deployment about itself: liveness, version, metrics, addresses, environment variables.

Source: the routes that Convex's command line 1.48 and its monitoring call
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.errors import BadRequest, Forbidden
from reactive_store.server.authorization import admin_of_request
from reactive_store.server.requests import Endpoint, json_body, json_response, read_body

__all__ = ["META_ENDPOINTS", "server_version"]

_RUNNING = "This Convex deployment is running. See https://docs.convex.dev/."
_ECHO_BYTES = 128 * 1024 * 1024
_METRIC_PREFIX = "reactive_store"
_PUSH_REFUSED = (
    "This deployment runs Python functions, which are not pushed from a JavaScript project. "
    "Put them into the app's functions directory and restart `reactive-store serve`, or work "
    "under `reactive-store dev`, which reloads on save."
)
_URL_REFUSED = (
    "The addresses of this deployment are settings: start it with `origin` and `site_origin` "
    "(REACTIVE_STORE_ORIGIN, REACTIVE_STORE_SITE_ORIGIN)."
)


def server_version() -> str:
    """The version of the installed package; "unknown" when it runs from a bare directory."""
    try:
        return version("reactive_store")
    except PackageNotFoundError:
        return "unknown"


# ---- for everybody ----


async def running(backend: Backend, request: Request) -> Response:
    """`GET /`: a person's proof that something is here."""
    return PlainTextResponse(_RUNNING)


async def show_version(backend: Backend, request: Request) -> Response:
    """`GET /version`, `GET /instance_version`."""
    return PlainTextResponse(server_version())


async def instance_name(backend: Backend, request: Request) -> Response:
    """`GET /instance_name`."""
    return PlainTextResponse(backend.instance_name)


async def echo(backend: Backend, request: Request) -> Response:
    """`POST /echo`: the body again. Collected first: some clients read only after sending all."""
    body = await read_body(request, _ECHO_BYTES, code="EchoTooLarge")
    # Whoever sent it may have made somebody else's browser send it: nothing in it runs here.
    headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
    return Response(body, headers=headers, media_type=request.headers.get("content-type"))


async def metrics(backend: Backend, request: Request) -> Response:
    """`GET /metrics`: every number of the backend's statistics, for Prometheus."""
    lines = [
        f"{_METRIC_PREFIX}_{name} {number}\n" for name, number in _numbers(backend.statistics())
    ]
    return PlainTextResponse("".join(lines), media_type="text/plain; version=0.0.4; charset=utf-8")


async def key_set(backend: Backend, request: Request) -> Response:
    """`GET /.well-known/jwks.json`: what development tokens are checked with, where they count."""
    if not backend.accepts_development_tokens:
        return Response(status_code=404)
    return json_response(backend.development_issuer.key_set)


def _numbers(record: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        name = f"{prefix}{field.name}"
        if isinstance(value, int | float):  # True counts as 1
            yield name, value + 0
        elif dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}_")


# ---- for administrators ----


async def _require_admin(backend: Backend, request: Request) -> Caller:
    return await admin_of_request(request.headers, request.query_params, backend.authenticator)


async def check_admin_key(backend: Backend, request: Request) -> Response:
    """`GET /api/check_admin_key`: no list of operations means all of them."""
    await _require_admin(backend, request)
    return json_response({"success": True, "allowedOps": [], "isReadOnly": False})


async def canonical_urls(backend: Backend, request: Request) -> Response:
    """`GET /api/v1/get_canonical_urls`: as configured, else as this request found us."""
    await _require_admin(backend, request)
    settings = backend.settings
    origin = settings.origin or _requested_origin(request)
    site = settings.site_origin
    if site is None:
        parts = urlsplit(origin)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        site = (
            f"{parts.scheme}://{host}:{settings.site_port}"
            if settings.site_port
            else f"{origin}/http"
        )
    return json_response({"convexCloudUrl": origin, "convexSiteUrl": site})


def _requested_origin(request: Request) -> str:
    # Not `base_url`: below a mount point that is the address of the host application.
    return str(request.url.replace(path=request.scope["root_path"], query="")).rstrip("/?")


async def refuse_canonical_url(backend: Backend, request: Request) -> Response:
    """`POST /api/update_canonical_url`: says where the addresses come from instead."""
    await _require_admin(backend, request)
    raise Forbidden(_URL_REFUSED, code="CanonicalUrlIsASetting")


async def refuse_push(backend: Backend, request: Request) -> Response:
    """`POST /api/get_config_hashes`, the first request of every push of JavaScript functions.

    Refused here, before an empty bundle could replace anything. Convex's command line prints the
    message of a 403 and nothing else.
    """
    raise Forbidden(_PUSH_REFUSED, code="PythonBackend")


async def deployment_info(backend: Backend, request: Request) -> Response:
    """`GET /api/v1/deployment_info`."""
    await _require_admin(backend, request)
    return json_response({"kind": "selfHosted"})


async def list_environment_variables(backend: Backend, request: Request) -> Response:
    """`GET /api/v1/list_environment_variables`."""
    await _require_admin(backend, request)
    return json_response({"environmentVariables": dict(await backend.environment.all())})


async def update_environment_variables(backend: Backend, request: Request) -> Response:
    """`POST /api/update_environment_variables`: all changes or none; no value removes."""
    await _require_admin(backend, request)
    changes = (await json_body(request, backend.limits)).get("changes")
    if type(changes) is not list:
        raise BadRequest(
            "Failed to parse the request body: the field `changes` has to be an array",
            code="BadJsonBody",
        )
    await backend.environment.update(dict(map(_change, changes)))
    return Response()


def _change(change: object) -> tuple[str, str | None]:
    if isinstance(change, dict):
        name, value = change.get("name"), change.get("value")
        if isinstance(name, str) and (value is None or isinstance(value, str)):
            return name, value
    raise BadRequest(
        "Failed to parse the request body: a change has a `name` and a `value`, both strings "
        "(or no value, to remove the variable)",
        code="BadJsonBody",
    )


# (methods, path, endpoint)
META_ENDPOINTS: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", "/", running),
    ("GET", "/version", show_version),
    ("GET", "/instance_version", show_version),
    ("GET", "/instance_name", instance_name),
    ("POST", "/echo", echo),
    ("GET", "/metrics", metrics),
    ("GET", "/.well-known/jwks.json", key_set),
    ("GET", "/api/check_admin_key", check_admin_key),
    ("GET", "/api/v1/get_canonical_urls", canonical_urls),
    ("POST", "/api/update_canonical_url", refuse_canonical_url),
    ("POST", "/api/v1/update_canonical_url", refuse_canonical_url),
    ("GET", "/api/v1/deployment_info", deployment_info),
    ("POST", "/api/get_config_hashes", refuse_push),
    ("POST", "/api/update_environment_variables", update_environment_variables),
    ("POST", "/api/v1/update_environment_variables", update_environment_variables),
    ("GET", "/api/v1/list_environment_variables", list_environment_variables),
)
