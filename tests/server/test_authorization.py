"""The Authorization header in every form it arrives in."""

import base64
import json

import pytest
from starlette.requests import HTTPConnection

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import ANONYMOUS, Caller, Identity, RequestSource
from reactive_store.auth.keys import AdminKeys
from reactive_store.errors import BadRequest, Forbidden, Unauthenticated
from reactive_store.server.authorization import (
    admin_of_request,
    caller_of_request,
    from_request,
    require_admin,
    split_admin_key,
)

KEYS = AdminKeys("store", bytes(32))
KEY = KEYS.issue()
AUTHENTICATOR = Authenticator(KEYS)
BOB = {"issuer": "https://convex.test", "subject": "bob", "name": "Bob"}
BOB_TEXT = base64.b64encode(json.dumps(BOB).encode()).decode()
ADMIN = Caller(None, is_admin=True)
AS_BOB = Caller(Identity.from_attributes(BOB), is_admin=True)


def caller_of(header: str | None, query: dict[str, str] | None = None):
    headers = {} if header is None else {"authorization": header}
    return caller_of_request(headers, query or {}, AUTHENTICATOR)


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, {}, ANONYMOUS),
        (None, {"adminKey": KEY}, ADMIN),
        (f"Convex {KEY}", {}, ADMIN),
        (f"convex {KEY}", {}, ADMIN),
        (f"CONVEX  {KEY} ", {}, ADMIN),
        (f"Convex prod:{KEY}", {}, ADMIN),
        (f"Convex {KEY}:{BOB_TEXT}", {}, AS_BOB),
        (f"Convex dev:{KEY}:{BOB_TEXT}", {}, AS_BOB),
        (f"Convex {KEY}", {"adminKey": "wrong"}, ADMIN),
    ],
)
async def test_who_a_header_makes_the_caller(header, query, expected):
    assert await caller_of(header, query) == expected


@pytest.mark.parametrize(
    ("header", "cls", "code"),
    [
        ("", BadRequest, "InvalidHeaderFailure"),
        ("short", BadRequest, "InvalidHeaderFailure"),
        ("Basic dXNlcjpwYXNz", BadRequest, "InvalidAdminKey"),
        ("Bearer ", BadRequest, "InvalidAdminKey"),
        ("Bearer  \t", BadRequest, "InvalidAdminKey"),
        (f"Convex {KEY}:???", BadRequest, "HeaderParseFailure"),
        (f"Convex {KEY}:{base64.b64encode(b'[1]').decode()}", BadRequest, "HeaderParseFailure"),
        (f"Convex {KEY}:{base64.b64encode(b'{').decode()}", BadRequest, "HeaderParseFailure"),
        (f"Convex {KEY}:{base64.b64encode(b'{}').decode()}", BadRequest, "InvalidIdentity"),
        ("Convex store|00", Unauthenticated, "BadAdminKey"),
        ("Convex ", Unauthenticated, "BadAdminKey"),
        (f"Convex preview:{KEY}", Unauthenticated, "BadAdminKey"),
        ("bearer not.a.token", Unauthenticated, "InvalidAuthHeader"),
    ],
)
async def test_what_is_no_credential_is_refused(header, cls, code):
    with pytest.raises(cls) as refused:
        await caller_of(header)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name|abc", ("name|abc", None)),
        ("prod:name|abc", ("name|abc", None)),
        ("project:team:name|abc", ("abc", None)),
        ("abc", ("abc", None)),
        (f"name|abc:{BOB_TEXT}", ("name|abc", BOB)),
        (f"abc:{BOB_TEXT}", ("abc", BOB)),
    ],
)
def test_how_a_key_is_split(text, expected):
    assert split_admin_key(text) == expected


async def test_an_endpoint_for_administrators_refuses_everybody_else():
    for header in (None, "Convex store|00", "bearer a.e30.c"):
        headers = {} if header is None else {"authorization": header}
        with pytest.raises(Forbidden) as refused:
            await admin_of_request(headers, {}, AUTHENTICATOR)
        assert refused.value.code == "BadDeployKey"
        assert refused.value.message.startswith("The provided deploy key was invalid")
    assert await admin_of_request({"authorization": f"Convex {KEY}"}, {}, AUTHENTICATOR) == ADMIN


@pytest.mark.parametrize(
    ("caller", "header", "token"),
    [
        (Caller(Identity.from_attributes(BOB)), "Bearer the.users.token", "the.users.token"),
        (ANONYMOUS, "Bearer one.that.was-refused", None),
        (AS_BOB, f"Convex {KEY}", None),
    ],
)
def test_a_caller_carries_its_request_and_is_the_same_caller(caller, header, token):
    headers = [(b"authorization", header.encode()), (b"user-agent", b"me")]
    scope = {"type": "http", "headers": headers, "client": ("192.0.2.1", 1)}
    known = from_request(caller, HTTPConnection(scope), "id")
    assert known == caller
    assert known.request == RequestSource("192.0.2.1", "me", "id", token)


def test_an_administrator_passes():
    assert require_admin(ADMIN) is ADMIN
    with pytest.raises(Forbidden):
        require_admin(ANONYMOUS)
