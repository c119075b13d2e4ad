"""A real `reactive-store serve` in its own process: start, kill, start again, read its output.

Output goes to files, never to pipes: a server that talks much must not stop because a test does
not listen.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["APPS", "ServerProcess"]

APPS = Path(__file__).resolve().parent / "apps"

_URL = re.compile(r"https?://[\w.\-\[\]:]+:(\d+)")


class ServerProcess:
    """One deployment of one app in one data directory.

    The first `start` takes a free port; every later one takes the same port again, so clients that
    reconnect find it.
    """

    folder: Path | None = None  # where the process runs; None: where the tests do

    def __init__(
        self,
        app: Path,
        data: Path,
        *,
        options: tuple[str, ...] = (),
        start_seconds: float = 30.0,
        file_bytes: int | None = None,
    ) -> None:
        self.app = app
        self.data = data
        self.options = options
        self.start_seconds = start_seconds
        self.file_bytes = file_bytes  # no file may grow beyond it: a disk that is full
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._runs = 0
        self._said = data.parent / f"{data.name}-output"
        self._said.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        assert self.port, "the server has not been started"
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def program(self) -> list[str]:
        """What the interpreter runs as `reactive-store`."""
        return ["-m", "reactive_store"]

    def start(self) -> str:
        """Start and wait for the line with the URL.

        Raises   AssertionError with everything the server said, when it does not come up
        """
        assert self.process is None, "already running"
        self._runs += 1
        command = [
            sys.executable, *self.program(), "serve",
            "--app", str(self.app), "--data", str(self.data),
            "--host", "127.0.0.1", "--port", str(self.port), "--site-port", "0", *self.options,
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REACTIVE_STORE_")}
        with self._file("stdout").open("wb") as out, self._file("stderr").open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=self.folder,
                preexec_fn=self._limit_files if self.file_bytes else None,
            )
        give_up = time.monotonic() + self.start_seconds
        while time.monotonic() < give_up:
            match = _URL.search(self._file("stdout").read_text(errors="replace"))
            if match:
                self.port = int(match.group(1))
                return self.url
            if self.process.poll() is not None:
                code, self.process = self.process.returncode, None
                raise AssertionError(f"the server ended with {code}\n{self.said()}")
            time.sleep(0.01)
        self.kill()
        raise AssertionError(f"no URL after {self.start_seconds} s\n{self.said()}")

    def _limit_files(self) -> None:
        assert self.file_bytes is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes, resource.RLIM_INFINITY))

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to finish anything."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM, as a service manager would; returns the exit code (0 if it was not running)."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=15)
        except subprocess.TimeoutExpired as slow:
            self.kill()
            raise AssertionError(f"still running 15 s after SIGTERM\n{self.said()}") from slow
        self.process = None
        return code

    def restart(self) -> None:
        """Kill and start again on the same port and data."""
        self.kill()
        self.start()

    def said(self) -> str:
        """Standard output and error of the current run, for a failing test's message."""
        parts = []
        for stream in ("stdout", "stderr"):
            text = self._file(stream).read_text(errors="replace")
            parts.append(f"--- {stream} of run {self._runs} ---\n{text[-20_000:]}")
        return "\n".join(parts)

    def resident_bytes(self) -> int:
        """Memory the process holds (Linux)."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def _file(self, stream: str) -> Path:
        return self._said / f"{self._runs}.{stream}"
