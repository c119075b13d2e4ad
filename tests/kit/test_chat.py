"""The simulated chat provider."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.kit.chat import ChatError, SimulatedChat


def _echo(system: str, prompt: str, rng: random.Random) -> str:
    return f"{system}|{prompt}|{rng.random()}"


def _instant(seed: int = 0) -> SimulatedChat:
    return SimulatedChat(_echo, delay_ms=(0, 0), seed=seed)


async def test_one_question_always_has_one_answer():
    assert await _instant().reply("s", "p") == await _instant().reply("s", "p")


async def test_question_and_seed_both_vary_the_answer():
    answers = {
        await _instant().reply("s", "p"),
        await _instant(seed=1).reply("s", "p"),
        await _instant().reply("s", "q"),
    }
    assert len(answers) == 3


@given(st.text())
def test_pieces_joined_are_the_reply_whatever_the_text(text: str):
    async def ask() -> None:
        chat = SimulatedChat(lambda _s, _p, _rng: text, delay_ms=(0, 0))
        pieces = [piece async for piece in chat.stream("", "")]
        assert "".join(pieces) == text == await chat.reply("", "")

    asyncio.run(ask())


async def test_long_answers_come_in_several_pieces():
    chat = SimulatedChat(lambda _s, _p, _rng: "one two three four", delay_ms=(0, 0))
    assert [piece async for piece in chat.stream("", "")] == ["one ", "two ", "three ", "four"]


async def test_an_answer_takes_at_least_the_lower_delay():
    chat = SimulatedChat(_echo, delay_ms=(30, 40))
    started = time.monotonic()
    await chat.reply("s", "several words to spread")
    assert time.monotonic() - started >= 0.025


async def test_what_the_apps_function_raises_reaches_the_caller():
    def refuse(_system: str, _prompt: str, _rng: random.Random) -> str:
        raise ChatError("no", reason="refused", may_retry=False)

    with pytest.raises(ChatError) as caught:
        await SimulatedChat(refuse, delay_ms=(0, 0)).reply("", "")
    assert (caught.value.reason, caught.value.may_retry) == ("refused", False)


@pytest.mark.parametrize("delay", [(-1, 5), (5, 1)])
def test_impossible_delays_are_refused(delay: tuple[float, float]):
    with pytest.raises(ValueError, match="delay_ms"):
        SimulatedChat(_echo, delay_ms=delay)


async def test_name_and_close():
    chat = _instant()
    assert chat.name == "simulator"
    await chat.close()
