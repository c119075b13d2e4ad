"""Conversations of the real clients, recorded on the wire and replayed from both ends.

`frames/` holds what unmodified clients (npm convex 1.48 on Node, PyPI convex 0.8.1) said to a
running server of ours and what they accepted as answers, one frame per line. The client frames are
facts; the server frames are answers these clients were seen to understand. Times, ids and cursors
differ between runs, so each replay takes them from the recording.

Replayed   at the session: client frames go in, and with the recorded results the same answers have
           to come out, in the same order.
           at our client: server frames go in, and it has to say what the npm client said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import Caller
from reactive_store.client.state import ClientState
from reactive_store.errors import Unauthenticated
from reactive_store.functions.live_queries import LiveResult
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.sync.messages import (
    ActionResponse,
    AuthError,
    Close,
    Connect,
    MutationResponse,
    QueryFailed,
    QueryUpdated,
    ServerMessage,
    Transition,
)
from reactive_store.sync.protocol import (
    decode_client,
    decode_server,
    encode_body,
    encode_client,
    encode_server,
)
from reactive_store.sync.session import (
    ComputeTransition,
    RunAction,
    RunMutation,
    Session,
    Verified,
    Verify,
    Work,
)

FRAMES = Path(__file__).parent / "frames"
NAMES = sorted(path.stem for path in FRAMES.glob("*.json"))


def recording(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((FRAMES / f"{name}.json").read_text("utf-8"))
    return loaded


def sockets(name: str) -> list[list[dict[str, Any]]]:
    """The frames of each socket, in order."""
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in recording(name):
        found.setdefault(entry["socket"], []).append(entry)
    return [found[number] for number in sorted(found)]


def frames(name: str, side: str) -> Iterator[dict[str, Any]]:
    return (entry["frame"] for entry in recording(name) if entry.get("from") == side)


def test_there_are_recordings_of_both_clients():
    assert {name.split("_")[0] for name in NAMES} == {"npm", "pypi"}


@pytest.mark.parametrize("name", NAMES)
def test_recorded_client_frames_are_understood_and_written_back(name: str):
    for frame in frames(name, "client"):
        message = decode_client(json.dumps(frame))
        again = json.loads(encode_client(message))
        # Convex's clients write an absent journal either way.
        for change in frame.get("modifications", ()):
            if change.get("journal", "") is None:
                del change["journal"]
        assert again == frame


@pytest.mark.parametrize("name", NAMES)
def test_recorded_server_frames_are_written_exactly_so(name: str):
    for frame in frames(name, "server"):
        assert json.loads(encode_server(decode_server(json.dumps(frame)))) == frame


def test_npm_opens_the_socket_under_its_version_and_pypi_names_itself():
    for name in NAMES:
        for entries in sockets(name):
            opening = entries[0]
            if name.startswith("npm"):
                assert (opening["path"], opening["convexClient"]) == ("/api/1.48.0/sync", None)
            else:
                assert (opening["path"], opening["convexClient"]) == ("/api/sync", "python-0.8.1")


class Replay:
    """A session that is given the recorded results when their turn has come."""

    def __init__(self) -> None:
        self.ts = 2**62  # the clients' past is never our future
        self.now_ns = 0
        self.session = Session(Limits(), lambda: Timestamp(self.ts), 0.0)
        self.work: list[Work] = []
        self.held: dict[int, LiveResult] = {}

    def take(self, frame: dict[str, Any], server_now_ns: int) -> None:
        self.now_ns = server_now_ns
        self.session.receive(decode_client(json.dumps(frame)), server_now_ns, 0.0)
        self.session.check()

    def answer(self, expected: ServerMessage) -> list[bytes | Close]:
        """Let the session do what leads to `expected`."""
        match expected:
            case Transition():
                self.transition(expected)
            case MutationResponse():
                self.finish(RunMutation, expected.request_id, expected)
            case ActionResponse():
                self.finish(RunAction, expected.request_id, expected)
            case AuthError():
                verify = self.begin(Verify)
                self.session.complete(verify, Unauthenticated(expected.error), self.now_ns)
        self.session.check()
        return list(self.session.take_outgoing(0.0))

    def begin(self, kind: type) -> Work:
        while True:
            for work in self.work:
                if type(work) is kind:
                    self.work.remove(work)
                    return work
            begun = self.session.next_work(self.now_ns)
            assert begun is not None, f"nothing leads to a {kind.__name__}"
            self.work.append(begun)

    def finish(self, kind: type, request_id: int, response: object) -> None:
        work = self.begin(kind)
        assert getattr(work, "request_id", None) == request_id
        self.session.complete(work, response, self.now_ns)

    def transition(self, expected: Transition) -> None:
        if expected.end.identity > self.session._identity:
            self.session.complete(
                self.begin(Verify), Verified(Caller(None, is_admin=True)), self.now_ns
            )
        self.ts = expected.end.ts
        self.now_ns = expected.server_ts_ns or 0
        told = {
            change.query_id: LiveResult(
                encode_body(change),
                isinstance(change, QueryFailed),
                encode_body(change),
                change.journal,
            )
            for change in expected.modifications
            if isinstance(change, QueryUpdated | QueryFailed)
        }
        for query_id in told:
            self.session.invalidate(query_id)
        self.held.update(told)
        work = self.begin(ComputeTransition)
        assert isinstance(work, ComputeTransition)
        results = {query_id: self.held[query_id] for query_id in work.reread}
        self.session.complete(work, results, self.now_ns)
        self.session.drained()


def server_clock(entries: list[dict[str, Any]]) -> int:
    """The server's clock at Connect, as the recorded skew tells it."""
    frames = [entry["frame"] for entry in entries if "frame" in entry]
    told = [frame["clientClockSkew"] for frame in frames if "clientClockSkew" in frame]
    connect = frames[0]
    skew = told[0] if told else 0
    return int(connect["clientTs"] - skew) * 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_session_gives_the_recorded_answers(name: str):
    for entries in sockets(name):
        replay = Replay()
        said: list[bytes | Close] = []
        for entry in entries[1:]:
            if "close" in entry:
                break
            frame = entry["frame"]
            if entry["from"] == "client":
                replay.take(frame, server_clock(entries))
            else:
                said += replay.answer(decode_server(json.dumps(frame)))
                assert isinstance(said[0], bytes)
                assert json.loads(said.pop(0)) == frame
        assert said in ([], [Close(1000)])


def only_npm() -> list[str]:
    # Refused tokens are fetched anew by the npm client, which our state leaves to its driver.
    return [name for name in NAMES if name.startswith("npm") and "refused" not in name]


@pytest.mark.parametrize("name", only_npm())
def test_our_client_says_what_npm_said(name: str):
    entries = sockets(name)
    state = ClientState(entries[0][1]["frame"]["sessionId"])
    for number, socket in enumerate(entries):
        spoken = [entry["frame"] for entry in socket if entry.get("from") == "client"]
        # npm tells its first wishes with its first query set, ours are made before the socket.
        opening = 1 + next(n for n, f in enumerate(spoken) if f["type"] == "ModifyQuerySet")
        if number:
            state.lose(spoken[0]["lastCloseReason"])
            calls = [frame for frame in spoken if "requestId" in frame]
            lost = [frame for frame in calls if frame["requestId"] not in state.pending_calls()]
        else:
            lost = spoken[:opening]
        for frame in lost:  # what was wished for while no socket heard it
            wish(state, frame)
        state.open(spoken[0]["clientTs"])
        said = [decode_client(frame) for frame in state.take_outgoing()]
        for entry in socket:
            if entry.get("from") == "server":
                state.receive(json.dumps(entry["frame"]))
            elif not number and entry.get("frame") in spoken[opening:]:
                wish(state, entry["frame"])
                said += [decode_client(frame) for frame in state.take_outgoing()]
        assert said == [decode_client(json.dumps(frame)) for frame in spoken]
    assert state.is_settled


def wish(state: ClientState, frame: dict[str, Any]) -> None:
    """Make the client want what the recorded client said it wanted."""
    match frame["type"]:
        case "ModifyQuerySet":
            for change in frame["modifications"]:
                if change["type"] == "Add":
                    args = json.dumps(change["args"][0]).encode()
                    assert state.subscribe(change["udfPath"], args) == change["queryId"]
                else:
                    state.unsubscribe(change["queryId"])
        case "Mutation":
            state.mutate(frame["udfPath"], json.dumps(frame["args"][0]).encode())
        case "Action":
            state.act(frame["udfPath"], json.dumps(frame["args"][0]).encode())
        case "Authenticate":
            state.authenticate(frame["tokenType"], frame["value"], frame.get("impersonating"))


def test_a_reconnecting_npm_client_brings_its_session_its_time_and_its_journal():
    """C70."""
    first, second = sockets("npm_reconnect")
    before = decode_client(json.dumps(first[1]["frame"]))
    after = decode_client(json.dumps(second[1]["frame"]))
    assert isinstance(before, Connect)
    assert isinstance(after, Connect)
    assert after.session_id == before.session_id
    assert after.connection_count == before.connection_count + 1
    last = [entry["frame"] for entry in first if entry.get("from") == "server"][-1]
    told = decode_server(json.dumps(last))
    assert isinstance(told, Transition)
    assert after.max_observed_ts == told.end.ts
    assert second[2]["frame"]["modifications"][0]["journal"]


def test_a_reconnecting_pypi_client_is_another_session_that_asks_again():
    first, second, *_ = sockets("pypi_reconnect")
    assert first[1]["frame"]["sessionId"] != second[1]["frame"]["sessionId"]
