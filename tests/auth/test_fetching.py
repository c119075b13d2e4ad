"""One GET: its answer, and every bound it keeps."""

from __future__ import annotations

import asyncio
import time

import pytest

from reactive_store.auth.fetching import Fetched, FetchFailed, fetch
from tests.auth.issuer import JWKS, Answer, LocalIssuer

SECONDS = 5.0


@pytest.fixture(scope="module")
def served():
    with LocalIssuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(served: LocalIssuer):
    served.answers.clear()
    served.requests.clear()
    return served


def get(issuer: LocalIssuer, path: str = JWKS, **bounds: float):
    return fetch(
        issuer.url + path,
        seconds=bounds.get("seconds", SECONDS),
        max_bytes=int(bounds.get("max_bytes", 100_000)),
    )


async def test_status_type_and_body_are_told(issuer):
    answer = await get(issuer)
    assert (answer.status, answer.content_type) == (200, "application/jwk-set+json")
    assert answer.body.startswith(b'{"keys"')
    assert answer.fresh_s is None
    issuer.answers[JWKS] = Answer(status=503, body=b"later")
    assert await get(issuer) == Fetched(503, "application/jwk-set+json", b"later", None)


@pytest.mark.parametrize(
    ("headers", "fresh_s"),
    [
        ({"Cache-Control": "public, max-age=120"}, 120.0),
        ({"Cache-Control": 'max-age="60"', "Age": "15"}, 45.0),
        ({"Cache-Control": "max-age=60", "Age": "99"}, 0.0),
        ({"Cache-Control": "no-store"}, 0.0),
        ({"Cache-Control": "max-age=60, no-cache"}, 0.0),
        ({"Cache-Control": "s-maxage=5, immutable"}, None),
        ({"Cache-Control": "max-age=soon"}, None),
    ],
)
async def test_how_long_an_answer_may_be_kept(issuer, headers, fresh_s):
    issuer.answers[JWKS] = Answer(headers=headers)
    assert (await get(issuer)).fresh_s == fresh_s


async def test_redirects_are_followed_a_few_times(issuer):
    issuer.pages |= {f"/{n}": ("text/plain", b"") for n in range(5)}
    for n in range(5):
        issuer.answers[f"/{n}"] = Answer(302, {"Location": f"/{n + 1}"})
    issuer.answers["/2"] = Answer(301, {"Location": JWKS})
    assert (await get(issuer, "/0")).status == 200
    issuer.answers["/2"] = Answer(302, {"Location": "/3"})
    with pytest.raises(FetchFailed, match="more than 3 times"):
        await get(issuer, "/0")


@pytest.mark.parametrize("target", ["http://id.example.com/", "file:///etc/passwd", "ftp://a/b"])
async def test_a_redirect_to_elsewhere_is_not_followed(issuer, target):
    issuer.answers[JWKS] = Answer(302, {"Location": target})
    with pytest.raises(FetchFailed, match="redirects to where"):
        await get(issuer)


async def test_a_long_answer_is_not_read_to_its_end(issuer):
    issuer.answers[JWKS] = Answer(body=b"x" * 50_000)
    assert len((await get(issuer, max_bytes=50_000)).body) == 50_000
    with pytest.raises(FetchFailed, match="longer than 49999"):
        await get(issuer, max_bytes=49_999)


async def test_an_answer_is_waited_for_only_so_long_and_the_loop_goes_on(issuer):
    issuer.answers[JWKS] = Answer(delay_s=1.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    counting = asyncio.create_task(count())
    began = time.monotonic()
    with pytest.raises(FetchFailed, match=r"(?:no answer within 0\.2 s|timed out)"):
        await get(issuer, seconds=0.2)
    counting.cancel()
    assert time.monotonic() - began < 0.9
    assert turns > 5


async def test_a_wait_can_be_cancelled(issuer):
    issuer.answers[JWKS] = Answer(delay_s=0.5)
    task = asyncio.create_task(get(issuer))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nobody_there_is_a_failure_with_the_reason():
    with pytest.raises(FetchFailed, match="refused"):
        await fetch("http://127.0.0.1:9/", seconds=SECONDS, max_bytes=1)
    with pytest.raises(FetchFailed, match="neither https"):
        await fetch("http://id.example.com/", seconds=SECONDS, max_bytes=1)


async def test_proxies_of_the_environment_are_not_asked_for_this_machine(issuer, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await get(issuer)).status == 200
