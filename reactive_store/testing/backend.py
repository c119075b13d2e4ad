"""The real engine for tests: in memory, under a clock that stands still, called without a socket.

`TestBackend` is a deployment of its own: schema, functions, live queries, everything that `serve`
runs except the network. Nothing in it is a stand-in but the disk and the clock.

Callers are trusted: internal functions may be called, as an administrator may.

Source of facts: docs/reference/api.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeVar

from reactive_store.auth.identity import Caller, Identity
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.errors import ConvexError
from reactive_store.functions.app import App
from reactive_store.functions.context import MutationCtx
from reactive_store.functions.definitions import FunctionDef, FunctionKind
from reactive_store.functions.live_queries import Watch
from reactive_store.functions.loader import build_app, load_app
from reactive_store.functions.names import to_wire
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Persistence
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.schema.tables import Schema
from reactive_store.schema.validators import v
from reactive_store.testing.virtual_runtime import VirtualRuntime
from reactive_store.values.wire import dumps, from_json, loads

__all__ = ["FunctionError", "LiveValue", "TestBackend", "TestCaller"]

T = TypeVar("T")

_ISSUER: Final = "https://convex.test"
_SUBJECT: Final = "user"
_PATIENCE_S: Final = 5.0

# What `with_identity` spells in snake_case; other names are custom claims and stay as written.
_ATTRIBUTES: Final = frozenset(name for name in Identity.__annotations__ if name[0] != "_")


class FunctionError(Exception):
    """A function failed, or could not be called. The text is what `dev` shows.

    What an app raises on purpose arrives as the ConvexError it raised.
    """

    def __init__(self, message: str, log_lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.log_lines = log_lines  # what the function had printed


class LiveValue:
    """A subscription to a query: `await live.next()` gives its value now, then each new one."""

    def __init__(self, backend: Backend, path: str, args: bytes, caller: Caller) -> None:
        self._backend = backend
        self._path = path
        self._args = args
        self._caller = caller
        self._watch: Watch | None = None
        self._changed = asyncio.Event()
        self._fingerprint: bytes | None = None  # of the last answer given out
        self._latest: Any = None

    async def __aenter__(self) -> Self:
        self._watch = self._backend.live_queries.watch(
            self._path, self._args, self._caller, None, self._changed.set
        )
        self._changed.set()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @property
    def latest(self) -> Any:
        """What `next` gave last; None before the first."""
        return self._latest

    async def next(self, timeout: float = _PATIENCE_S) -> Any:
        """The newest value, once it differs from the last one given out.

        Several changes between two calls are one. `timeout` is in real seconds: nothing else
        moves the clock while a test waits.

        Raises   what the query raises now; TimeoutError when nothing changes
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._next()
        except TimeoutError:
            raise TimeoutError(f"no new value of {self._path} within {timeout:g} s") from None

    async def _next(self) -> Any:
        while True:
            await self._changed.wait()
            self._changed.clear()
            assert self._watch is not None, "the subscription is not open: use `async with`"
            try:
                result = await self._watch.result(self._backend.database.latest_ts)
            except BaseException:
                self._changed.set()  # the next call asks again
                raise
            if result.fingerprint == self._fingerprint:
                continue
            self._fingerprint = result.fingerprint
            answer = json.loads(b"{" + result.modification)
            if result.failed:
                if "errorData" in answer:
                    raise ConvexError(from_json(answer["errorData"]))
                _, _, text = answer["errorMessage"].partition("\n")
                raise FunctionError(text.rstrip("\n"), tuple(answer["logLines"]))
            self._latest = from_json(answer["value"])
            return self._latest


class TestCaller:
    """Calls functions on somebody's behalf."""

    __test__ = False  # not a class of tests, whatever its name says

    def __init__(self, owner: TestBackend, caller: Caller) -> None:
        self._owner = owner
        self._caller = caller

    async def query(self, function: object, /, **args: Any) -> Any:
        """Run a query.

        Shapes   function: its path, a reference or the function itself; args by name, in either
                 spelling
        Raises   ConvexError as the app raised it; FunctionError for everything else that fails;
                 BadRequest for a path that names no function
        """
        path = self._owner.path_of(function)
        runner = self._owner.backend.runner
        return self._owner.value_of(await runner.query(path, args, self._caller))

    async def mutation(self, function: object, /, **args: Any) -> Any:
        """Run a mutation; it is committed, and live queries know, when this returns.

        Raises   as `query`
        """
        path = self._owner.path_of(function)
        runner = self._owner.backend.runner
        return self._owner.value_of(await runner.mutation(path, args, self._caller))

    async def action(self, function: object, /, **args: Any) -> Any:
        """Run an action.

        Raises   as `query`
        """
        path = self._owner.path_of(function)
        runner = self._owner.backend.runner
        return self._owner.value_of(await runner.action(path, args, self._caller))

    def subscribe(self, function: object, /, **args: Any) -> LiveValue:
        """Watch a query: `async with t.subscribe(…) as live`."""
        owner = self._owner
        return LiveValue(owner.backend, owner.path_of(function), dumps(args), self._caller)

    def with_identity(self, **attributes: Any) -> TestCaller:
        """The same deployment, as a user sees it.

        Shapes   `subject`, `name`, `email` … of an Identity, and custom claims under any other
                 name. Issuer and subject have defaults
        """
        given = {
            to_wire(name) if name in _ATTRIBUTES else name: value
            for name, value in attributes.items()
        }
        if "tokenIdentifier" not in given:
            given = {"issuer": _ISSUER, "subject": _SUBJECT, **given}
        return TestCaller(self._owner, Caller(Identity.from_attributes(given), is_admin=True))


class TestBackend(TestCaller):
    """A deployment for one test: `async with TestBackend(schema=…, functions=…) as t`.

    Shapes   functions: a folder, or a package (the module or its dotted name). schema: without it,
             `schema.py` beside the functions counts. app: instead of both, an App or the folder of
             one. persistence: instead of a new one in memory; it is closed at the end
    Cost     loading the app; a few milliseconds else
    Raises   on entry: BadRequest when the app cannot be loaded or does not fit the data
    """

    def __init__(
        self,
        schema: Schema | None = None,
        functions: str | Path | ModuleType | None = None,
        *,
        app: App | str | Path | None = None,
        limits: Limits | None = None,
        seed: int = 0,
        persistence: Persistence | None = None,
    ) -> None:
        if app is not None and (schema is not None or functions is not None):
            raise TypeError("TestBackend takes an app, or schema and functions, not both")
        super().__init__(self, Caller(None, is_admin=True))
        self.runtime = VirtualRuntime(seed=seed)
        self.log_lines: list[str] = []  # of every call so far, "[LOG] 'text'"
        self._schema = schema
        self._functions = functions
        self._app = app
        self._limits = limits or Limits()
        self._persistence = persistence
        self._backend: Backend | None = None
        self._root_level = logging.WARNING  # what it was before `__aenter__`
        self._inline_calls = 0

    async def __aenter__(self) -> Self:
        # A server shows what functions log from INFO on; so does this.
        root = logging.getLogger()
        self._root_level = root.level
        root.setLevel(min(root.level, logging.INFO))
        app = self._load()
        try:
            self._backend = await Backend.open(
                Settings(redact=False, limits=self._limits),
                app=app,
                runtime=self.runtime,
                persistence=self._persistence or MemoryPersistence(self._limits),
            )
        except BaseException:
            if app is not self._app:
                app.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logging.getLogger().setLevel(self._root_level)
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()
            if backend.runner.app is not self._app:
                backend.runner.app.close()

    def _load(self) -> App:
        if isinstance(self._app, App):
            return self._app
        if self._app is not None:
            return load_app(Path(self._app))
        return build_app(schema=self._schema, functions=self._functions)

    @property
    def backend(self) -> Backend:
        """The deployment itself, for what has no shorter way here."""
        assert self._backend is not None, "the backend is not open: use `async with TestBackend(…)`"
        return self._backend

    @property
    def now_ms(self) -> float:
        """What the clock shows: Unix milliseconds, as `ctx.now`."""
        return self.runtime.now_ns() / 1e6

    async def advance(self, duration: timedelta, /) -> None:
        """Move the clock; what is due until then happens in order.

        Raises   TypeError for a bare number
        """
        await self.runtime.advance(duration)

    async def finish_scheduled_functions(self) -> None:
        """Wait until nothing that is due is left to run.

        Functions cannot be scheduled in this release, so it returns at once.
        """

    async def run(self, work: Callable[[MutationCtx], Awaitable[T]], /) -> T:
        """Run a piece of code with a mutation's ctx, in one transaction that is committed.

        It runs again when it loses a race, as a mutation does.

        Raises   what `work` raises; then nothing was written
        """
        results: list[T] = []
        errors: list[Exception] = []

        async def inline(ctx: MutationCtx) -> None:
            results.clear()
            errors.clear()
            try:
                results.append(await work(ctx))
            except Exception as error:
                errors.append(error)
                raise

        self._inline_calls += 1
        path = f"_system/testing.js:run{self._inline_calls}"
        function = FunctionDef(FunctionKind.MUTATION, "internal", inline, args=v.object({}))
        runner = self.backend.runner
        runner.system_functions = {**runner.system_functions, path: function.at(path)}
        try:
            outcome = await runner.mutation(path, {}, self._caller)
        finally:
            left = {name: each for name, each in runner.system_functions.items() if name != path}
            runner.system_functions = left
        if errors:
            raise errors[0]
        self.value_of(outcome)
        return results[0]

    def path_of(self, function: object) -> str:
        """The canonical path of a function, given as path, reference or the function itself."""
        return self.backend.runner.app.resolve(function)

    def value_of(self, outcome: Outcome) -> Any:
        """The value a call came to; its log lines are kept.

        Raises   ConvexError, FunctionError
        """
        self.log_lines.extend(outcome.log_lines)
        if not isinstance(outcome, Failure):
            return loads(outcome.value)
        if outcome.data is not None:
            raise ConvexError(loads(outcome.data))
        raise FunctionError(outcome.message.rstrip("\n"), outcome.log_lines)
