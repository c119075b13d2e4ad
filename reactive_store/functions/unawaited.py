"""Calls of `ctx` that a handler forgot to await: they did nothing, and the handler cannot know.

    ctx.db.insert("messages", {…})          # a coroutine, dropped: no message
    if not ctx.auth.get_user_identity():    # a coroutine is never false: everybody gets in

Python notices when such a coroutine is dropped and warns on the standard error stream, where nobody
looks. Here the one it belongs to is told instead, and its call fails with a text that names the
line. Coroutines of the app itself become a warning among the call's log lines.

Noticing costs nothing while nothing is forgotten. It hangs on the function of the `warnings` module
that the interpreter calls with the dropped coroutine; there is no public way to get the coroutine,
and without it a forgotten call of one mutation could not be told from another's. Where an
interpreter has no such function, Python's own warning stays.

Source of facts: CPython's `Lib/warnings.py`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from reactive_store.functions.logs import LogLines
from reactive_store.functions.metering import Place

__all__ = ["Forgetful", "notice_unawaited"]

_HOOK: Final = "_warn_unawaited_coroutine"


class Forgetful:
    """Something whose coroutines must be awaited; remembers the first one that was not."""

    __slots__ = ("forgotten",)

    forgotten: tuple[str, Place] | None
    """Name of the method, and the line that dropped its coroutine."""

    def __init__(self) -> None:
        self.forgotten = None


def notice_unawaited() -> None:
    """Tell owners of forgotten coroutines from now on, in this process. Idempotent."""
    current = getattr(warnings, _HOOK, None)
    if current is not None and not isinstance(current, _Hook):
        setattr(warnings, _HOOK, _Hook(current))


class _Hook:
    """What the interpreter calls with a coroutine that was dropped without being awaited."""

    __slots__ = ("_usual",)

    def __init__(self, usual: Callable[[Any], None]) -> None:
        self._usual = usual

    def __call__(self, coroutine: Any) -> None:
        place = _place_of(sys._getframe(1))
        frame = coroutine.cr_frame
        owner = None if frame is None else _owner(frame.f_locals.get("self"))
        if owner is not None:
            if owner.forgotten is None:
                owner.forgotten = (coroutine.__name__, place)
            return
        lines = LogLines.current()
        if lines is None:
            self._usual(coroutine)
        else:
            lines.add("WARN", f"coroutine '{coroutine.__qualname__}' was never awaited")


def _owner(bound: object) -> Forgetful | None:
    """Who to tell of a forgotten method of `bound`: itself, or what it works for."""
    for found in (bound, getattr(bound, "_scope", None), getattr(bound, "_calls", None)):
        if isinstance(found, Forgetful):
            return found
    return None


def _place_of(frame: FrameType) -> Place:
    return Place(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno)
