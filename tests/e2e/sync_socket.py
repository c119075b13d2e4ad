"""A small client of the sync protocol that hides nothing: every frame, every version, every resend.

The official clients smooth over what a server does wrong (they retry, drop stale answers, merge
transitions). The stress tests need to see it, and to control sessions and resends themselves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import uuid
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

__all__ = ["MutationFailed", "SyncSocket", "timestamp"]

_ZERO = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}


class MutationFailed(Exception):
    """The server answered `success: false`; the argument is the whole response."""


def timestamp(text: str) -> int:
    """A wire timestamp as an integer (nanoseconds)."""
    (value,) = struct.unpack("<Q", base64.b64decode(text))
    return int(value)


class SyncSocket:
    """One session on one connection. `session` and `first_request` continue an earlier one.

    Asserts while reading: versions chain, timestamps never go back, every answer has a request.
    """

    def __init__(self, url: str, *, session: str | None = None, first_request: int = 0) -> None:
        self.session = session or str(uuid.uuid4())
        self.next_request = first_request
        self.transitions: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.results: dict[int, Any] = {}  # query id → last value told
        self.frames = 0
        self._url = url.replace("http", "ws", 1) + "/api/1.48.0/sync"
        self._version = _ZERO
        self._query_set = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._next_query = 0

    async def __aenter__(self) -> Self:
        self._connection = await connect(
            self._url, max_size=None, compression=None, ping_interval=None, open_timeout=20
        )
        await self._send(
            {
                "type": "Connect",
                "sessionId": self.session,
                "connectionCount": 0,
                "lastCloseReason": "InitialConnect",
                "clientTs": 0,
            }
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._connection is not None
        assert self._reader is not None
        await self._connection.close()
        (outcome,) = await asyncio.gather(self._reader, return_exceptions=True)
        if outcome is not None:  # an assertion about a frame outranks the error that followed it
            raise outcome

    async def mutation(self, path: str, request: int | None = None, **arguments: Any) -> Any:
        """Run a mutation and return its result once the server answered.

        Raises   MutationFailed · ConnectionClosed when the answer can no longer come
        """
        return await self._request("Mutation", path, request, arguments)

    async def action(self, path: str, **arguments: Any) -> Any:
        """Run an action and return its result."""
        return await self._request("Action", path, None, arguments)

    async def subscribe(self, *queries: tuple[str, dict[str, Any]]) -> list[int]:
        """Add queries in one message; returns their ids. Results arrive with transitions."""
        ids = list(range(self._next_query, self._next_query + len(queries)))
        self._next_query += len(queries)
        await self._send(
            {
                "type": "ModifyQuerySet",
                "baseVersion": self._query_set,
                "newVersion": self._query_set + 1,
                "modifications": [
                    {"type": "Add", "queryId": number, "udfPath": path, "args": [arguments]}
                    for number, (path, arguments) in zip(ids, queries, strict=True)
                ],
            }
        )
        self._query_set += 1
        return ids

    async def next_transition(self, *, seconds: float = 30.0) -> dict[str, Any]:
        """The next transition not taken yet, in order; its key `results` holds every query's
        value at its end."""
        return await asyncio.wait_for(self.transitions.get(), seconds)

    async def _request(
        self, kind: str, path: str, request: int | None, arguments: dict[str, Any]
    ) -> Any:
        if request is None:
            request, self.next_request = self.next_request, self.next_request + 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[request] = answer
        await self._send({"type": kind, "requestId": request, "udfPath": path, "args": [arguments]})
        response = await answer
        if not response["success"]:
            raise MutationFailed(response)
        return response["result"]

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._connection is not None
        await self._connection.send(json.dumps(message))

    async def _read(self) -> None:
        assert self._connection is not None
        lost: BaseException = ConnectionError("the socket was closed")
        try:
            async for frame in self._connection:
                self._receive(json.loads(frame))
        except ConnectionClosed as closed:
            lost = closed
        except BaseException as problem:
            lost = problem
            raise
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError(str(lost)))
                    answer.exception()  # whoever still waits gets it; nobody waiting is fine too
            self._waiting.clear()

    def _receive(self, message: dict[str, Any]) -> None:
        self.frames += 1
        match message["type"]:
            case "Transition":
                assert message["startVersion"] == self._version, "versions do not chain"
                end = message["endVersion"]
                assert timestamp(end["ts"]) >= timestamp(self._version["ts"]), "time went back"
                self._version = end
                for change in message["modifications"]:
                    if change["type"] == "QueryUpdated":
                        self.results[change["queryId"]] = change["value"]
                    elif change["type"] == "QueryFailed":
                        self.results[change["queryId"]] = change
                # The state at the end of this transition: by the time somebody takes it from the
                # queue, `self.results` may be further on.
                message["results"] = dict(self.results)
                self.transitions.put_nowait(message)
            case "MutationResponse" | "ActionResponse":
                self._waiting.pop(message["requestId"]).set_result(message)
            case "Ping":
                pass
            case other:
                raise AssertionError(f"unexpected {other}: {message}")
