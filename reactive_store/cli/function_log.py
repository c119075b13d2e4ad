"""What functions print and how they fail, for whoever runs the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reactive_store.functions.names import display_path
from reactive_store.functions.outcome import Failure, Outcome
from reactive_store.functions.runner import Runner

__all__ = ["CallEnd", "observe_calls"]


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call that printed something or failed."""

    path: str  # as people write it
    log_lines: tuple[str, ...]
    error: str | None  # with its frames; None: it succeeded


def observe_calls(runner: Runner, on_end: Callable[[CallEnd], None]) -> None:
    """Call `on_end` after every call that printed something or failed."""

    def tell(path: str, outcome: Outcome) -> None:
        error = outcome.message.rstrip("\n") if isinstance(outcome, Failure) else None
        if outcome.log_lines or error is not None:
            on_end(CallEnd(display_path(path), outcome.log_lines, error))

    runner.on_end = tell
