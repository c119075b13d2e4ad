"""A byte of a file has changed: what is told, and what is not.

What holds. A batch of the log carries a checksum, and both files say whose they are and how far the
other one reaches: nothing that comes out of the log is ever wrong without being refused, and a data
file that has lost its end is refused as long as its log knows of it.

What does not. SQLite takes the first damaged frame of a write-ahead log for its end, as after loss
of power, so the newest commits of a process that was killed may be gone without a word (never some
in the middle). And it keeps no checksum of pages: a byte inside a document in `data.sqlite3` is
served as it is. File systems and disks that check what they read do this better.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.trust.conftest import Say
from tests.trust.crash.flipped_bytes import flips, outcome_of, put, some_files
from tests.trust.crash.workload import fast_directory
from tests.trust.effort import Effort

_NOTICED = {"harmless", "refused", "reported"}
_OF_THE_LOG = {
    "killed log.sqlite3": _NOTICED,
    "killed log.sqlite3-wal": _NOTICED | {"cut short"},
    "let go log.sqlite3": _NOTICED | {"cut short"},
}


async def _seen(which: str, allowed: set[str], effort: Effort) -> Counter[str]:
    """How often a changed byte of a file came to what; nothing that is not allowed."""
    state, _, name = which.rpartition(" ")
    rng, seen = random.Random(effort.seed), Counter[str]()
    with fast_directory() as directory:
        killed, let_go, history = await some_files(directory / "live", seed=effort.seed)
        files = killed if state == "killed" else let_go
        put(files, directory / "flipped")
        assert await outcome_of(directory / "flipped", history) == "harmless"
        for place, content in flips(files[name], rng, effort.pick(60, 1500)):
            put({**files, name: content}, directory / "flipped")
            outcome = await outcome_of(directory / "flipped", history)
            assert outcome in allowed, f"seed {effort.seed}, byte {place} of {which}: {outcome}"
            seen[outcome] += 1
    assert seen["harmless"] < seen.total(), "no byte that was changed meant anything"
    return seen


def _figures(seen: Counter[str]) -> dict[str, float]:
    return {key.replace(" ", "_"): float(seen[key]) for key in sorted(seen)}


@pytest.mark.parametrize("which", _OF_THE_LOG)
async def test_a_changed_byte_of_the_log_is_never_served(
    which: str, effort: Effort, evidence: Say
) -> None:
    seen = await _seen(which, _OF_THE_LOG[which], effort)
    if which == "let go log.sqlite3":
        # A page that says it has fewer rows than it has hides the last ones.
        assert seen["cut short"] <= 0.01 * seen.total()
    evidence("durable", **_figures(seen))


async def test_a_changed_byte_of_the_data_files_write_ahead_log_is_never_served(
    effort: Effort, evidence: Say
) -> None:
    seen = await _seen("killed data.sqlite3-wal", _NOTICED, effort)
    evidence("durable", **_figures(seen))


async def test_a_changed_byte_of_the_data_file_may_be_served_and_cuts_no_commits_off(
    effort: Effort, evidence: Say
) -> None:
    seen = await _seen("let go data.sqlite3", _NOTICED | {"silent"}, effort)
    evidence("durable", **_figures(seen))
