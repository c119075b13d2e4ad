"""Sessions and clients back to back under a seeded schedule of faults, in virtual time."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trust.effort import Effort
from tests.trust.protocol.backend_host import run_backend
from tests.trust.protocol.plans import Operation, Plan, draw, shrink
from tests.trust.protocol.simulation import Seen, find, report, run_model

Run = Callable[[Plan], Seen]
ROOT = Path(__file__).resolve().parents[3]


def plan_of(seed: int) -> Plan:
    """Short and long, of one user and of several."""
    return draw(seed, length=20 + seed % 50, clients=1 + seed % 3)


def try_all(run: Run, seeds: range) -> Seen:
    seen = Seen()
    for seed in seeds:
        plan = plan_of(seed)
        error = find(lambda plan: seen.add(run(plan)), plan)
        if error is not None:
            pytest.fail(report(run, plan, error))
    return seen


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What a server logs when its power goes is not what these tests are about."""
    caplog.set_level(logging.CRITICAL + 1)


@pytest.mark.slow
def test_sessions_and_clients_agree_whatever_the_network_does(
    effort: Effort, evidence: Any
) -> None:
    seeds = effort.seeds(700, 10_000)
    seen = try_all(run_model, seeds)
    assert seen.results > 20 * len(seeds)
    evidence("consistent push", runs=len(seeds), **seen.figures())


@pytest.mark.slow
def test_the_whole_backend_agrees_with_its_clients_whatever_the_network_does(
    effort: Effort, evidence: Any
) -> None:
    seeds = effort.seeds(150, 2_500)
    seen = try_all(run_backend, seeds)
    assert seen.commits > 5 * len(seeds)
    evidence("exactly once", runs=len(seeds), **seen.figures())


@pytest.mark.parametrize("run", [run_model, run_backend])
def test_a_seed_repeats_its_run_exactly(run: Run, effort: Effort, evidence: Any) -> None:
    """In another process, too: nothing hangs on addresses or on the order of sets."""
    seeds = effort.seeds(8, 40)
    here = [run(plan_of(seed)).checksum for seed in seeds]
    code = (
        "import logging; logging.disable(logging.CRITICAL)\n"
        f"from tests.trust.protocol.test_simulation import {run.__name__}, plan_of\n"
        f"print([{run.__name__}(plan_of(seed)).checksum for seed in {seeds}])"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == str(here)
    evidence("consistent push", repeated=len(seeds))


def test_a_plan_is_shrunk_to_the_operations_that_matter() -> None:
    matter = {Operation(7, 0, "cut"), Operation(9, 1, "mutate", what=3)}
    noise = tuple(Operation(at_ms, 0, "watch") for at_ms in range(30))
    plan = Plan(1, (*noise[:10], *matter, *noise[10:]))
    short = shrink(plan, lambda plan: matter <= set(plan.operations))
    assert set(short.operations) == matter
