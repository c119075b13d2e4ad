"""Handlers are on a clock: one that computes too long is interrupted, one that waits too long ends.

Queries and mutations run on the event loop, so a handler that never yields would stop everybody.
A watchdog thread looks every so often; when a step of a handler has used more than its share of
processor time, an exception is raised inside it, at the line where it is. Time spent waiting for
the disk or the scheduler is not computing, up to a factor that even a stalled machine stays under.
A step that keeps everybody waiting for longer than that, computing or not, stands in the log while
it does: it may be one that cannot be interrupted.
Waiting is bounded by a timer that exists only while a handler really waits.

Invariants
- An interruption never leaves the step it was meant for: whoever comes second, the watchdog that
  fires or the step that ends, sees what the first one wrote, and cleans up.
- A handler that swallows the interruption is interrupted again, and fails even if it returns. One
  that goes on swallowing is interrupted so densely that it meets one where it cannot.

Limits of the means: code that never returns to the interpreter (one huge power, one hopeless
regular expression) cannot be interrupted, and tasks a handler starts are not watched.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

from reactive_store.errors import BadRequest
from reactive_store.functions.names import display_path

__all__ = ["FunctionTimeout", "Metered", "Place", "Watchdog"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

_POLL_S = 0.1
_WALL_FACTOR = 5.0
_AGAIN_POLLS = 5  # an interruption that was swallowed is repeated after so many looks
_PATIENCE = 4  # interruptions that may be swallowed before they come densely
_DENSE_S = 1e-6
_INSIST_S = 0.5  # how long they do, at each look
_SWITCHING = threading.Lock()  # the interval belongs to the process: one watchdog at a time
_STALL_FACTOR = 3.0  # a step that lasts so many times its share is reported, and again at double
_STACK_FRAMES = 64


class Place(NamedTuple):
    """A line that was being executed."""

    function: str
    file: str
    line: int


class FunctionTimeout(BadRequest):
    """A handler computed or waited longer than it may. `stack` is where it was, innermost first."""

    code = "FunctionTimeout"

    def __init__(self, message: str, stack: tuple[Place, ...]) -> None:
        super().__init__(message)
        self.stack = stack


class _Interrupted(BaseException):
    """Raised inside a handler by the watchdog. Not an Exception: handlers must not swallow it."""


class Watchdog:
    """Interrupts the handler step that is computing for longer than `seconds`.

    One per event loop: a loop runs one handler step at a time. `clock` gives seconds that never go
    back; processor time is the operating system's own count for the thread.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        # The step under way: a fresh object per step, None between steps.
        self._step: object | None = None
        self._thread_id = 0
        # True from claiming a step to interrupt until that step has left. Written before the step
        # is looked at again, as `leave` clears the step before it looks here: one of the two sees
        # the other.
        self._fired = False
        # Where the interrupted step was, innermost line first.
        self.stack: tuple[Place, ...] = ()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin watching; a daemon thread that sleeps nearly always."""
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Idempotent."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def enter(self) -> None:
        """A handler step begins on this thread."""
        self._thread_id = threading.get_ident()
        self._step = object()

    def leave(self) -> bool:
        """The step ended. Whether it was interrupted; `stack` then says where. Idempotent."""
        while True:
            try:
                self._step = None
                if not self._fired:
                    return False
                with self._lock:
                    _raise_in(self._thread_id, None)  # what has not arrived must not any more
                    was_interrupted, self._fired = self._fired, False
            except _Interrupted:  # it arrived just now, with the step already over
                continue
            return was_interrupted

    def _watch(self) -> None:
        seen: object | None = None
        seen_cpu = seen_wall = 0.0
        overdue = 0  # looks since the step's time was up
        report_s = 0.0  # how long the step may last before the log says so
        poll_s = min(_POLL_S, self.seconds / 4)
        while not self._stopped.wait(poll_s):
            step = self._step
            if step is None:
                seen = None
                continue
            cpu, wall = self._thread_cpu_s(), self._clock()
            if step is not seen:
                seen, seen_cpu, seen_wall, overdue = step, cpu, wall, 0
                report_s = self.seconds * _STALL_FACTOR
                continue
            if wall - seen_wall >= report_s:
                report_s *= 2
                self._report(step, wall - seen_wall)
            if cpu - seen_cpu < self.seconds and wall - seen_wall < self.seconds * _WALL_FACTOR:
                continue
            if overdue >= _AGAIN_POLLS * _PATIENCE:
                self._insist(step)
            elif overdue % _AGAIN_POLLS == 0:
                self._interrupt(step)
            overdue += 1

    def _interrupt(self, step: object) -> None:
        with self._lock:
            is_first, self._fired = not self._fired, True
            if self._step is not step:  # it has ended meanwhile
                if is_first:
                    self._fired = False
                return
            if is_first:
                self.stack = _stack_of(sys._current_frames().get(self._thread_id))
            _raise_in(self._thread_id, _Interrupted)

    def _insist(self, step: object) -> None:
        """Interrupt a step that swallows interruptions so densely that one meets it outside `try`.

        Threads take turns at nearly every instruction meanwhile; everybody waits for it anyway.
        """
        with _SWITCHING:
            usual_s = sys.getswitchinterval()
            sys.setswitchinterval(_DENSE_S)
            try:
                end = self._clock() + _INSIST_S
                while self._step is step and self._clock() < end:
                    self._interrupt(step)
                    time.sleep(0)  # lets the step run into it
            finally:
                sys.setswitchinterval(usual_s)

    def _report(self, step: object, seconds: float) -> None:
        stack = _stack_of(sys._current_frames().get(self._thread_id))
        if self._step is step and stack:
            places = [f"{each.file}:{each.line} ({each.function})" for each in stack]
            _LOG.warning(
                "a function has kept everybody waiting for %.1f s and still does: %s",
                seconds,
                ", called from ".join(places),
            )

    def _thread_cpu_s(self) -> float:
        if sys.platform == "win32":
            return self._clock()
        try:
            return time.clock_gettime(time.pthread_getcpuclockid(self._thread_id))
        except (AttributeError, OSError):  # not every platform has per-thread clocks
            return self._clock()


def _raise_in(thread_id: int, exception: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_id), None if exception is None else ctypes.py_object(exception)
    )


def _stack_of(frame: FrameType | None) -> tuple[Place, ...]:
    """The lines from a frame outwards, as far as the step that is being metered."""
    places: list[Place] = []
    while frame is not None and len(places) < _STACK_FRAMES:
        code = frame.f_code
        if code.co_filename == __file__:
            break
        places.append(Place(code.co_name, code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(places)


def _waiting_stack(coroutine: Any) -> tuple[Place, ...]:
    """The lines where a suspended coroutine, and those it awaits, are waiting."""
    places: list[Place] = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        places.append(Place(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno))
        coroutine = coroutine.cr_await
    return tuple(reversed(places))


class Metered(Generic[T]):
    """Awaits a handler under the watchdog and, once it waits, under a time limit.

    Cost     about 1 µs for a handler that never waits
    Raises   FunctionTimeout naming the function, with the line; BadRequest[FunctionExited,
             FunctionCancelled] for a handler that would end the process or its task: they are
             not its to end
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
        self._path = path  # canonical
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
                except Exception:
                    raise
                except BaseException as error:
                    # What came from outside and only passed through the handler goes on. That a
                    # task the handler waited for was cancelled comes from outside too, but means
                    # nothing to this task.
                    is_own_child = isinstance(error, asyncio.CancelledError)
                    if _is_being_cancelled() or (error is raised and not is_own_child):
                        raise
                    raise self._not_its_own(error) from error
                if deadline is None:
                    deadline = _Deadline(self._seconds, coroutine)
                try:
                    sent, raised = (yield waits_for), None
                except asyncio.CancelledError as cancelled:
                    if deadline.take():
                        self._close(coroutine)
                        raise self._timeout(self._seconds, deadline.stack) from None
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
            try:
                return coroutine.send(sent) if raised is None else coroutine.throw(raised)
            finally:
                if watchdog.leave():
                    # In place of whatever the step ended with: a handler that swallowed the
                    # interruption has used up its time all the same.
                    raise _Interrupted
        except _Interrupted:
            watchdog.leave()  # it may have come in the very act of leaving
            stack = watchdog.stack
            self._close(coroutine)
            raise self._timeout(watchdog.seconds, stack) from None

    def _close(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """End a coroutine that ran out of time, its clean-up under the watchdog too."""
        watchdog = self._watchdog
        try:
            if watchdog is None:
                coroutine.close()
                return
            watchdog.enter()
            try:
                coroutine.close()
            finally:
                watchdog.leave()
        except (Exception, _Interrupted):  # noqa: BLE001 - it had its chance; the timeout is told
            if watchdog is not None:
                watchdog.leave()

    def _not_its_own(self, error: BaseException) -> BadRequest:
        """What a handler's exception that would end more than the call becomes."""
        path = display_path(self._path)
        if isinstance(error, asyncio.CancelledError):
            return BadRequest(
                f"{path} was cancelled by its own code: a CancelledError left it.",
                code="FunctionCancelled",
            )
        return BadRequest(
            f"{path} tried to exit the process: {type(error).__name__} left it.",
            code="FunctionExited",
        )

    def _timeout(self, seconds: float, stack: tuple[Place, ...]) -> FunctionTimeout:
        return FunctionTimeout(
            f"Function execution timed out (maximum duration: {seconds:g}s): "
            f"{display_path(self._path)}",
            stack,
        )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Deadline:
    """Cancels the task that created it after a while, and can tell that it did."""

    __slots__ = ("_cancelling", "_coroutine", "_fired", "_handle", "_task", "stack")

    def __init__(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._coroutine = coroutine
        self._fired = False
        self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)
        self.stack: tuple[Place, ...] = ()  # where the coroutine was waiting when time was up

    def _fire(self) -> None:
        self._fired = True
        self.stack = _waiting_stack(self._coroutine)
        if self._task is not None:
            self._task.cancel()

    def take(self) -> bool:
        """Whether the cancellation that arrived is ours alone; if so it is taken back."""
        if self._fired and self._task is not None:
            self._fired = False
            return self._task.uncancel() <= self._cancelling
        return False

    def cancel(self) -> None:
        self._handle.cancel()
