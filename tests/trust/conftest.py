"""What every trust test starts from: its effort, and a place to say what it has seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.trust.breakage import Breakage
from tests.trust.effort import EFFORT, Effort
from tests.trust.evidence import Evidence

_EVIDENCE = Evidence()

Say = Callable[..., None]


def pytest_report_header() -> str:
    form = "long" if EFFORT.long else "short"
    return f"trust: {form} form, TRUST_SEED={EFFORT.seed}"


def pytest_sessionfinish() -> None:
    if os.environ.get("TRUST_RECORD") and _EVIDENCE.seen:
        _EVIDENCE.write()


@pytest.fixture
def effort() -> Effort:
    return EFFORT


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Say]:
    """`evidence(promise, breakage=None, **figures)`; a test that never says fails."""
    started = time.perf_counter()
    said = False

    def say(promise: str, *, breakage: Breakage | None = None, **figures: float) -> None:
        nonlocal said
        said = True
        _EVIDENCE.add(
            request.node.nodeid,
            promise,
            sentence=request.node.originalname.removeprefix("test_").replace("_", " "),
            form="long" if EFFORT.long else "short",
            seed=EFFORT.seed,
            seconds=time.perf_counter() - started,
            figures=figures,
            breakage=breakage,
        )

    yield say
    failed = getattr(request.node, "rep_call", None)
    if not said and (failed is None or not failed.failed):
        pytest.fail("this test asked for `evidence` and said none")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    setattr(item, f"rep_{report.when}", report)
