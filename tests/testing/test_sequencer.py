"""Sequencer: numbered blocks run in order whichever tasks they are in."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.testing import Sequencer


@given(st.permutations(range(6)))
def test_blocks_run_in_the_order_of_their_numbers(order):
    async def scenario():
        step, seen = Sequencer(), []

        async def block(number: int) -> None:
            async with step(number):
                await asyncio.sleep(0)
                seen.append(number)

        await asyncio.gather(*map(block, order))
        assert seen == sorted(order)

    asyncio.run(scenario())


async def test_a_number_stands_for_one_block():
    step = Sequencer()
    async with step(0):
        pass
    with pytest.raises(RuntimeError, match="step 0 is taken"):
        async with step(0):
            pass


async def test_a_failed_block_ends_the_sequence_for_everybody():
    step = Sequencer()

    async def late() -> None:
        async with step(2):
            raise AssertionError("ran out of order")

    waiting = asyncio.create_task(late())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="mine"):
        async with step(0):
            raise ValueError("mine")
    with pytest.raises(RuntimeError, match="step 2 cannot happen"):
        await waiting
    with pytest.raises(RuntimeError, match="step 1 cannot happen"):
        async with step(1):
            pass
