"""Credentials in, callers out. The only place that decides whether a credential is good.

No identity provider can be configured in this release, so every user token is refused with the
error a deployment without providers gives; admin keys and acting as a user work completely.

Source: the codes and texts Convex's open server gives for the same credentials
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from reactive_store.auth.identity import Caller, Identity
from reactive_store.auth.keys import AdminKeys
from reactive_store.errors import Unauthenticated

__all__ = ["Authenticator"]

_NOT_A_TOKEN = (
    "Could not parse JWT payload. Check that the token is a valid JWT format with three "  # noqa: S105 - a message, not a secret
    "base64-encoded parts separated by dots."
)
_NO_ISSUER = (
    "Missing issuer claim ('iss') in JWT payload. "
    "The token has to name the provider that issued it."
)
_NO_PROVIDER = (
    "No auth provider found matching the given token (no providers configured). "
    "Use an admin key that acts as a user, or call without a token."
)
_BAD_KEY = "The provided admin key was invalid for this instance"


class Authenticator:
    """Checks user tokens and admin keys of one deployment."""

    __slots__ = ("_keys",)

    def __init__(self, keys: AdminKeys) -> None:
        self._keys = keys

    async def authenticate(self, token: str) -> Caller:
        """The user a token belongs to.

        Raises   Unauthenticated[InvalidAuthHeader] when it is no JWT or names no issuer,
                 Unauthenticated[NoAuthProvider] when nobody vouches for its issuer
        """
        if not _payload(token).get("iss"):
            raise Unauthenticated(_NO_ISSUER, code="InvalidAuthHeader")
        raise Unauthenticated(_NO_PROVIDER, code="NoAuthProvider")

    def admin(self, key: str, acting_as: Mapping[str, Any] | None) -> Caller:
        """The administrator holding a key, acting as the user described, if any.

        Raises   Unauthenticated[BadAdminKey] for a key of another instance or a made-up one,
                 BadRequest[InvalidIdentity] when `acting_as` does not describe a user
        """
        if not self._keys.verify(key):
            raise Unauthenticated(_BAD_KEY, code="BadAdminKey")
        identity = None if acting_as is None else Identity.from_attributes(acting_as)
        return Caller(identity, is_admin=True)


def _payload(token: str) -> dict[str, Any]:
    parts = token.strip().split(".")
    try:
        if len(parts) != 3:
            raise ValueError("three parts are needed")
        text = base64.b64decode(
            parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True
        )
        payload = json.loads(text)
        if not isinstance(payload, dict):
            raise ValueError("the payload is no object")
    except (ValueError, binascii.Error, RecursionError) as error:
        raise Unauthenticated(_NOT_A_TOKEN, code="InvalidAuthHeader") from error
    return payload
