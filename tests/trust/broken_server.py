"""`python -m tests.trust.broken_server MODULE:NAME …`: the reactive-store program, broken.

Applies the Breakage called NAME of MODULE's BREAKAGES to this process, then does what
`reactive-store …` does with the remaining arguments. For tests that need a real server process.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import pytest

from tests.trust.breakage import Breakage

__all__ = ["find_breakage", "main"]

_USAGE = "usage: python -m tests.trust.broken_server MODULE:NAME COMMAND [OPTION…]"


def find_breakage(place: str) -> Breakage:
    """The Breakage at `MODULE:NAME`.

    Raises   ValueError that lists the names there are; ImportError for a module that is not there
    """
    module, separator, name = place.partition(":")
    if not separator:
        raise ValueError(f"{place!r} is not MODULE:NAME")
    breakages: Sequence[Breakage] = importlib.import_module(module).BREAKAGES
    for breakage in breakages:
        if breakage.name == name:
            return breakage
    names = ", ".join(breakage.name for breakage in breakages)
    raise ValueError(f"no breakage of {module} is called {name!r}; there are {names}")


def main(arguments: Sequence[str]) -> int:
    """Apply, then run the program. Returns its exit code."""
    if not arguments:
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        breakage = find_breakage(arguments[0])
    except (ValueError, ImportError) as error:
        print(f"{error}\n{_USAGE}", file=sys.stderr)
        return 2
    # Never undone: the process is broken until its end.
    breakage.apply(pytest.MonkeyPatch())
    print(f"broken on purpose: {breakage.text}", file=sys.stderr, flush=True)
    program = importlib.import_module("reactive_store.cli.main").main
    sys.argv = ["reactive-store", *arguments[1:]]
    try:
        program()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
