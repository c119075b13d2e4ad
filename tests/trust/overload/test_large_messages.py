"""Storms of large things: arguments, documents, results, messages at their limits and above."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.trust.effort import Effort
from tests.trust.overload.breakages import NO_SIZE
from tests.trust.overload.bystander import Bystander
from tests.trust.overload.deployment import KIB, MIB, Deployment
from tests.trust.overload.peer import Peer, eventually, http

SHARED = {"message_bytes": MIB}
STALL_S = 4.0
DENSEST = 48  # bytes of memory per byte of JSON, while a message is decoded
NOISE_BYTES = 48 * MIB
# In MiB. The short form has an eighth of the real limits: the same paths, fewer bytes.
SCALES = {"arguments_bytes": 16, "result_bytes": 16, "body_bytes": 16, "written_bytes": 16}


def _limits(effort: Effort) -> dict[str, float]:
    scale = effort.pick(8, 1)
    sizes: dict[str, float] = {name: mib * MIB // scale for name, mib in SCALES.items()}
    sizes["body_bytes"] += 2000
    return {**sizes, "message_bytes": 64 * MIB // scale}


def _bound(server: Deployment, clients: int) -> float:
    """What a storm may take at its worst.

    Per client the message being received, what it was put together from, and two queries that are
    watched, each with its arguments and its answer; once, for the one that is being run, its values
    as objects and encoded again; the commits that are not in the tables yet; what was read
    recently.
    """
    limits = server.limits
    each = 2 * limits.arguments_bytes + 2 * (limits.arguments_bytes + limits.result_bytes)
    running = 4 * (limits.arguments_bytes + limits.result_bytes)
    return clients * each + running + 2 * limits.memtable_bytes + 64 * MIB + NOISE_BYTES


async def test_a_storm_of_messages_at_their_limits_is_served_within_the_sum_of_the_limits(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    clients, rounds = effort.pick(24, 24), effort.pick(4, 6)
    server = deploy(**_limits(effort))
    limits = server.limits
    before = server.forget_peak()
    document = "d" * (limits.document_bytes - 4 * KIB)
    copies = limits.arguments_bytes // limits.document_bytes
    argument = "a" * (limits.arguments_bytes - KIB)
    written = 0
    refused = served = 0

    async def storm(number: int, peer: Peer) -> None:
        nonlocal served, refused, written
        owner = f"o{number}"
        answer = await peer.call("texts:store", owner=owner, text=document, copies=copies - 1)
        assert answer["result"] == len(document)
        written += copies - 1
        answer = await peer.call("texts:size_of", kind="Mutation", text="")
        assert answer["success"] is False  # a query is no mutation, large or small
        (query,) = peer.watch("texts:size_of", {"text": argument})
        size = limits.result_bytes - KIB
        (long,) = peer.watch("texts:long_answer", {"size": size})
        await eventually(lambda q=query: q in peer.results, "a large argument")
        assert peer.results[query] == len(argument)
        await eventually(lambda q=long: q in peer.results, "a large result")
        assert len(peer.results[long]) == size
        served += 3
        # A little more is refused, each in the words of its limit.
        answer = await peer.call("texts:store", owner=owner, text=document, copies=copies + 1)
        assert "Too many bytes written" in answer["result"]
        peer.unwatch(query, long)
        (query,) = peer.watch("texts:size_of", {"text": argument + "a" * KIB})
        (long,) = peer.watch("texts:long_answer", {"size": limits.result_bytes + 1})
        await eventually(lambda q=long: q in peer.results, "a result that is too large")
        assert "are too large" in peer.results[query]["errorMessage"]
        assert "return value is too large" in peer.results[long]["errorMessage"]
        refused += 3
        peer.unwatch(query, long)
        peer.results.clear()
        assert not peer.errors

    held: list[int] = []  # after each round
    with Bystander(server) as bystander:
        peers = [await Peer.open(server.port) for _ in range(clients)]
        for _ in range(rounds):
            await asyncio.gather(*(storm(number, peer) for number, peer in enumerate(peers)))
            held.append(server.resident_bytes() - before)
        for peer in peers:
            peer.cut()
    peak = server.peak_bytes() - before
    assert peak < _bound(server, clients), f"{peak / MIB:.0f} MiB"
    # By the third round what is kept for everybody is full: commits on their way, what was read.
    growth = max(held[2:]) - held[2]
    assert growth < held[2] * 0.15 + NOISE_BYTES, f"each round costs more: {held}"
    bystander.assert_served(STALL_S * effort.pick(1, 4))
    # Nothing of what was refused is there, everything that was served is.
    peer = await Peer.open(server.port)
    owners = [{"owner": f"o{number}"} for number in range(clients)]
    ids = peer.watch("texts:count", *owners[:1])
    await eventually(lambda: ids[0] in peer.results, "the count")
    expected = rounds * (copies - 1)
    counted = peer.results[ids[0]]
    readable = limits.read_bytes // limits.document_bytes
    assert counted == expected if expected <= readable else "errorMessage" in counted
    evidence(
        "bounded",
        served=served,
        refused=refused,
        written_mib=written,
        peak_mib=round(peak / MIB),
        growth_mib=round(growth / MIB),
        bound_mib=round(_bound(server, clients) / MIB),
        **bystander.figures(),
    )


async def test_a_message_of_the_densest_json_costs_a_known_multiple_of_its_size(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    """Three bytes of JSON can become an object of 64; that is the worst there is."""
    server = deploy(**_limits(effort))
    limit = server.limits.message_bytes
    peer = await Peer.open(server.port)
    before = server.forget_peak()
    kinds = (b"[],", b"{},", b'{"a":0},')
    with Bystander(server) as bystander:
        for number, text in enumerate(kinds):
            peer.socket.send(
                b'{"type":"Mutation","requestId":%d,"udfPath":"texts:store","args":[{"text":[%b0]}]}'
                % (number, text * (limit // len(text) - 100))
            )
            await eventually(lambda n=number: n in peer.answers, "the refusal")
            assert peer.answers[number]["success"] is False
            assert "too large" in peer.answers[number]["result"]
    peak = server.peak_bytes() - before
    assert peak < DENSEST * limit + NOISE_BYTES, f"{peak / MIB:.0f} MiB"
    bystander.assert_served(STALL_S * effort.pick(1, 4))
    factor = round(peak / limit, 1)
    evidence(
        "bounded",
        messages=len(kinds),
        factor=factor,
        peak_mib=round(peak / MIB),
        **bystander.figures(),
    )


async def _oversized(server: Deployment) -> list[Peer]:
    """Sockets whose one message is a little larger than a message may be."""
    text = b"m" * (server.limits.message_bytes + 1)
    message = orjson.dumps({"type": "Event", "eventType": "x", "event": text.decode()})
    peers = [await Peer.open(server.port) for _ in range(3)]
    for peer in peers:
        peer.socket.send(message)
    return peers


async def test_a_message_above_the_limit_ends_its_socket_with_1009(
    shared: Deployment, evidence: Callable[..., None]
):
    server = shared
    with Bystander(server) as bystander:
        peers = await _oversized(server)
        await eventually(lambda: all(peer.socket.closed for peer in peers), "the refusal")
    assert {peer.farewell()[0] for peer in peers} == {1009}
    bystander.assert_served(STALL_S)
    evidence("bounded", refused=len(peers), **bystander.figures())


async def test_a_server_that_takes_messages_of_any_size_is_found(
    deploy: Callable[..., Deployment], evidence: Callable[..., None]
):
    server = deploy(breakage=NO_SIZE, message_bytes=MIB)
    peers = await _oversized(server)
    with pytest.raises(AssertionError, match="not within"):
        await eventually(lambda: any(peer.socket.closed for peer in peers), "the refusal", 1.0)
    evidence("bounded", breakage=NO_SIZE, taken=len(peers))


async def test_a_message_in_endless_pieces_is_counted_as_one(
    shared: Deployment, evidence: Callable[..., None]
):
    server = shared
    peer = await Peer.open(server.port)
    before, piece = server.forget_peak(), b"p" * 60_000
    sent = 0
    while not peer.socket.closed and sent < 64 * MIB:
        # FIN is never set: a Text frame first, Continuations after it.
        head = bytes((0x01 if sent == 0 else 0x00, 0x80 | 126)) + len(piece).to_bytes(2, "big")
        peer.socket._transport.write(head + b"\0\0\0\0" + piece)
        sent += len(piece)
        await asyncio.sleep(0.002)
    assert peer.farewell()[0] == 1009
    assert server.peak_bytes() - before < 3 * server.limits.message_bytes + 8 * MIB
    evidence("bounded", pieces=sent // len(piece))


async def test_bodies_above_the_limit_are_refused_and_those_below_served(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Callable[..., None]
):
    clients = effort.pick(40, 200)
    server = deploy(**_limits(effort))
    limits = server.limits
    before = server.forget_peak()
    fits = "b" * (limits.arguments_bytes - KIB)

    def body(text: str) -> bytes:
        return orjson.dumps({"path": "texts:size_of", "args": {"text": text}, "format": "json"})

    small, large = body(fits), body(fits + "b" * 4 * KIB)

    async def ask(number: int) -> tuple[int, Any]:
        return await http(server.port, "/api/query", large if number % 2 else small)

    with Bystander(server) as bystander:
        answers = await asyncio.gather(*(ask(number) for number in range(clients)))
    for number, (status, answer) in enumerate(answers):
        if number % 2:
            assert (status, answer["code"]) == (400, "BadJsonBody")
            assert "too large" in answer["message"]
        else:
            assert (status, answer["value"]) == (200, len(fits))
    peak = server.peak_bytes() - before
    places = min(clients, limits.concurrent_requests)
    assert peak < places * 3 * limits.body_bytes + NOISE_BYTES, f"{peak / MIB:.0f} MiB"
    bystander.assert_served(STALL_S * effort.pick(1, 4))
    evidence("bounded", requests=clients, peak_mib=round(peak / MIB), **bystander.figures())
