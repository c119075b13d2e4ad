"""Live queries against "run everything from scratch on every commit".

Random worlds (a schema, programs as arguments, a history of writes, lost sockets and restarts) are
played on the real engine, live queries, sessions and client state, and held against a naive oracle.
What is held is said in `driving`. A world that diverges is made small and printed as a test.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import pytest

from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.effort import EFFORT, Effort
from tests.trust.oracle.breakages import BREAKAGES
from tests.trust.oracle.driving import Figures
from tests.trust.oracle.ordering import order_key
from tests.trust.oracle.shrinking import diverges, report, shrink, size_of
from tests.trust.oracle.worlds import POOLS, World, random_world

_PROMISE = "complete push"
_MOST_WORLDS = 150  # a breakage that these do not show is not found
_TIMEOUT_S = EFFORT.pick(300, 3600)
_SHRUNK = {"lost-read", "swapped-bound", "constant-fingerprint"}


def _agree(world: World, figures: Figures) -> None:
    divergence = diverges(world, figures)
    if divergence is not None:
        pytest.fail(report(*shrink(world, divergence)), pytrace=False)


def _say(evidence: Say, figures: Figures) -> None:
    counted = asdict(figures)
    evidence(
        _PROMISE, histories=counted.pop("worlds"), transactions=counted.pop("commits"), **counted
    )


@pytest.mark.slow
@pytest.mark.timeout(_TIMEOUT_S)
def test_every_push_is_what_running_everything_again_would_give(
    effort: Effort, evidence: Say
) -> None:
    figures = Figures()
    for seed in effort.seeds(300, 4500):
        _agree(random_world(seed), figures)
    _say(evidence, figures)


@pytest.mark.timeout(_TIMEOUT_S)
def test_long_histories_with_many_questions_agree_as_well(effort: Effort, evidence: Say) -> None:
    figures = Figures()
    for seed in effort.seeds(3, 150):
        _agree(random_world(1_000_000_000 + seed, commits=60, watches=24), figures)
    _say(evidence, figures)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=str)
def test_a_broken_live_query_is_noticed(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, evidence: Say
) -> None:
    breakage.apply(monkeypatch)
    for tried, seed in enumerate(range(1, 1 + _MOST_WORLDS), 1):
        world = random_world(seed)
        divergence = diverges(world)
        if divergence is None:
            continue
        if breakage.name in _SHRUNK:
            small, divergence = shrink(world, divergence, attempts=250)
            assert size_of(small) <= 6, report(small, divergence)
        evidence(_PROMISE, breakage=breakage, found=1, histories=tried)
        return
    pytest.fail(f"none of {_MOST_WORLDS} worlds shows that {breakage.text}")


def test_a_seed_gives_the_same_world_and_the_same_run(effort: Effort, evidence: Say) -> None:
    figures = [Figures(), Figures()]
    seeds = effort.seeds(4, 40)
    for seed in seeds:
        assert repr(random_world(seed)) == repr(random_world(seed))
        for each in figures:
            _agree(random_world(seed), each)
    assert figures[0] == figures[1]
    _say(evidence, figures[0])


def test_the_oracles_order_of_values_is_a_total_order_of_its_own(evidence: Say) -> None:
    values = [value for pool in POOLS.values() for value in pool]
    keys = sorted({order_key(value) for value in values})
    for low, high in pairwise(keys):
        assert low < high
        assert not high < low
    # Missing, null, bigint, number, boolean, string, bytes, array, object.
    assert [key[0] for key in keys] == sorted(key[0] for key in keys)
    assert {key[0] for key in keys} == set(range(9))
    evidence(_PROMISE, values=len(keys))
