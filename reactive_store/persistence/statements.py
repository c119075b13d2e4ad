"""SQL statements by name, read from a file beside this module.

A statement begins with a line `-- name: …`; the comment lines below it say what it is for and are
dropped. A statement that contains `VALUES (?, …)` is a template for any number of rows: one
statement that carries sixty rows costs one step of the database instead of sixty, and each step
hands the interpreter lock to and fro.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

__all__ = ["RowStatement", "load_statements"]

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_ROW = re.compile(r"VALUES (\([?, ]+\))")


@cache
def load_statements(dialect: str) -> dict[str, str]:
    """Every statement of `queries/<dialect>.sql`, name to text."""
    text = (Path(__file__).parent / "queries" / f"{dialect}.sql").read_text(encoding="utf-8")
    _, *pieces = _NAME.split(text)
    statements: dict[str, str] = {}
    for name, body in zip(pieces[::2], pieces[1::2], strict=True):
        assert name not in statements, name
        lines = (line for line in body.splitlines() if not line.startswith("--"))
        statements[name] = "\n".join(lines).strip()
    return statements


class RowStatement:
    """A statement over rows of parameters, run for many rows at a time."""

    __slots__ = ("_by_rows",)

    # Powers of two, so that any number of rows needs few texts and the prepared ones are reused.
    _ROWS: Final = (128, 64, 32, 16, 8, 4, 2, 1)

    def __init__(self, text: str) -> None:
        found = _ROW.search(text)
        assert found is not None, text
        head, row, tail = text[: found.start(1)], found[1], text[found.end(1) :]
        self._by_rows = {rows: head + ", ".join([row] * rows) + tail for rows in self._ROWS}

    def execute(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run it for every row. Returns how many rows of the database were changed."""
        changed = 0
        for text, parameters in self._pieces(rows):
            changed += connection.execute(text, parameters).rowcount
        return changed

    def fetch(
        self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]
    ) -> list[tuple[Any, ...]]:
        """Run a query for every row. Returns all it found, in no promised order."""
        found: list[tuple[Any, ...]] = []
        for text, parameters in self._pieces(rows):
            found += connection.execute(text, parameters).fetchall()
        return found

    def _pieces(self, rows: Sequence[Sequence[Any]]) -> list[tuple[str, list[Any]]]:
        pieces: list[tuple[str, list[Any]]] = []
        first, count = 0, len(rows)
        for size in self._ROWS:
            while count - first >= size:
                piece = list(chain.from_iterable(rows[first : first + size]))
                pieces.append((self._by_rows[size], piece))
                first += size
        return pieces
