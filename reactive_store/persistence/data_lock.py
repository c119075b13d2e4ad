"""One process per data directory: the lock that says so, and the note that says who holds it.

The lock is the operating system's, so it ends with its process however that ends; the note
(`server.json`) may outlive it and counts only while the lock is held.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from filelock import FileLock, Timeout

from reactive_store.errors import BadRequest
from reactive_store.runtime import Runtime, SystemRuntime

__all__ = ["DataLock", "Owner", "read_owner"]

_LOCK_NAME: Final = "lock"
_NOTE_NAME: Final = "server.json"

# Whoever asks for the owner holds the lock for an instant; a process that starts waits that long.
_PATIENCE_S: Final = 0.2
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a data directory; None where the note does not say."""

    pid: int | None
    url: str | None  # where it serves, once it does
    started_ms: float | None  # Unix milliseconds

    def __str__(self) -> str:
        text = "another process" if self.pid is None else f"process {self.pid}"
        if self.url is not None:
            text += f" ({self.url})"
        if self.started_ms is not None:
            since = datetime.fromtimestamp(self.started_ms / 1000, UTC)
            text += f", running since {since:%Y-%m-%d %H:%M:%S} UTC"
        return text


class DataLock:
    """The right to use a data directory, from `acquire` to `release`. A context manager too."""

    __slots__ = ("_directory", "_lock", "_runtime", "_started_ms")

    def __init__(self, directory: Path, *, runtime: Runtime | None = None) -> None:
        self._directory = directory
        self._runtime = SystemRuntime() if runtime is None else runtime
        self._lock = FileLock(directory / _LOCK_NAME, thread_local=False)
        self._started_ms = 0.0

    def acquire(self) -> None:
        """Take the directory, making it if need be. Waits a fifth of a second at most.

        Raises   BadRequest[DataDirectoryInUse] when another process has it; the message names it;
                 BadRequest[DataDirectoryUnusable] when it cannot be made or written to
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=_PATIENCE_S, poll_interval=_POLL_S)
        except Timeout as error:
            raise BadRequest(
                f"The data directory {self._directory} is in use by {_read_note(self._directory)}. "
                "Stop that process, or choose another data directory.",
                code="DataDirectoryInUse",
            ) from error
        except OSError as error:
            raise BadRequest(
                f"The data directory {self._directory} cannot be used: "
                f"{error.strerror or error}. Choose another one, or make it writable.",
                code="DataDirectoryUnusable",
            ) from error
        self._started_ms = self._runtime.now_ns() // 1_000_000
        self._write_note(None)

    def set_url(self, url: str) -> None:
        """Let others know where this process serves."""
        self._write_note(url)

    def _write_note(self, url: str | None) -> None:
        note = self._directory / _NOTE_NAME
        # Replaced as a whole: a reader sees the old note or the new one.
        fresh = note.with_suffix(".json.new")
        owner = Owner(os.getpid(), url, self._started_ms)
        fresh.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        fresh.replace(note)

    def release(self) -> None:
        """Give the directory back. Idempotent."""
        if self._lock.is_locked:
            with suppress(FileNotFoundError):
                (self._directory / _NOTE_NAME).unlink()
            self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def read_owner(directory: Path) -> Owner | None:
    """The process that holds the directory now, or None."""
    if not (directory / _LOCK_NAME).exists():
        return None
    probe = FileLock(directory / _LOCK_NAME, thread_local=False)
    try:
        probe.acquire(timeout=0)
    except Timeout:
        return _read_note(directory)
    probe.release()
    return None


def _read_note(directory: Path) -> Owner:
    try:
        note = json.loads((directory / _NOTE_NAME).read_text(encoding="utf-8"))
        return Owner(note["pid"], note["url"], note["started_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return Owner(None, None, None)
