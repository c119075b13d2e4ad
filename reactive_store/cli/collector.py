"""How Python's garbage collector is set in a process that does nothing but serve.

A server allocates for every call and frees nearly all of it by reference counting; what lasts (the
app, the hot ranges, the sessions) lasts long. Python's thresholds are for programs that are
neither: they walk through everything that lasts several times a second, and everybody waits.

A library leaves its host's collector alone, so only the commands that own their process call this.

Source: CPython's documentation of the `gc` module.
"""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["settle_collector"]

_YOUNG: Final = 50_000
"""Objects, beyond those freed, from one look at the youngest to the next."""

_MIDDLE: Final = 20
_OLD: Final = 1000
"""Looks at the youngest per look at the middle, and of those per look at everything."""


def settle_collector() -> None:
    """Set what has been loaded aside for good, and look for garbage less often from now on.

    Cost     one full collection, about 50 ms
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
