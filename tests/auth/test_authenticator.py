"""Which credentials make which callers."""

import asyncio
import base64
import json
import logging
from datetime import timedelta

import pytest

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import Caller
from reactive_store.auth.keys import AdminKeys
from reactive_store.auth.providers import JwtProvider, OidcProvider
from reactive_store.errors import BadRequest, Overloaded, Unauthenticated
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.auth.issuer import AUDIENCE, DISCOVERY, JWKS, Answer, LocalIssuer, data_uri, key_of

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


# ---- with providers ----


@pytest.fixture
def issuer():
    with LocalIssuer() as running:
        yield running


def oidc(issuer: LocalIssuer) -> OidcProvider:
    return OidcProvider(domain=issuer.url, application_id=AUDIENCE)


def published(issuer: LocalIssuer) -> JwtProvider:
    return JwtProvider(issuer=issuer.url, jwks=issuer.url + JWKS, algorithm=issuer.key.algorithm)


class Desk:
    """An authenticator on a clock that is moved by hand."""

    def __init__(self, *providers, redact: bool = False) -> None:
        self.runtime = VirtualRuntime()
        self.authenticator = Authenticator(KEYS, runtime=self.runtime, redact=redact)
        self.authenticator.configure(providers)

    def token(self, issuer: LocalIssuer, subject: str = "ann", **changes) -> str:
        return issuer.token(subject, now=self.runtime.now_ns() / 1e9, **changes)

    async def subject(self, token: str) -> str:
        caller = await self.authenticator.authenticate(token)
        assert caller.identity is not None
        return caller.identity.subject

    async def refusal(self, token: str) -> tuple[str, str]:
        with pytest.raises(Unauthenticated) as refused:
            await self.authenticator.authenticate(token)
        return refused.value.code, refused.value.message

    async def later(self, seconds: float) -> None:
        await self.runtime.advance(timedelta(seconds=seconds))


async def test_a_good_token_makes_a_user_until_it_ends(issuer):
    desk = Desk(oidc(issuer))
    caller = await desk.authenticator.authenticate(desk.token(issuer))
    assert caller.identity is not None
    assert caller.identity.token_identifier == f"{issuer.url}|ann"
    assert caller.expires_ns == desk.runtime.now_ns() + 3600 * 1_000_000_000
    assert not caller.is_admin


async def test_keys_are_fetched_for_the_first_token_only(issuer):
    desk = Desk(oidc(issuer))
    tokens = [desk.token(issuer, f"user{n}") for n in range(20)]
    assert await asyncio.gather(*map(desk.subject, tokens)) == [f"user{n}" for n in range(20)]
    assert issuer.requests == [DISCOVERY, JWKS]


@pytest.mark.parametrize("make", [oidc, published])
async def test_a_rotated_key_counts_at_once_and_the_old_one_no_longer(issuer, make):
    desk = Desk(make(issuer))
    before = desk.token(issuer)
    assert await desk.subject(before) == "ann"
    issuer.rotate()
    assert await desk.subject(desk.token(issuer, "bob")) == "bob"
    code, _ = await desk.refusal(before)
    assert code in {"Unauthenticated", "InvalidAuthHeader"}


async def test_a_key_that_is_withdrawn_is_forgotten_when_the_issuer_said(issuer):
    issuer.answers[JWKS] = Answer(headers={"Cache-Control": "max-age=30"})
    desk = Desk(published(issuer))
    before = desk.token(issuer)
    assert await desk.subject(before) == "ann"
    issuer.rotate()
    await desk.later(29)
    assert await desk.subject(before) == "ann"
    await desk.later(1)
    await desk.refusal(before)


async def test_tokens_of_made_up_keys_cost_few_fetches_and_nobody_else(issuer):
    desk = Desk(oidc(issuer))
    good = desk.token(issuer)
    claims = issuer.claims(now=desk.runtime.now_ns() / 1e9)
    for number in range(100):
        await desk.refusal(key_of("RS256", 9).sign(claims, kid=f"made-up-{number}"))
        assert await desk.subject(good) == "ann"
    assert issuer.fetches(JWKS) <= 5


async def test_a_token_that_has_expired_costs_no_fetch(issuer):
    desk = Desk(oidc(issuer))
    assert (await desk.refusal(desk.token(issuer, exp=1)))[0] == "Unauthenticated"
    assert issuer.requests == []


async def test_a_key_of_the_same_name_may_be_replaced(issuer):
    desk = Desk(oidc(issuer))
    await desk.subject(desk.token(issuer))
    name = issuer.key.kid
    issuer.rotate()
    issuer.key = type(issuer.key)(issuer.key.algorithm, name, issuer.key.private)
    issuer.published = [issuer.key]
    assert await desk.subject(desk.token(issuer, "bob")) == "bob"


async def test_a_signature_by_somebody_else_is_refused(issuer):
    forged = key_of(issuer.key.algorithm, 7).sign(issuer.claims(), kid=issuer.key.kid)
    for make, code in ((oidc, "Unauthenticated"), (published, "InvalidAuthHeader")):
        desk = Desk(make(issuer))
        await desk.later(1e9)
        claims = issuer.claims(now=desk.runtime.now_ns() / 1e9)
        forged = key_of(issuer.key.algorithm, 7).sign(claims, kid=issuer.key.kid)
        refused_code, message = await desk.refusal(forged)
        assert refused_code == code
        assert message.startswith("Could not verify")


async def test_an_issuer_that_calls_itself_something_else_vouches_for_nobody(issuer):
    desk = Desk(oidc(issuer))
    with pytest.raises(BadRequest) as refused:
        await desk.authenticator.authenticate(desk.token(issuer, iss=issuer.url + "/"))
    assert refused.value.code == "AuthProviderDiscoveryFailed"


async def test_an_issuer_that_fails_takes_no_other_down(issuer):
    with LocalIssuer("ES256") as other:
        desk = Desk(oidc(issuer), published(other))
        issuer.answers[DISCOVERY] = Answer(503, delay_s=0.3)
        failing = asyncio.create_task(desk.authenticator.authenticate(desk.token(issuer)))
        await asyncio.sleep(0.05)
        assert await desk.subject(desk.token(other, "bob")) == "bob"
        assert not failing.done()
        with pytest.raises(Overloaded) as refused:
            await failing
        assert refused.value.code == "AuthProviderDiscoveryFailed"


async def test_other_providers_count_from_the_moment_they_are_configured(issuer):
    desk = Desk(oidc(issuer))
    token = desk.token(issuer)
    assert await desk.subject(token) == "ann"
    desk.authenticator.configure([])
    assert (await desk.refusal(token))[0] == "NoAuthProvider"
    desk.authenticator.configure([oidc(issuer)])
    assert await desk.subject(token) == "ann"
    assert desk.authenticator.providers == (oidc(issuer),)


async def test_a_provider_that_stays_keeps_its_keys(issuer):
    desk = Desk(oidc(issuer))
    await desk.subject(desk.token(issuer))
    extra = JwtProvider(issuer="https://x", jwks=data_uri(key_of("ES256")), algorithm="ES256")
    desk.authenticator.configure([extra, oidc(issuer)])
    await desk.subject(desk.token(issuer))
    assert issuer.fetches(JWKS) == 1


async def test_who_could_vouch_is_told_only_where_texts_are_shown(issuer):
    desk, hushed = Desk(oidc(issuer)), Desk(oidc(issuer), redact=True)
    text = token({"iss": "https://a", "aud": "b"})
    assert (await desk.refusal(text))[1] == (
        "No auth provider found matching the given token (issuer https://a, audience b). "
        f"Configured: domain {issuer.url}, audience {AUDIENCE}"
    )
    assert (await hushed.refusal(text))[1] == "No auth provider found matching the given token"
    assert "no providers configured" in (await Desk().refusal(text))[1]


async def test_nothing_of_a_token_reaches_the_log(issuer, caplog):
    caplog.set_level(logging.DEBUG)
    desk = Desk(oidc(issuer))
    good = desk.token(issuer, "secret-subject", email="secret@mail")
    await desk.subject(good)
    await desk.refusal(good[:-6] + "AAAAAA")
    issuer.answers[DISCOVERY] = Answer(503)
    await desk.later(3600)
    with pytest.raises(Overloaded):
        await desk.authenticator.authenticate(desk.token(issuer, "secret-subject"))
    # asyncio names tasks and nothing more.
    assert "secret" not in caplog.text
    assert good.split(".")[1] not in caplog.text


async def test_closing_ends_every_wait(issuer):
    issuer.answers[DISCOVERY] = Answer(delay_s=0.4)
    desk = Desk(oidc(issuer))
    waiting = asyncio.create_task(desk.authenticator.authenticate(desk.token(issuer)))
    await asyncio.sleep(0.05)
    await desk.authenticator.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await desk.refusal(desk.token(issuer)))[0] == "NoAuthProvider"
