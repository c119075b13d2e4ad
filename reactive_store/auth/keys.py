"""Admin keys: unforgeable without the instance's secret, stable for a data directory.

A key is `name|hex`: the instance's name, which tools display, and a version byte followed by a
keyed hash of that name. Nothing is stored, so every key ever issued by this secret is valid and
changing the secret revokes them all.

Source: the outer form is the one Convex's tools split at `|`; the inside is ours
"""

from __future__ import annotations

import hmac
from hashlib import blake2b

__all__ = ["SECRET_BYTES", "AdminKeys"]

SECRET_BYTES = 32

_VERSION = "01"
_SEPARATOR = "|"


class AdminKeys:
    """Issues and checks the admin keys of one instance."""

    __slots__ = ("_key", "name")

    def __init__(self, name: str, secret: bytes) -> None:
        """Keys for the instance `name`, derived from its 32-byte secret.

        Raises   ValueError when the name contains `|` or `:`, or the secret has another length
        """
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"an instance secret has {SECRET_BYTES} bytes, not {len(secret)}")
        if not name or _SEPARATOR in name or ":" in name:
            raise ValueError(f"{name!r} cannot name an instance: keys are split at | and :")
        self.name = name
        digest = blake2b(name.encode(), key=secret, person=b"admin key", digest_size=32)
        self._key = f"{name}{_SEPARATOR}{_VERSION}{digest.hexdigest()}"

    def issue(self) -> str:
        """The instance's admin key. The same secret always gives the same key; it never expires."""
        return self._key

    def verify(self, key: str) -> bool:
        """Is this an admin key of this instance? Takes the same time whatever differs.

        A deployment type before the name (`prod:name|…`) is decoration and ignored.
        """
        name, separator, code = key.strip().partition(_SEPARATOR)
        bare = name.rpartition(":")[2] + separator + code
        return hmac.compare_digest(bare.encode(errors="surrogatepass"), self._key.encode())
