"""Clients that do not read: what waits for them is merged, bounded, and ended by a named limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.trust.breakage import Breakage
from tests.trust.effort import Effort
from tests.trust.overload.breakages import UNMERGED
from tests.trust.overload.bystander import Bystander
from tests.trust.overload.deployment import KIB, MIB, Deployment
from tests.trust.overload.peer import Peer, eventually

READERS = 5
ANSWER_BYTES = 100 * KIB
HIGH_WATER_BYTES = 64 * KIB  # asyncio's, of one transport
NOISE_BYTES = 8 * MIB  # the caches fill meanwhile
COMMIT_BYTES = 4 * KIB  # what the write log and the memtable hold of one, within limits of theirs
STALL_S = 3.0


def _bound(server: Deployment, readers: int) -> float:
    """What the server may hold for clients that do not read.

    Per connection: the transitions that may be ready and unsent, below them what the transport
    takes before it says stop, and one copy while a frame is put together.
    """
    frames = server.limits.unsent_transitions + 2
    return readers * (frames * (ANSWER_BYTES + KIB) + HIGH_WATER_BYTES) + NOISE_BYTES


async def _stall(server: Deployment, commits: int, limit: Callable[[], None]) -> list[Peer]:
    """Clients that stop reading while so many commits concern them. `limit` looks after each."""
    peers = [await Peer.open(server.port) for _ in range(READERS)]
    for peer in peers:
        peer.watch("rooms:padded", {"room": "busy", "size": ANSWER_BYTES})
    await eventually(lambda: all(peer.results for peer in peers), "first results")
    writer = await Peer.open(server.port)
    for peer in peers:
        peer.stop_reading()
    for number in range(commits):
        assert (await writer.call("rooms:touch", room="busy"))["result"] == number + 1
        limit()
    writer.cut()
    return peers


async def test_transitions_for_clients_that_do_not_read_are_merged_and_they_catch_up(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    commits = effort.pick(400, 10_000)
    server = deploy()
    before = server.resident_bytes()
    with Bystander(server) as bystander:
        peers = await _stall(server, commits, lambda: None)
    held = server.peak_bytes() - before
    bound = _bound(server, READERS) + commits * COMMIT_BYTES
    assert held < bound, f"{held / MIB:.1f} MiB for {READERS} slow readers"
    for peer in peers:
        peer.read_again()
    caught_up = await eventually(
        lambda: all(peer.results[0]["version"] == commits for peer in peers), "the last state"
    )
    for peer in peers:
        assert not peer.socket.closed
        assert peer.transitions < commits / 2, "nothing was merged"
        peer.cut()
    bystander.assert_served(STALL_S)
    evidence(
        "bounded",
        commits=commits,
        unmerged_mib=round(commits * READERS * ANSWER_BYTES / MIB),
        held_mib=round(held / MIB, 1),
        transitions=max(peer.transitions for peer in peers),
        caught_up_ms=round(caught_up * 1000),
        **bystander.figures(),
    )


async def test_a_server_that_queues_for_slow_readers_is_found(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    breakage: Breakage = UNMERGED
    server = deploy(breakage=breakage)
    before, found = server.resident_bytes(), 0

    class Found(Exception):
        pass

    def look() -> None:
        nonlocal found
        found += 1
        if server.resident_bytes() - before > _bound(server, READERS):
            raise Found

    with pytest.raises(Found):
        await _stall(server, 1000, look)
    evidence("bounded", breakage=breakage, commits_until_found=found)


async def test_clients_that_never_read_again_are_dropped_for_their_silence(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    count, waves, silence_s = effort.pick(5, 20), effort.pick(1, 3), 1.0
    server = deploy(silence_seconds=silence_s)
    files = server.open_files()
    held: list[int] = []
    took = 0.0
    with Bystander(server) as bystander:
        for wave in range(waves + 1):
            peers = [await Peer.open(server.port) for _ in range(count)]
            for number, peer in enumerate(peers):
                # More than any window takes, so that the Close stays behind it.
                peer.watch("rooms:padded", {"room": f"s{wave}-{number}", "size": 12 * MIB})
                peer.stop_reading()
            await asyncio.sleep(silence_s + 2.5)  # and two ticks
            held.append(server.resident_bytes())
            if wave == waves:
                break
            # Who reads again finds the reason behind everything else.
            peers[0].read_again()
            await eventually(lambda p=peers[0]: p.socket.closed, "it is dropped")
            assert peers[0].farewell() == (1000, "ClientDisconnected")
            if not effort.long:
                break
            # The others cannot be told; ten seconds later their connections are cut.
            took = await eventually(
                lambda: server.open_files() <= files + 2, "they are let go", silence_s + 15
            )
        for peer in peers:
            peer.cut()
        await eventually(lambda: server.open_files() <= files + 2, "their connections are gone")
    # What was held for them is used again: from the second wave on as many more cost nothing more.
    warm = held[min(1, len(held) - 1)]
    assert held[-1] < warm + warm * 0.1 + NOISE_BYTES, held
    bystander.assert_served(STALL_S)
    evidence("bounded", dropped=count * waves, seconds=round(took, 1), **bystander.figures())
