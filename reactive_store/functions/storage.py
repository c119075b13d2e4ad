"""`ctx.storage`: files as functions see them. Their metadata are documents of `_storage`.

Source of facts: docs/reference/api.md; the texts of Convex's open server.
"""

from __future__ import annotations

__all__ = ["Storage"]


class Storage:
    """`ctx.storage` of one call."""

    __slots__ = ()
