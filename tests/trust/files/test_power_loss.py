"""Files across a loss of power, at any call of the operating system that changes the disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.effort import EFFORT, Effort
from tests.trust.files.breakages import BREAKAGES
from tests.trust.files.history import run_history

_HISTORIES_FOR_A_BREAKAGE = 120

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "functions").mkdir()
    return tmp_path / "functions"


async def test_an_acknowledged_file_survives_a_loss_of_power(
    folder: Path, effort: Effort, evidence: Say
) -> None:
    counts: Counter[str] = Counter()
    seeds = effort.seeds(50, 5000)
    for seed in seeds:
        with pytest.MonkeyPatch.context() as patch:
            seen = await run_history(seed, folder, patch)
        assert not seen.problems, f"TRUST_SEED={seed}: {seen.problems}\n{seen.counts}"
        counts += seen.counts
        counts["in_doubt"] += len(seen.in_doubt)
    assert counts["store"] > 5 * len(seeds), "hardly any load"
    assert counts["delete"] > len(seeds), "hardly any deletion"
    evidence(
        "durable",
        histories=len(seeds),
        files=counts["store"],
        deletions=counts["delete"],
        deletions_in_doubt=counts["in_doubt"],
    )


async def test_a_history_of_files_repeats_itself(folder: Path) -> None:
    found = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            seen = await run_history(EFFORT.seed, folder, patch)
        found.append((seen.stored, seen.deleted, seen.counts))
    assert found[0] == found[1]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=str)
async def test_a_store_that_loses_files_is_caught(
    folder: Path, evidence: Say, breakage: Breakage
) -> None:
    for seed in range(1, _HISTORIES_FOR_A_BREAKAGE + 1):
        with pytest.MonkeyPatch.context() as patch:
            breakage.apply(patch)
            seen = await run_history(seed, folder, patch)
        if seen.problems:
            evidence(breakage.promise, breakage=breakage, histories=seed, found=1)
            return
    pytest.fail(f"not found in {_HISTORIES_FOR_A_BREAKAGE} histories: {breakage.text}")
