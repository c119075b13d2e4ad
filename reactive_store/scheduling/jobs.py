"""Runs scheduled functions when they are due, and forgets about them a week after they ended.

    mutation   exactly once: its job moves from pending to success in the commit of what it writes;
               an error of the app ends the job as failed in a commit of its own
    action     at most once: the job is in progress, durably, before the action begins; what is in
               progress when a process starts was interrupted, and ends as failed

Due functions run in the order of their times, so many at once; those due at the same time may run
concurrently. The loop reads what is due through an index and sleeps until the next time, or until
a commit changes what it has read. All it knows is in the documents: a restart loses nothing.

Source of facts: docs/guide/scheduling.md; the states and texts of Convex's open server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from reactive_store.auth.identity import Caller
from reactive_store.engine.catalog import BY_COMPLETED_TIME, BY_STATE, SCHEDULED_FUNCTIONS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import Interval, prefix_interval
from reactive_store.engine.transaction import Scan, Transaction
from reactive_store.errors import Retry, StoreFailed
from reactive_store.functions.definitions import FunctionKind
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.functions.runner import Runner
from reactive_store.functions.scheduler import (
    FAILED,
    IN_PROGRESS,
    PENDING,
    SUCCESS,
    job_state,
    set_job_state,
)
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.scheduling.waiting import (
    Alarm,
    Withdrawn,
    end_all,
    insist,
    is_due,
    run_to_the_end,
)
from reactive_store.values.document import Document
from reactive_store.values.order import encode_key

__all__ = ["INTERRUPTED", "FinishedJobs", "Jobs"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

INTERRUPTED: Final = "Transient error while executing action"
"""How an action ends that was running when its process stopped."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 60.0
_READ_AT_ONCE = 128  # due jobs; those that come meanwhile with an earlier time wait for the next
_INTERRUPTED_PER_COMMIT = 500
_FORGOTTEN_PER_COMMIT = 1000
_PAUSE_S = 0.02
_BEFORE_A_BREATH = 4


@dataclass(frozen=True, slots=True)
class _Job:
    """A function that is due."""

    id: bytes
    document_id: str
    path: str
    args: dict[str, Any]

    @property
    def caller(self) -> Caller:
        """Nobody is logged in; internal functions may be run."""
        return Caller(None, is_admin=True, job=self.document_id)


class _JobRecord:
    """A mutation's job, moved to its end by the mutation's own commit."""

    __slots__ = ("_job",)

    def __init__(self, job: _Job) -> None:
        self._job = job

    def begin(self, transaction: Transaction) -> None:
        if job_state(transaction, self._job.id) != PENDING:
            raise Withdrawn("canceled meanwhile")
        set_job_state(transaction, self._job.id, IN_PROGRESS)

    def end(self, transaction: Transaction, _log_lines: tuple[str, ...]) -> None:
        set_job_state(transaction, self._job.id, SUCCESS)


class Jobs:
    """The loop that runs what is due, of one deployment."""

    def __init__(
        self, database: Database, runner: Runner, runtime: Runtime, limits: Limits
    ) -> None:
        self._database = database
        self._runner = runner
        self._runtime = runtime
        self._alarm = Alarm(database, runtime)
        self._slots = asyncio.Semaphore(limits.scheduled_parallelism)
        # Jobs under way: not to be begun again, whatever the documents say. A job leaves when its
        # end is durable.
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self.progress = 0  # grows with each beginning and end: for those who wait for quiet

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is due and nothing runs."""
        return not self._running and self._alarm.is_quiet

    @property
    def running(self) -> tuple[str, ...]:
        """The functions under way, by path."""
        return tuple(task.get_name().removeprefix("job ") for task in self._running.values())

    async def run(self) -> None:
        """Run due functions for ever; ends by cancellation, or when the disk has failed."""
        try:
            await self._insist("interrupted actions", self._end_interrupted)
            await run_to_the_end(self._round, self._database, self._runtime, name="jobs")
        except StoreFailed:
            return  # the committer has said so
        finally:
            await end_all(self._running.values())

    async def _round(self) -> None:
        transaction = self._database.begin()
        due, next_ms = self._due(transaction)
        for job in due:
            await self._slots.acquire()
            self.progress += 1
            self._running[job.id] = self._runtime.spawn(self._run(job), name=f"job {job.path}")
            if len(self._running) % _BEFORE_A_BREATH == 0:
                await self._runtime.sleep(0)  # thousands may be overdue; clients get their turn
        if not due:
            await self._alarm.wait(transaction, next_ms)

    def _due(self, transaction: Transaction) -> tuple[list[_Job], float | None]:
        """The next jobs to begin, and when the one after them is due, if there was time to look."""
        scan = _scan_state(transaction, PENDING)
        due: list[_Job] = []
        while len(due) < _READ_AT_ONCE and (row := scan.next()) is not None:
            document = Document(row.value, SCHEDULED_FUNCTIONS)
            due_ms = float(document["scheduledTime"])
            if not is_due(due_ms, self._runtime):
                return due, due_ms
            if row.id not in self._running:
                due.append(_Job(row.id, document["_id"], document["name"], document["args"][0]))
        return due, None

    async def _run(self, job: _Job) -> None:
        slot = _Slot(self._slots)
        try:
            await self._run_kind(job, slot)
        except Withdrawn:
            pass
        except StoreFailed as error:
            # The loop ends: what was not committed is found again after the restart.
            _LOG.error("a scheduled function was stopped path=%s: %s", job.path, error.message)
            self._alarm.ring()
        except Exception:  # noqa: BLE001 - the boundary that owns failures of jobs
            _LOG.exception("a scheduled function could not be run path=%s", job.path)
            await self._runtime.sleep(_LONGEST_PAUSE_S)
            self._alarm.ring()
        finally:
            slot.release()
            self.progress += 1
            del self._running[job.id]

    async def _run_kind(self, job: _Job, slot: _Slot) -> None:
        function = self._runner.app.find(job.path)
        if function is None:
            await self._refuse(job, self._runner.app.explain_missing(job.path))
        elif function.kind is FunctionKind.MUTATION:
            await self._run_mutation(job, slot)
        elif function.kind is FunctionKind.ACTION:
            await self._run_action(job)
        else:
            await self._refuse(
                job,
                f"Unsupported function type. {job.path} is defined as a {function.kind.value}. "
                "Only Mutation and Action can be scheduled.",
            )

    async def _refuse(self, job: _Job, text: str) -> None:
        """End what cannot be run; told like the failure of a call."""
        failure = Failure(f"{text}\n", None, ())
        await self._end(job, PENDING, failure.message)
        if self._runner.on_end is not None:
            self._runner.on_end(job.path, failure)

    async def _run_mutation(self, job: _Job, slot: _Slot) -> None:
        record = _JobRecord(job)
        accepted = await self._insist(
            job.path,
            lambda: self._runner.accept_mutation(job.path, job.args, job.caller, record=record),
        )
        if isinstance(accepted.outcome, Failure):
            await self._end(job, PENDING, accepted.outcome.message)
            return
        slot.release()  # only the disk is waited for now
        await self._database.committer.wait_durable(accepted.ts)

    async def _run_action(self, job: _Job) -> None:
        if not await self._move(job, PENDING, IN_PROGRESS):
            return
        try:
            outcome: Outcome = await self._runner.action(job.path, job.args, job.caller)
        except Retry as error:  # what it could not do; the action itself is not tried again
            outcome = Failure(f"{error.message}\n", None, ())
        if isinstance(outcome, Failure):
            await self._end(job, IN_PROGRESS, outcome.message)
        else:
            await self._move(job, IN_PROGRESS, SUCCESS)

    async def _end(self, job: _Job, expected: str, error: str) -> None:
        await self._move(job, expected, FAILED, error)

    async def _move(self, job: _Job, expected: str, to: str, error: str | None = None) -> bool:
        """Move a job, in a commit of its own, unless it has left the state expected. Durable."""

        async def work(transaction: Transaction) -> bool:
            if job_state(transaction, job.id) != expected:
                return False
            set_job_state(transaction, job.id, to, error=error)
            return True

        moved, _ = await self._insist(job.path, lambda: self._runner.transact(work))
        return moved

    async def _end_interrupted(self) -> None:
        """End the actions that another process was running when it stopped."""

        async def work(transaction: Transaction) -> int:
            found = _scan_state(transaction, IN_PROGRESS).take(_INTERRUPTED_PER_COMMIT)
            rows = [row for row in found if row.id not in self._running]
            for row in rows:
                set_job_state(transaction, row.id, FAILED, error=INTERRUPTED)
            return len(rows)

        while True:
            count, _ = await self._runner.transact(work)
            if not count:
                return
            _LOG.warning("scheduled actions were interrupted by a restart count=%d", count)

    async def _insist(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await insist(
            attempt,
            self._runtime,
            what=what,
            first_s=_FIRST_PAUSE_S,
            longest_s=_LONGEST_PAUSE_S,
        )


class FinishedJobs:
    """Forgets jobs some days after they ended."""

    def __init__(self, database: Database, runtime: Runtime, limits: Limits) -> None:
        self._database = database
        self._runtime = runtime
        self._kept_ms = limits.scheduled_record_seconds * 1e3
        self._alarm = Alarm(database, runtime)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be forgotten now."""
        return self._alarm.is_quiet

    async def run(self) -> None:
        """Forget for ever; ends by cancellation, or when the disk has failed."""
        await run_to_the_end(self._round, self._database, self._runtime, name="finished jobs")

    async def _round(self) -> None:
        transaction = self._database.begin()
        row = _scan_completed(transaction).next()
        if row is None:
            await self._alarm.wait(transaction, None)
            return
        over_ms = float(Document(row.value, SCHEDULED_FUNCTIONS)["completedTime"])
        if is_due(over_ms + self._kept_ms, self._runtime):
            await self._forget()
        else:
            await self._alarm.wait(transaction, over_ms + self._kept_ms)

    async def _forget(self) -> None:
        transaction = self._database.begin_mutation()
        for row in _scan_completed(transaction).take(_FORGOTTEN_PER_COMMIT):
            over_ms = float(Document(row.value, SCHEDULED_FUNCTIONS)["completedTime"])
            if not is_due(over_ms + self._kept_ms, self._runtime):
                break
            transaction.delete(SCHEDULED_FUNCTIONS, row.id)
        await self._database.commit(transaction)
        await self._runtime.sleep(_PAUSE_S)  # so that others get their turn on the disk


class _Slot:
    """One of the places for functions that run at a time; given back once."""

    __slots__ = ("_is_held", "_slots")

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._is_held = True

    def release(self) -> None:
        """Let the next one run. Harmless when repeated."""
        if self._is_held:
            self._is_held = False
            self._slots.release()


def _scan_state(transaction: Transaction, kind: str) -> Scan:
    """Jobs in a state, in the order they are due."""
    prefix = encode_key(kind)
    return transaction.scan(
        SCHEDULED_FUNCTIONS, BY_STATE, prefix_interval(prefix), prefix_bytes=len(prefix)
    )


def _scan_completed(transaction: Transaction) -> Scan:
    """Jobs that have ended, in that order. The others have no such field, which sorts first."""
    numbers = Interval(encode_key(float("-inf")), None)
    return transaction.scan(SCHEDULED_FUNCTIONS, BY_COMPLETED_TIME, numbers)
