"""A backend over a small app written in a test, in this process: memory below, no socket above."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from reactive_store.auth.identity import ANONYMOUS, Caller, Identity
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.app import App
from reactive_store.functions.live_queries import LiveQueries, LiveResult, Watch
from reactive_store.functions.loader import load_app
from reactive_store.functions.names import parse_path
from reactive_store.functions.outcome import Failure, Outcome, Success
from reactive_store.functions.runner import SessionRequest
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Persistence
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import Runtime
from reactive_store.values.wire import dumps, loads

ADMIN = Caller(None, is_admin=True)

_HEAD = """
import asyncio
from reactive_store import *
from reactive_store import UNSET, Int64, v
"""

INLINE = """
bodies = {}

@query
async def read(ctx, key: str):
    return await bodies[key](ctx)

@mutation
async def write(ctx, key: str):
    return await bodies[key](ctx)

@action
async def act(ctx, key: str):
    return await bodies[key](ctx)
"""
"""A module `inline` whose functions run what a test hands over: `store.reads(body)`."""

Body = Callable[[Any], Awaitable[Any]]


class FailedCall(Exception):
    """What a call came to when it did not succeed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @property
    def data(self) -> Any:
        return None if self.failure.data is None else loads(self.failure.data)


def user(name: str, **claims: Any) -> Caller:
    return Caller(
        Identity.from_attributes({"issuer": "https://id.test", "subject": name, **claims})
    )


def write_app(root: Path, modules: Mapping[str, str] | str, schema: str = "") -> App:
    """Load an app from sources; one text is the module `m`."""
    if isinstance(modules, str):
        modules = {"m": modules}
    for name, source in modules.items():
        file = root / "functions" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_HEAD + textwrap.dedent(source), encoding="utf-8")
    if schema:
        text = (
            f"from reactive_store import define_schema, define_table, v\n{textwrap.dedent(schema)}"
        )
        (root / "schema.py").write_text(text, encoding="utf-8")
    return load_app(root)


class Running:
    """A running backend, called as clients call it."""

    def __init__(self, backend: Backend, root: Path) -> None:
        self.backend = backend
        self.root = root
        self.runner = backend.runner
        self.database = backend.database

    @property
    def live(self) -> LiveQueries:
        return self.backend.live_queries

    @property
    def now(self) -> int:
        return self.database.latest_ts

    @property
    def subscriptions(self) -> int:
        """Those of live queries; loops that wait for documents of ours have one each."""
        backend = self.backend
        loops = (backend.jobs, backend.crons, backend._finished_jobs)
        waiting = sum(loop.is_quiet for loop in loops)
        return backend.statistics().database.subscriptions - waiting

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        root: Path,
        modules: Mapping[str, str] | str,
        *,
        schema: str = "",
        limits: Limits | None = None,
        runtime: Runtime | None = None,
        persistence: Persistence | None = None,
        on_disk: bool = False,
        redact: bool = False,
    ) -> AsyncIterator[Running]:
        app = write_app(root, modules, schema)
        settings = Settings(
            app=root,
            data=root / "data",
            limits=limits or Limits(),
            redact=redact,
            durability="normal",
        )
        below = None if on_disk else persistence or MemoryPersistence()
        backend = await Backend.open(settings, app=app, runtime=runtime, persistence=below)
        try:
            yield cls(backend, root)
        finally:
            await backend.close()
            app.close()

    async def outcome(
        self,
        kind: str,
        path: str,
        args: Mapping[str, Any],
        caller: Caller,
        **options: Any,
    ) -> Outcome:
        full = parse_path(path if ":" in path else f"m:{path}")
        return await getattr(self.runner, kind)(full, dumps(dict(args)), caller, **options)

    async def query(self, path: str, /, *, by: Caller = ANONYMOUS, **args: Any) -> Any:
        return value_of(await self.outcome("query", path, args, by))

    async def mutation(
        self, path: str, /, *, by: Caller = ANONYMOUS, at: SessionRequest | None = None, **args: Any
    ) -> Any:
        return value_of(await self.outcome("mutation", path, args, by, session=at))

    async def action(self, path: str, /, *, by: Caller = ANONYMOUS, **args: Any) -> Any:
        return value_of(await self.outcome("action", path, args, by))

    def keep(self, body: Body) -> str:
        """Where the inline functions find a body."""
        key = f"body {id(body)}"
        self.runner.app.functions["inline.js:read"].handler.__globals__["bodies"][key] = body
        return key

    async def reads(self, body: Body, *, by: Caller = ANONYMOUS) -> Any:
        return await self.query("inline:read", by=by, key=self.keep(body))

    async def writes(self, body: Body, *, by: Caller = ANONYMOUS) -> Any:
        return await self.mutation("inline:write", by=by, key=self.keep(body))

    async def acts(self, body: Body, *, by: Caller = ANONYMOUS) -> Any:
        return await self.action("inline:act", by=by, key=self.keep(body))

    def watches(self, body: Body, *, by: Caller = ANONYMOUS) -> Watched:
        return self.watch("inline:read", by=by, key=self.keep(body))

    def watch(self, path: str, /, *, by: Caller = ANONYMOUS, **args: Any) -> Watched:
        return Watched(self, path, args, by, None)


class Watched:
    """A watch that counts what it is told."""

    def __init__(
        self, running: Running, path: str, args: Mapping[str, Any], by: Caller, journal: str | None
    ) -> None:
        self.running = running
        self.told = 0
        full = parse_path(path if ":" in path else f"m:{path}")
        self.watch: Watch = running.live.watch(full, dumps(dict(args)), by, journal, self._tell)
        self.last: LiveResult | None = None

    def _tell(self) -> None:
        self.told += 1

    async def result(self, at: Any = None) -> LiveResult:
        at = self.running.now if at is None else at
        ready = self.watch.ready(at)
        self.last = await self.watch.result(at)
        assert ready is None or ready is self.last
        return self.last

    async def read(self, at: Any = None) -> Any:
        """The value; raises FailedCall's text when the query failed."""
        result = await self.result(at)
        content = loads(b"{" + result.modification)
        if result.failed:
            raise AssertionError(content["errorMessage"])
        return content["value"]

    def close(self) -> None:
        self.watch.close()


def value_of(outcome: Outcome) -> Any:
    if isinstance(outcome, Failure):
        raise FailedCall(outcome)
    assert isinstance(outcome, Success)
    return loads(outcome.value)
