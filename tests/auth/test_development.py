"""The deployment's own issuer."""

from __future__ import annotations

import dataclasses
import json

import jwt
import pytest

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.development import AUDIENCE, ISSUER, DevelopmentIssuer
from reactive_store.auth.keys import AdminKeys
from reactive_store.errors import BadRequest, Unauthenticated
from reactive_store.testing.virtual_runtime import VirtualRuntime

ONE = DevelopmentIssuer(bytes(32))
OTHER = DevelopmentIssuer(b"\x01" * 32)


def accepting(issuer: DevelopmentIssuer) -> Authenticator:
    found = Authenticator(AdminKeys("n", bytes(32)), runtime=VirtualRuntime())
    found.configure([issuer.provider])
    return found


def token(by: DevelopmentIssuer = ONE, /, **attributes: object) -> str:
    return by.issue({"subject": "ann", **attributes}, VirtualRuntime().now_ns(), 60)


async def test_a_token_makes_the_user_it_describes():
    text = token(name="Ann", given_name="A", emailVerified=True, plan="pro", org={"id": 5})
    caller = await accepting(ONE).authenticate(text)
    assert caller.identity is not None
    assert caller.identity.to_json() == {
        "issuer": ISSUER,
        "subject": "ann",
        "tokenIdentifier": f"{ISSUER}|ann",
        "name": "Ann",
        "givenName": "A",
        "emailVerified": True,
        "plan": "pro",
        "org.id": 5,
    }
    assert caller.expires_ns == VirtualRuntime().now_ns() + 60 * 1_000_000_000
    assert not caller.is_admin


async def test_a_token_of_another_deployment_is_refused():
    with pytest.raises(Unauthenticated, match="Could not verify token claim"):
        await accepting(OTHER).authenticate(token())


async def test_the_key_follows_from_the_secret_alone():
    again = DevelopmentIssuer(bytes(32))
    assert again.key_set == ONE.key_set
    assert again.provider == ONE.provider
    assert await accepting(again).authenticate(token())
    assert OTHER.key_set != ONE.key_set


def test_only_the_public_key_is_given_away():
    (key,) = ONE.key_set["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    claims = jwt.decode(
        token(),
        jwt.PyJWK(key),
        algorithms=["ES256"],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"verify_exp": False},
    )
    assert claims["sub"] == "ann"
    assert json.loads(json.dumps(ONE.key_set)) == ONE.key_set


def test_the_provider_says_what_it_accepts():
    provider = ONE.provider
    assert (provider.issuer, provider.algorithm, provider.application_id) == (
        ISSUER,
        "ES256",
        AUDIENCE,
    )
    assert dataclasses.is_dataclass(provider)


@pytest.mark.parametrize(
    "attributes",
    [{"issuer": "https://other"}, {"token_identifier": "a|b"}, {"name": 5}, {"subject": None}],
)
def test_what_describes_no_user_of_this_issuer_is_refused(attributes):
    with pytest.raises(BadRequest) as refused:
        token(**attributes)
    assert refused.value.code == "InvalidIdentity"


async def test_claims_cannot_change_for_whom_or_until_when_a_token_is():
    text = token(exp=10**10, aud="else", iat=0, sub="bob")
    caller = await accepting(ONE).authenticate(text)
    assert caller.identity is not None
    assert caller.identity.subject == "ann"
    assert caller.expires_ns == VirtualRuntime().now_ns() + 60 * 1_000_000_000
