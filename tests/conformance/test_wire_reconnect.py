"""What a client brings along to a new socket, and what it finds there."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator

import pytest

from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.conformance.wire import Wire, WireServer, add, serving
from tests.e2e.sync_socket import timestamp

PAGE = [{"paginationOpts": {"numItems": 2, "cursor": None, "id": 1}}]


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with serving() as running:
        yield running


def wire_ts(ts: int) -> str:
    return base64.b64encode(struct.pack("<Q", ts)).decode()


async def sent(socket: Wire, *numbers: int) -> None:
    for number in numbers:
        await socket.mutate(number, "messages:send", body=str(number))
        while (await socket.hear())["type"] != "MutationResponse":
            pass


async def test_every_query_is_answered_again_and_a_journal_keeps_its_page(server: WireServer):
    """C70."""
    first = await server.socket()
    session = await first.connect()
    await sent(first, 0, 1)
    await first.modify(add(0, "messages:page", args=PAGE), add(1), add(2, "messages:nothing"))
    while not (told := await first.transition())["modifications"]:
        pass
    page, bodies, failed = told["modifications"]
    assert [row["body"] for row in page["value"]["page"]] == ["1", "0"]
    await first.connection.close()

    second = await server.socket()
    observed = told["endVersion"]["ts"]
    await second.connect(session, connectionCount=1, maxObservedTimestamp=observed)
    await second.modify(
        add(0, "messages:page", args=PAGE, journal=page["journal"]),
        add(1, journal=None),
        add(2, "messages:nothing"),
    )
    again = await second.transition()
    assert timestamp(again["endVersion"]["ts"]) >= timestamp(observed)
    assert [change["queryId"] for change in again["modifications"]] == [0, 1, 2]
    assert again["modifications"][0]["value"] == page["value"]
    assert again["modifications"][1] == bodies
    assert again["modifications"][2]["type"] == failed["type"] == "QueryFailed"
    # What came in between is part of the page, which ends where it ended.
    await second.connection.close()
    await sent(await server.socket(), 2)
    third = await server.socket()
    await third.connect(session, connectionCount=2, maxObservedTimestamp=observed)
    await third.modify(add(0, "messages:page", args=PAGE, journal=page["journal"]))
    (grown,) = (await third.transition())["modifications"]
    assert [row["body"] for row in grown["value"]["page"]] == ["2", "1", "0"]
    assert grown["value"]["continueCursor"] == page["value"]["continueCursor"]


async def test_a_client_that_saw_the_future_is_sent_away(server: WireServer):
    """C71."""
    latest = server.backend.database.latest_ts
    for observed in (0, latest - 1, latest):
        socket = await server.socket()
        await socket.connect(maxObservedTimestamp=wire_ts(observed))
        await socket.modify()
        assert (await socket.transition())["endVersion"]["querySet"] == 1
    socket = await server.socket()
    await socket.connect(maxObservedTimestamp=wire_ts(latest + 1))
    said, code, reason = await socket.end()
    assert (said, code, reason) == ([], 1011, "InternalServerError")


async def test_a_clock_that_was_turned_back_does_not_turn_time_back():
    """C71. That a restart keeps the time is tests/e2e/test_stress.py's."""
    runtime = VirtualRuntime()
    async with serving(runtime=runtime) as server:
        socket = await server.socket()
        await socket.modify(add(0))
        before = timestamp((await socket.transition())["endVersion"]["ts"])
        runtime._now_ns -= 3600 * 1_000_000_000
        await socket.mutate(0, "messages:send", body="x")
        response = await socket.hear()
        assert timestamp(response["ts"]) > before
