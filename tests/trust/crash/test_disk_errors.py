"""The disk is full, or a write, a sync or a read fails, at operation after operation of a run.

The long form tries every fault at every operation. The short one tries a full disk at every
operation, the other faults of writes and syncs at every fourth and those of reads at every third;
the seed says at which of them it begins.
"""

from __future__ import annotations

from itertools import count

import pytest

from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.crash.breakages import DISK_BREAKAGES
from tests.trust.crash.failing_disk import FAULTS, Fault, fail_disk
from tests.trust.crash.flipped_bytes import outcome_of, put, some_files
from tests.trust.crash.recording_vfs import (
    SQLITE_IOERR_READ,
    SQLITE_IOERR_SHORT_READ,
    recording,
)
from tests.trust.crash.workload import fast_directory, plan
from tests.trust.effort import Effort


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_failing_disk_loses_nothing_acknowledged_and_stops_writing_but_not_reading(
    fault: Fault, effort: Effort, evidence: Say
) -> None:
    runs = hits = answers = 0
    with fast_directory() as directory:
        for seed in effort.seeds(1, 2):
            steps = plan(seed, rounds=effort.pick(2, 6))
            stride = 1 if effort.long or fault is FAULTS[0] else 4
            for at in count(1 + (seed + FAULTS.index(fault)) % stride, stride):
                failed = await fail_disk(
                    directory, steps, fault, at, seed=seed, asks_again=at % 9 == 0
                )
                assert not failed.problems, f"seed {seed}, {failed}\nsteps: " + "; ".join(
                    map(str, steps)
                )
                runs += 1
                hits += failed.is_hit
                answers += failed.answers
                if not failed.is_hit:
                    break  # the run has no more operations
    assert hits > effort.pick(20, 400)
    evidence("durable", fault_runs=runs, faults=hits, transactions=answers)


@pytest.mark.parametrize(
    ("files", "code", "once"),
    [
        ("", SQLITE_IOERR_READ, True),
        ("", SQLITE_IOERR_READ, False),
        # Zeros in place of a page: noticed in the log, whose batches carry a checksum.
        ("log", SQLITE_IOERR_SHORT_READ, True),
    ],
    ids=["one read fails", "no read works any more", "one read of the log comes short"],
)
async def test_a_read_that_fails_is_told_and_never_answered_with_something_else(
    files: str, code: int, once: bool, effort: Effort, evidence: Say
) -> None:
    reads = told = 0
    stride = effort.pick(3, 1)
    with fast_directory() as directory:
        killed, let_go, history = await some_files(directory / "live", seed=effort.seed)
        for state in (killed, let_go):
            for at in count(1 + effort.seed % stride, stride):
                put(state, directory / "read")
                is_hit = False

                def fault(name: str, number: int, at: int = at) -> int:
                    nonlocal is_hit
                    if number < at or not name.startswith(files) or (once and is_hit):
                        return 0
                    is_hit = True
                    return code

                with recording(directory / "read") as tape:
                    tape.read_fault = fault
                    outcome = await outcome_of(directory / "read", history)
                assert outcome in ("refused", "reported", "harmless"), (
                    f"seed {effort.seed}, read {at}: {outcome}"
                )
                assert await outcome_of(directory / "read", history) == "harmless"
                reads += 1
                told += outcome != "harmless"
                if not is_hit:
                    break
    assert told > 5
    evidence("durable", fault_runs=reads, told=told)


@pytest.mark.parametrize("breakage", DISK_BREAKAGES, ids=str)
async def test_a_broken_store_is_caught_when_the_disk_fails(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, evidence: Say
) -> None:
    breakage.apply(monkeypatch)
    found = runs = 0
    with fast_directory() as directory:
        # From where the schema is in place on: before it there is nobody to be told.
        for at in range(90, 400):
            failed = await fail_disk(
                directory, plan(1, rounds=2), FAULTS[2], at, seed=1, asks_again=False
            )
            runs += 1
            if found := len(failed.problems):
                break
    assert found, f"not found in {runs} runs: {breakage.text}"
    evidence(breakage.promise, breakage=breakage, found=found, fault_runs=runs)
