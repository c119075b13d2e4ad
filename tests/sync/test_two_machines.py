"""A client's state machine and sessions back to back, over a network that loses and delays.

Model      accounts and their versions; a mutation moves an amount between two of them and is
           recorded under (session, request) in the same commit.
Faults     sockets that are cut with frames under way, old sockets that go on delivering, work that
           ends late or in another order, commits whose response is lost, clients that do not read,
           timestamps that have become too old, transitions in pieces.
Invariants every result a client holds is the model's at the client's timestamp, so no sum is ever
           broken; versions chain; a mutation that ended well is visible; each mutation took effect
           exactly once, in the order the client called; in the end everybody agrees.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections import deque
from typing import Any

import pytest

from reactive_store.client.state import CallEnded, ClientEvent, ClientState
from reactive_store.errors import OutOfRetention
from reactive_store.functions.live_queries import LiveResult
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.sync.messages import ActionResponse, Close, MutationResponse, QueryUpdated
from reactive_store.sync.protocol import decode_client
from reactive_store.sync.session import (
    ComputeTransition,
    OpenQuery,
    RunAction,
    RunMutation,
    Session,
    Verified,
    Verify,
    Work,
)

ACCOUNTS = 4
TOTAL = 100
STEPS = 5000


class Store:
    """Accounts, every version of them, and the record of what has been done."""

    def __init__(self) -> None:
        first = (TOTAL, *[0] * (ACCOUNTS - 1))
        self.versions: list[tuple[int, tuple[int, ...]]] = [(10, first)]
        self.done: dict[tuple[str, int], int] = {}  # (session, request) → commit
        self.order: list[tuple[str, int]] = []

    def latest_ts(self) -> Timestamp:
        return Timestamp(self.versions[-1][0])

    def at(self, ts: int) -> tuple[int, ...]:
        return next(accounts for version, accounts in reversed(self.versions) if version <= ts)

    def answer(self, path: str, args: bytes, ts: int) -> str:
        accounts = self.at(ts)
        if path == "m.js:all":
            return json.dumps(list(accounts))
        return json.dumps(accounts[json.loads(args)["account"]])

    def move(self, key: tuple[str, int], args: bytes, gap: int) -> int:
        if key in self.done:
            return self.done[key]
        move = json.loads(args)
        accounts = list(self.versions[-1][1])
        accounts[move["from"]] -= move["amount"]
        accounts[move["to"]] += move["amount"]
        ts = self.versions[-1][0] + gap
        self.versions.append((ts, tuple(accounts)))
        self.done[key] = ts
        self.order.append(key)
        return ts


class Socket:
    """One socket: a session, frames under way in both directions, work under way."""

    def __init__(self, store: Store, takes_chunks: bool) -> None:
        limits = dataclasses.replace(Limits(), chunk_bytes=200)
        self.session = Session(limits, store.latest_ts, 0.0, takes_chunks=takes_chunks)
        self.up: deque[bytes] = deque()
        self.down: deque[bytes | Close] = deque()
        self.work: list[Work] = []
        self.committed: dict[int, int] = {}  # request → ts, response not yet given
        self.watched: dict[int, OpenQuery] = {}
        self.shown: dict[int, str] = {}  # armed watches and the answer they stand for
        self.client: Client | None = None  # None once the client has given it up
        self.is_alive = True  # the server has not noticed yet


class Client:
    def __init__(self, session_id: str) -> None:
        self.state = ClientState(session_id)
        self.session_id = session_id
        self.socket: Socket | None = None
        self.live: list[int] = []
        self.questions: dict[int, tuple[str, bytes]] = {}
        self.moves: list[int] = []
        self.ended: dict[int, Any] = {}


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = Store()
        self.clients = [
            Client(f"{n:08x}-0000-4000-8000-{seed & 0xFFFFFFFFFFFF:012x}") for n in range(2)
        ]
        self.sockets: list[Socket] = []
        self.has_faults = True
        self.now_s = 0.0
        self.refused = 0
        self.cuts = 0
        self.checked = 0

    # The client's side.

    def use(self, client: Client) -> None:
        chance = self.random.random()
        state = client.state
        if chance < 0.3 and len(client.live) < 6:
            account = self.random.randrange(ACCOUNTS)
            args = json.dumps({"account": account}).encode()
            path, args = self.random.choice([("m:one", args), ("m", b"{}")])
            path = "m:all" if path == "m" else path
            query_id = state.subscribe(path, args)
            client.live.append(query_id)
            client.questions[query_id] = (path.replace(":", ".js:"), args)
        elif chance < 0.45 and client.live:
            state.unsubscribe(client.live.pop(self.random.randrange(len(client.live))))
        elif chance < 0.55:
            state.act("m:a", b"{}")
        elif chance < 0.62:
            state.authenticate(self.random.choice(["User", "None"]), "token")
        elif chance < 0.7:
            client.moves.append(-1 - state.mutate("m:fail", b"{}"))
        else:
            source, target = self.random.sample(range(ACCOUNTS), 2)
            args = json.dumps({"from": source, "to": target, "amount": 1}).encode()
            client.moves.append(state.mutate("m:move", args))
        self.carry(client)

    def carry(self, client: Client) -> None:
        if client.socket is not None:
            client.socket.up.extend(client.state.take_outgoing())

    def open(self, client: Client) -> None:
        socket = client.socket = Socket(self.store, self.random.random() < 0.5)
        socket.client = client
        self.sockets.append(socket)
        client.state.open(int(self.now_s * 1000))
        self.carry(client)

    def cut(self, client: Client) -> None:
        socket = client.socket
        assert socket is not None
        self.cuts += 1
        socket.client = client.socket = None
        socket.down.clear()
        if self.random.random() < 0.5:
            for _ in range(self.random.randrange(len(socket.up) + 1)):
                socket.up.pop()
        self.note(client, client.state.lose("cut"))

    def hear(self, client: Client) -> None:
        socket = client.socket
        assert socket is not None
        frame = socket.down.popleft()
        if isinstance(frame, Close):
            self.refused += 1
            self.cut(client)
            return
        before = client.state.ts
        self.note(client, client.state.receive(frame))
        if client.state.ts != before:
            self.compare(client)

    def note(self, client: Client, events: list[ClientEvent]) -> None:
        for event in events:
            if isinstance(event, CallEnded):
                assert event.request_id not in client.ended, "ended twice"
                client.ended[event.request_id] = event.response
                response = event.response
                if isinstance(response, MutationResponse) and response.ts is not None:
                    assert response.ts <= client.state.ts
                    assert self.store.done[client.session_id, event.request_id] == response.ts

    def compare(self, client: Client) -> None:
        """Every result the client holds is the model's at the client's timestamp."""
        state = client.state
        if not state._version.query_set:
            return  # what it holds is of the socket before
        for query_id in client.live:
            result = state.result(query_id)
            if result is not None:
                assert isinstance(result, QueryUpdated)
                path, args = client.questions[query_id]
                expected = self.store.answer(path, args, state.ts)
                assert json.loads(result.value) == json.loads(expected)
                self.checked += 1
                if path == "m.js:all":
                    assert sum(json.loads(result.value)) == TOTAL

    # The server's side.

    def take(self, socket: Socket) -> None:
        frame = socket.up.popleft()
        message = decode_client(frame)
        socket.session.receive(message, int(self.now_s * 1e9), self.now_s)
        socket.session.check()

    def begin(self, socket: Socket) -> None:
        work = socket.session.next_work(int(self.now_s * 1e9))
        socket.session.check()
        if work is None:
            return
        socket.work.append(work)
        if isinstance(work, ComputeTransition):
            for opening in work.opened:
                socket.watched[opening.query_id] = opening
                socket.shown.pop(opening.query_id, None)
            for query_id in work.closed:
                socket.watched.pop(query_id, None)
                socket.shown.pop(query_id, None)

    def end(self, socket: Socket) -> None:
        work = self.random.choice(socket.work)
        result: object
        match work:
            case RunMutation() if work.path.endswith("move"):
                assert work.session_id is not None
                if work.request_id not in socket.committed:
                    key = (work.session_id, work.request_id)
                    gap = self.random.choice([1, 1, 5])
                    socket.committed[work.request_id] = self.store.move(key, work.args, gap)
                    self.publish()
                    if self.random.random() < 0.5:
                        return  # durable, and not yet told
                ts = socket.committed.pop(work.request_id)
                result = MutationResponse(work.request_id, True, b"null", ts)
            case RunMutation():
                result = MutationResponse(work.request_id, False, "failed", None, (), b"1.0")
            case RunAction():
                result = ActionResponse(work.request_id, True, b"null")
            case Verify():
                result = Verified(socket.session._caller)
            case ComputeTransition():
                if self.has_faults and self.random.random() < 0.1:
                    result = OutOfRetention("too old")
                else:
                    result = self.results(socket, work)
        socket.work.remove(work)
        socket.session.complete(work, result, int(self.now_s * 1e9))
        socket.session.check()

    def results(self, socket: Socket, work: ComputeTransition) -> dict[int, LiveResult]:
        results = {}
        for query_id in work.reread:
            opening = socket.watched.get(query_id)
            if opening is None:
                continue  # the session has ended
            value = self.store.answer(opening.path, opening.args, work.ts)
            body = f'"value":{value},"logLines":[],"journal":null}}'
            results[query_id] = LiveResult(body.encode(), False, value.encode(), None)
            socket.shown[query_id] = value
        self.publish()
        return results

    def publish(self) -> None:
        """Tell armed watches, once, that what they stand for has changed."""
        for socket in self.sockets:
            for query_id, value in list(socket.shown.items()):
                opening = socket.watched[query_id]
                now = self.store.answer(opening.path, opening.args, self.store.latest_ts())
                if now != value or (self.has_faults and self.random.random() < 0.05):
                    del socket.shown[query_id]
                    socket.session.invalidate(query_id)

    def send(self, socket: Socket) -> None:
        frames = socket.session.take_outgoing(self.now_s)
        if socket.client is not None:
            socket.down.extend(frames)

    def lose(self, socket: Socket) -> None:
        socket.session.disconnect()
        socket.session.check()
        socket.is_alive = False
        socket.watched.clear()
        socket.shown.clear()

    # Time.

    def choices(self) -> list[tuple[Any, ...]]:
        choices: list[tuple[Any, ...]] = []
        for client in self.clients:
            if self.has_faults:
                choices.append((self.use, client))
            if client.socket is None:
                choices.append((self.open, client))
            elif client.socket.down:
                choices += [(self.hear, client)] * 3
            if self.has_faults and client.socket is not None and self.random.random() < 0.05:
                choices.append((self.cut, client))
        for socket in self.sockets:
            if socket.is_alive and socket.up:
                choices += [(self.take, socket)] * 3
            if socket.is_alive and socket.session.has_work:
                choices += [(self.begin, socket)] * 3
            if socket.work:
                choices += [(self.end, socket)] * 3
            if socket.is_alive:
                choices.append((self.send, socket))
                choices.append((socket.session.drained,))
                choices.append((socket.session.resume,))
                if socket.client is None and not socket.up:
                    choices.append((self.lose, socket))
        return choices

    def step(self) -> None:
        self.now_s += 0.01
        action, *subject = self.random.choice(self.choices())
        action(*subject)
        self.sockets = [s for s in self.sockets if s.is_alive or s.work]

    def is_quiet(self) -> bool:
        return all(c.socket is not None and c.state.is_settled for c in self.clients) and all(
            s.client is not None
            and not (s.up or s.down or s.work)
            and not (s.session._is_due or s.session._outgoing)
            for s in self.sockets
        )


def check_the_end(world: World) -> None:
    store = world.store
    assert len(set(store.order)) == len(store.order)
    for client in world.clients:
        moves = [request_id for request_id in client.moves if request_id >= 0]
        applied = [request for session, request in store.order if session == client.session_id]
        assert applied == moves, "lost, doubled or reordered"
        for request_id in moves:
            response = client.ended[request_id]
            assert isinstance(response, MutationResponse)
            assert response.success
        for request_id in set(client.moves) - set(moves):
            assert client.ended[-1 - request_id].error_data == b"1.0"
        for query_id in client.live:
            path, args = client.questions[query_id]
            result = client.state.result(query_id)
            assert isinstance(result, QueryUpdated)
            expected = store.answer(path, args, store.latest_ts())
            assert json.loads(result.value) == json.loads(expected)


@pytest.mark.parametrize("seed", range(30))
def test_client_and_server_agree_whatever_the_network_does(seed: int):
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.has_faults = False
    for _ in range(20 * STEPS):
        if world.is_quiet():
            break
        world.step()
    assert world.is_quiet()
    check_the_end(world)
    # The run was worth its name.
    assert world.cuts > 3
    assert world.checked > 100
    assert len(world.store.order) > 20
    assert world.refused == 0  # neither side ever broke the protocol
