"""Logging in through official clients: React in jsdom and in Chromium, HTTP, PyPI's clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from convex import ConvexClient
from convex.http_client import ConvexHttpClient

from tests.auth.issuer import DISCOVERY, JWKS, Answer, LocalIssuer
from tests.e2e.client_script import node_script, run_node_tests
from tests.e2e.server_process import APPS, ServerProcess


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as running:
        kept = {"Cache-Control": "max-age=3600"}
        running.answers = {DISCOVERY: Answer(headers=kept), JWKS: Answer(headers=kept)}
        yield running


@pytest.fixture(scope="module")
def server(
    issuer: LocalIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("auth") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2E_ISSUER", issuer.url)
        with ServerProcess(APPS / "auth", data, options=("--no-redact",)) as running:
            yield running


def test_official_react_and_http_clients_log_in(server: ServerProcess, issuer: LocalIssuer):
    run_node_tests("auth.test.mjs", server.url, issuer.url)


@pytest.mark.slow
async def test_people_log_in_in_a_real_browser(
    server: ServerProcess, issuer: LocalIssuer, browser: str
):
    async with node_script("auth_browser.mjs", browser, server.url, issuer.url) as script:
        await script.expect("done", seconds=100)
        problems = [e for e in script.seen if e["event"] in {"console-error", "page-error"}]
    assert problems == []


def test_the_python_clients_log_in(server: ServerProcess, issuer: LocalIssuer):
    over_http = ConvexHttpClient(server.url)
    over_http.set_auth(issuer.token("pia"))
    assert over_http.query("people:me") == {"subject": "pia", "name": None}
    over_http.set_auth("bad")
    with pytest.raises(Exception, match="401"):
        over_http.query("people:me")
    # The socket client keeps every other thread of this process waiting, the issuer's among them:
    # from here on the server has to have its keys.
    client = ConvexClient(server.url)
    assert client.query("people:me") is None
    client.set_auth(issuer.token("pia", name="Pia"))
    assert client.query("people:me") == {"subject": "pia", "name": "Pia"}
    assert client.mutation("people:write", {"text": "by pia"}) == "pia"
    live = client.subscribe("people:mine")
    assert next(live) == ["by pia"]
    live.unsubscribe()
    client.clear_auth()
    assert client.query("people:me") is None


async def test_a_rotation_of_keys_is_followed(server: ServerProcess, issuer: LocalIssuer):
    def me(token: str) -> Any:
        over_http = ConvexHttpClient(server.url)
        over_http.set_auth(token)
        return over_http.query("people:me")

    before = issuer.token("rota")
    assert (await asyncio.to_thread(me, before))["subject"] == "rota"
    issuer.rotate(keep=True)
    assert (await asyncio.to_thread(me, issuer.token("new")))["subject"] == "new"
    assert (await asyncio.to_thread(me, before))["subject"] == "rota"


def test_nothing_of_a_token_is_in_what_the_server_says(server: ServerProcess, issuer: LocalIssuer):
    over_http = ConvexHttpClient(server.url)
    token = issuer.token("whisper-subject", email="whisper@example.com")
    over_http.set_auth(token)
    over_http.query("people:me")
    over_http.set_auth(token[:-9] + "AAAAAAAAA")
    with pytest.raises(Exception, match="401"):
        over_http.query("people:me")
    said = server.said()
    assert "whisper" not in said
    assert token.split(".")[1] not in json.dumps(said)
