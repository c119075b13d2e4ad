"""Runs an app's crons, one run of each at a time.

What a deployment's crons are, and when each runs next, are documents: a restart keeps the times.
Deploying compares them with the app by name: a cron that stays the same keeps its next time, one
with another schedule gets a new one, one that is gone stops.

    mutation   exactly once for each of its times: the commit also moves the cron to its next time
    action     at most once: the cron is in progress, durably, before the action begins

Times that have passed by the end of a run, or while no process ran, are skipped and not made up,
save one: a cron that is overdue runs once. The last runs of each cron are remembered.

Source of facts: docs/guide/scheduling.md; Convex's open server for the rules and the text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from reactive_store.auth.identity import Caller
from reactive_store.engine.catalog import BY_NAME, CRON_JOBS, CRON_RUNS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING, prefix_interval
from reactive_store.engine.range_index import BY_CREATION_TIME
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import Retry, StoreFailed
from reactive_store.functions.app import App
from reactive_store.functions.crons import CronTarget, Schedule, cron_targets
from reactive_store.functions.definitions import FunctionKind
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.functions.runner import Runner
from reactive_store.functions.scheduler import IN_PROGRESS, PENDING
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Row
from reactive_store.runtime import Runtime
from reactive_store.scheduling.jobs import INTERRUPTED
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
from reactive_store.values.value import Int64, Value

__all__ = ["CronRuns"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_NOBODY: Final = Caller(None, is_admin=True)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_MOST_COUNTED: Final = 10_000  # skipped times of a clock schedule; more are not counted one by one


@dataclass(frozen=True, slots=True)
class _Run:
    """A cron whose time has come."""

    id: bytes
    name: str
    path: str
    args: dict[str, Any]
    due_ms: float
    began_s: float  # on the monotonic clock


class _CronRecord:
    """A mutation's run, remembered by the mutation's own commit."""

    __slots__ = ("_of", "_run")

    def __init__(self, of: CronRuns, run: _Run) -> None:
        self._of = of
        self._run = run

    def begin(self, transaction: Transaction) -> None:
        if self._of.read_due(transaction, self._run) is None:
            raise Withdrawn("not on the schedule any more")

    def end(self, transaction: Transaction, log_lines: tuple[str, ...]) -> None:
        self._of.finish(transaction, self._run, {"type": "success"}, log_lines)


class CronRuns:
    """The crons of one deployment."""

    def __init__(
        self, database: Database, runner: Runner, runtime: Runtime, limits: Limits
    ) -> None:
        self._database = database
        self._runner = runner
        self._runtime = runtime
        self._records = limits.cron_records
        self._alarm = Alarm(database, runtime)
        self._running: dict[bytes, asyncio.Task[None]] = {}
        # Set unless a deployment is under way: then nothing is begun.
        self._open = asyncio.Event()
        self._open.set()
        self.progress = 0  # grows with each beginning and end: for those who wait for quiet

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is due and nothing runs."""
        return not self._running and self._alarm.is_quiet

    # Deploying.

    @asynccontextmanager
    async def deploying(self, app: App) -> AsyncIterator[None]:
        """Put an app's crons in force; the app itself is put in force inside.

        Raises   BadRequest[InvalidCron] for an app that was made without the loader's checks
        """
        targets = cron_targets(app)
        self._open.clear()
        try:
            await self._runner.transact(lambda transaction: self._deploy(transaction, targets))
            yield
        finally:
            self._open.set()

    async def _deploy(self, transaction: Transaction, targets: list[CronTarget]) -> None:
        stored = {str(document["name"]): (row, document) for row, document in _read(transaction)}
        for target in targets:
            row, document = stored.pop(target.name, (None, None))
            fields: dict[str, Value] = {
                "args": [dict(target.args)],
                "path": target.path,
                "schedule": target.schedule.to_json(),
            }
            if row is None or document is None:
                fields |= {
                    "name": target.name,
                    "nextTime": self._first_ms(target, transaction.now_ms, None),
                    "prevTime": None,
                    "state": {"kind": PENDING},
                }
                transaction.insert(CRON_JOBS, fields)
                continue
            if Schedule.from_json(document["schedule"]) != target.schedule:
                fields["nextTime"] = self._first_ms(
                    target, transaction.now_ms, document["prevTime"]
                )
            transaction.patch(CRON_JOBS, row.id, fields)
        for name, (row, _) in stored.items():
            transaction.delete(CRON_JOBS, row.id)
            self._forget_runs(transaction, name, keep=0)

    def _first_ms(self, target: CronTarget, now_ms: float, previous_ms: float | None) -> float:
        if target.schedule.seconds is None:
            return target.schedule.next_ms(target.name, now_ms)
        if previous_ms is None:
            return now_ms
        return max(now_ms, target.schedule.next_ms(target.name, previous_ms))

    # Running.

    async def run(self) -> None:
        """Run crons for ever; ends by cancellation, or when the disk has failed."""
        try:
            await self._insist(
                "interrupted crons", lambda: self._runner.transact(self._end_interrupted)
            )
            await run_to_the_end(self._round, self._database, self._runtime, name="crons")
        except StoreFailed:
            return  # the committer has said so
        finally:
            await end_all(self._running.values())

    async def _round(self) -> None:
        await self._open.wait()
        transaction = self._database.begin()
        due: list[_Run] = []
        next_ms: float | None = None
        for row, document in _read(transaction):
            at_ms = float(document["nextTime"])
            if row.id in self._running:
                continue  # its end changes the document, which ends the wait
            if is_due(at_ms, self._runtime):
                due.append(self._made(row, document))
            else:
                next_ms = at_ms if next_ms is None else min(next_ms, at_ms)
        for run in sorted(due, key=lambda run: run.due_ms):
            self.progress += 1
            self._running[run.id] = self._runtime.spawn(self._run(run), name=f"cron {run.name}")
        if not due:
            await self._alarm.wait(transaction, next_ms)

    def _made(self, row: Row, document: Document) -> _Run:
        return _Run(
            row.id,
            document["name"],
            document["path"],
            document["args"][0],
            float(document["nextTime"]),
            self._runtime.monotonic_s(),
        )

    async def _run(self, run: _Run) -> None:
        try:
            await self._run_kind(run)
        except Withdrawn:
            pass
        except StoreFailed as error:
            _LOG.error("a cron was stopped name=%s: %s", run.name, error.message)
        except Exception:  # noqa: BLE001 - the boundary that owns failures of crons
            _LOG.exception("a cron could not be run name=%s", run.name)
            await self._runtime.sleep(_LONGEST_PAUSE_S)
        finally:
            self.progress += 1
            del self._running[run.id]
            self._alarm.ring()

    async def _run_kind(self, run: _Run) -> None:
        function = self._runner.app.find(run.path)
        if function is not None and function.kind is FunctionKind.ACTION:
            await self._run_action(run)
            return
        accepted = await self._insist(
            run.name,
            lambda: self._runner.accept_mutation(
                run.path, run.args, _NOBODY, record=_CronRecord(self, run)
            ),
        )
        if isinstance(accepted.outcome, Failure):
            await self._end(run, accepted.outcome)
        else:
            await self._database.committer.wait_durable(accepted.ts)

    async def _run_action(self, run: _Run) -> None:
        async def begin(transaction: Transaction) -> bool:
            if self.read_due(transaction, run) is None:
                return False
            transaction.patch(CRON_JOBS, run.id, {"state": {"kind": IN_PROGRESS}})
            return True

        begun, _ = await self._insist(run.name, lambda: self._runner.transact(begin))
        if not begun:
            return
        try:
            outcome: Outcome = await self._runner.action(run.path, run.args, _NOBODY)
        except Retry as error:  # what it could not do; the action itself is not tried again
            outcome = Failure(f"{error.message}\n", None, ())
        await self._end(run, outcome)

    async def _end(self, run: _Run, outcome: Outcome) -> None:
        status: dict[str, Value] = {"type": "success"}
        if isinstance(outcome, Failure):
            status = {"error": outcome.message, "type": "err"}

        async def end(transaction: Transaction) -> None:
            self.finish(transaction, run, status, outcome.log_lines)

        await self._insist(run.name, lambda: self._runner.transact(end))

    async def _end_interrupted(self, transaction: Transaction) -> None:
        """End the runs of actions that another process had begun when it stopped."""
        for row, document in _read(transaction):
            if document["state"]["kind"] == IN_PROGRESS:
                run = self._made(row, document)
                _LOG.warning("a cron was interrupted by a restart name=%s", run.name)
                self.finish(transaction, run, {"error": INTERRUPTED, "type": "err"}, ())

    async def _insist(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await insist(
            attempt,
            self._runtime,
            what=f"cron {what}",
            first_s=_FIRST_PAUSE_S,
            longest_s=_LONGEST_PAUSE_S,
        )

    # What a run leaves behind; called inside transactions.

    def read_due(self, transaction: Transaction, run: _Run) -> Document | None:
        """The cron's document, if this run of it is still wanted."""
        row = transaction.get(CRON_JOBS, run.id)
        document = None if row is None else Document(row.value, CRON_JOBS)
        if document is None or document["nextTime"] != run.due_ms:
            return None
        return document

    def finish(
        self,
        transaction: Transaction,
        run: _Run,
        status: Mapping[str, Value],
        log_lines: tuple[str, ...],
    ) -> None:
        """Remember a run that has ended, and move its cron to its next time."""
        row = transaction.get(CRON_JOBS, run.id)
        if row is None:
            return  # not an app's cron any more
        document = Document(row.value, CRON_JOBS)
        changes: dict[str, Value] = {"state": {"kind": PENDING}}
        skipped = 0
        if document["nextTime"] == run.due_ms:  # else it was deployed anew meanwhile
            schedule = Schedule.from_json(document["schedule"])
            next_ms, skipped = _following(schedule, run.name, run.due_ms, transaction.now_ms)
            changes |= {"nextTime": next_ms, "prevTime": run.due_ms}
        transaction.patch(CRON_JOBS, run.id, changes)
        self._remember(transaction, run, run.due_ms, status, log_lines)
        if skipped:
            text = (
                f"Skipping {skipped} run(s) of job {run.name} because multiple scheduled runs are "
                "in the past"
            )
            _LOG.warning("%s", text)
            canceled: dict[str, Value] = {"num_canceled": Int64(skipped), "type": "canceled"}
            self._remember(transaction, run, transaction.now_ms, canceled, (f"[WARN] '{text}'",))
        self._forget_runs(transaction, run.name, keep=self._records)

    def _remember(
        self,
        transaction: Transaction,
        run: _Run,
        at_ms: float,
        status: Mapping[str, Value],
        log_lines: tuple[str, ...],
    ) -> None:
        fields: dict[str, Value] = {
            "args": [run.args],
            "executionTime": self._runtime.monotonic_s() - run.began_s,
            "logLines": list(log_lines),
            "name": run.name,
            "path": run.path,
            "status": dict(status),
            "ts": at_ms,
        }
        transaction.insert(CRON_RUNS, fields)

    def _forget_runs(self, transaction: Transaction, name: str, *, keep: int) -> None:
        prefix = encode_key(name)
        interval = prefix_interval(prefix)
        scan = transaction.scan(
            CRON_RUNS, BY_NAME, interval, prefix_bytes=len(prefix), descending=True
        )
        rows = scan.take(keep + 2 if keep else 1000)
        for row in rows[keep:]:
            transaction.delete(CRON_RUNS, row.id)


def _read(transaction: Transaction) -> list[tuple[Row, Document]]:
    scan = transaction.scan(CRON_JOBS, BY_CREATION_TIME, EVERYTHING)
    found = []
    while (row := scan.next()) is not None:
        found.append((row, Document(row.value, CRON_JOBS)))
    return found


def _following(schedule: Schedule, name: str, due_ms: float, now_ms: float) -> tuple[float, int]:
    """The first time after one that is not in the past, and how many lie between them."""
    following = schedule.next_ms(name, due_ms)
    if following >= now_ms:
        return following, 0
    if schedule.seconds is not None:
        every_ms = schedule.seconds * 1000.0
        skipped = int(-(-(now_ms - following) // every_ms))
        return following + skipped * every_ms, skipped
    skipped = 0
    while following < now_ms:
        skipped += 1
        if skipped == _MOST_COUNTED:
            return schedule.next_ms(name, now_ms), skipped
        following = schedule.next_ms(name, following)
    return following, skipped
