"""Which credentials make which callers."""

import base64
import json

import pytest

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import Caller
from reactive_store.auth.keys import AdminKeys
from reactive_store.errors import BadRequest, Unauthenticated

KEYS = AdminKeys("store", bytes(32))
AUTHENTICATOR = Authenticator(KEYS)


def part(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def token(payload: object) -> str:
    return f"{part({'alg': 'RS256'})}.{part(payload)}.c2ln"


def test_a_good_key_makes_an_administrator():
    assert AUTHENTICATOR.admin(KEYS.issue(), None) == Caller(None, is_admin=True)


def test_an_administrator_may_act_as_a_user():
    caller = AUTHENTICATOR.admin(KEYS.issue(), {"issuer": "i", "subject": "s", "plan": "pro"})
    assert caller.is_admin
    assert caller.identity is not None
    assert caller.identity.token_identifier == "i|s"
    assert caller.identity["plan"] == "pro"


def test_a_bad_key_is_refused_before_the_user_is_looked_at():
    with pytest.raises(Unauthenticated) as refused:
        AUTHENTICATOR.admin("store|0123", {})
    assert refused.value.code == "BadAdminKey"
    assert refused.value.message == "The provided admin key was invalid for this instance"


def test_acting_as_nobody_is_a_bad_request():
    with pytest.raises(BadRequest) as refused:
        AUTHENTICATOR.admin(KEYS.issue(), {"name": "x"})
    assert refused.value.code == "InvalidIdentity"


@pytest.mark.parametrize(
    ("given", "code", "start"),
    [
        (token({"iss": "https://a", "sub": "x"}), "NoAuthProvider", "No auth provider found"),
        (token({"sub": "x"}), "InvalidAuthHeader", "Missing issuer claim ('iss')"),
        (token([]), "InvalidAuthHeader", "Could not parse JWT payload"),
        (token("not json"), "InvalidAuthHeader", "Could not parse JWT payload"),
        ("a.b", "InvalidAuthHeader", "Could not parse JWT payload"),
        ("a.*.c", "InvalidAuthHeader", "Could not parse JWT payload"),
        ("", "InvalidAuthHeader", "Could not parse JWT payload"),
    ],
)
async def test_a_user_token_is_refused_with_the_reason(given, code, start):
    with pytest.raises(Unauthenticated) as refused:
        await AUTHENTICATOR.authenticate(given)
    assert refused.value.code == code
    assert refused.value.message.startswith(start)
