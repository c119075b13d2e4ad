"""An engine on memory, and on a file, for the tests of its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from reactive_store.engine.database import Database
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Persistence
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.runtime import SystemRuntime


@pytest.fixture
def limits() -> Limits:
    """The real limits, with a short history so that tests reach its end."""
    return replace(Limits(), write_log_commits=200)


@pytest.fixture(params=["memory", "sqlite"])
async def persistence(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Persistence]:
    """Every implementation in turn."""
    if request.param == "memory":
        yield MemoryPersistence()
    else:
        store = await SqlitePersistence.open(tmp_path / "data.sqlite3", synchronous="NORMAL")
        yield store
        await store.close()


@pytest.fixture
async def database(persistence: Persistence, limits: Limits) -> AsyncIterator[Database]:
    """An open engine without tables."""
    opened = await Database.open(persistence, runtime=SystemRuntime(), limits=limits)
    yield opened
    await opened.close()
