"""Power is lost at every write of a run, on disks that keep any part of what was not synced."""

from __future__ import annotations

import random

import pytest

from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.crash.breakages import POWER_BREAKAGES
from tests.trust.crash.images import image_at
from tests.trust.crash.power import Cuts, cut_power, cut_recovery, shortest
from tests.trust.crash.recording_vfs import recording
from tests.trust.crash.workload import fast_directory, plan, run
from tests.trust.effort import Effort

_ROUNDS = 5


def _figures(found: list[Cuts]) -> dict[str, int]:
    return {
        "histories": len(found),
        "transactions": sum(cuts.commits for cuts in found),
        "cuts": sum(cuts.events for cuts in found),
        "images": sum(cuts.images for cuts in found),
        "different": sum(cuts.different for cuts in found),
        "asked_again": sum(cuts.requests for cuts in found),
    }


@pytest.mark.slow
async def test_whenever_power_is_lost_nothing_acknowledged_is_missing_and_nothing_is_torn(
    effort: Effort, evidence: Say
) -> None:
    found = []
    for seed in effort.seeds(1, 5):
        steps = plan(seed, rounds=effort.pick(_ROUNDS, 8))
        choices = effort.pick(1, 2)
        cuts = await cut_power(steps, seed=seed, choices=choices)
        if cuts.loss is not None:
            seconds = effort.pick(20, 300)
            small = await shortest(steps, cuts.loss, seconds=seconds, choices=choices)
            pytest.fail(f"{cuts.loss}\n{small}", pytrace=False)
        found.append(cuts)
    assert min(cuts.different for cuts in found) > 400, "hardly any cut was a different one"
    evidence("durable", **_figures(found))


async def test_when_power_is_lost_again_during_recovery_nothing_is_missing_either(
    effort: Effort, evidence: Say
) -> None:
    found = []
    for seed in effort.seeds(1, 3):
        cuts = await cut_recovery(
            plan(seed, rounds=4), seed=seed, first_cuts=effort.pick(3, 8), choices=1
        )
        assert cuts.loss is None, str(cuts.loss)
        assert cuts.different > 10
        found.append(cuts)
    evidence("durable", **_figures(found))


async def test_the_recording_is_what_the_system_has(evidence: Say) -> None:
    """What is judged is made of the recording, so it has to be the truth."""
    with fast_directory() as directory:
        with recording(directory) as tape:
            await run(directory, tape, plan(3, rounds=7), seed=3, synchronous="FULL")
        image = image_at(tape, len(tape.events), "everything", random.Random(0))
        found = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert image.files == found
        certain = image_at(tape, len(tape.events), "nothing since the last sync", random.Random(0))
        # After a clean end nothing that counts is in the air but the removal of empty files.
        assert {name: certain.files[name] for name in found} == found
    evidence("durable", events=len(tape.events))


async def test_durability_normal_loses_what_was_acknowledged_and_tears_nothing(
    effort: Effort, evidence: Say
) -> None:
    found = []
    for seed in effort.seeds(1, 4):
        cuts = await cut_power(
            plan(seed, rounds=3),
            seed=seed,
            synchronous="NORMAL",
            ask_again_every=0,
            forgive=True,
            skip_start=True,
        )
        assert cuts.loss is None, str(cuts.loss)
        found.append(cuts)
    forgiven = sum(cuts.forgiven for cuts in found)
    assert forgiven > 0, "a store that does not wait for the disk was not caught losing anything"
    evidence("durable", **_figures(found), losses=forgiven)


@pytest.mark.parametrize("breakage", POWER_BREAKAGES, ids=str)
async def test_a_broken_store_is_caught_when_power_is_lost(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, effort: Effort, evidence: Say
) -> None:
    breakage.apply(monkeypatch)
    cuts = await cut_power(plan(1, rounds=_ROUNDS), seed=1, ask_again_every=8, skip_start=True)
    assert cuts.loss is not None, f"not found: {breakage.text}"
    evidence(breakage.promise, breakage=breakage, found=1, **_figures([cuts]))
