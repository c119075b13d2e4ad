"""The socket itself: how it opens, what it carries, how it stays alive."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.conformance.wire import NPM, PYTHON, WireServer, add, serving


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with serving() as running:
        yield running


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        pytest.param(NPM, {}, id="C1 as npm"),
        pytest.param("/api/sync?x=1", {"convex-client": "python-0.8.1"}, id="C2 as Python"),
        pytest.param(PYTHON, {}, id="C2 unknown"),
    ],
)
async def test_a_socket_opens_and_works(server: WireServer, path: str, headers: dict[str, str]):
    socket = await server.socket(path, additional_headers=headers)
    assert socket.response.status_code == 101
    await socket.modify(add(0))
    assert (await socket.transition())["modifications"][0]["value"] == []


@pytest.mark.parametrize(
    ("path", "headers", "code", "state"),
    [
        ("/api/notsemver/sync", {}, "InvalidClientVersion", None),
        (NPM, {"convex-client": "npm-0.19.1"}, "ClientVersionUnsupported", "Unsupported"),
    ],
)
async def test_a_version_that_is_none_or_too_old_is_refused(
    server: WireServer, path: str, headers: dict[str, str], code: str, state: str | None
):
    """C3."""
    with pytest.raises(InvalidStatus) as refused:
        await server.socket(path, additional_headers=headers)
    response = refused.value.response
    assert response.status_code == 400
    assert response.headers["content-type"].startswith("application/json")
    assert json.loads(response.body)["code"] == code
    assert response.headers.get("x-convex-deprecation-state") == state
    assert bool(response.headers.get("x-convex-deprecation-message")) == (state is not None)


@pytest.mark.parametrize(
    ("is_enabled", "offer", "is_chosen"),
    [(True, "deflate", True), (True, None, False), (False, "deflate", False)],
)
async def test_no_subprotocol_is_chosen_and_nothing_compressed_unasked(
    is_enabled: bool, offer: str | None, is_chosen: bool
):
    """C4."""
    async with serving(compression=is_enabled) as server:
        socket = await server.socket(
            compression=offer, subprotocols=[Subprotocol("convex"), Subprotocol("x")]
        )
        assert "sec-websocket-protocol" not in socket.response.headers
        chosen = socket.response.headers.get("sec-websocket-extensions", "")
        assert chosen.startswith("permessage-deflate") == is_chosen
        assert bool(chosen) == is_chosen
        await socket.modify(add(0))
        await socket.transition()


async def test_a_message_of_twenty_mebibytes_is_taken_and_answers_are_text(server: WireServer):
    """C5. That nothing binary comes is asserted by `Wire.hear`, so by each of these tests."""
    socket = await server.socket()
    await socket.say(type="Event", eventType="large", event="x" * (20 * 1024 * 1024))
    await socket.modify(add(0))
    assert (await socket.transition())["modifications"][0]["value"] == []


async def test_a_silent_socket_hears_a_ping_after_fifteen_seconds(server: WireServer):
    """C6."""
    socket = await server.socket()
    await socket.modify()
    await socket.transition()
    for _ in range(3):
        await server.runtime.advance(timedelta(seconds=14))
        assert await socket.hears_nothing()
        await server.runtime.advance(timedelta(seconds=1))
        assert await socket.hear() == {"type": "Ping"}
    # What is said counts as a sign of life: the next fifteen seconds begin there.
    await server.runtime.advance(timedelta(seconds=12))
    await socket.modify()
    await socket.transition()
    await server.runtime.advance(timedelta(seconds=12))
    assert await socket.hears_nothing()


async def test_a_socket_needs_no_connect(server: WireServer):
    """C8."""
    socket = await server.socket()
    await socket.say(type="Authenticate", tokenType="None", baseVersion=0)
    assert (await socket.transition())["endVersion"]["identity"] == 1
    await socket.modify(add(0))
    assert (await socket.transition())["modifications"][0]["value"] == []
    await socket.mutate(0, "messages:send", body="x")
    assert (await socket.hear())["result"] == 1
    told = await socket.transition()
    assert told["modifications"][0]["value"] == ["x"]
    # Nobody's clock is known, so nobody's is compared.
    assert "clientClockSkew" not in told
    await socket.act(1, "messages:quick")
    assert (await socket.hear())["result"] == "quick"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"lastCloseReason": None},
        {"lastCloseReason": "closed with code 1006", "clientTs": 1_795_317_874_057},
        {"maxObservedTimestamp": "AAAAAAAAAAA="},
    ],
)
async def test_connect_is_taken_without_its_optional_parts_and_not_answered(
    server: WireServer, fields: dict[str, Any]
):
    """C9."""
    socket = await server.socket()
    session = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    await socket.say(type="Connect", sessionId=session, connectionCount=0, **fields)
    assert await socket.hears_nothing()
    await socket.modify()
    assert (await socket.transition())["modifications"] == []
