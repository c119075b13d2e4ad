"""Mutations and actions over a socket: order, answers, and what happens twice or only once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing.faulty_persistence import FaultyPersistence
from tests.conformance.wire import Wire, WireServer, add, serving
from tests.e2e.sync_socket import timestamp


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with serving() as running:
        yield running


@pytest.fixture
async def socket(server: WireServer) -> Wire:
    socket = await server.socket()
    await socket.connect()
    return socket


async def answer(socket: Wire) -> dict[str, Any]:
    """The next answer to a call; transitions on the way are passed over."""
    while (message := await socket.hear())["type"] == "Transition":
        pass
    return message


async def bodies(server: WireServer) -> list[str]:
    """What is stored, seen through a socket of its own."""
    socket = await server.socket()
    await socket.modify(add(0))
    found: list[str] = (await socket.transition())["modifications"][0]["value"]
    return found


@pytest.mark.parametrize("is_watching", [False, True])
async def test_a_mutation_is_answered_before_the_transition_that_has_reached_it(
    socket: Wire, is_watching: bool
):
    """C30."""
    if is_watching:
        await socket.modify(add(0))
        await socket.transition()
    for number in range(3):
        await socket.mutate(number, "messages:send", body=str(number))
        response = await socket.hear()
        assert response == {
            "type": "MutationResponse",
            "requestId": number,
            "success": True,
            "result": number + 1.0,
            "ts": response["ts"],
            "logLines": [f"[LOG] 'sent' '{number}'"],
        }
        told = await socket.transition()
        assert timestamp(told["endVersion"]["ts"]) >= timestamp(response["ts"]) > 0
        assert len(told["modifications"]) == is_watching


@pytest.mark.parametrize(
    ("path", "args", "text"),
    [
        ("messages:fail", {}, "Uncaught ValueError: plain"),
        ("messages:refuse", {"data": "sorry"}, "Uncaught ConvexError: sorry"),
        ("messages:nothing", {}, "Could not find public function for 'messages:nothing'."),
        ("messages:send", {"body": 5}, "ArgumentValidationError"),
    ],
)
async def test_a_failed_mutation_has_no_time_and_a_transition_follows(
    socket: Wire, path: str, args: dict[str, Any], text: str
):
    """C31."""
    await socket.modify(add(0))
    await socket.transition()
    await socket.mutate(0, path, **args)
    response = await socket.hear()
    assert (response["type"], response["success"]) == ("MutationResponse", False)
    assert response.get("ts") is None
    assert text in response["result"]
    assert isinstance(response["logLines"], list)
    assert (await socket.transition())["modifications"] == []


async def test_ten_mutations_at_once_are_answered_in_order_and_one_may_fail(
    server: WireServer, socket: Wire
):
    """C33."""
    for number in range(10):
        if number == 4:
            await socket.mutate(number, "messages:fail")
        else:
            await socket.mutate(number, "messages:send", body=str(number))
    answers = [await answer(socket) for _ in range(10)]
    assert [each["requestId"] for each in answers] == list(range(10))
    assert [each["success"] for each in answers] == [number != 4 for number in range(10)]
    times = [timestamp(each["ts"]) for each in answers if each["success"]]
    assert times == sorted(set(times))
    assert await bodies(server) == [str(number) for number in range(10) if number != 4]


async def test_a_request_sent_again_has_the_same_answer_without_a_second_run(server: WireServer):
    """C34."""
    first = await server.socket()
    session = await first.connect()
    await first.mutate(0, "messages:send", body="once")
    told = await answer(first)
    again = await server.socket()
    await again.connect(session)
    await again.mutate(0, "messages:send", body="once")
    assert await answer(again) == told
    assert await bodies(server) == ["once"]


async def test_a_request_that_had_failed_runs_again(server: WireServer):
    """C34."""
    first = await server.socket()
    session = await first.connect()
    await first.mutate(0, "messages:failOnce")
    assert not (await answer(first))["success"]
    await first.mutate(1, "messages:send", body="now")
    assert (await answer(first))["success"]
    again = await server.socket()
    await again.connect(session)
    await again.mutate(0, "messages:failOnce")
    assert (await answer(again))["result"] == "late enough"


async def test_one_request_on_two_sockets_at_once_has_one_effect(server: WireServer):
    """C35."""
    sockets = [await server.socket() for _ in range(2)]
    session = await sockets[0].connect()
    await sockets[1].connect(session)
    for number in range(10):
        await asyncio.gather(
            *(each.mutate(number, "messages:send", body=str(number)) for each in sockets)
        )
    answers = [[await answer(each) for _ in range(10)] for each in sockets]
    assert answers[0] == answers[1]
    assert await bodies(server) == [str(number) for number in range(10)]


async def test_without_connect_mutations_run_and_are_not_recognised(server: WireServer):
    """C36."""
    for expected in (1, 2):
        socket = await server.socket()
        await socket.mutate(0, "messages:send", body="again")
        assert (await answer(socket))["result"] == expected
    assert await bodies(server) == ["again", "again"]


async def test_each_request_is_answered_once(server: WireServer, socket: Wire):
    """C37."""
    await socket.modify(add(0))
    for number in range(0, 30, 3):
        await socket.mutate(number, "messages:send", body=str(number))
        await socket.act(number + 1, "messages:quick")
        await socket.mutate(number + 2, "messages:fail")
    answered = [(await answer(socket))["requestId"] for _ in range(30)]
    assert sorted(answered) == list(range(30))
    # What is left are transitions up to the newest version.
    await socket.modify()
    while (message := await socket.transition())["endVersion"]["querySet"] < 2:
        assert message["type"] == "Transition"
    assert await socket.hears_nothing()
    assert len(await bodies(server)) == 10


async def test_actions_delay_nothing_and_a_transition_follows_each(socket: Wire):
    """C38."""
    await socket.act(0, "messages:slow")
    await socket.act(1, "messages:quick")
    response = await socket.hear()
    assert response == {
        "type": "ActionResponse",
        "requestId": 1,
        "success": True,
        "result": "quick",
        "logLines": [],
    }
    await socket.transition()
    # The slow one waits for this mutation, which does not wait for it.
    await socket.mutate(2, "messages:send", body="go")
    assert (await answer(socket))["requestId"] == 2
    response = await answer(socket)
    assert (response["requestId"], response["result"]) == (0, "slow")
    assert "ts" not in response
    await socket.transition()


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_error_data_is_that_of_a_convex_error(socket: Wire, kind: str):
    """C39."""
    say = socket.mutate if kind == "mutation" else socket.act
    raising, plain = (
        ("messages:refuse", "messages:fail")
        if kind == "mutation"
        else ("messages:lose", "messages:stumble")
    )
    await say(0, plain)
    assert "errorData" not in await answer(socket)
    for number, data in enumerate(("text", None), 1):
        await say(number, raising, data=data)
        response = await answer(socket)
        assert "errorData" in response
        assert response["errorData"] == data


async def test_too_many_mutations_without_an_answer_end_the_socket():
    """C41."""
    disk = FaultyPersistence(MemoryPersistence())
    async with serving(persistence=disk) as server:
        socket = await server.socket()
        go_on = disk.hold()  # nothing is durable, so nothing is answered
        for number in range(1000):
            await socket.mutate(number, "messages:send", body="x")
        assert await socket.hears_nothing()
        await socket.mutate(1000, "messages:send", body="x")
        said, code, reason = await socket.end()
        assert (said, code, reason) == ([], 1013, "TooManyConcurrentMutations")
        go_on.set()
