"""Histories of the product in this process, checked for a serial order.

Plans are drawn from a seed and run turn by turn from it; a history that has no order is run again
with fewer and fewer steps, and the test fails with the fewest.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactive_store.limits import Limits
from reactive_store.persistence.contract import Persistence
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.testing.faulty_persistence import FaultyPersistence
from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.effort import Effort
from tests.trust.history.breakages import BREAKAGES
from tests.trust.history.elle import Anomaly, check, described
from tests.trust.history.in_process import SlowDisk, run_plan
from tests.trust.history.record import OK, UNKNOWN, Txn
from tests.trust.history.workload import Plan, make_plan, shortened


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Disks fail here by the hundred, each with a critical line in the log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _plan(seed: int, effort: Effort) -> list[list]:
    chance = random.Random(seed)
    clients = chance.choice((2, 4, 6, 8))
    return make_plan(seed, clients=clients, steps=effort.pick(60, 96) // clients)


def _history_of(plan: Plan, seed: int) -> list[Txn]:
    return asyncio.run(run_plan(plan, seed))


def _wrong(history: list[Txn]) -> list[Anomaly]:
    final = history[-1]
    if final.status == OK:
        return check(history)
    # Two documents where one belongs: no serial run makes them.
    return [Anomaly("unreadable", "  the data cannot be read any more", (final.id,))]


def _explained(plan: Plan, seed: int, anomalies: list[Anomaly], history: list[Txn]) -> str:
    """The report of a failure: the seed, the shortest plan that still fails, what is wrong."""
    small = shortened(plan, lambda smaller: bool(_wrong(_history_of(smaller, seed))))
    again = _history_of(small, seed)
    found = _wrong(again)
    if not found:  # it does not come back: tell what was seen
        small, again, found = list(plan), history, anomalies
    steps = [f"  c{client}: {step}" for client, own in enumerate(small) for step in own]
    return "\n".join((f"TRUST_SEED={seed}", *steps, described(again, found)))


def test_histories_of_interleaved_clients_have_a_serial_order(
    effort: Effort, evidence: Say
) -> None:
    histories = transactions = pushes = unknown = 0
    for seed in effort.seeds(90, 1200):
        plan = _plan(seed, effort)
        history = _history_of(plan, seed)
        anomalies = _wrong(history)
        assert not anomalies, _explained(plan, seed, anomalies, history)
        histories += 1
        transactions += len(history)
        pushes += sum(txn.process.endswith("push") for txn in history)
        unknown += sum(txn.status == UNKNOWN for txn in history)
    assert pushes > transactions / 10
    evidence(
        "serializable",
        histories=histories,
        transactions=transactions,
        pushes=pushes,
        unknown=unknown,
    )


def test_the_same_seed_gives_the_same_history(effort: Effort, evidence: Say) -> None:
    histories = 0
    for seed in effort.seeds(10, 100):
        plan = _plan(seed, effort)
        first, second = (list(map(str, _history_of(plan, seed))) for _ in range(2))
        assert first == second, f"TRUST_SEED={seed}: two runs differ"
        histories += 1
    evidence("serializable", histories=histories)


async def test_histories_on_sqlite_have_a_serial_order_across_a_restart(
    effort: Effort, evidence: Say, tmp_path: Path
) -> None:
    histories = transactions = 0
    for seed in effort.seeds(12, 150):
        folder = tmp_path / str(seed)
        folder.mkdir()

        async def opened(path: Path = folder / "data.sqlite3") -> Persistence:
            return await SqlitePersistence.open(path, synchronous="NORMAL", limits=Limits())

        history = await run_plan(_plan(seed, effort), seed, await opened(), opened)
        anomalies = _wrong(history)
        assert not anomalies, f"TRUST_SEED={seed}\n{described(history, anomalies)}"
        histories += 1
        transactions += len(history)
    evidence("serializable", histories=histories, transactions=transactions)


async def test_what_a_failing_disk_had_acknowledged_is_in_the_order_after_a_restart(
    effort: Effort, evidence: Say
) -> None:
    histories = transactions = unknown = survived = 0
    for seed in effort.seeds(40, 600):
        chance = random.Random(seed)
        slow = SlowDisk(seed)
        disk = FaultyPersistence(slow)
        # Half of the time the disk had taken the write and only the answer was an error.
        disk.fail(at_write=chance.randrange(6, 40), is_written=chance.random() < 0.5)

        async def same(slow: SlowDisk = slow) -> Persistence:
            return slow

        history = await run_plan(_plan(seed, effort), seed, disk, same)
        anomalies = _wrong(history)
        assert not anomalies, f"TRUST_SEED={seed}\n{described(history, anomalies)}"
        histories += 1
        transactions += len(history)
        lost = [txn for txn in history if txn.status == UNKNOWN]
        unknown += len(lost)
        final = history[-1]
        held = {
            each for kind, _, value in final.ops for each in (value if kind == "read" else (value,))
        }
        survived += sum(any(value in held for _, _, value in txn.ops) for txn in lost)
    assert 0 < survived < unknown, "either way has to happen"
    evidence(
        "durable",
        histories=histories,
        transactions=transactions,
        unknown=unknown,
        unknown_but_written=survived,
    )


@pytest.mark.parametrize("breakage", BREAKAGES, ids=str)
def test_a_broken_store_is_found_and_the_history_made_small(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, effort: Effort, evidence: Say
) -> None:
    breakage.apply(monkeypatch)
    seed = 0
    plan: Plan = []
    while not plan or not _wrong(_history_of(plan, seed)):
        assert seed < 20, f"under {breakage} twenty histories were taken for serial"
        seed += 1
        plan = make_plan(seed, clients=6, steps=10)
    small = shortened(plan, lambda smaller: bool(_wrong(_history_of(smaller, seed))))
    history = _history_of(small, seed)
    found = _wrong(history)
    steps = sum(map(len, small))
    assert found, "the shortened plan fails no more"
    assert steps <= 6, f"{steps} steps are not small"
    assert any(txn.status == OK for txn in history)
    evidence(
        breakage.promise,
        breakage=breakage,
        histories=seed,
        found=len(found),
        steps_when_small=steps,
    )
