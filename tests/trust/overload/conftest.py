"""Deployments for the overload tests, and enough descriptors for crowds."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trust.breakage import Breakage
from tests.trust.overload.deployment import Deployment
from tests.trust.overload.peer import raise_faults

_DESCRIPTORS = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).resolve().parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(autouse=True, scope="session")
def _descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, _DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    """What a peer found wrong fails its test, also when nothing has waited since."""
    yield
    raise_faults()


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A server for the tests of a module that leave it as it was; its `SHARED` has the limits."""
    limits: dict[str, float] = getattr(request.module, "SHARED", {})
    server = Deployment(tmp_path_factory.mktemp("shared"), **limits)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Start a server with some limits, perhaps broken; it is killed at the end of the test."""
    started: list[Deployment] = []

    def start(*, breakage: Breakage | None = None, **limits: float) -> Deployment:
        folder = tmp_path / f"deployment{len(started)}"
        folder.mkdir()
        server = Deployment(folder, breakage=breakage, **limits)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process is not None:
            server.kill()  # under a breakage it may not listen to anything gentler
