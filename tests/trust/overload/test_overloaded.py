"""Queues that are full: who waits, who is turned away with which code, and that nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.trust.effort import Effort
from tests.trust.overload.breakages import NO_PLACES
from tests.trust.overload.bystander import Bystander
from tests.trust.overload.deployment import Deployment
from tests.trust.overload.peer import Peer, eventually, http

STALL_S = 4.0
PLACES = 8


async def _version(server: Deployment, room: str) -> float:
    peer = await Peer.open(server.port)
    (query,) = peer.watch("rooms:mark", {"room": room})
    await eventually(lambda: query in peer.results, "the room")
    peer.cut()
    return float(peer.results[query]["version"])


def _stay(seconds: float) -> bytes:
    return orjson.dumps({"path": "waiting:stay", "args": {"seconds": seconds}, "format": "json"})


async def _most_at_once(server: Deployment, requests: int) -> tuple[float, list[tuple[int, Any]]]:
    """How many of so many requests ran at a time, and their answers."""
    answers = await asyncio.gather(
        *(http(server.port, "/api/action", _stay(0.05)) for _ in range(requests))
    )
    peer = await Peer.open(server.port)
    answer = await peer.call("waiting:counts", kind="Action")
    peer.cut()
    assert answer["result"]["now"] == 0
    return answer["result"]["most"], answers


async def test_commits_beyond_a_full_queue_wait_and_none_is_lost(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    clients, rounds = effort.pick(100, 300), effort.pick(10, 50)
    server = deploy(pending_commits=4, batch_documents=2)
    peers = await asyncio.gather(*(Peer.open(server.port) for _ in range(clients)))
    with Bystander(server) as bystander:
        for _ in range(rounds):
            for number, peer in enumerate(peers):
                peer.ask("rooms:touch", room=f"own{number}")
                if number % 10 == 0:
                    peer.ask("rooms:touch", room="shared")
        await eventually(
            lambda: all(len(peer.answers) == peer.requests for peer in peers), "every answer"
        )
        assert all(a["success"] for peer in peers for a in peer.answers.values())
        start = time.perf_counter()
        assert (await peers[0].call("rooms:touch", room="afterwards"))["success"]
        recovered = time.perf_counter() - start
    for number in range(0, clients, 17):
        assert await _version(server, f"own{number}") == rounds
    assert await _version(server, "shared") == rounds * len(range(0, clients, 10))
    assert recovered < STALL_S / 2
    bystander.assert_served(STALL_S * effort.pick(1, 3))
    evidence(
        "bounded",
        commits=sum(peer.requests for peer in peers),
        recovered_ms=round(recovered * 1000, 1),
        **bystander.figures(),
    )


async def test_requests_beyond_the_places_wait_their_turn_and_all_are_answered(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    requests = effort.pick(120, 1000)
    server = deploy(concurrent_requests=PLACES)
    with Bystander(server) as bystander:
        most, answers = await _most_at_once(server, requests)
    assert [status for status, _ in answers] == [200] * requests
    assert {answer["value"] for _, answer in answers} == {"stayed"}
    assert 1 < most <= PLACES
    # Every fourth round of the bystander waits in the same queue.
    bystander.assert_served(requests / PLACES * 0.05 * 2 + STALL_S)
    evidence("bounded", requests=requests, most_at_once=most, **bystander.figures())


async def test_a_server_without_places_is_found(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    server = deploy(breakage=NO_PLACES, concurrent_requests=PLACES)
    most, _ = await _most_at_once(server, 60)
    assert most > PLACES
    evidence("bounded", breakage=NO_PLACES, most_at_once=most)


async def test_who_waits_too_long_for_a_place_gets_408_and_the_next_is_served_at_once(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    server = deploy(concurrent_requests=2, request_seconds=1.0)
    answers = await asyncio.gather(
        *(http(server.port, "/api/action", _stay(0.7)) for _ in range(12))
    )
    statuses = sorted(status for status, _ in answers)
    assert set(statuses) == {200, 408}, statuses
    assert statuses.count(200) >= 2
    start = time.perf_counter()
    status, answer = await http(server.port, "/api/action", _stay(0))
    recovered = time.perf_counter() - start
    assert (status, answer["value"]) == (200, "stayed")
    assert recovered < STALL_S / 2
    evidence("bounded", refused=statuses.count(408), recovered_ms=round(recovered * 1000, 1))


@pytest.mark.parametrize(
    ("kind", "path", "limit", "reason"),
    [
        ("Mutation", "waiting:stay_and_touch", "pending_mutations", "TooManyConcurrentMutations"),
        ("Action", "waiting:stay", "running_actions", "TooManyInflightActionsForSingleClient"),
    ],
)
async def test_a_socket_with_too_many_calls_is_turned_away_and_its_session_comes_back_unharmed(
    deploy: Callable[..., Deployment],
    evidence: Callable[..., None],
    kind: str,
    path: str,
    limit: str,
    reason: str,
):
    server = deploy(**{limit: 10})
    with Bystander(server) as bystander:
        peer = await Peer.open(server.port)
        for _ in range(10):
            peer.ask(path, kind=kind, seconds=0.3)
        await asyncio.sleep(0.1)
        assert not peer.socket.closed, "turned away at the limit, not above it"
        peer.ask(path, kind=kind, seconds=0.3)
        await eventually(lambda: peer.socket.closed, "the refusal")
        assert peer.farewell() == (1013, reason)
        start = time.perf_counter()
        again = await Peer.open(server.port, session=peer.session)
        answer = await again.call(path, kind=kind, seconds=0)
        recovered = time.perf_counter() - start
        assert (answer["success"], answer["result"]) == (True, "stayed")
        if kind == "Mutation":
            # Both sent it under the first number of the session: once it counts.
            assert await _version(server, "waited") == 1
    assert recovered < STALL_S / 2
    bystander.assert_served(STALL_S)
    evidence("bounded", refused=1, recovered_ms=round(recovered * 1000, 1), **bystander.figures())
