"""What commands print: results on standard output, everything about them on standard error.

Colour only where a person looks: not into pipes and files, and not when `NO_COLOR` is set. Text is
never wrapped or cut by us, so a program that reads it finds whole lines.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any, Final

__all__ = [
    "brief",
    "print_json",
    "print_logs",
    "print_note",
    "print_table",
    "readable",
    "show_error",
]

_TRACEBACK: Final = re.compile(r'\n\n(?:Traceback \(most recent call last\)|  File ")')
_WIDE: Final = 100_000
_LARGEST_EXACT: Final = 2.0**53


def _print_styled(text: str, style: str, stream: IO[str]) -> None:
    if not stream.isatty():
        print(text, file=stream, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    Console(file=stream, soft_wrap=True).print(Text(text, style=style))


def brief(message: str) -> str:
    """An error's message without the traceback that some carry behind it."""
    found = _TRACEBACK.search(message)
    return message[: found.start() if found else None].rstrip()


def show_error(message: str) -> None:
    """Say on standard error what went wrong, without a traceback."""
    _print_styled(f"error: {brief(message)}", "red", sys.stderr)


def print_note(text: str) -> None:
    """Something worth knowing, on standard error."""
    _print_styled(text, "dim", sys.stderr)


def print_logs(path: str, lines: Iterable[str]) -> None:
    """Lines a function printed, on standard error."""
    for line in lines:
        print_note(f"[{path}] {line}")


def readable(encoded: Any) -> Any:
    """Encoded JSON, parsed, with integral numbers as integers. It stays a valid encoding."""
    match encoded:
        case float() if encoded.is_integer() and abs(encoded) <= _LARGEST_EXACT:
            return int(encoded)
        case list():
            return [readable(item) for item in encoded]
        case dict():
            return {name: readable(item) for name, item in encoded.items()}
        case _:
            return encoded


def print_json(encoded: Any, *, in_one_line: bool) -> None:
    """A value in encoded form: one line for programs, indented (and coloured) for people."""
    shown = readable(encoded)
    if in_one_line:
        print(json.dumps(shown, ensure_ascii=False, separators=(",", ":")), flush=True)
        return
    text = json.dumps(shown, ensure_ascii=False, indent=2)
    if not sys.stdout.isatty():
        print(text, flush=True)
        return
    from rich.console import Console

    Console(soft_wrap=True).print_json(text)


def print_table(
    columns: list[str], rows: Iterable[list[Any]], cell: Callable[[str, Any], str]
) -> None:
    """A table for people; `cell` turns a column's value into text."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), no_wrap=not is_terminal, overflow="fold")
    for row in rows:
        cells = (cell(column, value) for column, value in zip(columns, row, strict=True))
        table.add_row(*map(Text, cells))
    Console(width=None if is_terminal else _WIDE).print(table)
