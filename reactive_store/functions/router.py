"""Which handler answers which HTTP request: what an app's `functions/http.py` defines as `http`.

    http = HttpRouter()

    @http.route("/webhook", method="POST")
    async def webhook(ctx: ActionCtx, request: Request) -> Response: ...

    http.route(path_prefix="/files/", method="GET", handler=send_file)

- An exact path wins over every prefix, a longer prefix over a shorter one; each method has routes
  of its own, and HEAD is answered by those of GET.
- Paths are compared as they stand in the URL, percent-encoded; a slash at the end matters, the
  query string does not.
- A router takes routes while its module is executed; the app that loads it closes it.

Source of facts: the rules and texts of Convex's npm client 1.48; docs/guide/http-actions.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Literal, TypeVar, overload
from urllib.parse import quote

from reactive_store.errors import BadRequest
from reactive_store.functions.context import ActionCtx
from reactive_store.functions.definitions import FunctionDef, FunctionKind

__all__ = ["METHODS", "HttpHandler", "HttpRouter", "Route"]

METHODS: Final = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")
"""The methods a route may have. HEAD is not one of them: it is a GET without the body."""

# What an author may write in a path and means as it is; everything else is percent-encoded.
_PLAIN: Final = "/%:@!$&'()*+,;=~-._"
_RESERVED: Final = "/.files"

HttpHandler = Callable[[ActionCtx, Any], Coroutine[Any, Any, Any]]
"""A handler: `async def handler(ctx: ActionCtx, request: Request) -> Response`."""

H = TypeVar("H", bound=HttpHandler)


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of a router."""

    method: str
    path: str  # as it is listed: the path, or the prefix and a star
    function: FunctionDef  # of kind HTTP_ACTION

    @property
    def name(self) -> str:
        """How logs and error texts call it: `POST /webhook`."""
        return f"{self.method} {self.path}"


class HttpRouter:
    """The app's own HTTP routes."""

    __slots__ = ("_exact", "_is_closed", "_pending", "_prefixes")

    def __init__(self) -> None:
        # method → path or prefix (percent-encoded) → route
        self._exact: dict[str, dict[str, Route]] = {}
        self._prefixes: dict[str, dict[str, Route]] = {}
        # Decorators that were made and have not decorated anything yet, with their places.
        self._pending: dict[object, str] = {}
        self._is_closed = False

    @overload
    def route(
        self, path: str | None = None, *, path_prefix: str | None = None, method: str | None = None
    ) -> Callable[[H], H]: ...

    @overload
    def route(
        self,
        path: str | None = None,
        *,
        path_prefix: str | None = None,
        method: str | None = None,
        handler: HttpHandler,
    ) -> None: ...

    def route(
        self,
        path: str | None = None,
        *,
        path_prefix: str | None = None,
        method: str | None = None,
        handler: Any = ...,
    ) -> Any:
        """Answer requests for a path or below a prefix. Without handler, a decorator.

        Shapes   path: begins with a slash; path_prefix: ends with one too; one of the two.
                 method: one of METHODS. handler: an `async def (ctx, request)`, plain or an
                 `@http_action`
        Raises   BadRequest[InvalidFunction] naming file, line and what is wrong
        """
        place = _place(sys._getframe(1))
        entry = self._checked(path, path_prefix, method, place)
        if handler is not ...:
            self._add(entry, handler, place)
            return None

        def decorate(function: H) -> H:
            self._pending.pop(decorate, None)
            self._add(entry, function, place)
            return function

        self._pending[decorate] = place
        return decorate

    def lookup(self, path: str, method: str) -> Route | None:
        """The route that answers a request, or None.

        Shapes   path: as in the URL, percent-encoded, without the query string
        Cost     one dictionary look per slash of the path
        """
        if method == "HEAD":
            method = "GET"
        route = self._exact.get(method, {}).get(path)
        if route is not None:
            return route
        prefixes = self._prefixes.get(method)
        if not prefixes:
            return None
        end = path.rfind("/") + 1
        while end > 0:
            route = prefixes.get(path[:end])
            if route is not None:
                return route
            end = path.rfind("/", 0, end - 1) + 1
        return None

    def routes(self) -> list[Route]:
        """Every route: exact paths first, then prefixes, each in order of path and method."""
        return [
            table[method][path]
            for table in (self._exact, self._prefixes)
            for path, method in sorted(
                (path, method) for method, entries in table.items() for path in entries
            )
        ]

    def close(self) -> None:
        """The module is loaded: from now on the routes are fixed.

        Raises   BadRequest[InvalidFunction] when a decorator was left without a function
        """
        for place in self._pending.values():
            raise _refused(place, "route requires handler")
        self._is_closed = True

    def _checked(
        self, path: str | None, prefix: str | None, method: str | None, place: str
    ) -> tuple[Literal["path", "pathPrefix"], str, str]:
        """(kind, path or prefix, method), when a route may be added for them."""
        if self._is_closed:
            raise _refused(place, "routes are added while http.py is loaded, not by a function")
        if method is None:
            raise _refused(place, "route requires method")
        if method not in METHODS:
            text = f"'{method}' is not an allowed HTTP method (like GET, POST, PUT etc.)"
            raise _refused(place, text)
        if path is not None:
            if prefix is not None:
                text = "Invalid httpRouter route: cannot contain both 'path' and 'pathPrefix'"
                raise _refused(place, text)
            self._check_path(path, method, place)
            return "path", path, method
        if prefix is None:
            text = (
                "Invalid httpRouter route entry: must contain either field 'path' or 'pathPrefix'"
            )
            raise _refused(place, text)
        self._check_prefix(prefix, method, place)
        return "pathPrefix", prefix, method

    def _check_path(self, path: str, method: str, place: str) -> None:
        if not path.startswith("/"):
            raise _refused(place, f"path '{path}' does not start with a /")
        if path == _RESERVED or path.startswith(f"{_RESERVED}/"):
            raise _refused(place, f"path '{path}' is reserved")
        if _encoded(path) in self._exact.get(method, {}):
            raise _refused(place, f"Path '{path}' for method {method} already in use")

    def _check_prefix(self, prefix: str, method: str, place: str) -> None:
        if not prefix.startswith("/"):
            raise _refused(place, f"pathPrefix '{prefix}' does not start with a /")
        if not prefix.endswith("/"):
            raise _refused(place, f"pathPrefix {prefix} must end with a /")
        if prefix.startswith(f"{_RESERVED}/"):
            raise _refused(place, f"pathPrefix '{prefix}' is reserved")
        if _encoded(prefix) in self._prefixes.get(method, {}):
            raise _refused(place, f"{method} pathPrefix {prefix} is already defined")

    def _add(
        self, entry: tuple[Literal["path", "pathPrefix"], str, str], handler: Any, place: str
    ) -> None:
        kind, path, method = entry
        if handler is None:
            raise _refused(place, "route requires handler")
        # Again: a decorator may be used twice, or after another route took its place.
        self._checked(
            path if kind == "path" else None, path if kind == "pathPrefix" else None, method, place
        )
        table, shown = (self._exact, path) if kind == "path" else (self._prefixes, f"{path}*")
        function = _http_action(handler, f"{method} {shown}", place)
        table.setdefault(method, {})[_encoded(path)] = Route(method, shown, function)


def _http_action(handler: Any, name: str, place: str) -> FunctionDef:
    if not isinstance(handler, FunctionDef):
        function = FunctionDef(FunctionKind.HTTP_ACTION, "public", handler)
        return function.at(name)
    if handler.kind is not FunctionKind.HTTP_ACTION:
        raise _refused(
            place,
            f"`{handler.name}` is a {handler.kind.value.lower()}, which HTTP requests cannot call: "
            "write an `async def handler(ctx, request)` that calls it through ctx",
        )
    return handler


def _encoded(path: str) -> str:
    """The path as it stands in a URL."""
    return quote(path, safe=_PLAIN)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _refused(place: str, text: str) -> BadRequest:
    return BadRequest(f"{place}: {text}", code="InvalidFunction")
