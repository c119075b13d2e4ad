"""One file up and down again over HTTP, and what the server's memory does meanwhile.

The client sends blocks that it has and drops blocks that it gets, on a plain socket.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from bench.programs import resident_bytes

__all__ = ["LOADS"]

_BLOCK = 1024 * 1024
_LOOK_EVERY = 16  # blocks


class _Watched:
    """Blocks on their way, with a look at the server's memory now and then."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = resident_bytes(pid)
        self.peak = self.before

    def blocks(self, megabytes: int) -> Iterator[bytes]:
        block = bytes(range(256)) * (_BLOCK // 256)
        for number in range(megabytes):
            self.look(number)
            yield block

    def look(self, number: int) -> None:
        if number % _LOOK_EVERY == 0:
            self.peak = max(self.peak, resident_bytes(self._pid))

    @property
    def grown_mib(self) -> float:
        return (self.peak - self.before) / _BLOCK


def _ask(port: int, kind: str, path: str, **args: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    body = json.dumps({"path": path, "args": args, "format": "json"})
    connection.request("POST", f"/api/{kind}", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer["status"] == "success", answer
    return answer["value"]


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


async def transfer(port: int, pid: int, megabytes: int, is_bare: bool) -> dict[str, float]:
    """A file of so many megabytes to the server and back: rates, and growth of its memory."""
    watched = _Watched(pid)
    there = "/file" if is_bare else _path(_ask(port, "mutation", "files:uploadUrl"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    start = time.perf_counter()
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(megabytes * _BLOCK),
    }
    connection.request("POST", there, watched.blocks(megabytes), headers)
    answer = connection.getresponse()
    body = answer.read()
    up = time.perf_counter() - start
    assert answer.status == 200, body
    if is_bare:
        back = "/file"
    else:
        back = _path(_ask(port, "query", "files:url", id=json.loads(body)["storageId"]))
    start = time.perf_counter()
    connection.request("GET", back)
    answer = connection.getresponse()
    buffer, size, number = bytearray(_BLOCK), 0, 0
    while read := answer.readinto(buffer):
        size += read
        number += 1
        watched.look(number)
    down = time.perf_counter() - start
    connection.close()
    assert size == megabytes * _BLOCK, size
    return {
        "up": megabytes * _BLOCK / 1e6 / up,
        "down": megabytes * _BLOCK / 1e6 / down,
        "grown_mib": watched.grown_mib,
    }


LOADS = {"transfer": transfer}
