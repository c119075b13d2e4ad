"""`ctx.scheduler`: functions that run later, written as documents of `_scheduled_functions`.

Source of facts: docs/reference/api.md; the states and texts of Convex's open server.
"""

from __future__ import annotations

__all__ = ["Scheduler"]


class Scheduler:
    """`ctx.scheduler` of one call."""

    __slots__ = ()
