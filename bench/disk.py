"""The ceiling for writes: how often this disk can promise that bytes are on it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["fsync_rate", "sqlite_rate"]


def fsync_rate(folder: Path, seconds: float) -> float:
    """Appends of 4 KiB with fdatasync, one after the other, per second."""
    block = os.urandom(4096)

    def write() -> None:
        os.write(handle, block)
        os.fdatasync(handle)

    handle = os.open(folder / "fsync-probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        return _rate(write, seconds)
    finally:
        os.close(handle)


def sqlite_rate(folder: Path, seconds: float) -> float:
    """Commits of one 600-byte row in WAL mode with synchronous=FULL, per second."""
    connection = sqlite3.connect(folder / "commit-probe.sqlite3", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (body BLOB)")
        row = (os.urandom(600),)
        return _rate(lambda: connection.execute("INSERT INTO rows VALUES (?)", row), seconds)
    finally:
        connection.close()


def _rate(act: Callable[[], object], seconds: float) -> float:
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        act()
        count += 1
    return count / (now - start)
