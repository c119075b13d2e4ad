"""What a user's token says, and the rules by which it counts.

Two sets of rules, because two kinds of providers make tokens: `oidc_claims` reads an ID token of an
OpenID Connect issuer, `jwt_claims` any other JWT. Neither looks at the signature; whoever calls
them does, before the result is used.

Source: RFC 7519; OpenID Connect Core 1.0; Convex's open server for names, leeway, codes and texts
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from reactive_store.auth.identity import Identity
from reactive_store.auth.providers import JwtProvider, OidcProvider, issuer_url
from reactive_store.errors import Unauthenticated

__all__ = [
    "OIDC_ALGORITHMS",
    "Claimed",
    "Token",
    "bad_jwt_signature",
    "bad_oidc_signature",
    "jwt_claims",
    "oidc_claims",
    "parse_token",
]

OIDC_ALGORITHMS: Final = ("RS256", "EdDSA")

_INVALID: Final = "InvalidAuthHeader"
_NOT_A_TOKEN: Final = (
    "Could not parse JWT payload. Check that the token is a valid JWT format with three "  # noqa: S105 - a message, not a secret
    "base64-encoded parts separated by dots."
)
_NO_ISSUER: Final = (
    "Missing issuer claim ('iss') in JWT payload. "
    "The token has to name the provider that issued it."
)
_NOT_OIDC: Final = "Could not parse as OIDC ID token. Token might not be an OIDC-compliant JWT."
_BAD_OIDC: Final = (
    "Could not verify OIDC token claim. Check that the token signature is valid and the token "
    "hasn't expired."
)
_BAD_JWT: Final = (
    "Could not verify token claim. Check that the token signature is valid and the token hasn't "
    "expired."
)

_NS: Final = 1_000_000_000
_LEEWAY_NS: Final = 5 * _NS
_LATEST_S: Final = 253_402_300_799  # the end of the year 9999
# Of all names of flattened claims together. Names repeat what they are nested in, so a short token
# could make very long ones, and at this point anybody may have written it.
_FLAT_CHARS: Final = 256 * 1024

# Claims that are no facts about the user: for whom and until when the token is, and what only
# belongs to this one token and would make the same user another one at every refresh.
_ABOUT_THE_TOKEN: Final = frozenset({"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "fva"})
_ABOUT_THE_LOGIN: Final = _ABOUT_THE_TOKEN | {"nonce", "at_hash", "c_hash"}
_OWN_NAMES: Final = frozenset({"subject", "issuer", "tokenIdentifier"})


@dataclass(frozen=True, slots=True)
class Token:
    """A JWT taken apart; nothing in it has been checked.

    Shapes   header: empty when it could not be read. signed: what the signature is of
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    issuer: str
    audiences: tuple[str, ...]
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a token says once its signature was checked, and which key has to have made it."""

    identity: Identity
    expires_ns: int
    algorithm: str
    key_id: str | None


def parse_token(text: str, max_bytes: int) -> Token:
    """Take a token apart.

    Raises   Unauthenticated[InvalidAuthHeader] when it is no JWT or names no issuer
    """
    text = text.strip()
    parts = text.split(".") if len(text) <= max_bytes else []
    try:
        if len(parts) != 3:
            raise ValueError("three parts are needed")
        claims = _object(parts[1])
        signature = _bytes(parts[2])
    except (ValueError, binascii.Error, RecursionError) as error:
        raise Unauthenticated(_NOT_A_TOKEN, code=_INVALID) from error
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise Unauthenticated(_NO_ISSUER, code=_INVALID)
    try:
        header = _object(parts[0])
    except (ValueError, binascii.Error, RecursionError):
        header = {}
    signed = f"{parts[0]}.{parts[1]}".encode()
    return Token(header, claims, issuer, _audiences(claims.get("aud")), signed, signature)


def _bytes(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _object(part: str) -> dict[str, Any]:
    """The JSON object of one part, in values that every client can be told.

    Raises   ValueError, RecursionError
    """
    found = json.loads(_bytes(part), parse_constant=_no_constant)
    if not isinstance(found, dict):
        raise ValueError("no object")
    # Half a surrogate pair could be read, and then be given to nobody.
    json.dumps(found, ensure_ascii=False).encode()
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _audiences(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(each for each in value if isinstance(each, str))
    return ()


def _moment_ns(value: object) -> int | None:
    """A NumericDate as Unix nanoseconds; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= _LATEST_S:
        return None
    return value * _NS if isinstance(value, int) else int(value * _NS)


# ---- ID tokens of OpenID Connect ----


def oidc_claims(token: Token, provider: OidcProvider, now_ns: int) -> Claimed:
    """What an ID token says. Its issuer is still to be compared with the discovered one.

    Raises   Unauthenticated[InvalidAuthHeader] when it is no ID token,
             Unauthenticated[Unauthenticated] when it does not count (any more)
    """
    header, claims = token.header, token.claims
    algorithm, key_id = header.get("alg"), header.get("kid")
    subject, expires_ns = claims.get("sub"), _moment_ns(claims.get("exp"))
    is_complete = (
        isinstance(algorithm, str)
        and (key_id is None or isinstance(key_id, str))
        and isinstance(subject, str)
        and bool(token.audiences)
        and _moment_ns(claims.get("iat")) is not None
    )
    if not is_complete or expires_ns is None:
        raise Unauthenticated(_NOT_OIDC, code=_INVALID)
    if (
        algorithm not in OIDC_ALGORITHMS
        or "crit" in header
        or now_ns >= expires_ns
        or set(token.audiences) != {provider.application_id}
    ):
        raise bad_oidc_signature()
    try:
        identity = Identity(_oidc_attributes(token.issuer, str(subject), claims))
    except (ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated(_NOT_OIDC, code=_INVALID) from error
    return Claimed(identity, expires_ns, algorithm, key_id)


def bad_oidc_signature() -> Unauthenticated:
    """What is said when an ID token was not made by its issuer, or does not count."""
    return Unauthenticated(_BAD_OIDC, code="Unauthenticated")


def _oidc_attributes(issuer: str, subject: str, claims: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: value
        for name, value in claims.items()
        if name not in _ABOUT_THE_LOGIN and name not in _OIDC_CLAIMS
    }
    for name, (attribute, read) in _OIDC_CLAIMS.items():
        value = claims.get(name)
        if value is not None and (known := read(value)) is not None:
            found[attribute] = known
    return found | _owner(issuer, subject)


def _owner(issuer: str, subject: str) -> dict[str, str]:
    return {"tokenIdentifier": f"{issuer}|{subject}", "subject": subject, "issuer": issuer}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false is needed")
    return value


def _address(value: Any) -> str | None:
    formatted = value.get("formatted") if isinstance(value, dict) else value
    return None if formatted is None else _text(formatted)


def _time(value: Any) -> str:
    if isinstance(value, str):  # some issuers write it out themselves
        return value
    moment_ns = _moment_ns(value)
    if moment_ns is None:
        raise TypeError("seconds since 1970 are needed")
    return datetime.fromtimestamp(moment_ns // _NS, UTC).isoformat()


# The standard claims: what each is called in an identity, and how its value gets there.
_OIDC_CLAIMS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "name": ("name", _text),
    "given_name": ("givenName", _text),
    "family_name": ("familyName", _text),
    "nickname": ("nickname", _text),
    "preferred_username": ("preferredUsername", _text),
    "profile": ("profileUrl", _text),
    "picture": ("pictureUrl", _text),
    "website": ("websiteUrl", _text),
    "email": ("email", _text),
    "email_verified": ("emailVerified", _truth),
    "gender": ("gender", _text),
    "birthdate": ("birthday", _text),
    "zoneinfo": ("timezone", _text),
    "locale": ("language", _text),
    "phone_number": ("phoneNumber", _text),
    "phone_number_verified": ("phoneNumberVerified", _truth),
    "address": ("address", _address),
    "updated_at": ("updatedAt", _time),
}


# ---- other JWTs ----


def jwt_claims(token: Token, provider: JwtProvider, now_ns: int) -> Claimed:
    """What a token of a provider with a key set of its own says.

    Raises   Unauthenticated[InvalidAuthHeader] with the reason why it does not count
    """
    header, claims = token.header, token.claims
    key_id, subject = header.get("kid"), claims.get("sub")
    if issuer_url(token.issuer) != issuer_url(provider.issuer):
        raise _invalid(f"Invalid issuer: {token.issuer} != {provider.issuer}")
    wanted = provider.application_id
    if wanted is not None and wanted not in token.audiences:
        raise _invalid(f"Invalid audience: {wanted} not in {_listed(token.audiences)}")
    if header.get("alg") != provider.algorithm or "crit" in header:
        raise bad_jwt_signature()
    for name in ("kid", "typ"):
        if not isinstance(header.get(name), str):
            raise _invalid(f"Could not validate token: its header has no `{name}`")
    if not isinstance(subject, str):
        raise _invalid("Could not validate token: it has no claim `sub`")
    expires_ns = _checked_times(claims, now_ns)
    try:
        identity = Identity(dict(_flattened(claims)) | _owner(token.issuer, subject))
    except (ValueError, TypeError, RecursionError) as error:
        raise _invalid("Could not validate token: its claims are nested too deeply") from error
    return Claimed(identity, expires_ns, provider.algorithm, key_id)


def bad_jwt_signature() -> Unauthenticated:
    """What is said when a token was not made by the key it names."""
    return _invalid(_BAD_JWT)


def _checked_times(claims: Mapping[str, Any], now_ns: int) -> int:
    times = {name: _moment_ns(claims[name]) for name in ("exp", "nbf", "iat") if claims.get(name)}
    expires_ns = times.get("exp")
    if expires_ns is None or None in times.values():
        raise _invalid("Could not validate token: `exp` is needed, and times are in seconds")
    if now_ns >= expires_ns + _LEEWAY_NS:
        raise _invalid("Could not validate token: it has expired")
    for name in ("nbf", "iat"):
        begin_ns = times.get(name)
        if begin_ns is not None and begin_ns > now_ns + _LEEWAY_NS:
            raise _invalid(f"Could not validate token: it is not valid yet (`{name}`)")
    return expires_ns


def _flattened(claims: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The claims about the user, nested ones as `a.b`.

    Raises   ValueError when their names are too long together
    """
    left_chars = _FLAT_CHARS
    for name, value in claims.items():
        if name in _ABOUT_THE_TOKEN or name in _OWN_NAMES:
            continue
        for path, leaf in _leaves(name, value):
            left_chars -= len(path)
            if left_chars < 0:
                raise ValueError("too many nested claims with long names")
            yield path, leaf


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield name, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{name}.{key}", inner)


def _listed(audiences: tuple[str, ...]) -> str:
    return "{" + ", ".join(audiences) + "}"


def _invalid(message: str) -> Unauthenticated:
    return Unauthenticated(message, code=_INVALID)
