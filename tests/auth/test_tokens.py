"""What tokens say, and which of them count."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.auth.providers import JwtProvider, OidcProvider
from reactive_store.auth.tokens import (
    Claimed,
    bad_jwt_signature,
    bad_oidc_signature,
    jwt_claims,
    oidc_claims,
    parse_token,
)
from reactive_store.errors import Unauthenticated
from tests.auth.issuer import data_uri, key_of

NOW_S = 1_750_000_000
NOW_NS = NOW_S * 1_000_000_000
ISSUER = "https://id.example.com"
OIDC = OidcProvider(domain=ISSUER, application_id="app")
JWT = JwtProvider(
    issuer=ISSUER, jwks=data_uri(key_of("ES256")), algorithm="ES256", application_id="app"
)
GOOD = {"iss": ISSUER, "sub": "ann", "aud": "app", "iat": NOW_S - 10, "exp": NOW_S + 60}


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def text_of(header: object, claims: object) -> str:
    return f"{part(header)}.{part(claims)}.c2ln"


def without(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def oidc(now_ns: int = NOW_NS, header: dict[str, Any] | None = None, **claims: Any) -> Claimed:
    head = without({"alg": "RS256", "kid": "k", "typ": "JWT"} | (header or {}))
    token = parse_token(text_of(head, without({**GOOD, **claims})), 100_000)
    return oidc_claims(token, OIDC, now_ns)


def custom(
    now_ns: int = NOW_NS,
    header: dict[str, Any] | None = None,
    provider: JwtProvider = JWT,
    **claims: Any,
) -> Claimed:
    head = without({"alg": "ES256", "kid": "k", "typ": "JWT"} | (header or {}))
    token = parse_token(text_of(head, without({**GOOD, **claims})), 100_000)
    return jwt_claims(token, provider, now_ns)


def refusal(make: Any, *args: Any, **claims: Any) -> tuple[str, str]:
    with pytest.raises(Unauthenticated) as refused:
        make(*args, **claims)
    return refused.value.code, refused.value.message


NOT_A_TOKEN = (
    "Could not parse JWT payload. Check that the token is a valid JWT format with three "
    "base64-encoded parts separated by dots."
)
NOT_OIDC = "Could not parse as OIDC ID token. Token might not be an OIDC-compliant JWT."
BAD_OIDC = (
    "Could not verify OIDC token claim. Check that the token signature is valid and the token "
    "hasn't expired."
)
BAD_JWT = BAD_OIDC.replace("OIDC ", "")


# ---- taking a token apart ----


HEAD = part({})
NO_TOKENS = [
    "",
    "a.b",
    "a.b.c.d",
    f"{HEAD}.*.c2ln",
    f"{HEAD}.{part([])}.c2ln",
    f"{HEAD}.{part(b'not json')}.c2ln",
    f"{HEAD}.{part(GOOD)}.*",
    f"{HEAD}.{part(b'{' + b'[' * 9000)}.c2ln",
    f"{HEAD}.{part(b'[' * 9000 + b']' * 9000)}.c2ln",
    HEAD + "." + part(b'{"iss": "i", "n": NaN}') + ".c2ln",
    HEAD + "." + part(rb'{"iss": "i", "n": "\ud800"}') + ".c2ln",
    HEAD + "." + part(b"\xff") + ".c2ln",
    text_of({}, {**GOOD, "long": "x" * 100_000}),
    "ä.ö.ü",
]


@pytest.mark.parametrize("text", NO_TOKENS, ids=range(len(NO_TOKENS)))
def test_what_is_no_token_is_told_in_convex_words(text):
    assert refusal(parse_token, text, 100_000) == ("InvalidAuthHeader", NOT_A_TOKEN)


@pytest.mark.parametrize("issuer", [None, "", 5, ["https://i"]])
def test_a_token_names_its_issuer(issuer):
    code, message = refusal(parse_token, text_of({}, {**GOOD, "iss": issuer}), 100_000)
    assert code == "InvalidAuthHeader"
    assert message.startswith("Missing issuer claim ('iss') in JWT payload. ")


@given(st.text())
def test_no_text_is_more_than_refused(text):
    with contextlib.suppress(Unauthenticated):
        parse_token(text, 1000)


def test_audiences_are_one_text_or_several():
    def audiences(value: object) -> tuple[str, ...]:
        return parse_token(text_of({}, {**GOOD, "aud": value}), 1000).audiences

    assert audiences("a") == ("a",)
    assert audiences(["a", 5, "b"]) == ("a", "b")
    assert audiences(None) == audiences({"a": 1}) == ()


def test_a_header_that_cannot_be_read_is_an_empty_one():
    assert parse_token(f"*.{part(GOOD)}.c2ln", 1000).header == {}


# ---- ID tokens ----


def test_an_id_token_says_who_until_when_and_by_which_key():
    claimed = oidc()
    assert claimed.identity.to_json() == {
        "tokenIdentifier": f"{ISSUER}|ann",
        "subject": "ann",
        "issuer": ISSUER,
    }
    assert claimed.expires_ns == (NOW_S + 60) * 1_000_000_000
    assert (claimed.algorithm, claimed.key_id) == ("RS256", "k")
    assert oidc(header={"kid": None}).key_id is None
    assert oidc(header={"typ": None}).identity == claimed.identity


def test_standard_claims_of_an_id_token_get_their_convex_names():
    claims = {
        "name": "Ann A",
        "given_name": "Ann",
        "family_name": "A",
        "nickname": "an",
        "preferred_username": "ann1",
        "profile": "https://p",
        "picture": "https://i",
        "website": "https://w",
        "email": "a@b",
        "email_verified": True,
        "gender": "f",
        "birthdate": "2000-01-01",
        "zoneinfo": "Europe/Berlin",
        "locale": "de",
        "phone_number": "+1",
        "phone_number_verified": False,
        "address": {"formatted": "1 Street", "country": "X"},
        "updated_at": 1_700_000_000,
    }
    identity = oidc(**claims).identity
    expected = {
        "name": "Ann A",
        "givenName": "Ann",
        "familyName": "A",
        "nickname": "an",
        "preferredUsername": "ann1",
        "profileUrl": "https://p",
        "pictureUrl": "https://i",
        "websiteUrl": "https://w",
        "email": "a@b",
        "emailVerified": True,
        "gender": "f",
        "birthday": "2000-01-01",
        "timezone": "Europe/Berlin",
        "language": "de",
        "phoneNumber": "+1",
        "phoneNumberVerified": False,
        "address": "1 Street",
        "updatedAt": "2023-11-14T22:13:20+00:00",
    }
    owner = {"tokenIdentifier": f"{ISSUER}|ann", "subject": "ann", "issuer": ISSUER}
    assert identity.to_json() == expected | owner
    assert (identity.given_name, identity.email_verified) == ("Ann", True)


def test_other_claims_of_an_id_token_keep_their_names_and_form():
    identity = oidc(org={"id": 5, "roles": ["a"]}, plan="pro", azp="x").identity
    assert identity["org"] == {"id": 5, "roles": ["a"]}
    assert identity["org"]["id"] == identity["org.id"] == 5
    assert (identity["plan"], identity["azp"]) == ("pro", "x")


def test_claims_about_the_token_are_not_about_the_user():
    extra = {"jti": "1", "nbf": NOW_S, "fva": [1, 2], "nonce": "n", "at_hash": "h"}
    assert oidc(**extra).identity == oidc(iat=NOW_S - 99, exp=NOW_S + 999).identity
    plain = {"jti": "1", "nbf": NOW_S, "fva": [1, 2]}
    assert custom(**plain).identity == custom(iat=NOW_S - 99, exp=NOW_S + 999).identity


def test_no_claim_can_say_that_it_is_somebody_else():
    forged = {"tokenIdentifier": "x|root", "subject": "root", "issuer": "x"}
    assert oidc(**forged).identity == oidc().identity
    assert custom(**forged).identity == custom().identity


def test_absent_and_empty_claims_are_absent_attributes():
    identity = oidc(email=None, address={}).identity
    assert "email" not in identity
    assert "address" not in identity
    assert identity.email is None


def test_an_issuer_that_writes_times_and_addresses_as_text_is_understood():
    identity = oidc(updated_at="2024-01-01T00:00:00Z", address="1 Street").identity
    assert identity.updated_at == "2024-01-01T00:00:00Z"
    assert identity.address == "1 Street"


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None},
        {"sub": 5},
        {"aud": None},
        {"aud": []},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 10**30},
        {"exp": -1},
        {"iat": None},
        {"header": {"alg": None}},
        {"header": {"alg": 5}},
        {"header": {"kid": 5}},
        {"email": 5},
        {"email_verified": "yes"},
        {"updated_at": {}},
        {"address": 5},
    ],
)
def test_what_is_no_id_token_is_told_so(claims):
    assert refusal(oidc, **claims) == ("InvalidAuthHeader", NOT_OIDC)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_S},
        {"exp": NOW_S - 1},
        {"exp": NOW_S - 0.5},
        {"aud": "other"},
        {"aud": ["app", "other"]},
        {"header": {"alg": "ES256"}},
        {"header": {"alg": "HS256"}},
        {"header": {"alg": "RS512"}},
        {"header": {"alg": "none"}},
        {"header": {"crit": ["b64"]}},
    ],
)
def test_an_id_token_that_does_not_count_is_told_so(claims):
    assert refusal(oidc, **claims) == ("Unauthenticated", BAD_OIDC)


def test_what_an_id_token_may_be():
    oidc(exp=NOW_S + 0.5)
    oidc(aud=["app"])
    oidc(nbf=NOW_S + 1000)
    oidc(iat=NOW_S + 1000)
    oidc(header={"alg": "EdDSA"})


# ---- other tokens ----


def test_nested_claims_of_a_custom_token_are_flat_and_keep_their_names():
    identity = custom(
        properties={"id": "1", "deep": {"er": [{"a": 1}]}, "none": {}},
        given_name="Ann",
        nonce="kept",
    ).identity
    assert identity.to_json() == {
        "tokenIdentifier": f"{ISSUER}|ann",
        "subject": "ann",
        "issuer": ISSUER,
        "properties.id": "1",
        "properties.deep.er": [{"a": 1}],
        "properties.none": {},
        "given_name": "Ann",
        "nonce": "kept",
    }
    assert identity["properties"]["id"] == identity["properties.id"] == "1"
    assert identity.given_name is None


def test_the_issuer_of_a_custom_token_is_written_as_the_token_has_it():
    assert custom(iss=ISSUER + "/").identity.token_identifier == f"{ISSUER}/|ann"


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"iss": "https://x"}, f"Invalid issuer: https://x != {ISSUER}"),
        ({"aud": ["a", "b"]}, "Invalid audience: app not in {a, b}"),
        ({"aud": None}, "Invalid audience: app not in {}"),
        ({"header": {"alg": "RS256"}}, BAD_JWT),
        ({"header": {"alg": "none"}}, BAD_JWT),
        ({"header": {"alg": None}}, BAD_JWT),
        ({"header": {"crit": []}}, BAD_JWT),
        ({"header": {"kid": None}}, "Could not validate token: its header has no `kid`"),
        ({"header": {"typ": None}}, "Could not validate token: its header has no `typ`"),
        ({"sub": None}, "Could not validate token: it has no claim `sub`"),
        ({"exp": None}, "Could not validate token: `exp` is needed, and times are in seconds"),
        ({"nbf": "x"}, "Could not validate token: `exp` is needed, and times are in seconds"),
        ({"exp": NOW_S - 5}, "Could not validate token: it has expired"),
        ({"nbf": NOW_S + 6}, "Could not validate token: it is not valid yet (`nbf`)"),
        ({"iat": NOW_S + 6}, "Could not validate token: it is not valid yet (`iat`)"),
    ],
)
def test_a_custom_token_that_does_not_count_says_why(claims, message):
    assert refusal(custom, **claims) == ("InvalidAuthHeader", message)


def test_what_a_custom_token_may_be():
    custom(exp=NOW_S - 4)  # clocks differ
    custom(nbf=NOW_S + 5, iat=NOW_S + 5)
    custom(iat=None)
    custom(aud=["other", "app"])
    anybody = JwtProvider(issuer=ISSUER, jwks=JWT.jwks, algorithm="ES256")
    custom(provider=anybody, aud=None)
    custom(provider=anybody, aud="else")


def test_claims_nested_too_deeply_are_refused():
    nested: dict[str, Any] = {}
    for _ in range(400):
        nested = {"a": nested}
    assert custom(deep=nested).identity
    key = "a" * 5
    assert custom(**{key: [nested]}).identity[key]


def test_a_short_token_cannot_make_long_claims():
    # Before its signature was looked at: 3,000 names of 22,000 characters, of a token of 60 KB.
    claims = {"z" * 22_000: {str(number): 0 for number in range(3000)}}
    reason = "Could not validate token: its claims are nested too deeply"
    assert refusal(custom, **claims) == ("InvalidAuthHeader", reason)
    identity = custom(z={str(number): number for number in range(3000)}).identity
    assert identity["z.2999"] == 2999


def test_signatures_that_are_none_are_told_in_convex_words():
    assert bad_oidc_signature().message == BAD_OIDC
    assert (bad_jwt_signature().code, bad_jwt_signature().message) == (
        "InvalidAuthHeader",
        BAD_JWT,
    )
