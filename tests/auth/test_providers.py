"""Which providers can be configured, and which of them answers for a token."""

import pytest

from reactive_store.auth.providers import (
    JwtProvider,
    OidcProvider,
    choose_provider,
    is_loopback_url,
    issuer_url,
    may_be_fetched,
    read_data_uri,
)
from reactive_store.errors import BadRequest
from tests.auth.issuer import data_uri, key_of

KEYS = data_uri(key_of("ES256"))


def oidc(domain: str, application_id: str = "app") -> OidcProvider:
    return OidcProvider(domain=domain, application_id=application_id)


def plain(issuer: str, application_id: str | None = None, jwks: str = KEYS) -> JwtProvider:
    return JwtProvider(issuer=issuer, jwks=jwks, algorithm="ES256", application_id=application_id)


@pytest.mark.parametrize(
    "domain",
    [
        "https://id.example.com",
        "id.example.com",
        "example.com/realms/one",
        "localhost",
        "http://localhost:8080",
        "http://127.0.0.1:3210/",
        "http://[::1]:1",
    ],
)
def test_domains_of_issuers(domain):
    assert oidc(domain).domain == domain


@pytest.mark.parametrize(
    "domain",
    [
        '"https://id.example.com"',
        "'id.example.com'",
        "id",
        "ftp://id.example.com",
        "https://",
        "https:// id.example.com",
        "http://id.example.com",
        "https://[",
    ],
)
def test_what_is_no_domain_of_an_issuer_is_refused_by_name(domain):
    with pytest.raises(BadRequest) as refused:
        oidc(domain)
    assert refused.value.code == "InvalidProviderDomainUrl"
    assert domain in refused.value.message.replace("\\", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"jwks": "http://keys.example.com/jwks.json"},
        {"jwks": "file:///etc/passwd"},
        {"jwks": "https://user@keys.example.com"},
        {"jwks": "data:application/json;base64,***"},
        {"jwks": "data:application/json"},
        {"jwks": ""},
        {"algorithm": "HS256"},
        {"algorithm": "none"},
        {"algorithm": "EdDSA"},
        {"application_id": ""},
        {"application_id": 5},
    ],
)
def test_a_provider_that_could_never_work_is_refused(changes):
    good = {"issuer": "https://i", "jwks": KEYS, "algorithm": "ES256"}
    JwtProvider(**good)
    with pytest.raises(BadRequest) as refused:
        JwtProvider(**{**good, **changes})
    assert refused.value.code == "InvalidAuthConfig"


def test_an_application_id_is_needed_for_openid_connect():
    with pytest.raises(BadRequest, match="application_id"):
        oidc("https://id.example.com", " ")


@pytest.mark.parametrize(
    ("issuer", "audiences", "place"),
    [
        ("https://one.example.com", ["app"], 0),
        ("https://one.example.com/", ["x", "app"], 0),
        ("one.example.com", ["app"], 0),
        ("https://one.example.com", ["other"], 1),
        ("https://one.example.com", [], None),
        ("https://two.example.com", [], 2),
        ("https://two.example.com//", ["anything"], 2),
        ("http://one.example.com", ["app"], None),
        ("https://ONE.example.com", ["app"], None),
        ("https://one.example.com.evil.org", ["app"], None),
    ],
)
def test_the_first_provider_that_fits_issuer_and_audience_answers(issuer, audiences, place):
    providers = (
        oidc("https://one.example.com/"),
        plain("one.example.com", "other"),
        plain("https://two.example.com"),
        plain("https://two.example.com", "app"),
    )
    assert choose_provider(providers, issuer, audiences) == place


def test_names_of_issuers_are_compared_without_scheme_and_slash():
    assert issuer_url("id.example.com/") == issuer_url("https://id.example.com")
    assert issuer_url("http://id.example.com") != issuer_url("https://id.example.com")
    assert plain("id.example.com").issuer == "id.example.com"


@pytest.mark.parametrize(
    ("url", "from_loopback", "may"),
    [
        ("https://a.example.com/k", False, True),
        ("http://a.example.com/k", True, False),
        ("http://127.0.0.1:1/k", True, True),
        ("http://127.0.0.1:1/k", False, False),
        ("https://127.0.0.1:1/k", True, True),
        ("https://127.0.0.1:1/k", False, False),
        ("https://[::1]/k", False, False),
        ("https://localhost/k", False, False),
        ("http://127.0.0.1.example.com/k", True, False),
        ("https://a b", True, False),
        ("https://a:99999", True, False),
        ("/k", True, False),
        ("https://a\n", True, False),
    ],
)
def test_keys_come_over_encryption_or_from_this_machine(url, from_loopback, may):
    assert may_be_fetched(url, from_loopback=from_loopback) is may


def test_what_leads_to_this_machine():
    assert all(map(is_loopback_url, ["http://127.1.2.3", "http://[::1]:5", "http://a.localhost"]))
    assert not any(map(is_loopback_url, ["http://10.0.0.1", "http://localhost.example.com"]))


def test_data_uris_are_read_in_both_forms():
    assert read_data_uri("data:application/json,%7B%7D") == b"{}"
    assert read_data_uri("data:text/plain;charset=utf-8;base64,e30=") == b"{}"
    assert read_data_uri("data:;base64,e30") == b"{}"
