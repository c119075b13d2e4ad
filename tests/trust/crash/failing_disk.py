"""A run on a disk that answers one write or sync, or all from one on, with an error.

Until the fault the run goes its way. After it whoever waits must have an answer or StoreFailed,
whoever asks must be refused, and whoever reads must see exactly what was acknowledged. When the
disk is well again the directory is judged twice: as the files are, and as they would be had power
been lost as well.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reactive_store.errors import BadRequest, Retry, StoreError, StoreFailed
from reactive_store.testing import TestBackend
from tests.trust.crash.images import images
from tests.trust.crash.oracle import History, Required, difference, problems_of
from tests.trust.crash.oracle import problems_of_requests as requests_problems
from tests.trust.crash.recording_vfs import (
    SQLITE_FULL,
    SQLITE_IOERR_FSYNC,
    SQLITE_IOERR_WRITE,
    Mark,
    Tape,
    recording,
)
from tests.trust.crash.workload import Answer, Ask, Step, ask, clear, live, store_of, take

__all__ = ["FAULTS", "Failed", "Fault", "fail_disk"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: `code` for operations named in `operations`, once or from then on."""

    name: str
    operations: tuple[str, ...]
    code: int
    once: bool

    def __str__(self) -> str:
        return self.name


FAULTS = (
    Fault("the disk is full from then on", ("write", "truncate"), SQLITE_FULL, once=False),
    Fault("one write is refused", ("write", "truncate"), SQLITE_IOERR_WRITE, once=True),
    Fault("one sync fails", ("sync",), SQLITE_IOERR_FSYNC, once=True),
    Fault(
        "nothing works from then on", ("write", "truncate", "sync"), SQLITE_IOERR_WRITE, once=False
    ),
)


@dataclass(slots=True)
class Failed:
    """What one run came to."""

    at: int
    fault: Fault
    is_hit: bool = False  # the run got as far as the fault
    answers: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"operation {self.at}, {self.fault}:", *self.problems[:6]]
        return "\n  ".join(lines)


async def fail_disk(
    directory: Path,
    steps: Sequence[Step],
    fault: Fault,
    at: int,
    *,
    seed: int,
    asks_again: bool,
) -> Failed:
    """Run the steps; from operation `at` on the disk behaves as the fault says."""
    clear(directory / "live")
    failed = Failed(at, fault)

    def answer(operation: str, number: int) -> int:
        if number < at or operation not in fault.operations or (fault.once and failed.is_hit):
            return 0
        failed.is_hit = True
        return fault.code

    with recording(directory / "live") as tape:
        tape.fault = answer
        await _run(directory / "live", tape, steps, failed, seed=seed)
        tape.fault = None
    history, required = History(tape.events), Required()
    for event in tape.events:
        if isinstance(event, Mark):
            required.hear(event.value)
    failed.answers = sum(each is not None for each in required.asked.values())
    rng = random.Random(at)
    *_, last = images(tape, rng, choices=1, only_last=True)
    last.write(directory / "power")
    clear(directory / "asked")
    shutil.copytree(directory / "live", directory / "asked", dirs_exist_ok=True)
    for name in ("live", "power"):
        found = await problems_of(directory / name, history, required, seed=at)
        failed.problems += [f"afterwards, {name}: {each}" for each in found]
    if asks_again and not failed.problems:
        failed.problems += await requests_problems(directory / "asked", required, seed=at)
    clear(directory / "power")
    return failed


async def _run(
    directory: Path, tape: Tape, steps: Sequence[Step], failed: Failed, *, seed: int
) -> None:
    rest, generation = list(steps), 0
    while rest and not failed.is_hit:
        generation += 1
        try:
            async with live(directory, tape, seed=seed * 1000 + generation) as backend:
                while rest:
                    step = rest.pop(0)
                    if step.kind == "close":
                        break
                    if step.kind == "drop":
                        store_of(backend)._health.fail(AssertionError("let go as it is"))
                        break
                    if not await _go_on(backend, tape, step, failed):
                        return
        except (BadRequest, StoreFailed) as error:
            # While opening: said what is wrong, and nothing is served.
            if not failed.is_hit:
                failed.problems.append(f"without a fault: {error}")
            elif isinstance(error, BadRequest) and error.code != "DataFileUnreadable":
                failed.problems.append(f"opening ended with {error.code}: {error}")
            return


async def _go_on(backend: TestBackend, tape: Tape, step: Step, failed: Failed) -> bool:
    """One step. False when the store has failed, after looking at what is left of it."""
    if step.kind == "ask":
        results = await asyncio.gather(
            *(ask(backend, each, tape) for each in step.asks), return_exceptions=True
        )
    else:
        results = await asyncio.gather(take(backend, tape, step), return_exceptions=True)
    errors = [each for each in results if isinstance(each, BaseException)]
    for error in errors:
        if not isinstance(error, StoreFailed) or not failed.is_hit:
            failed.problems.append(f"{step} ended with {error!r}")
    if not errors:
        return True
    await _look_at_what_is_left(backend, tape, failed)
    return False


async def _look_at_what_is_left(backend: TestBackend, tape: Tape, failed: Failed) -> None:
    session = "00000000-0000-4000-8000-ffffffffffff"
    increment = Ask(session, 1, "counters:increment", (("name", "z"),))
    for _ in range(2):
        try:
            outcome: Answer | StoreError = await ask(backend, increment)
        except (StoreFailed, Retry) as error:
            outcome = error
        if not isinstance(outcome, StoreFailed):
            failed.problems.append(f"after the failure a mutation ended with {outcome!r}")
    store, history = store_of(backend), History(tape.events)
    durable = Required()
    for event in tape.events:
        if isinstance(event, Mark):
            durable.hear(event.value)
    if store.last_ts < durable.durable_ts:
        failed.problems.append("readers lost sight of what was acknowledged")
    if (differs := difference(store, history, store.last_ts)) is not None:
        failed.problems.append(f"readers see something else: {differs}")
    total = await backend.query("accounts:total")
    if total not in (0, 20_000, 40_000):
        failed.problems.append(f"readers see {total} cents")
