"""What is printed: JSON that stays JSON, whole lines, nothing of a traceback."""

from __future__ import annotations

import json

import pytest

from reactive_store.cli.terminal import (
    brief,
    print_json,
    print_logs,
    print_table,
    readable,
    show_error,
)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("plain", "plain"),
        ("two\nlines\n", "two\nlines"),
        ("app.py:1: X: y\n\nTraceback (most recent call last):\n  File ...", "app.py:1: X: y"),
        ('app.py:1: SyntaxError: y\n\n  File "app.py", line 1', "app.py:1: SyntaxError: y"),
        ("a\n\nsecond paragraph", "a\n\nsecond paragraph"),
    ],
)
def test_an_error_is_shown_without_its_traceback(message, text, capsys):
    assert brief(message) == text
    show_error(message)
    assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.parametrize(
    ("encoded", "shown"),
    [
        (1.0, "1"),
        (1.5, "1.5"),
        (1e300, "1e+300"),
        (True, "true"),
        (None, "null"),
        ({"a": [2.0, {"$integer": "AQAAAAAAAAA="}]}, '{"a":[2,{"$integer":"AQAAAAAAAAA="}]}'),
        ("grüß", '"grüß"'),
    ],
)
def test_values_are_json_with_integers_where_numbers_are_integral(encoded, shown, capsys):
    print_json(encoded, in_one_line=True)
    assert capsys.readouterr().out == shown + "\n"
    assert json.loads(shown) == encoded
    assert readable(encoded) == encoded


def test_for_people_values_are_indented(capsys):
    print_json({"a": [1.0]}, in_one_line=False)
    assert capsys.readouterr().out == '{\n  "a": [\n    1\n  ]\n}\n'


def test_log_lines_name_their_function_on_standard_error(capsys):
    print_logs("a:b", ["[LOG] 'x'"])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[a:b] [LOG] 'x'\n")


def test_a_table_is_never_cut_when_a_program_reads_it(capsys):
    print_table(["name"], [["x" * 300], ["[bold]"]], lambda _, value: value)
    out = capsys.readouterr().out
    assert "x" * 300 in out
    assert "[bold]" in out
