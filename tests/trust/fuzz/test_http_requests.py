"""Requests on every route that are nearly right or not at all: an answer of a documented class."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from reactive_store.server.functions import FUNCTION_ENDPOINTS
from reactive_store.server.meta import META_ENDPOINTS
from tests.trust.breakage import Breakage
from tests.trust.effort import Effort
from tests.trust.fuzz.breakages import named
from tests.trust.fuzz.deployment import ALICE_TOKEN, BOB_TOKEN, Deployment, secrets_of_alice
from tests.trust.fuzz.documented import check_leaks, check_response
from tests.trust.fuzz.mangling import (
    ODD_TEXTS,
    mangle_bytes,
    mangle_json,
    odd_value,
    write_json,
)
from tests.trust.fuzz.shrinking import Find, report, shrink, shrink_bytes

_ROUTES = [
    (method, path)
    for methods, path, _ in (*FUNCTION_ENDPOINTS, *META_ENDPOINTS)
    for method in methods.split()
]
_CALLS = tuple(
    path.partition("{")[0] for _, path, _ in FUNCTION_ENDPOINTS if "query_ts" not in path
)
_PATHS = (
    "notes:mine", "notes:texts", "notes:read", "notes:write", "odds:canary", "odds:echo",
    "odds:anything", "odds:shape", "odds:some", "odds:keep", "odds:kept", "odds:get", "odds:fails",
    "odds:failsLate", "odds:refuses", "odds:acts", "odds:failsInAction", "odds:hidden",
    "_system/cli:tables", "nowhere:atAll",
)  # fmt: skip
_ARGS: dict[str, dict[str, Any]] = {
    "notes:mine": {"paginationOpts": {"numItems": 3, "cursor": None, "endCursor": None, "id": 1}},
    "notes:write": {"text": "hello"},
    "odds:canary": {"number": 1},
    "odds:echo": {"value": {"a": [1, "b", {"$integer": "AQAAAAAAAAA="}]}},
    "odds:anything": {"a": 1, "b": [2], "cD": None},
    "odds:shape": {
        "name": "n", "count": 2, "ratio": 0.25, "flag": True, "tags": ["t"], "counts": {"k": 1},
        "big": {"$integer": "AQAAAAAAAAA="}, "raw": {"$bytes": "YQ=="}, "mode": "b",
    },
    "odds:some": {"limit": 2},
    "odds:keep": {"value": [1, {"a": "b"}]},
    "odds:kept": {"key": "j57000820c20a1g7104gm2rc1m70ynr8"},
    "odds:get": {"key": "j57000820c20a1g7104gm2rc1m70ynr8"},
    "odds:refuses": {"data": {"code": "no"}},
    "odds:acts": {"number": 1},
}  # fmt: skip
_HEADERS = (
    "content-type", "content-length", "authorization", "convex-client", "convex-request-id",
    "origin", "host", "accept-encoding", "transfer-encoding", "access-control-request-headers",
    "x-forwarded-for", "upgrade", "connection", "expect",
)  # fmt: skip
_FORMATS = ("json", "convex_encoded_json", "convex_json", "convex_clean_json", "export_json", None)


@dataclass(frozen=True)
class Sent:
    """One request as it was sent."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: tuple[bytes, ...]


class Writer:
    """Makes requests out of chance and what a deployment holds."""

    def __init__(self, rng: random.Random, deployment: Deployment) -> None:
        self.rng = rng
        self.deployment = deployment
        self.pool: list[Any] = [*deployment.stolen, *deployment.own, *_PATHS]

    def request(self) -> Sent:
        rng = self.rng
        method, path = rng.choice(_ROUTES)
        if rng.random() < 0.5:
            method, path = "POST", rng.choice(("/api/query", "/api/mutation", "/api/query_batch"))
        path = path.replace("{path:path}", rng.choice(_PATHS).replace(":", "/"))
        fields = self._fields(path)
        if rng.random() < 0.7:
            fields = mangle_json(rng, fields, self.pool)
        body = write_json(fields)
        if rng.random() < 0.2:
            body = mangle_bytes(
                rng, body, [b'{"path":"odds:echo","args":{"value":1}}', b"\xff\xfe"]
            )
        if rng.random() < 0.15:
            method = rng.choice(
                ("PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "QUERY", "X")
            )
        if method == "GET" and path == "/api/query":
            path += self._query(fields)
        if rng.random() < 0.1:
            path = self._odd_path(path)
        return Sent(method, path, self._headers(len(body)), self._chunks(body))

    def _fields(self, path: str) -> dict[str, Any]:
        rng = self.rng
        if path.endswith("query_batch"):
            return {"queries": [self._call() for _ in range(rng.randrange(4))]}
        if "environment" in path:
            name = rng.choice((*ODD_TEXTS, "NAME", "A" * 256, "A" * 257, "CONVEX_CLOUD_URL"))
            value = rng.choice((*ODD_TEXTS, None, "v" * 8192, "v" * 8193))
            return {"changes": [{"name": name, "value": value}, {"name": "B", "value": "1"}]}
        call = self._call()
        if path.endswith("query_at_ts"):
            call["ts"] = rng.choice(("AAAAAAAAAAA=", "/////////38=", "AAAAAAAAAAE=", "", "x"))
        return call

    def _call(self) -> dict[str, Any]:
        rng = self.rng
        path = rng.choice(_PATHS)
        args: dict[str, Any] = dict(_ARGS.get(path, {}))
        if path == "notes:read":
            args = {"noteId": rng.choice(self.deployment.stolen + self.deployment.own)}
        if path == "notes:mine" and rng.random() < 0.6:
            cursor = rng.choice(self.deployment.stolen[:2] + self.deployment.own[:2])
            args = {"paginationOpts": {"numItems": 9, "cursor": cursor}}
        call: dict[str, Any] = {"path": path, "args": args, "format": rng.choice(_FORMATS)}
        if rng.random() < 0.1:
            call["componentPath"] = rng.choice(("", "x", None))
        return call

    def _query(self, fields: Any) -> str:
        if not isinstance(fields, dict):
            return "?" + quote(write_json(fields))
        texts = {name: write_json(value).strip(b'"') for name, value in fields.items()}
        parts = [f"{quote(str(name))}={quote(text)}" for name, text in texts.items()]
        return "?" + "&".join(parts)

    def _odd_path(self, path: str) -> str:
        rng = self.rng
        return rng.choice(
            (
                "/" + path,
                path + "/",
                path.upper(),
                path + "%00",
                path.replace("/api", "/api/.."),
                path + "?" + "a" * 3000,
                path + "?adminKey=" + rng.choice(("", "a|b", "a:b|c:d", self._bad_key())),
                "/api/" + "x/" * 400,
                "/api/run/" + rng.choice(ODD_TEXTS),
                "/http/" + rng.choice(ODD_TEXTS),
                "/api/9.9.9/sync",
                "/api/" + "9" * 5000 + ".0.0/sync",
            )
        )

    def _bad_key(self) -> str:
        """Nearly the admin key: never the whole of it."""
        key = self.deployment.admin_key
        rng = self.rng
        at = rng.randrange(len(key))
        changed = key[:at] + chr(33 + rng.randrange(90)) + key[at + 1 :]
        forged = rng.choice((key[:at], key + "0", changed, key[::-1], key.upper()))
        return forged if forged not in (key, f"prod:{key}") else "x"

    def _headers(self, size: int) -> tuple[tuple[bytes, bytes], ...]:
        rng = self.rng
        headers = [("content-type", "application/json"), ("content-length", str(size))]
        roll = rng.random()
        if roll < 0.3:
            headers.append(("authorization", f"Bearer {BOB_TOKEN}"))
        elif roll < 0.5:
            headers.append(("authorization", self._authorization()))
        if rng.random() < 0.3:
            name = rng.choice(_HEADERS)
            value = rng.choice(
                (
                    *ODD_TEXTS,
                    "application/json; charset=utf-16",
                    "text/plain",
                    "application/x+json",
                    "npm-1.4.0",
                    "npm-0.1.0",
                    "python-0.2.0",
                    "npm-" + "9" * 5000 + ".1.1",
                    "http://[::1",
                    "[",
                    "a" * 8000,
                )
            )
            headers = [pair for pair in headers if pair[0] != name or rng.random() < 0.3]
            headers.append((name, value))
        return tuple((k.encode(), v.encode("utf-8", "replace")) for k, v in headers)

    def _authorization(self) -> str:
        rng = self.rng
        user = {"issuer": "i", "subject": "s", "tokenIdentifier": "t", "emailVerified": True}
        text = write_json(mangle_json(rng, user))
        encoded = base64.b64encode(text[:20000]).decode()
        return rng.choice(
            (
                f"Convex {self._bad_key()}",
                f"Convex {self._bad_key()}:{encoded}",
                f"Bearer {mangle_bytes(rng, BOB_TOKEN.encode()).decode('latin-1')}",
                f"Bearer {base64.urlsafe_b64encode(text[:9000]).decode()}.a.b",
                f"Bearer a.{base64.urlsafe_b64encode(text[:9000]).decode().rstrip('=')}.b",
                "Bearer",
                "Convex ",
                "Basic dTpw",
                "",
                "bearer\t" + BOB_TOKEN,
            )
        )

    def _chunks(self, body: bytes) -> tuple[bytes, ...]:
        rng = self.rng
        if len(body) < 100_000 and rng.random() < 0.2:
            size = rng.choice((1, 7, 64))
            return tuple(body[at : at + size] for at in range(0, len(body), size)) or (b"",)
        return (body,)


async def judge(deployment: Deployment, sent: Sent) -> Find | None:
    """What is wrong with the answer to a request that is not Alice's."""
    answer = await deployment.request(sent.method, sent.target, sent.headers, sent.body)
    if answer.status in {0, 599}:
        kind = "no answer in time" if answer.status == 0 else "exception out of the application"
        return Find(kind, answer.body.decode("utf-8", "replace"))
    text = answer.body.decode("utf-8", "replace")
    if deployment.bugs:
        return Find("logged as a bug", deployment.bugs.pop())
    find = check_leaks(text, secrets_of_alice(), redact=deployment.redact)
    if find is not None and find.kind == "internal text" and "/echo" in sent.target:
        find = None  # it says what it was told
    path = "/" + sent.target.partition("?")[0].lstrip("/")
    is_call = sent.method in {"GET", "POST"} and (
        path.startswith(_CALLS) and not path.startswith("/api/query_ts")
    )
    return find or check_response(
        answer.status, answer.body, is_call=is_call, redact=deployment.redact
    )


async def smaller(deployment: Deployment, sent: Sent, find: Find) -> Sent:
    """The request with as little in it as still shows the same."""

    async def shows(candidate: Sent) -> bool:
        seen = await judge(deployment, candidate)
        return seen is not None and seen.kind == find.kind

    async def headers(kept: list[tuple[bytes, bytes]]) -> bool:
        return await shows(Sent(sent.method, sent.target, tuple(kept), sent.body))

    sent = Sent(sent.method, sent.target, tuple(await shrink(sent.headers, headers)), sent.body)
    whole = b"".join(sent.body)

    async def body(data: bytes) -> bool:
        return await shows(Sent(sent.method, sent.target, sent.headers, (data,)))

    if len(whole) < 5000 and await body(whole):
        whole = await shrink_bytes(whole, body)
        return Sent(sent.method, sent.target, sent.headers, (whole,))
    return sent


async def explore(seed: int, count: int, *, redact: bool) -> tuple[int, Find | None, str]:
    """Send `count` requests to a new deployment. How many, and the first find with its report."""
    async with Deployment(seed=seed, redact=redact, body_bytes=200_000) as deployment:
        for number in range(count):
            writer = Writer(random.Random(f"http {seed} {number}"), deployment)
            sent = writer.request()
            find = await judge(deployment, sent)
            if find is not None:
                smallest = await smaller(deployment, sent, find)
                text = report("robust over HTTP", f"{seed} number {number}", smallest, find)
                return number + 1, find, text
            if number % 250 == 249:
                await deployment.canary(number)
        await deployment.canary()
        left = await deployment.is_idle()
        assert left is None, left
    return count, None, ""


@pytest.mark.parametrize("redact", [True, False], ids=["redacted", "shown"])
async def test_every_request_gets_an_answer_of_a_documented_class(
    effort: Effort, evidence: Any, redact: bool
) -> None:
    requests = 0
    for seed in effort.seeds(2, 12):
        tried, find, text = await explore(seed, effort.pick(900, 4000), redact=redact)
        requests += tried
        assert find is None, text
    evidence("robust", requests=requests)


async def test_a_body_beyond_the_limit_is_refused_however_it_comes(evidence: Any) -> None:
    tried = 0
    async with Deployment(body_bytes=10_000) as deployment:
        headers = [(b"content-type", b"application/json")]
        call = json.dumps({"path": "odds:echo", "args": {"value": "x" * 12_000}}).encode()
        for size in (1, 100, 9_999, len(call), 60_000):
            body = [call[at : at + size] for at in range(0, len(call), size)]
            answer = await deployment.request("POST", "/api/query", headers, body)
            assert (answer.status, json.loads(answer.body)["code"]) == (400, "BadJsonBody")
            tried += 1
        endless = [b" " * 10_000] * 1000
        answer = await deployment.request("POST", "/api/query", headers, endless)
        assert answer.status == 400
        await deployment.canary()
    evidence("robust", requests=tried + 1)


def _environment_change(rng: random.Random, key: str) -> Sent:
    names = (*ODD_TEXTS, "NAME", "_", "A" * 256, "A" * 257, "CONVEX_CLOUD_URL", "É")
    values = (*ODD_TEXTS, None, "v" * 8192, "v" * 8193, "é" * 4097)
    changes: Any = [
        {"name": rng.choice(names), "value": rng.choice(values)} for _ in range(rng.randrange(4))
    ]
    changes = mangle_json(rng, {"changes": changes}) if rng.random() < 0.5 else {"changes": changes}
    headers = [(b"authorization", f"Convex {key}".encode()), (b"content-type", b"application/json")]
    target = rng.choice(
        ("/api/update_environment_variables", "/api/v1/update_environment_variables")
    )
    return Sent("POST", target, tuple(headers), (write_json(changes),))


async def test_an_administrator_with_odd_attributes_gets_a_documented_answer(
    effort: Effort, evidence: Any
) -> None:
    requests = 0
    async with Deployment(seed=effort.seed) as deployment:
        key = deployment.admin_key
        for number in range(effort.pick(600, 6000)):
            rng = random.Random(f"admin {effort.seed} {number}")
            user: Any = {"issuer": "i", "subject": "s", "name": "n", "claim": odd_value(rng)}
            text = write_json(mangle_json(rng, user))[:60_000]
            value = f"Convex {key}:{base64.b64encode(text).decode()}"
            host = rng.choice((b"store.test", b"[", b"[::1", b"a b", b"", b"x:99999999", b"\xff"))
            headers = [(b"authorization", value.encode()), (b"host", host)]
            target = rng.choice(
                ("/api/check_admin_key", "/api/v1/get_canonical_urls", "/api/v1/deployment_info",
                 "/api/v1/list_environment_variables", "/api/nowhere",
                 "/api/query?path=notes:texts")
            )  # fmt: skip
            sent = Sent("GET", target, tuple(headers), (b"",))
            if rng.random() < 0.4:
                sent = _environment_change(rng, key)
            find = await judge(deployment, sent)
            requests += 1
            assert find is None, report("robust over HTTP", number, sent, find)
        assert deployment.bugs == []
        await deployment.canary()
    evidence("robust", requests=requests)


async def test_nobody_else_s_credentials_or_cursors_open_anything(
    effort: Effort, evidence: Any
) -> None:
    forged = 0
    async with Deployment(seed=effort.seed) as deployment:
        for number in range(effort.pick(400, 4000)):
            rng = random.Random(f"keys {effort.seed} {number}")
            key = Writer(rng, deployment)._bad_key()
            header = [(b"authorization", f"Convex {key}".encode())]
            answer = await deployment.request("GET", "/api/check_admin_key", header)
            assert answer.status in {400, 403}, (key, answer)
            forged += 1
            token = mangle_bytes(rng, ALICE_TOKEN.encode()).decode("latin-1")
            if token.strip() == ALICE_TOKEN:
                continue
            header = [(b"authorization", f"Bearer {token}".encode("latin-1", "replace"))]
            answer = await deployment.request("GET", "/api/query?path=notes:texts", header)
            assert answer.status in {400, 401}, (token, answer)
            forged += 1
    evidence("robust", forged=forged)


@pytest.mark.parametrize(
    "breakage", named("redact", "key-prefix", "internal-call", "http-crash"), ids=str
)
async def test_a_breakage_behind_http_is_found(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, evidence: Any
) -> None:
    breakage.apply(monkeypatch)
    kinds = set()
    if breakage.name == "key-prefix":
        async with Deployment() as deployment:
            key = deployment.admin_key[:-1]
            header = [(b"authorization", f"Convex {key}".encode())]
            answer = await deployment.request("GET", "/api/check_admin_key", header)
        kinds = {"forged key accepted"} if answer.status == 200 else set()
    else:
        _, find, _ = await explore(1, 900, redact=True)
        kinds = {find.kind} if find else set()
    assert (
        kinds
        & {
            "redact": {"internal text", "error text"},
            "internal-call": {"internal text", "internal function"},
            "http-crash": {"logged as a bug"},
            "key-prefix": {"forged key accepted"},
        }[breakage.name]
    )
    evidence("robust", breakage=breakage, found=len(kinds))
