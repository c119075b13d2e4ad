"""Every part of the product is broken once, and a named test of the ordinary suite has to see it.

The breakages and the tests that see them are in `broken_engine.py` and `broken_functions.py`. Other
suites here break what they themselves check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reactive_store.functions.live_queries import LiveQueries
from tests.trust import broken_engine, broken_functions
from tests.trust.breakage import Breakage
from tests.trust.named_test import Catalogue, NamedTests, misfit

__all__ = ["CAUGHT_BY"]

# What is broken, and the id of the test that sees it. The reliability page names it.
CAUGHT_BY: dict[str, str] = {**broken_engine.CAUGHT_BY, **broken_functions.CAUGHT_BY}
PLACES = {
    f"{module.__name__}:{breakage.name}": breakage
    for module in (broken_engine, broken_functions)
    for breakage in module.BREAKAGES
}


@pytest.fixture(scope="module")
def named_tests() -> Iterator[NamedTests]:
    with NamedTests() as running:
        yield running


@pytest.mark.slow
def test_the_named_tests_pass_while_nothing_is_broken(named_tests: NamedTests) -> None:
    wanted = sorted(set(CAUGHT_BY.values()))
    verdict = named_tests.run(wanted, None)
    assert (verdict.failed, verdict.trouble) == ((), ())
    passed = {test.partition("[")[0] for test in verdict.passed}
    assert passed == {test.partition("[")[0] for test in wanted}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.partition(":")[2])
def test_the_named_test_fails_under_the_breakage(
    place: str, named_tests: NamedTests, evidence: Callable[..., None]
) -> None:
    breakage: Breakage = PLACES[place]
    verdict = named_tests.run([CAUGHT_BY[breakage.name]], place)
    assert verdict.trouble == ()
    assert verdict.has_seen, f"{CAUGHT_BY[breakage.name]} passes although {breakage.text}"
    evidence(breakage.promise, breakage=breakage, tests=len(verdict.failed))


def test_what_cannot_be_run_is_no_find(named_tests: NamedTests) -> None:
    test = "tests/engine/test_interval.py::test_everything_contains_every_key"
    for tests, place, trouble in (
        ([f"{test}_missing"], None, "no such test"),
        ([test], "tests.trust.broken_engine:missing", "no breakage of"),
    ):
        verdict = named_tests.run(tests, place)
        assert not verdict.has_seen
        assert trouble in verdict.trouble[0]


@pytest.mark.parametrize("arguments", [(None, None, None), ()], ids=["inside", "wrong call"])
def test_a_breakage_that_falls_over_itself_is_no_find(
    arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    breakage = PLACES["tests.trust.broken_functions:queries-nobody-watches"]
    breakage.apply(monkeypatch)
    with pytest.raises((AttributeError, TypeError)) as fallen:
        LiveQueries._detach(*arguments)
    failure = AssertionError("what the test says then")
    failure.__context__ = fallen.value
    assert misfit(failure, breakage) is not None
    assert misfit(AssertionError("the test's own words"), breakage) is None
    assert misfit(KeyError("of the product"), breakage) is None


def test_a_name_is_given_once() -> None:
    catalogue = Catalogue()
    catalogue.broken("twice", "durable", "text", caught_by="a")(lambda monkeypatch: None)
    with pytest.raises(ValueError, match="two breakages are called 'twice'"):
        catalogue.broken("twice", "durable", "text", caught_by="b")(lambda monkeypatch: None)
    assert not broken_engine.CAUGHT_BY.keys() & broken_functions.CAUGHT_BY.keys()
