"""Who may vouch for users: what an app's `functions/auth_config.py` lists as `providers`.

A provider is a value that was checked when it was made: an app with a provider that could never
work fails to load, and says why.

Source of facts: docs/reference/api.md; Convex's documented auth configuration.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from reactive_store.errors import BadRequest

__all__ = [
    "AuthProvider",
    "JwtProvider",
    "OidcProvider",
    "choose_provider",
    "is_loopback_url",
    "issuer_url",
    "may_be_fetched",
    "read_data_uri",
]

_ALGORITHMS: Final = ("RS256", "ES256")
_DATA: Final = "data:"
_INVALID: Final = "InvalidAuthConfig"


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcProvider:
    """An OpenID Connect issuer; its keys are found by discovery.

    Shapes   domain: the issuer's URL, `https://` may be left out. application_id: the one audience
             its tokens have
    Raises   BadRequest[InvalidProviderDomainUrl, InvalidAuthConfig]
    """

    domain: str
    application_id: str

    def __post_init__(self) -> None:
        issuer = _checked_issuer(self.domain, "domain")
        if not may_be_fetched(issuer, from_loopback=True):
            raise BadRequest(
                f"The keys of {self.domain!r} would be fetched without encryption: http:// is for "
                "issuers on this machine, use https://",
                code="InvalidProviderDomainUrl",
            )
        _check_text(self.application_id, "application_id")

    @property
    def issuer(self) -> str:
        """Whose tokens it answers for, as a URL."""
        return issuer_url(self.domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtProvider:
    """An issuer of plain JWTs with a known key set.

    Shapes   issuer: its tokens' `iss`, `https://` may be left out. jwks: where the key set is, an
             https URL or a `data:` URI that holds it. algorithm: `RS256` or `ES256`, no other is
             accepted. application_id: an audience that tokens need; None: any will do
    Raises   BadRequest[InvalidProviderDomainUrl, InvalidAuthConfig]
    """

    issuer: str
    jwks: str
    algorithm: str
    application_id: str | None = None

    def __post_init__(self) -> None:
        _checked_issuer(self.issuer, "issuer")
        if self.algorithm not in _ALGORITHMS:
            raise BadRequest(
                f"algorithm has to be one of {', '.join(_ALGORITHMS)}, not {self.algorithm!r}",
                code=_INVALID,
            )
        _check_text(self.jwks, "jwks")
        if self.jwks.startswith(_DATA):
            read_data_uri(self.jwks)
        elif not may_be_fetched(self.jwks, from_loopback=True):
            raise BadRequest(
                "jwks has to be an https:// URL (http:// for this machine only) or a data: URI, "
                f"not {self.jwks!r}",
                code=_INVALID,
            )
        if self.application_id is not None:
            _check_text(self.application_id, "application_id")


AuthProvider = OidcProvider | JwtProvider


def choose_provider(
    providers: Sequence[AuthProvider], issuer: str, audiences: Sequence[str]
) -> int | None:
    """The place of the first provider that answers for an issuer and one of the audiences."""
    url = issuer_url(issuer)
    for place, provider in enumerate(providers):
        wanted = provider.application_id
        if (wanted is None or wanted in audiences) and url == issuer_url(provider.issuer):
            return place
    return None


def issuer_url(issuer: str) -> str:
    """The form in which two names of one issuer are equal: with scheme, without slash behind."""
    if "://" not in issuer:
        issuer = f"https://{issuer}"
    return issuer.rstrip("/")


def may_be_fetched(url: str, *, from_loopback: bool) -> bool:
    """Whether keys may be read from a URL: encrypted, or on this machine when that is allowed."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        return False
    if not named or not url.isprintable() or " " in url:
        return False
    if is_loopback_url(url):
        return from_loopback and parts.scheme in ("https", "http")
    return parts.scheme == "https"


def is_loopback_url(url: str) -> bool:
    """Whether a URL leads to this machine whatever the network says."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_data_uri(uri: str) -> bytes:
    """What a `data:` URI holds.

    Raises   BadRequest[InvalidAuthConfig]
    """
    head, comma, data = uri.removeprefix(_DATA).partition(",")
    try:
        if not comma:
            raise ValueError("there is no comma before the data")
        content = unquote_to_bytes(data)
        if head.lower().endswith(";base64"):
            content = base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadRequest(f"jwks is a data: URI that cannot be read: {error}", code=_INVALID) from (
            error
        )
    return content


def _checked_issuer(text: object, name: str) -> str:
    """The URL of an issuer as it was configured.

    Raises   BadRequest[InvalidProviderDomainUrl]
    """
    _check_text(text, name)
    issuer = str(text)
    problem = _problem_of_issuer(issuer)
    if problem:
        raise BadRequest(
            f"{name} = {issuer!r} names no issuer: {problem}", code="InvalidProviderDomainUrl"
        )
    return issuer_url(issuer)


def _problem_of_issuer(issuer: str) -> str | None:
    if issuer.startswith(('"', "'")):
        return "it begins with a quotation mark, was a variable quoted twice?"
    try:
        parts = urlsplit(issuer_url(issuer))
        host = parts.hostname
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("https", "http") or not host or any(map(str.isspace, issuer)):
        return "it has to be a https:// or http:// URL"
    if "://" not in issuer and "." not in host and host != "localhost":
        return "without https:// it has to be a full domain name"
    return None


def _check_text(value: object, name: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"{name} has to be a text that is not empty", code=_INVALID)
