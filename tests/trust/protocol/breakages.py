"""The protocol broken on purpose, and on which simulation it shows."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from reactive_store.client.state import CallEnded, ClientState
from reactive_store.engine.committer import Committer
from reactive_store.engine.subscriptions import Subscriptions
from reactive_store.functions.live_queries import LiveQueries
from reactive_store.persistence.contract import Commit
from reactive_store.sync import frames, session, worker
from reactive_store.sync.messages import ModifyQuerySet, MutationResponse, Version
from reactive_store.sync.session import ComputeTransition, RunMutation, Session
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES", "ON_THE_BACKEND"]

Patch = pytest.MonkeyPatch


# Sessions.


def _around_transitions(patch: Patch, change: Callable[..., tuple[Any, ...]]) -> None:
    """Change start, end and modifications of every transition on its way out."""
    encode, parts_of = session.encode_transition, frames.transition_parts

    def changed(start: Version, end: Version, told: Sequence[bytes], *rest: Any) -> bytes:
        return encode(*change(start, end, told), *rest)

    def changed_parts(start: Version, end: Version, told: Sequence[bytes], *rest: Any) -> Any:
        return parts_of(*change(start, end, told), *rest)

    patch.setattr(session, "encode_transition", changed)
    patch.setattr(frames, "transition_parts", changed_parts)


def _reuse_a_version(patch: Patch) -> None:
    _around_transitions(patch, lambda start, _end, told: (start, start, told))


def _keep_the_identity(patch: Patch) -> None:
    _around_transitions(
        patch,
        lambda start, end, told: (start._replace(identity=0), end._replace(identity=0), told),
    )


def _drop_removals_when_merging(patch: Patch) -> None:
    def change(start: Version, end: Version, told: Sequence[bytes]) -> tuple[Any, ...]:
        if end.query_set - start.query_set > 1:
            told = [change for change in told if b'"type":"QueryRemoved"' not in change]
        return start, end, told

    _around_transitions(patch, change)


def _answer_with_an_earlier_ts(patch: Patch) -> None:
    encode = session.encode_server

    def earlier(message: Any) -> bytes:
        if isinstance(message, MutationResponse) and message.ts is not None:
            message = dataclasses.replace(message, ts=message.ts - 1)
        return encode(message)

    patch.setattr(session, "encode_server", earlier)


def _date_when_told(patch: Patch) -> None:
    for name in ("complete", "push"):
        original = getattr(Session, name)

        def late(self: Session, work: Any, *rest: Any, original: Any = original) -> Any:
            if isinstance(work, ComputeTransition):
                work.ts = self._latest_ts()
            return original(self, work, *rest)

        patch.setattr(Session, name, late)


def _forget_a_query_after_reconnect(patch: Patch) -> None:
    receive = Session.receive

    def forgetful(self: Session, message: Any, *now: Any) -> None:
        is_first = isinstance(message, ModifyQuerySet) and message.base_version == 0
        if is_first and len(message.modifications) > 1:
            message = dataclasses.replace(message, modifications=message.modifications[:-1])
        receive(self, message, *now)

    patch.setattr(Session, "receive", forgetful)


def _run_as_whoever_is_there_now(patch: Patch) -> None:
    next_work = Session.next_work

    def late(self: Session, now_ns: int) -> Any:
        work = next_work(self, now_ns)
        if isinstance(work, RunMutation):
            work.caller = self._caller
        return work

    patch.setattr(Session, "next_work", late)


def _push_to_who_does_not_read(patch: Patch) -> None:
    for name in ("take_outgoing", "push"):
        original = getattr(Session, name)

        def careless(self: Session, *what: Any, original: Any = original) -> Any:
            said = original(self, *what)
            self.drained()
            return said

        patch.setattr(Session, name, careless)


def _say_again_what_is_known(patch: Patch) -> None:
    complete = Session.complete

    def forgetful(self: Session, work: Any, result: Any, now_ns: int) -> None:
        if isinstance(result, dict):
            changed = {
                query_id: dataclasses.replace(one, fingerprint=one.fingerprint + b"%d" % now_ns)
                for query_id, one in result.items()
            }
            complete(self, work, changed, now_ns)
        else:
            complete(self, work, result, now_ns)

    patch.setattr(Session, "complete", forgetful)


# The client.


def _end_a_mutation_at_its_response(patch: Patch) -> None:
    answer = ClientState._answer_mutation

    def hasty(self: ClientState, response: MutationResponse) -> list[Any]:
        events = answer(self, response)
        if response.ts is not None and self._calls.pop(response.request_id, None) is not None:
            events.append(CallEnded(response.request_id, response))
        return events

    patch.setattr(ClientState, "_answer_mutation", hasty)


def _say_actions_again(patch: Patch) -> None:
    lose = ClientState.lose

    def stubborn(self: ClientState, reason: str | None) -> list[Any]:
        calls = dict(self._calls)
        lose(self, reason)
        self._calls.update(calls)
        return []

    patch.setattr(ClientState, "lose", stubborn)


def _forget_what_was_seen(patch: Patch) -> None:
    opened = ClientState.open

    def fresh(self: ClientState, client_ts_ms: int | None = None) -> None:
        self._observed_ts = 0
        opened(self, client_ts_ms)

    patch.setattr(ClientState, "open", fresh)


# What is behind the sessions.


def _skip_the_dedupe(patch: Patch) -> None:
    numbers = count()
    request = worker.SessionRequest

    def another(session_id: str, _: int) -> Any:
        return request(session_id, next(numbers))

    patch.setattr(worker, "SessionRequest", another)


def _answer_before_durable(patch: Patch) -> None:
    # What waits for itself, such as a schema change, still does: only the answers are early.
    patch.setattr(Committer, "when_durable", lambda _self, _ts, told: told(None))


class _HastyStore:
    """Says that a batch is written when it has begun to write it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._last: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(self, commits: Sequence[Commit]) -> None:
        self._last = asyncio.create_task(self._write(commits, self._last))
        self._last.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _write(self, commits: Sequence[Commit], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        await self._inner.append(commits)


def _push_before_durable(patch: Patch) -> None:
    start = Committer.start

    def hasty(self: Committer) -> None:
        self._persistence = _HastyStore(self._persistence)  # type: ignore[assignment]
        start(self)

    patch.setattr(Committer, "start", hasty)


def _lose_an_invalidation(patch: Patch) -> None:
    publish = Subscriptions.publish

    def deaf(self: Subscriptions, changes: Any) -> int:
        return publish(self, changes) if changes.ts % 3 else 0

    patch.setattr(Subscriptions, "publish", deaf)


def _lose_the_journal(patch: Patch) -> None:
    watch = LiveQueries.watch

    def forgetful(self: LiveQueries, path: Any, args: Any, caller: Any, _: Any, told: Any) -> Any:
        return watch(self, path, args, caller, None, told)

    patch.setattr(LiveQueries, "watch", forgetful)


BREAKAGES: list[Breakage] = [
    Breakage(
        "reuse-version",
        "consistent push",
        "a transition ends at the version it started from",
        _reuse_a_version,
    ),
    Breakage(
        "identity-stays",
        "consistent push",
        "transitions do not tell that another identity is in force",
        _keep_the_identity,
    ),
    Breakage(
        "removal-dropped",
        "complete push",
        "a transition that takes several changes of the query set loses the removals",
        _drop_removals_when_merging,
    ),
    Breakage(
        "response-ts-early",
        "consistent push",
        "a mutation's response names a timestamp before its commit",
        _answer_with_an_earlier_ts,
    ),
    Breakage(
        "query-forgotten",
        "complete push",
        "one of the queries a client brings along on its new connection is forgotten",
        _forget_a_query_after_reconnect,
    ),
    Breakage(
        "identity-of-now",
        "robust",
        "a mutation that waited runs as whoever the client is by then",
        _run_as_whoever_is_there_now,
    ),
    Breakage(
        "no-backpressure",
        "bounded",
        "transitions are computed for a client that does not read",
        _push_to_who_does_not_read,
    ),
    Breakage(
        "told-again",
        "complete push",
        "results that did not change are told again",
        _say_again_what_is_known,
    ),
    Breakage(
        "done-at-response",
        "consistent push",
        "the client ends a mutation before the results contain it",
        _end_a_mutation_at_its_response,
    ),
    Breakage(
        "action-again",
        "exactly once",
        "the client says an action again that may have run",
        _say_actions_again,
    ),
    Breakage(
        "observed-forgotten",
        "consistent push",
        "the client does not bring along the newest timestamp it has seen",
        _forget_what_was_seen,
    ),
    Breakage(
        "no-dedupe",
        "exactly once",
        "a mutation that is said again after a reconnect runs again",
        _skip_the_dedupe,
    ),
    Breakage(
        "answered-early",
        "durable",
        "a mutation is answered before its commit is durable",
        _answer_before_durable,
    ),
    Breakage(
        "pushed-early",
        "durable",
        "a commit is published when its write begins",
        _push_before_durable,
    ),
    Breakage(
        "dated-late",
        "consistent push",
        "a transition is dated when it is told, not when its answers were taken",
        _date_when_told,
    ),
    Breakage(
        "invalidation-lost",
        "complete push",
        "one commit in three reaches no subscription",
        _lose_an_invalidation,
    ),
    Breakage(
        "journal-lost",
        "consistent push",
        "a page that is opened again does not remember where it ended",
        _lose_the_journal,
    ),
]

ON_THE_BACKEND = frozenset(
    (
        "no-dedupe",
        "answered-early",
        "pushed-early",
        "invalidation-lost",
        "journal-lost",
    )
)
