"""Tokens for work on this machine: a deployment's own issuer, which only `dev` accepts.

The signing key follows from the deployment's secret, so a token can be made beside a running server
and stays good over restarts, and no other deployment takes it. The issuer's name is the same
everywhere: what an app stores about a user of today is found again tomorrow, on any port.

Source: RFC 7517, RFC 7519; the scheme is ours
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from reactive_store.auth.identity import Identity, attribute_name
from reactive_store.auth.providers import JwtProvider
from reactive_store.errors import BadRequest

__all__ = ["AUDIENCE", "ISSUER", "DevelopmentIssuer"]

ISSUER: Final = "https://reactive-store.localhost"
AUDIENCE: Final = "reactive-store"

_ALGORITHM: Final = "ES256"
# The order of the group that P-256 is: a private key is a number between 1 and this, exclusive.
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class DevelopmentIssuer:
    """Issues tokens of one deployment, and is the provider that vouches for them."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: the instance's, of 32 bytes."""
        self._secret = secret

    @cached_property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        digest = blake2b(b"", key=self._secret, person=b"dev issuer", digest_size=64).digest()
        number = int.from_bytes(digest, "big") % (_ORDER - 1) + 1
        return ec.derive_private_key(number, ec.SECP256R1())

    @cached_property
    def key_set(self) -> dict[str, Any]:
        """The public key as a JWKS document."""
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        text = json.dumps(public, sort_keys=True).encode()
        key_id = blake2b(text, digest_size=8).hexdigest()
        return {"keys": [{**public, "kid": key_id, "alg": _ALGORITHM, "use": "sig"}]}

    @property
    def provider(self) -> JwtProvider:
        """Whoever accepts its tokens has this among its providers."""
        text = base64.b64encode(json.dumps(self.key_set).encode()).decode()
        return JwtProvider(
            issuer=ISSUER,
            jwks=f"data:application/json;base64,{text}",
            algorithm=_ALGORITHM,
            application_id=AUDIENCE,
        )

    def issue(self, attributes: Mapping[str, Any], now_ns: int, lifetime_s: int) -> str:
        """A token of the user described.

        Shapes   attributes: `subject` and any others of an Identity in either spelling, and custom
                 claims
        Raises   BadRequest[InvalidIdentity] when they describe no user
        """
        known = {attribute_name(name): value for name, value in attributes.items()}
        if known.keys() & {"issuer", "tokenIdentifier"}:
            raise BadRequest(
                f"A token of this issuer has the issuer {ISSUER}: leave it out",
                code="InvalidIdentity",
            )
        Identity.from_attributes({**known, "issuer": ISSUER})
        now_s = now_ns // 1_000_000_000
        subject = known.pop("subject")
        times = {"iat": now_s, "exp": now_s + lifetime_s}
        claims = {**known, "iss": ISSUER, "sub": subject, "aud": AUDIENCE, **times}
        header = {"kid": self.key_set["keys"][0]["kid"]}
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers=header)
