"""Where the app of the simulated runs waits: in the virtual time of the run that is under way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["PAUSE"]


async def _no_time() -> None:
    return


# Set by the host of the run under way.
PAUSE: list[Callable[[], Awaitable[None]]] = [_no_time]
