"""A well-behaved client in a process of its own: what everybody else notices of an attack.

    python -m tests.trust.overload.bystander PORT PID    rounds until standard input ends → JSON

Each round writes into a room of its own and waits for the answer and for the live result with its
own write in it; every fourth round also asks over HTTP. Anything wrong ends it with an error.

A machine that is busy with other things slows everybody down. How long the server and this process
were ready to run and got no processor is what the kernel counts, and is no fault of the server; it
is measured round by round, and excuses the round in which it was and no other.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tests.trust.overload.deployment import Deployment

__all__ = ["Bystander"]

ROOT = Path(__file__).resolve().parents[3]
_PACE_S = 0.02
_PATIENCE_S = 45.0
_LEAST_ROUNDS = 10  # it goes on until then: fewer would mean nothing


def _waited_s(pid: int | str) -> float:
    """How long a process has been ready to run without a processor (Linux; its main thread)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Bystander:
    """Runs one while inside; the latencies are there afterwards."""

    def __init__(self, server: Deployment) -> None:
        self._pid, self._port = server.pid, server.port
        self._rounds: list[tuple[float, float]] = []  # seconds, and how many of them are excused
        self.latencies: list[float] = []  # seconds per round begun inside, in ascending order

    def __enter__(self) -> Self:
        program = [sys.executable, "-m", "tests.trust.overload.bystander"]
        self._process = subprocess.Popen(
            [*program, str(self._port), str(self._pid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        said, _ = self._process.communicate()
        if kind is None:
            assert self._process.returncode == 0, f"the bystander was not served rightly: {said}"
            report = json.loads(said)
            self._rounds = [(took, excused) for took, excused in report["rounds"]]
            self.latencies = sorted(took for took, _ in self._rounds[: report["inside"]])

    @property
    def rounds(self) -> int:
        return len(self.latencies)

    @property
    def worst_s(self) -> float:
        return self.latencies[-1]

    @property
    def p99_s(self) -> float:
        return self.latencies[min(self.rounds - 1, int(self.rounds * 0.99))]

    def assert_served(self, within_s: float) -> None:
        """No round took longer, but for the time the machine had no processor for the two in it.

        Those that were begun after the storm, so that there are enough, count here as well.
        """
        took, excused = max(self._rounds, key=lambda each: each[0] - each[1])
        assert took - excused < within_s, (
            f"a bystander waited {took:.2f} s, {within_s:g} s are allowed "
            f"and {excused:.2f} s of this round excused"
        )

    def figures(self) -> dict[str, float]:
        """For `evidence`."""
        return {
            "bystander_rounds": self.rounds,
            "bystander_p50_ms": round(self.latencies[self.rounds // 2] * 1000, 1),
            "bystander_p99_ms": round(self.p99_s * 1000, 1),
            "bystander_worst_ms": round(self.worst_s * 1000, 1),
            # The most that was taken off any one round.
            "bystander_excused_s": round(max(excused for _, excused in self._rounds), 3),
        }


class _Client:
    def __init__(self, port: int) -> None:
        self._room = f"bystander-{uuid.uuid4()}"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self._file = self._socket.makefile("rb")
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
        self._socket.sendall(
            b"GET /api/1.48.0/sync HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        assert b" 101 " in self._file.readline()
        while self._file.readline() != b"\r\n":
            pass
        self._rounds = 0
        self._seen: Any = None
        session = str(uuid.uuid4())
        self._say(type="Connect", sessionId=session, connectionCount=0, lastCloseReason="")
        add = {"type": "Add", "queryId": 0, "udfPath": "rooms:mark", "args": [{"room": self._room}]}
        self._say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])
        while self._seen != 0:
            self._hear()

    def round(self) -> None:
        """One write, seen by itself."""
        number = self._rounds
        self._rounds += 1
        self._say(
            type="Mutation", requestId=number, udfPath="rooms:touch", args=[{"room": self._room}]
        )
        answer: dict[str, Any] | None = None
        while answer is None or self._seen != self._rounds:
            message = self._hear()
            if message["type"] == "MutationResponse":
                assert (message["requestId"], message["success"]) == (number, True), message
                assert message["result"] == self._rounds, message
                answer = message
        if number % 4 == 0:
            body = {"path": "rooms:mark", "args": {"room": self._room}, "format": "json"}
            kind = {"Content-Type": "application/json"}
            try:
                self._http.request("POST", "/api/query", json.dumps(body), kind)
                answered = self._http.getresponse()
            except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
                # Idle for a few seconds: it was closed meanwhile, as it may be.
                self._http.close()
                self._http.request("POST", "/api/query", json.dumps(body), kind)
                answered = self._http.getresponse()
            response = json.loads(answered.read())
            assert response["value"]["version"] == self._rounds, response

    def _say(self, **message: Any) -> None:
        text = json.dumps(message).encode()
        size = len(text)
        head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
        self._socket.sendall(head + b"\0\0\0\0" + text)

    def _hear(self) -> dict[str, Any]:
        while True:
            first, size = self._file.read(2)
            if size == 126:
                size = int.from_bytes(self._file.read(2), "big")
            elif size == 127:
                size = int.from_bytes(self._file.read(8), "big")
            payload = self._file.read(size)
            if first == 0x89:
                self._socket.sendall(bytes((0x8A, 0x80 | size)) + b"\0\0\0\0" + payload)
            elif first == 0x81:
                message: dict[str, Any] = json.loads(payload)
                if message["type"] == "Transition":
                    for change in message["modifications"]:
                        self._seen = change["value"]["version"]
                if message["type"] != "Ping":
                    return message
            else:
                raise AssertionError(f"the server ended the session: {payload!r}")


def main() -> None:
    """Go round until standard input ends."""
    client, server = _Client(int(sys.argv[1])), sys.argv[2]
    client.round()
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    print("ready", flush=True)
    rounds: list[tuple[float, float]] = []
    inside = 0
    while True:
        inside += not (rounds and over.is_set())
        waited, start = _waited_s(server) + _waited_s("self"), time.perf_counter()
        client.round()
        took = time.perf_counter() - start
        rounds.append((took, _waited_s(server) + _waited_s("self") - waited))
        if over.wait(_PACE_S) and len(rounds) >= _LEAST_ROUNDS:
            break
    print(json.dumps({"rounds": rounds, "inside": inside}))


if __name__ == "__main__":
    main()
