"""A peer that asks and does not read: what is kept for it does not grow with what it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.trust.effort import Effort
from tests.trust.overload.bystander import Bystander
from tests.trust.overload.deployment import KIB, MIB, Deployment
from tests.trust.overload.peer import Peer, eventually

STALL_S = 3.0
ANSWER_BYTES = 100 * KIB
HIGH_WATER_BYTES = 64 * KIB
NOISE_BYTES = 12 * MIB


async def _settled(server: Deployment) -> None:
    """Wait until its memory does not grow any more."""
    last = 0
    while (now := server.resident_bytes()) > last + MIB:
        last = now
        await asyncio.sleep(0.25)


async def test_answers_nobody_reads_hold_back_the_calls_behind_them(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    sockets, calls = effort.pick(2, 10), 800
    server = deploy()
    peers = [await Peer.open(server.port) for _ in range(sockets)]
    with Bystander(server) as bystander:
        for peer in peers:
            peer.stop_reading()
        for step in range(8):
            for number, peer in enumerate(peers):
                for _ in range(calls // 8):
                    peer.ask("rooms:touch_and_tell", room=f"unread{number}", size=ANSWER_BYTES)
            await _settled(server)
            if step == 0:  # the windows are full; what ran until then is in the store's caches
                before = server.forget_peak()
        held = server.peak_bytes() - before
        for peer in peers:
            peer.read_again()
        await eventually(
            lambda: all(len(peer.answers) == calls for peer in peers), "every answer, late"
        )
    each = server.limits.unsent_answers * (ANSWER_BYTES + KIB) + 2 * HIGH_WATER_BYTES
    assert held < sockets * each + NOISE_BYTES, f"{held / MIB:.1f} MiB"
    for peer in peers:
        assert all(answer["success"] for answer in peer.answers.values())
        assert not peer.socket.closed
    bystander.assert_served(STALL_S)
    evidence(
        "bounded",
        answers=sockets * calls,
        answered_mib=sockets * calls * ANSWER_BYTES // MIB,
        held_mib=round(held / MIB, 1),
        **bystander.figures(),
    )


async def test_pongs_nobody_reads_are_not_kept(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    pings = effort.pick(200_000, 2_000_000)
    server = deploy()
    peer = await Peer.open(server.port)
    before = server.forget_peak()
    with Bystander(server) as bystander:
        peer.stop_reading()
        for _ in range(pings // 2000):
            for _ in range(2000):
                peer.socket._frame(0x9, b"p" * 125)
            while peer.socket._transport.get_write_buffer_size():
                await asyncio.sleep(0.002)
        held = server.peak_bytes() - before
        peer.read_again()
        assert (await peer.call("rooms:touch", room="after"))["success"]
    assert held < HIGH_WATER_BYTES + NOISE_BYTES, f"{held / MIB:.1f} MiB"
    bystander.assert_served(STALL_S)
    evidence("bounded", pings=pings, held_mib=round(held / MIB, 1), **bystander.figures())


async def test_one_session_with_thousands_of_queries_gives_way_to_others_between_them(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    count = 9000
    server = deploy()
    peer = await Peer.open(server.port)
    with Bystander(server) as bystander:
        peer.watch("rooms:mark", *({"room": "one", "number": n} for n in range(count)))
        took = await eventually(lambda: len(peer.results) == count, "every result")
    # Not for the whole of it.
    bystander.assert_served(took / 2)
    evidence("bounded", queries=count, seconds=round(took, 2), **bystander.figures())


async def test_a_socket_with_more_queries_than_it_may_have_is_turned_away(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    server = deploy(session_queries=100)
    with Bystander(server) as bystander:
        peer = await Peer.open(server.port)
        peer.watch("rooms:mark", *({"room": f"q{n}"} for n in range(100)))
        await eventually(lambda: len(peer.results) == 100, "as many as allowed")
        peer.watch("rooms:mark", {"room": "one more"})
        await eventually(lambda: peer.socket.closed, "the refusal")
        assert peer.farewell() == (1013, "TooManyQueries")
        # Changes of a query set that nobody takes are bounded like the set itself.
        again = await Peer.open(server.port)
        again.watch("rooms:padded", {"room": "r", "size": 8 * MIB})
        await eventually(lambda: bool(again.results), "the first result")
        again.stop_reading()
        for step in range(300):
            again.unwatch(*again.watch("rooms:padded", {"room": f"r{step}", "size": 8 * MIB}))
            await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        again.read_again()
        await eventually(lambda: again.socket.closed, "the refusal")
        assert again.farewell() == (1013, "TooManyQueries")
    bystander.assert_served(STALL_S)
    evidence("bounded", refused=2, **bystander.figures())
