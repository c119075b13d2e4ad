from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.values.render import render, render_json_number, render_string
from reactive_store.values.value import UNSET, Id, Int64


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UNSET, "undefined"), (None, "null"), (True, "true"), (False, "false"),
        (Int64(-5), "-5"), (5, "5.0"), (1e16, "1e16"), (1e15, "1000000000000000.0"),
        (1e-5, "1e-5"), (1e-4, "0.0001"), (1e-10, "1e-10"), (-0.0, "-0.0"), (5e-324, "5e-324"),
        (1e100, "1e100"), (float("nan"), "NaN"), (float("inf"), "inf"), (-float("inf"), "-inf"),
        (Id("x", "t"), '"x"'), (b"\xde\xad\xbe\xef", 'b"3q2+7w=="'), ([1, "a"], '[1.0, "a"]'),
        ({"b": {}, "a": [], "c d": None}, "{a: [], b: {}, c d: null}"),
    ],
)  # fmt: skip
def test_values_in_error_texts(value: Any, text: str) -> None:
    """V93."""
    assert render(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it's", '"it\'s"'),
        ('"\\\n\r\t\0', r'"\"\\\n\r\t\0"'),
        ("\x7f\x1b", r'"\u{7f}\u{1b}"'),
        ("é日😀", '"é日😀"'),
        ("e\u0301", r'"e\u{301}"'),
        ("\u200b", r'"\u{200b}"'),
    ],
)
def test_strings_in_error_texts(text: str, shown: str) -> None:
    """V93."""
    assert render_string(text) == shown


def test_literals_use_the_exponent_one_step_later() -> None:
    """V94."""
    assert render_json_number(1e-5) == "0.00001"
    assert render_json_number(1.5e-5) == "0.000015"
    assert render_json_number(1e-6) == "1e-6"
    assert render_json_number(1.0) == "1.0"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_shown_number_is_the_number(number: float) -> None:
    for shown in (render(number), render_json_number(number)):
        assert float(shown) == number
        assert "." in shown or "e" in shown
        assert "+" not in shown
