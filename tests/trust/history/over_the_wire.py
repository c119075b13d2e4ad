"""Clients of a real server: raw sockets, HTTP, and Convex's npm clients, all writing one history.

Every client is its own process in the sense of a history. Instants are of the machine's monotonic
clock, which is one clock for all programs on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.client_script import JS, ClientScript
from tests.e2e.node import node_program
from tests.e2e.sync_socket import MutationFailed, SyncSocket, timestamp
from tests.trust.history.record import FAIL, NEVER_ASKED, NO_ANSWER, UNKNOWN, Txn, numbered
from tests.trust.history.workload import Step, make_plan, ops_of

__all__ = ["NotingSocket", "now", "wire_history"]

_SCRIPT = Path(__file__).resolve().parent / "official_clients.mjs"


def now() -> float:
    """Milliseconds of the clock that Node's `process.hrtime` shows too."""
    return time.monotonic() * 1000


class NotingSocket(SyncSocket):
    """A socket that notes every transition and remembers the timestamps of answers."""

    def __init__(self, url: str, name: str, keys: Sequence[str], history: list[Txn]) -> None:
        super().__init__(url)
        self.name = name
        self.keys = keys
        self.history = history
        self.told = asyncio.Event()  # everything subscribed to has been answered
        self.queries: list[int] = []
        self._place = 0
        self._asked: dict[int, Txn] = {}
        self._answered: list[Txn] = []  # of mutations no transition has contained yet

    async def watch(self) -> None:
        """Subscribe to every key, in two queries, and wait for the answers."""
        half = len(self.keys) // 2
        parts = (self.keys[:half], self.keys[half:])
        self.queries = await self.subscribe(*(("txns:read", {"keys": part}) for part in parts))
        await asyncio.wait_for(self.told.wait(), 20)

    async def run(self, txn: Txn, ops: Sequence[Sequence[Any]]) -> None:
        """A mutation; what comes of it is in `txn`."""
        self._asked[self.next_request] = txn
        self.history.append(txn)
        try:
            answers = await self.mutation("txns:txn", ops=[list(op) for op in ops])
        except MutationFailed:
            txn.status = FAIL
        else:
            txn.ops = ops_of(ops, answers)
        txn.complete = now()

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "MutationResponse" and message["success"]:
            txn = self._asked.get(message["requestId"])
            if txn is not None:
                txn.ts = timestamp(message["ts"])
                self._answered.append(txn)
        super()._receive(message)
        if message["type"] == "Transition" and self.queries:
            self._note(timestamp(message["endVersion"]["ts"]), message["results"])

    def _note(self, ts: int, results: dict[int, Any]) -> None:
        if any(query not in results for query in self.queries):
            return
        self.told.set()
        for txn in self._answered:
            if txn.ts is not None and txn.ts <= ts:
                txn.session, txn.place = self.name, self._next_place()
        self._answered = [txn for txn in self._answered if txn.session is None]
        values = [value for query in self.queries for value in results[query]]
        ops = [(_reader(key), key, value) for key, value in zip(self.keys, values, strict=True)]
        self.history.append(
            Txn(
                ops,
                f"{self.name} push",
                NEVER_ASKED,
                now(),
                ts=ts,
                session=self.name,
                place=self._next_place(),
            )
        )

    def _next_place(self) -> int:
        self._place += 1
        return self._place


def _reader(key: str) -> str:
    return "get" if key.startswith("r") else "read"


def _writer(key: str) -> str:
    return "write" if key.startswith("r") else "append"


async def wire_history(
    url: str,
    seed: int,
    keys: Sequence[str],
    *,
    sockets: int,
    http: int,
    npm: int,
    steps: int,
    prepared: bool = False,
) -> list[Txn]:
    """What many clients saw of a server, and a read of everything after they had ended.

    `prepared`: every key is written once before, so no two clients can make the same document.
    """
    history: list[Txn] = []
    if prepared:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            writing = tuple((_writer(key), key, -1 - at) for at, key in enumerate(keys))
            await _http_client(client, "begin", [Step("mutation", writing)], history)
    plans = [
        make_plan(
            seed + number,
            clients=clients,
            steps=steps,
            keys=keys,
            pauses=3,
            first_value=1 + number * 1_000_000,
        )
        for number, clients in enumerate((sockets, http, npm))
    ]
    async with httpx.AsyncClient(base_url=url, timeout=30) as client, asyncio.TaskGroup() as group:
        for number, own in enumerate(plans[0]):
            group.create_task(_socket_client(url, f"ws{number}", own, keys, history))
        for number, own in enumerate(plans[1]):
            group.create_task(_http_client(client, f"http{number}", own, history))
        if npm:
            group.create_task(_npm_clients(url, plans[2], keys, history))
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        everything = Step("query", tuple((_reader(key), key) for key in keys))
        await _http_client(client, "end", [everything], history)
    return numbered(history)


async def _socket_client(
    url: str, name: str, steps: Sequence[Step], keys: Sequence[str], history: list[Txn]
) -> None:
    """Mutations on a socket that is cut now and then, in the middle of one."""
    life = 0
    left = list(steps)
    while left:
        life += 1
        asking = None
        async with NotingSocket(url, f"{name}.{life}", keys, history) as socket:
            await socket.watch()
            while left:
                step = left.pop(0)
                txn = Txn(ops_of(step.ops, None), name, now())
                if step.kind in ("mutation", "query", "past"):
                    # Reading is a mutation that writes nothing here; HTTP has the queries.
                    await socket.run(txn, step.ops)
                    continue
                # Asks, and is gone before the answer comes.
                txn.status, txn.complete = UNKNOWN, NO_ANSWER
                following = left.pop(0) if step.kind == "cut" and left else step
                txn.ops = ops_of(following.ops, None)
                history.append(txn)
                asking = asyncio.create_task(
                    socket.mutation("txns:txn", ops=[list(op) for op in following.ops])
                )
                await asyncio.sleep(0.001 * following.wait)
                break
        if asking is not None:
            await asyncio.gather(asking, return_exceptions=True)


async def _http_client(
    client: httpx.AsyncClient, name: str, steps: Sequence[Step], history: list[Txn]
) -> None:
    for step in steps:
        is_query = step.kind in ("query", "past", "cut")
        path = "query" if is_query else "mutation"
        args = {"ops": [list(op) for op in step.ops]}
        body = {"path": "txns:look" if is_query else "txns:txn", "args": args, "format": "json"}
        txn = Txn(ops_of(step.ops, None), name, now())
        history.append(txn)
        answer = (await client.post(f"/api/{path}", json=body)).json()
        txn.complete = now()
        if answer["status"] == "success":
            txn.ops = ops_of(step.ops, answer["value"])
        else:
            assert answer.get("errorData") == "as the client wanted", answer
            txn.status = FAIL


async def _npm_clients(
    url: str, plans: Sequence[Sequence[Step]], keys: Sequence[str], history: list[Txn]
) -> None:
    async with ClientScript(node_program(), str(_SCRIPT), str(JS), url) as script:
        await script.expect("ready")
        plan = [
            [
                {"kind": "query" if step.kind == "query" else "mutation", "ops": step.ops}
                for step in steps
                if step.ops
            ]
            for steps in plans
        ]
        script.send("run", plan=plan, keys=list(keys))
        told = (await script.expect("done", seconds=100))["history"]
        script.seen.clear()  # the history is long, and here by now
    for each in told:
        if "reads" in each:
            ops = [(_reader(key), key, value) for key, value in each["reads"]]
        else:
            ops = ops_of(each["ops"], each.get("answers"))
        history.append(
            Txn(
                ops,
                each["process"],
                each.get("invoke", NEVER_ASKED),
                each["complete"],
                each["status"],
                session=each.get("session"),
                place=each.get("place", 0),
            )
        )
