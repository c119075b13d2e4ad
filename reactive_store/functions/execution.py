"""One tree of calls inside one transaction, and the checks around every single call.

    arguments   names → size → validator → bound to the handler's parameters
    handler     on the clock, with its context
    result      nothing left un-awaited → not an un-run query → validator → encodable

A nested call shares the transaction, the identity, the log lines and the time; it has a context, a
random generator and a pagination allowance of its own. When a call has returned, its `ctx.db` is
closed: what a task that was left behind would write could not be part of the commit any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from reactive_store.auth.identity import Caller, Identity
from reactive_store.engine.transaction import Transaction, Usage
from reactive_store.errors import BadRequest
from reactive_store.functions.app import App
from reactive_store.functions.context import MutationCtx, QueryCtx
from reactive_store.functions.db import DatabaseReader, DatabaseWriter
from reactive_store.functions.definitions import FunctionDef, FunctionKind
from reactive_store.functions.environment import BuiltInVariables, Environment
from reactive_store.functions.logs import LogLines
from reactive_store.functions.metadata import CallOptions, Metadata, narrowed
from reactive_store.functions.metering import Metered, Watchdog
from reactive_store.functions.names import display_path
from reactive_store.functions.outcome import RefusedCall, shown_place
from reactive_store.functions.pagination import CursorCodec
from reactive_store.functions.query_builder import UNRUN_QUERY, Query
from reactive_store.functions.references import names_a_component, no_components
from reactive_store.functions.scheduler import Scheduler
from reactive_store.functions.storage import StorageReader, StorageWriter
from reactive_store.functions.stored_files import StoredFiles
from reactive_store.functions.unawaited import Forgetful
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.schema.validators import TableNames
from reactive_store.values.size import format_size
from reactive_store.values.value import UNSET, Value, normalize, normalize_keeping_encoded

__all__ = ["CallChecks", "Environs", "Execution", "find_function", "too_deep"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Environs:
    """What every execution of a deployment uses; one value, made by the runner."""

    runtime: Runtime
    limits: Limits
    cursors: CursorCodec
    watchdog: Watchdog
    files: StoredFiles
    built_in: BuiltInVariables = field(default_factory=BuiltInVariables)
    deployment: str = ""  # its name


class CallChecks:
    """The checks around one call of a function."""

    @staticmethod
    def bound(
        function: FunctionDef, args: Mapping[str, Any], tables: TableNames, limits: Limits
    ) -> dict[str, Any]:
        """Checked arguments, ready for the handler.

        Raises   RefusedCall with the text clients of Convex see
        """
        try:
            canonical = dict(function.canonical_args(args))
        except BadRequest as error:
            raise RefusedCall(
                f"Invalid arguments for {display_path(function.path)}: {error.message}"
            ) from error
        try:
            function.args.check(canonical, tables)
            return function.bind(canonical)
        except BadRequest as error:
            text = error.message
            prefix = (
                "" if text.startswith("ArgumentValidationError") else ("ArgumentValidationError: ")
            )
            raise RefusedCall(f"{prefix}{text}", code="ArgumentValidationError") from error

    @staticmethod
    def result(function: FunctionDef, result: object, tables: TableNames) -> Any:
        """The result as a value; documents inside stay bytes.

        Raises   RefusedCall when it is no value, or not what `returns=` demands
        """
        if isinstance(result, Query):
            raise BadRequest(UNRUN_QUERY, code="ReturnedQuery")
        if result is UNSET:
            result = None
        try:
            if function.returns is None:
                return normalize_keeping_encoded(result)
            value = normalize(result)
        except BadRequest as error:
            raise RefusedCall(
                f"Function {display_path(function.path)} return value invalid: {error.message}"
            ) from error
        try:
            function.returns.check(value, tables)
        except BadRequest as error:
            raise RefusedCall(
                f"ReturnsValidationError: {error.message}", code="ReturnsValidationError"
            ) from error
        return value

    @staticmethod
    def awaited(owner: Forgetful, app: App) -> None:
        """Refuse a call that dropped a coroutine of `ctx`: it did not do what it says.

        Raises   BadRequest[NotAwaited] naming the method and the line
        """
        if owner.forgotten is None:
            return
        method, place = owner.forgotten
        where = shown_place(place, app.root)
        raise BadRequest(
            f"`{method}(…)` was called without `await`{f' at {where}' if where else ''}, so it did "
            "nothing. Write `await` in front of it.",
            code="NotAwaited",
        )

    @staticmethod
    def argument_size(path: str, size: int, limits: Limits) -> None:
        """Refuse arguments that are too large. `size` in bytes of their encoded form."""
        if size > limits.arguments_bytes:
            raise RefusedCall(
                f"Arguments for {display_path(path)} are too large (actual: {format_size(size)}, "
                f"limit: {format_size(limits.arguments_bytes)})"
            )

    @staticmethod
    def result_size(path: str, size: int, limits: Limits) -> None:
        """Refuse a result that is too large. `size` in bytes of its encoded form."""
        if size > limits.result_bytes:
            raise RefusedCall(
                f"Function {display_path(path)} return value is too large "
                f"(actual: {format_size(size)}, limit: {format_size(limits.result_bytes)})"
            )


def find_function(app: App, path: str, kind: FunctionKind, *, is_trusted: bool) -> FunctionDef:
    """The function a caller names, of the kind it asks for.

    `is_trusted`: internal functions may be called. Others cannot tell internal from missing.

    Raises   RefusedCall
    """
    function = app.find(path)
    if function is None or not (is_trusted or function.is_public):
        text = f"Could not find public function for '{display_path(path)}'."
        if names_a_component(path):
            text = no_components(display_path(path)).message
        elif is_trusted:
            text = app.explain_missing(path)
        raise RefusedCall(text, code="FunctionNotFound")
    if function.kind is not kind:
        raise RefusedCall(
            f"Trying to execute {path} as {kind.value}, but it is defined as "
            f"{function.kind.value}.",
            code="WrongFunctionKind",
        )
    return function


def too_deep() -> BadRequest:
    """The error for nested calls beyond the limit."""
    return BadRequest(
        "Cross component call depth limit exceeded. Do you have an infinite loop in your app?",
        code="MaximumCallDepthExceeded",
    )


class Execution(Forgetful):
    """The calls of one transaction."""

    __slots__ = (
        "_app",
        "_caller",
        "_environs",
        "_journal",
        "_random",
        "journal_out",
        "saw_identity",
        "transaction",
    )

    def __init__(
        self,
        app: App,
        transaction: Transaction,
        caller: Caller,
        environs: Environs,
        *,
        journal: str | None = None,
    ) -> None:
        super().__init__()
        self._app = app
        self._caller = caller
        self._environs = environs
        self._journal = journal
        self._random: Random | None = None  # made for the first call that asks: it is dear
        self.transaction = transaction
        # Set by the first look at `ctx.auth`, anywhere in the tree.
        self.saw_identity = False
        # Where the outermost function's page ended.
        self.journal_out: str | None = None

    async def get_user_identity(self) -> Identity | None:
        """The caller's identity; looking is remembered."""
        self.saw_identity = True
        return self._caller.identity

    async def run(self, function: FunctionDef, args: Mapping[str, Any]) -> Any:
        """Call the outermost function."""
        reader = self._reader(function, self._journal)
        try:
            result = await self._call(function, args, reader, self._own_random, depth=1)
        finally:
            self.journal_out = reader.journal_out
        CallChecks.awaited(self, self._app)
        transaction = self.transaction
        usage, limits = transaction.usage, transaction.limits
        if (
            usage.read_documents * 5 > limits.read_documents * 4
            or usage.read_bytes * 5 > limits.read_bytes * 4
            or usage.written_documents * 5 > limits.written_documents * 4
            or usage.written_bytes * 5 > limits.written_bytes * 4
            or len(transaction.read_set()) * 5 > limits.read_intervals * 4
            or (usage.scheduled_functions and _schedules_much(usage, limits))
        ):
            self._warn_of_limits()
        return result

    async def nested(
        self,
        reference: object,
        args: Mapping[str, Any],
        kind: FunctionKind,
        *,
        depth: int,
        options: CallOptions | None = None,
    ) -> Any:
        """Call a function from inside another one."""
        if depth >= self._environs.limits.nested_calls:
            raise too_deep()
        path = self._app.resolve(reference)
        function = find_function(self._app, path, kind, is_trusted=True)
        normal: Value = normalize(dict(args), levels=1)
        assert isinstance(normal, dict)
        if options is not None:
            return await self._nested_with(options, function, normal, depth=depth + 1)
        return await self._call(
            function, normal, self._reader(function, None), self._derived_random, depth=depth + 1
        )

    async def _nested_with(
        self, options: CallOptions, function: FunctionDef, args: dict[str, Any], *, depth: int
    ) -> Any:
        """A nested call on the state before our writes, or with less to spend."""
        execution, limits = self, self.transaction.limits
        if options.use_stale_snapshot:
            stale = self.transaction.without_writes()
            execution = Execution(self._app, stale, self._caller, self._environs)
        transaction = execution.transaction
        if options.transaction_limits is not None:
            transaction.limits = narrowed(transaction, options.transaction_limits)
        reader = execution._reader(function, None)
        try:
            return await execution._call(function, args, reader, self._derived_random, depth=depth)
        finally:
            transaction.limits = limits
            self.saw_identity = self.saw_identity or execution.saw_identity
            self.forgotten = self.forgotten or execution.forgotten

    def _own_random(self) -> Random:
        if self._random is None:
            self._random = self._environs.runtime.random_generator()
        return self._random

    def _derived_random(self) -> Random:
        """A generator for a nested call: what it draws is not drawn from the caller's."""
        return Random(self._own_random().getrandbits(64))  # noqa: S311 - deterministic by design

    def _warn_of_limits(self) -> None:
        """Say in the log lines what has nearly been used up: above four fifths."""
        lines = LogLines.current()
        if lines is None:
            return
        transaction = self.transaction
        usage, limits = transaction.usage, transaction.limits
        for actual, most, what in (
            (usage.read_documents, limits.read_documents, "Many documents read"),
            (usage.read_bytes, limits.read_bytes, "Many bytes read"),
            (len(transaction.read_set()), limits.read_intervals, "Many reads"),
            (usage.written_documents, limits.written_documents, "Many writes"),
            (usage.written_bytes, limits.written_bytes, "Many bytes written"),
            (usage.scheduled_functions, limits.scheduled_functions, "Many functions scheduled"),
            (usage.scheduled_bytes, limits.scheduled_bytes, "Many bytes of arguments scheduled"),
        ):
            if actual * 5 > most * 4:
                lines.add(
                    "WARN",
                    f"{what} in a single function execution (actual: {actual}, limit: {most}).",
                )

    def _reader(self, function: FunctionDef, journal: str | None) -> DatabaseReader:
        make = DatabaseWriter if function.kind is FunctionKind.MUTATION else DatabaseReader
        environs = self._environs
        return make(self.transaction, self._pause, cursors=environs.cursors, journal=journal)

    async def _pause(self) -> None:
        await self._environs.runtime.sleep(0)

    async def _call(
        self,
        function: FunctionDef,
        args: Mapping[str, Any],
        reader: DatabaseReader,
        make_random: Callable[[], Random],
        *,
        depth: int,
    ) -> Any:
        transaction, environs = self.transaction, self._environs
        kwargs = CallChecks.bound(function, args, transaction, environs.limits)
        calls = _NestedCalls(self, function, depth)
        context_class = MutationCtx if function.kind is FunctionKind.MUTATION else QueryCtx
        context = context_class(
            db=reader,
            auth=self,
            env=Environment(transaction, environs.built_in),
            now=transaction.now_ms,
            make_random=make_random,
            calls=calls,
        )
        handler = function.handler(context, **kwargs)
        try:
            if depth == 1:
                result = await Metered(
                    handler,
                    path=function.path,
                    watchdog=environs.watchdog,
                    seconds=environs.limits.mutation_seconds,
                )
            else:
                result = await handler
        finally:
            scope = reader.close()
            calls.is_over = True
        if scope.forgotten or calls.forgotten:
            CallChecks.awaited(scope, self._app)
            CallChecks.awaited(calls, self._app)
        return CallChecks.result(function, result, transaction)


def _schedules_much(usage: Usage, limits: Limits) -> bool:
    return (
        usage.scheduled_functions * 5 > limits.scheduled_functions * 4
        or usage.scheduled_bytes * 5 > limits.scheduled_bytes * 4
    )


class _NestedCalls(Forgetful):
    """`ctx.run_query` and `ctx.run_mutation` of one context inside a transaction."""

    __slots__ = ("_depth", "_execution", "_function", "_turn", "is_over")

    def __init__(self, execution: Execution, function: FunctionDef, depth: int) -> None:
        super().__init__()
        self._execution = execution
        self._function = function
        self._depth = depth
        self.is_over = False  # the function has returned: it has no effects any more
        # Made by the first nested mutation: one at a time, since undoing one must not undo
        # what another wrote in between.
        self._turn: asyncio.Lock | None = None

    async def run_query(
        self, reference: object, args: Mapping[str, Any], options: CallOptions | None = None
    ) -> Any:
        is_stale = options is not None and options.use_stale_snapshot
        if is_stale and self._function.kind is not FunctionKind.MUTATION:
            raise BadRequest(
                "`useStaleSnapshot` is only supported in mutations, not queries.",
                code="StaleSnapshotNotSupported",
            )
        return await self._execution.nested(
            reference, args, FunctionKind.QUERY, depth=self._depth, options=options
        )

    async def run_mutation(
        self, reference: object, args: Mapping[str, Any], options: CallOptions | None = None
    ) -> Any:
        if options is not None and options.use_stale_snapshot:
            raise BadRequest(
                "`useStaleSnapshot` is for nested queries: a mutation reads what it writes.",
                code="StaleSnapshotNotSupported",
            )
        if self._turn is None:
            self._turn = asyncio.Lock()
        transaction = self._execution.transaction
        async with self._turn:
            savepoint = transaction.savepoint()
            try:
                return await self._execution.nested(
                    reference, args, FunctionKind.MUTATION, depth=self._depth, options=options
                )
            except BaseException:
                transaction.rollback(savepoint)
                raise

    async def run_action(self, reference: object, args: Mapping[str, Any]) -> Any:
        raise BadRequest(
            f"Cannot call an Action function from a {self._function.kind.value} function",
            code="WrongCall",
        )

    def meta(self) -> Metadata:
        execution = self._execution
        return Metadata(
            self,
            self._function,
            deployment=execution._environs.deployment,
            caller=execution._caller,
            runtime=execution._environs.runtime,
            transaction=execution.transaction,
        )

    def scheduler(self) -> Scheduler:
        execution = self._execution
        return Scheduler(
            self,
            execution._app,
            execution._caller,
            execution._environs.limits,
            lambda: execution.transaction.now_ms,
            self._transact,
        )

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        if self.is_over:
            raise BadRequest(
                "ctx was used after the function had returned, when nothing can be "
                "written any more. Await every task that the function starts.",
                code="FunctionReturned",
            )
        return work(self._execution.transaction)

    def storage(self) -> StorageReader:
        execution = self._execution
        kind = StorageWriter if self._function.kind is FunctionKind.MUTATION else StorageReader
        return kind(
            self,
            execution._environs.files,
            lambda: execution.transaction,
            lambda: execution.transaction.now_ms,
            self._transact,
        )
