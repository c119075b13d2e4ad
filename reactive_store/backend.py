"""The composition root: the one place that chooses implementations and puts the parts together.

    Backend.open(settings, app=…)   lock the data, open it, put the schema in force, start the loops
    backend.reload(app)             the same for new code; a failed reload changes nothing
    backend.close()                 make what was accepted durable, let go

Everything above (server, command line, tests) receives a `Backend`; nothing below knows one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.development import DevelopmentIssuer
from reactive_store.auth.keys import SECRET_BYTES, AdminKeys
from reactive_store.blobs.contract import BlobStore
from reactive_store.blobs.location import open_blobs
from reactive_store.blobs.memory import MemoryBlobs
from reactive_store.config import Settings
from reactive_store.engine.database import Database, DatabaseStatistics
from reactive_store.engine.retention import Retention
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.functions.app import App
from reactive_store.functions.determinism import refuse_effects
from reactive_store.functions.environment import (
    BuiltInVariables,
    change_environment,
    read_environment,
)
from reactive_store.functions.execution import Environs
from reactive_store.functions.live_queries import LiveQueries, LiveQueryCounters
from reactive_store.functions.logs import LogCapture
from reactive_store.functions.metering import Watchdog
from reactive_store.functions.pagination import CursorCodec
from reactive_store.functions.runner import Runner, RunnerCounters
from reactive_store.functions.stored_files import FileCounters, StoredFiles
from reactive_store.functions.system import system_functions
from reactive_store.functions.unawaited import notice_unawaited
from reactive_store.persistence.contract import Persistence
from reactive_store.persistence.data_lock import DataLock
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import Runtime, SystemRuntime
from reactive_store.scheduling.blob_garbage import BlobGarbage
from reactive_store.scheduling.crons import CronRuns
from reactive_store.scheduling.jobs import FinishedJobs, Jobs

__all__ = [
    "DATABASE_FILE",
    "INSTANCE_NAME",
    "INSTANCE_SECRET",
    "Backend",
    "DeploymentEnvironment",
    "Statistics",
    "database_path",
    "load_instance",
]

_LOG = logging.getLogger(__name__)

DATABASE_FILE: Final = "data.sqlite3"
INSTANCE_SECRET: Final = "instance_secret"  # noqa: S105 - the name of a global, not a secret
INSTANCE_NAME: Final = "instance_name"
_DEFAULT_NAME: Final = "reactive-store"


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much has happened since the start, and how much is held."""

    database: DatabaseStatistics
    functions: RunnerCounters
    live: LiveQueryCounters
    live_queries: int
    files: FileCounters


class DeploymentEnvironment:
    """The deployment's environment variables, as administrators change them."""

    def __init__(self, database: Database, runner: Runner) -> None:
        self._database = database
        self._runner = runner

    async def all(self) -> Mapping[str, str]:
        """Every variable, by name."""
        return read_environment(self._database.begin())

    async def update(self, changes: Mapping[str, str | None]) -> None:
        """Set variables, or remove those given as None; all or none. Durable on return.

        Raises   BadRequest naming the variable
        """

        async def work(transaction: Transaction) -> None:
            change_environment(transaction, changes)

        await self._runner.transact(work)


class Backend:
    """One deployment, running."""

    def __init__(
        self,
        settings: Settings,
        *,
        app: App,
        runtime: Runtime,
        database: Database,
        secret: bytes,
        name: str,
        lock: DataLock | None,
        blobs: BlobStore,
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.runtime = runtime
        self.database = database
        self.instance_name = name
        self.admin_keys = AdminKeys(name, secret)
        self.authenticator = Authenticator(
            self.admin_keys, runtime=runtime, limits=settings.limits, redact=settings.redact
        )
        self.authenticator.configure(app.providers)
        # Vouches for users as well, once `accept_development_tokens` was called.
        self.development_issuer = DevelopmentIssuer(secret)
        self.accepts_development_tokens = False
        self._watchdog = Watchdog(settings.limits.compute_seconds, runtime.monotonic_s)
        self._addresses = _addresses(settings)
        self.files = StoredFiles(
            blobs,
            runtime=runtime,
            limits=settings.limits,
            secret=secret,
            origin=lambda: self._addresses.cloud_url,
        )
        environs = Environs(
            runtime,
            settings.limits,
            CursorCodec(secret),
            self._watchdog,
            self.files,
            self._addresses,
            name,
        )
        # Where it can be reached: as configured, else as announced; None before that.
        self.url = settings.origin
        self.runner = Runner(database, app, environs)
        self.runner.system_functions = system_functions(lambda: self.runner.app, lambda: self.url)
        self.live_queries = LiveQueries(self.runner, database, runtime, redact=settings.redact)
        self.environment = DeploymentEnvironment(database, self.runner)
        self._lock = lock
        self._retention = Retention(database)
        self.jobs = Jobs(database, self.runner, runtime, settings.limits)
        self.crons = CronRuns(database, self.runner, runtime, settings.limits)
        self._finished_jobs = FinishedJobs(database, runtime, settings.limits)
        self._loops: list[asyncio.Task[None]] = []
        self._reloading = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        app: App,
        runtime: Runtime | None = None,
        persistence: Persistence | None = None,
        blobs: BlobStore | None = None,
    ) -> Backend:
        """Open the data and put the app in force.

        With `persistence` given (tests), nothing is locked and no file is touched; files are kept
        in memory then, unless the settings or `blobs` say where.

        Raises   BadRequest when the data is in use, of a newer version, or does not fit the schema
        """
        runtime = SystemRuntime() if runtime is None else runtime
        lock: DataLock | None = None
        database: Database | None = None
        if blobs is None and persistence is not None and settings.files is None:
            blobs = MemoryBlobs(runtime)
        try:
            if persistence is None:
                lock = DataLock(settings.data, runtime=runtime)
                lock.acquire()
                persistence = await SqlitePersistence.open(
                    database_path(settings),
                    synchronous="FULL" if settings.durability == "full" else "NORMAL",
                    limits=settings.limits,
                )
            secret, name = await load_instance(persistence, runtime)
            if blobs is None:
                blobs = await open_blobs(
                    settings.files,
                    data=settings.data,
                    durable=settings.durability == "full",
                    owner=blake2b(key=secret, person=b"owner of files", digest_size=16).hexdigest(),
                    runtime=runtime,
                )
            database = await Database.open(
                persistence,
                runtime=runtime,
                limits=settings.limits,
                memory_bytes=settings.memory,
            )
            await apply_schema(database, app.schema)
            backend = cls(
                settings,
                app=app,
                runtime=runtime,
                database=database,
                secret=secret,
                name=name,
                lock=lock,
                blobs=blobs,
            )
            async with backend.crons.deploying(app):
                pass
        except BaseException:
            if blobs is not None:
                await blobs.close()
            if database is not None:
                await database.close()
            elif persistence is not None:
                await persistence.close()
            if lock is not None:
                lock.release()
            raise
        backend._start()
        return backend

    def _start(self) -> None:
        LogCapture.install()
        notice_unawaited()
        refuse_effects()
        self._watchdog.start()
        self._loops.append(self.runtime.spawn(self._retention.run(), name="retention"))
        garbage = BlobGarbage(self.database, self.files)
        self._loops.append(self.runtime.spawn(garbage.run(), name="garbage of files"))
        self._loops.append(self.runtime.spawn(self.jobs.run(), name="jobs"))
        self._loops.append(self.runtime.spawn(self.crons.run(), name="crons"))
        self._loops.append(self.runtime.spawn(self._finished_jobs.run(), name="finished jobs"))

    async def reload(self, app: App) -> None:
        """Put new code and its schema in force. Running functions finish on the old code.

        Raises   BadRequest when stored documents do not fit; the old app stays in force
        """
        async with self._reloading:
            await self.database.vectors.prepare(app.schema)
            await apply_schema(self.database, app.schema)
            async with self.crons.deploying(app):
                old, self.runner.app = self.runner.app, app
            self._configure_authenticator()
            self.live_queries.invalidate_all()
            if old is not app:
                old.close()

    def accept_development_tokens(self) -> None:
        """Let the deployment's own issuer vouch for users too, as is right on one's own machine."""
        self.accepts_development_tokens = True
        self._configure_authenticator()

    def _configure_authenticator(self) -> None:
        own = (self.development_issuer.provider,) if self.accepts_development_tokens else ()
        self.authenticator.configure((*self.runner.app.providers, *own))

    def announce(self, url: str) -> None:
        """Let other processes, and functions that ask, know where this deployment serves."""
        self.url = self._addresses.cloud_url = self.settings.origin or url
        if self._lock is not None:
            self._lock.set_url(url)

    def announce_site(self, url: str) -> None:
        """Let functions that ask know where the app's own HTTP routes are served."""
        self._addresses.site_url = self.settings.site_origin or url

    def statistics(self) -> Statistics:
        """Counters since the start and present sizes."""
        return Statistics(
            database=self.database.statistics(),
            functions=self.runner.counters,
            live=self.live_queries.counters,
            live_queries=len(self.live_queries),
            files=self.files.counters,
        )

    async def close(self) -> None:
        """Make what was accepted durable and let go of the data. Idempotent."""
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self._watchdog.stop()
        await self.authenticator.close()
        try:
            await self.database.close()
            await self.files.blobs.close()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None


def _addresses(settings: Settings) -> BuiltInVariables:
    """Where the deployment will be, as far as the settings say."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    cloud = settings.origin or f"http://{host}:{settings.port}"
    site = settings.site_origin
    if site is None:
        site = f"http://{host}:{settings.site_port}" if settings.site_port else f"{cloud}/http"
    return BuiltInVariables(cloud, site)


def database_path(settings: Settings) -> Path:
    """The file of the embedded database. Its folder is there when this returns.

    Raises   BadRequest[InvalidSetting] for a `store` of another kind
    """
    if settings.store is None:
        return settings.data / DATABASE_FILE
    url = urlsplit(settings.store)
    if url.scheme != "sqlite" or url.netloc or not url.path.strip("/"):
        raise BadRequest(
            f"store = {settings.store!r} cannot be used: this release keeps data in SQLite, "
            "`sqlite:///relative/path` or `sqlite:////absolute/path`.",
            code="InvalidSetting",
        )
    path = Path(unquote(url.path[1:]))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


async def load_instance(persistence: Persistence, runtime: Runtime) -> tuple[bytes, str]:
    """The deployment's secret and name, made when the data is new. Both are durable on return."""
    secret = persistence.get_global(INSTANCE_SECRET)
    if secret is None:
        secret = runtime.random_bytes(SECRET_BYTES)
        await persistence.set_global(INSTANCE_SECRET, secret)
    name = persistence.get_global(INSTANCE_NAME)
    if name is None:
        name = _DEFAULT_NAME.encode()
        await persistence.set_global(INSTANCE_NAME, name)
    return secret, name.decode()
