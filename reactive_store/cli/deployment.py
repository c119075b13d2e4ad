"""The deployment a command talks to: a running one over the network, a stopped one in process.

Both answer in the same words. Which one it is follows from who holds the data folder: a server that
runs is asked over HTTP, with the admin key of its data; otherwise this process takes the folder,
loads the app and runs the same engine.
"""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from reactive_store.auth.identity import Caller, Identity
from reactive_store.backend import Backend
from reactive_store.cli.admin_key import read_admin_key
from reactive_store.client.live_query import watch_query
from reactive_store.config import Settings, load_settings
from reactive_store.errors import BadRequest, NotFound
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.persistence.data_lock import read_owner
from reactive_store.sync.protocol import QueryFailed

__all__ = ["Answer", "Deployment", "Target", "open_deployment"]

_SECONDS: Final = 600.0  # an action may take that long
_CLIENT: Final = "reactive-store-cli-1.0.0"

ActingAs = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to. Values are encoded JSON, parsed."""

    value: Any
    log_lines: tuple[str, ...] = ()
    error: str | None = None  # then there is no value
    error_data: Any = None

    @property
    def is_hidden(self) -> bool:
        """Whether the deployment kept the text of the error to itself."""
        return self.error is not None and self.error.endswith("] Server Error")


@dataclass(frozen=True, slots=True)
class Target:
    """Which deployment is meant, as options say it."""

    app: Path
    data: Path | None = None
    url: str | None = None
    admin_key: str | None = None


class Deployment(Protocol):
    """What commands ask a deployment for."""

    async def call(self, path: str, args: bytes, acting_as: ActingAs = None) -> Answer:
        """Run a function of any kind and visibility. `args`: one encoded object."""
        ...

    def watch(self, path: str, args: bytes, acting_as: ActingAs = None) -> AsyncIterator[Answer]:
        """A query's value now, then each new one, for ever."""
        ...

    async def change_environment(self, changes: Mapping[str, str | None]) -> None:
        """Set variables; None removes."""
        ...


@asynccontextmanager
async def open_deployment(target: Target) -> AsyncIterator[Deployment]:
    """The deployment, for as long as the block lasts.

    Raises   BadRequest when the options do not fit together or the app cannot be loaded; NotFound
             when a server that should run cannot be reached
    """
    if target.url is not None:
        if target.admin_key is None:
            raise BadRequest(
                "--url needs --admin-key: `reactive-store keys admin` prints it where the data is"
            )
        yield RunningDeployment(target.url, target.admin_key)
        return
    settings = load_settings(target.app, data=target.data, redact=False)
    owner = read_owner(settings.data)
    if owner is None:
        app = load_app(settings.app, schema=settings.schema_file, functions=settings.functions)
        logging.getLogger().setLevel(logging.INFO)  # what functions log, as a server shows it
        backend = await Backend.open(settings, app=app)
        try:
            yield StoppedDeployment(backend)
        finally:
            await backend.close()
            app.close()
    elif owner.url is None:
        raise NotFound(
            f"The data folder {settings.data} is in use by {owner}, which serves no URL (yet). "
            "Try again in a moment, or stop that process.",
            code="NotServing",
        )
    else:
        yield RunningDeployment(owner.url, await _key_of_running(settings))


async def _key_of_running(settings: Settings) -> str:
    return await asyncio.to_thread(read_admin_key, settings)


class StoppedDeployment:
    """A deployment opened by this process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def call(self, path: str, args: bytes, acting_as: ActingAs = None) -> Answer:
        """As `Deployment.call`."""
        return _answer_of(await self._backend.runner.any_kind(path, args, _caller(acting_as)))

    async def watch(
        self, path: str, args: bytes, acting_as: ActingAs = None
    ) -> AsyncIterator[Answer]:
        """As `Deployment.watch`."""
        changed = asyncio.Event()
        live_queries, database = self._backend.live_queries, self._backend.database
        watch = live_queries.watch(path, args, _caller(acting_as), None, changed.set)
        try:
            while True:
                result = await watch.result(database.latest_ts)
                yield _answer_of_json(json.loads(b"{" + result.modification))
                await changed.wait()
                changed.clear()
        finally:
            watch.close()

    async def change_environment(self, changes: Mapping[str, str | None]) -> None:
        """As `Deployment.change_environment`."""
        await self._backend.environment.update(changes)


class RunningDeployment:
    """A deployment served by another process, here or elsewhere."""

    def __init__(self, url: str, admin_key: str) -> None:
        self._url = url.rstrip("/")
        self._admin_key = admin_key

    async def call(self, path: str, args: bytes, acting_as: ActingAs = None) -> Answer:
        """As `Deployment.call`."""
        body = {"path": path, "format": "convex_encoded_json", "args": json.loads(args)}
        return _answer_of_json(await self._post("/api/function", body, acting_as))

    async def watch(
        self, path: str, args: bytes, acting_as: ActingAs = None
    ) -> AsyncIterator[Answer]:
        """As `Deployment.watch`."""
        results = watch_query(self._url, path, args, admin_key=self._admin_key, acting_as=acting_as)
        async for result in results:
            if isinstance(result, QueryFailed):
                data = result.error_data
                yield Answer(
                    None,
                    result.log_lines,
                    result.error_message,
                    None if data is None else json.loads(data),
                )
            else:
                yield Answer(json.loads(result.value), result.log_lines)

    async def change_environment(self, changes: Mapping[str, str | None]) -> None:
        """As `Deployment.change_environment`."""
        listed = [{"name": name, "value": value} for name, value in changes.items()]
        await self._post("/api/update_environment_variables", {"changes": listed}, None)

    async def _post(self, path: str, body: object, acting_as: ActingAs) -> Any:
        return await asyncio.to_thread(self._post_and_wait, path, body, acting_as)

    def _post_and_wait(self, path: str, body: object, acting_as: ActingAs) -> Any:
        authorization = f"Convex {self._admin_key}"
        if acting_as is not None:
            authorization += ":" + b64encode(json.dumps(dict(acting_as)).encode()).decode()
        if not self._url.startswith(("http://", "https://")):
            raise BadRequest(f"{self._url!r} is no URL: it starts with http:// or https://")
        request = Request(  # noqa: S310 - http and https only, as checked
            self._url + path,
            json.dumps(body).encode(),
            {
                "Authorization": authorization,
                "Content-Type": "application/json",
                "Convex-Client": _CLIENT,
            },
        )
        try:
            with urlopen(request, timeout=_SECONDS) as response:  # noqa: S310 - as above
                text = response.read()
        except HTTPError as error:
            raise _refusal(error, self._url) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise NotFound(
                f"{self._url} cannot be reached: {reason}", code="Unreachable"
            ) from error
        return json.loads(text) if text else None


def _refusal(error: HTTPError, url: str) -> BadRequest:
    """A response that is no answer, in its own words where it has some."""
    try:
        body = json.loads(error.read())
        return BadRequest(str(body["message"]), code=str(body["code"]))
    except (OSError, ValueError, KeyError, TypeError):
        return BadRequest(f"{url} answered with status {error.code}: {error.reason}")


def _caller(acting_as: ActingAs) -> Caller:
    identity = None if acting_as is None else Identity.from_attributes(acting_as)
    return Caller(identity, is_admin=True)


def _answer_of(outcome: Outcome) -> Answer:
    if isinstance(outcome, Failure):
        data = None if outcome.data is None else json.loads(outcome.data)
        return Answer(None, outcome.log_lines, outcome.message.rstrip("\n"), data)
    return Answer(json.loads(outcome.value), outcome.log_lines)


def _answer_of_json(answer: dict[str, Any]) -> Answer:
    lines = tuple(answer.get("logLines") or ())
    if "errorMessage" not in answer:
        return Answer(answer["value"], lines)
    return Answer(None, lines, answer["errorMessage"].rstrip("\n"), answer.get("errorData"))
