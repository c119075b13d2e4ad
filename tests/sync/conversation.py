"""A session with its driver played by hand; what several test modules of sessions share."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from reactive_store.auth.identity import Caller, Identity
from reactive_store.functions.live_queries import LiveResult
from reactive_store.limits import Limits
from reactive_store.sync.messages import (
    AddQuery,
    Arguments,
    Authenticate,
    ClientMessage,
    Close,
    Connect,
    ModifyQuerySet,
    Mutation,
    RemoveQuery,
    ServerMessage,
    Transition,
)
from reactive_store.sync.protocol import decode_server
from reactive_store.sync.session import (
    ComputeTransition,
    RunAction,
    RunMutation,
    Session,
    Verified,
    Verify,
    Work,
)

__all__ = [
    "ADMIN", "ALICE", "NO_ARGS", "SECOND_NS", "SESSION", "Conversation", "add", "become_admin",
    "connected", "failed", "mutate", "query_set", "updated",
]  # fmt: skip

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
SECOND_NS = 1_000_000_000
NO_ARGS = Arguments(b"{}")
ADMIN = Caller(None, is_admin=True)
ALICE = Caller(Identity({"tokenIdentifier": "i|alice", "issuer": "i", "subject": "alice"}))


def updated(value: Any, *, journal: str | None = None, line: str = "") -> LiveResult:
    text = json.dumps(value)
    lines = json.dumps([line] if line else [])
    body = f'"value":{text},"logLines":{lines},"journal":{json.dumps(journal)}}}'
    return LiveResult(body.encode(), False, (text + lines).encode(), journal)


def failed(text: str) -> LiveResult:
    body = f'"errorMessage":{json.dumps(text)},"logLines":[],"journal":null}}'
    return LiveResult(body.encode(), True, text.encode(), None)


class Conversation:
    """A session, a clock and a store whose newest timestamp is `ts`."""

    def __init__(self, *, takes_chunks: bool = False, **limits: Any) -> None:
        self.ts = 100
        self.now_s = 0.0
        self.limits = dataclasses.replace(Limits(), **limits)
        self.session = Session(self.limits, lambda: self.ts, self.now_s, takes_chunks=takes_chunks)
        self.closed: Close | None = None
        self.keeps_up = True  # the client reads what it is sent

    @property
    def now_ns(self) -> int:
        return int(self.now_s * SECOND_NS)

    def say(self, *messages: ClientMessage) -> None:
        for message in messages:
            self.session.receive(message, self.now_ns, self.now_s)
            self.session.check()

    def work(self) -> Work | None:
        work = self.session.next_work(self.now_ns)
        self.session.check()
        return work

    def no_work(self) -> None:
        assert not self.session.has_work
        assert self.work() is None

    def transition(self) -> ComputeTransition:
        assert self.session.has_work
        work = self.work()
        assert isinstance(work, ComputeTransition)
        return work

    def mutation(self) -> RunMutation:
        work = self.work()
        assert isinstance(work, RunMutation)
        return work

    def action(self) -> RunAction:
        work = self.work()
        assert isinstance(work, RunAction)
        return work

    def verify(self) -> Verify:
        work = self.work()
        assert isinstance(work, Verify)
        return work

    def done(self, work: Work, result: object) -> None:
        self.session.complete(work, result, self.now_ns)
        self.session.check()

    def heard(self) -> list[ServerMessage]:
        """What the client hears; a Close is kept aside."""
        heard: list[ServerMessage] = []
        for item in self.session.take_outgoing(self.now_s):
            if isinstance(item, Close):
                assert self.closed is None
                self.closed = item
            else:
                assert self.closed is None, "said something after the end"
                heard.append(decode_server(item))
        if self.keeps_up:
            self.session.drained()
        return heard

    def settle(self, *results: tuple[int, LiveResult]) -> Transition:
        """Complete the Transition that is due and give it as the client hears it."""
        work = self.transition()
        given = dict(results)
        assert set(work.reread) == set(given)
        self.done(work, given)
        heard = self.heard()
        assert len(heard) == 1
        assert isinstance(heard[0], Transition)
        return heard[0]

    def ends_with(self, code: int, reason: str = "") -> list[ServerMessage]:
        heard = self.heard()
        assert self.closed == Close(code, reason)
        assert self.session.is_closed
        self.no_work()
        self.session.check()
        return heard


def add(query_id: int, path: str = "m:q", args: Arguments = NO_ARGS, **more: Any) -> AddQuery:
    return AddQuery(query_id, path, args, **more)


def query_set(base: int, *changes: AddQuery | RemoveQuery) -> ModifyQuerySet:
    return ModifyQuerySet(base, base + 1, changes)


def mutate(request_id: int, path: str = "m:x", **more: Any) -> Mutation:
    return Mutation(request_id, path, NO_ARGS, **more)


def connected(**more: Any) -> Conversation:
    talk = Conversation(**more)
    talk.say(Connect(SESSION, 0))
    return talk


def become_admin(talk: Conversation) -> None:
    talk.say(Authenticate(0, "Admin", "key"))
    talk.done(talk.verify(), Verified(ADMIN))
