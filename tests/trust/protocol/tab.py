"""One user's client: two implementations that must agree, and the socket driver around them.

The driver does what the official client's does: it opens the next socket after a pause that grows,
gives up a socket that says nothing for a minute, and takes another token when one is refused.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from reactive_store.client.state import (
    AuthRefused,
    CallEnded,
    ClientEvent,
    ClientState,
    ConnectionLost,
    QueriesChanged,
    Stopped,
)
from reactive_store.errors import ProtocolError
from reactive_store.sync.messages import MutationResponse, QueryUpdated
from tests.trust.protocol.network import Link
from tests.trust.protocol.plain_client import PlainClient, ts_of
from tests.trust.protocol.questions import QUESTIONS, Violation, mutation_args
from tests.trust.protocol.witness import Call, Conversation, Ledger

__all__ = ["Tab", "Twin"]

INACTIVE_MS = 60_000
_TOKENS = {
    "alice": ("User", "good-alice"),
    "bob": ("User", "good-bob"),
    "nobody": ("None", ""),
    "bad": ("User", "bad-mallory"),
    "brief": ("User", "brief-carol"),
    "down": ("User", "down-alice"),
}


class Twin:
    """The product's client and the plain one, given the same; what they say is compared."""

    def __init__(self, session_id: str) -> None:
        self.state = ClientState(session_id)
        self.plain = PlainClient(session_id)

    def subscribe(self, path: str, args: dict[str, Any]) -> int:
        query_id = self.state.subscribe(path, orjson.dumps(args))
        return self._same(query_id, self.plain.subscribe(path, args))

    def unsubscribe(self, query_id: int) -> None:
        self.state.unsubscribe(query_id)
        self.plain.unsubscribe(query_id)

    def request(self, kind: str, path: str, args: dict[str, Any]) -> int:
        call = self.state.mutate if kind == "Mutation" else self.state.act
        return self._same(call(path, orjson.dumps(args)), self.plain.request(kind, path, args))

    def authenticate(self, kind: str, value: str) -> None:
        self.state.authenticate(kind, value)
        self.plain.authenticate(kind, value)

    def open(self, client_ts: int) -> None:
        self.state.open(client_ts)
        self.plain.open(client_ts)

    def lose(self, reason: str) -> list[tuple[Any, ...]]:
        told = [_plain(event) for event in self.state.lose(reason)]
        return self._same(told, self.plain.lose(reason))

    def hear(self, frame: bytes) -> list[tuple[Any, ...]]:
        try:
            told = [_plain(event) for event in self.state.receive(frame)]
        except ProtocolError as error:
            raise Violation(f"the client does not accept {frame[:300]!r}: {error}") from error
        self._same(told, [_brief(event) for event in self.plain.hear(frame)])
        for event in told:
            if event[0] == "changed":
                for query_id in event[1]:
                    self.result(query_id)
        return told

    def result(self, query_id: int) -> tuple[str, Any] | None:
        """("value", …), ("failed", data), or None before the first."""
        held = self.state.result(query_id)
        if held is None:
            mine: tuple[str, Any] | None = None
        elif isinstance(held, QueryUpdated):
            mine = "value", orjson.loads(held.value)
        else:
            assert held.error_data is not None
            mine = "failed", orjson.loads(held.error_data)
        other = self.plain.results.get(query_id)
        if other is None:
            return self._same(mine, None)
        is_value = other["type"] == "QueryUpdated"
        return self._same(
            mine, ("value", other["value"]) if is_value else ("failed", other["errorData"])
        )

    def take(self) -> list[bytes]:
        frames = self.state.take_outgoing()
        self._same([orjson.loads(frame) for frame in frames], self.plain.take())
        return frames

    def _same(self, mine: Any, other: Any) -> Any:
        if mine != other:
            raise Violation(f"two clients, two opinions:\n  product {mine}\n  plain   {other}")
        return mine


def _plain(event: ClientEvent) -> tuple[Any, ...]:
    match event:
        case QueriesChanged(query_ids=ids):
            return "changed", ids
        case CallEnded(request_id=request_id, response=ConnectionLost()):
            return "lost", request_id
        case CallEnded(request_id=request_id, response=response):
            ts = response.ts if isinstance(response, MutationResponse) else None
            return "ended", request_id, response.success, ts
        case AuthRefused(error=error, attempted=attempted):
            return "refused", error, attempted
        case Stopped(error=error):
            return "stopped", error


def _brief(event: tuple[Any, ...]) -> tuple[Any, ...]:
    if event[0] != "ended":
        return event
    _, request_id, message = event
    ts = None
    if message["type"] == "MutationResponse" and message["success"]:
        ts = ts_of(message["ts"])
    return "ended", request_id, message["success"], ts


class Tab:
    """A user with a client that is to work whatever the network does."""

    def __init__(self, world: Any, number: int) -> None:
        self.world = world
        self.number = number
        seed = world.plan.seed & 0xFFFFFFFFFFFF
        self.session = f"{number:08x}-0000-4000-8000-{seed:012x}"
        self.twin = Twin(self.session)
        self.ledger: Ledger = world.ledger
        self.link: Link | None = None
        self.conversation: Conversation | None = None
        self.opened = 0
        self.retries = 0
        self.is_waiting = False  # for the pause before the next socket
        self.heard_ms = 0.0
        self.live: list[int] = []
        self.questions: dict[int, tuple[str, dict[str, Any]]] = {}
        self.calls = 0
        self.observed = 0  # newest commit of a mutation that the user was told is done
        self.chance = world.plan.chance("tab", number)
        self.takes_chunks = self.chance.random() < 0.5

    # What the user does.

    def watch(self, what: int) -> None:
        if len(self.live) >= 8:
            return
        path, args = QUESTIONS[what % len(QUESTIONS)]
        query_id = self.twin.subscribe(path, args)
        self.live.append(query_id)
        self.questions[query_id] = path, args
        self.carry()

    def unwatch(self, what: int) -> None:
        if self.live:
            query_id = self.live.pop(what % len(self.live))
            del self.questions[query_id]
            self.twin.unsubscribe(query_id)
            self.carry()

    def burst(self, seed: int, count: int) -> None:
        for place in range(count):
            if (seed >> place) & 1:
                self.watch(seed + place)
            else:
                self.unwatch(seed + place)

    def mutate(self, what: int) -> None:
        token = self._token(what)
        path, args = mutation_args(what, token)
        self._call("Mutation", path, args, token)

    def act(self, what: int) -> None:
        token = self._token(what)
        self._call("Action", "app:act", {"name": "abc"[what % 3], "token": token}, token)

    def become(self, token: str) -> None:
        self.twin.authenticate(*_TOKENS[token])
        self.carry()

    def _token(self, what: int) -> str:
        # Not in the order of calling, so that new rows fall inside of pages too.
        self.calls += 1
        return f"{what * 37 % 100:02d}-{self.number}-{self.calls}"

    def _call(self, kind: str, path: str, args: dict[str, Any], token: str) -> None:
        request_id = self.twin.request(kind, path, args)
        call = Call(self.number, request_id, kind, path, args, token)
        self.ledger.calls[self.session, request_id] = call
        self.carry()

    # Its socket.

    def connect(self) -> None:
        """Try to open a socket."""
        self.is_waiting = False
        host = self.world.host
        if not host.is_up:
            self._again("refused")
            return
        number = self.number * 1000 + self.opened
        self.opened += 1
        conversation = Conversation(self.ledger, takes_chunks=self.takes_chunks)
        link = Link(self.world.clock, self.world.plan.chance("link", number), conversation)
        link.on_frame = lambda frame: self.hear(link, frame)
        link.on_close = lambda reason: self.lose(reason)
        self.link, self.conversation = link, conversation
        self.world.links.append(link)
        host.connect(link, number, takes_chunks=self.takes_chunks)
        self.heard_ms = self.world.clock.now_ms
        self.twin.open(int(self.world.clock.now_ms))
        self.carry()

    def carry(self) -> None:
        if self.link is not None:
            for frame in self.twin.take():
                self.link.up.put(frame)

    def hear(self, link: Link, frame: bytes) -> None:
        if link is not self.link:
            return
        self.heard_ms = self.world.clock.now_ms
        is_bare = self.twin.plain.version == (0, 0, 0)
        for event in self.twin.hear(frame):
            self._note(event)
        if is_bare and self.twin.plain.version != (0, 0, 0):
            self.retries = 0
        if self.twin.state.ts and self.twin.state.ts < self.observed:
            raise Violation(
                f"client {self.number} is at {self.twin.state.ts}; it was told that its mutation "
                f"of {self.observed} is done"
            )
        self.carry()

    def _note(self, event: tuple[Any, ...]) -> None:
        match event:
            case ("ended", request_id, success, ts):
                call = self.ledger.calls[self.session, request_id]
                self._end(call, "done" if success else "failed")
                if call.kind == "Mutation" and success:
                    mark = f"{call.token}-" if call.path == "app:move" else call.token
                    committed = self.ledger.history.commits.get(mark)
                    if ts != committed or self.twin.state.ts < ts:
                        raise Violation(
                            f"{call.args} is done as of {ts}, committed {committed}, the results "
                            f"are of {self.twin.state.ts}"
                        )
                    self.observed = max(self.observed, ts)
            case ("lost", request_id):
                self._end(self.ledger.calls[self.session, request_id], "lost")
            case ("refused", _, attempted):
                # The user's token source has no better one; or gives a new one for an old one.
                self.twin.authenticate(*_TOKENS["nobody" if attempted else "bob"])
                self.lose("AuthError")
            case ("stopped", error):
                raise Violation(f"the client was told to stop for good: {error}")

    def _end(self, call: Call, outcome: str) -> None:
        if call.outcome is not None:
            raise Violation(f"{call.args} ended twice: {call.outcome}, then {outcome}")
        call.outcome = outcome

    def lose(self, reason: str, *, notice_ms: int = 0, lost_per_cent: int = 0) -> None:
        """The socket is gone, as the client sees it."""
        link, self.link = self.link, None
        if link is None:
            return
        self.conversation = None
        link.leave(notice_ms=notice_ms, lost_per_cent=lost_per_cent)
        for event in self.twin.lose(reason):
            self._note(event)
        self._again(reason)

    def _again(self, _reason: str) -> None:
        if self.is_waiting:
            return
        self.is_waiting = True
        pause = min(100 * 2**self.retries, 16_000) * self.chance.uniform(0.5, 1.5)
        self.retries += 1
        self.world.clock.after(pause, self.connect)

    def tick(self) -> None:
        """A second has passed."""
        if self.link is None or self.world.clock.now_ms - self.heard_ms < INACTIVE_MS:
            return
        if not self.link.down.was_stalled and self.link.down.delay_ms is None:
            raise Violation(f"client {self.number} heard nothing for a minute on a good connection")
        self.lose("InactiveServer", notice_ms=-1 if self.link.up.is_stalled else 0)

    def show(self) -> str:
        """For a report."""
        return json.dumps({"live": self.live, "pending": self.twin.state.pending_calls()})
