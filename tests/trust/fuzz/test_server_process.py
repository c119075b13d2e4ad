"""Raw bytes on the port of a real server: it lives, answers others, tells nothing, stays small."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess
from tests.trust.effort import Effort
from tests.trust.fuzz.deployment import APP
from tests.trust.fuzz.documented import check_leaks
from tests.trust.fuzz.mangling import mangle_bytes, mangle_json, odd_value, write_json
from tests.trust.fuzz.peer import HANDSHAKE, frame, text_frame
from tests.trust.fuzz.shrinking import Find, report, shrink_bytes
from tests.trust.fuzz.test_socket_bytes import some_frames, some_handshake

pytestmark = pytest.mark.e2e

_BOUND_SECONDS = 10.0  # for one input, on a busy machine
_AT_ONCE = 16
KIB = 1024
_WARM_UP = 2400  # by then caches are full and the garbage collector has found its pace
_NOISE_BYTES = 4 * KIB * KIB  # room that allocators take at once, now and then
_CALLS = (b"/api/query", b"/api/mutation", b"/api/action", b"/api/query_batch", b"/echo")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(APP, tmp_path_factory.mktemp("fuzz") / "data") as running:
        yield running


def some_bytes(rng: random.Random) -> bytes:
    """What one connection sends: HTTP or a socket, right, a little wrong, or noise."""
    roll = rng.random()
    if roll < 0.45:
        return _http(rng)
    if roll < 0.85:
        return HANDSHAKE + b"".join(some_frames(rng))
    if roll < 0.95:
        return some_handshake(rng)
    return rng.randbytes(rng.choice((1, 10, 1000)))


def _http(rng: random.Random) -> bytes:
    call: Any = {"path": rng.choice(("odds:echo", "odds:fails", "notes:write", "odds:hidden", "x"))}
    call["args"] = rng.choice(({"value": odd_value(rng)}, {"text": "t"}, {}))
    body = write_json(mangle_json(rng, call) if rng.random() < 0.5 else call)[:100_000]
    path, kind = rng.choice(_CALLS), b"application/json"
    length = rng.choice((len(body), len(body), len(body), len(body) + 5, 0, 10**12, -1))
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: a", b"Content-Type: " + kind]
    if rng.random() < 0.25:
        lines.append(b"Transfer-Encoding: chunked")
        size = rng.choice((b"%x" % len(body), b"ffffffffffffffff", b"-1", b"zz"))
        body = size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % length)
    if rng.random() < 0.3:
        lines.append(
            rng.choice((b"Expect: 100-continue", b"Connection: close", b"X: " + b"h" * 70_000))
        )
    data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return mangle_bytes(rng, data, [HANDSHAKE]) if rng.random() < 0.3 else data


async def send(server: ServerProcess, data: bytes) -> bytes | None:
    """Everything the server says to these bytes; None when it does not come to an end in time."""
    try:
        async with asyncio.timeout(_BOUND_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                if data.startswith(HANDSHAKE):  # a client waits for the answer before it speaks
                    writer.write(HANDSHAKE)
                    await reader.readuntil(b"\r\n\r\n")
                    data = data[len(HANDSHAKE) :]
                writer.write(data)
                writer.write_eof()
                return await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return None
    except (OSError, asyncio.IncompleteReadError):
        return b""


async def judge(server: ServerProcess, data: bytes) -> Find | None:
    answer = await send(server, data)
    if answer is None:
        return Find("no end in time", "")
    text = answer.decode("latin-1")
    status = re.match(r"HTTP/1\.1 (\d{3})", text)
    if status is not None and status[1].startswith("5") and status[1] != "505":
        return Find(f"status {status[1]}", text[:300])
    return None if b"/echo" in data else check_leaks(text, (), redact=True)


async def canary(server: ServerProcess, number: int) -> None:
    """An honest question gets its right answer, and soon.

    Raises   AssertionError
    """
    body = json.dumps({"path": "odds:canary", "args": {"number": number}}).encode()
    request = (
        b"POST /api/query HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(_BOUND_SECONDS):
        writer.write(request + body)
        answer = await reader.read()
        writer.close()
    assert b'"value":%d.0' % (number + 1) in answer, answer[:500]
    assert time.monotonic() - started < _BOUND_SECONDS


async def explore(server: ServerProcess, seed: int, count: int, first: int = 0) -> None:
    """Send `count` inputs, some at a time; a canary after each hundred.

    Raises   AssertionError with the smallest input that shows what is wrong
    """
    for start in range(first, first + count, 100):
        inputs = [some_bytes(random.Random(f"port {seed} {n}")) for n in range(start, start + 100)]
        for at in range(0, 100, _AT_ONCE):
            group = inputs[at : at + _AT_ONCE]
            finds = await asyncio.gather(*[judge(server, data) for data in group])
            for data, find in zip(group, finds, strict=True):
                if find is None:
                    continue

                async def shows(fewer: bytes, find: Find = find) -> bool:
                    seen = await judge(server, fewer)
                    return seen is not None and seen.kind == find.kind

                smallest = (
                    await shrink_bytes(data, shows) if find.kind != "no end in time" else data
                )
                raise AssertionError(report("robust port", f"{seed} {start + at}", smallest, find))
        await canary(server, start)
    assert server.process is not None
    assert server.process.poll() is None, server.said()


async def test_a_real_server_lives_through_any_bytes_and_stays_small(
    server: ServerProcess, effort: Effort, evidence: Any
) -> None:
    rounds = effort.pick(2000, 6000)
    await explore(server, effort.seed, _WARM_UP)
    held = []
    for first in range(0, 2 * rounds, 100):
        await explore(server, effort.seed + 1, 100, first)
        held.append(server.resident_bytes())
    # From the middle of the first half to the middle of the second so many inputs went in.
    early, late = (fmean(half) for half in (held[: rounds // 100], held[rounds // 100 :]))
    grown = late - early
    assert grown < rounds * KIB + _NOISE_BYTES, f"{grown:.0f} bytes for {rounds} inputs: {held}"
    assert "Traceback" not in server.said(), server.said()[-3000:]
    evidence("robust", inputs=_WARM_UP + 2 * rounds, bytes_per_input=round(grown / rounds))


async def test_sockets_that_stop_in_the_middle_do_not_keep_others_waiting(
    server: ServerProcess, effort: Effort, evidence: Any
) -> None:
    count = effort.pick(60, 400)
    writers = []
    whole = text_frame({"type": "Event", "eventType": "x", "event": "y" * 500})
    for number in range(count):
        rng = random.Random(f"halves {effort.seed} {number}")
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
        writer.write(HANDSHAKE[: rng.choice((10, 100, len(HANDSHAKE)))])
        await asyncio.sleep(0)
        if rng.random() < 0.5:
            writer.write(whole[: rng.randrange(len(whole))])
        if rng.random() < 0.2:
            writer.write(frame(b"x" * 1000, length=2**25))
    for number in range(10):
        await canary(server, number)
    for writer in writers:
        writer.transport.abort()
    await canary(server, 1)
    evidence("robust", sockets=count)


def test_the_app_s_folder_is_the_one_that_must_not_show() -> None:
    """The check for paths in answers looks for this folder's name."""
    assert check_leaks(f"… {Path(APP).parents[3]}/x.py", (), redact=True) is not None
