"""The `Authorization` header, and who that makes the caller.

`Bearer <token>` is a user, `Convex <key>` an administrator, `Convex <key>:<base64 JSON>` an
administrator acting as the user described. No header is nobody, unless the query string carries an
`adminKey`.

Source: the parsing rules of Convex's open server; what its clients and command line send
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from starlette.requests import HTTPConnection

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import ANONYMOUS, Caller, RequestSource
from reactive_store.errors import BadRequest, Forbidden, Unauthenticated

__all__ = [
    "admin_of_request",
    "caller_of_request",
    "from_request",
    "require_admin",
    "source_of",
    "split_admin_key",
]

_SCHEME_CHARS = 7  # both schemes are six letters and a space
_WHOLE_PREFIX_TYPES = ("preview", "project")
_BAD_DEPLOY_KEY = (
    "The provided deploy key was invalid for this deployment. Double check that the environment "
    "this key was generated for matches the desired deployment."
)


async def caller_of_request(
    headers: Mapping[str, str], query: Mapping[str, str], authenticator: Authenticator
) -> Caller:
    """The caller of an HTTP request.

    Raises   BadRequest[InvalidHeaderFailure, HeaderParseFailure, InvalidAdminKey] for a header
             that cannot be read; Unauthenticated for credentials that are refused
    """
    header = headers.get("authorization")
    if header is None:
        key = query.get("adminKey")
        return ANONYMOUS if key is None else authenticator.admin(*split_admin_key(key))
    if len(header) < _SCHEME_CHARS:
        raise BadRequest("Invalid authentication header", code="InvalidHeaderFailure")
    scheme, rest = header[:_SCHEME_CHARS].lower(), header[_SCHEME_CHARS:].strip()
    if scheme == "convex ":
        return authenticator.admin(*split_admin_key(rest))
    if scheme == "bearer " and rest:
        return await authenticator.authenticate(rest)
    raise BadRequest("Invalid admin key", code="InvalidAdminKey")


def from_request(caller: Caller, request: HTTPConnection, request_id: str) -> Caller:
    """The caller, together with what is known of its request."""
    header = request.headers.get("authorization", "")
    bearer = header[:_SCHEME_CHARS].lower() == "bearer "
    token = header[_SCHEME_CHARS:].strip() if bearer and caller.identity is not None else None
    return replace(caller, request=source_of(request, request_id, token))


def source_of(
    request: HTTPConnection, request_id: str = "", token: str | None = None
) -> RequestSource:
    """Where a request came from, as far as the peer and its headers tell."""
    client = request.client
    ip = None if client is None else client.host
    return RequestSource(ip, request.headers.get("user-agent"), request_id, token)


def split_admin_key(text: str) -> tuple[str, dict[str, Any] | None]:
    """An admin key as HTTP carries it: the key itself, and the attributes of the user to act as.

    Raises   BadRequest[HeaderParseFailure] when those attributes cannot be read
    """
    prefix, bar, rest = text.partition("|")
    kind, colon, name = prefix.partition(":")
    if bar and colon:
        text = rest if kind in _WHOLE_PREFIX_TYPES else f"{name}|{rest}"
    key, colon, encoded = text.partition(":")
    if not colon:
        return key, None
    try:
        attributes = orjson.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadRequest("Malformed Authorization header.", code="HeaderParseFailure") from error
    if not isinstance(attributes, dict):
        raise BadRequest("Malformed Authorization header.", code="HeaderParseFailure")
    return key, attributes


async def admin_of_request(
    headers: Mapping[str, str], query: Mapping[str, str], authenticator: Authenticator
) -> Caller:
    """The administrator who sends a request to an endpoint for administrators only.

    Raises   Forbidden[BadDeployKey] when it is not one. Convex's tools show that text as it is;
             its dashboard would leave the page on a 401.
    """
    try:
        caller = await caller_of_request(headers, query, authenticator)
    except Unauthenticated as error:
        raise Forbidden(_BAD_DEPLOY_KEY, code="BadDeployKey") from error
    return require_admin(caller)


def require_admin(caller: Caller) -> Caller:
    """The caller, if it is an administrator.

    Raises   Forbidden[BadDeployKey]
    """
    if not caller.is_admin:
        raise Forbidden(_BAD_DEPLOY_KEY, code="BadDeployKey")
    return caller
