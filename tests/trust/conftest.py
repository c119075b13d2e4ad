"""What every trust test starts from: its effort, and a place to say what it has seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.trust.breakage import Breakage
from tests.trust.effort import EFFORT, Effort
from tests.trust.evidence import Evidence, function_of

_EVIDENCE = Evidence()
_WHOLE: set[str] = set()  # every case of the functions of which all cases were chosen
_LEFT_OUT: set[str] = set()  # functions of which a case was not

Say = Callable[..., None]


def pytest_report_header() -> str:
    form = "long" if EFFORT.long else "short"
    return f"trust: {form} form, TRUST_SEED={EFFORT.seed}"


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    _LEFT_OUT.update(function_of(item.nodeid) for item in items)


def pytest_collection_finish(session: pytest.Session) -> None:
    # `test_kill.py::test_x[a]` is one case of a function, whatever path it is written with.
    named = {
        function_of(argument).rpartition("::")[2]
        for argument in session.config.args
        if "[" in argument
    }
    _WHOLE.update(
        item.nodeid
        for item in session.items
        if function_of(item.nodeid) not in _LEFT_OUT
        and function_of(item.nodeid).rpartition("::")[2] not in named
    )


def pytest_sessionfinish() -> None:
    if os.environ.get("TRUST_RECORD") and _EVIDENCE.seen:
        _EVIDENCE.write(whole=_WHOLE)


@pytest.fixture
def effort() -> Effort:
    return EFFORT


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Say]:
    """`evidence(promise, breakage=None, also=(), **figures)`; a test that never says fails."""
    started = time.perf_counter()
    said = False

    def say(
        promise: str,
        *,
        breakage: Breakage | None = None,
        also: Sequence[str] = (),
        **figures: float,
    ) -> None:
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
            also=also,
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
