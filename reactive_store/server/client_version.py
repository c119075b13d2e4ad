"""Which program is calling, and whether it is too old.

A client says `name-1.2.3` in its `Convex-Client` header, or has its version in the path of the
sync endpoint. Clients nobody knows are welcome; only versions with known defects are refused.

Source: the thresholds of Convex's open server; what its npm client 1.48 and Python client 0.8
send
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_store.errors import BadRequest
from reactive_store.runtime import Runtime
from reactive_store.server.errors import error_response
from reactive_store.server.paths import is_api_path, route_path
from reactive_store.sync.messages import ClientVersion

__all__ = [
    "CLIENT_HEADER",
    "ClientSupport",
    "ClientVersionMiddleware",
    "RefusedClient",
    "check_support",
    "client_of_header",
    "client_of_path",
    "deprecation_headers",
    "support_of",
]

CLIENT_HEADER = "convex-client"

_Triple = tuple[int, int, int]

# client → (refused up to and including, asked to upgrade up to and including)
_THRESHOLDS: dict[str, tuple[_Triple, _Triple]] = {
    "npm": ((0, 19, 1), (0, 19, 1)),
    "npm-cli": ((0, 19, 1), (0, 19, 1)),
    "actions": ((0, 19, 1), (0, 19, 1)),
    "python": ((0, 0, 2), (0, 2, 0)),
    "rust": ((0, 0, 1), (0, 0, 1)),
}
_SAME_CLIENT = {"python-convex": "python"}

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ClientSupport:
    """What a client is told about its version."""

    state: Literal["Supported", "UpgradeRequired", "Unsupported"]
    message: str = ""


_SUPPORTED = ClientSupport("Supported")


class RefusedClient(BadRequest):
    """The client's version has defects that make it useless here."""

    code = "ClientVersionUnsupported"

    def __init__(self, support: ClientSupport) -> None:
        super().__init__(support.message)
        self.support = support


def client_of_header(value: str) -> ClientVersion:
    """The client a `Convex-Client` header names.

    Shapes   the name ends at the first dash that is followed by nothing but a version, so
             `npm-cli-1.2.3` is `npm-cli`; without any version the name ends at the first dash
    Raises   BadRequest[InvalidClientVersion] when there is no dash at all
    """
    value = value.strip()
    dash = value.find("-")
    if dash < 1:
        raise BadRequest(
            f"Failed to parse client version {value!r}: expected a name, a dash and a version",
            code="InvalidClientVersion",
        )
    at = dash
    while at != -1:
        version = _triple(value[at + 1 :])
        if version is not None:
            return ClientVersion(_canonical(value[:at]), version)
        at = value.find("-", at + 1)
    return ClientVersion(_canonical(value[:dash]), None)


def client_of_path(segment: str) -> ClientVersion:
    """The client whose version stands in the path of the sync endpoint: the npm package.

    Raises   BadRequest[InvalidClientVersion] when the segment is no version
    """
    version = _triple(segment)
    if version is None:
        raise BadRequest(
            f"Failed to parse client version {segment!r}: expected a version like 1.48.0",
            code="InvalidClientVersion",
        )
    return ClientVersion("npm", version)


def support_of(client: ClientVersion) -> ClientSupport:
    """Whether this client is served, and with which warning."""
    thresholds = _THRESHOLDS.get(client.name)
    if thresholds is None:
        return _SUPPORTED
    refused_up_to, outdated_up_to = thresholds
    version = client.version or (0, 0, 0)
    if version > outdated_up_to:
        return _SUPPORTED
    shown = ".".join(map(str, client.version)) if client.version else "(unreadable)"
    newest = ".".join(map(str, outdated_up_to))
    text = f"The {client.name} client {shown} is too old; use a version newer than {newest}."
    return ClientSupport("Unsupported" if version <= refused_up_to else "UpgradeRequired", text)


def check_support(client: ClientVersion) -> ClientSupport:
    """`support_of`, refusing what is not served.

    Raises   RefusedClient[ClientVersionUnsupported]
    """
    support = support_of(client)
    if support.state == "Unsupported":
        raise RefusedClient(support)
    return support


def deprecation_headers(support: ClientSupport) -> list[tuple[bytes, bytes]]:
    """The two headers clients turn into a warning; none for a supported client."""
    if support is _SUPPORTED:
        return []
    return [
        (b"x-convex-deprecation-state", support.state.encode()),
        (b"x-convex-deprecation-message", support.message.encode()),
    ]


class ClientVersionMiddleware:
    """Refuses HTTP calls of clients that are too old, and warns those that soon will be.

    Sockets pass: their endpoint also knows the version in the path.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_api_path(route_path(scope)):
            await self._app(scope, receive, send)
            return
        header = Headers(scope=scope).get(CLIENT_HEADER)
        if header is None:
            await self._app(scope, receive, send)
            return
        try:
            client = client_of_header(header)
            support = check_support(client)
        except BadRequest as error:
            response = error_response(error, self._runtime)
            if isinstance(error, RefusedClient):
                response.raw_headers.extend(deprecation_headers(error.support))
            await response(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "client": client}
        warning = deprecation_headers(support)
        if not warning:
            await self._app(scope, receive, send)
            return

        async def send_with_warning(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                message["headers"] = [*headers, *warning]  # type: ignore[misc]
            await send(message)

        await self._app(scope, receive, send_with_warning)  # type: ignore[arg-type]


def _triple(text: str) -> _Triple | None:
    match = _SEMVER.fullmatch(text)
    if match is None:
        return None
    major, minor, patch = match.group(1, 2, 3)
    return int(major), int(minor), int(patch)


def _canonical(name: str) -> str:
    name = name.lower()
    return _SAME_CLIENT.get(name, name)
