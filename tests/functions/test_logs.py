"""Lines printed inside functions."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.functions.logs import LogCapture, LogLines, captured_print
from reactive_store.limits import Limits
from tests.functions.running import Running

APP = """
import logging

@query
async def shown(ctx):
    print("a", 1, None, True, [1, "b"], 1.5)
    print("it's")

@query
async def nested(ctx):
    print("before")
    await ctx.run_query("m:shown")
    await asyncio.gather(inner("x"), inner("y"))

async def inner(text):
    print(text)

@query
async def logged(ctx):
    logging.getLogger("app").warning("%s of %s", 1, 2)
    logging.getLogger("app").error("bad")
    logging.getLogger("reactive_store.engine").warning("ours")

@query
async def badly_logged(ctx):
    logging.getLogger("app").warning("%d", "x")
    return "fine"

@mutation
async def broken_text(ctx):
    print("half \\ud83d")
    return "fine"

@query
async def much(ctx, count: int):
    for n in range(count):
        print(n)

@query
async def long(ctx):
    print("x" * 100)
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, APP) as running:
        yield running


async def lines(store: Running, path: str, **args: Any) -> tuple[str, ...]:
    return (await store.outcome("query", path, args, ANONYMOUS)).log_lines


async def test_each_argument_is_inspected(store: Running):
    assert await lines(store, "shown") == (
        "[LOG] 'a' 1 null true [1, 'b'] 1.5",
        "[LOG] 'it\\'s'",
    )


async def test_nested_calls_and_tasks_print_into_the_outermost_lines(store: Running):
    got = await lines(store, "nested")
    assert (got[0], got[1], *sorted(got[3:])) == (
        "[LOG] 'before'", "[LOG] 'a' 1 null true [1, 'b'] 1.5", "[LOG] 'x'", "[LOG] 'y'",
    )  # fmt: skip


async def test_logging_becomes_lines_with_its_level(store: Running):
    assert await lines(store, "logged") == ("[WARN] '1 of 2'", "[ERROR] 'bad'")


async def test_a_wrong_format_does_not_fail_the_function(
    store: Running, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    assert await store.query("badlyLogged") == "fine"


async def test_half_a_character_does_not_break_anything(store: Running):
    outcome = await store.outcome("mutation", "brokenText", {}, ANONYMOUS)
    assert outcome.log_lines == ("[LOG] 'half ?'",)


async def test_the_line_after_the_last_allowed_one_says_so(store: Running):
    assert len(await lines(store, "much", count=256)) == 256
    got = await lines(store, "much", count=300)
    assert len(got) == 257
    assert got[255] == "[LOG] 255"
    assert got[256] == "[ERROR] Log overflow (maximum 256). Remaining log lines omitted."


async def test_a_long_line_is_cut(tmp_path: Path):
    async with Running.open(tmp_path, APP, limits=replace(Limits(), log_line_chars=10)) as store:
        assert await lines(store, "long") == ("[LOG] 'xxxxxxxxx (truncated due to length)",)


def test_outside_of_calls_print_prints(capsys: pytest.CaptureFixture[str]):
    captured_print("hello", "world", sep="-")
    assert capsys.readouterr().out == "hello-world\n"


def test_print_to_a_file_is_left_alone(capsys: pytest.CaptureFixture[str]):
    import sys

    collected = LogLines(Limits())
    token = collected.activate()
    captured_print("hello", file=sys.stderr)
    LogLines.deactivate(token)
    assert capsys.readouterr().err == "hello\n"
    assert collected.lines() == ()


def test_lines_can_be_forgotten_from_a_point_on():
    collected = LogLines(Limits())
    collected.add("LOG", "1")
    position = collected.position
    collected.add("LOG", "2")
    collected.rollback(position)
    collected.add("WARN", "3")
    assert collected.lines() == ("[LOG] 1", "[WARN] 3")


def test_being_the_only_handler_does_not_silence_warnings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Python prints warnings when no handler is there; embedding us must not end that."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    LogCapture.install()
    LogCapture.install()
    assert len(root.handlers) == 1
    logging.getLogger("reactive_store.engine").critical("the disk is gone")
    logging.getLogger("app").info("not this")
    assert capsys.readouterr().err == "the disk is gone\n"


def test_with_other_handlers_ours_leaves_records_to_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    LogCapture.install()
    logging.getLogger("app").critical("theirs")
    assert capsys.readouterr().err == ""
