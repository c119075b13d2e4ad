"""A client program driven over its standard streams, one JSON object a line in each direction.

The program reports `{"event": NAME, …}`; the test waits for events by name and sends orders.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.node import node_environment, node_program

__all__ = ["JS", "ClientScript", "node_script", "run_node_tests"]

JS = Path(__file__).resolve().parent / "js"


class ClientScript:
    """A program in a process of its own; ended, at the latest, with the `async with` block."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self.seen: list[dict[str, Any]] = []  # every event so far
        self._noise: asyncio.Task[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=JS.parent,
            env=node_environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=16 * 1024 * 1024,
        )
        assert self._process.stderr is not None
        self._noise = asyncio.create_task(self._process.stderr.read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._noise is not None
        self._process.stdin.close()
        if self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), 0.1 if kind else 15)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
                if kind is None:
                    raise AssertionError("the script did not end by itself") from None
        noise = (await self._noise).decode(errors="replace")
        if error is not None:
            error.add_note(f"--- events ---\n{self.seen}\n--- stderr of the script ---\n{noise}")
        elif self._process.returncode != 0:
            raise AssertionError(f"exit code {self._process.returncode}\n{self.seen}\n{noise}")

    async def expect(self, event: str, *, seconds: float = 30.0) -> dict[str, Any]:
        """The next event of that name; others on the way are kept for the failure message."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            while line := await self._process.stdout.readline():
                if not line.startswith(b"{"):
                    continue  # log lines that the client prints for the server
                message = json.loads(line)
                self.seen.append(message)
                if message["event"] == event:
                    return message
        raise AssertionError(f"the script ended before it reported {event!r}")

    def send(self, order: str, **details: Any) -> None:
        """One order to the script."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"order": order, **details}).encode() + b"\n")


def node_script(name: str, *arguments: str) -> ClientScript:
    """`async with node_script("reconnect.mjs", url) as script:` …"""
    return ClientScript(node_program(), str(JS / name), *arguments)


def run_node_tests(name: str, *arguments: str, seconds: float = 90.0) -> None:
    """Run a file of Node's own test runner against a server; fails with its whole report.

    `arguments` reach the file in the variable E2E_ARGUMENTS as a JSON list.
    """
    result = subprocess.run(
        [node_program(), "--test-reporter=spec", "--test", str(JS / name)],
        cwd=JS,
        env={**node_environment(), "E2E_ARGUMENTS": json.dumps(arguments), "NODE_ENV": "test"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert "pass 0" not in result.stdout, "the file ran no test"
