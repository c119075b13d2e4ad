"""PyPI's `convex` 0.8.1, unmodified: its socket client and its older HTTP client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import convex
import pytest
from convex import ConvexClient, ConvexError, ConvexInt64
from convex.http_client import ConvexExecutionError, ConvexHttpClient

from tests.e2e.cuttable_proxy import CuttableProxy
from tests.e2e.server_process import ServerProcess

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


class Feed:
    """A subscription read in a thread, so a test can wait for a value with a limit."""

    def __init__(self, subscription: Iterator[Any]) -> None:
        self.values: list[Any] = []
        self._subscription = subscription
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for value in self._subscription:
            with self._news:
                self.values.append(value)
                self._news.notify_all()

    def wait(self, wanted: Callable[[Any], bool], *, seconds: float = 30.0) -> Any:
        with self._news:
            arrived = self._news.wait_for(
                lambda: bool(self.values) and wanted(self.values[-1]), seconds
            )
        assert arrived, f"never came; seen: {self.values}"
        return self.values[-1]


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
    assert client.query("values:echo", {"value": VALUES}) == VALUES
    key = client.mutation("values:keep", {"value": VALUES})
    assert client.query("values:kept", {"key": key}) == VALUES


def test_whole_numbers_arrive_as_floats(client: Any):
    made = client.query("values:eachType")
    assert made["integral"] == 17.0
    assert isinstance(made["integral"], float)
    assert made["big"] == ConvexInt64(2**62)


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


def test_subscription_is_told_of_writes(socket_client: ConvexClient, channel: str):
    feed = Feed(socket_client.subscribe("messages:bodies", {"channel": channel}))
    feed.wait(lambda value: value == [])
    socket_client.mutation("messages:send", {"channel": channel, "author": "p", "body": "one"})
    feed.wait(lambda value: value == ["one"])


def test_own_write_is_in_the_subscription_when_the_call_returns(
    socket_client: ConvexClient, channel: str
):
    feed = Feed(socket_client.subscribe("counters:value", {"name": channel}))
    feed.wait(lambda value: value == 0)
    for expected in range(1, 11):
        socket_client.mutation("counters:increment", {"name": channel})
        feed.wait(lambda value, expected=expected: value == expected, seconds=2.0)


def test_watching_all_queries_tells_each(server: ServerProcess, channel: str):
    own = ConvexClient(server.url)
    names = [f"{channel}-{n}" for n in range(2)]
    handles = [own.subscribe("counters:value", {"name": name}) for name in names]
    everything = iter(own.watch_all())
    own.mutation("counters:increment", {"name": names[1]})
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        values = sorted(value for value in next(everything).values() if value is not None)
        if values == [0.0, 1.0]:
            break
    else:
        raise AssertionError("the two values never came together")
    for handle in handles:
        handle.unsubscribe()


def test_subscription_goes_on_after_a_cut_socket(server: ServerProcess, channel: str):
    direct = ConvexHttpClient(server.url)
    with CuttableProxy(server.port) as proxy:
        cut_off = ConvexClient(proxy.url)
        feed = Feed(cut_off.subscribe("counters:value", {"name": channel}))
        feed.wait(lambda value: value == 0)
        proxy.cut(refuse=True)
        direct.mutation("counters:increment", {"name": channel})
        proxy.flow()
        feed.wait(lambda value: value == 1)
        assert cut_off.mutation("counters:increment", {"name": channel}) == 2
        feed.wait(lambda value: value == 2)


def test_mutation_that_never_arrived_is_applied_after_the_reconnect(
    server: ServerProcess, channel: str
):
    with CuttableProxy(server.port) as proxy:
        cut_off = ConvexClient(proxy.url)
        assert cut_off.query("counters:value", {"name": channel}) == 0
        proxy.hold_requests()
        answers: list[Any] = []
        asking = threading.Thread(
            target=lambda: answers.append(
                cut_off.mutation("counters:increment", {"name": channel})
            ),
            daemon=True,
        )
        asking.start()
        time.sleep(0.3)
        proxy.cut()
        proxy.flow()
        asking.join(timeout=30)
    assert answers == [1]
    assert ConvexHttpClient(server.url).query("counters:value", {"name": channel}) == 1


def test_subscription_outlives_a_killed_server(
    own_server: Callable[..., ServerProcess], channel: str
):
    server = own_server()
    client = ConvexClient(server.url)
    feed = Feed(client.subscribe("counters:value", {"name": channel}))
    feed.wait(lambda value: value == 0)
    assert client.mutation("counters:increment", {"name": channel}) == 1
    server.restart()
    assert client.mutation("counters:increment", {"name": channel}) == 2
    feed.wait(lambda value: value == 2)


def test_the_client_is_the_published_one():
    assert convex.__version__ == "0.8.1"
