"""npm's client, unmodified, over a bad network against a server that is killed now and then."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.e2e.client_script import JS, ClientScript
from tests.e2e.node import node_program
from tests.e2e.server_process import APPS, ServerProcess
from tests.trust.breakage import Breakage
from tests.trust.effort import Effort
from tests.trust.protocol.breakages import BREAKAGES
from tests.trust.protocol.faulty_proxy import FaultyProxy

pytestmark = pytest.mark.e2e

TABS = 3
ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).resolve().parent / "npm_client.mjs"


def call(url: str, kind: str, path: str, **arguments: object) -> Any:
    """One function call over plain HTTP, past the proxy."""
    body = json.dumps({"path": path, "args": arguments, "format": "json"}).encode()
    request = Request(f"{url}/api/{kind}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=20) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["value"]


@asynccontextmanager
async def clients(url: str) -> AsyncIterator[ClientScript]:
    command = (node_program(), str(SCRIPT), url, str(JS), str(TABS))
    async with ClientScript(*command) as script:
        await script.expect("ready")
        yield script
        script.send("quit")


class Storm:
    """One run: faults and calls drawn from a seed. Real time and processes: not repeatable."""

    def __init__(self, seed: int, server: ServerProcess, proxy: FaultyProxy) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.server = server
        self.proxy = proxy
        self.keys: list[str] = []
        self.actions = 0
        self.faults = 0

    def use(self, script: ClientScript) -> None:
        """A burst of calls from one tab."""
        tab = self.chance.randrange(TABS)
        for _ in range(self.chance.randrange(1, 6)):
            kind = self.chance.choice(("mutate", "mutate", "mutate", "act", "watch", "unwatch"))
            if kind == "mutate":
                key = f"{self.seed}-{len(self.keys):04d}"
                self.keys.append(key)
                script.send("mutate", tab=tab, key=key)
            elif kind == "watch":
                script.send("watch", tab=tab, name=f"c{self.chance.randrange(3)}")
            else:
                self.actions += kind == "act"
                script.send(kind, tab=tab)

    async def connected(self, script: ClientScript) -> None:
        """Every tab has seen something."""
        async with asyncio.timeout(30):
            while True:
                script.send("state")
                tabs = (await script.expect("state"))["tabs"]
                if all(tab["survey"] is not None for tab in tabs):
                    return
                await asyncio.sleep(0.01)

    async def harm(self) -> None:
        """One fault, perhaps a long one."""
        self.faults += 1
        proxy = self.proxy
        match self.chance.choice(
            ("inside", "inside", "cut", "half", "half", "slow", "crumbs", "offline", "kill")
        ):
            case "inside":
                proxy.cut_inside(requests=self.chance.random() < 0.5)
            case "cut":
                proxy.cut()
            case "half":
                if self.chance.random() < 0.5:
                    proxy.hold_requests()
                else:
                    proxy.hold_replies()
                await asyncio.sleep(0.2)
                if self.chance.random() < 0.6:
                    proxy.cut()
                proxy.flow()
            case "slow":
                proxy.delay_s = self.chance.choice((0.0, 0.01, 0.04))
            case "crumbs":
                proxy.crumbs = not proxy.crumbs
            case "offline":
                proxy.cut(refuse=True)
                await asyncio.sleep(0.1)
                proxy.flow()
            case "kill":
                await asyncio.to_thread(self.server.restart)

    async def times_written(self) -> list[int]:
        """How often each key is there, looked up past the proxy."""
        counted: list[int] = []
        for start in range(0, len(self.keys), 100):
            keys = self.keys[start : start + 100]
            url = self.server.url
            counted += await asyncio.to_thread(
                call, url, "query", "ledger:times_written", keys=keys
            )
        return [int(times) for times in counted]

    async def judge(self, script: ClientScript) -> None:
        """At rest: everything was done once, and no tab ever saw what cannot be."""
        tabs = await self.settle(script)
        broken = [event for event in script.seen if event["event"] == "broken"]
        assert not broken, f"seed {self.seed}: {broken}"
        assert sum(tab["calls"]["done"] for tab in tabs) == len(self.keys)
        times = dict(zip(self.keys, await self.times_written(), strict=True))
        wrong = {key: count for key, count in times.items() if count != 1}
        assert not wrong, f"seed {self.seed}: written not once but {wrong}"

    async def settle(self, script: ClientScript) -> list[dict[str, Any]]:
        """Let everything through, until every call has ended and every tab sees what there is."""
        self.proxy.delay_s = 0.0
        self.proxy.crumbs = False
        self.proxy.flow()
        await asyncio.to_thread(call, self.server.url, "mutation", "counters:increment", name="c0")
        url = self.server.url
        wanted: dict[str, Any] = {
            "survey": call(url, "query", "ledger:survey", way="by_key"),
            "tallies": call(url, "query", "ledger:tallies"),
            "counters": {
                f"c{n}": call(url, "query", "counters:value", name=f"c{n}") for n in range(3)
            },
        }
        last: Any = None
        for _ in range(600):
            script.send("state")
            last = (await script.expect("state"))["tabs"]
            if all(_is_over(tab) for tab in last):
                # Only now is it certain that nothing more is written.
                wanted["survey"] = call(url, "query", "ledger:survey", way="by_key")
                wanted["tallies"] = call(url, "query", "ledger:tallies")
                if all(_agrees(tab, wanted) for tab in last):
                    return list(last)
            await asyncio.sleep(0.05)
        raise AssertionError(f"the tabs do not come to rest.\nserver {wanted}\ntabs {last}")


class BrokenServer(ServerProcess):
    """`ServerProcess` under a breakage of the protocol."""

    def __init__(self, app: Path, data: Path, breakage: Breakage) -> None:
        super().__init__(app, data)
        self.breakage = breakage

    def start(self) -> str:
        """As the base class, through `broken_server`."""
        said = self._file("broken")
        command = [
            sys.executable, "-m", "tests.trust.broken_server",
            f"tests.trust.protocol.breakages:{self.breakage.name}", "serve",
            "--app", str(self.app), "--data", str(self.data),
            "--host", "127.0.0.1", "--port", str(self.port), "--site-port", "0",
        ]  # fmt: skip
        with said.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT
            )
        give_up = time.monotonic() + self.start_seconds
        while time.monotonic() < give_up:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", said.read_text(errors="replace")):
                self.port = int(found.group(1))
                return self.url
            time.sleep(0.01)
        self.kill()
        raise AssertionError(f"no URL\n{said.read_text(errors='replace')}")


def _is_over(tab: dict[str, Any]) -> bool:
    calls = tab["calls"]
    acted = calls["acted"] + calls["lost"]
    return bool(calls["asked"] == calls["done"] + calls["refused"] and calls["asking"] == acted)


def _agrees(tab: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return (
        tab["survey"] == wanted["survey"]
        and tab["tallies"] == wanted["tallies"]
        and all(value == wanted["counters"][name] for name, value in tab["watched"])
    )


async def storm(seed: int, data: Path, rounds: int) -> Storm:
    server = ServerProcess(APPS / "basic", data)
    await asyncio.to_thread(server.start)
    try:
        with FaultyProxy(server.port, seed) as proxy:
            run = Storm(seed, server, proxy)
            async with clients(proxy.url) as script:
                for _ in range(rounds):
                    run.use(script)
                    await asyncio.sleep(run.chance.choice((0.0, 0.005, 0.05)))
                    if run.chance.random() < 0.5:
                        await run.harm()
                await run.judge(script)
    finally:
        await asyncio.to_thread(server.stop)
    return run


@pytest.mark.slow
async def test_npm_tabs_agree_with_the_server_after_every_storm(
    tmp_path: Path, effort: Effort, evidence: Any
) -> None:
    rounds = effort.pick(25, 80)
    runs = [await storm(seed, tmp_path / f"data{seed}", rounds) for seed in effort.seeds(1, 6)]
    evidence(
        "exactly once",
        also=("compatible",),
        runs=len(runs),
        mutations=sum(len(run.keys) for run in runs),
        actions=sum(run.actions for run in runs),
        faults=sum(run.faults for run in runs),
        connections=sum(run.proxy.connections for run in runs),
        cuts_inside_a_frame=sum(run.proxy.cuts_inside for run in runs),
    )


async def test_npm_tabs_outlast_a_connection_that_is_only_half_open(
    tmp_path: Path, effort: Effort, evidence: Any
) -> None:
    """In the long form until the clients give it up: they wait for a minute."""
    seconds = effort.pick(1.0, 66.0)
    with (
        ServerProcess(APPS / "basic", tmp_path / "data") as server,
        FaultyProxy(server.port, 1) as proxy,
    ):
        run = Storm(1, server, proxy)
        async with clients(proxy.url) as script:
            for hold in (proxy.hold_replies, proxy.hold_requests):
                await run.connected(script)
                hold()
                for _ in range(5):
                    run.use(script)
                await asyncio.sleep(seconds)
                proxy.flow()
            await run.judge(script)
            assert proxy.connections >= effort.pick(TABS, 2 * TABS)
    evidence(
        "exactly once",
        also=("compatible",),
        mutations=len(run.keys),
        half_open_seconds=2 * seconds,
    )


async def test_npm_tabs_show_that_a_server_does_not_recognise_what_it_has_done(
    tmp_path: Path, evidence: Any
) -> None:
    breakage = next(breakage for breakage in BREAKAGES if breakage.name == "no-dedupe")
    with (
        BrokenServer(APPS / "basic", tmp_path / "data", breakage) as server,
        FaultyProxy(server.port, 1) as proxy,
    ):
        run = Storm(1, server, proxy)
        async with clients(proxy.url) as script, asyncio.timeout(60):
            await run.connected(script)
            proxy.hold_replies()
            run.keys.append("asked-once")
            script.send("mutate", tab=0, key="asked-once")
            while await run.times_written() != [1]:
                await asyncio.sleep(0.01)
            proxy.cut()
            proxy.flow()
            with pytest.raises(AssertionError, match=r"'asked-once': 2"):
                await run.judge(script)
    evidence("exactly once", breakage=breakage, mutations=1)
