"""A second, independent client of the sync protocol, small and without any of the product's code.

It is written from what the official client does on the wire: ids that count up and are never used
again, one version per change of the query set, everything unanswered said again after a lost
socket in the order it was called, the newest timestamp seen brought along, journals brought back.
Messages are plain dicts.
"""

from __future__ import annotations

import base64
import json
from typing import Any

__all__ = ["PlainClient"]

Json = dict[str, Any]
NOTHING = (0, 0, 0)


def ts_of(text: str) -> int:
    raw = base64.b64decode(text, validate=True)
    assert len(raw) == 8
    return int.from_bytes(raw, "little")


def text_of(ts: int) -> str:
    return base64.b64encode(ts.to_bytes(8, "little")).decode()


class PlainClient:
    """Says and hears; nothing else."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.opened = 0
        self.close_reason: str | None = "InitialConnect"
        self.observed = 0
        self.is_open = False
        self.token: tuple[str, str] | None = None
        self.query_count = 0
        self.request_count = 0
        self.queries: dict[int, Json] = {}
        self.results: dict[int, Json] = {}
        self.requests: dict[int, Json] = {}
        self.sent: set[int] = set()  # on the present socket
        self.committed: dict[int, tuple[int, Json]] = {}  # answered, waiting for that time
        self.outgoing: list[Json] = []
        self.pieces: list[str] = []
        self.version = NOTHING
        self.said_queries = self.said_identity = 0

    def subscribe(self, path: str, args: Json) -> int:
        query_id = self.query_count
        self.query_count += 1
        self.queries[query_id] = {
            "type": "Add",
            "queryId": query_id,
            "udfPath": path,
            "args": [args],
        }
        self._change(self.queries[query_id])
        return query_id

    def unsubscribe(self, query_id: int) -> None:
        del self.queries[query_id]
        self.results.pop(query_id, None)
        self._change({"type": "Remove", "queryId": query_id})

    def request(self, kind: str, path: str, args: Json) -> int:
        request_id = self.request_count
        self.request_count += 1
        self.requests[request_id] = {
            "type": kind,
            "requestId": request_id,
            "udfPath": path,
            "args": [args],
        }
        if self.is_open:
            self._say(self.requests[request_id])
            self.sent.add(request_id)
        return request_id

    def authenticate(self, kind: str, value: str) -> None:
        self.token = None if kind == "None" else (kind, value)
        if self.is_open:
            self._say_identity()

    def open(self, client_ts: int) -> None:
        self.is_open = True
        self.version = NOTHING
        self.said_queries = self.said_identity = 0
        self.pieces = []
        self.outgoing = []
        connect: Json = {
            "type": "Connect",
            "sessionId": self.session_id,
            "connectionCount": self.opened,
            "lastCloseReason": self.close_reason,
            "clientTs": client_ts,
        }
        if self.observed:
            connect["maxObservedTimestamp"] = text_of(self.observed)
        self._say(connect)
        self.opened += 1
        if self.token is not None:
            self._say_identity()
        self.said_queries = 1
        self._say(
            {
                "type": "ModifyQuerySet",
                "baseVersion": 0,
                "newVersion": 1,
                "modifications": [dict(query) for query in self.queries.values()],
            }
        )
        for request_id, message in self.requests.items():
            self._say(message)
            self.sent.add(request_id)

    def lose(self, reason: str) -> list[tuple[Any, ...]]:
        self.is_open = False
        self.close_reason = reason
        self.outgoing = []
        lost = [i for i in self.requests if i in self.sent and self._kind(i) == "Action"]
        self.sent.clear()
        for request_id in lost:
            del self.requests[request_id]
        return [("lost", request_id) for request_id in lost]

    def take(self) -> list[Json]:
        outgoing, self.outgoing = self.outgoing, []
        return outgoing

    def hear(self, frame: bytes) -> list[tuple[Any, ...]]:
        """What it means for the user: ("changed", ids), ("ended", id, message), ("refused", …)."""
        message = json.loads(frame)
        match message["type"]:
            case "TransitionChunk":
                assert message["partNumber"] == len(self.pieces), "a piece is missing"
                self.pieces.append(message["chunk"])
                if len(self.pieces) < message["totalParts"]:
                    return []
                whole, self.pieces = json.loads("".join(self.pieces)), []
                return self._transition(whole)
            case "Transition":
                assert not self.pieces
                return self._transition(message)
            case "MutationResponse":
                if message["requestId"] not in self.requests:
                    return []
                if not message["success"]:
                    return self._end(message)
                ts = ts_of(message["ts"])
                self.observed = max(self.observed, ts)
                self.committed[message["requestId"]] = ts, message
                return []
            case "ActionResponse":
                return self._end(message) if message["requestId"] in self.requests else []
            case "AuthError":
                return [("refused", message["error"], message["authUpdateAttempted"])]
            case "FatalError":
                return [("stopped", message["error"])]
            case _:
                return []

    def _kind(self, request_id: int) -> str:
        return str(self.requests[request_id]["type"])

    def _say(self, message: Json) -> None:
        self.outgoing.append(message)

    def _change(self, change: Json) -> None:
        if self.is_open:
            self.said_queries += 1
            self._say(
                {
                    "type": "ModifyQuerySet",
                    "baseVersion": self.said_queries - 1,
                    "newVersion": self.said_queries,
                    "modifications": [dict(change)],
                }
            )

    def _say_identity(self) -> None:
        message: Json = {
            "type": "Authenticate",
            "baseVersion": self.said_identity,
            "tokenType": "None",
        }
        if self.token is not None:
            message["tokenType"], message["value"] = self.token
        self._say(message)
        self.said_identity += 1

    def _end(self, message: Json) -> list[tuple[Any, ...]]:
        request_id = message["requestId"]
        del self.requests[request_id]
        self.committed.pop(request_id, None)
        return [("ended", request_id, message)]

    def _transition(self, message: Json) -> list[tuple[Any, ...]]:
        start, end = (
            (v["querySet"], v["identity"], ts_of(v["ts"]))
            for v in (message["startVersion"], message["endVersion"])
        )
        assert start == self.version, f"starts at {start}, but we are at {self.version}"
        self.version = end
        self.observed = max(self.observed, end[2])
        changed = []
        for change in message["modifications"]:
            query_id = change["queryId"]
            if change["type"] == "QueryRemoved" or query_id not in self.queries:
                continue
            self.results[query_id] = change
            if change["journal"] is None:
                self.queries[query_id].pop("journal", None)
            else:
                self.queries[query_id]["journal"] = change["journal"]
            changed.append(query_id)
        happened: list[tuple[Any, ...]] = [("changed", tuple(changed))] if changed else []
        for request_id in list(self.requests):
            if request_id in self.committed and self.committed[request_id][0] <= end[2]:
                happened += self._end(self.committed[request_id][1])
        return happened
