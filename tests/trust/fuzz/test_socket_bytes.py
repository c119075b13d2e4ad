"""Bytes on a sync socket that break RFC 6455, its handshake, or both: closed, never worse."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.trust.breakage import Breakage
from tests.trust.effort import Effort
from tests.trust.fuzz.breakages import named
from tests.trust.fuzz.deployment import Deployment, secrets_of_alice
from tests.trust.fuzz.mangling import ODD_TEXTS, mangle_bytes
from tests.trust.fuzz.peer import HANDSHAKE, OWN_REASON, Peer, frame, text_frame
from tests.trust.fuzz.shrinking import Find, report, shrink, shrink_bytes

CORPUS = Path(__file__).resolve().parent / "corpus"  # frames, one file an input
LIMIT = 100_000  # bytes of a message, in these tests
QUERY = {
    "type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1,
    "modifications": [
        {"type": "Add", "queryId": 0, "udfPath": "odds:canary", "args": [{"number": 41}]}
    ],
}  # fmt: skip
MUTATION = {"type": "Mutation", "requestId": 0, "udfPath": "notes:write", "args": [{"text": "é"}]}


def some_frames(rng: random.Random) -> list[bytes]:
    """Frames of which most are right, some break a rule each, and some are bytes of any kind."""
    makers = (_right, _right, _reserved, _unmasked, _fragments, _control, _long, _close, _broken)
    frames: list[bytes] = []
    for _ in range(rng.choice((1, 2, 4, 8))):
        frames += rng.choice(makers)(rng)
    return frames


def _right(rng: random.Random) -> list[bytes]:
    return [text_frame(rng.choice((QUERY, MUTATION, {"type": "Event", "eventType": "x"})))]


def _reserved(rng: random.Random) -> list[bytes]:
    packed = zlib.compress(json.dumps(QUERY).encode())
    return [
        rng.choice(
            (
                frame(json.dumps(QUERY).encode(), reserved=rng.randrange(1, 8)),
                frame(packed, reserved=4),  # compressed, though nobody agreed to that
                frame(b"x", opcode=rng.choice((3, 4, 7, 11, 15))),
                frame(b"\0\1", opcode=2),
            )
        )
    ]


def _unmasked(rng: random.Random) -> list[bytes]:
    return [frame(json.dumps(QUERY).encode(), mask=None)]


def _fragments(rng: random.Random) -> list[bytes]:
    data = json.dumps(rng.choice((QUERY, MUTATION)), ensure_ascii=False).encode()
    cuts = sorted(rng.randrange(len(data)) for _ in range(rng.choice((1, 2, 20))))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    frames = [
        frame(part, opcode=0 if number else 1, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]
    match rng.randrange(6):
        case 0:
            frames.insert(1, frame(b"ping", opcode=9))  # allowed between fragments
        case 1:
            frames.insert(1, text_frame(QUERY))  # not allowed there
        case 2:
            frames.pop()
        case 3:
            frames = frames[1:]
        case 4:
            frames = [frame(b"", opcode=1, fin=False), *[frame(b"", opcode=0, fin=False)] * 50]
        case _:
            pass
    return frames


def _control(rng: random.Random) -> list[bytes]:
    payload = b"p" * rng.choice((0, 1, 125, 126, 1000))
    fin = rng.random() < 0.7
    return [frame(payload, opcode=rng.choice((9, 10)), fin=fin) for _ in range(rng.choice((1, 30)))]


def _long(rng: random.Random) -> list[bytes]:
    size = rng.choice((LIMIT - 1, LIMIT, LIMIT + 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
    if size > LIMIT + 1:
        return [frame(b"x" * 100, length=size)]
    if rng.random() < 0.5:
        half = b'"' + b"y" * (size // 2)
        return [frame(half, fin=False), frame(half, opcode=0)]
    return [frame(b'"' + b"y" * (size - 2) + b'"')]


def _close(rng: random.Random) -> list[bytes]:
    code = rng.choice((0, 999, 1000, 1001, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 4999, 65535))
    payload = rng.choice(
        (b"", b"\x03", code.to_bytes(2, "big") + rng.choice((b"", OWN_REASON, b"\xff")))
    )
    return [frame(payload, opcode=8), text_frame(QUERY)]


def _broken(rng: random.Random) -> list[bytes]:
    text = rng.choice((b"\xff\xfe", b"\xed\xa0\x80", b'"\xc3', b"\xf4\x90\x80\x80", b"\0", b""))
    return [
        rng.choice(
            (
                frame(text),
                rng.randbytes(rng.choice((1, 2, 10, 200))),
                mangle_bytes(rng, text_frame(MUTATION), [HANDSHAKE]),
                text_frame(QUERY)[: rng.randrange(20)],
            )
        )
    ]


def some_handshake(rng: random.Random) -> bytes:
    """An upgrade request that is a little or very wrong."""
    lines = HANDSHAKE.split(b"\r\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines) - 2)
        name = lines[at].partition(b":")[0]
        odd = rng.choice(ODD_TEXTS).encode("utf-8", "replace")
        lines[at : at + 1] = rng.choice(
            (
                [],
                [lines[at], lines[at]],
                [name + b": " + odd],
                [name + b": " + b"a" * 9000],
                [name],
                [b"GET " + rng.choice((odd, b"/api/sync?x=" + b"y" * 9000, b"*", b"http://[::1/"))
                 + b" HTTP/1.1"],
                [b"POST /api/sync HTTP/1.0", lines[at]],
                [lines[at], b"Sec-WebSocket-Protocol: " + odd + b", a, a"],
                [lines[at], b"Sec-WebSocket-Extensions: permessage-deflate; " + odd],
                [lines[at], b"Convex-Client: " + odd],
                [lines[at], b"Content-Length: 5"],
            )
        )  # fmt: skip
    data = b"\r\n".join(lines)
    return mangle_bytes(rng, data, [HANDSHAKE]) if rng.random() < 0.3 else data


async def play(
    deployment: Deployment, frames: list[bytes], *, cut: int = 0, compression: bool = False
) -> Find | None:
    """What is wrong with how an open socket takes these bytes; `cut`: in pieces of that size."""
    peer = Peer(deployment, secrets_of_alice(), message_bytes=LIMIT, compression=compression)
    request = HANDSHAKE
    if compression:
        request = HANDSHAKE.replace(
            b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        )
    await peer.open(request)
    data = b"".join(frames)
    size = cut or len(data) or 1
    for at in range(0, len(data), size):
        peer.feed(data[at : at + size])
        if not peer.is_open:
            break
    await peer.settle(20)
    peer.leave()
    return peer.find


async def explore(seed: int, sockets: int) -> tuple[int, Find | None, str]:
    """Play chance's frames to a new deployment. How many bytes, the first find, its report."""
    size = 0
    async with Deployment(seed=seed) as deployment:
        for number in range(sockets):
            rng = random.Random(f"bytes {seed} {number}")
            frames = some_frames(rng)
            total = sum(map(len, frames))
            cut = rng.choice((0, 0, 1, 3, 1000)) if total < 5000 else 0
            compression = rng.random() < 0.2
            size += total
            find = await play(deployment, frames, cut=cut, compression=compression)
            if find is not None:

                async def shows(
                    fewer: list[bytes],
                    find: Find = find,
                    cut: int = cut,
                    compression: bool = compression,
                ) -> bool:
                    seen = await play(deployment, fewer, cut=cut, compression=compression)
                    return seen is not None and seen.kind == find.kind

                how = f"cut {cut}, compression {compression}"
                smallest = (how, await shrink(frames, shows))
                return size, find, report("robust frames", f"{seed}/{number}", smallest, find)
            if number % 100 == 99:
                await deployment.canary(number)
        left = await deployment.is_idle()
        if left is not None:
            return size, Find("left behind", left), f"seed {seed}: {left}"
        await deployment.canary()
    return size, None, ""


async def test_no_bytes_break_a_socket(effort: Effort, evidence: Any) -> None:
    size, sockets = 0, effort.pick(1200, 6000)
    seeds = effort.seeds(2, 10)
    for seed in seeds:
        fed, find, text = await explore(seed, sockets)
        size += fed
        assert find is None, text
    evidence("robust", sockets=sockets * len(seeds), bytes=size)


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("name", sorted(file.name for file in CORPUS.glob("*.bin")))
async def test_what_once_broke_a_socket_does_not_again(
    name: str, compression: bool, evidence: Any
) -> None:
    data = (CORPUS / name).read_bytes()
    async with Deployment() as deployment:
        for cut in (0, 1, 64):
            find = await play(deployment, [data], cut=cut, compression=compression)
            assert find is None, report("robust frames", name, data, find)
        assert await deployment.is_idle() is None
    evidence("robust", inputs=3)


async def test_no_upgrade_request_breaks_the_handshake(effort: Effort, evidence: Any) -> None:
    requests = opened = 0
    async with Deployment(seed=effort.seed) as deployment:
        for number in range(effort.pick(2500, 20_000)):
            rng = random.Random(f"handshake {effort.seed} {number}")
            data = some_handshake(rng)

            async def shake(data: bytes) -> Peer:
                peer = Peer(deployment, secrets_of_alice(), from_http=True)
                await peer.open(data)
                peer.feed(text_frame(QUERY))
                await peer.settle()
                peer.leave()
                return peer

            peer = await shake(data)
            requests += 1
            opened += bool(peer.messages)
            if peer.find is not None:
                kind = peer.find.kind

                async def shows(data: bytes, kind: str = kind) -> bool:
                    find = (await shake(data)).find
                    return find is not None and find.kind == kind

                smallest = await shrink_bytes(data, shows)
                raise AssertionError(report("robust handshake", number, smallest, peer.find))
        assert await deployment.is_idle() is None
        await deployment.canary()
    assert 0 < opened < requests
    evidence("robust", requests=requests)


@pytest.mark.parametrize("size", [LIMIT + 1, 10 * LIMIT, 2**40])
@pytest.mark.parametrize("fragments", [1, 7])
async def test_a_message_beyond_the_limit_ends_the_socket(
    size: int, fragments: int, evidence: Any
) -> None:
    assert await too_long(size, fragments) is None
    evidence("robust", sockets=1)


async def too_long(size: int, fragments: int) -> Find | None:
    """Send a message of that size, or as much of it as is worth sending."""
    async with Deployment() as deployment:
        peer = Peer(deployment, (), message_bytes=LIMIT)
        await peer.open()
        part = min(size, 2 * LIMIT) // fragments + 1
        for number in range(fragments):
            length = size if fragments == 1 else None
            last = number == fragments - 1
            peer.feed(frame(b"z" * part, opcode=0 if number else 1, fin=last, length=length))
        await peer.settle()
        peer.leave()
        if peer.close_code != 1009:
            return Find("message beyond the limit", f"closed with {peer.close_code}")
        return peer.find


@pytest.mark.parametrize("breakage", named("frame-limit"), ids=str)
async def test_a_missing_limit_of_messages_is_found(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, evidence: Any
) -> None:
    breakage.apply(monkeypatch)
    find = await too_long(LIMIT + 1, 1)
    assert find is not None
    assert find.kind == "message beyond the limit"
    evidence("robust", breakage=breakage, found=1)
