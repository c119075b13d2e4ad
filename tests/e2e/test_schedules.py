"""Scheduled functions and crons on a real server, through the official clients, unmodified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from convex import ConvexClient

from tests.e2e.client_script import run_node_tests
from tests.e2e.server_process import APPS, ServerProcess


@pytest.fixture(scope="module")
def scheduling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The app that schedules, shared by the tests of this module."""
    data = tmp_path_factory.mktemp("schedules") / "data"
    with ServerProcess(APPS / "schedules", data, options=("--no-redact",)) as running:
        yield running


def test_the_javascript_client_sees_jobs_and_their_effects(scheduling: ServerProcess):
    run_node_tests("schedules.test.mjs", scheduling.url)


async def test_the_python_client_sees_a_job_and_its_effect(scheduling: ServerProcess):
    client = ConvexClient(scheduling.url)
    owner = f"python-{time.monotonic_ns()}"
    reminder = {"owner": owner, "text": "tea", "seconds": 0.4}
    job = client.mutation("reminders:remind", reminder)
    kinds: list[str] = []
    async with asyncio.timeout(20):
        async for value in client.subscribe("reminders:status", {"id": job}):
            status: Any = value
            kinds.append(status["state"]["kind"])
            if kinds[-1] == "success":
                break
        assert kinds == ["pending", "success"]
        assert status["completedTime"] >= status["scheduledTime"]
        async for texts in client.subscribe("reminders:delivered", {"owner": owner}):
            assert texts == ["tea"]
            break


async def test_what_is_due_after_a_restart_runs_then_and_an_interval_does_not_begin_anew(
    tmp_path: Path,
):
    data = tmp_path / "data"
    with ServerProcess(APPS / "schedules", data) as server:
        client = ConvexClient(server.url)
        reminder = {"owner": "me", "text": "after the restart", "seconds": 1.0}
        job = client.mutation("reminders:remind", reminder)
        server.kill()
    await asyncio.sleep(1.0)
    with ServerProcess(APPS / "schedules", data) as server:
        client = ConvexClient(server.url)
        async with asyncio.timeout(20):
            async for value in client.subscribe("reminders:status", {"id": job}):
                status: Any = value
                if status["state"]["kind"] == "success":
                    break
        assert client.query("reminders:delivered", {"owner": "me"}) == ["after the restart"]
        assert client.query("reminders:delivered", {"owner": "cron"}) == ["hello"]
