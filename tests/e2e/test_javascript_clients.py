"""npm's `convex` package, unmodified, against a real server: HTTP, socket, React hooks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from urllib.request import Request, urlopen

import pytest

from tests.e2e.client_script import node_script, run_node_tests
from tests.e2e.cuttable_proxy import CuttableProxy
from tests.e2e.server_process import ServerProcess


def call(url: str, kind: str, path: str, **arguments: object) -> object:
    """One function call over plain HTTP, past every proxy."""
    body = json.dumps({"path": path, "args": arguments, "format": "json"}).encode()
    request = Request(f"{url}/api/{kind}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=20) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["value"]


async def count_until(url: str, name: str, expected: int) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(call, url, "query", "counters:value", name=name) != expected:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("file", ["http_client.test.mjs", "live_client.test.mjs", "react.test.mjs"])
def test_official_client_works_as_documented(server: ServerProcess, file: str):
    run_node_tests(file, server.url)


async def test_mutation_whose_answer_was_lost_is_applied_once(server: ServerProcess):
    with CuttableProxy(server.port) as proxy:
        async with node_script("reconnect.mjs", proxy.url) as script:
            script.send("watch", path="counters:value", args={"name": "lost-answer"})
            assert (await script.expect("value"))["value"] == 0
            proxy.hold_replies()
            script.send("mutate", name="lost-answer")
            await script.expect("asked")
            await count_until(server.url, "lost-answer", 1)  # the server did it …
            proxy.cut()  # … and the client will never hear of it
            proxy.flow()
            assert (await script.expect("answered"))["result"] == 1
            script.send("mutate", name="lost-answer")
            assert (await script.expect("answered"))["result"] == 2
            script.send("quit")
        assert proxy.connections >= 2
    assert call(server.url, "query", "counters:value", name="lost-answer") == 2


async def test_mutation_that_never_arrived_is_applied_once(server: ServerProcess):
    with CuttableProxy(server.port) as proxy:
        async with node_script("reconnect.mjs", proxy.url) as script:
            script.send("watch", path="counters:value", args={"name": "lost-request"})
            await script.expect("value")
            proxy.hold_requests()
            script.send("mutate", name="lost-request")
            await script.expect("asked")
            await asyncio.sleep(0.1)
            proxy.cut()
            proxy.flow()
            assert (await script.expect("answered"))["result"] == 1
            script.send("quit")
    assert call(server.url, "query", "counters:value", name="lost-request") == 1


async def test_mutations_asked_for_while_offline_all_arrive_in_order(server: ServerProcess):
    with CuttableProxy(server.port) as proxy:
        async with node_script("reconnect.mjs", proxy.url) as script:
            script.send("watch", path="counters:value", args={"name": "offline"})
            await script.expect("value")
            proxy.cut(refuse=True)
            for _ in range(5):
                script.send("mutate", name="offline")
                await script.expect("asked")
            proxy.flow()
            results = [(await script.expect("answered"))["result"] for _ in range(5)]
            script.send("quit")
    assert results == [1, 2, 3, 4, 5]
    assert call(server.url, "query", "counters:value", name="offline") == 5


async def test_subscription_misses_nothing_while_cut_off(server: ServerProcess):
    """C70."""
    with CuttableProxy(server.port) as proxy:
        async with node_script("reconnect.mjs", proxy.url) as script:
            script.send("watch", path="counters:value", args={"name": "missed"})
            assert (await script.expect("value"))["value"] == 0
            proxy.cut(refuse=True)
            await asyncio.to_thread(
                call, server.url, "mutation", "counters:increment", name="missed"
            )
            proxy.flow()
            assert (await script.expect("value"))["value"] == 1
            script.send("quit")


async def test_action_in_flight_fails_when_the_socket_is_cut(server: ServerProcess):
    """C73."""
    with CuttableProxy(server.port) as proxy:
        async with node_script("reconnect.mjs", proxy.url) as script:
            script.send("watch", path="counters:value", args={"name": "action"})
            await script.expect("value")
            script.send("act", seconds=0.8)
            await asyncio.sleep(0.3)
            proxy.cut()
            lost = await script.expect("action-lost")
            assert "Connection lost while action was in flight" in lost["message"]
            script.send("quit")


async def test_client_outlives_a_killed_server(own_server: Callable[..., ServerProcess]):
    server = own_server()
    async with node_script("reconnect.mjs", server.url) as script:
        script.send("watch", path="counters:value", args={"name": "killed"})
        assert (await script.expect("value"))["value"] == 0
        script.send("mutate", name="killed")
        assert (await script.expect("answered"))["result"] == 1
        await asyncio.to_thread(server.kill)
        script.send("mutate", name="killed")  # asked for while there is no server
        await script.expect("asked")
        await asyncio.to_thread(server.start)
        assert (await script.expect("answered"))["result"] == 2
        await asyncio.to_thread(call, server.url, "mutation", "counters:increment", name="killed")
        async with asyncio.timeout(20):
            while (await script.expect("value"))["value"] != 3:
                pass
        script.send("quit")


def test_production_hides_the_text_of_errors_but_not_their_data(
    own_server: Callable[..., ServerProcess],
):
    server = own_server()
    for path, arguments, data in [
        ("failures:byAccident", {}, None),
        ("failures:onPurpose", {"data": {"code": "shown"}}, {"code": "shown"}),
    ]:
        body = json.dumps({"path": path, "args": arguments, "format": "json"}).encode()
        request = Request(f"{server.url}/api/query", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=20) as response:
            answer = json.load(response)
        assert answer["status"] == "error"
        assert answer["errorMessage"].startswith("[Request ID: ")
        assert answer["errorMessage"].endswith("] Server Error")
        assert answer.get("errorData") == data


def test_a_service_manager_can_stop_the_server(own_server: Callable[..., ServerProcess]):
    server = own_server()
    call(server.url, "mutation", "counters:increment", name="kept")
    assert server.stop() in {0, -15, 143}
    server.start()
    assert call(server.url, "query", "counters:value", name="kept") == 1
