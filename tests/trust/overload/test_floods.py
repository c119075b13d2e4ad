"""Floods of small things: calls nobody reads, connections that never finish what they begin."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable

from tests.trust.effort import Effort
from tests.trust.overload.bystander import Bystander
from tests.trust.overload.deployment import KIB, MIB, Deployment
from tests.trust.overload.peer import SYNC, Peer, eventually, http, raw_connection

STALL_S = 3.0
CONNECTION_BYTES = 32 * KIB  # of one that has not become a session
NOISE_BYTES = 16 * MIB
QUESTION = b'{"path":"rooms:mark","args":{"room":"asked"},"format":"json"}'
UPGRADE = (
    f"GET {SYNC} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
).encode()


async def test_a_flood_of_mutations_nobody_reads_the_answers_of_ends_at_the_limit_of_one_socket(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    sockets, calls = effort.pick(10, 50), 600
    server = deploy(pending_mutations=100)
    before = server.forget_peak()
    with Bystander(server) as bystander:
        peers = await asyncio.gather(*(Peer.open(server.port) for _ in range(sockets)))
        for number, peer in enumerate(peers):
            peer.stop_reading()
            for _ in range(calls):
                peer.ask("rooms:touch", room=f"flood{number}")
        await asyncio.sleep(1.0)
        for peer in peers:
            peer.read_again()
        await eventually(lambda: all(peer.socket.closed for peer in peers), "the refusal")
    assert {peer.farewell() for peer in peers} == {(1013, "TooManyConcurrentMutations")}
    answered = 0
    reader = await Peer.open(server.port)
    for number, peer in enumerate(peers):
        # In order, without a gap, and no more of them took effect than could have been running.
        assert sorted(peer.answers) == list(range(len(peer.answers)))
        assert all(answer["success"] for answer in peer.answers.values())
        (query,) = reader.watch("rooms:mark", {"room": f"flood{number}"})
        await eventually(lambda q=query: q in reader.results, "the room")
        version = reader.results[query]["version"]
        assert len(peer.answers) <= version <= len(peer.answers) + 1
        answered += len(peer.answers)
    assert server.peak_bytes() - before < sockets * 2 * MIB + NOISE_BYTES
    bystander.assert_served(STALL_S)
    evidence("bounded", calls=sockets * calls, answered=answered, **bystander.figures())


async def test_requests_and_frames_that_are_never_finished_stand_in_nobodys_way_and_are_let_go(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    each = effort.pick(200, 1500)
    head_s, request_s = 1.0, 2.5
    server = deploy(head_seconds=head_s, request_seconds=request_s, silence_seconds=30)
    files = server.open_files()
    before = server.forget_peak()
    halves = {
        "heads": b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
        "upgrades": UPGRADE[:-2],
        "nothing": b"",
        "bodies": b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n{",
        # A whole handshake, then a frame that says it has a thousand bytes and brings ten.
        "frames": UPGRADE + b"\x81\xfe\x03\xe8\0\0\0\0" + b"{" * 10,
    }
    start = time.perf_counter()
    with Bystander(server) as bystander:
        opened = {
            name: await asyncio.gather(*(raw_connection(server.port, half) for _ in range(each)))
            for name, half in halves.items()
        }
        for _ in range(effort.pick(20, 100)):
            status, answer = await asyncio.wait_for(http(server.port, "/api/query", QUESTION), 10)
            assert (status, answer["status"]) == (200, "success")
        held = server.peak_bytes() - before

        async def ended(name: str) -> float:
            for reader, _ in opened[name]:
                await reader.read()
            return time.perf_counter() - start

        for name in ("heads", "upgrades", "nothing"):
            took = await asyncio.wait_for(ended(name), head_s + 5)
            assert took >= head_s * 0.9
        bodies = await asyncio.wait_for(ended("bodies"), request_s + 5)
        assert bodies >= request_s * 0.9
        # What has become a socket may be silent for longer; its own limit is another test's.
        assert not opened["frames"][0][0].at_eof()
    for connections in opened.values():
        for _, writer in connections:
            writer.close()
    await eventually(lambda: server.open_files() <= files + 3, "the connections are let go")
    total = each * len(halves)
    assert held < total * CONNECTION_BYTES + NOISE_BYTES, f"{held / total / KIB:.1f} KiB each"
    bystander.assert_served(STALL_S)
    evidence(
        "bounded",
        connections=total,
        kib_each=round(held / total / KIB, 1),
        **bystander.figures(),
    )


async def test_slow_large_bodies_leave_room_for_short_requests(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    server = deploy(concurrent_requests=8)
    begin = (
        b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 200000\r\n\r\n" + b"{" * 100_000
    )
    slow = [await raw_connection(server.port, begin) for _ in range(40)]
    await asyncio.sleep(0.2)
    with Bystander(server) as bystander:
        for _ in range(20):
            status, _ = await asyncio.wait_for(http(server.port, "/api/query", QUESTION), 10)
            assert status == 200
    for _, writer in slow:
        writer.close()
    bystander.assert_served(STALL_S)
    evidence("bounded", slow=len(slow), served=20, **bystander.figures())


async def test_failing_authentications_are_refused_one_by_one_and_cost_others_nothing(
    shared: Deployment, effort: Effort, evidence: Callable[..., None]
):
    count = effort.pick(200, 3000)
    server = shared
    before = server.forget_peak()

    async def over_http(number: int) -> int:
        key = f"Authorization: Convex reactive-store|{number:064x}\r\n"
        status, answer = await http(server.port, "/api/query", QUESTION, headers=key)
        assert answer["code"], answer
        return status

    async def over_socket(number: int) -> Peer:
        peer = await Peer.open(server.port)
        peer.say(
            {
                "type": "Authenticate",
                "baseVersion": 0,
                "tokenType": "Admin" if number % 2 else "User",
                "value": f"reactive-store|{number:064x}",
            }
        )
        # What comes behind it waits for the verdict, and is not run.
        peer.ask("rooms:touch", room="forbidden")
        return peer

    with Bystander(server) as bystander:
        statuses, peers = [], []
        for first in range(0, count, 100):
            numbers = range(first, first + 100)
            statuses += await asyncio.gather(*(over_http(number) for number in numbers))
            peers += await asyncio.gather(*(over_socket(number) for number in numbers))
        await eventually(lambda: all(peer.socket.closed for peer in peers), "the refusals")
    assert set(statuses) <= {401, 403}, set(statuses)
    for peer in peers:
        assert [error["type"] for error in peer.errors] == ["AuthError"]
        assert peer.farewell()[0] == 1000
        assert not peer.answers
    reader = await Peer.open(server.port)
    (query,) = reader.watch("rooms:mark", {"room": "forbidden"})
    await eventually(lambda: query in reader.results, "the room")
    assert reader.results[query]["version"] == 0
    assert server.peak_bytes() - before < NOISE_BYTES
    bystander.assert_served(STALL_S)
    evidence("bounded", refused=len(statuses) + len(peers), **bystander.figures())


async def test_questions_nobody_watches_any_more_are_not_kept(
    shared: Deployment, effort: Effort, evidence: Callable[..., None]
):
    rounds, size = effort.pick(10, 100), 20 * KIB
    server = shared
    peer = await Peer.open(server.port)
    held: list[int] = []
    asked = 0
    with Bystander(server) as bystander:
        for _ in range(rounds):
            rooms = [{"room": f"seen{asked + n}", "size": size} for n in range(200)]
            asked += len(rooms)
            ids = peer.watch("rooms:padded", *rooms)
            await eventually(lambda i=ids: i[-1] in peer.results, "results")
            peer.unwatch(*ids)
            peer.results.clear()
            held.append(server.resident_bytes())
    last = held[-1] - held[1]
    assert last < NOISE_BYTES, f"{last / MIB:.1f} MiB more after {asked * size / MIB:.0f} MiB"
    bystander.assert_served(STALL_S)
    evidence("bounded", questions=asked, told_mib=asked * size // MIB, **bystander.figures())


async def _is_greeted(reader: asyncio.StreamReader) -> bool:
    """Whether the handshake is answered; a connection that is not accepted hears nothing."""
    try:
        return b" 101 " in await asyncio.wait_for(reader.readline(), 0.2)
    except TimeoutError:
        return False


async def test_more_connections_than_descriptors_wait_and_those_there_are_served(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    server = deploy()
    most = server.open_files() + 60
    with Bystander(server) as bystander:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))
        crowd = [await raw_connection(server.port, UPGRADE) for _ in range(120)]
        await asyncio.sleep(0.4)
        assert server.open_files() >= most - 2, "the descriptors are not used up"
        greeted = await asyncio.gather(*(_is_greeted(reader) for reader, _ in crowd))
        waiting = greeted.count(False)
        assert waiting >= len(crowd) - 60, "more were let in than there are descriptors"
        for _, writer in crowd:
            writer.close()
        await eventually(lambda: server.open_files() < most - 20, "they are let go", 10)
        late = await Peer.open(server.port)
        assert (await late.call("rooms:touch", room="late"))["success"]
    bystander.assert_served(STALL_S)
    evidence("bounded", let_in=greeted.count(True), waiting=waiting, **bystander.figures())
