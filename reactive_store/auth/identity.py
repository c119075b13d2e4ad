"""Who is calling, as a value.

An `Identity` never changes and compares by content, so it can be part of a cache key: two callers
with the same attributes share results. Its mapping form is what Convex clients know (camelCase);
its attributes are the same names in snake_case.

Source: Convex's documented `UserIdentity`; the impersonation objects its npm client 1.48 sends
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reactive_store.errors import BadRequest

__all__ = ["ANONYMOUS", "Caller", "Identity", "RequestSource", "attribute_name"]

# Python name → name on the wire, for every attribute Convex knows.
_WIRE_NAMES = {
    "subject": "subject",
    "issuer": "issuer",
    "token_identifier": "tokenIdentifier",
    "name": "name",
    "given_name": "givenName",
    "family_name": "familyName",
    "nickname": "nickname",
    "preferred_username": "preferredUsername",
    "profile_url": "profileUrl",
    "picture_url": "pictureUrl",
    "website_url": "websiteUrl",
    "email": "email",
    "email_verified": "emailVerified",
    "gender": "gender",
    "birthday": "birthday",
    "timezone": "timezone",
    "language": "language",
    "phone_number": "phoneNumber",
    "phone_number_verified": "phoneNumberVerified",
    "address": "address",
    "updated_at": "updatedAt",
}
_TRUTH_VALUES = ("emailVerified", "phoneNumberVerified")
_STANDARD = frozenset(_WIRE_NAMES.values())
_SEPARATOR = "|"


class Identity(Mapping[str, Any]):
    """A user: immutable, hashable by content, a mapping of its camelCase attributes.

    An attribute the token did not carry is None (`identity.email`); a missing key raises KeyError
    (`identity["plan"]`). Nested claims: `identity["a"]["b"]` and `identity["a.b"]`.

    Source   python names of Convex's `UserIdentity`
    """

    __slots__ = ("_attributes", "_content")

    subject: str
    issuer: str
    token_identifier: str
    name: str | None
    given_name: str | None
    family_name: str | None
    nickname: str | None
    preferred_username: str | None
    profile_url: str | None
    picture_url: str | None
    website_url: str | None
    email: str | None
    email_verified: bool | None
    gender: str | None
    birthday: str | None
    timezone: str | None
    language: str | None
    phone_number: str | None
    phone_number_verified: bool | None
    address: str | None
    updated_at: str | None

    _attributes: dict[str, Any]
    _content: str

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        # The text is the identity of an identity; it also detaches us from the caller's dict.
        content = json.dumps(dict(attributes), sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "_content", content)
        object.__setattr__(self, "_attributes", json.loads(content))

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Identity:
        """The identity that an administrator asks to act as.

        Shapes   camelCase attributes; `tokenIdentifier`, or both `issuer` and `subject`, are
                 needed and each is completed from the other; other names become custom claims
        Raises   BadRequest[InvalidIdentity] when those are missing or an attribute has a bad type
        """
        known = {name: value for name, value in attributes.items() if value is not None}
        for name in known.keys() & _STANDARD:
            expected = bool if name in _TRUTH_VALUES else str
            if not isinstance(known[name], expected):
                raise BadRequest(
                    f"The identity's {name} has to be a {expected.__name__}, "
                    f"not a {type(known[name]).__name__}",
                    code="InvalidIdentity",
                )
        token = known.get("tokenIdentifier")
        if token is None and not ("issuer" in known and "subject" in known):
            raise BadRequest(
                "An identity to act as needs a tokenIdentifier, or both an issuer and a subject",
                code="InvalidIdentity",
            )
        if token is None:
            known["tokenIdentifier"] = known["issuer"] + _SEPARATOR + known["subject"]
        else:
            issuer, _, subject = token.rpartition(_SEPARATOR)
            known.setdefault("issuer", issuer)
            known.setdefault("subject", subject)
        try:
            return cls(known)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRequest(
                f"The identity cannot be written as JSON: {error}", code="InvalidIdentity"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """A fresh dict in the official camelCase shape; absent attributes are absent keys."""
        copied: dict[str, Any] = json.loads(self._content)
        return copied

    def __getitem__(self, name: str) -> Any:
        attributes = self._attributes
        if name in attributes:
            return attributes[name]
        nested = _nested(attributes, name)
        if nested is None:
            raise KeyError(name)
        return nested

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def __getattr__(self, name: str) -> Any:
        wire_name = _WIRE_NAMES.get(name)
        if wire_name is None:
            raise AttributeError(
                f"An identity has no attribute {name!r}; "
                f"a custom claim is read as identity[{name!r}]"
            )
        return self._attributes.get(wire_name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("An identity cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("An identity cannot be changed")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Identity):
            return self._content == other._content
        return Mapping.__eq__(self, other)

    def __hash__(self) -> int:
        return hash(self._content)

    def __reduce__(self) -> tuple[type[Identity], tuple[dict[str, Any]]]:
        return Identity, (self._attributes,)

    def __repr__(self) -> str:
        return f"Identity({self._attributes!r})"


def _nested(attributes: dict[str, Any], name: str) -> Any:
    """`a.b` of a nested claim, or `a` as a dict of claims that arrived flattened (`a.b`)."""
    if "." in name:
        value: Any = attributes
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return value
    prefix = name + "."
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(prefix):
            *parents, leaf = key[len(prefix) :].split(".")
            place = found
            for parent in parents:
                inner = place.get(parent)
                if not isinstance(inner, dict):
                    inner = place[parent] = {}
                place = inner
            place[leaf] = value
    return found or None


def attribute_name(name: str) -> str:
    """An attribute's name on the wire, from either spelling; other names stay as they are."""
    return _WIRE_NAMES.get(name, name)


@dataclass(frozen=True, slots=True)
class RequestSource:
    """Where a request came from."""

    ip: str | None
    user_agent: str | None
    request_id: str  # empty: each call may have its own
    auth_token: str | None = field(default=None, repr=False)  # whoever logs a caller logs no token


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something runs. An admin may also act as a user.

    `job` is the id of the scheduled function that this is a part of. `expires_ns` is when the
    credentials end, on the wall clock; None: never. `request` is what is known of the request
    behind the call. Neither says anything about who the caller is.
    """

    identity: Identity | None
    is_admin: bool = False
    job: str | None = None
    request: RequestSource | None = field(default=None, compare=False)
    expires_ns: int | None = field(default=None, compare=False)


ANONYMOUS = Caller(None)
