"""The watchdog over a real loop: spinning handlers end, nobody else notices for long."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactive_store.errors import BadRequest
from reactive_store.functions.metering import FunctionTimeout, Metered, Watchdog
from reactive_store.limits import Limits
from tests.functions.running import FailedCall, Running

SOON = replace(Limits(), compute_seconds=0.1)


@pytest.fixture
def watchdog():
    dog = Watchdog(0.05, time.monotonic)
    dog.start()
    yield dog
    dog.stop()


def metered(coroutine: Any, watchdog: Watchdog | None, seconds: float = 5.0) -> Metered[Any]:
    return Metered(coroutine, path="m.js:f", watchdog=watchdog, seconds=seconds)


async def spin(seconds: float = 20.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


async def test_a_result_passes_through(watchdog: Watchdog):
    async def handler() -> int:
        await asyncio.sleep(0)
        return 7

    assert await metered(handler(), watchdog) == 7


async def test_an_exception_passes_through(watchdog: Watchdog):
    async def handler() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await metered(handler(), watchdog)


async def test_a_spinning_handler_is_interrupted_and_its_line_known(watchdog: Watchdog):
    with pytest.raises(FunctionTimeout) as caught:
        await metered(spin(), watchdog)
    assert caught.value.message == "Function execution timed out (maximum duration: 0.05s): m:f"
    place = caught.value.stack[0]
    assert (place.function, Path(place.file).name) == ("spin", "test_metering.py")


async def test_the_clean_up_of_an_interrupted_handler_runs(watchdog: Watchdog):
    seen = []

    async def handler() -> None:
        try:
            await spin()
        finally:
            seen.append("cleaned")

    with pytest.raises(FunctionTimeout):
        await metered(handler(), watchdog)
    assert seen == ["cleaned"]


async def test_a_handler_that_swallows_exceptions_is_interrupted(watchdog: Watchdog):
    async def handler() -> str:
        while True:
            try:
                await spin()
            except Exception:
                continue

    with pytest.raises(FunctionTimeout):
        await metered(handler(), watchdog)


async def test_a_handler_that_swallows_everything_once_fails_all_the_same(watchdog: Watchdog):
    async def handler() -> str:
        with contextlib.suppress(BaseException):
            await spin()
        return "as if nothing had happened"

    with pytest.raises(FunctionTimeout) as caught:
        await metered(handler(), watchdog)
    assert caught.value.stack[0].function == "spin"


async def test_a_handler_that_swallows_everything_and_goes_on_is_interrupted_again(
    watchdog: Watchdog,
):
    rounds = 0

    async def handler() -> None:
        nonlocal rounds
        while rounds < 3:
            rounds += 1
            with contextlib.suppress(BaseException):
                await spin()

    with pytest.raises(FunctionTimeout):
        await metered(handler(), watchdog)
    assert rounds == 3


async def test_a_handler_that_swallows_everything_for_ever_ends(watchdog: Watchdog):
    def work() -> int:
        return sum(range(50))

    async def handler() -> None:
        while True:
            try:
                for _ in range(20):
                    work()
            except BaseException:
                continue

    usual_s = sys.getswitchinterval()
    with pytest.raises(FunctionTimeout):
        await metered(handler(), watchdog)
    watchdog.stop()  # waits for its thread
    assert sys.getswitchinterval() == usual_s


async def test_a_handler_that_waits_after_swallowing_does_not_go_on(watchdog: Watchdog):
    reached = []

    async def handler() -> None:
        with contextlib.suppress(BaseException):
            await spin()
        await asyncio.sleep(0)
        reached.append("later")

    with pytest.raises(FunctionTimeout):
        await metered(handler(), watchdog)
    await asyncio.sleep(0.01)
    assert reached == []


async def test_computing_in_short_steps_is_not_too_long(watchdog: Watchdog):
    async def handler() -> str:
        for _ in range(20):
            await spin(0.01)
            await asyncio.sleep(0)
        return "done"

    assert await metered(handler(), watchdog) == "done"


async def test_clean_up_that_spins_is_interrupted_too(watchdog: Watchdog):
    async def handler() -> None:
        try:
            await spin()
        finally:
            await spin()

    began = time.monotonic()
    with pytest.raises(FunctionTimeout):
        await metered(handler(), watchdog)
    assert time.monotonic() - began < 5


async def test_waiting_too_long_ends_the_handler_and_names_the_line():
    cleaned = []

    async def inner() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    async def handler() -> None:
        await inner()

    with pytest.raises(FunctionTimeout) as caught:
        await metered(handler(), None, 0.02)
    assert "maximum duration: 0.02s" in caught.value.message
    assert [place.function for place in caught.value.stack][-2:] == ["inner", "handler"]
    assert cleaned == [True]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_reaches_the_handler():
    seen = []

    async def handler() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def call() -> None:
        await metered(handler(), None)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_a_cancellation_that_meets_the_time_limit_is_not_lost():
    async def handler() -> None:
        await asyncio.sleep(60)

    async def call() -> None:
        await metered(handler(), None, 0.02)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    time.sleep(0.05)  # the limit is past when both reach the loop
    task.cancel()
    with pytest.raises((asyncio.CancelledError, FunctionTimeout)):
        await task
    assert task.cancelled()


async def test_a_handler_that_exits_the_process_only_fails(watchdog: Watchdog):
    async def handler() -> None:
        raise SystemExit(3)

    with pytest.raises(BadRequest, match="tried to exit the process"):
        await metered(handler(), watchdog)


class _Eager(Watchdog):
    """Fires at whatever step is under way, over and over, at moments of its own choosing."""

    def _watch(self) -> None:
        dice = random.Random(1)
        while not self._stopped.is_set():
            step = self._step
            if step is not None:
                for _ in range(dice.randrange(60)):
                    pass
                self._interrupt(step)


async def test_an_interruption_never_escapes_the_step_it_was_meant_for():
    """Thousands of short steps, interrupted at any moment, also in the very act of leaving."""
    watchdog = _Eager(1.0, time.monotonic)
    watchdog.start()
    timeouts = finished = 0

    async def handler(length: int) -> None:
        for _ in range(length):
            pass

    try:
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < 3.0:
            number += 1
            try:
                await metered(handler(number % 4000), watchdog)
                finished += 1
            except FunctionTimeout:
                timeouts += 1
            for _ in range(50):  # where an escaped interruption would show
                pass
    finally:
        watchdog.stop()
    assert timeouts > 20
    assert finished > 20


class _Racing(Watchdog):
    """While it looks whether the step is still there, `on_look` happens; it sees the old answer."""

    def __init__(self) -> None:
        self._value: object | None = None
        self.on_look: Callable[[], None] | None = None
        super().__init__(1.0, time.monotonic)

    @property
    def _step(self) -> object | None:  # type: ignore[override]
        value, hook = self._value, self.on_look
        if hook is not None:
            self.on_look = None
            hook()
        return value

    @_step.setter
    def _step(self, value: object | None) -> None:
        self._value = value


def test_a_step_that_ends_while_it_is_being_interrupted_takes_the_interruption_along():
    watchdog = _Racing()
    entered, ends = threading.Event(), threading.Event()
    answers: list[Any] = []

    def step() -> None:
        try:
            watchdog.enter()
            entered.set()
            ends.wait()
            answers.append(watchdog.leave())
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                pass
        except BaseException as escaped:
            answers.append(escaped)

    def while_looking() -> None:
        ends.set()
        time.sleep(0.1)  # the step leaves, as far as it can

    thread = threading.Thread(target=step)
    thread.start()
    entered.wait()
    watchdog.on_look = while_looking
    watchdog._interrupt(watchdog._value)  # type: ignore[arg-type]
    thread.join()
    assert answers == [True]


def test_a_step_that_has_ended_is_not_interrupted():
    watchdog = _Racing()
    watchdog.enter()
    step = watchdog._value
    assert watchdog.leave() is False
    assert step is not None
    watchdog._interrupt(step)
    watchdog.enter()
    assert watchdog.leave() is False


async def test_a_step_that_cannot_be_interrupted_is_reported_while_it_lasts(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
):
    said_meanwhile: list[str] = []

    async def handler() -> None:
        try:
            time.sleep(0.5)
        finally:  # the interruption is waiting here
            said_meanwhile.extend(caplog.messages)

    with contextlib.suppress(FunctionTimeout):
        await metered(handler(), watchdog)
    assert said_meanwhile == caplog.messages
    assert len(said_meanwhile) == 2  # at three times the 50 ms it has, and at twice that
    for message in said_meanwhile:
        assert message.startswith("a function has kept everybody waiting for 0.")
        assert f"{__file__}:" in message
        assert "(handler)" in message


async def test_a_step_that_is_not_much_too_long_is_not_reported(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
):
    async def handler() -> None:
        time.sleep(0.08)

    await metered(handler(), watchdog)
    assert caplog.messages == []


async def test_stopping_joins_the_thread():
    before = threading.active_count()
    watchdog = Watchdog(1.0, time.monotonic)
    watchdog.start()
    watchdog.stop()
    watchdog.stop()
    assert threading.active_count() == before


LOOPS = """
@query
async def spin(ctx):
    n = 0
    while True:
        n += 1

@query
async def quick(ctx) -> str:
    return "here"

@mutation
async def wait(ctx):
    await asyncio.sleep(30)

@action
async def compute(ctx) -> str:
    import time
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        pass
    return "computed"
"""


async def test_others_are_served_after_a_handler_was_interrupted(tmp_path: Path):
    async with Running.open(tmp_path, {"loops": LOOPS}, limits=SOON) as store:
        spinning = asyncio.create_task(store.query("loops:spin"))
        await asyncio.sleep(0)
        assert await store.query("loops:quick") == "here"
        with pytest.raises(FailedCall) as caught:
            await spinning
        first, frame, rest = caught.value.failure.message.split("\n", 2)
        assert first == (
            "Uncaught Error: Function execution timed out (maximum duration: 0.1s): loops:spin"
        )
        assert frame in {f"    at spin (functions/loops.py:{line})" for line in (9, 10)}
        assert rest == ""
        assert await store.query("loops:quick") == "here"


async def test_a_mutation_that_waits_too_long_ends(tmp_path: Path):
    limits = replace(Limits(), mutation_seconds=0.05)
    async with Running.open(tmp_path, {"loops": LOOPS}, limits=limits) as store:
        with pytest.raises(FailedCall, match=r"maximum duration: 0\.05s\): loops:wait\n"):
            await store.mutation("loops:wait")


async def test_actions_may_compute_as_long_as_they_like(tmp_path: Path):
    async with Running.open(tmp_path, {"loops": LOOPS}, limits=SOON) as store:
        assert await store.action("loops:compute") == "computed"


@pytest.mark.parametrize("ending", [KeyboardInterrupt, GeneratorExit, BaseException])
async def test_what_would_end_more_than_the_call_ends_the_call(
    watchdog: Watchdog, ending: type[BaseException]
):
    async def handler() -> None:
        raise ending

    with pytest.raises(BadRequest, match=f"tried to exit the process: {ending.__name__}"):
        await metered(handler(), watchdog)


async def test_a_cancellation_of_the_handlers_own_making_is_an_error_of_the_call(
    watchdog: Watchdog,
):
    async def handler() -> None:
        child = asyncio.ensure_future(asyncio.sleep(60))
        await asyncio.sleep(0)
        child.cancel()
        await child

    with pytest.raises(BadRequest, match="was cancelled by its own code"):
        await metered(handler(), watchdog)


async def test_a_cancellation_from_outside_passes_through(watchdog: Watchdog):
    async def handler() -> None:
        await asyncio.sleep(60)

    task = asyncio.ensure_future(metered(handler(), watchdog))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
