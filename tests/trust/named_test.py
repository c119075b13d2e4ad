"""Runs a named test of the suite under one breakage, and says what became of it.

"This test sees that breakage" is shown by the test itself: pytest runs it, nothing else, in a
process of its own with the breakage applied after collection. `NamedTests` keeps one process that
has imported everything and forks for each run, so a run costs a fraction of a second.

A `Catalogue` is a list of breakages, each with the test that has to see it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from hypothesis import Phase, settings

from tests.trust.breakage import Breakage
from tests.trust.broken_server import find_breakage

__all__ = ["Catalogue", "NamedTests", "Verdict", "misfit"]

ROOT = Path(__file__).resolve().parents[2]
_PRELOADED = (
    "aiosqlite",
    "pytest_asyncio.plugin",
    "reactive_store.backend",
    "reactive_store.testing",
    "tests.trust.broken_engine",
    "tests.trust.broken_functions",
)
_OPTIONS = (
    "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--timeout=60",
    # The plugins were imported before pytest was started: their own asserts stay as they are.
    "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip

_MISFITS = (AttributeError, TypeError, NameError, KeyError)

Apply = Callable[[pytest.MonkeyPatch], None]


class Catalogue:
    """Breakages of one module. `caught_by` gives the id of the test that has to see each."""

    def __init__(self) -> None:
        self.breakages: list[Breakage] = []
        self.caught_by: dict[str, str] = {}

    def broken(
        self, name: str, promise: str, text: str, *, caught_by: str
    ) -> Callable[[Apply], Apply]:
        """File the decorated function as the breakage `name`."""

        def file(apply: Apply) -> Apply:
            if name in self.caught_by:
                raise ValueError(f"two breakages are called {name!r}")
            self.breakages.append(Breakage(name, promise, text, apply))
            self.caught_by[name] = caught_by
            return apply

        return file


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one run."""

    failed: tuple[str, ...]  # ids of the tests that failed while they ran
    passed: tuple[str, ...]
    trouble: tuple[str, ...]  # anything else: not collected, failed before or after it ran
    said: str  # the first failure's own words

    @property
    def has_seen(self) -> bool:
        """Whether a test failed by its own doing, and nothing else went wrong."""
        return bool(self.failed) and not self.trouble


class NamedTests:
    """A process that runs tests on request. A context manager."""

    def __init__(self) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TRUST", "PYTEST_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.trust.named_test"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=clean,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def run(self, tests: Sequence[str], breakage: str | None) -> Verdict:
        """Run the tests with those ids, under the breakage at `MODULE:NAME`, if any.

        The first one that fails ends the run.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([tests, breakage]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError("the process that runs named tests has ended")
        found = json.loads(answer)
        return Verdict(
            tuple(found["failed"]), tuple(found["passed"]), tuple(found["trouble"]), found["said"]
        )


class _Witness:
    """The pytest plugin of one run: breaks the product, and notes how each test ends.

    The first test that fails while it runs ends the run through `tell`: cleaning up after a broken
    product may take for ever, and says nothing.
    """

    def __init__(self, breakage: Breakage | None, tell: Callable[[Verdict], None]) -> None:
        self._breakage = breakage
        self._tell = tell
        self.failed: list[str] = []
        self.passed: list[str] = []
        self.trouble: list[str] = []
        self.said = ""
        self._misfit: str | None = None  # how the breakage itself fell over in this test

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            if self._breakage is not None:
                try:
                    self._breakage.apply(monkeypatch)
                except Exception:
                    said = f"the breakage cannot be applied: {traceback.format_exc()}"
                    self._tell(Verdict((), (), (said,), ""))
            yield

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.trouble.append(f"{report.nodeid} cannot be collected: {report.longreprtext}")

    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        if self._breakage is not None and call.when == "call" and call.excinfo is not None:
            self._misfit = misfit(call.excinfo.value, self._breakage)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.when == "call" and self._misfit is not None:
            self.trouble.append(f"the breakage no longer fits the product: {self._misfit}")
            self._tell(self.verdict())
        elif report.failed and report.when == "call":
            self.failed.append(report.nodeid)
            crash = getattr(report.longrepr, "reprcrash", None)
            self.said = report.longreprtext if crash is None else crash.message
            self._tell(self.verdict())
        elif report.failed:
            self.trouble.append(f"{report.nodeid} failed in {report.when}: {report.longreprtext}")
        elif report.passed and report.when == "call":
            self.passed.append(report.nodeid)

    def verdict(self) -> Verdict:
        if not self.failed and not self.passed and not self.trouble:
            self.trouble.append("no such test")
        return Verdict(
            tuple(self.failed), tuple(self.passed), tuple(self.trouble), self.said[:2000]
        )


def misfit(error: BaseException, breakage: Breakage) -> str | None:
    """How a breakage has fallen over instead of breaking anything; None when it has not.

    It reached for what the product no longer has, or was called as it cannot be. What a check says
    while it handles such an error counts as such an error, too.
    """
    waiting: list[BaseException] = [error]
    known: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        if not isinstance(one, _MISFITS):
            continue
        frames = traceback.extract_tb(one.__traceback__)
        is_inside = bool(frames) and Path(frames[-1].filename).name.startswith("broken_")
        if is_inside or f"{breakage.apply.__name__}.<locals>." in str(one):
            return f"{type(one).__name__}: {one}"
    return None


def _run(tests: Sequence[str], place: str | None, tell: Callable[[Verdict], None]) -> Verdict:
    witness = _Witness(None if place is None else find_breakage(place), tell)
    # Examples of a broken product are no examples of this one, and are not worth shrinking. Without
    # a breakage the test is only to be seen passing; the suite itself tries it properly.
    settings.register_profile(
        "broken",
        parent=settings.get_profile("default"),
        database=None,
        derandomize=True,
        max_examples=10 if place is None else 100,
        phases=(Phase.explicit, Phase.generate),
    )
    pytest.main([*tests, *_OPTIONS, "--hypothesis-profile=broken"], plugins=[witness])
    return witness.verdict()


def _answer(request: str) -> str:
    """Run one request in a child of this process."""
    tests, place = json.loads(request)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)

        def tell(verdict: Verdict) -> None:
            with os.fdopen(writer, "w") as out:
                out.write(json.dumps(asdict(verdict)))
            os._exit(0)

        try:
            tell(_run(tests, place, tell))
        except BaseException:
            tell(Verdict((), (), (traceback.format_exc(),), ""))
    os.close(writer)
    with os.fdopen(reader) as source:
        answer = source.read()
    os.waitpid(child, 0)
    lost = {"failed": [], "passed": [], "trouble": ["the run ended by itself"], "said": ""}
    return answer or json.dumps(lost)


def _serve() -> None:
    importlib.import_module("tests.conftest")
    for name in _PRELOADED:
        importlib.import_module(name)
    for request in sys.stdin:
        print(_answer(request), flush=True)


if __name__ == "__main__":
    _serve()
