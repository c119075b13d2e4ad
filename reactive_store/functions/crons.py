"""Work that happens again and again: what an app's `functions/crons.py` defines as `crons`.

Source of facts: docs/reference/api.md; the checks and texts of Convex's npm client 1.48.
"""

from __future__ import annotations

__all__ = ["Crons"]


class Crons:
    """The registry of an app's crons."""
