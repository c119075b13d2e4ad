"""One query of a remote deployment, live: results as they change, across lost connections.

The driver of a `ClientState` with a single subscription: it opens sockets, sends what the state has
to say, hands over what arrives, and opens the next socket when one is lost.

Source   the sync endpoint of the deployment, spoken to as Convex's npm client 1.48 does
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from reactive_store.client.state import AuthRefused, ClientState, QueriesChanged, Stopped
from reactive_store.errors import BadRequest, NotFound, Unauthenticated
from reactive_store.sync.protocol import QueryFailed, QueryUpdated

__all__ = ["watch_query"]

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0


def _nothing(_reason: str) -> None:
    pass


async def watch_query(
    url: str,
    path: str,
    args: bytes,
    *,
    admin_key: str | None = None,
    acting_as: Mapping[str, Any] | None = None,
    on_lost: Callable[[str], None] = _nothing,
) -> AsyncIterator[QueryUpdated | QueryFailed]:
    """Results of a query: the present one first, then every new one, until the caller stops.

    Shapes   url: `http(s)://…`, as clients have it; args: one encoded object; acting_as: the
             attributes of a user, for an admin key. on_lost is told why a connection ended
    Raises   NotFound[Unreachable] when the first connection cannot be made; Unauthenticated when
             the key is refused; BadRequest when the server wants us to stop
    """
    state = ClientState(str(uuid.uuid4()))
    if admin_key is not None:
        state.authenticate("Admin", admin_key, acting_as)
    query_id = state.subscribe(path, args)
    last: QueryUpdated | QueryFailed | None = None
    was_connected = False
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            async with connect(
                _socket_url(url),
                max_size=None,
                compression=None,
                open_timeout=10,
                close_timeout=1,  # whoever stops watching does not wait for the other side
            ) as connection:
                state.open()
                was_connected = True
                async for result in _results(connection, state, query_id):
                    pause_s = _FIRST_PAUSE_S
                    if not _is_same(result, last):
                        last = result
                        yield result
                reason = connection.close_reason or "the server closed the connection"
        except (OSError, InvalidHandshake, InvalidMessage) as error:
            if not was_connected:
                raise NotFound(f"{url} cannot be reached: {error}", code="Unreachable") from error
            reason = str(error)
        state.lose(reason)
        on_lost(reason)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def _results(
    connection: ClientConnection, state: ClientState, query_id: int
) -> AsyncIterator[QueryUpdated | QueryFailed]:
    """What one socket brings, until it is closed."""
    try:
        while True:
            for frame in state.take_outgoing():
                await connection.send(frame, text=True)
            for event in state.receive(await connection.recv()):
                match event:
                    case QueriesChanged():
                        result = state.result(query_id)
                        if result is not None:
                            yield result
                    case AuthRefused(error=error):
                        raise Unauthenticated(error, code="BadAdminKey")
                    case Stopped(error=error):
                        raise BadRequest(error, code="FatalError")
    except ConnectionClosed:
        return


def _is_same(result: QueryUpdated | QueryFailed, last: QueryUpdated | QueryFailed | None) -> bool:
    """Whether a result repeats the last one, as the first of a new connection may."""
    match result, last:
        case QueryUpdated(value=value), QueryUpdated(value=before):
            return value == before
        case _:
            return False


def _socket_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https"):
        raise BadRequest(
            f"{url!r} is no address of a deployment: it starts with http:// or https://"
        )
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest.rstrip('/')}/api/sync"
