"""Request paths, as the routes of the server see them.

The server can be mounted below a prefix of another application, and Convex's npm client doubles
the slash when an address ends in one. Everything that looks at a path asks here.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["LeadingSlashes", "is_api_path", "route_path"]

_API_ROOTS = ("", "/", "/instance_name", "/instance_version", "/echo", "/api")


def route_path(scope: Scope) -> str:
    """The path below the mount point."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        return path[len(root) :]
    return path


def is_api_path(path: str) -> bool:
    """Whether a path belongs to the API that browsers of any origin may call.

    The app's own routes under `/http` answer for themselves; `/version` and `/metrics` are for
    machines.
    """
    return path in _API_ROOTS or path.startswith("/api/")


class LeadingSlashes:
    """Takes `//api/…` for `/api/…`, which is what an address with a trailing slash becomes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            path = route_path(scope)
            if path.startswith("//"):
                kept = scope["path"].removesuffix(path)
                scope = {**scope, "path": f"{kept}/{path.lstrip('/')}"}
        await self._app(scope, receive, send)
