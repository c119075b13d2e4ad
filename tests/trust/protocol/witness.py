"""Judges one connection, frame by frame, at the moment the server says or hears it.

It knows the rules of the protocol and the history of the database, and neither the server's code
nor the client's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.trust.protocol.plain_client import ts_of
from tests.trust.protocol.questions import UNPINNED, History, Violation, answer, page_end

__all__ = ["Call", "Conversation", "Ledger"]

Json = dict[str, Any]


@dataclass(slots=True)
class Call:
    """A mutation or action, as its caller knows it."""

    client: int
    request_id: int
    kind: str
    path: str
    args: Json
    token: str
    whos: set[str | None] = field(default_factory=set)  # as whom it was ever heard
    sent: int = 0  # on how many connections it was heard
    outcome: str | None = None  # "done", "failed", "lost"


@dataclass(slots=True)
class Ledger:
    """What all connections of a run share."""

    history: History
    calls: dict[tuple[str, int], Call] = field(default_factory=dict)  # by session and request
    journal_ends: dict[str, str | None] = field(default_factory=dict)
    transitions: int = 0
    results: int = 0  # answers compared with the history
    answers: int = 0  # responses to calls


@dataclass(slots=True)
class _Query:
    path: str
    args: Json
    end: object  # where its page ends
    told: tuple[str, Any] | None = None


class Conversation:
    """One connection."""

    def __init__(self, ledger: Ledger, *, takes_chunks: bool) -> None:
        self.ledger = ledger
        self.takes_chunks = takes_chunks
        self.session: str | None = None
        self.asked = 0  # newest query set heard
        self.changes: list[tuple[int, Json]] = []  # version heard, modification; not yet answered
        self.queries: dict[int, _Query] = {}
        self.identities: list[tuple[str, str]] = [("None", "")]  # by identity version heard
        self.version = (0, 0, 0)
        self.observed = 0
        self.mutations: list[int] = []  # heard and not answered, in order
        self.actions: set[int] = set()
        self.awaits_transition: list[int] = []  # times of responses no transition has followed yet
        self.pieces: list[str] = []
        self.was_refused = False
        self.is_closed = False

    # What the server hears.

    def hears(self, message: Json) -> None:
        match message["type"]:
            case "Connect":
                self.session = message["sessionId"]
                if "maxObservedTimestamp" in message:
                    self.observed = ts_of(message["maxObservedTimestamp"])
            case "ModifyQuerySet":
                self.asked = message["newVersion"]
                self.changes += [(self.asked, change) for change in message["modifications"]]
            case "Authenticate":
                self.identities.append((message["tokenType"], message.get("value", "")))
            case "Mutation" | "Action" as kind:
                request_id = message["requestId"]
                if kind == "Mutation":
                    self.mutations.append(request_id)
                else:
                    self.actions.add(request_id)
                call = self._call(request_id)
                call.sent += 1
                call.whos.add(who_of(self.identities[-1]))

    def _call(self, request_id: int) -> Call:
        assert self.session is not None
        return self.ledger.calls[self.session, request_id]

    # What the server says.

    def says(self, message: Json) -> None:
        if self.is_closed:
            raise Violation(f"said after the last word: {message}")
        kind = message["type"]
        if kind == "TransitionChunk":
            self._piece(message)
            return
        if self.pieces and kind != "Ping":
            raise Violation(f"a {kind} between the pieces of a transition")
        match kind:
            case "Transition":
                self._transition(message)
            case "MutationResponse":
                self._mutation_response(message)
            case "ActionResponse":
                self._action_response(message)
            case "AuthError":
                self.was_refused = True
                heard = self.identities[self.version[1] + 1 :]  # later ones may be waiting
                is_bad = any(who_of(identity) == "refused" for identity in heard)
                if message["authUpdateAttempted"] and not is_bad:
                    raise Violation(f"a good token was refused: {message}")
                if message["authUpdateAttempted"] and message["baseVersion"] != self.version[1]:
                    raise Violation(f"the applied identity is {self.version[1]}: {message}")
            case "FatalError":
                raise Violation(f"no client was at fault, but: {message['error']}")

    def closes(self, code: int, reason: str) -> None:
        self.is_closed = True
        match code, reason:
            case 1000, "":
                is_explained = self.was_refused
            case 1000, "ClientDisconnected":
                is_explained = True  # the connection knows whether anybody could be heard
            case 1013, "TooManyConcurrentRequests":  # what a provider says that is down
                is_explained = any(token.startswith("down-") for _, token in self.identities)
            case _:
                is_explained = False
        if not is_explained:
            raise Violation(f"closed with {code} {reason}; nothing in the run explains it")

    def _piece(self, message: Json) -> None:
        if not self.takes_chunks:
            raise Violation("pieces for a client that takes none")
        if message["partNumber"] != len(self.pieces):
            raise Violation(f"piece {message['partNumber']} instead of {len(self.pieces)}")
        self.pieces.append(message["chunk"])
        if len(self.pieces) == message["totalParts"]:
            whole, self.pieces = orjson.loads("".join(self.pieces)), []
            self._transition(whole)

    def _transition(self, message: Json) -> None:
        start, end = (
            (v["querySet"], v["identity"], ts_of(v["ts"]))
            for v in (message["startVersion"], message["endVersion"])
        )
        self.ledger.transitions += 1
        if start != self.version:
            raise Violation(
                f"a transition starts at {start}, the one before ended at {self.version}"
            )
        if any(after < before for before, after in zip(start, end, strict=True)):
            raise Violation(f"versions go back: {start} to {end}")
        if end[0] > self.asked or end[1] >= len(self.identities):
            raise Violation(f"ends at {end}, nobody asked for more than {self.asked}")
        if end[2] > self.ledger.history.latest_ts:
            raise Violation(f"of {end[2]}, but durable is {self.ledger.history.latest_ts}")
        if end[2] < self.observed:
            raise Violation(f"of {end[2]}, but the client has seen {self.observed}")
        self.version = end
        self._apply(message["modifications"])
        self._compare()
        self.awaits_transition = [ts for ts in self.awaits_transition if ts > end[2]]

    def _apply(self, modifications: list[Json]) -> None:
        ids = [change["queryId"] for change in modifications]
        if ids != sorted(set(ids)):
            raise Violation(f"more than one word about a query, or out of order: {ids}")
        removed = {c["queryId"] for c in modifications if c["type"] == "QueryRemoved"}
        due: set[int] = set()
        while self.changes and self.changes[0][0] <= self.version[0]:
            _, change = self.changes.pop(0)
            query_id = change["queryId"]
            if change["type"] == "Add":
                end: object = UNPINNED
                if (journal := change.get("journal")) is not None:
                    end = self.ledger.journal_ends[journal]
                self.queries[query_id] = _Query(change["udfPath"], change["args"][0], end)
            else:
                del self.queries[query_id]
                due.add(query_id)
        if removed != due:
            raise Violation(f"told of removals {sorted(removed)}, asked for {sorted(due)}")
        for change in modifications:
            if change["type"] != "QueryRemoved":
                self._result(change)
        silent = [q for q, query in self.queries.items() if query.told is None]
        if silent:
            raise Violation(f"no result for queries {silent} at version {self.version}")

    def _result(self, change: Json) -> None:
        query = self.queries.get(change["queryId"])
        if query is None:
            raise Violation(f"a result for a query nobody has: {change}")
        if change["type"] == "QueryUpdated":
            told: tuple[str, Any] = "value", change["value"]
        elif "errorData" in change:
            told = "failed", change["errorData"]
        else:
            raise Violation(f"query {change['queryId']} failed by no doing of its own: {change}")
        if told == query.told:
            raise Violation(f"query {change['queryId']} is told again what it was told: {told}")
        query.told = told
        journal = change["journal"]
        if journal is not None:
            if query.end is UNPINNED:
                query.end = page_end(self.ledger.history.at(self.version[2]))
            known = self.ledger.journal_ends.setdefault(journal, query.end)  # type: ignore[arg-type]
            if known != query.end:
                raise Violation(f"one journal for pages that end at {known} and {query.end}")

    def _compare(self) -> None:
        """Every live query, mentioned or not, has the answer of this time and this identity."""
        state = self.ledger.history.at(self.version[2])
        who = who_of(self.identities[self.version[1]])
        for query_id, query in self.queries.items():
            self.ledger.results += 1
            expected = answer(query.path, query.args, who, state, query.end)
            if query.told != expected:
                raise Violation(
                    f"query {query_id} ({query.path} {query.args}) at {self.version} as {who}: "
                    f"told {query.told}, the database says {expected}"
                )

    def _mutation_response(self, message: Json) -> None:
        request_id = message["requestId"]
        if not self.mutations or self.mutations[0] != request_id:
            raise Violation(f"mutation {request_id} answered, due are {self.mutations}")
        del self.mutations[0]
        self.ledger.answers += 1
        call = self._call(request_id)
        if call.path == "app:refuse":
            if message["success"] or message["errorData"] != {"refused": call.token}:
                raise Violation(f"it was to be refused with data: {message}")
            self.awaits_transition.append(self.version[2])
            return
        if not message["success"]:
            raise Violation(f"mutation {call.args} failed: {message['result']}")
        mark = f"{call.token}-" if call.path == "app:move" else call.token
        ts, committed = ts_of(message["ts"]), self.ledger.history.commits.get(mark)
        if ts != committed:
            raise Violation(f"mutation {call.args} answered as of {ts}, durable: {committed}")
        name = call.args.get("name") or call.args["source"]
        count = self.ledger.history.at(ts).counts[name]
        if message["result"] != count:
            raise Violation(f"mutation {call.args} says {message['result']}, it was {count}")
        self.awaits_transition.append(ts)

    def _action_response(self, message: Json) -> None:
        request_id = message["requestId"]
        if request_id not in self.actions:
            raise Violation(f"action {request_id} answered, due are {self.actions}")
        self.actions.discard(request_id)
        self.ledger.answers += 1
        call = self._call(request_id)
        if not message["success"] or call.token not in self.ledger.history.commits:
            raise Violation(f"action {call.args} ended without its effect: {message}")
        self.awaits_transition.append(self.version[2])

    # At the end.

    def check_quiet(self) -> None:
        """Nothing is owed on this connection."""
        owed = {
            "query changes": self.changes,
            "mutations": self.mutations,
            "actions": self.actions,
            "transitions after responses": self.awaits_transition,
            "pieces": self.pieces,
        }
        for what, items in owed.items():
            if items:
                raise Violation(f"still owed at the end: {what} {items}")
        if self.version[0] != self.asked or self.version[1] != len(self.identities) - 1:
            raise Violation(f"rests at {self.version}, asked was {self.asked}")


def who_of(identity: tuple[str, str]) -> str | None:
    """The user behind an Authenticate, None for nobody."""
    kind, token = identity
    if kind == "None":
        return None
    name = token.partition("-")[2]
    return "refused" if token.startswith("bad-") else name
