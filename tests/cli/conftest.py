"""The program in this process, a project that `init` wrote, and servers in other processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reactive_store.cli.main import main
from tests.e2e.server_process import ServerProcess

_URL = re.compile(r"Serving (http://\S+)")


@dataclass(frozen=True)
class Result:
    """What one run of the program came to."""

    code: int
    out: str
    err: str


Program = Callable[..., Result]


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    """Run `reactive-store` with these arguments."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["reactive-store", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def project(tmp_path: Path, program: Program) -> Path:
    """A project as `init` writes it."""
    folder = tmp_path / "project"
    assert program("init", folder).code == 0
    return folder


@pytest.fixture
def server(project: Path) -> Iterator[ServerProcess]:
    """The project under `serve`, with its data in the usual place."""
    options = ("--no-redact",)
    with ServerProcess(project, project / ".reactive_store", options=options) as running:
        yield running


class DevProcess:
    """The program in a process of its own, its output in files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REACTIVE_STORE_")}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "reactive_store", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, condition: Callable[[], object], *, seconds: float = 15.0) -> None:
        """Look until the condition holds."""
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, f"never happened\n{self.out}\n{self.err}"
            assert self.process.poll() is None or condition(), f"ended\n{self.out}\n{self.err}"
            time.sleep(0.02)

    @property
    def url(self) -> str:
        """Where it serves, once it does."""
        self.wait_for(lambda: _URL.search(self.out))
        found = _URL.search(self.out)
        assert found is not None
        return found[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=15)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., DevProcess]]:
    """Start the program with these arguments; what still runs is killed at the end."""
    started: list[DevProcess] = []

    def run(*arguments: object) -> DevProcess:
        folder = tmp_path / f"process{len(started)}"
        folder.mkdir()
        started.append(DevProcess(folder, *map(str, arguments)))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
