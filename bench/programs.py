"""The processes a question needs: servers to measure, loads that drive them, and what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.server_process import ServerProcess

__all__ = [
    "APP",
    "ROOT",
    "Target",
    "bare",
    "cpu_seconds",
    "in_memory",
    "ours",
    "resident_bytes",
    "run_program",
]

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "bench" / "app"


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load."""

    port: int
    pid: int

    def load(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Run one load of `bench.load` against it."""
        return run_program("bench.load", name, json.dumps({"port": self.port, **arguments}))


def run_program(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module of the bench in a process of its own; it prints JSON.

    Raises   SystemExit with what it said, when it fails
    """
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{result.stderr}")
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@contextmanager
def ours(folder: Path, *options: str) -> Iterator[Target]:
    """`reactive-store serve` with bench/app, durable as by default."""
    with ServerProcess(APP, folder / "data", options=options) as server:
        yield Target(server.port, server.pid)


def bare(stack: str = "direct", *options: str) -> AbstractContextManager[Target]:
    """The server without an engine."""
    return _program("bench.bare_server", stack, *options)


def in_memory() -> AbstractContextManager[Target]:
    """Ours, without storage."""
    return _program("bench.memory_server")


@contextmanager
def _program(module: str, *arguments: str) -> Iterator[Target]:
    """A server of the bench, which prints its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{module} {' '.join(arguments)} did not start")
        yield Target(int(line), process.pid)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """What the threads of a process have computed so far, user and system (Linux)."""
    ran = (each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(text.split()[0]) for text in ran) / 1e9


def resident_bytes(pid: int) -> int:
    """Memory a process holds (Linux)."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
