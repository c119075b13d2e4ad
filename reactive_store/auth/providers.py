"""Who may vouch for users: what an app's `functions/auth_config.py` lists as `providers`.

Source of facts: docs/reference/api.md; Convex's documented auth configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AuthProvider", "JwtProvider", "OidcProvider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcProvider:
    """An OpenID Connect issuer; its keys are found by discovery."""

    domain: str
    application_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtProvider:
    """An issuer of plain JWTs with a known key set."""

    issuer: str
    jwks: str
    algorithm: str
    application_id: str | None = None


AuthProvider = OidcProvider | JwtProvider
