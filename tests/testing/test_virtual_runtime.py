"""Virtual time: sleepers wake in order, at their own instants, and only by `advance`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.testing import VirtualRuntime
from reactive_store.testing.virtual_runtime import START


def test_time_starts_at_the_start_and_stands():
    runtime = VirtualRuntime()
    assert runtime.now_ns() == int(START.timestamp()) * 10**9
    assert runtime.now_ns() == runtime.now_ns()
    assert runtime.monotonic_s() == 0.0


@given(st.lists(st.integers(1, 20), max_size=8), st.lists(st.integers(0, 12), max_size=6))
def test_sleepers_wake_in_order_of_deadlines_at_their_own_instants(sleeps, steps):
    async def scenario():
        runtime = VirtualRuntime()
        woken: list[tuple[float, int]] = []

        async def sleeper(number: int, seconds: int) -> None:
            await runtime.sleep(seconds)
            woken.append((runtime.monotonic_s(), number))

        tasks = [runtime.spawn(sleeper(*pair), name="s") for pair in enumerate(sleeps)]
        moved = 0
        for step in steps:
            await runtime.advance(timedelta(seconds=step))
            moved += step
            due = sorted((s, n) for n, s in enumerate(sleeps) if s <= moved)
            assert woken == due
            assert runtime.monotonic_s() == moved
        await runtime.advance(timedelta(seconds=100))
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


async def test_one_advance_wakes_a_repeating_sleeper_every_time():
    runtime = VirtualRuntime()
    seen: list[float] = []

    async def tick() -> None:
        while True:
            await runtime.sleep(10)
            seen.append(runtime.monotonic_s())

    task = runtime.spawn(tick(), name="tick")
    await runtime.advance(timedelta(seconds=35))
    assert seen == [10, 20, 30]
    task.cancel()


async def test_a_woken_sleeper_may_do_several_steps_before_the_clock_goes_on():
    runtime = VirtualRuntime()
    seen: list[float] = []

    async def work() -> None:
        await runtime.sleep(1)
        for _ in range(20):
            await asyncio.sleep(0)
        seen.append(runtime.monotonic_s())

    task = runtime.spawn(work(), name="work")
    await runtime.advance(timedelta(seconds=5))
    await task
    assert seen == [1]


async def test_a_cancelled_sleeper_is_forgotten():
    runtime = VirtualRuntime()
    task = runtime.spawn(runtime.sleep(1), name="s")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await runtime.advance(timedelta(seconds=2))
    assert runtime.monotonic_s() == 2


async def test_a_sleeper_cancelled_by_one_that_wakes_at_the_same_instant_is_passed_over():
    runtime = VirtualRuntime()
    sleepers: list[asyncio.Task[None]] = []

    async def canceller() -> None:
        await runtime.sleep(1)
        sleepers[1].cancel()

    sleepers.append(runtime.spawn(canceller(), name="canceller"))
    await asyncio.sleep(0)
    sleepers.append(runtime.spawn(runtime.sleep(1), name="cancelled"))
    await asyncio.sleep(0)
    await runtime.advance(timedelta(seconds=2))
    assert runtime.monotonic_s() == 2
    assert sleepers[1].cancelled()


async def test_sleep_zero_needs_no_advance():
    await asyncio.wait_for(VirtualRuntime().sleep(0), 1)


async def test_advance_takes_a_duration_forward():
    runtime = VirtualRuntime()
    with pytest.raises(TypeError, match=r"timedelta\(seconds=60\)"):
        await runtime.advance(60)
    with pytest.raises(ValueError, match="back"):
        await runtime.advance(timedelta(seconds=-1))


def test_a_seed_gives_one_stream():
    def stream(seed: int):
        runtime = VirtualRuntime(seed=seed)
        return runtime.random_bytes(8), runtime.random_generator().random()

    assert stream(3) == stream(3)
    assert stream(3) != stream(4)
