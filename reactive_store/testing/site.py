"""Requests to the app's own HTTP routes without a socket: what `TestBackend.fetch` does.

The server's own code answers; only uvicorn is missing. Responses are collected to their end.

Source of facts: the ASGI specification for the messages; docs/guide/http-actions.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Message, Scope

from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.functions.outcome import Outcome
from reactive_store.server.http_actions import answer_request
from reactive_store.server.http_protocol import on_abort

__all__ = ["HttpResponse", "fetch"]

_HOST: Final = "site.test"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What an HTTP action answered."""

    status_code: int
    headers: Headers  # names in any spelling
    content: bytes
    is_complete: bool = True  # False: it was cut in the middle

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises   ValueError when it is none
        """
        return json.loads(self.content)


async def fetch(
    backend: Backend,
    path: str,
    *,
    method: str,
    headers: Mapping[str, str] | None,
    body: bytes | str | None,
    json_body: Any,
    caller: Caller | None,
) -> tuple[HttpResponse, Outcome | None]:
    """One request, and how the handler's call ended; None when no handler was called.

    Shapes   caller: instead of the one that the headers name
    Raises   ValueError for a path without a slash in front, TypeError for two bodies
    """
    if not path.startswith("/"):
        raise ValueError(f"the path of a request begins with a slash, not like {path!r}")
    scope, content = _request(path, method, dict(headers or {}), body, json_body)
    messages: list[Message] = []
    has_ended = asyncio.Event()
    was_cut = False
    is_sent = False

    async def receive() -> Message:
        nonlocal is_sent
        if not is_sent:
            is_sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        await has_ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            has_ended.set()

    def cut() -> None:
        nonlocal was_cut
        was_cut = True

    on_abort(scope, cut)
    outcome = await answer_request(backend, scope, receive, send, caller=caller)
    start = messages[0]
    response = HttpResponse(
        start["status"],
        Headers(raw=list(start["headers"])),
        b"".join(bytes(message.get("body", b"")) for message in messages[1:]),
        not was_cut,
    )
    return response, outcome


def _request(
    path: str, method: str, headers: dict[str, str], body: bytes | str | None, json_body: Any
) -> tuple[Scope, bytes]:
    given = {name.lower() for name in headers}
    if json_body is not None:
        if body is not None:
            raise TypeError("a request has a body or json, not both")
        body = json.dumps(json_body).encode()
        if "content-type" not in given:
            headers["content-type"] = "application/json"
    elif isinstance(body, str):
        body = body.encode()
        if "content-type" not in given:
            headers["content-type"] = "text/plain;charset=UTF-8"
    content = body or b""
    if content:
        headers["content-length"] = str(len(content))
    if "host" not in given:
        headers["host"] = _HOST
    path, _, query = path.partition("?")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("utf-8"),
        "query_string": query.encode("utf-8"),
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ],
        "client": ("127.0.0.1", 50000),
        "server": (_HOST, 80),
        "state": {},
    }
    return scope, content
