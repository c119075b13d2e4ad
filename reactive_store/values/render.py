"""Values as error texts show them: `{a: 1.0, b: ["x"]}`.

Numbers always show a fraction or an exponent, bigints never do. Names are bare.

Source of facts: docs/reference/values.md, "In error messages".
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64encode
from decimal import Decimal
from math import isfinite

from reactive_store.values.value import Int64, Unset, Value

__all__ = ["render", "render_json_number", "render_string"]

_EXPONENT = re.compile(r"e(-?)\+?0*")
_SHORT = {"\0": r"\0", "\t": r"\t", "\n": r"\n", "\r": r"\r", '"': r"\"", "\\": r"\\"}


def render(value: Value | Unset) -> str:
    """A normal value (or UNSET) as text."""
    if isinstance(value, Unset):
        return "undefined"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Int64):
        return str(value)
    if isinstance(value, (int, float)):
        return _number(float(value))
    if isinstance(value, str):
        return render_string(value)
    if isinstance(value, bytes):
        return f'b"{b64encode(value).decode("ascii")}"'
    if isinstance(value, list):
        return f"[{', '.join(map(render, value))}]"
    return f"{{{', '.join(f'{name}: {render(value[name])}' for name in sorted(value))}}}"


def render_string(text: str) -> str:
    """A string in double quotes, with what cannot be seen escaped."""
    return f'"{"".join(map(_character, text))}"'


def render_json_number(number: float) -> str:
    """A finite number as in literals of validators: the exponent starts one step later."""
    if 1e-5 <= abs(number) < 1e-4:
        return format(Decimal(repr(number)), "f")
    return _number(number)


def _number(number: float) -> str:
    if not isfinite(number):
        return "NaN" if number != number else "inf" if number > 0 else "-inf"
    return _EXPONENT.sub(r"e\1", repr(number))


def _character(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable() and unicodedata.category(char) not in ("Mn", "Me"):
        return char
    return f"\\u{{{ord(char):x}}}"
