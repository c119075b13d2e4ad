"""How failures read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.errors import BadRequest, ConvexError
from reactive_store.functions.metering import FunctionTimeout, Place
from reactive_store.functions.outcome import (
    Failure,
    RefusedCall,
    client_message,
    failure_of,
    shown_place,
)
from reactive_store.limits import Limits
from reactive_store.values.value import Int64
from tests.functions.running import Running

LIMITS = Limits()


def raised(error: Exception) -> Failure:
    try:
        raise error
    except Exception as caught:
        return failure_of(caught, (), LIMITS, root=Path(__file__).parent)


def test_an_exception_is_named_with_its_text_and_its_line():
    failure = raised(ValueError("no"))
    first, frame, rest = failure.message.split("\n")
    assert first == "Uncaught ValueError: no"
    assert frame.startswith("    at raised (test_outcome.py:")
    assert rest == ""
    assert failure.data is None


def test_an_exception_without_text_is_its_name_alone():
    assert raised(RuntimeError()).message.startswith("Uncaught RuntimeError\n")


def test_a_convex_error_carries_its_data():
    failure = raised(ConvexError({"code": "x", "n": Int64(3)}))
    assert failure.data == b'{"code":"x","n":{"$integer":"AwAAAAAAAAA="}}'
    assert failure.message.startswith('Uncaught ConvexError: {"code":"x","n":"3n"}\n')


def test_a_convex_error_of_text_is_that_text():
    assert raised(ConvexError("sorry")).message.startswith("Uncaught ConvexError: sorry\n")


def test_a_convex_error_with_data_that_is_no_value_says_so():
    failure = raised(ConvexError({"a": object}))
    assert failure.message.startswith("ConvexError with invalid data: ")
    assert failure.data is None


def test_an_error_of_ours_is_an_error():
    assert raised(BadRequest("not so")).message.startswith("Uncaught Error: not so\n    at ")


def test_an_error_of_ours_may_have_data():
    failure = raised(BadRequest("x", data={"paginationError": "InvalidCursor"}))
    assert failure.data == b'{"paginationError":"InvalidCursor"}'


def test_a_refused_call_is_shown_as_it_is():
    assert raised(RefusedCall("Could not find it.")).message == "Could not find it.\n"


def test_a_timeout_shows_where_the_handler_was_not_where_it_was_noticed():
    here = str(Path(__file__).parent / "functions" / "x.py")
    stack = (Place("inner", here, 7), Place("outer", here, 9), Place("run", "/elsewhere.py", 1))
    assert raised(FunctionTimeout("timed out", stack)).message == (
        "Uncaught Error: timed out\n"
        "    at inner (functions/x.py:7)\n    at outer (functions/x.py:9)\n"
    )


def test_an_exception_that_cannot_describe_itself_is_named():
    class Odd(Exception):
        def __str__(self) -> str:
            raise KeyError("no text")

    assert raised(Odd()).message.startswith("Uncaught Odd\n")


def test_half_a_character_becomes_valid_text():
    message = raised(ValueError("half \ud83d")).message
    message.encode()
    assert message.startswith("Uncaught ValueError: half ?\n")


def test_a_very_long_text_is_cut_and_still_ends_its_line():
    failure = failure_of(ValueError("ü" * 100), (), replace(LIMITS, error_message_bytes=51))
    assert len(failure.message.encode()) <= 51
    assert failure.message.endswith("ü\n")


@pytest.mark.parametrize(
    ("file", "root", "shown"),
    [
        ("/app/functions/m.py", Path("/app"), "functions/m.py:3"),
        ("/apple/functions/m.py", Path("/app"), None),
        ("/usr/lib/python3.11/re.py", Path("/app"), None),
        ("/app/.venv/lib/python3.11/site-packages/pydantic/main.py", Path("/app"), None),
        ("<string>", Path("/app"), None),
        ("/anywhere/m.py", None, "m.py:3"),
        (BadRequest.__init__.__code__.co_filename, None, None),
    ],
)
def test_only_the_apps_own_files_are_shown(file: str, root: Path | None, shown: str | None):
    assert shown_place(Place("f", file, 3), root) == shown


def test_clients_are_told_the_request_and_unless_redacted_the_text():
    failure = Failure("Uncaught Error: x\n", None, ())
    assert client_message(failure, "0123456789abcdef", redact=False) == (
        "[Request ID: 0123456789abcdef] Server Error\nUncaught Error: x\n"
    )
    assert client_message(failure, "0123456789abcdef", redact=True) == (
        "[Request ID: 0123456789abcdef] Server Error"
    )


APP = {
    "m": """
from functions._deep import fail

@query
async def direct(ctx):
    raise ValueError("here")

@query
async def deep(ctx):
    await ctx.run_query("m:deeper")

@query
async def deeper(ctx):
    fail()

@query
async def library(ctx):
    import json
    json.loads("{")
""",
    "_deep": """
def fail():
    raise KeyError("k")
""",
}


async def test_frames_are_of_the_app_innermost_first_and_without_a_machines_paths(tmp_path: Path):
    async with Running.open(tmp_path, APP) as store:
        messages = {
            path: (await store.outcome("query", path, {}, ANONYMOUS)).message  # type: ignore[union-attr]
            for path in ("direct", "deep", "library")
        }
    assert messages["direct"] == "Uncaught ValueError: here\n    at direct (functions/m.py:10)\n"
    assert messages["deep"] == (
        "Uncaught KeyError: 'k'\n"
        "    at fail (functions/_deep.py:7)\n"
        "    at deeper (functions/m.py:18)\n"
        "    at deep (functions/m.py:14)\n"
    )
    assert messages["library"].startswith("Uncaught JSONDecodeError: ")
    assert messages["library"].endswith("\n    at library (functions/m.py:23)\n")
    assert messages["library"].count("\n") == 2
    assert not any(str(tmp_path) in message for message in messages.values())
