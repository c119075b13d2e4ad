"""Ways to break what is promised of scheduled functions, each of which a test here must find."""

from __future__ import annotations

from typing import Any

import pytest

from reactive_store.functions.outcome import Failure
from reactive_store.functions.scheduler import FAILED, IN_PROGRESS, PENDING, SUCCESS, set_job_state
from reactive_store.scheduling import jobs, waiting
from reactive_store.scheduling.jobs import Jobs
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES"]


def _end_in_a_commit_of_its_own(patch: pytest.MonkeyPatch) -> None:
    async def run(self: Jobs, job: Any, slot: Any) -> None:
        accepted = await self._runner.accept_mutation(job.path, job.args, job.caller)
        await self._database.committer.wait_durable(accepted.ts)
        await self._move(job, PENDING, SUCCESS)

    patch.setattr(Jobs, "_run_mutation", run)


def _begin_the_action_first(patch: pytest.MonkeyPatch) -> None:
    async def run(self: Jobs, job: Any) -> None:
        outcome = await self._runner.action(job.path, job.args, job.caller)
        await self._move(job, PENDING, FAILED if isinstance(outcome, Failure) else SUCCESS)

    patch.setattr(Jobs, "_run_action", run)


def _run_interrupted_actions_again(patch: pytest.MonkeyPatch) -> None:
    def back(transaction: Any, id: bytes, kind: str, *, error: str | None = None) -> None:
        if error == jobs.INTERRUPTED:
            kind, error = PENDING, None
        set_job_state(transaction, id, kind, error=error)

    patch.setattr(jobs, "set_job_state", back)


def _leave_interrupted_actions(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Jobs) -> None:
        return None

    patch.setattr(Jobs, "_end_interrupted", nothing)


def _run_ahead_of_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jobs, "is_due", lambda due_ms, runtime: waiting.is_due(due_ms - 1000, runtime))


def _run_what_was_canceled(patch: pytest.MonkeyPatch) -> None:
    def begin(self: Any, transaction: Any) -> None:
        set_job_state(transaction, self._job.id, IN_PROGRESS)

    patch.setattr(jobs._JobRecord, "begin", begin)


BREAKAGES = [
    Breakage(
        "end-apart",
        "exactly once",
        "a scheduled mutation is marked as done in a commit after its own",
        _end_in_a_commit_of_its_own,
    ),
    Breakage(
        "action-first",
        "exactly once",
        "a scheduled action begins before it is on disk that it does",
        _begin_the_action_first,
    ),
    Breakage(
        "interrupted-again",
        "exactly once",
        "an action that was interrupted by the end of its process runs again",
        _run_interrupted_actions_again,
    ),
    Breakage(
        "interrupted-forgotten",
        "exactly once",
        "an action that was interrupted by the end of its process stays in progress for ever",
        _leave_interrupted_actions,
    ),
    Breakage(
        "ahead-of-time",
        "exactly once",
        "a scheduled function runs a second before it is due",
        _run_ahead_of_time,
    ),
    Breakage(
        "canceled-runs",
        "exactly once",
        "a mutation that was canceled in the last moment runs all the same",
        _run_what_was_canceled,
    ),
]
