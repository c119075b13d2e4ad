"""`python -m bench [--quick] [--json]`: measure the ceilings, then ourselves, then compare."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import websockets

from bench.disk import fsync_rate, sqlite_rate
from tests.e2e.server_process import ServerProcess

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 16, 64)
ECHO_BYTES = 1024
PACE = 50.0  # writes per second at "low load"


def load(name: str, **arguments: Any) -> dict[str, float]:
    """Run one load in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "bench.load", name, json.dumps(arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode:
        raise SystemExit(f"the load {name} failed:\n{result.stderr}")
    answer: dict[str, float] = json.loads(result.stdout)
    return answer


@contextmanager
def bare_server() -> Iterator[int]:
    """The echo server in its own process; gives its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bare_server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def measure(*, quick: bool) -> dict[str, Any]:
    """Everything, as plain data. Takes about 40 s, quick about 10."""
    seconds = 0.5 if quick else 3.0
    subscribers = 200 if quick else 1000
    rounds = 5 if quick else 20
    figures: dict[str, Any] = {"machine": machine(), "quick": quick, "subscribers": subscribers}
    with tempfile.TemporaryDirectory(prefix="reactive-store-bench-") as name:
        folder = Path(name)
        figures["fsync_per_second"] = fsync_rate(folder, seconds / 2)
        figures["sqlite_commits_per_second"] = sqlite_rate(folder, seconds / 2)
        with ServerProcess(ROOT / "bench" / "app", folder / "data") as server:
            figures["rss_start_bytes"] = server.resident_bytes()
            load("throughput", port=server.port, clients=4, seconds=0.3)  # warm up
            figures["low_load"] = load(
                "latency", port=server.port, per_second=PACE, seconds=seconds
            )
            figures["mutations"] = {
                clients: load("throughput", port=server.port, clients=clients, seconds=seconds)
                for clients in CLIENTS
            }
            figures["rss_after_writes_bytes"] = server.resident_bytes()
            figures["fan_out"] = load(
                "fan_out", port=server.port, subscribers=subscribers, rounds=rounds
            )
            figures["rss_end_bytes"] = server.resident_bytes()
        with bare_server() as port:
            figures["echo"] = {
                clients: load(
                    "echo", port=port, clients=clients, seconds=seconds / 2, size=ECHO_BYTES
                )
                for clients in CLIENTS
            }
            figures["bare_fan_out"] = load(
                "bare_fan_out",
                port=port,
                subscribers=subscribers,
                rounds=rounds,
                size=int(figures["fan_out"]["bytes"]),
            )
    return figures


def machine() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"uvicorn {uvicorn.__version__}, websockets {websockets.__version__}, "
        f"SQLite {sqlite3.sqlite_version}"
    )


def report(figures: dict[str, Any]) -> str:
    """The figures as a table for people: what, how much, how long, and the share of the ceiling."""
    echo, ours = figures["echo"], figures["mutations"]
    low, fan, bare = figures["low_load"], figures["fan_out"], figures["bare_fan_out"]
    commits = figures["sqlite_commits_per_second"]
    audience = f"{figures['subscribers']} subscribers"
    alone_ms = echo[1]["p50_ms"] + 1000 / commits
    lines = [f"reactive_store bench: {figures['machine']}" + " (quick)" * figures["quick"], ""]
    lines.append("Ceilings of this machine")
    lines += [_row(f"bare websocket, 1 KiB echo, {n} clients", echo[n]) for n in CLIENTS]
    lines.append(_row("fdatasync of 4 KiB", {"per_second": figures["fsync_per_second"]}))
    lines.append(_row("SQLite commit of one row, WAL, FULL", {"per_second": commits}))
    lines.append(_row(f"bare fan-out, {fan['bytes'] / 1000:.0f} kB to {audience}", bare))
    lines += ["", "Ours: every write re-runs a live query of 20 documents and pushes its result"]
    lines += [
        _row(
            f"mutations, {n} clients",
            ours[n],
            f"{ours[n]['per_second'] / echo[n]['per_second']:.0%} of echo, "
            f"{ours[n]['per_second'] / commits:.2f} of commits",
        )
        for n in CLIENTS
    ]
    lines.append(
        _row(
            f"write to push, {PACE:.0f} writes/s",
            low,
            f"{low['p50_ms'] / alone_ms:.1f} times echo plus commit",
        )
    )
    lines.append(
        _row(
            f"one write to {audience}, last told",
            fan,
            f"{fan['p50_ms'] / bare['p50_ms']:.1f} times bare",
        )
    )
    memory = [_mib(figures[f"rss_{when}_bytes"]) for when in ("start", "after_writes", "end")]
    lines.append(
        f"  resident memory: {' / '.join(memory)} at start / after the writes / at the end"
    )
    return "\n".join(lines)


def _row(title: str, figure: dict[str, float], ratio: str = "") -> str:
    rate = f"{figure['per_second']:>9,.0f} /s" if "per_second" in figure else " " * 12
    times = (
        f"p50 {figure['p50_ms']:>7.2f} ms  p99 {figure['p99_ms']:>7.2f} ms"
        if "p50_ms" in figure
        else ""
    )
    return f"  {title:<44}{rate}  {times:<32}{ratio}".rstrip()


def _mib(count: int) -> str:
    return f"{count / 1024 / 1024:.0f} MiB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 10 s; for a smoke test")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON only")
    arguments = parser.parse_args()
    # A thousand sockets on either side; the limit is inherited by the processes started here.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = measure(quick=arguments.quick)
    print(json.dumps(figures, indent=2) if arguments.json else report(figures))


if __name__ == "__main__":
    main()
