"""Handlers are on a clock: one that computes too long is interrupted, one that waits too long ends.

Queries and mutations run on the event loop, so a handler that never yields would stop everybody.
A watchdog thread looks every so often; when a step of a handler has used more than its share of
processor time, an exception is raised inside it, at the line where it is. Time spent waiting for
the disk or the scheduler is not computing, up to a factor that even a stalled machine stays under.

Waiting is bounded by a timer that exists only while a handler really waits.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
from collections.abc import Coroutine, Generator
from types import FrameType
from typing import Any, Generic, TypeVar

from reactive_store.errors import BadRequest

__all__ = ["Metered", "Watchdog"]

T = TypeVar("T")

_POLL_S = 0.1
_WALL_FACTOR = 5.0


class _Interrupted(BaseException):
    """Raised inside a handler by the watchdog. Not an Exception: handlers must not swallow it."""


class Watchdog:
    """Interrupts the handler step that is computing for longer than `seconds`.

    One per process is enough: one loop runs one handler step at a time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        # The step under way: a fresh object per step, None between steps.
        self._step: object | None = None
        self._thread_id = 0
        # True from interrupting a step until that step has left.
        self._fired = False
        # Where the interrupted step was, for the error text.
        self._place = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin watching; a daemon thread that sleeps nearly always."""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def enter(self) -> None:
        """A handler step begins on this thread."""
        self._thread_id = threading.get_ident()
        self._step = object()

    def leave(self) -> str | None:
        """The step ended. Returns where it was interrupted, or None."""
        try:
            return self._leave()
        except _Interrupted:  # it arrived just now, with the step already over
            return self._leave()

    def _leave(self) -> str | None:
        self._step = None
        if not self._fired:
            return None
        with self._lock:
            _raise_in(self._thread_id, None)  # if it has not arrived yet, it must not any more
            self._fired = False
            return self._place

    def _watch(self) -> None:
        seen: object | None = None
        seen_cpu = seen_wall = 0.0
        while not self._stopped.wait(_POLL_S):
            step = self._step
            if step is None:
                seen = None
                continue
            cpu, wall = _thread_cpu_s(self._thread_id), time.monotonic()
            if step is not seen:
                seen, seen_cpu, seen_wall = step, cpu, wall
                continue
            if cpu - seen_cpu < self.seconds and wall - seen_wall < self.seconds * _WALL_FACTOR:
                continue
            with self._lock:
                if self._step is step and not self._fired:
                    self._place = _place_of(sys._current_frames().get(self._thread_id))
                    self._fired = True
                    _raise_in(self._thread_id, _Interrupted)
                    seen = None


def _raise_in(thread_id: int, exception: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_id), None if exception is None else ctypes.py_object(exception)
    )


def _thread_cpu_s(thread_id: int) -> float:
    if sys.platform == "win32":
        return time.monotonic()
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread_id))
    except (AttributeError, OSError):  # not every platform has per-thread clocks
        return time.monotonic()


def _place_of(frame: FrameType | None) -> str:
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Metered(Generic[T]):
    """Awaits a handler under the watchdog and, once it waits, under a time limit.

    Cost     about 1 µs for a handler that never waits
    Raises   BadRequest[FunctionTimeout] naming the function and, when known, the line
    """

    __slots__ = ("_coroutine", "_path", "_seconds", "_watchdog")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        path: str,
        watchdog: Watchdog | None,
        seconds: float,
    ) -> None:
        self._coroutine = coroutine
        self._path = path  # as users read it
        self._watchdog = watchdog  # None: may compute as long as it likes (actions)
        self._seconds = seconds  # how long it may wait, from the first wait on

    def __await__(self) -> Generator[Any, Any, T]:
        coroutine = self._coroutine
        deadline: _Deadline | None = None
        sent: Any = None
        raised: BaseException | None = None
        try:
            while True:
                try:
                    waits_for = self._step(coroutine, sent, raised)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]
                if deadline is None:
                    deadline = _Deadline(self._seconds)
                try:
                    sent, raised = (yield waits_for), None
                except asyncio.CancelledError as cancelled:
                    if deadline.take():
                        coroutine.close()
                        raise self._timeout(self._seconds, "") from None
                    sent, raised = None, cancelled
                except BaseException as error:  # noqa: BLE001 - handed on to the handler as it is
                    sent, raised = None, error
        finally:
            if deadline is not None:
                deadline.cancel()

    def _step(
        self, coroutine: Coroutine[Any, Any, T], sent: Any, raised: BaseException | None
    ) -> Any:
        watchdog = self._watchdog
        if watchdog is None:
            return coroutine.send(sent) if raised is None else coroutine.throw(raised)
        watchdog.enter()
        try:
            return coroutine.send(sent) if raised is None else coroutine.throw(raised)
        except _Interrupted:
            place = watchdog.leave()
            raise self._timeout(watchdog.seconds, place or "") from None
        finally:
            watchdog.leave()

    def _timeout(self, seconds: float, place: str) -> BadRequest:
        where = f" It was at {place}." if place else ""
        return BadRequest(
            f"Function execution timed out (maximum duration: {seconds:g}s): {self._path}.{where}",
            code="FunctionTimeout",
        )


class _Deadline:
    """Cancels the task that created it after a while, and can tell that it did."""

    __slots__ = ("_fired", "_handle", "_task")

    def __init__(self, seconds: float) -> None:
        self._task = asyncio.current_task()
        self._fired = False
        self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._fired = True
        if self._task is not None:
            self._task.cancel()

    def take(self) -> bool:
        """Whether the cancellation that arrived is ours; if so it is taken back."""
        if self._fired and self._task is not None:
            self._task.uncancel()
            return True
        return False

    def cancel(self) -> None:
        self._handle.cancel()
