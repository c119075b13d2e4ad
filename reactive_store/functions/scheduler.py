"""`ctx.scheduler`: functions that run later, written as documents of `_scheduled_functions`.

In a mutation such a document is part of the transaction: it commits, or is undone, with everything
else. In an action each call is a transaction of its own, and durable when it returns. Who runs the
functions is `scheduling.jobs`; what both agree on, the states of a document, is here.

    pending → inProgress → success, failed        and from the first two → canceled

A mutation goes from pending to its end in one commit; only it itself sees that it is in progress.

Source of facts: docs/reference/api.md; the states and texts of Convex's open server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from reactive_store.auth.identity import Caller
from reactive_store.engine.catalog import SCHEDULED_FUNCTIONS, SYSTEM_TABLES
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.functions.logs import LogLines
from reactive_store.functions.names import split_path
from reactive_store.functions.unawaited import Forgetful
from reactive_store.limits import Limits
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.size import format_size, size_of
from reactive_store.values.value import Id, Value, normalize

__all__ = [
    "CANCELED",
    "FAILED",
    "IN_PROGRESS",
    "PENDING",
    "SUCCESS",
    "Deployed",
    "Scheduler",
    "Transact",
    "decode_job_id",
    "job_state",
    "set_job_state",
]

T = TypeVar("T")

PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

_UNFINISHED: Final = frozenset((PENDING, IN_PROGRESS))
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Deployed(Protocol):
    """The part of an App that scheduling asks: which functions there are."""

    @property
    def plain_functions(self) -> Mapping[str, frozenset[str]]:
        """Every public module by path."""
        ...

    def resolve(self, reference: object) -> str:
        """The canonical path of a reference."""
        ...

    def find(self, path: str) -> _Renaming | None:
        """The function at a canonical path."""
        ...


class _Renaming(Protocol):
    """The part of a FunctionDef that scheduling asks."""

    def canonical_args(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments under their names on the wire."""
        ...


class Transact(Protocol):
    """Runs a piece of work in a transaction: the caller's own, or one for it alone."""

    async def __call__(self, work: Callable[[Transaction], T]) -> T:
        """Run it."""
        ...


def decode_job_id(text: str) -> bytes:
    """The internal id of a document of `_scheduled_functions`.

    Raises   BadRequest[InvalidScheduledFunctionId]
    """
    try:
        number, internal_id = decode_id(text)
    except BadRequest as error:
        raise _not_a_job() from error
    if number != SYSTEM_TABLES[SCHEDULED_FUNCTIONS].number:
        raise _not_a_job()
    return internal_id


def job_state(transaction: Transaction, internal_id: bytes) -> str | None:
    """The kind of a job's state; None when its document is gone."""
    row = transaction.get(SCHEDULED_FUNCTIONS, internal_id)
    return None if row is None else str(Document(row.value, SCHEDULED_FUNCTIONS)["state"]["kind"])


def set_job_state(
    transaction: Transaction, internal_id: bytes, kind: str, *, error: str | None = None
) -> None:
    """Move a job that exists to another state; one that ends gets its `completedTime`."""
    state: dict[str, Value] = {"kind": kind} if error is None else {"error": error, "kind": kind}
    changes: dict[str, Value] = {"state": state}
    if kind not in _UNFINISHED:
        changes["completedTime"] = transaction.now_ms
    transaction.patch(SCHEDULED_FUNCTIONS, internal_id, changes)


class Scheduler:
    """`ctx.scheduler` of one call."""

    __slots__ = ("_app", "_caller", "_calls", "_limits", "_now_ms", "_transact")

    def __init__(
        self,
        calls: Forgetful,
        app: Deployed,
        caller: Caller,
        limits: Limits,
        now_ms: Callable[[], float],
        transact: Transact,
    ) -> None:
        self._calls = calls  # who is told of a call that was not awaited
        self._app = app
        self._caller = caller
        self._limits = limits
        self._now_ms = now_ms
        self._transact = transact

    async def run_after(self, delay: timedelta, reference: object, /, **args: Any) -> Id:
        """Run a mutation or action once `delay` has passed; `timedelta(0)`: after the commit.

        Shapes   reference: as for `ctx.run_mutation`; args by name, checked when the function runs
        Returns  the id of its document in `_scheduled_functions`
        Raises   TypeError for a bare number; BadRequest for a delay below zero or beyond five
                 years, a function that does not exist, and more than one mutation may schedule
        """
        if not isinstance(delay, timedelta):
            raise TypeError(_no_timedelta(delay))
        if delay < timedelta():
            raise BadRequest("`delay` must be non-negative", code="InvalidScheduledFunctionDelay")
        return await self._schedule(self._now_ms() + delay / _MILLISECOND, reference, args)

    async def run_at(self, when: datetime, reference: object, /, **args: Any) -> Id:
        """Run a mutation or action at an instant; one in the past: as soon as possible.

        Shapes   when: with a time zone, as in `datetime.now(UTC)`; others as `run_after`
        Raises   TypeError for a bare number, ValueError for a datetime without a time zone;
                 BadRequest as `run_after`
        """
        if not isinstance(when, datetime):
            raise TypeError(_no_datetime(when))
        if when.tzinfo is None or when.utcoffset() is None:
            # To take it for UTC, or for the server's zone as Python does, would both be a guess.
            raise ValueError(
                f"run_at needs a datetime with a time zone, and {when!r} has none: write "
                "datetime(…, tzinfo=UTC), or datetime.now(UTC) + …"
            )
        return await self._schedule((when - _EPOCH) / _MILLISECOND, reference, args)

    async def cancel(self, id: str, /) -> None:
        """Take a function off the schedule. Nothing happens when it has run or was canceled.

        An action that is running goes on, and counts as canceled from now on.

        Raises   BadRequest for what is no such id, and for the mutation that is running itself
        """
        if not isinstance(id, str):
            raise TypeError(f"cancel takes the id that run_after or run_at returned, not {id!r}")
        internal_id = decode_job_id(id)
        own = self._caller.job == id

        def work(transaction: Transaction) -> None:
            if job_state(transaction, internal_id) not in _UNFINISHED:
                return
            # It runs in this very transaction: that is where its progress was staged.
            if own and transaction.staging.get(SCHEDULED_FUNCTIONS, internal_id) is not None:
                raise BadRequest("A mutation cannot cancel itself", code="CannotCancelSelf")
            set_job_state(transaction, internal_id, CANCELED)

        await self._transact(work)

    async def _schedule(self, due_ms: float, reference: object, args: Mapping[str, Any]) -> Id:
        self._check_distance(due_ms)
        path = self._app.resolve(reference)
        function = self._app.find(path)
        if function is None:
            raise BadRequest(self._missing(path), code="ScheduledFunctionNotFound")
        given = normalize(dict(function.canonical_args(args)))
        size = size_of(given)
        self._warn_of_size(path, size)
        job: dict[str, Value] = {
            "args": [given],
            "name": path,
            "scheduledTime": due_ms,
            "state": {"kind": PENDING},
        }
        parent = None if self._caller.job is None else decode_job_id(self._caller.job)

        def work(transaction: Transaction) -> Id:
            _count(transaction, size)
            fields = dict(job)
            # A canceled action that goes on running starts nothing any more.
            if parent is not None and job_state(transaction, parent) == CANCELED:
                fields.update(state={"kind": CANCELED}, completedTime=transaction.now_ms)
            return transaction.insert(SCHEDULED_FUNCTIONS, fields)

        return await self._transact(work)

    def _check_distance(self, due_ms: float) -> None:
        distance_ms = due_ms - self._now_ms()
        if abs(distance_ms) <= self._limits.scheduled_distance_seconds * 1000.0:
            return
        where = "future" if distance_ms > 0 else "past"
        raise BadRequest(
            f"{_shown(due_ms)} is more than 5 years in the {where}",
            code="InvalidScheduledFunctionDelay",
        )

    def _missing(self, path: str) -> str:
        module, name = split_path(path)
        if module not in self._app.plain_functions:
            return f"Attempted to schedule function at nonexistent path: {module}"
        return (
            f"Attempted to schedule function, but no exported function {name} found in the file: "
            f"{module}. Did you forget to export it?"
        )

    def _warn_of_size(self, path: str, size: int) -> None:
        most = self._limits.scheduled_call_bytes
        lines = LogLines.current() if size > most else None
        if lines is not None:
            lines.add(
                "WARN",
                f"The arguments of the scheduled function {path} are large (actual: "
                f"{format_size(size)}, recommended: at most {format_size(most)}).",
            )


def _count(transaction: Transaction, size: int) -> None:
    """Count a scheduled function as part of the transaction.

    Raises   BadRequest[TooManyFunctionsScheduled, ScheduledFunctionsArgumentsTooLarge]
    """
    usage, limits = transaction.usage, transaction.limits
    usage.scheduled_functions += 1
    usage.scheduled_bytes += size
    if usage.scheduled_functions > limits.scheduled_functions:
        raise BadRequest(
            f"Too many functions scheduled by this mutation (limit: {limits.scheduled_functions})",
            code="TooManyFunctionsScheduled",
        )
    if usage.scheduled_bytes > limits.scheduled_bytes:
        raise BadRequest(
            "Too large total size of the arguments of scheduled functions from this mutation "
            f"(limit: {limits.scheduled_bytes} bytes)",
            code="ScheduledFunctionsArgumentsTooLarge",
        )


def _not_a_job() -> BadRequest:
    return BadRequest(
        "Invalid scheduled function ID. The ID must be an ID on the '_scheduled_functions' table.",
        code="InvalidScheduledFunctionId",
    )


def _no_timedelta(given: object) -> str:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return (
            "run_after takes a timedelta, not a bare number, which does not say its unit: write "
            f"timedelta(seconds={given!r}) or timedelta(milliseconds={given!r})"
        )
    return f"run_after takes a timedelta such as timedelta(minutes=5), not {given!r}"


def _no_datetime(given: object) -> str:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return (
            "run_at takes a datetime, not a bare number, which does not say its unit: write "
            f"datetime.fromtimestamp({given!r}, UTC) for seconds since 1970"
        )
    return f"run_at takes a datetime with a time zone, such as datetime.now(UTC), not {given!r}"


def _shown(ms: float) -> str:
    try:
        return (_EPOCH + ms * _MILLISECOND).isoformat()
    except OverflowError:
        return f"{ms:.0f}"
