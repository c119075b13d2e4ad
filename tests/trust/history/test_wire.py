"""Histories of a real server, seen by raw sockets, HTTP and Convex's npm clients at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.effort import Effort
from tests.trust.history.breakages import BREAKAGES
from tests.trust.history.elle import check, described
from tests.trust.history.over_the_wire import wire_history
from tests.trust.history.record import OK, UNKNOWN
from tests.trust.history.served import Served
from tests.trust.history.workload import KEYS

pytestmark = pytest.mark.e2e


def _keys(number: int) -> Sequence[str]:
    """Keys nobody has used yet; many clients of one server must not wait for a server each."""
    return [f"{key}.{number}" for key in KEYS]


@pytest.mark.slow
async def test_what_clients_of_every_kind_see_of_one_server_has_a_serial_order(
    effort: Effort, evidence: Say, tmp_path: Path
) -> None:
    histories = transactions = pushes = unknown = 0
    with Served(tmp_path) as server:
        for seed in effort.seeds(2, 15):
            history = await wire_history(
                server.url,
                seed * 1000,
                _keys(seed),
                sockets=6,
                http=6,
                npm=4,
                steps=effort.pick(30, 60),
            )
            anomalies = check(history)
            assert not anomalies, f"TRUST_SEED={seed}\n{described(history, anomalies)}"
            assert history[-1].status == OK
            histories += 1
            transactions += len(history)
            pushes += sum("push" in txn.process for txn in history)
            unknown += sum(txn.status == UNKNOWN for txn in history)
    assert pushes > transactions / 10
    evidence(
        "serializable",
        also=("compatible",),
        histories=histories,
        transactions=transactions,
        pushes=pushes,
        unknown=unknown,
    )


@pytest.mark.parametrize(
    "breakage",
    [each for each in BREAKAGES if each.name in ("no-conflicts", "stale-queries", "old-pushes")],
    ids=str,
)
async def test_a_broken_server_is_found_from_outside(
    breakage: Breakage, evidence: Say, tmp_path: Path
) -> None:
    with Served(tmp_path, breakage) as server:
        for tried in range(1, 11):
            history = await wire_history(
                server.url,
                tried * 1000,
                _keys(tried),
                sockets=4,
                http=4,
                npm=0,
                steps=20,
                prepared=True,
            )
            anomalies = check(history)
            if anomalies:
                break
    assert anomalies, f"ten histories of a server with {breakage} were taken for serial"
    evidence(breakage.promise, breakage=breakage, histories=tried, found=len(anomalies))
