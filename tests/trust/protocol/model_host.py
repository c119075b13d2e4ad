"""A server of one page: the product's sessions over a model of a database, in virtual time.

Only `Session` and the messages are the product's. What a worker, a runner, live queries and a
database do for it happens here in the simplest way, in every order that they might.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import orjson

from reactive_store.auth.identity import Caller, Identity
from reactive_store.errors import OutOfRetention, Overloaded, ProtocolError, Unauthenticated
from reactive_store.functions.live_queries import LiveResult
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.sync.frames import Moment
from reactive_store.sync.messages import (
    ActionResponse,
    Close,
    MutationResponse,
)
from reactive_store.sync.protocol import decode_client
from reactive_store.sync.session import (
    ComputeTransition,
    RunAction,
    RunMutation,
    Session,
    Verified,
    Verify,
    Work,
)
from tests.trust.protocol.network import Clock, Link
from tests.trust.protocol.plans import Plan
from tests.trust.protocol.questions import (
    UNPINNED,
    History,
    State,
    answer,
    effects_of,
    page_end,
)

__all__ = ["LIMITS", "ModelHost", "caller_of"]

LIMITS = dataclasses.replace(Limits(), chunk_bytes=300, retention_seconds=100_000.0)


def caller_of(name: str) -> Caller:
    """The user of a token."""
    return Caller(Identity.from_attributes({"issuer": "https://users.test", "subject": name}))


def who_is(caller: Caller) -> str | None:
    return None if caller.identity is None else caller.identity.subject


class ModelHost:
    """The database and its sessions; a restart forgets the sessions and what was not durable."""

    def __init__(self, plan: Plan, clock: Clock, history: History) -> None:
        self.plan = plan
        self.clock = clock
        self.history = history
        self.is_up = True
        self.has_faults = True
        self.life = 0  # restarts so far
        self.peers: dict[ModelPeer, None] = {}
        self.chance = plan.chance("host", 0)
        # Accepted, durable or not. What is not durable yet is in `waiting`, in order.
        self.newest: State = State()
        self.newest_ts = clock.now_ns()
        self.durable_at_ms = 0.0
        self.waiting: list[tuple[int, State, tuple[Any, ...], tuple[str, int] | None]] = []
        # (session, request) → ts and count, of durable mutations and of accepted ones.
        self.records: dict[tuple[str, int], tuple[int, int]] = {}
        self.durable_records: dict[tuple[str, int], tuple[int, int]] = {}
        history.append(self.newest_ts, self.newest, ())

    def connect(self, link: Link, number: int, *, takes_chunks: bool) -> None:
        link.peer = peer = ModelPeer(self, link, number, takes_chunks=takes_chunks)
        self.peers[peer] = None

    def crash(self) -> None:
        """Everything in memory is gone."""
        self.is_up = False
        self.life += 1
        self.chance = self.plan.chance("host", self.life)
        self.peers.clear()
        self.waiting.clear()
        self.newest = self.history.states[-1]
        self.newest_ts = self.history.times[-1]
        self.records = dict(self.durable_records)

    def start(self) -> None:
        self.is_up = True

    def check_quiet(self) -> None:
        """Nothing waits in any session."""
        for peer in self.peers:
            peer.check_quiet()

    def later(self, ms: float, act: Any) -> None:
        """Do something unless the process dies before."""
        life = self.life

        def when_alive() -> None:
            if self.life == life:
                act()

        self.clock.after(ms, when_alive)

    # The database.

    def latest_ts(self) -> Timestamp:
        return Timestamp(self.history.times[-1])

    def mutate(
        self, path: str, args: dict[str, Any], who: str | None, key: tuple[str, int] | None
    ) -> tuple[int, int]:
        """Accept a mutation, or find that it was accepted before: its time and its result."""
        if key is not None and key in self.records:
            return self.records[key]
        effects = effects_of(path, args, who)
        self.newest = self.newest.with_effects(effects)
        self.newest_ts = max(self.newest_ts + 1, self.clock.now_ns())
        done = self.newest_ts, self.newest.counts[args.get("name") or args["source"]]
        if key is not None:
            self.records[key] = done
        self.waiting.append((self.newest_ts, self.newest, effects, key))
        delay = self.chance.choice((0.1, 0.5, 5.0))
        self.durable_at_ms = max(self.durable_at_ms, self.clock.now_ms + delay)
        self.later(self.durable_at_ms - self.clock.now_ms, self._make_durable)
        return done

    def _make_durable(self) -> None:
        if not self.waiting:
            return
        ts, state, effects, key = self.waiting.pop(0)
        self.history.append(ts, state, effects)
        if key is not None:
            self.durable_records[key] = self.records[key]
        for peer in list(self.peers):
            peer.publish()

    def when_durable(self, ts: int, act: Any) -> None:
        """Do something once a commit is durable: at once, or soon after it is."""
        if ts <= self.latest_ts():
            self.later(self.chance.choice((0.0, 0.1, 1.0)), act)
        else:
            self.later(
                max(0.01, self.durable_at_ms - self.clock.now_ms),
                partial(self.when_durable, ts, act),
            )


class _Watched:
    """One open query of a session."""

    __slots__ = ("args", "caller", "end", "fault", "path", "shown")

    def __init__(self, path: str, args: Any, caller: Caller, journal: str | None) -> None:
        self.path = path.replace(".js:", ":")
        self.args = args
        self.caller = caller
        self.end: object = UNPINNED if journal is None else orjson.loads(journal)["end"]
        self.shown: object = None  # the answer it stands for; None: nothing to report


class ModelPeer:
    """What a worker does for one session."""

    def __init__(self, host: ModelHost, link: Link, number: int, *, takes_chunks: bool) -> None:
        self.host = host
        self.link = link
        self.chance = host.plan.chance("peer", number)
        self.session = Session(
            LIMITS, host.latest_ts, host.clock.now_s(), takes_chunks=takes_chunks
        )
        self.watched: dict[int, _Watched] = {}
        self.is_awake = False

    # As the server calls a worker.

    def receive(self, text: bytes) -> None:
        try:
            message = decode_client(text)
        except ProtocolError as error:
            self.session.fail(error)
        else:
            self.session.receive(message, self.host.clock.now_ns(), self.host.clock.now_s())
        self._settle()

    def on_pong(self) -> None:
        self.session.hear(self.host.clock.now_s())

    def on_writable(self) -> None:
        self.session.drained()
        self._settle()

    def on_tick(self) -> None:
        self.session.tick(self.host.clock.now_s())
        self._settle()

    def on_disconnect(self) -> None:
        self.session.disconnect()
        self.watched.clear()
        self.host.peers.pop(self, None)

    # Its work.

    def publish(self) -> None:
        """A commit is durable: tell the session, once, of each answer that has ended."""
        state = self.host.history.states[-1]
        for query_id, query in self.watched.items():
            if query.shown is not None:
                now = answer(query.path, query.args, who_is(query.caller), state, query.end)
                if now != query.shown or (self.host.has_faults and self.chance.random() < 0.03):
                    query.shown = None
                    self.session.invalidate(query_id)
        if self.session.has_work:
            self._wake()

    def _wake(self) -> None:
        if not self.is_awake:
            self.is_awake = True
            self.host.later(self.chance.choice((0.0, 0.0, 0.2, 3.0)), self._advance)

    def _advance(self) -> None:
        self.is_awake = False
        session, now_ns = self.session, self.host.clock.now_ns
        push = session.begin_push(now_ns()) if self.chance.random() < 0.7 else None
        if push is not None:
            self._begin(push, is_push=True)
        while (work := session.next_work(now_ns())) is not None:
            session.check()
            self._begin(work)
        self._settle()

    def _settle(self) -> None:
        self.session.check()
        outgoing = self.session.take_outgoing(self.host.clock.now_s())
        for frame in outgoing:
            if isinstance(frame, Close):
                self.link.close(frame.code, frame.reason)
                self.watched.clear()
            else:
                self.link.send(frame)
        if outgoing and self.link.is_writable:
            self.session.drained()
        if self.session.has_work:
            self._wake()

    def _begin(self, work: Work, *, is_push: bool = False) -> None:
        delay = self.chance.choice((0.0, 0.1, 0.4, 2.0, 20.0))
        match work:
            case ComputeTransition():
                for opening in work.opened:
                    self.watched[opening.query_id] = _Watched(
                        opening.path, orjson.loads(opening.args), work.caller, opening.journal
                    )
                for query_id in work.closed:
                    self.watched.pop(query_id, None)
                self.host.later(delay, partial(self._transition, work, is_push))
            case RunMutation():
                self.host.later(delay, partial(self._mutation, work))
            case RunAction():
                self.host.later(delay * 10, partial(self._action, work))
            case Verify():
                self.host.later(delay, partial(self._verify, work))

    def _finish(self, work: Work, result: object) -> None:
        self.session.complete(work, result, self.host.clock.now_ns())
        self._settle()

    def _transition(self, work: ComputeTransition, is_push: bool) -> None:
        if self.host.has_faults and self.chance.random() < 0.04:
            self.host.later(500, self._resume)
            self._finish(work, OutOfRetention("too old"))
            return
        state = self.host.history.at(work.ts)
        results = {}
        for query_id in work.reread:
            query = self.watched.get(query_id)
            if query is None:
                break  # the session has ended
            results[query_id] = self._result(query, state)
            query.shown = answer(query.path, query.args, who_is(query.caller), state, query.end)
        if work.ts < self.host.latest_ts():
            self.publish()
        if not is_push or len(results) != 1:
            self._finish(work, results)
            return
        moment = Moment(self.host.clock.now_ns(), self.host.clock.now_s())
        frame = self.session.push(work, results[work.reread[0]], moment)
        if frame is not None:
            self.link.send_shared(frame)
            if self.link.is_writable:
                self.session.drained()
        self._settle()

    def _resume(self) -> None:
        self.session.resume()
        self._settle()

    def _result(self, query: _Watched, state: State) -> LiveResult:
        journal = None
        if query.path == "app:page":
            if query.end is UNPINNED:
                query.end = page_end(state)
            journal = orjson.dumps({"end": query.end}).decode()
        kind, value = answer(query.path, query.args, who_is(query.caller), state, query.end)
        said = orjson.dumps(value)
        if kind == "failed":
            head = b'"errorMessage":"odd","errorData":' + said
        else:
            head = b'"value":' + said
        body = head + b',"logLines":[],"journal":' + orjson.dumps(journal) + b"}"
        return LiveResult(body, kind == "failed", head, journal)

    def _mutation(self, work: RunMutation) -> None:
        args = orjson.loads(work.args)
        path = work.path.replace(".js:", ":")
        if path == "app:refuse":
            data = orjson.dumps({"refused": args["token"]})
            self._finish(work, MutationResponse(work.request_id, False, "no", None, (), data))
            return
        key = None if work.session_id is None else (work.session_id, work.request_id)
        ts, count = self.host.mutate(path, args, who_is(work.caller), key)
        response = MutationResponse(work.request_id, True, orjson.dumps(count), ts)
        self.host.when_durable(ts, partial(self._finish, work, response))

    def _action(self, work: RunAction) -> None:
        args = orjson.loads(work.args)
        ts, count = self.host.mutate("app:add", args, who_is(work.caller), None)
        response = ActionResponse(work.request_id, True, orjson.dumps(count))
        self.host.when_durable(ts, partial(self._finish, work, response))

    def _verify(self, work: Verify) -> None:
        kind, _, name = work.message.value.partition("-")
        if kind == "bad":
            self._finish(work, Unauthenticated("nobody knows you"))
        elif kind == "down" and self.host.has_faults:
            self._finish(work, Overloaded("the provider does not answer"))
        else:
            expires = self.host.clock.now_ns() + 300_000_000 if kind == "brief" else None
            self._finish(work, Verified(caller_of(name), expires))

    def check_quiet(self) -> None:
        """Nothing waits in the session."""
        held = self.session.statistics()
        busy = (held.pending_mutations, held.running_actions, held.waiting_messages)
        assert busy == (0, 0, 0), held
        assert held.queries == len(self.watched), held
