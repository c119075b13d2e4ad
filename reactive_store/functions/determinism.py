"""What queries and mutations may not do: wait for other machines, programs or the clock.

A query's answer is kept until its data changes, a mutation may be run again; what the world
answered meanwhile belongs into neither. And while a function waits in a blocking call, nobody else
is served. So a network connection, a new process and (from Python 3.13 on, which tells of it) a
blocking sleep are refused in them, with a text that names the remedy. Actions may do all of that.

The means are Python's audit events: raised by the interpreter itself, whichever library asks, in
tasks and worker threads of the function too. Nothing is patched, and nothing is paid by functions
that keep to the rule. What has no event cannot be refused: the real clock, `random`, `uuid`.

Source of facts: docs/decisions/0018-refused-in-queries-and-mutations.md; the texts of Convex's open
server; Python's table of audit events.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from reactive_store.errors import BadRequest
from reactive_store.functions.logs import LogLines, TransactionLines

__all__ = ["REFUSED_EVENTS", "refuse_effects"]

_NETWORK: Final = "the network"
_PROCESS: Final = "other programs"

REFUSED_EVENTS: Final = {
    "time.sleep": "time.sleep()",
    "socket.connect": _NETWORK,
    "socket.getaddrinfo": _NETWORK,
    "socket.gethostbyname": _NETWORK,
    "subprocess.Popen": _PROCESS,
    "os.system": _PROCESS,
    "os.posix_spawn": _PROCESS,
    "os.fork": _PROCESS,
}
"""Audit event → how the text calls it."""

_is_installed = False


def refuse_effects() -> None:
    """Refuse these events inside queries and mutations from now on, in this process. Idempotent.

    There is no way back: Python keeps audit hooks until the process ends. Outside of queries and
    mutations the hook only looks up a name.
    """
    global _is_installed
    if not _is_installed:
        _is_installed = True
        sys.addaudithook(_hook)


def _hook(event: str, _args: tuple[Any, ...]) -> None:
    what = REFUSED_EVENTS.get(event)
    if what is None:
        return
    lines = LogLines.current()
    if isinstance(lines, TransactionLines):
        text = (
            f"Can't use {what} in queries and mutations. Please consider using an action. See "
            "https://docs.convex.dev/functions/actions for more details."
        )
        # The exception may come out wrapped by a library, or not at all: the line stays.
        lines.add("ERROR", text)
        raise BadRequest(text, code="EffectInTransaction")
