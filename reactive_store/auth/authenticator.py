"""Credentials in, callers out. The only place that decides whether a credential is good.

Invariants
- A token counts when the first provider that answers for its issuer and audience vouches for it;
  no other provider is asked.
- What a token says about itself is looked at before any issuer is: a token that has expired costs
  no fetch.
- Nothing of a token, a key or a claim is logged.

Source: the codes and texts Convex's open server gives for the same credentials
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from reactive_store.auth.identity import Caller, Identity
from reactive_store.auth.key_sets import KeySet, KeySource, load_of
from reactive_store.auth.keys import AdminKeys
from reactive_store.auth.providers import AuthProvider, JwtProvider, OidcProvider, choose_provider
from reactive_store.auth.tokens import (
    Claimed,
    Token,
    bad_jwt_signature,
    bad_oidc_signature,
    jwt_claims,
    oidc_claims,
    parse_token,
)
from reactive_store.errors import BadRequest, Unauthenticated
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime, SystemRuntime

__all__ = ["Authenticator"]

_NO_PROVIDER = "No auth provider found matching the given token"
_BAD_KEY = "The provided admin key was invalid for this instance"


class Authenticator:
    """Checks user tokens and admin keys of one deployment."""

    def __init__(
        self,
        keys: AdminKeys,
        *,
        runtime: Runtime | None = None,
        limits: Limits | None = None,
        redact: bool = False,
    ) -> None:
        """`redact` keeps to itself which providers there are."""
        self._admin_keys = keys
        self._runtime = SystemRuntime() if runtime is None else runtime
        self._limits = Limits() if limits is None else limits
        self._redact = redact
        # Both replaced as a whole by `configure`; a source for every provider.
        self._providers: tuple[AuthProvider, ...] = ()
        self._sources: dict[AuthProvider, KeySource] = {}

    @property
    def providers(self) -> tuple[AuthProvider, ...]:
        """Who may vouch for users, in the order they are asked."""
        return self._providers

    def configure(self, providers: Sequence[AuthProvider]) -> None:
        """Let these vouch for users from now on, and nobody else.

        Sessions stay who they are until their tokens end. Providers that stay keep their keys.
        """
        known = self._sources
        self._providers = tuple(providers)
        self._sources = {
            provider: known.get(provider)
            or KeySource(load_of(provider), self._runtime, self._limits)
            for provider in self._providers
        }

    async def authenticate(self, token: str) -> Caller:
        """The user a token belongs to, and until when.

        Cost     30 to 150 µs, and a fetch when the provider's keys are not at hand
        Raises   Unauthenticated[InvalidAuthHeader, NoAuthProvider, Unauthenticated];
                 Overloaded when the provider cannot be asked now; what else its discovery came to,
                 with the code AuthProviderDiscoveryFailed
        """
        parsed = parse_token(token, self._limits.token_bytes)
        provider = self._provider_of(parsed)
        now_ns = self._runtime.now_ns()
        if isinstance(provider, OidcProvider):
            claimed = oidc_claims(parsed, provider, now_ns)
        else:
            claimed = jwt_claims(parsed, provider, now_ns)
        source = self._sources[provider]
        keys = await source.keys()
        if not _is_signed(parsed, claimed, keys):
            newer = await source.newer(keys)
            if newer is None or not _is_signed(parsed, claimed, newer):
                raise _bad_signature(provider)
            keys = newer
        if keys.issuer not in (None, parsed.issuer):
            raise BadRequest(
                f"Auth provider discovery of {parsed.issuer} failed: it calls itself {keys.issuer}",
                code="AuthProviderDiscoveryFailed",
            )
        return Caller(claimed.identity, expires_ns=claimed.expires_ns)

    def admin(self, key: str, acting_as: Mapping[str, Any] | None) -> Caller:
        """The administrator holding a key, acting as the user described, if any.

        Raises   Unauthenticated[BadAdminKey] for a key of another instance or a made-up one,
                 BadRequest[InvalidIdentity] when `acting_as` does not describe a user
        """
        if not self._admin_keys.verify(key):
            raise Unauthenticated(_BAD_KEY, code="BadAdminKey")
        identity = None if acting_as is None else Identity.from_attributes(acting_as)
        return Caller(identity, is_admin=True)

    async def close(self) -> None:
        """Stop waiting for issuers."""
        sources, self._sources, self._providers = self._sources, {}, ()
        await asyncio.gather(*(source.close() for source in sources.values()))

    def _provider_of(self, token: Token) -> AuthProvider:
        place = choose_provider(self._providers, token.issuer, token.audiences)
        if place is None:
            raise Unauthenticated(self._no_provider(token), code="NoAuthProvider")
        return self._providers[place]

    def _no_provider(self, token: Token) -> str:
        if self._redact:
            return _NO_PROVIDER
        if not self._providers:
            return (
                f"{_NO_PROVIDER} (no providers configured). "
                "List who issues tokens in auth_config.py, beside the functions."
            )
        configured = "; ".join(map(_shown, self._providers))
        audiences = ", ".join(token.audiences) or "none"
        return (
            f"{_NO_PROVIDER} (issuer {token.issuer}, audience {audiences}). "
            f"Configured: {configured}"
        )


def _shown(provider: AuthProvider) -> str:
    name = "domain" if isinstance(provider, OidcProvider) else "issuer"
    audience = provider.application_id
    return f"{name} {provider.issuer}, audience {'any' if audience is None else audience}"


def _is_signed(token: Token, claimed: Claimed, keys: KeySet) -> bool:
    return keys.verify(claimed.algorithm, claimed.key_id, token.signed, token.signature)


def _bad_signature(provider: AuthProvider) -> Unauthenticated:
    if isinstance(provider, JwtProvider):
        return bad_jwt_signature()
    return bad_oidc_signature()
