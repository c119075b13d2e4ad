"""The function endpoints: what reaches the runner, and every byte that comes back."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given

from reactive_store.errors import Conflict, OutOfRetention, Overloaded, StoreFailed
from reactive_store.functions.outcome import Failure, Success
from reactive_store.server import functions
from reactive_store.sync.protocol import encode_ts
from reactive_store.values.value import normalize
from reactive_store.values.wire import encode_normalized, loads, to_clean_json, to_export_json
from tests.server.conftest import LATEST_TS
from tests.values.strategies import values

JSON = {"Content-Type": "application/json"}
RICH = b'{"big":{"$integer":"AQAAAAAAAAA="},"bytes":{"$bytes":"aGk="},"n":17.0}'


@dataclass(frozen=True)
class Case:
    """One request and what it must come to."""

    name: str
    path: str
    body: Any = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    as_admin: bool = False
    outcome: Any = None
    status: int = 200
    response: bytes | None = None  # exact
    code: str | None = None  # of a refusal
    message: str | None = None  # of a refusal, exact
    call: tuple[str, str, bytes] | None = None  # (kind, path, args)


OK = b'{"status":"success","value":null}'

CASES = [
    # What the two clients send.
    Case(
        "npm sends an array of one object",
        "/api/query",
        {"path": "messages:list", "format": "convex_encoded_json", "args": [{"a": 1}]},
        response=OK,
        call=("query", "messages.js:list", b'{"a":1}'),
    ),
    Case(
        "python sends a bare object",
        "/api/query",
        {"path": "messages:list", "format": "convex_encoded_json", "args": {"a": 1.0}},
        response=OK,
        call=("query", "messages.js:list", b'{"a":1.0}'),
    ),
    Case(
        "arguments may be missing",
        "/api/mutation",
        {"path": "messages"},
        response=OK,
        call=("mutation", "messages.js:default", b"{}"),
    ),
    Case(
        "an empty array is no arguments",
        "/api/action",
        {"path": "messages.js:send", "args": []},
        response=OK,
        call=("action", "messages.js:send", b"{}"),
    ),
    Case(
        "arguments are sorted by name",
        "/api/mutation",
        {"path": "a:b", "args": {"b": 1, "a": 2}},
        response=OK,
        call=("mutation", "a.js:b", b'{"a":2,"b":1}'),
    ),
    Case(
        "another json content type",
        "/api/query",
        b'{"path":"a:b"}',
        headers={"Content-Type": "application/vnd.api+json; charset=utf-8"},
        response=OK,
    ),
    # Answers.
    Case(
        "log lines are there when there are any",
        "/api/query",
        {"path": "a:b"},
        outcome=Success(b"1.0", ("[LOG] 'hi'",)),
        response=b'{"status":"success","value":1.0,"logLines":["[LOG] \'hi\'"]}',
    ),
    Case(
        "a plain error has no data",
        "/api/mutation",
        {"path": "a:b"},
        headers={"Convex-Request-Id": "0123456789abcdef"},
        outcome=Failure("Uncaught ValueError: x\n    at f (a.py:1)\n", None, ()),
        response=b'{"status":"error","errorMessage":"[Request ID: 0123456789abcdef] Server Error'
        b'\\nUncaught ValueError: x\\n    at f (a.py:1)\\n"}',
    ),
    Case(
        "an application error has data, null included",
        "/api/action",
        {"path": "a:b"},
        headers={"Convex-Request-Id": "0123456789abcdef"},
        outcome=Failure("m\n", b"null", ("[WARN] 'w'",)),
        response=b'{"status":"error","errorMessage":"[Request ID: 0123456789abcdef] Server Error'
        b'\\nm\\n","errorData":null,"logLines":["[WARN] \'w\'"]}',
    ),
    # V17, V18, V20: formats.
    Case(
        "encoded values are passed on as they are",
        "/api/query",
        {"path": "a:b", "format": "convex_encoded_json"},
        outcome=Success(RICH, ()),
        response=b'{"status":"success","value":' + RICH + b"}",
    ),
    Case(
        "the other name of the encoded form",
        "/api/query",
        {"path": "a:b", "format": "convex_json"},
        outcome=Success(RICH, ()),
        response=b'{"status":"success","value":' + RICH + b"}",
    ),
    Case(
        "clean values lose their types",
        "/api/query",
        {"path": "a:b", "format": "json"},
        outcome=Success(RICH, ()),
        response=b'{"status":"success","value":{"big":"1","bytes":"aGk=","n":17.0}}',
    ),
    Case(
        "error data follows the format",
        "/api/query",
        {"path": "a:b", "format": "convex_clean_json"},
        headers={"Convex-Request-Id": "r"},
        outcome=Failure("m\n", b'{"$integer":"AQAAAAAAAAA="}', ()),
        response=b'{"status":"error","errorMessage":"[Request ID: r] Server Error\\nm\\n",'
        b'"errorData":"1"}',
    ),
    Case(
        "exported values keep integers bare",
        "/api/query",
        {"path": "a:b", "format": "export_json"},
        outcome=Success(RICH, ()),
        response=b'{"status":"success","value":{"big":1,"bytes":{"$bytes":"aGk="},"n":17.0}}',
    ),
    Case(
        "without a format values are clean",
        "/api/query",
        {"path": "a:b"},
        headers={"Convex-Client": "npm-1.48.0"},
        outcome=Success(b'{"$integer":"AQAAAAAAAAA="}', ()),
        response=b'{"status":"success","value":"1"}',
    ),
    Case(
        "old clients expect encoded values",
        "/api/query",
        {"path": "a:b"},
        headers={"Convex-Client": "npm-1.4.0"},
        outcome=Success(b'{"$integer":"AQAAAAAAAAA="}', ()),
        response=b'{"status":"success","value":{"$integer":"AQAAAAAAAAA="}}',
    ),
    Case(
        "python clients from 0.5 on expect clean values",
        "/api/query",
        {"path": "a:b"},
        headers={"Convex-Client": "python-0.5.0"},
        outcome=Success(b'{"$integer":"AQAAAAAAAAA="}', ()),
        response=b'{"status":"success","value":"1"}',
    ),
    Case(
        "an unknown format",
        "/api/query",
        {"path": "a:b", "format": "xml"},
        status=400,
        code="BadFormat",
        message="format param must be one of [`json`]. Got xml",
    ),
    Case(
        "a format nested deeper than Python can show",
        "/api/query",
        b'{"path":"a:b","format":' + b"[" * 1000 + b"]" * 1000 + b"}",
        headers=JSON,
        status=400,
        code="BadFormat",
        message="format param must be one of [`json`]. Got a list",
    ),
    Case(
        "a component that is no text",
        "/api/query",
        b'{"path":"a:b","componentPath":' + b"[" * 1000 + b"]" * 1000 + b"}",
        headers=JSON,
        status=400,
        code="BadJsonBody",
    ),
    # Errors of the call itself are answers, not refusals.
    Case(
        "two arguments",
        "/api/query",
        {"path": "a:b", "args": [1, 2]},
        headers={"Convex-Request-Id": "r"},
        response=b'{"status":"error","errorMessage":"[Request ID: r] Server Error\\n'
        b"ArgumentValidationError: Expected to receive a single object as the function's "
        b"argument. Instead received 2 arguments: "
        b'[1,2]\\n"}',
    ),
    Case(
        "one argument that is no object goes to the runner, which knows what to say",
        "/api/query",
        {"path": "a:b", "args": ["x"]},
        response=OK,
        call=("query", "a.js:b", b'"x"'),
    ),
    # Refusals.
    Case(
        "another content type",
        "/api/query",
        b"{}",
        headers={"Content-Type": "text/plain"},
        status=400,
        code="BadJsonBody",
        message="Expected request with `Content-Type: application/json`",
    ),
    Case("no content type", "/api/mutation", b"{}", status=400, code="BadJsonBody"),
    Case("no json", "/api/query", b"{", headers=JSON, status=400, code="BadJsonBody"),
    Case("no object", "/api/query", b"[]", headers=JSON, status=400, code="BadJsonBody"),
    Case("no path", "/api/query", {"args": {}}, status=400, code="BadJsonBody"),
    Case("a number as path", "/api/query", {"path": 1}, status=400, code="BadJsonBody"),
    Case(
        "a text as args", "/api/query", {"path": "a:b", "args": "x"}, status=400, code="BadJsonBody"
    ),
    Case(
        "a path that is none",
        "/api/query",
        {"path": "a b"},
        status=400,
        code="BadConvexFunctionIdentifier",
    ),
    Case(
        "a body that is too large",
        "/api/query",
        b" " * (16 * 1024 * 1024 + 2001),
        headers=JSON,
        status=400,
        code="BadJsonBody",
    ),
    Case("wrong method", "/api/query", method="PUT", status=405, response=b""),
    Case("wrong method again", "/api/mutation", method="GET", status=405, response=b""),
    Case("unknown path", "/api/nothing", {}, status=404, response=b""),
    Case("a trailing slash is another path", "/api/query/", {}, status=404, response=b""),
    Case(
        "unknown path, for an administrator",
        "/api/nothing",
        {},
        as_admin=True,
        status=400,
        code="UnsupportedEndpoint",
    ),
    Case(
        "a bad token",
        "/api/query",
        {"path": "a:b"},
        headers={"Authorization": "Bearer a.e30.c"},
        status=401,
        code="InvalidAuthHeader",
    ),
    Case(
        "a short header",
        "/api/query",
        {"path": "a:b"},
        headers={"Authorization": "x"},
        status=400,
        code="InvalidHeaderFailure",
        message="Invalid authentication header",
    ),
    Case(
        "a bad key",
        "/api/query",
        {"path": "a:b"},
        headers={"Authorization": "Convex test-store|00"},
        status=401,
        code="BadAdminKey",
    ),
    # Platform faults.
    Case(
        "a lost race",
        "/api/mutation",
        {"path": "a:b"},
        outcome=Conflict("again"),
        status=503,
        code="OptimisticConcurrencyControlFailure",
    ),
    Case(
        "too much at once",
        "/api/mutation",
        {"path": "a:b"},
        outcome=Overloaded("later"),
        status=429,
        code="TooManyConcurrentRequests",
    ),
    Case(
        "a failed disk",
        "/api/mutation",
        {"path": "a:b"},
        outcome=StoreFailed("disk full"),
        status=500,
        code="StoreFailed",
    ),
    Case(
        "a bug of ours",
        "/api/query",
        {"path": "a:b"},
        outcome=KeyError("x"),
        status=500,
        code="InternalServerError",
        message="Your request couldn't be completed. Try again later.",
    ),
    # Any kind of function.
    Case(
        "function is for administrators",
        "/api/function",
        {"path": "a:b", "args": {}},
        status=403,
        code="BadDeployKey",
    ),
    Case(
        "function refuses a wrong key the same way",
        "/api/function",
        {"path": "a:b", "args": {}},
        headers={"Authorization": "Convex test-store|00"},
        status=403,
        code="BadDeployKey",
    ),
    Case(
        "function runs anything",
        "/api/function",
        {"path": "a:b", "args": {"x": None}, "componentPath": ""},
        as_admin=True,
        response=OK,
        call=("any", "a.js:b", b'{"x":null}'),
    ),
    Case(
        "there are no components",
        "/api/function",
        {"path": "a:b", "componentPath": "c"},
        as_admin=True,
        headers={"Convex-Request-Id": "r"},
        response=b'{"status":"error","errorMessage":"[Request ID: r] Server Error\\nComponent '
        b"'c' is not mounted.\\n\"}",
    ),
    # By path.
    Case(
        "run takes the path from the address",
        "/api/run/dir/mod/fn",
        {"args": {"a": 1}},
        outcome=Success(RICH, ()),
        response=b'{"status":"success","value":{"big":"1","bytes":"aGk=","n":17.0}}',
        call=("any", "dir/mod.js:fn", b'{"a":1}'),
    ),
    Case(
        "run is clean for old clients too",
        "/api/run/mod/fn",
        {},
        headers={"Convex-Client": "npm-1.4.0"},
        outcome=Success(b'{"$integer":"AQAAAAAAAAA="}', ()),
        response=b'{"status":"success","value":"1"}',
    ),
    Case(
        "run encodes when asked to",
        "/api/run/mod/fn",
        {"format": "convex_encoded_json"},
        outcome=Success(RICH, ()),
        response=b'{"status":"success","value":' + RICH + b"}",
    ),
    Case(
        "run decodes the address",
        "/api/run/mod%2Ffn",
        {},
        response=OK,
        call=("any", "mod.js:fn", b"{}"),
    ),
    Case(
        "run needs a function",
        "/api/run/mod",
        {},
        status=400,
        code="MissingIdentifier",
        message="Path or function name not provided in path, e.g. /api/run/messages/list",
    ),
    # Queries in the address.
    Case(
        "a query in the address",
        "/api/query?path=a:b&args=%7B%22x%22%3A1%7D&format=json",
        method="GET",
        response=OK,
        call=("query", "a.js:b", b'{"x":1}'),
    ),
    Case(
        "its arguments may be missing",
        "/api/query?path=a:b",
        method="GET",
        response=OK,
        call=("query", "a.js:b", b"{}"),
    ),
    Case("its path may not", "/api/query", method="GET", status=400, code="BadQueryArgs"),
    Case(
        "its arguments are json",
        "/api/query?path=a:b&args=x",
        method="GET",
        status=400,
        code="BadQueryArgs",
    ),
    # Earlier states.
    Case(
        "the latest timestamp, without a body",
        "/api/query_ts",
        b"",
        headers=JSON,
        response=json.dumps({"ts": encode_ts(LATEST_TS)}, separators=(",", ":")).encode(),
    ),
    Case(
        "a timestamp that is none",
        "/api/query_at_ts",
        {"path": "a:b", "ts": "AAA="},
        status=400,
        code="BadJsonBody",
    ),
    Case(
        "a timestamp is needed",
        "/api/query_at_ts",
        {"path": "a:b"},
        status=400,
        code="BadJsonBody",
    ),
    Case(
        "a future timestamp",
        "/api/query_at_ts",
        {"path": "a:b", "ts": encode_ts(LATEST_TS + 1)},
        status=400,
        code="TimestampInFuture",
    ),
    Case(
        "a forgotten timestamp",
        "/api/query_at_ts",
        {"path": "a:b", "ts": encode_ts(5)},
        outcome=OutOfRetention("too old"),
        status=503,
        code="OutOfRetention",
    ),
    Case(
        "a batch is answered in order",
        "/api/query_batch",
        {"queries": [{"path": "a:b"}, {"path": "a:c", "args": [1, 2, 3]}, {"path": "a:d"}]},
        headers={"Convex-Request-Id": "r"},
        outcome=Success(b"1.0", ()),
        response=b'{"results":[{"status":"success","value":1.0},{"status":"error","errorMessage":'
        b'"[Request ID: r] Server Error\\nArgumentValidationError: Expected to receive a single '
        b"object as the function's "
        b'argument. Instead received 3 arguments: [1,2,3]\\n"},'
        b'{"status":"success","value":1.0}]}',
        call=("query", "a.js:d", b"{}"),
    ),
    Case("a batch is a list", "/api/query_batch", {"queries": {}}, status=400, code="BadJsonBody"),
    Case("of objects", "/api/query_batch", {"queries": [1]}, status=400, code="BadJsonBody"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_request(case, http, backend):
    if case.outcome is not None:
        backend.runner.outcome = case.outcome
    headers = {**(backend.admin if case.as_admin else {}), **case.headers}
    body = {"content": case.body} if isinstance(case.body, bytes) else {"json": case.body}
    if case.body is None:
        body = {}
    response = await http.request(case.method, case.path, headers=headers, **body)
    assert response.status_code == case.status
    if case.response is not None:
        assert response.content == case.response
    if case.code is not None:
        refusal = response.json()
        assert refusal.keys() == {"code", "message"}
        assert refusal["code"] == case.code
        assert case.message in {None, refusal["message"]}
    if response.content:
        assert response.headers["content-type"] == "application/json"
    if case.call is not None:
        call = backend.runner.calls[-1]
        assert (call.kind, call.path, call.args) == case.call


async def test_a_request_id_is_made_up_when_none_is_given(http, backend):
    backend.runner.outcome = Failure("m\n", None, ())
    texts = set()
    for headers in ({}, {"Convex-Request-Id": "not one!"}):
        response = await http.post("/api/query", json={"path": "a:b"}, headers=headers)
        text = response.json()["errorMessage"]
        head, _, rest = text.partition("] Server Error\n")
        assert rest == "m\n"
        assert bytes.fromhex(head.removeprefix("[Request ID: "))
        assert len(head) == len("[Request ID: ") + 16
        texts.add(text)
    assert len(texts) == 2


async def test_redaction_hides_texts_and_logs_and_keeps_data(http, backend):
    backend.settings = backend.settings.model_copy(update={"redact": True})
    backend.runner.outcome = Failure("secret\n", b'{"code":"x"}', ("[LOG] 'secret'",))
    request = {"path": "a:b"}
    for headers in ({}, backend.admin):
        response = await http.post(
            "/api/query", json=request, headers={"Convex-Request-Id": "r", **headers}
        )
        assert response.content == (
            b'{"status":"error","errorMessage":"[Request ID: r] Server Error",'
            b'"errorData":{"code":"x"}}'
        )
    backend.runner.outcome = Success(b"true", ("[LOG] 'secret'",))
    response = await http.post("/api/query", json=request)
    assert response.content == b'{"status":"success","value":true}'


async def test_the_caller_reaches_the_function(http, backend):
    await http.post("/api/query", json={"path": "a:b"})
    await http.post("/api/query", json={"path": "a:b"}, headers=backend.admin)
    bob = base64.b64encode(b'{"issuer":"i","subject":"bob"}').decode()
    acting = {"Authorization": f"Convex {backend.admin_keys.issue()}:{bob}"}
    await http.post("/api/query", json={"path": "a:b"}, headers=acting)
    nobody, admin, as_bob = (call.caller for call in backend.runner.calls)
    assert (nobody.identity, nobody.is_admin) == (None, False)
    assert (admin.identity, admin.is_admin) == (None, True)
    assert (as_bob.identity.subject, as_bob.is_admin) == ("bob", True)


async def test_what_may_have_effects_knows_where_its_request_came_from(http, backend):
    headers = {"User-Agent": "me", "Convex-Request-Id": "abc"}
    backend.runner.outcome = Failure("Uncaught ValueError: x\n", None, ())
    for path in ("mutation", "action", "run/a/b"):
        response = await http.post(f"/api/{path}", json={"path": "a:b"}, headers=headers)
        source = backend.runner.calls[-1].caller.request
        assert (source.ip, source.user_agent, source.request_id) == ("127.0.0.1", "me", "abc")
        assert source.auth_token is None
        assert response.json()["errorMessage"].startswith("[Request ID: abc] ")
    await http.post("/api/query", json={"path": "a:b"}, headers=headers)
    assert backend.runner.calls[-1].caller.request is None  # its answer is for everybody


async def test_a_query_at_a_timestamp_runs_there(http, backend):
    await http.post("/api/query_at_ts", json={"path": "a:b", "ts": encode_ts(42)})
    assert backend.runner.calls[-1].at == 42


async def test_a_batch_runs_at_one_timestamp(http, backend):
    await http.post("/api/query_batch", json={"queries": [{"path": "a:b"}, {"path": "a:c"}]})
    assert [call.at for call in backend.runner.calls] == [LATEST_TS, LATEST_TS]


async def test_arguments_nested_beyond_all_measure_are_an_error_of_the_call(http, backend):
    deep = b'{"path":"a:b","args":{"x":' + b"[" * 300 + b"]" * 300 + b"}}"
    response = await http.post("/api/query", content=deep, headers=JSON)
    assert response.status_code == 200
    assert response.json()["status"] == "error"
    assert "Invalid arguments for a:b: nested too deeply" in response.json()["errorMessage"]


@given(value=values.map(normalize))
def test_values_without_special_forms_are_passed_on_and_others_rewritten(value: Any) -> None:
    """The short cut for values that read alike in every form changes none of them."""
    encoded = encode_normalized(value)
    for shortened, whole in (
        (functions._clean, to_clean_json),
        (functions._export, to_export_json),
    ):
        assert orjson.loads(shortened(encoded)) == orjson.loads(whole(loads(encoded)))
