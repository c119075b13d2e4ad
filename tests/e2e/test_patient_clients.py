"""Official clients through silence, overload and a kill at the worst moment."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.auth.issuer import DISCOVERY, Answer, LocalIssuer
from tests.e2e.client_script import ClientScript, node_script
from tests.e2e.cuttable_proxy import CuttableProxy
from tests.e2e.server_process import APPS, ServerProcess
from tests.trust.effort import EFFORT

PYTHON_CLIENT = Path(__file__).resolve().parent / "reconnect_client.py"
# The npm client's timers run three times as fast in the short form: its silence of 132 s takes 44,
# which is longer than the 35 s after which the Python client would give a silent server up.
SPEED = EFFORT.pick(short=3, long=1)
SILENCE_S = EFFORT.pick(short=44, long=135)


def call(url: str, kind: str, path: str, **arguments: object) -> object:
    """One call over plain HTTP."""
    body = json.dumps({"path": path, "args": arguments, "format": "json"}).encode()
    request = Request(f"{url}/api/{kind}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=20) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["value"]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_silent_clients_stay_connected(server: ServerProcess):
    """C7."""
    with CuttableProxy(server.port) as for_npm, CuttableProxy(server.port) as for_python:
        npm = node_script("idle.mjs", for_npm.url, str(SPEED))
        python = ClientScript(sys.executable, str(PYTHON_CLIENT), for_python.url, "idle")
        async with npm, python:
            npm.send("watch", name="idle")
            for script in (npm, python):
                assert (await script.expect("value"))["value"] == 0
            await asyncio.sleep(SILENCE_S)
            assert (for_npm.connections, for_python.connections) == (1, 1)
            npm.send("mutate", name="idle")
            assert (await npm.expect("answered"))["result"] == 1
            assert (await python.expect("value"))["value"] == 1
            assert (for_npm.connections, for_python.connections) == (1, 1)
            npm.send("quit")
            python.send("quit")


async def test_a_server_killed_before_it_answers_has_applied_the_mutation_once(
    own_server: Callable[..., ServerProcess],
):
    """C40."""
    server = own_server()
    with CuttableProxy(server.port) as proxy:
        async with node_script("reconnect.mjs", proxy.url) as script:
            script.send("watch", path="counters:value", args={"name": "killed"})
            assert (await script.expect("value"))["value"] == 0
            proxy.hold_replies()
            script.send("mutate", name="killed")
            await script.expect("asked")
            async with asyncio.timeout(20):
                while not await asyncio.to_thread(
                    call, server.url, "query", "counters:value", name="killed"
                ):
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)  # committed, and not answered
            proxy.cut()
            proxy.flow()
            await asyncio.to_thread(server.start)
            assert (await script.expect("answered"))["result"] == 1
            script.send("mutate", name="killed")
            assert (await script.expect("answered"))["result"] == 2
            script.send("quit")
    assert call(server.url, "query", "counters:value", name="killed") == 2


async def test_a_client_sent_away_for_asking_too_much_stays_away_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """C72."""
    with LocalIssuer() as issuer:
        monkeypatch.setenv("E2E_ISSUER", issuer.url)
        with ServerProcess(APPS / "auth", tmp_path / "data") as server:
            # While the issuer is slow, everything behind the token waits, and that has an end.
            issuer.answers[DISCOVERY] = Answer(delay_s=4.0)
            async with node_script("backoff.mjs", server.url) as script:
                await script.expect("back")
                script.send("log-in", token=issuer.token())
                script.send("flood", count=1500)
                lost = await script.expect("lost")
                back = await script.expect("back")
                assert back["at"] - lost["at"] >= 1495  # a timer may be early
                script.send("quit")


async def test_an_action_in_flight_is_sent_again_by_the_python_client(server: ServerProcess):
    """C73."""
    name = f"again-{time.monotonic_ns()}"
    with CuttableProxy(server.port) as proxy:
        script = ClientScript(sys.executable, str(PYTHON_CLIENT), proxy.url, name)
        async with script:
            assert (await script.expect("value"))["value"] == 0
            script.send("act", seconds=1.0)
            await script.expect("asked")
            async with asyncio.timeout(20):
                while not await asyncio.to_thread(
                    call, server.url, "query", "counters:value", name=name
                ):
                    await asyncio.sleep(0.01)
            proxy.cut()
            assert (await script.expect("answered"))["result"] == 2
            script.send("quit")
    # The server began it twice: for actions nobody promises more.
    assert call(server.url, "query", "counters:value", name=name) == 2
