"""Lines printed by functions.

`print` and `logging` inside a function become log lines of the call that is running, in Convex's
form: `[LEVEL] ` and the arguments, each as an inspector shows it (text in single quotes). Outside a
call both behave as ever. Nested calls write into the lines of the outermost one; what an attempt
of a mutation printed is forgotten when it runs again.

Source: docs/reference/limits.md for the bounds; the form is what Convex's clients parse.
"""

from __future__ import annotations

import builtins
import logging
from contextvars import ContextVar, Token
from typing import Any

from reactive_store.limits import Limits

__all__ = ["LogCapture", "LogLines", "TransactionLines", "captured_print"]

_current: ContextVar[LogLines | None] = ContextVar("reactive_store_log_lines", default=None)
_LEVELS = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"))


class LogLines:
    """The lines of one call, bounded in number and length."""

    __slots__ = ("_lines", "_most_chars", "_most_lines")

    def __init__(self, limits: Limits) -> None:
        self._lines: list[str] = []
        self._most_lines = limits.log_lines
        self._most_chars = limits.log_line_chars

    def add(self, level: str, text: str) -> None:
        """Append a line; what goes beyond the bounds is cut and says so."""
        count = len(self._lines)
        if count > self._most_lines:
            return
        if count == self._most_lines:
            self._lines.append(
                f"[ERROR] Log overflow (maximum {self._most_lines}). Remaining log lines omitted."
            )
            return
        if len(text) > self._most_chars:
            text = text[: self._most_chars] + " (truncated due to length)"
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # lines go to clients: valid Unicode
        self._lines.append(f"[{level}] {text}")

    def lines(self) -> tuple[str, ...]:
        """What was printed so far."""
        return tuple(self._lines)

    @property
    def position(self) -> int:
        """A point `rollback` can return to."""
        return len(self._lines)

    def rollback(self, position: int) -> None:
        """Forget what was printed since."""
        del self._lines[position:]

    def activate(self) -> Token[LogLines | None]:
        """Make these the lines `print` and `logging` write to, in this task."""
        return _current.set(self)

    @staticmethod
    def deactivate(token: Token[LogLines | None]) -> None:
        """Undo `activate`."""
        _current.reset(token)

    @staticmethod
    def current() -> LogLines | None:
        """The lines of the call that is running in this task, or None."""
        return _current.get()


class TransactionLines(LogLines):
    """The lines of a query or a mutation: what may be done is restricted while they are current."""

    __slots__ = ()

    @staticmethod
    def of_action(outer: LogLines) -> TransactionLines:
        """The lines of an action, for a query or mutation that it runs: the same, restricted."""
        inner = TransactionLines.__new__(TransactionLines)
        inner._lines = outer._lines
        inner._most_lines, inner._most_chars = outer._most_lines, outer._most_chars
        return inner


def _inspect(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def captured_print(*values: object, **options: Any) -> None:
    """`print` as app modules see it: into the log lines of the running call, if there is one."""
    lines = _current.get()
    if lines is None or options.get("file") is not None:
        builtins.print(*values, **options)
        return
    separator = options.get("sep")
    lines.add("LOG", (" " if separator is None else separator).join(map(_inspect, values)))


class LogCapture(logging.Handler):
    """The `logging` handler that turns an app's records into log lines of the running call."""

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record; the store's own records are not the app's."""
        lines = _current.get()
        if lines is None or record.name.split(".", 1)[0] == "reactive_store":
            self._emit_as_ever(record)
            return
        level = next((name for least, name in _LEVELS if record.levelno >= least), "DEBUG")
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a wrong format is reported as `logging` reports it
            self.handleError(record)
            return
        lines.add(level, _inspect(text))

    def _emit_as_ever(self, record: logging.LogRecord) -> None:
        # Python prints warnings and worse when no handler is there; this one must not end that.
        usual = logging.lastResort
        if usual is not None and record.levelno >= usual.level:
            handlers = logging.getLogger().handlers
            if all(isinstance(handler, LogCapture) for handler in handlers):
                usual.handle(record)

    @staticmethod
    def install() -> None:
        """Add one such handler to the root logger; harmless when it is there."""
        root = logging.getLogger()
        if not any(isinstance(handler, LogCapture) for handler in root.handlers):
            root.addHandler(LogCapture(logging.DEBUG))
