"""The JSON of every message of the sync socket: text in, text out, nothing else.

Invariants
- Whatever a peer sent either becomes a message or a `ProtocolError`; nothing is guessed.
- Values (arguments, results, error data) stay encoded JSON bytes and are spliced, never re-encoded,
  on the way out.
- Keys that are unknown are left out, never written as null, unless null has a meaning.

Source   what Convex's npm client 1.48 and PyPI client 0.8.1 send and accept on their sockets
"""

from __future__ import annotations

import re
import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NoReturn, TypeAlias, assert_never

import orjson

from reactive_store.errors import ProtocolError
from reactive_store.sync.messages import (
    Action,
    ActionResponse,
    AddQuery,
    Arguments,
    Authenticate,
    AuthError,
    ClientMessage,
    ClientVersion,
    Close,
    Connect,
    Event,
    FatalError,
    Modification,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    Ping,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    RemoveQuery,
    ServerMessage,
    Transition,
    TransitionChunk,
    Version,
)
from reactive_store.values.wire import parse_json

__all__ = [
    # re-exported: the messages themselves
    "Connect",
    "AddQuery",
    "RemoveQuery",
    "ModifyQuerySet",
    "Arguments",
    "Mutation",
    "Action",
    "Authenticate",
    "Event",
    "ClientMessage",
    "Version",
    "QueryUpdated",
    "QueryFailed",
    "QueryRemoved",
    "Modification",
    "Transition",
    "TransitionChunk",
    "MutationResponse",
    "ActionResponse",
    "AuthError",
    "FatalError",
    "Ping",
    "ServerMessage",
    "Close",
    "ClientVersion",
    # text ⇄ message
    "decode_client",
    "encode_client",
    "decode_server",
    "encode_server",
    "encode_ts",
    "decode_ts",
    "encode_body",
    "encode_removal",
    "encode_result",
    "encode_transition",
    "result_head",
    "transition_parts",
    "split_transition",
]

_U32_MAX = 2**32 - 1
_TS_MAX = 2**63 - 1
_TS = struct.Struct("<Q")
_UUID = re.compile(
    r"(?:urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?"
)


# Timestamps.


def encode_ts(ts: int) -> str:
    """The text form of a timestamp: base64 of eight little-endian bytes."""
    return b2a_base64(_TS.pack(ts), newline=False).decode()


def decode_ts(text: str) -> int:
    """The timestamp of a text form.

    Raises   ValueError when it is none
    """
    try:
        raw = a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ValueError(f"invalid base64 in timestamp {text!r}") from error
    if len(raw) != _TS.size:
        raise ValueError(f"timestamp {text!r} has {len(raw)} bytes instead of 8")
    ts: int = _TS.unpack(raw)[0]
    if ts > _TS_MAX:
        raise ValueError(f"timestamp {ts} is out of range")
    return ts


# Reading fields. These raise ValueError; the outermost function makes it a ProtocolError.

_Fields: TypeAlias = dict[str, Any]


def _wrong(fields: _Fields, name: str, wanted: str) -> NoReturn:
    if name not in fields:
        raise ValueError(f"missing field `{name}`")
    raise ValueError(f"invalid value for field `{name}`, expected {wanted}")


def _u32(fields: _Fields, name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _U32_MAX:
        _wrong(fields, name, "u32")
    return value


def _integer(fields: _Fields, name: str) -> int | None:
    value = fields.get(name)
    if value is not None and type(value) is not int:
        _wrong(fields, name, "an integer")
    return value


def _text(fields: _Fields, name: str) -> str:
    value = fields.get(name)
    if type(value) is not str:
        _wrong(fields, name, "a string")
    return value


def _optional_text(fields: _Fields, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and type(value) is not str:
        _wrong(fields, name, "a string")
    return value


def _flag(fields: _Fields, name: str) -> bool:
    value = fields.get(name)
    if type(value) is not bool:
        _wrong(fields, name, "a boolean")
    return value


def _objects(fields: _Fields, name: str) -> Iterator[_Fields]:
    value = fields.get(name)
    if type(value) is not list:
        _wrong(fields, name, "an array")
    for element in value:
        if type(element) is not dict:
            _wrong(fields, name, "an array of objects")
        yield element


def _texts(fields: _Fields, name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if type(value) is not list or not all(type(line) is str for line in value):
        _wrong(fields, name, "an array of strings")
    return tuple(value)


def _message(text: str | bytes) -> _Fields:
    fields = parse_json(text)
    if type(fields) is not dict:
        raise ValueError("expected an object")
    return fields


# Client messages.

_NO_ARGUMENTS = Arguments(b"{}")


def _arguments(fields: _Fields) -> Arguments:
    if "args" not in fields:
        return _NO_ARGUMENTS
    args = fields["args"]
    if type(args) is list:
        if not args:
            return _NO_ARGUMENTS
        if len(args) > 1:
            return Arguments(b"", _too_many(args))
        args = args[0]
        if not args and type(args) is dict:
            return _NO_ARGUMENTS
    elif type(args) is not dict:  # a bare object counts as the only argument
        return Arguments(b"", "Invalid arguments for {path}: expected an array of arguments")
    try:
        # The copy lets go of orjson's buffer, 4 KiB for the shortest argument: queries keep theirs.
        return Arguments(b"%b" % orjson.dumps(args, option=orjson.OPT_SORT_KEYS))
    except TypeError:
        return Arguments(b"", "Invalid arguments for {path}: nested too deeply")


def _too_many(args: list[Any]) -> str:
    try:
        shown = orjson.dumps(args).decode()
    except TypeError:
        shown = "…"
    return (
        "ArgumentValidationError: Expected to receive a single object as the function's argument. "
        f"Instead received {len(args)} arguments: {shown}"
    )


def _connect(fields: _Fields) -> Connect:
    match = _UUID.fullmatch(_text(fields, "sessionId").lower())
    if match is None:
        _wrong(fields, "sessionId", "a UUID")
    observed = _optional_text(fields, "maxObservedTimestamp")
    return Connect(
        session_id="-".join(match.groups()),
        connection_count=_u32(fields, "connectionCount"),
        last_close_reason=_optional_text(fields, "lastCloseReason"),
        max_observed_ts=None if observed is None else decode_ts(observed),
        client_ts_ms=_integer(fields, "clientTs"),
    )


def _modify_query_set(fields: _Fields) -> ModifyQuerySet:
    return ModifyQuerySet(
        base_version=_u32(fields, "baseVersion"),
        new_version=_u32(fields, "newVersion"),
        modifications=tuple(map(_query_change, _objects(fields, "modifications"))),
    )


def _query_change(fields: _Fields) -> AddQuery | RemoveQuery:
    kind = fields.get("type")
    if kind == "Add":
        return AddQuery(
            query_id=_u32(fields, "queryId"),
            path=_text(fields, "udfPath"),
            args=_arguments(fields),
            journal=_optional_text(fields, "journal"),
            component_path=_optional_text(fields, "componentPath"),
        )
    if kind == "Remove":
        return RemoveQuery(_u32(fields, "queryId"))
    _wrong(fields, "type", "`Add` or `Remove`")


def _mutation(fields: _Fields) -> Mutation:
    return Mutation(
        _u32(fields, "requestId"),
        _text(fields, "udfPath"),
        _arguments(fields),
        _optional_text(fields, "componentPath"),
    )


def _action(fields: _Fields) -> Action:
    if type(fields.get("args", [])) not in (list, dict):
        _wrong(fields, "args", "an array")
    return Action(
        _u32(fields, "requestId"),
        _text(fields, "udfPath"),
        _arguments(fields),
        _optional_text(fields, "componentPath"),
    )


def _authenticate(fields: _Fields) -> Authenticate:
    base_version = _u32(fields, "baseVersion")
    kind = fields.get("tokenType")
    if kind == "None":
        return Authenticate(base_version, "None")
    if kind == "User":
        return Authenticate(base_version, "User", _text(fields, "value"))
    if kind == "Admin":
        acting_as = fields.get("impersonating")
        if acting_as is None:
            acting_as = fields.get("acting_as")
        if acting_as is not None and type(acting_as) is not dict:
            _wrong(fields, "impersonating", "an object")
        return Authenticate(base_version, "Admin", _text(fields, "value"), acting_as)
    _wrong(fields, "tokenType", "`None`, `User` or `Admin`")


def _event(fields: _Fields) -> Event:
    return Event(_text(fields, "eventType"))


_CLIENT_MESSAGES: dict[Any, Callable[[_Fields], ClientMessage]] = {
    "Connect": _connect,
    "ModifyQuerySet": _modify_query_set,
    "Mutation": _mutation,
    "Action": _action,
    "Authenticate": _authenticate,
    "Event": _event,
}


def decode_client(text: str | bytes) -> ClientMessage:
    """The message of one text frame a client sent.

    Raises   ProtocolError[WSMessageInvalidJson] with the text to send as FatalError
    """
    try:
        fields = _message(text)
        kind = fields.get("type")
        decode = _CLIENT_MESSAGES.get(kind) if type(kind) is str else None
        if decode is None:
            _wrong(fields, "type", "a known kind of message")
        return decode(fields)
    except ValueError as error:  # orjson's error is one as well
        raise ProtocolError(f"Received Invalid JSON on websocket: {error}") from error


def encode_client(message: ClientMessage) -> bytes:
    """The frame a client sends; keys without a value are left out."""
    match message:
        case Connect():
            fields: _Fields = {
                "type": "Connect",
                "sessionId": message.session_id,
                "connectionCount": message.connection_count,
                "lastCloseReason": message.last_close_reason,
            }
            if message.max_observed_ts is not None:
                fields["maxObservedTimestamp"] = encode_ts(message.max_observed_ts)
            if message.client_ts_ms is not None:
                fields["clientTs"] = message.client_ts_ms
        case ModifyQuerySet():
            fields = {
                "type": "ModifyQuerySet",
                "baseVersion": message.base_version,
                "newVersion": message.new_version,
                "modifications": [
                    {"type": "Remove", "queryId": change.query_id}
                    if isinstance(change, RemoveQuery)
                    else _call("Add", "queryId", change.query_id, change)
                    for change in message.modifications
                ],
            }
        case Mutation():
            fields = _call("Mutation", "requestId", message.request_id, message)
        case Action():
            fields = _call("Action", "requestId", message.request_id, message)
        case Authenticate():
            fields = {
                "type": "Authenticate",
                "baseVersion": message.base_version,
                "tokenType": message.kind,
            }
            if message.kind != "None":
                fields["value"] = message.value
            if message.acting_as is not None:
                fields["impersonating"] = message.acting_as
        case Event():
            fields = {"type": "Event", "eventType": message.event_type, "event": None}
        case _:
            assert_never(message)
    return orjson.dumps(fields)


def _call(kind: str, id_name: str, id_: int, message: AddQuery | Mutation | Action) -> _Fields:
    fields: _Fields = {
        "type": kind,
        id_name: id_,
        "udfPath": message.path,
        "args": [orjson.Fragment(message.args.encoded)],
    }
    if isinstance(message, AddQuery) and message.journal is not None:
        fields["journal"] = message.journal
    if message.component_path is not None:
        fields["componentPath"] = message.component_path
    return fields


# Server messages. The ones on the hot path are put together from pieces.


def encode_removal(query_id: int) -> bytes:
    """One modification of a Transition: the query is gone."""
    return b'{"type":"QueryRemoved","queryId":%d}' % query_id


def encode_result(query_id: int, *, failed: bool, body: bytes) -> bytes:
    """One modification of a Transition: a result, or an error.

    Shapes   body: everything after the query id, up to and including the closing brace
    """
    return result_head(query_id, failed=failed) + body


def result_head(query_id: int, *, failed: bool) -> bytes:
    """What stands before the body of a result."""
    if failed:
        return b'{"type":"QueryFailed","queryId":%d,' % query_id
    return b'{"type":"QueryUpdated","queryId":%d,' % query_id


def _version(version: Version) -> bytes:
    query_set, identity, ts = version
    text = b2a_base64(_TS.pack(ts), newline=False)
    return b'{"querySet":%d,"identity":%d,"ts":"%b"}' % (query_set, identity, text)


def encode_transition(
    start: Version,
    end: Version,
    modifications: Sequence[bytes],
    clock_skew_ms: int | None = None,
    server_ts_ns: int | None = None,
) -> bytes:
    """A Transition around modifications that are encoded already."""
    inside = (b",".join(modifications),)
    return b"".join(transition_parts(start, end, inside, clock_skew_ms, server_ts_ns))


def transition_parts(
    start: Version,
    end: Version,
    inside: Sequence[bytes],
    clock_skew_ms: int | None = None,
    server_ts_ns: int | None = None,
) -> tuple[bytes, ...]:
    """The pieces of a Transition, for whoever joins them; `inside` are those of its modifications.

    Answers are long, so each copy of one that is not made counts.
    """
    tail = b"}"
    if server_ts_ns is not None:
        tail = b',"serverTs":%d}' % server_ts_ns
    if clock_skew_ms is not None:
        tail = b',"clientClockSkew":%d%b' % (clock_skew_ms, tail)
    head = b'{"type":"Transition","startVersion":%b,"endVersion":%b,"modifications":[' % (
        _version(start),
        _version(end),
    )
    return (head, *inside, b"]" + tail)


def split_transition(frame: bytes, chunk_bytes: int) -> list[bytes]:
    """TransitionChunk frames that together carry a Transition.

    Shapes   pieces are at most `chunk_bytes` long in UTF-8 and never cut a character
    """
    cuts = [0]
    while cuts[-1] < len(frame):
        cut = min(cuts[-1] + chunk_bytes, len(frame))
        while cut < len(frame) and frame[cut] & 0xC0 == 0x80:
            cut -= 1
        cuts.append(cut)
    transition_id = str(len(frame))
    total = len(cuts) - 1
    return [
        encode_server(TransitionChunk(frame[start:end].decode(), part, total, transition_id))
        for part, (start, end) in enumerate(pairwise(cuts))
    ]


def _failure_fields(error_data: bytes | None) -> bytes:
    return b"" if error_data is None else b',"errorData":' + error_data


def _mutation_response(message: MutationResponse) -> bytes:
    result = message.result
    return (
        b'{"type":"MutationResponse","requestId":%d,"success":%b,"result":%b,"ts":%b,"logLines":%b%b}'
        % (
            message.request_id,
            b"true" if message.success else b"false",
            result if isinstance(result, bytes) else orjson.dumps(result),
            b"null"
            if message.ts is None
            else b'"%b"' % b2a_base64(_TS.pack(message.ts), newline=False),
            orjson.dumps(message.log_lines) if message.log_lines else b"[]",
            _failure_fields(message.error_data),
        )
    )


def _action_response(message: ActionResponse) -> bytes:
    result = message.result
    return b'{"type":"ActionResponse","requestId":%d,"success":%b,"result":%b,"logLines":%b%b}' % (
        message.request_id,
        b"true" if message.success else b"false",
        result if isinstance(result, bytes) else orjson.dumps(result),
        orjson.dumps(message.log_lines) if message.log_lines else b"[]",
        _failure_fields(message.error_data),
    )


def encode_body(change: QueryUpdated | QueryFailed) -> bytes:
    """What `encode_result` takes as body."""
    if isinstance(change, QueryUpdated):
        fields: _Fields = {"value": orjson.Fragment(change.value)}
    else:
        fields = {"errorMessage": change.error_message}
        if change.error_data is not None:
            fields["errorData"] = orjson.Fragment(change.error_data)
    fields["logLines"] = change.log_lines
    if change.has_journal:
        fields["journal"] = change.journal
    return orjson.dumps(fields)[1:]


def _modification(change: Modification) -> bytes:
    if isinstance(change, QueryRemoved):
        return encode_removal(change.query_id)
    failed = isinstance(change, QueryFailed)
    return encode_result(change.query_id, failed=failed, body=encode_body(change))


def encode_server(message: ServerMessage) -> bytes:
    """The frame a server sends."""
    match message:
        case Transition():
            return encode_transition(
                message.start,
                message.end,
                [_modification(change) for change in message.modifications],
                message.clock_skew_ms,
                message.server_ts_ns,
            )
        case MutationResponse():
            return _mutation_response(message)
        case ActionResponse():
            return _action_response(message)
        case Ping():
            return b'{"type":"Ping"}'
        case TransitionChunk():
            fields: _Fields = {
                "type": "TransitionChunk",
                "chunk": message.chunk,
                "partNumber": message.part_number,
                "totalParts": message.total_parts,
                "transitionId": message.transition_id,
            }
        case AuthError():
            fields = {
                "type": "AuthError",
                "error": message.error,
                "baseVersion": message.base_version,
                "authUpdateAttempted": message.attempted,
            }
        case FatalError():
            fields = {"type": "FatalError", "error": message.error}
        case _:
            assert_never(message)
    return orjson.dumps(fields)


# Reading server messages: what a client does. Not on the server's path.


def _encoded(fields: _Fields, name: str) -> bytes:
    if name not in fields:
        _wrong(fields, name, "a value")
    return orjson.dumps(fields[name])


def _read_version(fields: _Fields, name: str) -> Version:
    value = fields.get(name)
    if type(value) is not dict:
        _wrong(fields, name, "a version")
    return Version(_u32(value, "querySet"), _u32(value, "identity"), decode_ts(_text(value, "ts")))


def _read_modification(fields: _Fields) -> Modification:
    kind = fields.get("type")
    query_id = _u32(fields, "queryId")
    if kind == "QueryRemoved":
        return QueryRemoved(query_id)
    log_lines = _texts(fields, "logLines")
    journal = _optional_text(fields, "journal")
    has_journal = "journal" in fields
    if kind == "QueryUpdated":
        return QueryUpdated(query_id, _encoded(fields, "value"), log_lines, journal, has_journal)
    if kind == "QueryFailed":
        data = orjson.dumps(fields["errorData"]) if "errorData" in fields else None
        text = _text(fields, "errorMessage")
        return QueryFailed(query_id, text, data, log_lines, journal, has_journal)
    _wrong(fields, "type", "a kind of modification")


def _read_transition(fields: _Fields) -> Transition:
    return Transition(
        start=_read_version(fields, "startVersion"),
        end=_read_version(fields, "endVersion"),
        modifications=tuple(map(_read_modification, _objects(fields, "modifications"))),
        clock_skew_ms=_integer(fields, "clientClockSkew"),
        server_ts_ns=_integer(fields, "serverTs"),
    )


def _read_chunk(fields: _Fields) -> TransitionChunk:
    return TransitionChunk(
        _text(fields, "chunk"),
        _u32(fields, "partNumber"),
        _u32(fields, "totalParts"),
        _text(fields, "transitionId"),
    )


def _read_outcome(fields: _Fields) -> tuple[bool, bytes | str, bytes | None]:
    success = _flag(fields, "success")
    if success:
        return True, _encoded(fields, "result"), None
    data = orjson.dumps(fields["errorData"]) if "errorData" in fields else None
    return False, _text(fields, "result"), data


def _read_mutation_response(fields: _Fields) -> MutationResponse:
    success, result, data = _read_outcome(fields)
    ts = decode_ts(_text(fields, "ts")) if success else None
    request_id = _u32(fields, "requestId")
    return MutationResponse(request_id, success, result, ts, _texts(fields, "logLines"), data)


def _read_action_response(fields: _Fields) -> ActionResponse:
    success, result, data = _read_outcome(fields)
    request_id = _u32(fields, "requestId")
    return ActionResponse(request_id, success, result, _texts(fields, "logLines"), data)


def _read_auth_error(fields: _Fields) -> AuthError:
    attempted = fields.get("authUpdateAttempted", True)
    return AuthError(_text(fields, "error"), _integer(fields, "baseVersion"), attempted is True)


_SERVER_MESSAGES: dict[Any, Callable[[_Fields], ServerMessage]] = {
    "Transition": _read_transition,
    "TransitionChunk": _read_chunk,
    "MutationResponse": _read_mutation_response,
    "ActionResponse": _read_action_response,
    "AuthError": _read_auth_error,
    "FatalError": lambda fields: FatalError(_text(fields, "error")),
    "Ping": lambda _: Ping(),
}


def decode_server(text: str | bytes) -> ServerMessage:
    """The message of one text frame a server sent.

    Raises   ProtocolError[WSMessageInvalidJson]
    """
    try:
        fields = _message(text)
        kind = fields.get("type")
        decode = _SERVER_MESSAGES.get(kind) if type(kind) is str else None
        if decode is None:
            _wrong(fields, "type", "a known kind of message")
        return decode(fields)
    except ValueError as error:
        raise ProtocolError(f"Invalid message from the server: {error}") from error
