"""A server process that is killed: while it works, while it starts, while it recovers.

server.begin()          # not waiting for it
server.wait_locked()    # it has taken the data directory: recovery is next
server.kill()
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.e2e.server_process import APPS

__all__ = ["KilledServer"]

_URL = re.compile(r"https?://[\w.\-]+:(\d+)")
_SECONDS = 60.0
T = TypeVar("T")


class KilledServer:
    """One data directory, and the processes that serve it one after another on one port."""

    def __init__(
        self, directory: Path, *, module: tuple[str, ...], app: Path = APPS / "basic"
    ) -> None:
        self.data = directory / "data"
        self.port = 0
        self.runs = 0
        self._app = app
        self._module = module
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start a process and go on."""
        assert self._process is None, "already running"
        self.runs += 1
        command = [
            sys.executable, "-m", *self._module, "serve",
            "--app", str(self._app), "--data", str(self.data),
            "--host", "127.0.0.1", "--port", str(self.port), "--site-port", "0",
        ]  # fmt: skip
        root = Path(__file__).resolve().parents[3]
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=root
            )

    def wait_ready(self) -> None:
        """Wait until it serves."""
        port = self._wait(lambda: _URL.search(self._file("out").read_text(errors="replace")))
        assert port is not None
        self.port = int(port.group(1))

    def wait_locked(self) -> None:
        """Wait until it has taken the data directory; it opens the files next."""
        assert self._process is not None
        pid = self._process.pid
        self._wait(lambda: self._holder() == pid)

    def _holder(self) -> int | None:
        try:
            return int(json.loads((self.data / "server.json").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return None

    def _wait(self, look: Callable[[], T]) -> T:
        """The first thing `look` gives that is true."""
        assert self._process is not None
        give_up = time.monotonic() + _SECONDS
        while time.monotonic() < give_up:
            if found := look():
                return found
            assert self._process.poll() is None, self.said()
            time.sleep(0.001)
        raise AssertionError(f"not after {_SECONDS} s\n{self.said()}")

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def end(self) -> None:
        """Kill it if it runs."""
        if self._process is not None:
            self.kill()

    def said(self) -> str:
        """What the present process wrote."""
        return "\n".join(
            self._file(stream).read_text(errors="replace")[-8000:] for stream in ("out", "err")
        )

    def _file(self, stream: str) -> Path:
        return self._directory / f"{self.runs}.{stream}"
