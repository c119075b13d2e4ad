"""Calling functions over HTTP.

A function that fails is a successful request: the answer has status 200 and says
`"status": "error"`. Other statuses mean that no function ran. Values travel in one of three forms;
the one Convex's clients ask for keeps every type.

Source: Convex's HTTP API; what its npm client 1.48 and Python client 0.8 send and accept
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.requests import Request
from starlette.responses import Response

from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.errors import BadRequest
from reactive_store.functions.names import display_path, parse_path
from reactive_store.functions.outcome import Failure, Outcome, client_message
from reactive_store.persistence.contract import Timestamp
from reactive_store.server.authorization import (
    admin_of_request,
    caller_of_request,
    from_request,
)
from reactive_store.server.requests import Endpoint, json_body
from reactive_store.sync.messages import ClientVersion
from reactive_store.sync.protocol import decode_ts, encode_ts
from reactive_store.values.wire import loads, parse_json, to_clean_json, to_export_json

__all__ = ["FUNCTION_ENDPOINTS"]

_Encode = Callable[[bytes], bytes]
_Run = Callable[[str, bytes, Caller], Awaitable[Outcome]]

_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def _as_it_is(value: bytes) -> bytes:
    return value


# Every value whose forms differ is encoded as an object with one key that starts with a dollar.
_SPECIAL = b'"$'


def _clean(value: bytes) -> bytes:
    return to_clean_json(loads(value)) if _SPECIAL in value else value


def _export(value: bytes) -> bytes:
    return to_export_json(loads(value)) if _SPECIAL in value else value


_FORMATS: dict[str, _Encode] = {
    "convex_encoded_json": _as_it_is,
    "convex_json": _as_it_is,
    "json": _clean,
    "convex_clean_json": _clean,
    "export_json": _export,
}
# Clients up to these versions decode values themselves without asking for them encoded.
_ENCODED_UP_TO = {"npm": (1, 4, 0), "python": (0, 4, 999_999_999)}


# ---- reading a request ----


def _default_format(request: Request) -> _Encode:
    client: ClientVersion | None = getattr(request.state, "client", None)
    if client is None or client.version is None:
        return _clean
    newest = _ENCODED_UP_TO.get(client.name)
    return _as_it_is if newest is not None and client.version <= newest else _clean


def _format(fields: Mapping[str, Any], default: _Encode) -> _Encode:
    name = fields.get("format")
    if name is None:
        return default
    # What is no text is not repeated: it may be nested deeper than Python can show.
    shown = name if isinstance(name, str) else f"a {type(name).__name__}"
    encode = _FORMATS.get(shown)
    if encode is None:
        raise BadRequest(f"format param must be one of [`json`]. Got {shown}", code="BadFormat")
    return encode


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        problem = "is missing" if value is None else "has to be a string"
        raise BadRequest(
            f"Failed to parse the request body: the field `{name}` {problem}", code="BadJsonBody"
        )
    return value


def _encoded_args(fields: Mapping[str, Any]) -> bytes | str:
    """The one argument object, encoded with its keys sorted; or what is wrong with it, as text.

    An object and an array of one object mean the same. `{path}` in the text stands for the path.
    """
    args = fields.get("args", {})
    if type(args) is list:
        if len(args) > 1:
            return (
                "ArgumentValidationError: "
                "Expected to receive a single object as the function's argument. "
                f"Instead received {len(args)} arguments: {_shown(args)}"
            )
        args = args[0] if args else {}
    elif type(args) is not dict:
        raise BadRequest(
            "Failed to parse the request body: the field `args` has to be an object or an array",
            code="BadJsonBody",
        )
    try:
        # Copied: the buffer orjson returns is larger than what is in it, and these bytes may live
        # as long as somebody watches the question.
        return b"%b" % orjson.dumps(args, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return "Invalid arguments for {path}: nested too deeply"


def _shown(args: list[Any]) -> str:
    try:
        return orjson.dumps(args).decode()
    except orjson.JSONEncodeError:
        return "…"


def _timestamp(fields: Mapping[str, Any], latest: Timestamp) -> Timestamp:
    try:
        ts = decode_ts(_text(fields, "ts"))
    except ValueError as error:
        raise BadRequest(
            f"Failed to parse the request body: {error}", code="BadJsonBody"
        ) from error
    if ts > latest:
        raise BadRequest(
            f"Timestamp {ts} lies in the future: the latest is {latest}", code="TimestampInFuture"
        )
    return Timestamp(ts)


def _request_id(backend: Backend, request: Request) -> str:
    given = request.headers.get("convex-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else backend.runtime.random_bytes(8).hex()


# ---- answering ----


async def _call(
    backend: Backend, request: Request, fields: Mapping[str, Any], caller: Caller, run: _Run
) -> bytes:
    """Run what the fields ask for, and write the answer."""
    path = parse_path(_text(fields, "path"))
    encode = _format(fields, _default_format(request))
    args = _encoded_args(fields)
    outcome: Outcome
    component = fields.get("componentPath")
    if component is not None:
        component = _text(fields, "componentPath")
    if component:
        # Components do not exist here; the empty path is the app itself.
        outcome = Failure(f"Component {component!r} is not mounted.\n", None, ())
    elif isinstance(args, str):
        outcome = Failure(args.replace("{path}", display_path(path)) + "\n", None, ())
    else:
        outcome = await run(path, args, caller)
    source = caller.request
    request_id = _request_id(backend, request) if source is None else source.request_id
    return _answer(backend, request_id, outcome, encode)


def _answer(backend: Backend, request_id: str, outcome: Outcome, encode: _Encode) -> bytes:
    redact = backend.settings.redact
    logs = b""
    if outcome.log_lines and not redact:
        logs = b',"logLines":' + orjson.dumps(outcome.log_lines)
    if isinstance(outcome, Failure):
        message = orjson.dumps(client_message(outcome, request_id, redact=redact))
        data = b"" if outcome.data is None else b',"errorData":' + encode(outcome.data)
        return b'{"status":"error","errorMessage":' + message + data + logs + b"}"
    return b'{"status":"success","value":' + encode(outcome.value) + logs + b"}"


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def _caller(backend: Backend, request: Request) -> Caller:
    return await caller_of_request(request.headers, request.query_params, backend.authenticator)


async def _known_caller(backend: Backend, request: Request) -> Caller:
    """The caller of what may have effects, which may ask where the request came from."""
    return from_request(await _caller(backend, request), request, _request_id(backend, request))


# ---- endpoints ----


async def query(backend: Backend, request: Request) -> Response:
    """`POST /api/query`: at the latest commit."""
    caller = await _caller(backend, request)
    fields = await json_body(request, backend.limits)
    return _json(await _call(backend, request, fields, caller, backend.live_queries.query))


async def query_of_url(backend: Backend, request: Request) -> Response:
    """`GET /api/query?path=&args=&format=`: the same, with the arguments as JSON text."""
    caller = await _caller(backend, request)
    parameters = request.query_params
    if "path" not in parameters:
        raise BadRequest("The query parameter `path` is missing", code="BadQueryArgs")
    fields: dict[str, Any] = dict(parameters)
    try:
        fields["args"] = parse_json(parameters.get("args") or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"The query parameter `args` is not JSON: {error}", code="BadQueryArgs"
        ) from error
    return _json(await _call(backend, request, fields, caller, backend.live_queries.query))


async def mutation(backend: Backend, request: Request) -> Response:
    """`POST /api/mutation`: run and commit. Sent twice, it runs twice."""
    caller = await _known_caller(backend, request)
    fields = await json_body(request, backend.limits)
    return _json(await _call(backend, request, fields, caller, backend.runner.mutation))


async def action(backend: Backend, request: Request) -> Response:
    """`POST /api/action`."""
    caller = await _known_caller(backend, request)
    fields = await json_body(request, backend.limits)
    return _json(await _call(backend, request, fields, caller, backend.runner.action))


async def function(backend: Backend, request: Request) -> Response:
    """`POST /api/function`: any kind, public or internal, for administrators."""
    caller = await admin_of_request(request.headers, request.query_params, backend.authenticator)
    fields = await json_body(request, backend.limits)
    return _json(await _call(backend, request, fields, caller, backend.runner.any_kind))


async def run(backend: Backend, request: Request) -> Response:
    """`POST /api/run/{module…}/{function}`: any public function, by its path in the URL."""
    caller = await _known_caller(backend, request)
    module, slash, name = unquote(request.path_params["path"]).rpartition("/")
    if not slash or not module or not name:
        raise BadRequest(
            "Path or function name not provided in path, e.g. /api/run/messages/list",
            code="MissingIdentifier",
        )
    fields = await json_body(request, backend.limits)
    fields = {"format": "json", **fields, "path": f"{module}:{name}", "componentPath": None}
    return _json(await _call(backend, request, fields, caller, backend.runner.any_kind))


async def query_ts(backend: Backend, request: Request) -> Response:
    """`POST /api/query_ts`: the latest timestamp, to be given to query_at_ts. Reads no body."""
    return _json(orjson.dumps({"ts": encode_ts(backend.database.latest_ts)}))


async def query_at_ts(backend: Backend, request: Request) -> Response:
    """`POST /api/query_at_ts`: a query on an earlier state."""
    caller = await _caller(backend, request)
    fields = await json_body(request, backend.limits)
    at = _timestamp(fields, backend.database.latest_ts)
    return _json(await _call(backend, request, fields, caller, _at(backend, at)))


async def query_batch(backend: Backend, request: Request) -> Response:
    """`POST /api/query_batch`: several queries on one state, answered in order."""
    caller = await _caller(backend, request)
    queries = (await json_body(request, backend.limits)).get("queries")
    if type(queries) is not list or not all(type(fields) is dict for fields in queries):
        raise BadRequest(
            "Failed to parse the request body: the field `queries` has to be an array of objects",
            code="BadJsonBody",
        )
    run_at = _at(backend, backend.database.latest_ts)
    answers = [await _call(backend, request, fields, caller, run_at) for fields in queries]
    return _json(b'{"results":[' + b",".join(answers) + b"]}")


def _at(backend: Backend, ts: Timestamp) -> _Run:
    async def run_query(path: str, args: bytes, caller: Caller) -> Outcome:
        return await backend.runner.query(path, args, caller, at=ts)

    return run_query


# (method, path, endpoint)
FUNCTION_ENDPOINTS: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/api/query", query),
    ("GET", "/api/query", query_of_url),
    ("POST", "/api/mutation", mutation),
    ("POST", "/api/action", action),
    ("POST", "/api/function", function),
    ("POST", "/api/run/{path:path}", run),
    ("POST", "/api/query_ts", query_ts),
    ("POST", "/api/query_at_ts", query_at_ts),
    ("POST", "/api/query_batch", query_batch),
)
