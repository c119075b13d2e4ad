"""`token`: a user that `dev` lets in at once, and nobody else does."""

from __future__ import annotations

import json
import urllib.request
from datetime import timedelta
from typing import Any
from urllib.error import HTTPError

import jwt
import pytest

from reactive_store.auth.development import AUDIENCE, ISSUER
from reactive_store.cli.token import parse_lifetime
from reactive_store.errors import BadRequest
from tests.e2e.server_process import ServerProcess

WHO = """
from reactive_store import QueryCtx, query


@query
async def am_i(ctx: QueryCtx):
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else identity.to_json()
"""


@pytest.fixture
def who(project):
    (project / "functions" / "who.py").write_text(WHO)
    return project


def ask(url: str, token: str | None) -> Any:
    body = json.dumps({"path": "who:amI", "args": {}, "format": "json"}).encode()
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{url}/api/query", body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["value"]


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_token_works_at_once_with_dev(start, who, program):
    early = program("token", "--app", who, "--subject", "u1", "--data", who / ".reactive_store")
    running = start("dev", "--app", who, "--port", "0")
    url = running.url
    result = program(
        "token", "--app", who, "--subject", "u1", "--name", "Una", "--email", "u@example.com",
        "--claim", "plan=pro", "--claim", 'org={"id": 5}', "--claim", "email_verified=true",
    )  # fmt: skip
    assert result.code == 0
    assert result.out.count("\n") == 1
    assert ask(url, result.out.strip()) == {
        "tokenIdentifier": f"{ISSUER}|u1",
        "issuer": ISSUER,
        "subject": "u1",
        "name": "Una",
        "email": "u@example.com",
        "emailVerified": True,
        "plan": "pro",
        "org.id": 5,
    }
    assert ask(url, early.out.strip())["subject"] == "u1", "made before the first start"
    assert ask(url, None) is None
    with urllib.request.urlopen(f"{url}/.well-known/jwks.json", timeout=10) as response:
        keys = jwt.PyJWKSet.from_dict(json.load(response))
    token = result.out.strip()
    assert jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], audience=AUDIENCE)


def test_dev_goes_on_taking_tokens_after_a_save(start, who, program):
    running = start("dev", "--app", who, "--port", "0")
    token = program("token", "--app", who, "--subject", "u1").out.strip()
    assert ask(running.url, token)["subject"] == "u1"
    (who / "functions" / "who.py").write_text(WHO + "\n# saved\n")
    running.wait_for(lambda: "Reloaded" in running.out)
    assert ask(running.url, token)["subject"] == "u1"


def test_serve_refuses_it_unless_its_issuer_is_configured(who, program):
    data = who / ".reactive_store"
    token = program("token", "--app", who, "--subject", "u1").out.strip()
    with ServerProcess(who, data, options=("--no-redact",)) as server:
        with pytest.raises(HTTPError) as refused:
            ask(server.url, token)
        assert refused.value.code == 401
        assert json.load(refused.value)["code"] == "NoAuthProvider"
        with pytest.raises(HTTPError) as missing:
            urllib.request.urlopen(f"{server.url}/.well-known/jwks.json", timeout=10)
        assert missing.value.code == 404


def test_a_token_ends_when_it_says(project, program):
    token = program("token", "--app", project, "--subject", "u1", "--expires", "90s").out.strip()
    claims = claims_of(token)
    assert claims["exp"] - claims["iat"] == 90
    token = program("token", "--app", project, "--subject", "u1").out.strip()
    claims = claims_of(token)
    assert claims["exp"] - claims["iat"] == 12 * 3600


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--claim", "plan"], "NAME=VALUE"),
        (["--claim", "=pro"], "NAME=VALUE"),
        (["--claim", "issuer=x"], "leave it out"),
        (["--claim", "name=5"], "name has to be a str"),
        (["--expires", "soon"], "no duration"),
        (["--expires", "0s"], "no duration"),
        (["--expires", "99999w"], "no duration"),
    ],
)
def test_what_makes_no_token_is_explained(project, program, arguments, text):
    result = program("token", "--app", project, "--subject", "u1", *arguments)
    assert (result.code, result.out) == (1, "")
    assert text in result.err


def test_a_subject_is_needed(project, program):
    assert program("token", "--app", project).code == 2


def test_durations():
    assert parse_lifetime("30s") == timedelta(seconds=30)
    assert parse_lifetime(" 15M ") == timedelta(minutes=15)
    assert parse_lifetime("2w") == timedelta(weeks=2)
    with pytest.raises(BadRequest):
        parse_lifetime("-5m")
