"""Each breakage of the protocol is found by the simulation, and its plan becomes short."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.trust.breakage import Breakage
from tests.trust.protocol.backend_host import run_backend
from tests.trust.protocol.breakages import BREAKAGES, ON_THE_BACKEND
from tests.trust.protocol.plans import draw, shrink
from tests.trust.protocol.questions import Violation
from tests.trust.protocol.simulation import find, run_model

MOST_RUNS = 400
SHORT = 12  # operations that a shrunk plan may have


@pytest.mark.parametrize("breakage", BREAKAGES, ids=str)
def test_the_simulation_finds(
    breakage: Breakage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    evidence: Any,
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    run = run_backend if breakage.name in ON_THE_BACKEND else run_model
    breakage.apply(monkeypatch)
    for seed in range(1, MOST_RUNS + 1):
        plan = draw(seed)
        if (error := find(run, plan)) is not None:
            break
    else:
        pytest.fail(f"{MOST_RUNS} runs and nothing found: {breakage.text}")
    # A check has to say it: what the product or a check merely stumbles over is no find.
    assert isinstance(error, Violation), repr(error)
    short = shrink(plan, lambda shorter: isinstance(find(run, shorter), Violation), runs=60)
    assert len(short.operations) <= SHORT, f"{error}\n{short}"
    evidence(breakage.promise, breakage=breakage, runs=seed, operations=len(short.operations))
