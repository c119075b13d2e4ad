"""Which handler answers which HTTP request: what an app's `functions/http.py` defines as `http`.

Source of facts: docs/reference/api.md; the checks and texts of Convex's npm client 1.48.
"""

from __future__ import annotations

__all__ = ["HttpRouter"]


class HttpRouter:
    """The app's own HTTP routes."""
