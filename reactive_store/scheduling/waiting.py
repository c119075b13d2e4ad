"""How a loop waits: for a commit that touches what it has read, or for an instant. Never by asking.

Also how it insists: what fails for a reason that may pass is tried again, less and less often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from reactive_store.engine.database import Database
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import Retry, StoreFailed
from reactive_store.runtime import Runtime

__all__ = ["Alarm", "Withdrawn", "end_all", "insist", "is_due", "run_to_the_end"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

# The clock of sleeping stands still while a computer sleeps and does not follow a clock that is
# set: no sleep is longer than this, so that such a jump delays nothing for longer.
_LONGEST_SLEEP_S: Final = 3600.0

# Instants are floats of milliseconds, which today are exact to a quarter of a microsecond.
_SAME_INSTANT_MS: Final = 0.001

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 60.0


class Withdrawn(Retry):
    """What was to be run is not wanted any more; nothing happened."""


class Alarm:
    """What one loop waits on."""

    __slots__ = ("_bell", "_database", "_is_waiting", "_runtime")

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._runtime = runtime
        self._bell = asyncio.Event()
        # True while `wait` is under way, from when it is certain to end at its instant.
        self._is_waiting = False

    @property
    def is_quiet(self) -> bool:
        """Whether the loop waits and nothing has rung yet."""
        return self._is_waiting and not self._bell.is_set()

    def ring(self) -> None:
        """End the wait; or the next one, when none is under way."""
        self._bell.set()

    async def wait(self, transaction: Transaction, until_ms: float | None) -> None:
        """Until a commit touches what `transaction` has read, or until an instant (Unix ms).

        May end too early, in particular when the instant is far away.
        """
        subscription = self._database.subscribe(
            transaction.read_set(), transaction.begin_ts, self._on_touched
        )
        if isinstance(subscription, int):
            return
        sleeper: asyncio.Task[None] | None = None
        if until_ms is None:
            self._is_waiting = True
        else:
            seconds = (until_ms - self._runtime.now_ns() / 1e6) / 1e3
            sleeper = self._runtime.spawn(
                self._ring_after(min(seconds, _LONGEST_SLEEP_S)), name="alarm"
            )
        try:
            await self._bell.wait()
        finally:
            self._is_waiting = False
            self._bell.clear()
            self._database.cancel(subscription)
            if sleeper is not None:
                sleeper.cancel()

    def _on_touched(self, _ts: int) -> None:
        self._bell.set()

    async def _ring_after(self, seconds: float) -> None:
        self._is_waiting = True
        await self._runtime.sleep(seconds)
        self._bell.set()


def is_due(due_ms: float, runtime: Runtime) -> bool:
    """Whether an instant (Unix ms) has come."""
    return due_ms <= runtime.now_ns() / 1e6 + _SAME_INSTANT_MS


async def run_to_the_end(
    do_round: Callable[[], Awaitable[None]], database: Database, runtime: Runtime, *, name: str
) -> None:
    """Go round for ever, until cancelled or until the disk has failed; no error ends the loop."""
    pause_s = _FIRST_PAUSE_S
    while database.failure is None:
        try:
            await do_round()
            pause_s = _FIRST_PAUSE_S
        except StoreFailed:
            return
        except Exception as error:  # noqa: BLE001 - the boundary that owns failures of a loop
            level = logging.DEBUG if isinstance(error, Retry) else logging.ERROR
            _LOG.log(level, "the loop of %s goes on after %r", name, error, exc_info=True)
            await runtime.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def end_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel what still runs and wait for its end."""
    running = list(tasks)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def insist(
    attempt: Callable[[], Awaitable[T]],
    runtime: Runtime,
    *,
    what: str,
    first_s: float,
    longest_s: float,
) -> T:
    """Call `attempt` until it succeeds, with pauses that double up to a limit.

    For what must happen in the end: commits that lose races, a store that is full for now.

    Raises   Withdrawn, StoreFailed
    """
    pause_s = first_s
    while True:
        try:
            return await attempt()
        except (Withdrawn, StoreFailed):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary that owns failures of jobs
            level = logging.WARNING if isinstance(error, Retry) else logging.ERROR
            _LOG.log(
                level,
                "%s: tried again in %.1f s: %s",
                what,
                pause_s,
                error,
                exc_info=level == logging.ERROR,
            )
        # Jitter, so that those who met once do not meet again.
        await runtime.sleep(pause_s * (0.5 + runtime.random_bytes(1)[0] / 512))
        pause_s = min(2 * pause_s, longest_s)
