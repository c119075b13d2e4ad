"""Runs functions for callers: sessions, HTTP, the command line, tests.

    query      one snapshot, nothing written
    mutation   one transaction; runs again when it loses a race, alone after a few times;
               at most once per (session, request)
    action     no transaction; its nested calls are one each
    http       an action that answers an HTTP request, however long the answer takes to send

What the app does wrong comes back as a `Failure`. What the deployment cannot do right now
(overload, a failed disk, a timestamp too old) is raised, so that edges can close or answer 503.

Source: docs/architecture.md, "One mutation, from frame to transition"; docs/reference/functions.md
for the texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from reactive_store.auth.identity import Caller, Identity
from reactive_store.engine.catalog import SESSION_REQUESTS
from reactive_store.engine.database import Database
from reactive_store.engine.reads import ReadSet
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest, Conflict, Retry, StoreFailed
from reactive_store.functions.app import App
from reactive_store.functions.context import ActionCtx
from reactive_store.functions.definitions import FunctionDef, FunctionKind
from reactive_store.functions.environment import BuiltInVariables, Environment
from reactive_store.functions.execution import (
    CallChecks,
    Environs,
    Execution,
    find_function,
    too_deep,
)
from reactive_store.functions.logs import LogLines, TransactionLines
from reactive_store.functions.metadata import CallOptions, Metadata
from reactive_store.functions.metering import Metered
from reactive_store.functions.names import display_path
from reactive_store.functions.outcome import Failure, Outcome, RefusedCall, Success, failure_of
from reactive_store.functions.router import Route
from reactive_store.functions.scheduler import Scheduler
from reactive_store.functions.session_requests import SessionRequest, SessionRequests
from reactive_store.functions.storage import StorageActionWriter
from reactive_store.functions.unawaited import Forgetful
from reactive_store.functions.vector_search import (
    VectorFilter,
    VectorFilterBuilder,
    VectorResult,
    search_vectors,
)
from reactive_store.persistence.contract import Timestamp
from reactive_store.values.document import Document
from reactive_store.values.value import normalize
from reactive_store.values.wire import encode_normalized, loads

__all__ = [
    "Accepted",
    "Args",
    "QueryRun",
    "RunRecord",
    "Runner",
    "RunnerCounters",
    "SessionRequest",
]

T = TypeVar("T")

Args = bytes | Mapping[str, Any]
"""Arguments: one object, encoded or not."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """How a mutation ended; to be told to nobody before the commit at `ts` is durable."""

    outcome: Outcome
    ts: Timestamp


@dataclass(frozen=True, slots=True)
class QueryRun:
    """One execution of a query, with what it depends on."""

    outcome: Outcome
    reads: ReadSet
    saw_identity: bool
    ts: Timestamp


class RunRecord(Protocol):
    """What a mutation's commit says about the run itself, besides what the mutation wrote."""

    def begin(self, transaction: Transaction) -> None:
        """Called before the function, once per attempt. A Retry it raises ends the mutation."""
        ...

    def end(self, transaction: Transaction, log_lines: tuple[str, ...]) -> None:
        """Called when the function has succeeded, before the commit."""
        ...


@dataclass(slots=True)
class RunnerCounters:
    """Calls since the start."""

    queries: int = 0
    mutations: int = 0
    actions: int = 0
    http_actions: int = 0
    failures: int = 0
    replays: int = 0  # mutations answered from their record


class Runner:
    """Runs the functions of the current app. `app` is swapped whole by a reload."""

    def __init__(self, database: Database, app: App, environs: Environs) -> None:
        self._database = database
        self._environs = environs
        self._limits = environs.limits
        self.app = app
        # Functions of ours that are not the app's: `_system/…`, for admins.
        self.system_functions: Mapping[str, FunctionDef] = {}
        self.counters = RunnerCounters()
        self._requests = SessionRequests(environs.limits.known_sessions)
        # Told of every outermost call that has ended, by canonical path: for the logs of a server.
        # A mutation's has ended when it is accepted; a disk that then fails has a line of its own.
        self.on_end: Callable[[str, Outcome], None] | None = None

    # Entries for callers.

    async def query(
        self,
        path: str,
        args: Args,
        caller: Caller,
        *,
        at: Timestamp | None = None,
        journal: str | None = None,
    ) -> Outcome:
        """Run a query at a timestamp, by default the latest.

        Raises   OutOfRetention; StoreError for a deployment in trouble
        """
        return (await self.run_query(path, args, caller, at=at, journal=journal)).outcome

    async def run_query(
        self,
        path: str,
        args: Args,
        caller: Caller,
        *,
        at: Timestamp | None = None,
        journal: str | None = None,
    ) -> QueryRun:
        """As `query`, with the read set: what a live query waits on."""
        self.counters.queries += 1
        transaction = self._database.begin(at)
        execution = self._execution(transaction, caller, journal)

        async def call() -> Success:
            function = self._find(path, FunctionKind.QUERY, caller)
            value = encode_normalized(await execution.run(function, self._decoded(path, args)))
            CallChecks.result_size(path, len(value), self._limits)
            return Success(value, (), transaction.begin_ts, execution.journal_out)

        outcome = await self._outcome(path, call)
        return QueryRun(
            outcome, transaction.read_set(), execution.saw_identity, transaction.begin_ts
        )

    async def mutation(
        self,
        path: str,
        args: Args,
        caller: Caller,
        *,
        session: SessionRequest | None = None,
    ) -> Outcome:
        """Run a mutation and commit it; returns when it is durable.

        With `session`, a mutation that has committed before is not run again: its result, log
        lines and timestamp are returned as they were.

        Raises   Retry when it lost every race; StoreFailed
        """
        accepted = await self.accept_mutation(path, args, caller, session=session)
        await self._database.committer.wait_durable(accepted.ts)
        return accepted.outcome

    async def accept_mutation(
        self,
        path: str,
        args: Args,
        caller: Caller,
        *,
        session: SessionRequest | None = None,
        record: RunRecord | None = None,
    ) -> Accepted:
        """As `mutation`, without waiting for the disk: the outcome holds once its `ts` is durable.

        With `record`, the commit also holds that this run has taken place.

        Raises   as `mutation`; what `record` raises, if it is a Retry
        """
        self.counters.mutations += 1
        lines = TransactionLines(self._limits)
        progress = _Progress()

        async def call() -> Success:
            decoded = self._decoded(path, args)

            async def attempt(transaction: Transaction) -> Success:
                if session is not None and (replay := self._replay(transaction, session)):
                    return replay
                if record is not None:
                    record.begin(transaction)
                # Found anew: what made the last attempt run again may have been a reload.
                function = self._find(path, FunctionKind.MUTATION, caller)
                result = await self._execution(transaction, caller).run(function, decoded)
                value = encode_normalized(result)
                CallChecks.result_size(path, len(value), self._limits)
                if session is not None:
                    self._requests.record(transaction, session, value.decode(), lines.lines())
                if record is not None:
                    record.end(transaction, lines.lines())
                return Success(value, ())

            success = await self._accepted(attempt, progress)
            if session is not None:
                self._requests.note_accepted(session)
            # A replay brings its own timestamp and lines.
            return success if success.ts is not None else Success(success.value, (), progress.ts)

        outcome = await self._outcome(path, call, lines)
        return Accepted(outcome, progress.ts)

    async def action(self, path: str, args: Args, caller: Caller) -> Outcome:
        """Run an action. It is never run twice, and goes on when its caller leaves."""
        lines = LogLines(self._limits)

        async def call() -> Success:
            function = self._find(path, FunctionKind.ACTION, caller)
            result = await self._act(function, self._decoded(path, args), caller, depth=1)
            value = encode_normalized(result)
            CallChecks.result_size(path, len(value), self._limits)
            return Success(value, ())

        return await self._outcome(path, call, lines)

    async def http(
        self,
        route: Route,
        request: object,
        respond: Callable[[Any], Awaitable[None]],
        caller: Caller,
    ) -> Outcome:
        """Answer an HTTP request by the handler of a route; an action in every other way.

        Shapes   respond: sends what the handler returned. It is part of the call: what it does
                 counts for the time limit, prints among the log lines, may use the ctx
        """
        lines = LogLines(self._limits)

        async def call() -> Success:
            self.counters.http_actions += 1
            function = route.function
            calls = _ActionCalls(self, caller, 1, function)
            context = self._action_context(calls)

            async def work() -> None:
                response = await function.handler(context, request)
                CallChecks.awaited(calls, self.app)
                await respond(response)

            await self._metered_action(work(), route.name)
            CallChecks.awaited(calls, self.app)
            return Success(b"null", ())

        return await self._outcome(route.name, call, lines)

    async def any_kind(self, path: str, args: Args, caller: Caller) -> Outcome:
        """Run a function of whatever kind it is: for admins' tools."""
        function = self._lookup(path)
        kind = FunctionKind.QUERY if function is None else function.kind
        if function is None or not (caller.is_admin or function.is_public):
            message = (
                f"Could not find function for '{display_path(path)}'. "
                "Did you forget to run `reactive-store dev`?\n"
            )
            return Failure(message, None, ())
        match kind:
            case FunctionKind.QUERY:
                return await self.query(path, args, caller)
            case FunctionKind.MUTATION:
                return await self.mutation(path, args, caller)
            case _:
                return await self.action(path, args, caller)

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> tuple[T, Timestamp]:
        """Run `work` in a mutation's transaction and commit it, again when it loses a race.

        Raises   what `work` raises; Retry; StoreFailed
        """
        return await self._committed(work)

    # How the kinds run.

    async def _committed(
        self, attempt: Callable[[Transaction], Awaitable[T]]
    ) -> tuple[T, Timestamp]:
        progress = _Progress()
        wait_durable = self._database.committer.wait_durable
        try:
            result = await self._accepted(attempt, progress)
        except Retry:
            raise
        except Exception:
            await wait_durable(progress.ts)
            raise
        await wait_durable(progress.ts)
        return result, progress.ts

    async def _accepted(
        self, attempt: Callable[[Transaction], Awaitable[T]], progress: _Progress
    ) -> T:
        """Run `attempt` until its transaction is accepted.

        Whatever comes of it, an error too, may rest on data that is accepted and not yet durable:
        it is told only once `progress.ts` is.
        """
        lines = LogLines.current()
        printed = 0 if lines is None else lines.position
        for _ in range(self._limits.conflict_retries + 1):
            try:
                return await self._attempt(attempt, progress, alone=False)
            except Conflict:
                # Again at once: the newest state is in memory, waiting gains nothing.
                if lines is not None:
                    lines.rollback(printed)
        async with self._database.run_alone():
            return await self._attempt(attempt, progress, alone=True)

    async def _attempt(
        self,
        attempt: Callable[[Transaction], Awaitable[T]],
        progress: _Progress,
        *,
        alone: bool,
    ) -> T:
        transaction = self._database.begin_mutation()
        progress.ts = transaction.begin_ts
        result = await attempt(transaction)
        progress.ts = await self._database.accept(transaction, alone=alone)
        return result

    async def _act(
        self, function: FunctionDef, args: Mapping[str, Any], caller: Caller, *, depth: int
    ) -> Any:
        self.counters.actions += 1
        calls = _ActionCalls(self, caller, depth, function)
        catalog = self._database.catalog
        kwargs = CallChecks.bound(function, args, catalog, self._limits)
        context = self._action_context(calls)
        result = await self._metered_action(function.handler(context, **kwargs), function.path)
        CallChecks.awaited(calls, self.app)
        return CallChecks.result(function, result, self._database.catalog)

    def _action_context(self, calls: _ActionCalls) -> ActionCtx:
        return ActionCtx(
            auth=calls,
            env=_LatestEnvironment(self._database, self._environs.built_in),
            clock=self._environs.runtime,
            make_random=self._environs.runtime.random_generator,
            calls=calls,
        )

    def _metered_action(self, work: Coroutine[Any, Any, T], path: str) -> Awaitable[T]:
        return Metered(work, path=path, watchdog=None, seconds=self._limits.action_seconds)

    # Parts.

    async def _outcome(
        self, path: str, call: Callable[[], Awaitable[Success]], lines: LogLines | None = None
    ) -> Outcome:
        lines = TransactionLines(self._limits) if lines is None else lines
        outcome = await self._success_or_failure(call, lines)
        if self.on_end is not None:
            self.on_end(path, outcome)
        return outcome

    async def _success_or_failure(
        self, call: Callable[[], Awaitable[Success]], lines: LogLines
    ) -> Outcome:
        token = lines.activate()
        try:
            success = await call()
        except (Retry, StoreFailed):
            raise
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary that owns app failures
            self.counters.failures += 1
            return failure_of(error, lines.lines(), self._limits, root=self.app.root)
        finally:
            LogLines.deactivate(token)
        if success.log_lines:
            return success
        return Success(success.value, lines.lines(), success.ts, success.journal)

    def _execution(
        self, transaction: Transaction, caller: Caller, journal: str | None = None
    ) -> Execution:
        return Execution(self.app, transaction, caller, self._environs, journal=journal)

    def _lookup(self, path: str) -> FunctionDef | None:
        if path.startswith("_system/"):
            return self.system_functions.get(path)
        return self.app.find(path)

    def _find(self, path: str, kind: FunctionKind, caller: Caller) -> FunctionDef:
        if path.startswith("_system/"):
            system = self.system_functions.get(path)
            if not caller.is_admin:
                raise RefusedCall(
                    "You do not have permission to perform this operation.", code="Forbidden"
                )
            if system is not None and system.kind is kind:
                return system
        return find_function(self.app, path, kind, is_trusted=caller.is_admin)

    def _decoded(self, path: str, args: Args) -> dict[str, Any]:
        try:
            if isinstance(args, bytes):
                CallChecks.argument_size(path, len(args), self._limits)
                decoded = loads(args, levels=1)  # they travel in an array, which counts
            else:
                decoded = normalize(args, levels=1)
        except RefusedCall:
            raise
        except BadRequest as error:
            raise RefusedCall(
                f"Invalid arguments for {display_path(path)}: {error.message}"
            ) from error
        if not isinstance(decoded, dict):
            raise RefusedCall(
                "ArgumentValidationError: Expected to receive an object as the function's "
                f"argument. Instead received: {encode_normalized(decoded).decode()}"
            )
        return decoded

    def _replay(self, transaction: Transaction, session: SessionRequest) -> Success | None:
        row = self._requests.find(transaction, session)
        if row is None:
            return None
        self.counters.replays += 1
        record = Document(row.value, SESSION_REQUESTS)
        return Success(record["result"].encode(), tuple(record["logLines"]), Timestamp(row.ts))


class _Progress:
    """How far the data reaches that a mutation's outcome rests on."""

    __slots__ = ("ts",)

    def __init__(self) -> None:
        self.ts = Timestamp(0)


class _ActionCalls(Forgetful):
    """`ctx.run_*` and `ctx.auth` of one action."""

    __slots__ = ("_caller", "_depth", "_function", "_runner", "_under_way")

    def __init__(self, runner: Runner, caller: Caller, depth: int, function: FunctionDef) -> None:
        super().__init__()
        self._runner = runner
        self._caller = caller
        self._depth = depth
        self._function = function
        self._under_way = 0  # nested calls that have begun and not ended

    async def get_user_identity(self) -> Identity | None:
        return self._caller.identity

    async def run_query(
        self, reference: object, args: Mapping[str, Any], options: CallOptions | None = None
    ) -> Any:
        function, decoded = self._target(reference, args, FunctionKind.QUERY)
        runner = self._runner
        runner.counters.queries += 1
        with _Operation(self, in_transaction=True):
            transaction = runner._database.begin()
            return await runner._execution(transaction, self._caller).run(function, decoded)

    async def run_mutation(
        self, reference: object, args: Mapping[str, Any], options: CallOptions | None = None
    ) -> Any:
        function, decoded = self._target(reference, args, FunctionKind.MUTATION)
        runner = self._runner
        runner.counters.mutations += 1

        async def attempt(transaction: Transaction) -> Any:
            return await runner._execution(transaction, self._caller).run(function, decoded)

        with _Operation(self, in_transaction=True):
            result, _ = await runner._committed(attempt)
        return result

    async def run_action(self, reference: object, args: Mapping[str, Any]) -> Any:
        if self._depth >= self._runner._limits.nested_calls:
            raise too_deep()
        function, decoded = self._target(reference, args, FunctionKind.ACTION)
        with _Operation(self, in_transaction=False):
            return await self._runner._act(function, decoded, self._caller, depth=self._depth + 1)

    async def vector_search(
        self,
        table: str,
        index: str,
        vector: Sequence[float],
        limit: int,
        filter: Callable[[VectorFilterBuilder], VectorFilter] | None,
    ) -> list[VectorResult]:
        return await search_vectors(
            self._runner._database, table, index, vector=vector, limit=limit, filter=filter
        )

    def meta(self) -> Metadata:
        return Metadata(
            self,
            self._function,
            deployment=self._runner._environs.deployment,
            caller=self._caller,
            runtime=self._runner._environs.runtime,
            transaction=None,
        )

    def _target(
        self, reference: object, args: Mapping[str, Any], kind: FunctionKind
    ) -> tuple[FunctionDef, dict[str, Any]]:
        path = self._runner.app.resolve(reference)
        function = find_function(self._runner.app, path, kind, is_trusted=True)
        normal = normalize(dict(args))
        assert isinstance(normal, dict)
        return function, normal

    def scheduler(self) -> Scheduler:
        runner = self._runner
        runtime = runner._environs.runtime
        return Scheduler(
            self,
            runner.app,
            self._caller,
            runner._limits,
            lambda: runtime.now_ns() / 1e6,
            self._transact,
        )

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        async def attempt(transaction: Transaction) -> T:
            return work(transaction)

        result, _ = await self._runner.transact(attempt)
        return result

    def storage(self) -> StorageActionWriter:
        runner = self._runner
        runtime = runner._environs.runtime
        return StorageActionWriter(
            self,
            runner._environs.files,
            runner._database.begin,
            lambda: runtime.now_ns() / 1e6,
            self._transact,
        )


class _Operation:
    """One nested call of an action, while it is under way.

    Raises   BadRequest[TooManyOperations] on entry
    """

    __slots__ = ("_calls", "_in_transaction", "_token")

    def __init__(self, calls: _ActionCalls, *, in_transaction: bool) -> None:
        self._calls = calls
        self._in_transaction = in_transaction
        self._token: Token[LogLines | None] | None = None

    def __enter__(self) -> None:
        calls = self._calls
        most = calls._runner._limits.action_operations
        if calls._under_way >= most:
            raise BadRequest(
                f"Too many nested calls of one action are under way at a time (limit: {most}). "
                "Await some before you start more.",
                code="TooManyOperations",
            )
        calls._under_way += 1
        lines = LogLines.current() if self._in_transaction else None
        if lines is not None:
            self._token = TransactionLines.of_action(lines).activate()

    def __exit__(self, *_: object) -> None:
        self._calls._under_way -= 1
        if self._token is not None:
            LogLines.deactivate(self._token)


class _LatestEnvironment(Mapping[str, str]):
    """`ctx.env` of an action: each look sees the newest durable state."""

    __slots__ = ("_built_in", "_database")

    def __init__(self, database: Database, built_in: BuiltInVariables) -> None:
        self._database = database
        self._built_in = built_in

    def __getitem__(self, name: str) -> str:
        return self._newest()[name]

    def __iter__(self) -> Any:
        return iter(self._newest())

    def __len__(self) -> int:
        return len(self._newest())

    def _newest(self) -> Environment:
        return Environment(self._database.begin(), self._built_in)
