"""The real engine for tests: in memory, under a clock that stands still, called without a socket.

`TestBackend` is a deployment of its own: schema, functions, live queries, everything that `serve`
runs except the network. Nothing in it is a stand-in but the disk and the clock.

Callers are trusted: internal functions may be called, as an administrator may.

Source of facts: docs/reference/api.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeVar

from reactive_store.auth.identity import Caller, Identity, RequestSource
from reactive_store.backend import Backend
from reactive_store.blobs.contract import BlobStore
from reactive_store.config import Settings
from reactive_store.errors import ConvexError, StoreFailed
from reactive_store.functions.app import App
from reactive_store.functions.context import MutationCtx
from reactive_store.functions.definitions import FunctionDef, FunctionKind
from reactive_store.functions.live_queries import Watch
from reactive_store.functions.loader import build_app, load_app
from reactive_store.functions.names import to_wire
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.functions.runner import Runner
from reactive_store.functions.storage import StorageActionWriter, with_bytes
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Persistence
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.schema.tables import Schema
from reactive_store.schema.validators import v
from reactive_store.testing.site import HttpResponse, fetch
from reactive_store.testing.virtual_runtime import VirtualRuntime
from reactive_store.values.wire import dumps, from_json, loads

__all__ = ["FunctionError", "LiveValue", "TestBackend", "TestCaller"]

T = TypeVar("T")

_ISSUER: Final = "https://convex.test"
_SUBJECT: Final = "user"
_PATIENCE_S: Final = 5.0
_BREATH_S: Final = 0.001
_PATIENT_ROUNDS: Final = 500  # of the event loop, in which no scheduled function begins or ends

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


class _RunCtx(MutationCtx):
    """What `run` hands over: a mutation's ctx that can store and read files as well."""

    __slots__ = ()

    @property
    def storage(self) -> StorageActionWriter:
        return with_bytes(super().storage)


class TestCaller:
    """Calls functions on somebody's behalf."""

    __test__ = False  # not a class of tests, whatever its name says

    def __init__(self, owner: TestBackend, caller: Caller) -> None:
        self._owner = owner
        self._caller = caller

    async def query(self, function: object, /, **args: Any) -> Any:
        """Run a query.

        Shapes   function: its path, a reference or the function itself; args by name, in either
                 spelling. Or a coroutine function of the test, `async def look(ctx)`, which runs
                 as a query
        Raises   ConvexError as the app raised it; FunctionError for everything else that fails;
                 BadRequest for a path that names no function; what a function of the test raises
        """
        return await self._call(FunctionKind.QUERY, function, args)

    async def mutation(self, function: object, /, **args: Any) -> Any:
        """Run a mutation; it is committed, and live queries know, when this returns.

        Raises   as `query`
        """
        return await self._call(FunctionKind.MUTATION, function, args)

    async def action(self, function: object, /, **args: Any) -> Any:
        """Run an action.

        Raises   as `query`
        """
        return await self._call(FunctionKind.ACTION, function, args)

    async def run(self, work: Callable[[MutationCtx], Awaitable[T]], /) -> T:
        """Run a piece of code with a mutation's ctx, in one transaction that is committed.

        It runs again when it loses a race, as a mutation does. `ctx.storage` is that of an action.

        Raises   what `work` raises; then nothing was written
        """
        results: list[T] = []

        async def keeping(ctx: MutationCtx) -> None:
            results.clear()
            results.append(await work(_RunCtx.extend(ctx)))

        await self._call(FunctionKind.MUTATION, keeping, {})
        return results[0]

    async def fetch(
        self,
        path: str,
        /,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        json: Any = None,
    ) -> HttpResponse:
        """Send a request to the app's own HTTP routes.

        Shapes   path: as on the site port, with the query string if there is one
        Raises   ValueError for a path without a slash in front. A handler that fails is a response
                 with status 500
        """
        owner, caller = self._owner, self._caller
        is_somebody = caller.identity is not None or caller.request is not None
        response, outcome = await fetch(
            owner.backend,
            path,
            method=method,
            headers=headers,
            body=body,
            json_body=json,
            caller=caller if is_somebody else None,
        )
        if outcome is not None:
            owner.log_lines.extend(outcome.log_lines)
        return response

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
        identity = Identity.from_attributes(given)
        return TestCaller(self._owner, replace(self._caller, identity=identity))

    def with_request_metadata(
        self, *, ip: str | None = None, user_agent: str | None = None, request_id: str = "test"
    ) -> TestCaller:
        """The same caller, coming from somewhere: what `ctx.meta.get_request_metadata` tells."""
        source = RequestSource(ip, user_agent, request_id)
        return TestCaller(self._owner, replace(self._caller, request=source))

    async def _call(self, kind: FunctionKind, function: object, args: Mapping[str, Any]) -> Any:
        owner = self._owner
        if iscoroutinefunction(function) and not isinstance(function, FunctionDef):
            return await owner._call_inline(kind, function, args, self._caller)
        path = owner.path_of(function)
        return owner.value_of(await _entry(owner.backend.runner, kind)(path, args, self._caller))


class TestBackend(TestCaller):
    """A deployment for one test: `async with TestBackend(schema=…, functions=…) as t`.

    Shapes   functions: a folder, or a package (the module or its dotted name). schema: without it,
             `schema.py` beside the functions counts. app: instead of both, an App or the folder of
             one. persistence, blobs: instead of new ones in memory; they are closed at the end
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
        blobs: BlobStore | None = None,
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
        self._blobs = blobs  # where files are kept; None: in memory
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
                blobs=self._blobs,
            )
        except BaseException:
            if app is not self._app:
                app.close()
            raise
        self.runtime.settle = self._settle
        await self._settle()  # crons that begin at once have run
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
        """Move the clock; what is due until then happens in order, each at its own time.

        Scheduled functions and crons have run when this returns, save actions that wait for
        something other than the clock.

        Raises   TypeError for a bare number
        """
        await self.runtime.advance(duration)

    async def finish_scheduled_functions(self, timeout: float = _PATIENCE_S) -> None:
        """Wait until no scheduled function or cron runs, and none is due. The clock stands still.

        What they schedule in turn counts when it is due at once. `timeout` is in real seconds.

        Raises   TimeoutError naming what still runs
        """
        try:
            async with asyncio.timeout(timeout):
                await self._settle()
                while not self._is_quiet():
                    await asyncio.sleep(_BREATH_S)
                    await self._settle()
        except TimeoutError:
            running = ", ".join(self.backend.jobs.running) or "a cron"
            raise TimeoutError(f"not finished within {timeout:g} s: {running}") from None

    def _is_quiet(self) -> bool:
        backend = self._backend
        return backend is None or (backend.jobs.is_quiet and backend.crons.is_quiet)

    async def _settle(self) -> None:
        """Let what is due run, as far as it gets without the clock."""
        backend = self._backend
        if backend is None:
            return
        committer = backend.database.committer
        seen, rounds = -1, 0
        while committer.pending or not self._is_quiet():
            if committer.pending:
                with contextlib.suppress(StoreFailed):
                    await committer.wait_durable(committer.accepted_ts)
            progress = backend.jobs.progress + backend.crons.progress
            seen, rounds = progress, rounds + 1 if progress == seen else 0
            if rounds > _PATIENT_ROUNDS:
                return  # it waits for the clock, or for something outside
            await asyncio.sleep(0)

    async def _call_inline(
        self,
        kind: FunctionKind,
        work: Callable[..., Awaitable[Any]],
        args: Mapping[str, Any],
        caller: Caller,
    ) -> Any:
        """Run a coroutine function that no app has, as if one had it.

        Raises   what it raises
        """
        errors: list[Exception] = []

        async def inline(ctx: Any, **given: Any) -> Any:
            errors.clear()
            try:
                return await work(ctx, **given)
            except Exception as error:
                errors.append(error)
                raise

        self._inline_calls += 1
        path = f"_system/testing.js:inline{self._inline_calls}"
        function = FunctionDef(kind, "internal", inline, args=v.any())
        runner = self.backend.runner
        runner.system_functions = {**runner.system_functions, path: function.at(path)}
        try:
            outcome = await _entry(runner, kind)(path, args, caller)
        finally:
            left = {name: each for name, each in runner.system_functions.items() if name != path}
            runner.system_functions = left
        if errors and isinstance(outcome, Failure):
            self.log_lines.extend(outcome.log_lines)
            raise errors[0]
        return self.value_of(outcome)

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


def _entry(runner: Runner, kind: FunctionKind) -> Callable[..., Awaitable[Outcome]]:
    if kind is FunctionKind.QUERY:
        return runner.query
    return runner.mutation if kind is FunctionKind.MUTATION else runner.action
