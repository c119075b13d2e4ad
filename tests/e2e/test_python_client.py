"""PyPI's `convex` 0.8.1, unmodified: its socket client and its older HTTP client."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convex
import pytest
from convex import ConvexClient, ConvexError, ConvexInt64
from convex.http_client import ConvexExecutionError, ConvexHttpClient

from tests.e2e.client_script import ClientScript
from tests.e2e.cuttable_proxy import CuttableProxy
from tests.e2e.server_process import ServerProcess

SCRIPT = Path(__file__).resolve().parent / "reconnect_client.py"
VALUES = {
    "none": None,
    "yes": True,
    "integral": 17.0,
    "fraction": -0.25,
    "big": ConvexInt64(2**62),
    "text": "blåbær 🫐",
    "bytes": b"\x00\xff\x10",
    "list": [1.0, "two", [3.5]],
    "object": {"nested": {"deep": True}},
}


@pytest.fixture(scope="module")
def socket_client(server: ServerProcess) -> ConvexClient:
    return ConvexClient(server.url)


@pytest.fixture(scope="module")
def http_client(server: ServerProcess) -> ConvexHttpClient:
    return ConvexHttpClient(server.url)


@pytest.fixture(params=["socket_client", "http_client"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}-{time.monotonic_ns()}"


async def until(subscription: Any, wanted: Any, *, seconds: float = 20.0) -> None:
    """Read a subscription up to a value. Its asynchronous side is used: the blocking one keeps
    the interpreter to itself while it waits, so no limit could be set."""
    seen = []
    try:
        async with asyncio.timeout(seconds):
            while not seen or seen[-1] != wanted:
                seen.append(await anext(subscription))
    except TimeoutError:
        raise AssertionError(f"{wanted!r} never came; seen: {seen}") from None


def test_mutation_is_seen_by_the_next_query(client: Any, channel: str):
    key = client.mutation("messages:send", {"channel": channel, "author": "py", "body": "hello"})
    found = client.query("messages:inChannel", {"channel": channel})
    assert [(row["_id"], row["body"]) for row in found] == [(key, "hello")]
    assert isinstance(found[0]["_creationTime"], float)


def test_snake_case_names_are_accepted_too(client: Any, channel: str):
    client.mutation("messages:send_many", {"channel": channel, "count": 2})
    found = client.query("messages:in_channel", {"channel": channel})
    assert len(found) == 2


def test_every_type_of_value_makes_the_round_trip(client: Any):
    """V1."""
    assert client.query("values:echo", {"value": VALUES}) == VALUES
    key = client.mutation("values:keep", {"value": VALUES})
    assert client.query("values:kept", {"key": key}) == VALUES


def test_whole_numbers_arrive_as_floats(client: Any):
    """V5, C92."""
    made = client.query("values:eachType")
    assert made["integral"] == 17.0
    assert isinstance(made["integral"], float)
    assert made["big"] == ConvexInt64(2**62)


def test_a_result_of_twelve_million_characters_arrives_in_one_piece(socket_client: ConvexClient):
    """C120."""
    assert socket_client.query("values:large", {"characters": 12_000_000}) == "x" * 12_000_000


def test_action_calls_a_mutation_and_a_query(client: Any, channel: str):
    assert client.action("messages:relay", {"channel": channel, "body": "over"}) == "over"


def test_error_raised_on_purpose_carries_its_data(client: Any):
    for data in ["plain text", {"code": "x"}, 7.0]:
        with pytest.raises(ConvexError) as caught:
            client.query("failures:onPurpose", {"data": data})
        assert caught.value.data == data


def test_any_other_error_carries_its_text(client: Any):
    with pytest.raises(Exception, match="ValueError: secret detail") as caught:
        client.query("failures:byAccident")
    assert not isinstance(caught.value, ConvexError)


def test_failed_mutation_leaves_nothing(client: Any, channel: str):
    """C32."""
    with pytest.raises(ConvexError) as caught:
        client.mutation("failures:afterWriting", {"channel": channel})
    assert caught.value.data == {"code": "rolled_back"}
    assert client.query("messages:bodies", {"channel": channel}) == []


@pytest.mark.parametrize(
    ("path", "arguments", "text"),
    [
        ("nowhere:nothing", {}, "Could not find public function for 'nowhere:nothing'"),
        ("failures:hidden", {}, "Could not find public function"),
        ("messages:send", {}, "Trying to execute messages.js:send as Query"),
        ("messages:inChannel", {}, "ArgumentValidationError"),
        ("messages:inChannel", {"channel": 5}, "ArgumentValidationError"),
    ],
)
def test_wrong_calls_say_what_is_wrong(client: Any, path: str, arguments: Any, text: str):
    with pytest.raises(Exception, match=text):
        client.query(path, arguments)


def test_http_client_raises_its_own_class(http_client: ConvexHttpClient):
    with pytest.raises(ConvexExecutionError):
        http_client.query("failures:byAccident")


def test_pages_follow_each_other(client: Any, channel: str):
    client.mutation("messages:sendMany", {"channel": channel, "count": 7})
    cursor, bodies = None, []
    for _ in range(9):
        page = client.query(
            "messages:pageOfChannel",
            {"channel": channel, "paginationOpts": {"numItems": 3, "cursor": cursor}},
        )
        bodies += [row["body"] for row in page["page"]]
        cursor = page["continueCursor"]
        if page["isDone"]:
            break
    assert bodies == [f"message {n}" for n in range(6, -1, -1)]


async def test_subscription_is_told_of_writes(socket_client: ConvexClient, channel: str):
    subscription = socket_client.subscribe("messages:bodies", {"channel": channel})
    await until(subscription, [])
    socket_client.mutation("messages:send", {"channel": channel, "author": "p", "body": "one"})
    await until(subscription, ["one"])
    subscription.unsubscribe()


async def test_own_writes_arrive_one_by_one(socket_client: ConvexClient, channel: str):
    subscription = socket_client.subscribe("counters:value", {"name": channel})
    await until(subscription, 0)
    for expected in range(1, 11):
        assert socket_client.mutation("counters:increment", {"name": channel}) == expected
        await until(subscription, expected, seconds=5.0)


async def test_live_query_fails_and_recovers(socket_client: ConvexClient, channel: str):
    subscription = socket_client.subscribe("failures:whenCounterIsOdd", {"name": channel})
    await until(subscription, 0)
    socket_client.mutation("counters:increment", {"name": channel})
    with pytest.raises(ConvexError) as caught:
        await until(subscription, 2)
    assert caught.value.data == {"odd": 1}
    socket_client.mutation("counters:increment", {"name": channel})
    await until(subscription, 2)


async def test_watching_all_queries_tells_each(server: ServerProcess, channel: str):
    own = ConvexClient(server.url)
    names = [f"{channel}-{n}" for n in range(2)]
    handles = [own.subscribe("counters:value", {"name": name}) for name in names]
    everything = own.watch_all()
    own.mutation("counters:increment", {"name": names[1]})
    async with asyncio.timeout(20):
        while True:
            values = await anext(everything)
            if [values.get(handle.id) for handle in handles] == [0.0, 1.0]:
                break


async def test_subscription_goes_on_after_a_cut_socket(server: ServerProcess, channel: str):
    with CuttableProxy(server.port) as proxy:
        async with python_script(proxy.url, channel) as script:
            assert (await script.expect("value"))["value"] == 0
            proxy.cut(refuse=True)
            ConvexHttpClient(server.url).mutation("counters:increment", {"name": channel})
            proxy.flow()
            assert (await script.expect("value"))["value"] == 1
            script.send("mutate")
            assert (await script.expect("answered"))["result"] == 2
            assert (await script.expect("value"))["value"] == 2
            script.send("quit")
        assert proxy.connections >= 2


async def test_mutation_that_never_arrived_is_applied_after_the_reconnect(
    server: ServerProcess, channel: str
):
    with CuttableProxy(server.port) as proxy:
        async with python_script(proxy.url, channel) as script:
            assert (await script.expect("value"))["value"] == 0
            proxy.hold_requests()
            script.send("mutate")
            await script.expect("asked")
            await asyncio.sleep(0.3)
            proxy.cut()
            proxy.flow()
            assert (await script.expect("answered"))["result"] == 1
            script.send("quit")
    assert ConvexHttpClient(server.url).query("counters:value", {"name": channel}) == 1


def python_script(url: str, name: str) -> ClientScript:
    """A client in another process: its blocking calls would stop the proxy of this one."""
    return ClientScript(sys.executable, str(SCRIPT), url, name)


async def test_subscription_outlives_a_killed_server(
    own_server: Callable[..., ServerProcess], channel: str
):
    server = own_server()
    client = ConvexClient(server.url)
    subscription = client.subscribe("counters:value", {"name": channel})
    await until(subscription, 0)
    assert client.mutation("counters:increment", {"name": channel}) == 1
    server.restart()
    assert client.mutation("counters:increment", {"name": channel}) == 2
    await until(subscription, 2)


def test_the_client_is_the_published_one():
    assert convex.__version__ == "0.8.1"
