"""Servers for the end-to-end tests: one shared by tests that do not break it, others on demand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.server_process import APPS, ServerProcess

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).resolve().parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def browser() -> str:
    """The program of a Chromium."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    raise AssertionError(f"no browser in PATH ({', '.join(BROWSERS)}): run `make browser`")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The basic app, shared by the tests of one module; they keep apart by channel or name.

    It shows error texts, which clients of a server in production do not get to see.
    """
    data = tmp_path_factory.mktemp("basic") / "data"
    with ServerProcess(APPS / "basic", data, options=("--no-redact",)) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start a server that only this test uses, so it may be killed; stopped at the end."""
    started: list[ServerProcess] = []

    def start(*options: str, file_bytes: int | None = None) -> ServerProcess:
        data = tmp_path / f"data{len(started)}"
        process = ServerProcess(APPS / "basic", data, options=options, file_bytes=file_bytes)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.stop()
