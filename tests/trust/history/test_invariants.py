"""Rules that no client may ever see broken: in this process turn by turn, and on a real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.functions.outcome import Success
from reactive_store.sync.protocol import MutationResponse
from tests.e2e.sync_socket import SyncSocket, timestamp
from tests.trust.conftest import Say
from tests.trust.effort import Effort
from tests.trust.history.breakages import BREAKAGES
from tests.trust.history.in_process import Deployment, Session, SlowDisk
from tests.trust.history.rules import (
    OWNERS,
    QUERIES,
    RULES,
    WARDS,
    Beholder,
    call_of,
    make_rule_plan,
)
from tests.trust.history.served import Served
from tests.trust.history.workload import Plan, Step, decoded, shortened

_PREPARE = {"owners": list(OWNERS), "wards": list(WARDS)}
_BROKEN = {breakage.name: breakage for breakage in BREAKAGES}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Under a breakage functions fail, each with a line in the log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def _behold(plan: Plan, seed: int) -> tuple[list[str], int]:
    """Run a plan in this process: what broke a rule, and how often somebody looked."""
    async with asyncio.timeout(30):
        deployment = await Deployment.open(seed, SlowDisk(seed))
        try:
            runner = deployment.backend.runner
            await runner.mutation("rules.js:prepare", _PREPARE, ANONYMOUS)
            beholders = [Beholder(f"c{number}") for number in range(len(plan))]
            await asyncio.gather(
                *(
                    (_ask if number % 2 else _converse)(deployment, beholder, steps)
                    for number, (beholder, steps) in enumerate(zip(beholders, plan, strict=True))
                )
            )
            last = Beholder("end")
            await _ask(deployment, last, [])
        finally:
            await deployment.close()
    everybody = [*beholders, last]
    problems = [problem for each in everybody for problem in each.problems]
    return problems, sum(each.looks for each in everybody)


async def _ask(deployment: Deployment, beholder: Beholder, steps: Sequence[Step]) -> None:
    """A client without a session: calls, then looks at one instant."""
    runner, database = deployment.backend.runner, deployment.backend.database
    for step in (*steps, None):
        if step is not None:
            for _ in range(step.wait):
                await asyncio.sleep(0)
            path, args = call_of(step)
            beholder.asked(path, args)
            outcome = await runner.mutation(path.replace(":", ".js:"), args, ANONYMOUS)
            if isinstance(outcome, Success):
                beholder.answered(path, args, decoded(outcome.value))
        at = database.latest_ts
        values = []
        for path, args in QUERIES:
            outcome = await runner.query(path.replace(":", ".js:"), args, ANONYMOUS, at=at)
            if not isinstance(outcome, Success):
                beholder.problems.append(f"{path} failed: {outcome.message}")
                return
            values.append(decoded(outcome.value))
        beholder.look(values)


async def _converse(deployment: Deployment, beholder: Beholder, steps: Sequence[Step]) -> None:
    """A client with a session looks at everything it is told."""
    session = Session(deployment, beholder.name, QUERIES)

    def look() -> None:
        values = session.values()
        if values is not None:
            beholder.look(values)

    session.on_transition = look
    session.connect()
    for step in steps:
        for _ in range(step.wait):
            await asyncio.sleep(0)
        path, args = call_of(step)
        ended = asyncio.Event()
        beholder.asked(path, args)

        def on_end(
            response: MutationResponse | None,
            path: str = path,
            args: dict[str, Any] = args,
            ended: asyncio.Event = ended,
        ) -> None:
            if response is not None and response.success:
                beholder.answered(path, args, decoded(bytes(response.result)))
            ended.set()

        session.mutate(path, args, on_end)
        await ended.wait()
        look()
    session.cut()


def _problems(plan: Plan, seed: int) -> list[str]:
    return asyncio.run(_behold(plan, seed))[0]


def _small(plan: Plan, seed: int) -> tuple[int, str]:
    """How many steps still break a rule, and they and the problems as a text."""
    small = shortened(plan, lambda smaller: bool(_problems(smaller, seed)))
    steps = [f"  c{client}: {step}" for client, own in enumerate(small) for step in own]
    return len(steps), "\n".join((f"TRUST_SEED={seed}", *steps, *_problems(small, seed)[:5]))


def test_no_client_ever_sees_a_rule_broken(effort: Effort, evidence: Say) -> None:
    histories = transactions = looks = 0
    for seed in effort.seeds(25, 250):
        plan = make_rule_plan(seed, clients=6, steps=effort.pick(8, 16))
        problems, looked = asyncio.run(_behold(plan, seed))
        assert not problems, _small(plan, seed)[1]
        histories += 1
        transactions += sum(map(len, plan))
        looks += looked
    evidence("consistent push", histories=histories, transactions=transactions, looks=looks)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *(("no-conflicts", rule) for rule in RULES),
        ("old-pushes", "money"),
        ("old-pushes", "notes"),
        ("old-pushes", "seats"),
        ("timestamps-again", "notes"),
    ],
)
def test_a_rule_that_a_broken_store_breaks_is_seen_broken(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch, evidence: Say
) -> None:
    _BROKEN[name].apply(monkeypatch)
    seed, problems = 0, list[str]()
    while not any(problem.split(": ")[1] == rule for problem in problems):
        assert seed < 20, f"under {name} twenty runs kept the rule of {rule}"
        seed += 1
        plan = make_rule_plan(seed, clients=6, steps=8, rules=(rule,))
        problems = _problems(plan, seed)
    steps, text = _small(plan, seed)
    assert steps <= 6, text
    evidence(
        _BROKEN[name].promise,
        breakage=_BROKEN[name],
        histories=seed,
        found=len(problems),
        steps_when_small=steps,
    )


class _BeholdingSocket(SyncSocket):
    """Shows every transition to its beholder when it arrives."""

    def __init__(self, url: str, beholder: Beholder) -> None:
        super().__init__(url)
        self.beholder = beholder
        self.own: list[tuple[int, str, dict[str, Any], Any]] = []  # answered, not yet in sight
        self.calls: dict[int, tuple[str, dict[str, Any]]] = {}

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "MutationResponse" and message["success"]:
            path, args = self.calls[message["requestId"]]
            self.own.append((timestamp(message["ts"]), path, args, message["result"]))
        super()._receive(message)
        if message["type"] == "Transition" and len(self.results) == len(QUERIES):
            ts = timestamp(message["endVersion"]["ts"])
            for at, path, args, result in self.own:
                if at <= ts:
                    self.beholder.answered(path, args, result)
            self.own = [each for each in self.own if each[0] > ts]
            self.beholder.look([self.results[query] for query in range(len(QUERIES))])

    async def call(self, step: Step) -> None:
        path, args = call_of(step)
        self.calls[self.next_request] = (path, args)
        self.beholder.asked(path, args)
        await self.mutation(path, **args)


@pytest.mark.e2e
async def test_no_client_of_a_real_server_ever_sees_a_rule_broken(
    effort: Effort, evidence: Say, tmp_path: Path
) -> None:
    beholders, transactions, histories = list[Beholder](), 0, 0
    for seed in effort.seeds(1, 5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        plan = make_rule_plan(seed, clients=12, steps=effort.pick(40, 250))
        with Served(folder) as server:
            async with SyncSocket(server.url) as first:
                await first.mutation("rules:prepare", **_PREPARE)

            async def client(
                beholder: Beholder, steps: Sequence[Step], url: str = server.url
            ) -> None:
                async with _BeholdingSocket(url, beholder) as socket:
                    await socket.subscribe(*QUERIES)
                    for step in steps:
                        await socket.call(step)
                    while socket.own:  # until its last mutation is in sight
                        await socket.next_transition()

            own = [Beholder(f"c{number}") for number in range(len(plan))]
            async with asyncio.TaskGroup() as group:
                for beholder, steps in zip(own, plan, strict=True):
                    group.create_task(client(beholder, steps))
        problems = [problem for each in own for problem in each.problems]
        assert not problems, f"TRUST_SEED={seed}\n" + "\n".join(problems[:5])
        beholders += own
        histories += 1
        transactions += sum(map(len, plan))
    looks = sum(each.looks for each in beholders)
    assert looks > transactions, "too few looks to mean anything"
    evidence("consistent push", histories=histories, transactions=transactions, looks=looks)
