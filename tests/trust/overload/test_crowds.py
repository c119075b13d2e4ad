"""Everybody at once: reconnects, one commit that concerns all, and query sets without end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.trust.effort import Effort
from tests.trust.overload.bystander import Bystander
from tests.trust.overload.deployment import KIB, MIB, Deployment
from tests.trust.overload.peer import Peer, eventually

ROOMS = 100
SOCKET_BYTES = 64 * KIB  # of a session with one query; idle ones are measured at half of it
BURST_BYTES = 32 * MIB  # what allocators keep of a burst
STALL_S = 3.0  # the longest a bystander may wait, on a machine that is busy with the crowd as well


async def _arrive(server: Deployment, count: int) -> list[Peer]:
    """Everybody connects and asks at once; done when each has its answer."""
    peers = await asyncio.gather(*(Peer.open(server.port) for _ in range(count)))
    for number, peer in enumerate(peers):
        peer.watch("rooms:mark", {"room": f"r{number % ROOMS}"})
    await eventually(lambda: all(peer.results for peer in peers), "first results")
    return peers


def _assert_right(peers: list[Peer], versions: Counter[str]) -> None:
    for number, peer in enumerate(peers):
        room = f"r{number % ROOMS}"
        wanted = {"room": room, "number": 0, "version": versions[room]}
        assert peer.results == {0: wanted}, f"peer {number} was told {peer.results}"


async def test_a_crowd_that_is_cut_and_comes_back_at_once_is_served_and_costs_no_more_than_before(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    count, waves = effort.pick(1000, 5000), effort.pick(3, 6)
    server = deploy()
    versions: Counter[str] = Counter()
    held: list[int] = []
    with Bystander(server) as bystander:
        writer = await Peer.open(server.port)
        before, files = server.resident_bytes(), server.open_files()
        for wave in range(waves):
            peers = await _arrive(server, count)
            _assert_right(peers, versions)
            held.append(server.resident_bytes())
            changed = [f"r{(wave * 31 + step) % ROOMS}" for step in range(20)]
            for room in changed:
                assert (await writer.call("rooms:touch", room=room))["success"]
                versions[room] += 1
            await eventually(
                lambda p=peers: all(
                    each.results[0]["version"] == versions[each.results[0]["room"]] for each in p
                ),
                "the writes of the wave",
            )
            _assert_right(peers, versions)
            for peer in peers:
                peer.cut()
        await eventually(lambda: server.open_files() <= files + 2, "the sockets are let go")
        writer.cut()
    assert held[0] - before < count * SOCKET_BYTES + BURST_BYTES
    # From the second wave on the last crowd is still being let go while the next one comes.
    assert max(held) - before < 2 * count * SOCKET_BYTES + BURST_BYTES
    growth = max(held[1:]) - held[1]
    assert growth < held[1] * 0.15 + BURST_BYTES, f"each wave costs more: {held}"
    assert server.resident_bytes() < max(held) + 8 * MIB
    bystander.assert_served(STALL_S * effort.pick(1, 3))
    evidence(
        "bounded",
        connections=count * waves,
        kib_per_connection=round((held[0] - before) / count / KIB, 1),
        **bystander.figures(),
    )


async def test_one_commit_that_changes_every_answer_is_told_to_all_once_while_others_are_served(
    shared: Deployment, effort: Effort, evidence: Callable[..., None]
):
    sessions, each = effort.pick(30, 100), 50
    server = shared
    rounds = effort.pick(3, 10)
    with Bystander(server) as bystander:
        writer = await Peer.open(server.port)
        peers = [await Peer.open(server.port) for _ in range(sessions)]
        for number, peer in enumerate(peers):
            peer.watch(
                "rooms:mark",
                *({"room": "everybody", "number": number * each + step} for step in range(each)),
            )
        await eventually(lambda: all(len(peer.results) == each for peer in peers), "first results")
        slowest = 0.0
        for version in range(1, rounds + 1):
            assert (await writer.call("rooms:touch", room="everybody"))["success"]
            took = await eventually(
                lambda v=version: all(
                    result["version"] == v for peer in peers for result in peer.results.values()
                ),
                "the new version everywhere",
            )
            slowest = max(slowest, took)
        for number, peer in enumerate(peers):
            for query_id, result in peer.results.items():
                wanted = {"room": "everybody", "number": number * each + query_id}
                assert result == {**wanted, "version": rounds}
            # Once when it was asked, once for each commit: never twice for one change.
            assert set(peer.told.values()) == {rounds + 1}, peer.told
            assert not peer.errors
    bystander.assert_served(STALL_S)
    evidence(
        "complete push",
        results=sessions * each * rounds,
        slowest_ms=round(slowest * 1000),
        **bystander.figures(),
    )


async def test_thousands_of_queries_in_one_query_set_are_each_answered_and_updated(
    shared: Deployment, effort: Effort, evidence: Callable[..., None]
):
    count = effort.pick(3000, 9000)  # of the 10,000 that `session_queries` allows
    server = shared
    with Bystander(server) as bystander:
        writer, peer = await Peer.open(server.port), await Peer.open(server.port)
        before = server.resident_bytes()
        for step in range(0, count, 500):
            peer.watch("rooms:mark", *({"room": f"q{step + n}"} for n in range(500)))
        await eventually(lambda: len(peer.results) == count, "first results")
        held = server.resident_bytes() - before
        for room in ("q0", f"q{count // 2}", f"q{count - 1}"):
            assert (await writer.call("rooms:touch", room=room))["success"]
        wanted = {0, count // 2, count - 1}
        await eventually(lambda: all(peer.results[q]["version"] == 1 for q in wanted), "updates")
        assert {q for q, times in peer.told.items() if times != 1} == wanted
        peer.cut()
        again = await Peer.open(server.port)
        again.watch("rooms:mark", *({"room": f"q{n}"} for n in range(count)))
        await eventually(lambda: len(again.results) == count, "results of the next session")
        # What nobody watches is not kept: the second set replaces the first.
        assert server.resident_bytes() - before < held * 1.5 + BURST_BYTES
    bystander.assert_served(STALL_S)
    evidence("bounded", queries=2 * count, **_per(held, count), **bystander.figures())


def _per(held: int, count: int) -> dict[str, Any]:
    return {"kib_per_query": round(held / count / KIB, 1)}
