"""Many clients of one deployment in this process, interleaved by a seed.

Nothing here is real but the product: the disk is in memory and takes as many turns of the event
loop for a write as the seed says, the clock stands still, a socket is two functions. So one seed
and one plan give one history, to the last turn. With another persistence (SQLite) the threads of
the disk have their say as well.

Half of the clients call the runner as HTTP does. The others are sessions: the protocol's two
machines joined without a network, with every key subscribed to, so that each transition they are
told is a transaction of the history.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.backend import Backend
from reactive_store.client.state import CallEnded, ClientState
from reactive_store.config import Settings
from reactive_store.errors import StoreError
from reactive_store.functions.app import App
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Outcome, Success
from reactive_store.persistence.contract import Commit, Persistence, Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.sync.frames import SharedFrame
from reactive_store.sync.messages import ClientVersion
from reactive_store.sync.protocol import MutationResponse, QueryUpdated
from reactive_store.sync.worker import Pump, Worker
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.trust.history.record import FAIL, NEVER_ASKED, UNKNOWN, Txn, numbered
from tests.trust.history.workload import KEYS, Plan, Step, decoded, ops_of

__all__ = ["APP", "Deployment", "Session", "SlowDisk", "run_plan"]

APP = Path(__file__).resolve().parent / "app"

_PATIENCE_S = 30.0  # longer than any history takes: somebody waits for ever

_APPS: dict[Path, App] = {}


class SlowDisk(MemoryPersistence):
    """Each write takes a seeded number of turns: commits are pending for different times."""

    def __init__(self, seed: int, most_turns: int = 12) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self._most_turns = most_turns

    async def append(self, commits: Sequence[Commit]) -> None:
        for _ in range(self._chance.randrange(self._most_turns)):
            await asyncio.sleep(0)
        await super().append(commits)


class Deployment:
    """A backend with the app of this folder, and the history of what its clients saw."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.pump = Pump(backend.runtime)
        self.history: list[Txn] = []
        self.closed: list[str] = []  # why the server closed sockets, when it did
        self._instant = 0

    @classmethod
    async def open(cls, seed: int, persistence: Persistence) -> Deployment:
        app = _APPS.get(APP)
        if app is None:
            app = _APPS[APP] = load_app(APP)
        settings = Settings(app=APP, data=APP / "never-written", redact=False)
        runtime = VirtualRuntime(seed=seed)
        return cls(await Backend.open(settings, app=app, runtime=runtime, persistence=persistence))

    async def close(self) -> None:
        await self.pump.close()
        await self.backend.close()

    def instant(self) -> float:
        """Now, later than every answer before."""
        self._instant += 1
        return float(self._instant)

    def note(self, txn: Txn) -> Txn:
        self.history.append(txn)
        return txn

    def note_outcome(self, txn: Txn, ops: Sequence[Sequence[Any]], outcome: Outcome | None) -> None:
        """What came of a transaction; None: nobody knows."""
        if outcome is None:
            txn.status, txn.ops = UNKNOWN, ops_of(ops, None)
            return
        txn.complete = self.instant()
        if isinstance(outcome, Success):
            txn.ops = ops_of(ops, decoded(outcome.value))
        else:
            txn.status, txn.ops = FAIL, ops_of(ops, None)


class Session:
    """A client with a socket: the machines of both ends, joined by function calls."""

    def __init__(
        self, deployment: Deployment, name: str, queries: Sequence[tuple[str, Any]]
    ) -> None:
        self.deployment = deployment
        self.name = name
        self.state = ClientState(f"00000000-0000-4000-8000-{int(name[1:]):012d}")
        self.queries = [
            self.state.subscribe(path, json.dumps(args).encode()) for path, args in queries
        ]
        self.on_transition: Callable[[], None] = lambda: None
        self.closed = ""  # why the server closed, when it did
        self._calls: dict[int, Callable[[MutationResponse | None], None]] = {}
        self._seen_ts = 0
        self._worker: Worker | None = None
        self._socket = 0  # frames of an earlier socket are lost

    def connect(self) -> None:
        backend = self.deployment.backend
        self._socket += 1
        self._worker = Worker(
            backend.runner,
            backend.live_queries,
            backend.database,
            backend.authenticator,
            backend.runtime,
            backend.limits,
            _Line(self, self._socket),
            ClientVersion("npm", (1, 48, 0)),
            False,
            self.deployment.pump,
        )
        self._seen_ts = 0
        self.state.open()
        self._say()

    def cut(self) -> None:
        """The connection is lost; the server goes on with what it was doing."""
        self._socket += 1
        if self._worker is not None:
            self._worker.on_disconnect()
            self._worker = None
        self.state.lose("cut")

    def mutate(
        self, path: str, args: dict[str, Any], on_end: Callable[[MutationResponse | None], None]
    ) -> None:
        """Ask for a mutation.

        `on_end` gets the answer once the results held contain it, or None: the server has closed.
        """
        request = self.state.mutate(path, json.dumps(args).encode())
        self._calls[request] = on_end
        self._say()

    def close(self, reason: str) -> None:
        """The server closed the socket; as in `cut`, but nobody will connect again."""
        self.closed = reason
        self.cut()
        calls, self._calls = self._calls, {}
        for on_end in calls.values():
            on_end(None)

    def values(self) -> list[Any] | None:
        """What every query holds now, or None before all have been told."""
        found = []
        for query in self.queries:
            result = self.state.result(query)
            if not isinstance(result, QueryUpdated):
                return None
            found.append(decoded(bytes(result.value)))
        return found

    def hear(self, socket: int, frame: bytes) -> None:
        if socket != self._socket:
            return
        for event in self.state.receive(frame):
            if isinstance(event, CallEnded):
                assert isinstance(event.response, MutationResponse)
                on_end = self._calls.pop(event.request_id, None)
                if on_end is not None:
                    on_end(event.response)
        # Whatever mutations have ended, the results now held contain them.
        if self.state.ts > self._seen_ts:
            self._seen_ts = self.state.ts
            self.on_transition()
        self._say()

    def _say(self) -> None:
        while self._worker is not None and (frames := self.state.take_outgoing()):
            for frame in frames:
                self._worker.receive(frame)


class _Line:
    """The server's half of a socket."""

    is_writable = True

    def __init__(self, session: Session, socket: int) -> None:
        self._session = session
        self._socket = socket

    def send(self, frame: bytes) -> None:
        # The client hears it in a turn of its own: the server is in the middle of something.
        asyncio.get_running_loop().call_soon(self._session.hear, self._socket, frame)

    def send_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self.send(frame)

    def send_shared(self, frame: SharedFrame) -> None:
        self.send(frame.text)

    def close(self, code: int, reason: str) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(self._session.close, f"the server closed a socket: {code} {reason}")


async def run_plan(
    plan: Plan,
    seed: int,
    persistence: Persistence | None = None,
    reopen: Callable[[], Awaitable[Persistence]] | None = None,
) -> list[Txn]:
    """Run what the clients plan to do; the history ends with a read of everything, if it can be.

    With `reopen` that read comes after a restart on what this gives: the disk may have failed
    meanwhile, and then what was not answered is unknown.
    """
    async with asyncio.timeout(_PATIENCE_S):
        deployment = await Deployment.open(seed, persistence or SlowDisk(seed))
        try:
            await asyncio.gather(
                *(
                    (_direct_client if number % 2 else _session_client)(
                        deployment, f"c{number}", steps
                    )
                    for number, steps in enumerate(plan)
                )
            )
            if reopen is not None:
                await deployment.close()
                before = deployment
                deployment = await Deployment.open(seed, await reopen())
                deployment.history, deployment._instant = before.history, before._instant
            elif deployment.closed:
                raise AssertionError(deployment.closed[0])
            everything = Step("query", tuple(_reading(key) for key in KEYS))
            await _direct_client(deployment, "end", [everything])
        finally:
            await deployment.close()
    return numbered(deployment.history)


def _reading(key: str) -> tuple[str, str]:
    return ("get" if key.startswith("r") else "read"), key


async def _direct_client(deployment: Deployment, name: str, steps: Sequence[Step]) -> None:
    backend = deployment.backend
    runner = backend.runner
    newest: Timestamp | None = None
    for step in steps:
        await _turns(step.wait)
        args = {"ops": [list(op) for op in step.ops]}
        txn = deployment.note(Txn(ops_of(step.ops, None), name, deployment.instant()))
        match step.kind:
            case "query":
                # Half of them as the HTTP endpoint does: from what is being watched, if it is.
                if len(step.ops) % 2:
                    encoded = json.dumps(args).encode()
                    call = backend.live_queries.query("txns.js:look", encoded, ANONYMOUS)
                else:
                    call = runner.query("txns.js:look", args, ANONYMOUS)
            case "past":
                if newest is None:
                    newest = backend.database.latest_ts
                txn.invoke = NEVER_ASKED
                call = runner.query("txns.js:look", args, ANONYMOUS, at=newest)
            case "leave":
                await _left(runner.mutation("txns.js:txn", args, ANONYMOUS))
                deployment.note_outcome(txn, step.ops, None)
                return
            case _:
                call = runner.mutation("txns.js:txn", args, ANONYMOUS)
        outcome = await _answered(call)
        deployment.note_outcome(txn, step.ops, outcome)
        if isinstance(outcome, Success):
            # An answer that is shared says when it began to hold, not when it was asked.
            txn.ts = outcome.ts if step.kind != "query" or len(step.ops) % 2 == 0 else None
            newest = txn.ts if txn.ts is not None else newest


async def _session_client(deployment: Deployment, name: str, steps: Sequence[Step]) -> None:
    half = len(KEYS) // 2
    parts = (KEYS[:half], KEYS[half:])
    session = Session(deployment, name, [("txns:read", {"keys": list(keys)}) for keys in parts])
    places = iter(range(1_000_000))

    def note_transition() -> None:
        values = session.values()
        if values is None:
            return
        ops = []
        for keys, of_part in zip(parts, values, strict=True):
            ops += [(*_reading(key), value) for key, value in zip(keys, of_part, strict=True)]
        deployment.note(
            Txn(
                ops,
                f"{name} push",
                NEVER_ASKED,
                deployment.instant(),
                ts=session.state.ts,
                session=name,
                place=next(places),
            )
        )

    session.on_transition = note_transition
    session.connect()
    for step in steps:
        await _turns(step.wait)
        if session.closed:
            deployment.closed.append(session.closed)
            return
        if step.kind == "cut":
            session.cut()
            await _turns(step.wait)
            session.connect()
            continue
        args = {"ops": [list(op) for op in step.ops]}
        txn = deployment.note(Txn(ops_of(step.ops, None), name, deployment.instant()))
        if step.kind == "query":
            runner = deployment.backend.runner
            outcome = await _answered(runner.query("txns.js:look", args, ANONYMOUS))
            deployment.note_outcome(txn, step.ops, outcome)
            txn.ts = outcome.ts if isinstance(outcome, Success) else None
            continue
        ended = asyncio.Event()

        def on_end(
            response: MutationResponse | None, txn: Txn = txn, step: Step = step, ended: Any = ended
        ) -> None:
            if response is None:
                txn.status = UNKNOWN
                ended.set()
                return
            txn.complete, txn.ts = deployment.instant(), response.ts
            if response.success:
                txn.ops = ops_of(step.ops, decoded(bytes(response.result)))
                txn.session, txn.place = name, next(places)
            else:
                txn.status = FAIL
            ended.set()

        if step.kind == "leave":
            txn.status = UNKNOWN
            session.mutate("txns:txn", args, lambda _: None)
            await _turns(step.wait)
            break
        session.mutate("txns:txn", args, on_end)
        await ended.wait()
        note_transition()  # the client looks at what it holds
    session.cut()


async def _answered(call: Awaitable[Outcome]) -> Outcome | None:
    """The outcome, or None when the deployment could not tell."""
    try:
        return await call
    except StoreError:
        return None


async def _left(call: Any) -> None:
    """Somebody who asks and does not wait for the answer."""
    task = asyncio.ensure_future(call)
    await _turns(3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
