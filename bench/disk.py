"""The ceiling for writes: how often this disk can promise that bytes are on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["fsync_rate"]


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


def _rate(act: Callable[[], object], seconds: float) -> float:
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        act()
        count += 1
    return count / (now - start)
