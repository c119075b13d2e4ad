"""Logging in, as clients see it: tokens of real issuers, real sessions, a clock moved by hand."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from reactive_store.auth.providers import JwtProvider, OidcProvider
from reactive_store.backend import Backend
from reactive_store.cli.init import init_command
from reactive_store.config import Settings
from reactive_store.errors import ConvexError
from reactive_store.functions.loader import load_app
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.server.app import app_for
from reactive_store.sync.frames import SharedFrame
from reactive_store.sync.messages import (
    AuthError,
    ClientVersion,
    MutationResponse,
    QueryUpdated,
    ServerMessage,
    Transition,
)
from reactive_store.sync.protocol import decode_server
from reactive_store.sync.worker import Worker
from reactive_store.testing.backend import TestBackend
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.auth.issuer import (
    AUDIENCE,
    DISCOVERY,
    Answer,
    Key,
    LocalIssuer,
    data_uri,
    key_of,
)

SCHEMA = """
from reactive_store import define_schema, define_table, v
schema = define_schema({"notes": define_table({"owner": v.string(), "text": v.string()})})
"""
FUNCTIONS = """
from reactive_store import action, api, internal_query, mutation, query

runs = []

@query
async def me(ctx):
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else identity.to_json()

@query
async def mine(ctx):
    identity = await ctx.auth.get_user_identity()
    runs.append(identity and identity.subject)
    found = await ctx.db.query("notes").collect()
    return [note["text"] for note in found if identity and note["owner"] == identity.subject]

@query
async def count(ctx):
    return len(await ctx.db.query("notes").collect())

@mutation
async def add(ctx, text: str):
    identity = await ctx.auth.get_user_identity()
    owner = identity.subject if identity else "nobody"
    await ctx.db.insert("notes", {"owner": owner, "text": text})
    return owner

@action
async def act(ctx):
    return await ctx.run_query(api.m.me)

@internal_query
async def hidden(ctx):
    return await ctx.run_query(api.m.me)
"""
CONFIG = """
import os
from reactive_store import JwtProvider, OidcProvider

providers = [
    OidcProvider(domain=os.environ["TEST_ISSUER"], application_id="the-app"),
    JwtProvider(
        issuer="https://custom.test",
        jwks=os.environ["TEST_KEYS"],
        algorithm="ES256",
        application_id=os.environ.get("TEST_AUDIENCE"),
    ),
]
"""
HTTP = """
from reactive_store import HttpRouter, JSONResponse

http = HttpRouter()

@http.route("/who", method="GET")
async def who(ctx, request):
    identity = await ctx.auth.get_user_identity()
    return JSONResponse(identity and identity.subject)
"""
CUSTOM = "https://custom.test"


@pytest.fixture
def issuer():
    with LocalIssuer("EdDSA") as running:
        yield running


@pytest.fixture
def root(tmp_path: Path, issuer: LocalIssuer, monkeypatch) -> Path:
    monkeypatch.setenv("TEST_ISSUER", issuer.url)
    monkeypatch.setenv("TEST_KEYS", data_uri(key_of("ES256")))
    (tmp_path / "functions").mkdir()
    (tmp_path / "schema.py").write_text(SCHEMA)
    (tmp_path / "functions" / "m.py").write_text(FUNCTIONS)
    (tmp_path / "functions" / "auth_config.py").write_text(CONFIG)
    return tmp_path


@pytest.fixture
async def backend(root: Path) -> AsyncIterator[Backend]:
    app = load_app(root)
    found = await Backend.open(
        Settings(app=root, redact=False),
        app=app,
        runtime=VirtualRuntime(),
        persistence=MemoryPersistence(),
    )
    yield found
    await found.close()
    app.close()


class Client:
    """One socket without a network: frames go in, frames come out."""

    def __init__(self, backend: Backend) -> None:
        self.frames: list[ServerMessage] = []
        self.closed: tuple[int, str] | None = None
        self.is_writable = True
        self._query_set = self._identity = self._requests = 0
        self._arrived = asyncio.Event()
        self._worker = Worker(
            backend.runner,
            backend.live_queries,
            backend.database,
            backend.authenticator,
            backend.runtime,
            backend.limits,
            self,
            ClientVersion("npm", (1, 48, 0)),
            False,
        )
        self.say(
            type="Connect",
            sessionId=str(uuid.uuid4()),
            connectionCount=0,
            lastCloseReason=None,
        )

    # The transport.

    def send(self, frame: bytes) -> None:
        self.frames.append(decode_server(frame))
        self._arrived.set()

    def send_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self.send(frame)

    def send_shared(self, frame: SharedFrame) -> None:
        self.send(frame.text)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self._arrived.set()

    # The client.

    def say(self, **fields: Any) -> None:
        self._worker.receive(json.dumps(fields))

    def watch(self, *paths: str) -> None:
        added = [
            {"type": "Add", "queryId": number, "udfPath": path, "args": [{}]}
            for number, path in enumerate(paths)
        ]
        self._query_set += 1
        self.say(
            type="ModifyQuerySet",
            baseVersion=self._query_set - 1,
            newVersion=self._query_set,
            modifications=added,
        )

    def log_in(self, token: str | None, **fields: Any) -> None:
        kind = {"tokenType": "None"} if token is None else {"tokenType": "User", "value": token}
        self.say(**{"type": "Authenticate", "baseVersion": self._identity, **kind, **fields})
        self._identity += 1

    def mutate(self, path: str, **args: Any) -> None:
        self.say(type="Mutation", requestId=self._requests, udfPath=path, args=[args])
        self._requests += 1

    async def next(self, kind: type[ServerMessage]) -> Any:
        """The next frame of a kind; those before it are gone."""
        async with asyncio.timeout(20):
            while True:
                while self.frames:
                    frame = self.frames.pop(0)
                    if isinstance(frame, kind):
                        return frame
                self._arrived.clear()
                await self._arrived.wait()

    async def transition(self) -> tuple[int, dict[int, Any]]:
        """The next Transition: identity, and the new values by query."""
        told = await self.next(Transition)
        changes = {
            change.query_id: json.loads(change.value)
            for change in told.modifications
            if isinstance(change, QueryUpdated)
        }
        assert len(changes) == len(told.modifications)
        return told.end.identity, changes

    async def news(self) -> tuple[int, dict[int, Any]]:
        """The next Transition that tells something."""
        while not (told := await self.transition())[1]:
            pass
        return told

    async def end(self) -> tuple[int, str]:
        async with asyncio.timeout(20):
            while self.closed is None:
                self._arrived.clear()
                await self._arrived.wait()
        return self.closed


def now_s(backend: Backend) -> float:
    return backend.runtime.now_ns() / 1e9


def token_of(backend: Backend, issuer: LocalIssuer, subject: str = "ann", **claims: Any) -> str:
    return issuer.token(subject, now=now_s(backend), **claims)


def custom_token(backend: Backend, key: Key | None = None, **claims: Any) -> str:
    now = int(now_s(backend))
    fields = {"iss": CUSTOM, "sub": "cat", "aud": "any", "iat": now, "exp": now + 60, **claims}
    return (key or key_of("ES256")).sign(fields)


async def ask(backend: Backend, header: str | None, path: str = "m:me", kind: str = "query") -> Any:
    """One call over HTTP: the value, or status and code of the refusal."""
    transport = httpx.ASGITransport(app=app_for(backend))
    headers = {} if header is None else {"Authorization": header}
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        body = {"path": path, "args": {}, "format": "json"}
        response = await http.post(f"/api/{kind}", json=body, headers=headers)
    answer = response.json()
    if response.status_code != 200:
        return response.status_code, answer["code"]
    return answer.get("value", answer.get("errorMessage"))


# ---- who a token makes ----


async def test_a_token_becomes_an_identity(backend, issuer):
    """F165, C60."""
    assert await ask(backend, None) is None
    claims = {"given_name": "Ann", "email_verified": True, "plan": "pro", "org": {"id": 5}}
    owner = {"issuer": issuer.url, "subject": "ann", "tokenIdentifier": f"{issuer.url}|ann"}
    assert await ask(backend, f"Bearer {token_of(backend, issuer, **claims)}") == owner | {
        "givenName": "Ann",
        "emailVerified": True,
        "plan": "pro",
        "org": {"id": 5},
    }


async def test_nested_claims_of_a_custom_token_get_dots(backend):
    """F167, C60."""
    token = custom_token(backend, properties={"id": "1", "a": {"b": 2}}, given_name="Cat")
    assert await ask(backend, f"Bearer {token}") == {
        "issuer": CUSTOM,
        "subject": "cat",
        "tokenIdentifier": f"{CUSTOM}|cat",
        "properties.id": "1",
        "properties.a.b": 2,
        "given_name": "Cat",
    }


async def test_an_action_hands_the_caller_on(backend, issuer):
    """F121."""
    token = token_of(backend, issuer)
    assert (await ask(backend, f"Bearer {token}", "m:act", "action"))["subject"] == "ann"


async def test_tokens_that_do_not_count_are_refused(backend, issuer):
    """F166."""
    good = token_of(backend, issuer)
    assert await ask(backend, f"bearer {good}")
    forged = key_of("EdDSA", 9).sign(issuer.claims(now=now_s(backend)), kid=issuer.key.kid)
    now = int(now_s(backend))
    for token, code in [
        (token_of(backend, issuer, iss="https://other.test"), "NoAuthProvider"),
        (token_of(backend, issuer, aud="other"), "NoAuthProvider"),
        (forged, "Unauthenticated"),
        (good[:-8] + "AAAAAAAA", "Unauthenticated"),
        (token_of(backend, issuer, exp=now), "Unauthenticated"),
        (custom_token(backend, key_of("ES256", 2)), "InvalidAuthHeader"),
        (custom_token(backend, exp=now - 5), "InvalidAuthHeader"),
        ("no token", "InvalidAuthHeader"),
    ]:
        assert await ask(backend, f"Bearer {token}") == (401, code)


async def test_each_kind_of_provider_has_its_algorithms(backend, issuer):
    """C58."""
    assert await ask(backend, f"Bearer {token_of(backend, issuer)}")  # EdDSA
    for algorithm, counts in (("RS256", True), ("ES256", False)):
        issuer.key = key_of(algorithm)
        issuer.published = [issuer.key]
        answer = await ask(backend, f"Bearer {token_of(backend, issuer)}")
        assert isinstance(answer, dict) is counts
    claims = issuer.claims(now=now_s(backend))
    head = {"kid": "RS256-1"}
    for algorithm, key in (("HS256", "s" * 32), ("none", None)):
        token = jwt.encode(claims, key, algorithm=algorithm, headers=head)
        assert await ask(backend, f"Bearer {token}") == (401, "Unauthenticated")
    assert await ask(backend, f"Bearer {custom_token(backend)}")
    wrong = Key("RS256", "ES256-1", key_of("RS256").private)
    assert await ask(backend, f"Bearer {custom_token(backend, wrong)}") == (
        401,
        "InvalidAuthHeader",
    )


async def test_a_further_audience_is_refused_by_openid_connect_only(backend, issuer):
    """C59."""
    both = [AUDIENCE, "more"]
    assert await ask(backend, f"Bearer {token_of(backend, issuer, aud=both)}") == (
        401,
        "Unauthenticated",
    )
    assert await ask(backend, f"Bearer {token_of(backend, issuer, aud=[AUDIENCE])}")
    assert await ask(backend, f"Bearer {custom_token(backend, aud=both)}")


async def test_each_form_of_the_header(backend, issuer):
    """C98."""
    token = token_of(backend, issuer)
    key = backend.admin_keys.issue()
    assert (await ask(backend, f"Bearer {token}"))["subject"] == "ann"
    assert (await ask(backend, f"bearer  {token} "))["subject"] == "ann"
    assert await ask(backend, f"Convex {key}") is None
    assert await ask(backend, "short") == (400, "InvalidHeaderFailure")
    assert await ask(backend, "Basic dXNlcjpwYXNz") == (400, "InvalidAdminKey")
    assert await ask(backend, "Bearer ") == (400, "InvalidAdminKey")
    assert await ask(backend, f"Convex {key}:***") == (400, "HeaderParseFailure")
    assert await ask(backend, "Convex made|up") == (401, "BadAdminKey")


# ---- on a socket ----


async def test_logging_in_moves_the_identity_on_and_tells_only_what_changed(backend, issuer):
    """C50, C51."""
    client = Client(backend)
    client.watch("m:me", "m:count")
    assert await client.transition() == (0, {0: None, 1: 0})
    client.log_in(token_of(backend, issuer))
    identity, changes = await client.transition()
    assert identity == 1
    assert changes.keys() == {0}
    assert changes[0]["subject"] == "ann"
    client.log_in(token_of(backend, issuer, jti="2"))
    assert await client.transition() == (2, {}), "the same user, though another token"
    client.log_in(None)
    assert await client.transition() == (3, {0: None})


async def test_a_bad_token_is_an_auth_error_of_the_applied_version(backend, issuer):
    """C52."""
    client = Client(backend)
    client.log_in(token_of(backend, issuer))
    await client.transition()
    client.log_in("bad")
    refused = await client.next(AuthError)
    assert (refused.base_version, refused.attempted) == (1, True)
    assert refused.error.startswith("Could not parse JWT payload.")
    assert await client.end() == (1000, "")


@pytest.mark.parametrize("occasion", ["mutation", "action", "transition"])
async def test_a_token_that_ends_is_told_at_the_next_occasion(backend, issuer, occasion):
    """C53."""
    client = Client(backend)
    client.watch("m:count")
    client.log_in(token_of(backend, issuer, exp=int(now_s(backend)) + 60))
    while (await client.transition())[0] != 1:
        pass
    await backend.runtime.advance(timedelta(seconds=59))
    client.mutate("m:add", text="in time")
    assert (await client.next(MutationResponse)).success
    assert await client.transition() == (1, {0: 1})
    await backend.runtime.advance(timedelta(seconds=1))
    assert client.closed is None, "nothing happens by itself"
    if occasion == "mutation":
        client.mutate("m:add", text="late")
    elif occasion == "action":
        client.say(type="Action", requestId=9, udfPath="m:act", args=[{}])
    else:
        other = Client(backend)
        other.mutate("m:add", text="of somebody else")
        await other.next(MutationResponse)
    refused = await client.next(AuthError)
    assert refused == AuthError("Convex token identity expired", 1, False)
    assert await client.end() == (1000, "")
    text = await ask(backend, None, "m:count")
    assert text == (2 if occasion == "transition" else 1), "what came late was not done"


async def test_a_client_with_a_token_is_pushed_to_until_it_ends(backend, issuer):
    client = Client(backend)
    client.watch("m:count")
    client.log_in(token_of(backend, issuer))
    while (await client.transition())[0] != 1:
        pass
    other = Client(backend)
    for number in range(1, 4):
        other.mutate("m:add", text="x")
        await other.next(MutationResponse)
        assert await client.transition() == (1, {0: number})


async def test_a_provider_that_fails_is_no_auth_error(backend, issuer):
    """C54."""
    issuer.answers[DISCOVERY] = Answer(503)
    client = Client(backend)
    client.watch("m:count")
    client.log_in(token_of(backend, issuer))
    code, reason = await client.end()
    assert (code, reason) == (1013, "AuthProviderDiscoveryFailed")
    assert not [frame for frame in client.frames if isinstance(frame, AuthError)]


async def test_a_wrong_base_of_the_identity_closes(backend, issuer):
    """C55."""
    client = Client(backend)
    client.log_in(token_of(backend, issuer), baseVersion=1)
    assert (await client.end())[0] == 1011


async def test_an_administrator_may_act_as_somebody(backend):
    """C56."""
    key = backend.admin_keys.issue()
    acting = {"tokenType": "Admin", "value": key, "impersonating": {"issuer": "i", "subject": "s"}}
    client = Client(backend)
    client.watch("m:me", "m:hidden")
    client.log_in("", **acting)
    while (told := await client.next(Transition)).end.identity != 1:
        pass
    values = [json.loads(change.value) for change in told.modifications]
    assert [value["tokenIdentifier"] for value in values] == ["i|s", "i|s"]
    client.mutate("m:add", text="as s")
    assert json.loads((await client.next(MutationResponse)).result) == "s"
    outsider = Client(backend)
    outsider.say(
        type="Mutation", requestId=0, udfPath="m:add", args=[{"text": ""}], componentPath=""
    )
    assert (await outsider.end())[0] == 1011


async def test_a_mutation_is_of_whoever_the_client_was_when_it_was_sent(backend, issuer):
    """C57."""
    issuer.answers[DISCOVERY] = Answer(delay_s=0.1)  # it stays unknown for a while who it is
    client = Client(backend)
    client.mutate("m:add", text="before")
    client.log_in(token_of(backend, issuer))
    client.mutate("m:add", text="after")
    owners = [json.loads((await client.next(MutationResponse)).result) for _ in range(2)]
    assert owners == ["nobody", "ann"]


async def test_two_users_of_one_query_see_only_what_is_theirs(backend, issuer):
    ann, bob, also_ann = Client(backend), Client(backend), Client(backend)
    for client, subject in ((ann, "ann"), (bob, "bob"), (also_ann, "ann")):
        client.log_in(token_of(backend, issuer, subject))
        client.watch("m:mine")
        while (await client.transition())[1].get(0) is None:
            pass
    ann.mutate("m:add", text="secret of ann")
    assert await ann.news() == (1, {0: ["secret of ann"]})
    assert await also_ann.news() == (1, {0: ["secret of ann"]})
    bob.mutate("m:add", text="of bob")
    assert await bob.news() == (1, {0: ["of bob"]})
    assert "secret of ann" not in str(bob.frames)
    assert "of bob" not in str(ann.frames + also_ann.frames)
    bob.log_in(token_of(backend, issuer, "ann"))
    assert await bob.news() == (2, {0: ["secret of ann"]})
    bob.log_in(None)
    assert await bob.news() == (3, {0: []})


# ---- deploying ----


async def test_providers_are_those_of_the_last_deployment(backend, issuer, root, monkeypatch):
    """F192."""
    token = custom_token(backend, aud="first")
    assert await ask(backend, f"Bearer {token}")
    monkeypatch.setenv("TEST_AUDIENCE", "second")
    assert await ask(backend, f"Bearer {token}"), "it was looked at when deploying"
    client = Client(backend)
    client.watch("m:me")
    client.log_in(token)
    while (await client.transition())[0] != 1:
        pass
    await backend.reload(load_app(root))
    assert await ask(backend, f"Bearer {token}") == (401, "NoAuthProvider")
    assert await ask(backend, f"Bearer {custom_token(backend, aud='second')}")
    client.mutate("m:add", text="still logged in")
    assert json.loads((await client.next(MutationResponse)).result) == "cat"


def test_providers_of_an_app_are_values(root, issuer):
    app = load_app(root)
    assert app.providers == (
        OidcProvider(domain=issuer.url, application_id=AUDIENCE),
        JwtProvider(issuer=CUSTOM, jwks=data_uri(key_of("ES256")), algorithm="ES256"),
    )
    app.close()


async def test_the_guide_about_logging_in_works_as_written(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "auth.md").read_text("utf-8")
    config, functions, elsewhere = re.findall(
        r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL
    )
    init_command(tmp_path)
    (tmp_path / "functions" / "auth_config.py").write_text(config)
    (tmp_path / "functions" / "own.py").write_text(functions)
    async with TestBackend(app=tmp_path) as t:
        ann = t.with_identity(subject="ann")
        with pytest.raises(ConvexError):
            await t.mutation("own:note", body="x")
        await ann.mutation("own:note", body="mine")
        assert (await ann.query("own:mine"), await t.query("own:mine")) == (["mine"], [])
        assert len(t.backend.authenticator.providers) == 2
        (tmp_path / "functions" / "auth_config.py").write_text(elsewhere)
        await t.backend.reload(load_app(tmp_path))
        (provider,) = t.backend.authenticator.providers
        assert provider.issuer == t.backend.development_issuer.provider.issuer


async def test_a_route_of_the_app_knows_its_caller_or_nobody(root, backend, issuer):
    """F168."""
    (root / "functions" / "http.py").write_text(HTTP)
    await backend.reload(load_app(root))
    transport = httpx.ASGITransport(app=app_for(backend))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:

        async def who(token: str) -> tuple[int, Any]:
            response = await http.get("/http/who", headers={"Authorization": f"Bearer {token}"})
            return response.status_code, response.json()

        issuer.answers[DISCOVERY] = Answer(503)
        assert await who(token_of(backend, issuer)) == (200, None)
        del issuer.answers[DISCOVERY]
        assert await who(token_of(backend, issuer)) == (200, "ann")
        assert await who(token_of(backend, issuer, aud="other")) == (200, None)
        assert await who("bad") == (200, None)
