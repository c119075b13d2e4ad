"""Key sets, and when the keys of an issuer are fetched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from reactive_store.auth.key_sets import KeySet, KeySource, Loaded, load_of, parse_key_set
from reactive_store.auth.providers import JwtProvider, OidcProvider
from reactive_store.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    Overloaded,
    StoreError,
    Unauthenticated,
)
from reactive_store.limits import Limits
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.auth.issuer import AUDIENCE, DISCOVERY, JWKS, Answer, Key, LocalIssuer, data_uri, key_of

LIMITS = Limits()


def key_set(*keys: object) -> KeySet:
    entries = [key.public if isinstance(key, Key) else key for key in keys]
    return parse_key_set(json.dumps({"keys": entries}).encode())


def signed(key: Key) -> tuple[bytes, bytes]:
    text = b"what was signed"
    if key.algorithm == "EdDSA":
        return text, key.private.sign(text)
    writer = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm}[key.algorithm]
    return text, writer(writer.SHA256).sign(text, key.private)


def fits(keys: KeySet, key: Key, kid: str | None, algorithm: str | None = None) -> bool:
    return keys.verify(algorithm or key.algorithm, kid, *signed(key))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_signature_is_good_under_the_key_that_made_it(algorithm):
    one, two = key_of(algorithm), key_of(algorithm, 2)
    keys = key_set(one, two)
    assert fits(keys, one, one.kid)
    assert not fits(keys, one, two.kid)
    assert not fits(keys, one, "unknown")
    text, signature = signed(one)
    assert not keys.verify(algorithm, one.kid, text + b".", signature)
    assert not keys.verify(algorithm, one.kid, text, b"")


def test_a_key_without_name_is_found_when_there_is_only_one():
    one, two = key_of("RS256"), key_of("RS256", 2)
    assert fits(key_set(key_of("EdDSA"), one), one, None)
    assert not fits(key_set(one, two), one, None)


@pytest.mark.parametrize(
    ("kid", "algorithm"), [("RS256-1", "ES256"), ("RS256-1", "HS256"), ("RS256-1", "none")]
)
def test_an_algorithm_of_another_kind_finds_no_key(kid, algorithm):
    assert not key_set(key_of("RS256")).verify(algorithm, kid, b"a", b"b")


@pytest.mark.parametrize(
    "changes",
    [{"use": "enc"}, {"alg": "RS512"}, {"kty": "EC"}, {"n": 5}, {"n": "***"}, {"e": None}],
)
def test_a_key_for_something_else_or_broken_is_not_used(changes):
    key = key_of("RS256")
    assert not fits(key_set({**key.public, **changes}), key, key.kid)
    assert fits(key_set({**key.public, **changes}, key), key, key.kid) or "n" in changes


def test_small_keys_are_not_used():
    weak = Key("RS256", "weak", rsa.generate_private_key(65537, 1024))
    assert not fits(key_set(weak), weak, "weak")


def test_a_key_set_may_hold_what_is_not_understood():
    key = key_of("EdDSA")
    assert fits(key_set(5, {"kty": "oct", "k": "AAAA"}, {}, key), key, key.kid)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"keys":{}}', b"\xff", b"[" * 100_000])
def test_what_is_no_key_set_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        parse_key_set(text)


# ---- when keys are fetched ----


class Shelf:
    """Gives the next of what it is told to; counts."""

    def __init__(self) -> None:
        self.results: list[KeySet | StoreError] = []
        self.fresh_s: float | None = 60.0
        self.loads = 0
        self.gate: asyncio.Event | None = None

    async def load(self, _limits: Limits) -> Loaded:
        self.loads += 1
        if self.gate is not None:
            await self.gate.wait()
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, StoreError):
            raise result
        return Loaded(result, self.fresh_s)


ONE, TWO = key_set(key_of("ES256")), key_set(key_of("ES256", 2))


class Bench:
    """A source over a shelf, on a clock that is moved by hand."""

    def __init__(self, *results: KeySet | StoreError) -> None:
        self.shelf = Shelf()
        self.shelf.results = list(results)
        self.runtime = VirtualRuntime()
        self.source = KeySource(self.shelf.load, self.runtime, LIMITS)

    async def later(self, seconds: float) -> None:
        await self.runtime.advance(timedelta(seconds=seconds))


async def test_keys_are_fetched_once_while_they_are_fresh():
    bench = Bench(ONE, TWO)
    for _ in range(3):
        assert await bench.source.keys() is ONE
    await bench.later(59)
    assert await bench.source.keys() is ONE
    assert bench.shelf.loads == 1
    await bench.later(1)
    assert await bench.source.keys() is TWO


@pytest.mark.parametrize(
    ("fresh_s", "kept_s"), [(None, 60), (0.0, 5), (1e9, LIMITS.key_set_seconds)]
)
async def test_how_long_keys_are_fresh_has_bounds(fresh_s, kept_s):
    bench = Bench(ONE, TWO)
    bench.shelf.fresh_s = fresh_s
    await bench.source.keys()
    await bench.later(kept_s - 0.5)
    assert await bench.source.keys() is ONE
    await bench.later(0.5)
    assert await bench.source.keys() is TWO


async def test_one_fetch_serves_everybody_who_waits():
    bench = Bench(ONE)
    bench.shelf.gate = asyncio.Event()
    waiting = [asyncio.create_task(bench.source.keys()) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()  # one who gives up takes it from nobody
    bench.shelf.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [ONE] * 49
    assert bench.shelf.loads == 1


async def test_tokens_of_unknown_keys_make_few_fetches():
    bench = Bench(ONE)
    keys = await bench.source.keys()
    for _ in range(200):
        await bench.source.newer(keys)
        await bench.later(0.1)
    # A handful at once, and then one every few seconds of the twenty.
    assert bench.shelf.loads <= 5 + 20 / LIMITS.key_set_pause_seconds + 1


async def test_a_key_that_was_added_is_found_at_once():
    bench = Bench(ONE, TWO)
    keys = await bench.source.keys()
    assert await bench.source.newer(keys) is TWO
    assert await bench.source.newer(ONE) is TWO, "somebody else has fetched it meanwhile"
    assert bench.shelf.loads == 2


async def test_a_failure_is_told_to_all_and_forgotten_when_it_is_over():
    failure = Overloaded("not now", code="AuthProviderUnavailable")
    bench = Bench(failure)
    for _ in range(2):
        with pytest.raises(Overloaded, match="not now") as refused:
            await bench.source.keys()
        assert refused.value.code == "AuthProviderUnavailable"
        assert refused.value is not failure
    bench.shelf.results = [ONE]
    await bench.later(LIMITS.key_set_pause_seconds)
    assert await bench.source.keys() is ONE


async def test_a_failing_issuer_is_not_asked_for_every_token():
    bench = Bench(BadRequest("gone"))
    for _ in range(100):
        with pytest.raises(BadRequest):
            await bench.source.keys()
    assert bench.shelf.loads <= 5


async def test_keys_outlast_a_failure_of_their_issuer_but_not_for_ever():
    bench = Bench(ONE, Overloaded("not now"))
    await bench.source.keys()
    await bench.later(61)
    assert await bench.source.keys() is ONE
    loads = bench.shelf.loads
    assert await bench.source.keys() is ONE
    assert bench.shelf.loads == loads, "it is left in peace for a moment"
    await bench.later(LIMITS.key_set_seconds)
    with pytest.raises(Overloaded):
        await bench.source.keys()


async def test_closing_ends_the_wait():
    bench = Bench(ONE)
    bench.shelf.gate = asyncio.Event()
    waiting = asyncio.create_task(bench.source.keys())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await bench.source.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await bench.source.close()


# ---- where they come from ----


@pytest.fixture
async def issuer() -> AsyncIterator[LocalIssuer]:
    with LocalIssuer() as running:
        yield running


def discovery(issuer: LocalIssuer) -> OidcProvider:
    return OidcProvider(domain=issuer.url, application_id=AUDIENCE)


def published(issuer: LocalIssuer) -> JwtProvider:
    return JwtProvider(issuer=issuer.url, jwks=issuer.url + JWKS, algorithm="RS256")


async def test_discovery_leads_to_the_keys(issuer):
    loaded = await load_of(discovery(issuer))(LIMITS)
    assert loaded.keys.issuer == issuer.url
    assert fits(loaded.keys, issuer.key, issuer.key.kid)
    assert issuer.requests == [DISCOVERY, JWKS]


async def test_the_shorter_of_two_lifetimes_counts(issuer):
    issuer.answers = {
        DISCOVERY: Answer(headers={"Cache-Control": "max-age=900"}),
        JWKS: Answer(headers={"Cache-Control": "max-age=30"}),
    }
    assert (await load_of(discovery(issuer))(LIMITS)).fresh_s == 30
    assert (await load_of(published(issuer))(LIMITS)).fresh_s == 30


async def test_keys_at_a_url_or_in_the_configuration(issuer):
    loaded = await load_of(published(issuer))(LIMITS)
    assert loaded.keys.issuer is None
    assert fits(loaded.keys, issuer.key, issuer.key.kid)
    key = key_of("ES256")
    inline = JwtProvider(issuer="https://i", jwks=data_uri(key), algorithm="ES256")
    loaded = await load_of(inline)(LIMITS)
    assert fits(loaded.keys, key, key.kid)
    assert loaded.fresh_s == float("inf")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (429, Overloaded),
        (418, BadRequest),
        (500, Overloaded),
        (503, Overloaded),
    ],
)
@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
async def test_a_discovery_that_is_refused_has_the_class_of_the_refusal(issuer, path, status, cls):
    issuer.answers[path] = Answer(status, body=b"because")
    with pytest.raises(cls) as refused:
        await load_of(discovery(issuer))(LIMITS)
    assert refused.value.code == "AuthProviderDiscoveryFailed"
    assert refused.value.message == (
        f"Auth provider discovery of {issuer.url} failed: {status} because"
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (DISCOVERY, b"<html>"),
        (DISCOVERY, b"{}"),
        (DISCOVERY, b'{"issuer": 1, "jwks_uri": 2}'),
        (DISCOVERY, b'{"issuer": "i", "jwks_uri": "http://id.example.com/keys"}'),
        (DISCOVERY, b'{"issuer": "i", "jwks_uri": "http://127.0.0.1:9/keys"}'),
        (JWKS, b"[]"),
        (JWKS, b"x" * (LIMITS.key_set_bytes + 1)),
    ],
)
async def test_a_discovery_that_makes_no_sense_is_a_bad_request(issuer, path, body):
    issuer.answers[path] = Answer(body=body)
    with pytest.raises(BadRequest) as refused:
        await load_of(discovery(issuer))(LIMITS)
    assert refused.value.code == "AuthProviderDiscoveryFailed"
    assert refused.value.message.startswith(f"Auth provider discovery of {issuer.url} failed")


async def test_what_an_issuer_says_is_repeated_only_in_part(issuer):
    issuer.answers[DISCOVERY] = Answer(418, body=b"\xff" + b"x" * 10_000)
    with pytest.raises(BadRequest) as refused:
        await load_of(discovery(issuer))(LIMITS)
    assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    ("answer", "cls", "code"),
    [
        (Answer(503), Overloaded, "AuthProviderUnavailable"),
        (Answer(429), Overloaded, "AuthProviderUnavailable"),
        (Answer(404), Unauthenticated, "InvalidAuthHeader"),
        (Answer(body=b"{}"), Unauthenticated, "InvalidAuthHeader"),
        (Answer(headers={"Content-Type": "text/html"}), Unauthenticated, "InvalidAuthHeader"),
        (
            Answer(headers={"Content-Type": "application/json; charset=latin-1"}),
            Unauthenticated,
            "InvalidAuthHeader",
        ),
    ],
)
async def test_a_key_set_that_is_not_given_is_told(issuer, answer, cls, code):
    issuer.answers[JWKS] = answer
    with pytest.raises(cls) as refused:
        await load_of(published(issuer))(LIMITS)
    assert refused.value.code == code


async def test_a_key_set_of_either_type_is_taken(issuer):
    for kind in ("application/json", "Application/JSON; charset=UTF-8"):
        issuer.answers[JWKS] = Answer(headers={"Content-Type": kind})
        await load_of(published(issuer))(LIMITS)


async def test_a_key_set_that_hangs_or_is_not_there_is_told_in_time(issuer):
    limits = replace(LIMITS, key_set_fetch_seconds=0.1)
    issuer.answers[JWKS] = Answer(delay_s=0.4)
    with pytest.raises(Unauthenticated, match="cannot be fetched"):
        await load_of(published(issuer))(limits)
    with pytest.raises(BadRequest, match=r"discovery of .* failed"):
        await load_of(discovery(issuer))(limits)


async def test_a_key_set_in_the_configuration_that_is_none_is_told():
    provider = JwtProvider(issuer="https://i", jwks="data:,5", algorithm="ES256")
    with pytest.raises(Unauthenticated, match="key set: it cannot be read"):
        await load_of(provider)(LIMITS)
