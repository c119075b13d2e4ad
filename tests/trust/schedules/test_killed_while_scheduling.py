"""kill -9 of a real server while mutations schedule mutations and actions, again and again.

Every request that took effect leads to both of its mutations exactly once and to its action at most
once; a request that was acknowledged took effect; in the end nothing waits and nothing is in
progress. An action leaves a mark in a file before anything else, so that one begun twice shows even
when no transaction tells of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.crash.killed_server import KilledServer
from tests.trust.effort import Effort
from tests.trust.schedules.breakages import BREAKAGES

APP = Path(__file__).resolve().parent / "app"
_INTERRUPTED = "failed Transient error while executing action"
_PATIENCE_S = 20.0
_CLIENTS = 6


class Deployment:
    """A server that is killed, what was acknowledged by it, and the marks its actions leave."""

    def __init__(self, folder: Path, module: tuple[str, ...]) -> None:
        self.server = KilledServer(folder, module=module, app=APP)
        self.marks = folder / "marks"
        self.marks.touch()
        self.acknowledged: list[str] = []
        self.asked = 0
        # One for all: making one costs more than many requests.
        self._client = httpx.AsyncClient(trust_env=False, timeout=60)

    async def begin(self) -> None:
        self.server.begin()
        await asyncio.to_thread(self.server.wait_ready)

    async def call(self, kind: str, path: str, **args: Any) -> Any:
        body = {"path": path, "args": args, "format": "json"}
        answer = (await self._client.post(f"{self.server.url}/api/{kind}", json=body)).json()
        assert answer["status"] == "success", answer
        return answer["value"]

    async def ask_until_cut(self) -> None:
        """Requests one after another; what is not answered is not asked again."""
        while True:
            key = f"k{self.asked}"
            self.asked += 1
            try:
                await self.call("mutation", "chores:ask", key=key, marks=str(self.marks))
            except (httpx.HTTPError, ValueError):
                return
            self.acknowledged.append(key)

    async def close(self) -> None:
        await self._client.aclose()
        self.server.end()

    async def kill_at_work(self, rng: random.Random) -> None:
        """Let clients ask, kill the server meanwhile, start it again, at times once more."""
        clients = [asyncio.create_task(self.ask_until_cut()) for _ in range(_CLIENTS)]
        await asyncio.sleep(rng.uniform(0.1, 0.3))
        self.server.kill()
        await asyncio.gather(*clients)
        await self.begin()
        if rng.random() < 0.4:  # while it runs what was overdue
            await asyncio.sleep(rng.uniform(0, 0.1))
            self.server.kill()
            await self.begin()

    async def problems(self) -> list[str]:
        """What is wrong, once nothing is left to run."""
        give_up = time.monotonic() + _PATIENCE_S
        stuck = (0, 0.0)  # how many were left, and since when that has not changed
        while left := int(await self.call("query", "chores:unfinished")):
            if left != stuck[0]:
                stuck = (left, time.monotonic())
            if time.monotonic() > give_up or time.monotonic() - stuck[1] > 2.0:
                return [f"{left} functions never end"]
            await asyncio.sleep(0.02)
        return wrong(
            await self.call("query", "chores:survey"),
            self.acknowledged,
            self.marks.read_text().split(),
        )


def wrong(survey: dict[str, list[str]], acknowledged: list[str], marks: list[str]) -> list[str]:
    """What the data contradict."""
    asked, effects = set(survey["asked"]), Counter(survey["effects"])
    problems = []
    if lost := sorted(set(acknowledged) - asked):
        problems.append(f"acknowledged and gone: {lost[:5]}, {len(lost)} in all")
    for name in ("first", "second"):
        counts = {key: effects.pop(f"{name} {key}", 0) for key in asked}
        if never := sorted(key for key, count in counts.items() if not count):
            problems.append(f"the {name} mutation never ran: {never[:5]}, {len(never)} in all")
        if twice := sorted(key for key, count in counts.items() if count > 1):
            problems.append(f"the {name} mutation ran twice: {twice[:5]}, {len(twice)} in all")
    begun = Counter(marks)
    if twice := sorted(key for key, count in begun.items() if count > 1):
        problems.append(f"an action ran twice: {twice[:5]}, {len(twice)} in all")
    states = Counter(survey["jobs"])
    for key in asked:
        noted = effects.pop(f"outside {key}", 0)
        if states[f"outside {key} success"] and (noted, begun[key]) != (1, 1):
            problems.append(f"an action succeeded without its effects: {key}")
        elif noted > 1:
            problems.append(f"an action's mutation ran twice: {key}")
        elif not (states[f"outside {key} success"] or states[f"outside {key} {_INTERRUPTED}"]):
            problems.append(f"an action ended otherwise: {key}")
    if strange := [*effects.elements(), *(begun.keys() - asked)]:
        problems.append(f"nobody asked for {strange[:5]}")
    return problems


@pytest.fixture
async def deploy(tmp_path: Path) -> AsyncIterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def start(*module: str) -> Deployment:
        made.append(Deployment(tmp_path, module or ("reactive_store",)))
        return made[-1]

    yield start
    for deployment in made:
        await deployment.close()


async def _kill_often(
    deployment: Deployment, kills: int, seed: int
) -> tuple[list[str], dict[str, int]]:
    """The first problems found, and figures."""
    rng = random.Random(seed)
    await deployment.begin()
    problems: list[str] = []
    done = 0
    while done < kills and not problems:
        before = deployment.server.runs
        await deployment.kill_at_work(rng)
        done += deployment.server.runs - before
        problems = await deployment.problems()
    survey = await deployment.call("query", "chores:survey")
    interrupted = sum(job.endswith(_INTERRUPTED) for job in survey["jobs"])
    figures = {
        "kills": done,
        "transactions": len(deployment.acknowledged),
        "scheduled": len(survey["jobs"]),
        "interrupted": interrupted,
    }
    return problems, figures


def test_the_checker_tells_each_kind_of_wrong() -> None:
    good = {
        "asked": ["a", "b"],
        "effects": ["first a", "second a", "outside a", "first b", "second b"],
        "jobs": ["outside a success", f"outside b {_INTERRUPTED}"],
    }
    assert wrong(good, ["a"], ["a", "b"]) == []
    for change, told in (
        ({"asked": ["b"]}, "acknowledged and gone"),
        ({"effects": good["effects"][1:]}, "the first mutation never ran"),
        ({"effects": [*good["effects"], "second a"]}, "the second mutation ran twice"),
        ({"effects": [*good["effects"], "outside b", "outside b"]}, "an action's mutation ran"),
        ({"effects": [*good["effects"], "first c"]}, "nobody asked for"),
        ({"jobs": good["jobs"][1:]}, "an action ended otherwise"),
    ):
        assert any(told in problem for problem in wrong({**good, **change}, ["a"], ["a", "b"]))
    assert "an action ran twice" in wrong(good, ["a"], ["a", "b", "b"])[0]
    assert "without its effects" in wrong(good, ["a"], ["b"])[0]


@pytest.mark.e2e
@pytest.mark.slow
async def test_what_was_scheduled_is_run_once_although_the_server_is_killed(
    deploy: Callable[..., Deployment], effort: Effort, evidence: Say
) -> None:
    deployment = deploy()
    kills = effort.pick(6, 150)
    problems, figures = await _kill_often(deployment, kills, effort.seed)
    assert not problems, f"seed {effort.seed}, {figures}: {problems}\n{deployment.server.said()}"
    assert figures["transactions"] > 10 * kills, "hardly any load"
    assert figures["interrupted"] > 0, "no action was ever interrupted"
    evidence("exactly once", histories=1, **figures)


_SEEN_BY_KILLS = [each for each in BREAKAGES if each.name in ("end-apart", "action-first")]


@pytest.mark.e2e
@pytest.mark.parametrize("breakage", _SEEN_BY_KILLS, ids=str)
async def test_a_broken_server_is_caught_when_it_is_killed(
    deploy: Callable[..., Deployment], evidence: Say, breakage: Breakage
) -> None:
    place = f"tests.trust.schedules.breakages:{breakage.name}"
    deployment = deploy("tests.trust.broken_server", place)
    problems, figures = await _kill_often(deployment, 30, 1)
    assert problems, f"not found after {figures}: {breakage.text}"
    evidence(breakage.promise, breakage=breakage, found=1, **figures)
