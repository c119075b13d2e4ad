"""A backend that says what it is told to, and an HTTP client without a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import Caller
from reactive_store.auth.keys import AdminKeys
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Failure, Success
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.server.app import app_for
from reactive_store.testing.virtual_runtime import VirtualRuntime

LATEST_TS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Call:
    """What reached the runner."""

    kind: str
    path: str
    args: bytes
    caller: Caller
    at: int | None = None


@dataclass
class ScriptedRunner:
    """Answers every call with `outcome` (or raises it), and remembers the calls."""

    outcome: Success | Failure | Exception = field(default_factory=lambda: Success(b"null", ()))
    calls: list[Call] = field(default_factory=list)
    app: Any = field(default_factory=lambda: SimpleNamespace(http=None))

    async def query(self, path, args, caller, *, at=None, journal=None):
        return self._answer(Call("query", path, args, caller, at))

    async def mutation(self, path, args, caller, *, session=None):
        return self._answer(Call("mutation", path, args, caller))

    async def action(self, path, args, caller):
        return self._answer(Call("action", path, args, caller))

    async def any_kind(self, path, args, caller):
        return self._answer(Call("any", path, args, caller))

    def _answer(self, call: Call) -> Success | Failure:
        self.calls.append(call)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class ScriptedEnvironment:
    """Variables in a dict."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {"OLD": "1"}

    async def all(self) -> dict[str, str]:
        return dict(self.variables)

    async def update(self, changes) -> None:
        for name, value in changes.items():
            if value is None:
                self.variables.pop(name, None)
            else:
                self.variables[name] = value


@dataclass(frozen=True)
class Inner:
    commits: int = 3


@dataclass(frozen=True)
class Statistics:
    sessions: int = 2
    database: Inner = Inner()
    load: float = 0.5
    name: str = "not a number"


class ScriptedBackend:
    """The parts of a backend that the server touches."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(redact=False, **settings)
        self.limits: Limits = self.settings.limits
        self.runtime = SystemRuntime()
        self.instance_name = "test-store"
        self.admin_keys = AdminKeys(self.instance_name, bytes(32))
        self.authenticator = Authenticator(self.admin_keys)
        self.runner = ScriptedRunner()
        # Nothing is being watched, so queries reach the runner.
        self.live_queries = SimpleNamespace(query=self.runner.query)
        self.database = SimpleNamespace(latest_ts=LATEST_TS)
        self.environment = ScriptedEnvironment()
        self.closed = 0
        self.announced: list[str] = []
        self.announced_sites: list[str] = []

    def announce(self, url: str) -> None:
        self.announced.append(url)

    def announce_site(self, url: str) -> None:
        self.announced_sites.append(url)

    def statistics(self) -> Statistics:
        return Statistics()

    async def close(self) -> None:
        self.closed += 1

    @property
    def admin(self) -> dict[str, str]:
        """The header of an administrator."""
        return {"Authorization": f"Convex {self.admin_keys.issue()}"}


def client_for(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://store.test")


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def http(backend):
    async with client_for(app_for(backend)) as client:
        yield client


NOTES = """
from reactive_store.functions.context import MutationCtx, QueryCtx
from reactive_store.functions.definitions import mutation, query

@query
async def all(ctx: QueryCtx):
    return [doc["body"] for doc in await ctx.db.query("notes").collect()]

@mutation
async def add(ctx: MutationCtx, body: str):
    await ctx.db.insert("notes", {"body": body})

@mutation
async def source(ctx: MutationCtx):
    source = await ctx.meta.get_request_metadata()
    return [source.ip, source.user_agent, len(source.request_id), source.auth_token]
"""


@pytest.fixture
def notes_app(tmp_path) -> Path:
    """The directory of a small app."""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "notes.py").write_text(NOTES, encoding="utf-8")
    return tmp_path


@pytest.fixture
async def store(notes_app):
    """A real backend of that app, in memory, on virtual time."""
    backend = await Backend.open(
        Settings(app=notes_app, redact=False),
        app=load_app(notes_app),
        persistence=MemoryPersistence(),
        runtime=VirtualRuntime(),
    )
    yield backend
    await backend.close()
