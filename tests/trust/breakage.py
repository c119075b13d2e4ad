"""A deliberate breakage: one line of the product made wrong so that a test proves it sees it.

The product has no switch for these. A breakage replaces a function of it inside this process
(`apply`), and `broken_server.py` starts a server process with one applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

__all__ = ["Breakage"]


@dataclass(frozen=True, slots=True)
class Breakage:
    """`name` is a word for the command line, `text` a sentence: what goes wrong under it."""

    name: str
    promise: str
    text: str
    apply: Callable[[pytest.MonkeyPatch], None]

    def __str__(self) -> str:
        return self.name
