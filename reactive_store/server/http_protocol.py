"""An HTTP connection on uvicorn that ends when it keeps asking for nothing.

uvicorn gives a finished request a few seconds until the next one begins, and then, as at the start
of a connection, all the time in the world to say what it wants. Here a connection on which no
request is under way is closed after a while, however many bytes of a head have come.

Invariants
- A connection that has a request under way, or has become a websocket, is left alone.
- A request whose body turns out to be no HTTP is answered once, by the protocol.
- One timer per connection, set once per period and not per request.
- A response that has begun and cannot be completed can be ended by `abort`.

Source: uvicorn's HTTP protocols, and the contract of its `http` setting
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["abort", "http_protocol", "on_abort"]

_Protocol: Any = AutoHTTPProtocol
_ABORT = "reactive_store.abort"  # in the state of a request: closes its connection


def on_abort(scope: Scope, close: Callable[[], None]) -> None:
    """Say how the connection of a request is closed."""
    scope["state"][_ABORT] = close


def abort(scope: Scope) -> bool:
    """Close the connection of a request without completing the response, if the server can."""
    close = scope.get("state", {}).get(_ABORT)
    if close is None:
        return False
    close()
    return True


def http_protocol(head_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's own protocol, with that much time for the head of a request."""

    class HttpProtocol(_Protocol):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # Requests get copies of it.
            self.app_state: dict[str, Any] = {**self.app_state, _ABORT: self._abort}

        def _abort(self) -> None:
            cycle = self.cycle
            if cycle is not None:
                cycle.disconnected = True  # to the cycle, and its log, the peer has left
            self.transport.close()

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._idle_since: float | None = self.loop.time()  # None: it is a websocket now
            self._timer = self.loop.call_later(head_seconds, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._idle_since = self.loop.time()
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            cycle = self.cycle
            if cycle is not None and not cycle.response_complete:
                # A broken body: the request it belongs to is over and must not answer as well.
                cycle.disconnected = True
                if cycle.response_started:
                    self.transport.close()
                    return
            super().send_400_response(msg)

        def handle_websocket_upgrade(self, *args: Any) -> None:
            self._idle_since = None
            self._timer.cancel()
            super().handle_websocket_upgrade(*args)

        def _look(self) -> None:
            if self._idle_since is None or self.transport.is_closing():
                return
            left_s = head_seconds
            if self.cycle is None or self.cycle.response_complete:
                left_s -= self.loop.time() - self._idle_since
                if left_s <= 0:
                    self.transport.close()
                    return
            self._timer = self.loop.call_later(left_s, self._look)

    return HttpProtocol
