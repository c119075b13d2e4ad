"""Live queries: one execution and one encoding per question, however many sessions ask it.

A question is (path, arguments, journal, privilege) and, once the function looked at it, the
caller's identity. The answer holds from the timestamp it was computed at to the first commit that
touches what was read; watchers are then told, and the first to ask again makes it run again.

A paginated answer remembers where its page ended (the journal) and keeps that end when it runs
again. It is then filed under that journal: a fresh watcher gets a page of the size it asked for.

Whoever shares an answer may have to part and meet again: a query that begins to look at the
identity sends each caller to a query of its own, one that stops, or that ends at the same page as
another one, sends its watchers to that other one. They move when they next ask for the answer.
A failed answer is told to its watchers, but no newcomer is given one: it runs again for them.

Source: docs/architecture.md, "One live query".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from reactive_store.auth.identity import Caller, Identity
from reactive_store.engine.database import Database
from reactive_store.engine.subscriptions import Subscription
from reactive_store.functions.outcome import Failure, Outcome, Success, client_message
from reactive_store.functions.runner import QueryRun, Runner
from reactive_store.persistence.contract import Timestamp
from reactive_store.runtime import Runtime
from reactive_store.values.wire import dumps

__all__ = ["LiveQueries", "LiveQueryCounters", "LiveResult", "Watch"]


@dataclass(frozen=True, slots=True)
class LiveResult:
    """An answer, encoded for the wire once.

    `modification` is what follows the query id in a Transition's modification, closing brace
    included. Answers with equal fingerprints need not be sent again.
    """

    modification: bytes
    failed: bool
    fingerprint: bytes
    journal: str | None


@dataclass(slots=True)
class LiveQueryCounters:
    """Executions since the start."""

    runs: int = 0
    reruns: int = 0
    shared: int = 0  # one-time calls answered by what somebody watches
    equal: int = 0  # reruns whose result was what it had been


@dataclass(frozen=True, slots=True)
class _Question:
    path: str
    args: bytes
    journal: str | None
    is_admin: bool


# Stands in for the identity of answers that did not depend on it.
_ANYBODY = object()
_Key = tuple[_Question, object]


class _LiveQuery:
    """One question's answer over time."""

    __slots__ = (
        "belongs",
        "caller",
        "invalid_at",
        "journal",
        "keys",
        "question",
        "result",
        "running",
        "saw_identity",
        "subscription",
        "success",
        "valid_from",
        "watches",
    )

    def __init__(self, question: _Question, caller: Caller) -> None:
        self.question = question
        self.caller = caller  # on whose behalf it runs
        self.journal = question.journal  # handed to the next run
        self.keys: set[_Key] = set()  # where it is filed
        self.watches: dict[Watch, None] = {}  # in order of coming: all runs of a seed are alike
        self.saw_identity = False  # by the last run
        # Where it should be filed since its last run. If another query is there, the watchers
        # move to that one.
        self.belongs: _Key | None = None
        # The answer, good for valid_from <= ts < invalid_at (None: until told otherwise).
        self.result: LiveResult | None = None
        self.success: Success | None = None  # the same answer as the function gave it
        self.valid_from = Timestamp(0)
        self.invalid_at: int | None = None
        self.subscription: Subscription | None = None
        # Resolved when the run under way ends; None when none is.
        self.running: asyncio.Future[None] | None = None

    def covers(self, at: Timestamp) -> bool:
        return (
            self.result is not None
            and self.valid_from <= at
            and (self.invalid_at is None or at < self.invalid_at)
        )

    def pinned(self) -> _Question:
        """The question with the page's end in it, once that is known."""
        question = self.question
        if self.journal == question.journal:
            return question
        return _Question(question.path, question.args, self.journal, question.is_admin)


class Watch:
    """One session's interest in one question."""

    __slots__ = ("_caller", "_is_armed", "_live_queries", "_on_invalid", "_query", "_question")

    def __init__(
        self,
        live_queries: LiveQueries,
        question: _Question,
        caller: Caller,
        on_invalid: Callable[[], None],
    ) -> None:
        self._live_queries = live_queries
        self._question = question
        self._caller = caller
        self._on_invalid = on_invalid
        # True from delivering an answer to reporting it invalid.
        self._is_armed = False
        self._query: _LiveQuery | None = live_queries._attach(self, question, caller)

    def ready(self, at: Timestamp) -> LiveResult | None:
        """The answer at `at` if it is at hand, which it is for all but the first who ask for it.

        Cost     0.5 µs
        """
        query = self._query
        if (
            query is None
            or query.result is None
            or query.invalid_at is not None
            or at < query.valid_from
            or (query.saw_identity and query.caller.identity != self._caller.identity)
            or query.belongs is None
            or self._live_queries._filed.get(query.belongs) is not query
        ):
            return None
        if query.journal != self._question.journal:
            self._question = query.pinned()
        self._is_armed = True
        return query.result

    async def result(self, at: Timestamp) -> LiveResult:
        """The answer at `at`. Runs the query unless an answer covers that timestamp.

        Raises   Retry, StoreFailed: the deployment cannot answer now
        """
        live_queries = self._live_queries
        while True:
            query = self._query
            assert query is not None, "the watch is closed"
            result = await live_queries._shared(query, at)
            holds = result is not None and query.invalid_at is None
            if result is None:
                # Asked by a session that is behind. On its own behalf: at that time the answer may
                # have depended on who asks.
                result = await live_queries._past(query, self._caller, at)
            elif self._query is not None and live_queries._move(self, query):
                continue
            if self._query is not None:
                self._is_armed = True
                if not holds:
                    self._report()
            return result

    def close(self) -> None:
        """Lose interest. Idempotent."""
        if self._query is not None:
            self._live_queries._detach(self, self._query)
            self._query = None
            self._is_armed = False

    def _report(self) -> None:
        if self._is_armed:
            self._is_armed = False
            self._on_invalid()


class LiveQueries:
    """Every question somebody is watching."""

    def __init__(
        self, runner: Runner, database: Database, runtime: Runtime, *, redact: bool
    ) -> None:
        self._runner = runner
        self._database = database
        self._runtime = runtime
        self._redact = redact
        self._filed: dict[_Key, _LiveQuery] = {}
        self._live: dict[_LiveQuery, None] = {}
        self.counters = LiveQueryCounters()

    def __len__(self) -> int:
        """How many questions are being watched."""
        return len(self._live)

    def watch(
        self,
        path: str,
        args: bytes,
        caller: Caller,
        journal: str | None,
        on_invalid: Callable[[], None],
    ) -> Watch:
        """Watch a question. `on_invalid` is called once for every answer that ends.

        Shapes   path: canonical; args: one encoded object; journal: as the last answer gave it
        """
        return Watch(self, _Question(path, args, journal, caller.is_admin), caller, on_invalid)

    async def query(self, path: str, args: bytes, caller: Caller) -> Outcome:
        """A query asked once, at the latest commit; answered from memory when it is being watched.

        Raises   as `Runner.query`
        """
        question = _Question(path, args, None, caller.is_admin)
        filed = self._filed
        query = filed.get((question, _ANYBODY)) or filed.get((question, caller.identity))
        if query is not None and query.covers(self._database.latest_ts):
            identity_fits = not query.saw_identity or query.caller.identity == caller.identity
            if query.success is not None and identity_fits:
                self.counters.shared += 1
                return query.success
        return await self._runner.query(path, args, caller)

    def invalidate_all(self) -> None:
        """Every answer ends now: the code behind them has changed."""
        ts = self._database.latest_ts
        for query in tuple(self._live):
            if query.subscription is not None:
                self._database.cancel(query.subscription)
                query.subscription = None
            # The code of now gives the answers of now; older timestamps are not asked any more.
            query.result = query.success = None
            self._end(query, ts)

    # Filing.

    def _attach(self, watch: Watch, question: _Question, caller: Caller) -> _LiveQuery:
        own: _Key = (question, caller.identity)
        query = self._to_join(own) or self._to_join((question, _ANYBODY))
        if query is None:
            query = _LiveQuery(question, caller)
            self._file(query, own)
            # Until it has run it may turn out to be for everybody: a crowd that comes at once
            # waits for one run.
            self._file(query, (question, _ANYBODY))
            self._live[query] = None
        query.watches[watch] = None
        return query

    def _to_join(self, key: _Key) -> _LiveQuery | None:
        """The query a newcomer may share, or None. One that has failed must run again for it."""
        query = self._filed.get(key)
        if query is None or query.result is None or not query.result.failed:
            return query
        if query.invalid_at is not None:
            return query  # it will run again anyway
        self._unfile(query)
        return None

    def _move(self, watch: Watch, query: _LiveQuery) -> bool:
        """Take a watch to where it belongs after a run. Whether it was moved."""
        # Whoever has seen where the page ends goes on with that page.
        question = watch._question = query.pinned()
        if query.saw_identity and query.caller.identity != watch._caller.identity:
            self._detach(watch, query)
            watch._query = self._attach(watch, question, watch._caller)
            return True
        if query.belongs is None:
            return False
        other = self._file(query, query.belongs)
        if other is query or (other.result is not None and other.result.failed):
            return False
        other.watches[watch] = None
        self._detach(watch, query)
        watch._query = other
        return True

    def _file(self, query: _LiveQuery, key: _Key) -> _LiveQuery:
        """File the query, unless another one is there. Returns the one that is filed."""
        filed = self._filed.setdefault(key, query)
        if filed is query:
            query.keys.add(key)
        return filed

    def _detach(self, watch: Watch, query: _LiveQuery) -> None:
        query.watches.pop(watch, None)
        if query.watches:
            return
        self._unfile(query)
        self._live.pop(query, None)
        if query.subscription is not None:
            self._database.cancel(query.subscription)
            query.subscription = None

    def _unfile(self, query: _LiveQuery) -> None:
        for key in query.keys:
            del self._filed[key]
        query.keys.clear()

    def _refile(self, query: _LiveQuery) -> None:
        """File the query where its last answer belongs."""
        identity: Identity | object | None = query.caller.identity
        # Once the page is pinned, only who knows its end may join.
        question = query.pinned()
        query.belongs = (question, identity if query.saw_identity else _ANYBODY)
        wanted: set[_Key] = {query.belongs, (question, identity)}
        for key in query.keys - wanted:
            del self._filed[key]
            query.keys.discard(key)
        for key in wanted - query.keys:
            self._file(query, key)

    # Running.

    async def _shared(self, query: _LiveQuery, at: Timestamp) -> LiveResult | None:
        """The query's answer at `at`, or None when its answer is of a later time."""
        while not query.covers(at):
            if query.running is not None:
                await asyncio.shield(query.running)
            elif query.result is not None and at < query.valid_from:
                return None
            else:
                await self._refresh(query, at)
        return query.result

    async def _past(self, query: _LiveQuery, caller: Caller, at: Timestamp) -> LiveResult:
        """The answer to one caller at a time before the present answer; nobody shares it."""
        return self._encoded((await self._run(query, caller, at)).outcome)

    async def _run(self, query: _LiveQuery, caller: Caller, at: Timestamp) -> QueryRun:
        question = query.question
        return await self._runner.run_query(
            question.path, question.args, caller, at=at, journal=query.journal
        )

    async def _refresh(self, query: _LiveQuery, at: Timestamp) -> None:
        running: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        query.running = running
        if query.subscription is not None:
            self._database.cancel(query.subscription)
            query.subscription = None
        app = self._runner.app
        try:
            run = await self._run(query, query.caller, at)
        finally:
            query.running = None
            running.set_result(None)
        self.counters.runs += 1
        if self._runner.app is not app:
            return  # the answer of code that was replaced meanwhile: it must run again
        result = self._encoded(run.outcome)
        before = query.result
        if before is not None:
            self.counters.reruns += 1
            if before.fingerprint == result.fingerprint:
                self.counters.equal += 1
                if not result.failed and before.journal == result.journal:
                    result = before  # one object: whoever compares it again compares nothing
        query.result = result
        # A page that has an end of its own is not what a newcomer asks for.
        outcome = run.outcome
        has_end = outcome.journal is not None
        query.success = outcome if isinstance(outcome, Success) and not has_end else None
        query.valid_from = at
        query.invalid_at = None
        query.saw_identity = run.saw_identity
        query.journal = result.journal if result.journal is not None else query.journal
        if not query.watches:
            return  # everybody left meanwhile
        self._refile(query)
        subscription = self._database.subscribe(run.reads, at, lambda ts: self._touched(query, ts))
        if isinstance(subscription, int):
            self._end(query, subscription)
        else:
            query.subscription = subscription

    def _touched(self, query: _LiveQuery, ts: int) -> None:
        query.subscription = None
        self._end(query, ts)

    def _end(self, query: _LiveQuery, ts: int) -> None:
        query.invalid_at = ts
        for watch in tuple(query.watches):
            watch._report()

    def _encoded(self, outcome: Outcome) -> LiveResult:
        lines = b"[]"
        if outcome.log_lines and not self._redact:
            lines = dumps(list(outcome.log_lines))
        journal = b"null" if outcome.journal is None else dumps(outcome.journal)
        has_failed = isinstance(outcome, Failure)
        # Answers are long: they are copied once, by the join.
        if isinstance(outcome, Failure):
            request_id = self._runtime.random_bytes(8).hex()
            text = client_message(outcome, request_id, redact=self._redact)
            data = b"" if outcome.data is None else b',"errorData":' + outcome.data
            parts = (b'"errorMessage":', dumps(text), data)
            said: tuple[bytes, ...] = (b"failed", outcome.message.encode(), data, lines)
        else:
            parts = (b'"value":', outcome.value, b"")
            said = (outcome.value, lines)
        modification = b"".join((*parts, b',"logLines":', lines, b',"journal":', journal, b"}"))
        # What is sent is its own fingerprint, and costs nothing: unequal answers mostly differ in
        # their first bytes. Where it holds more than what is told, a digest of what is told is it.
        if has_failed or outcome.journal is not None:
            fingerprint = blake2b(b"\0".join(said), digest_size=16).digest()
        else:
            fingerprint = modification
        return LiveResult(modification, has_failed, fingerprint, outcome.journal)
