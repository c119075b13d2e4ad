"""A whole deployment in this process, with users who have something to hide, and no network.

Its clock and chance are seeded, its disk is memory, everything else is the product: requests enter
where uvicorn would hand them over. Users are known by made-up tokens instead of an identity
provider, so that a user is not an administrator, as in production.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import ANONYMOUS, Caller, Identity
from reactive_store.auth.keys import AdminKeys
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.app import App
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Success
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.server.app import app_for
from reactive_store.testing.virtual_runtime import VirtualRuntime

__all__ = ["APP", "ALICE_TOKEN", "BOB_TOKEN", "Answer", "Deployment", "secrets_of_alice"]

APP = Path(__file__).resolve().parent / "app"
ALICE_TOKEN = "e30.eyJpc3MiOiJhbGljZSJ9.c2VhbC1hbGljZS03MzE1"
BOB_TOKEN = "e30.eyJpc3MiOiJib2IifQ.c2VhbC1ib2ItOTI3Nw"
_NOTES = 7
_LOGGERS = ("reactive_store", "uvicorn.error")
# Longer than any input of these tests needs; an input that takes longer is one that hangs.
BOUND_SECONDS = 10.0


def secrets_of_alice() -> tuple[str, ...]:
    """Texts that nobody but Alice may read."""
    return tuple(f"ALICE-SECRET-{number}" for number in range(_NOTES))


class _Tokens(Authenticator):
    """Alice's and Bob's tokens are good; every other credential is judged by the product."""

    __slots__ = ()

    async def authenticate(self, token: str) -> Caller:
        for name, good in (("alice", ALICE_TOKEN), ("bob", BOB_TOKEN)):
            if token == good:
                attributes = {"issuer": "https://id.test", "subject": name}
                return Caller(Identity.from_attributes(attributes))
        return await super().authenticate(token)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request. `status` 0: nothing, or not in time."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The value of a function's answer.

        Raises   AssertionError when it is another answer
        """
        answer = json.loads(self.body) if self.body else {}
        assert answer.get("status") == "success", (self.status, self.body[:300])
        return answer["value"]


class _Bugs(logging.Handler):
    """Keeps what is logged with a traceback."""

    def __init__(self, bugs: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._bugs = bugs

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._bugs.append(self.format(record))


class Deployment:
    """`async with Deployment(seed=…) as d`: the fuzzed app, with notes of Alice and of Bob."""

    def __init__(self, *, seed: int = 0, redact: bool = True, **limits: Any) -> None:
        self.redact = redact
        self.runtime = VirtualRuntime(seed=seed)
        self._settings = Settings(redact=redact, limits=Limits(**limits))
        self._app: App | None = None
        self.backend: Backend
        self.web: Starlette
        # What Bob could have stolen: cursors, journals and ids that are Alice's.
        self.stolen: list[str] = []
        self.own: list[str] = []  # the same of Bob himself
        self._levels: dict[str, int] = {}
        # What the product has logged as a bug of its own; no input may make it.
        self.bugs: list[str] = []
        self._bug_handler = _Bugs(self.bugs)

    async def __aenter__(self) -> Self:
        # Refusals are logged by the thousand here.
        self._levels = {name: logging.getLogger(name).level for name in _LOGGERS}
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.ERROR)
            logger.addHandler(self._bug_handler)
            logger.propagate = False
        self._app = load_app(APP)
        self.backend = await Backend.open(
            self._settings,
            app=self._app,
            runtime=self.runtime,
            persistence=MemoryPersistence(self._settings.limits),
        )
        keys: AdminKeys = self.backend.admin_keys
        self.backend.authenticator = _Tokens(keys)
        self.web = app_for(self.backend)
        for name, text, found in (
            ("alice", "ALICE-SECRET", self.stolen),
            ("bob", "BOB-NOTE", self.own),
        ):
            caller = await self.caller(ALICE_TOKEN if name == "alice" else BOB_TOKEN)
            for number in range(_NOTES):
                await self._run("notes:write", {"text": f"{text}-{number}"}, caller)
            page = await self._page(caller)
            found += [page["continueCursor"], page["splitCursor"]]
            found += [note["_id"] for note in page["page"][:2]]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.backend.close()
        assert self._app is not None
        self._app.close()
        for name, level in self._levels.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.removeHandler(self._bug_handler)
            logger.propagate = True

    @property
    def admin_key(self) -> str:
        return self.backend.admin_keys.issue()

    async def caller(self, token: str | None) -> Caller:
        """Who a token belongs to."""
        if token is None:
            return ANONYMOUS
        return await self.backend.authenticator.authenticate(token)

    async def _run(self, path: str, args: dict[str, Any], caller: Caller) -> Any:
        outcome = await self.backend.runner.any_kind(f"{path}".replace(":", ".js:"), args, caller)
        assert isinstance(outcome, Success), outcome
        return json.loads(outcome.value)

    async def _page(self, caller: Caller) -> dict[str, Any]:
        options = {"paginationOpts": {"numItems": 4, "cursor": None}}
        page: dict[str, Any] = await self._run("notes:mine", options, caller)
        return page

    async def request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: Sequence[bytes] = (b"",),
    ) -> Answer:
        """One request, its body in chunks. An exception that reaches uvicorn is status 599."""
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "query_string": query.encode("latin-1", "replace"),
            "root_path": "",
            "headers": list(headers),
            "server": ("store.test", 80),
            "client": ("peer.test", 1),
            "state": {},
        }
        chunks = list(body)
        status, found, parts = 0, {}, []

        async def receive() -> dict[str, Any]:
            if not chunks:
                return {"type": "http.disconnect"}
            chunk = chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found.update({k.decode(): v.decode("latin-1") for k, v in message["headers"]})
            else:
                parts.append(message.get("body", b""))

        try:
            async with asyncio.timeout(BOUND_SECONDS):
                await self.web(scope, receive, send)
        except TimeoutError:
            return Answer(0, {}, b"no answer in time")
        except Exception as error:  # what uvicorn would log as a bug and answer with a bare 500
            return Answer(599, {}, repr(error).encode("utf-8", "replace"))
        return Answer(status, found, b"".join(parts))

    async def post(self, path: str, fields: Any, token: str | None = None) -> Answer:
        """A well-formed call."""
        headers = [(b"content-type", b"application/json")]
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        return await self.request("POST", path, headers, [json.dumps(fields).encode()])

    async def canary(self, number: int = 41) -> None:
        """The right answer to an honest question, and Alice still sees what is hers.

        Raises   AssertionError
        """
        answer = await self.post("/api/query", {"path": "odds:canary", "args": {"number": number}})
        assert answer.value == number + 1, answer
        texts = await self.post("/api/query", {"path": "notes:texts"}, ALICE_TOKEN)
        assert texts.value[:_NOTES] == list(secrets_of_alice()), texts

    async def is_idle(self, seconds: float = 5.0) -> str | None:
        """Nothing is watched, no task runs beside the backend's own; else what is left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            left = self.backend.statistics()
            names = sorted(
                task.get_name()
                for task in asyncio.all_tasks()
                if task is not asyncio.current_task() and task.get_name().startswith("sync")
            )
            names = [name for name in names if name != "sync ticker"]
            # Loops that wait for documents of ours have one each.
            loops = (self.backend.jobs, self.backend.crons, self.backend._finished_jobs)
            waiting = sum(each.is_quiet for each in loops)
            subscriptions = left.database.subscriptions - waiting
            if left.live_queries == 0 and subscriptions == 0 and not names:
                return None
            if loop.time() > deadline:
                return (
                    f"{left.live_queries} live queries, {subscriptions} subscriptions, "
                    f"tasks {names}"
                )
            await asyncio.sleep(0.005)
