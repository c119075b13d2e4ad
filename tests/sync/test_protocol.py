"""Text ⇄ message: every message both ways, the strictness of the decoder, the exact bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.errors import ProtocolError
from reactive_store.sync import protocol
from reactive_store.sync.protocol import (
    Action,
    ActionResponse,
    AddQuery,
    Arguments,
    Authenticate,
    AuthError,
    Connect,
    Event,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    Ping,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    RemoveQuery,
    Transition,
    TransitionChunk,
    Version,
    decode_client,
    decode_server,
    decode_ts,
    encode_client,
    encode_server,
    encode_transition,
    encode_ts,
    split_transition,
)

SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"

u32 = st.integers(0, 2**32 - 1)
timestamps = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(exclude_categories=("Cs",)))
lines = st.lists(texts, max_size=3).map(tuple)
objects = st.dictionaries(
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1),
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts | st.lists(texts),
    max_size=4,
)
encoded = objects.map(lambda o: json.dumps(o, sort_keys=True, separators=(",", ":"),
                                           ensure_ascii=False).encode())  # fmt: skip
arguments = encoded.map(Arguments)
optional_text = st.none() | texts
versions = st.builds(Version, u32, u32, timestamps)

client_messages = st.one_of(
    st.builds(
        Connect,
        st.uuids().map(str),
        u32,
        optional_text,
        st.none() | timestamps,
        st.none() | st.integers(-(2**53), 2**53),
    ),
    st.builds(
        ModifyQuerySet,
        u32,
        u32,
        st.lists(
            st.builds(AddQuery, u32, texts, arguments, optional_text, optional_text)
            | st.builds(RemoveQuery, u32),
            max_size=4,
        ).map(tuple),
    ),
    st.builds(Mutation, u32, texts, arguments, optional_text),
    st.builds(Action, u32, texts, arguments, optional_text),
    st.builds(Authenticate, u32, st.just("None")),
    st.builds(Authenticate, u32, st.just("User"), texts),
    st.builds(Authenticate, u32, st.just("Admin"), texts, st.none() | objects),
    st.builds(Event, texts),
)

modifications = st.one_of(
    st.builds(QueryUpdated, u32, encoded, lines, optional_text),
    st.builds(QueryUpdated, u32, encoded, lines, st.none(), st.just(False)),
    st.builds(QueryFailed, u32, texts, st.none() | encoded, lines, optional_text),
    st.builds(QueryRemoved, u32),
)
server_messages = st.one_of(
    st.builds(
        Transition,
        versions,
        versions,
        st.lists(modifications, max_size=4).map(tuple),
        st.none() | st.integers(-(2**60), 2**60),
        st.none() | timestamps,
    ),
    st.builds(TransitionChunk, texts, u32, u32, texts),
    st.builds(MutationResponse, u32, st.just(True), encoded, timestamps, lines),
    st.builds(MutationResponse, u32, st.just(False), texts, st.none(), lines, st.none() | encoded),
    st.builds(ActionResponse, u32, st.just(True), encoded, lines),
    st.builds(ActionResponse, u32, st.just(False), texts, lines, st.none() | encoded),
    st.builds(AuthError, texts, st.none() | u32, st.booleans()),
    st.builds(FatalError, texts),
    st.just(Ping()),
)


@given(client_messages)
def test_a_client_message_survives_the_wire(message: protocol.ClientMessage):
    assert decode_client(encode_client(message)) == message


@given(server_messages)
def test_a_server_message_survives_the_wire(message: protocol.ServerMessage):
    assert decode_server(encode_server(message)) == message


@given(timestamps)
def test_a_timestamp_survives_its_text(ts: int):
    assert decode_ts(encode_ts(ts)) == ts


@pytest.mark.parametrize(
    ("ts", "text"),
    [(0, "AAAAAAAAAAA="), (1, "AQAAAAAAAAA="), (2**63 - 1, "/////////38=")],
)
def test_timestamps_are_base64_of_little_endian_bytes(ts: int, text: str):
    assert encode_ts(ts) == text
    assert decode_ts(text) == ts


@pytest.mark.parametrize(
    "text", ["", "AA==", "AAAAAAAAAAA", "AAAAAAAAAAAA", "//////////8=", "!!!", "é", "AAAAAAAAAA_="]
)
def test_what_is_no_timestamp_is_refused(text: str):
    with pytest.raises(ValueError, match="timestamp"):
        decode_ts(text)


def frame(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def connect(**fields: Any) -> str:
    return frame("Connect", **{"sessionId": SESSION, "connectionCount": 0, **fields})


def add(**fields: Any) -> str:
    change = {"type": "Add", "queryId": 0, "udfPath": "m:q", "args": [{}], **fields}
    return frame("ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[change])


def mutation(**fields: Any) -> str:
    return frame("Mutation", **{"requestId": 0, "udfPath": "m:x", "args": [{}], **fields})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        '{"type":7}',
        '{"type":["Connect"]}',
        frame("Nonsense"),
        "\ufeff" + frame("Event", eventType="x"),
        frame("Connect", connectionCount=0),
        connect(sessionId="not-a-uuid"),
        connect(sessionId=7),
        connect(connectionCount=-1),
        connect(connectionCount=2**32),
        connect(connectionCount=True),
        connect(connectionCount=1.0),
        connect(lastCloseReason=5),
        connect(maxObservedTimestamp="short"),
        connect(maxObservedTimestamp=5),
        connect(maxObservedTimestamp="//////////8="),
        connect(clientTs=1.5),
        connect(clientTs="1"),
        frame("ModifyQuerySet", baseVersion=0, newVersion=1),
        frame("ModifyQuerySet", baseVersion=0, newVersion=1, modifications={}),
        frame("ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[5]),
        frame("ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[{"type": "Change"}]),
        frame("ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[{"type": "Remove"}]),
        add(queryId="0"),
        add(udfPath=None),
        add(journal=5),
        add(componentPath=5),
        frame("Mutation", udfPath="m:x", args=[]),
        mutation(udfPath=5),
        mutation(componentPath={}),
        frame("Action", requestId=0, udfPath="m:x", args="no array"),
        frame("Authenticate", tokenType="None"),
        frame("Authenticate", baseVersion=0, tokenType="Other"),
        frame("Authenticate", baseVersion=0, tokenType="User"),
        frame("Authenticate", baseVersion=0, tokenType="Admin", value="k", impersonating="u"),
        frame("Event"),
    ],
)
def test_what_is_no_message_is_refused_with_the_text_clients_see(text: str):
    with pytest.raises(ProtocolError) as caught:
        decode_client(text)
    assert caught.value.message.startswith("Received Invalid JSON on websocket: ")
    assert caught.value.code == "WSMessageInvalidJson"


def test_unknown_keys_and_any_order_are_accepted():
    text = (
        '{"modifications":[],"newVersion":1,"extra":{"a":[1]},'
        '"baseVersion":0,"type":"ModifyQuerySet"}'
    )
    assert decode_client(text) == ModifyQuerySet(0, 1, ())


def test_connect_may_leave_out_everything_but_who_is_calling():
    assert decode_client(connect(lastCloseReason=None)) == Connect(SESSION, 0)


@pytest.mark.parametrize(
    "spelling",
    [SESSION.upper(), SESSION.replace("-", ""), "{" + SESSION + "}", "urn:uuid:" + SESSION],
)
def test_any_form_of_uuid_is_the_same_session(spelling: str):
    message = decode_client(connect(sessionId=spelling))
    assert isinstance(message, Connect)
    assert message.session_id == SESSION


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([{}], b"{}"),
        ([], b"{}"),
        ({}, b"{}"),
        ({"a": 1}, b'{"a":1}'),
        ([{"b": 1.0, "a": 1}], b'{"a":1,"b":1.0}'),
        ([{"n": {"$integer": "AQAAAAAAAAA="}}], b'{"n":{"$integer":"AQAAAAAAAAA="}}'),
        ([{"text": "é\u2028"}], '{"text":"é\u2028"}'.encode()),
        ([5], b"5"),
        ([None], b"null"),
    ],
)
def test_arguments_are_the_one_element_encoded_with_sorted_keys(args: Any, expected: bytes):
    message = decode_client(mutation(args=args))
    assert isinstance(message, Mutation)
    assert message.args == Arguments(expected)


def test_missing_arguments_are_an_empty_object():
    message = decode_client(frame("Mutation", requestId=0, udfPath="m:x"))
    assert isinstance(message, Mutation)
    assert message.args == Arguments(b"{}")


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (
            [{"a": 1}, 2],
            (
                "ArgumentValidationError: "
                "Expected to receive a single object as the function's argument. "
                'Instead received 2 arguments: [{"a":1},2]'
            ),
        ),
        ("text", "Invalid arguments for {path}: expected an array of arguments"),
        (None, "Invalid arguments for {path}: expected an array of arguments"),
    ],
)
def test_wrong_lists_of_arguments_are_errors_of_the_function(args: Any, fault: str):
    message = decode_client(mutation(args=args))
    assert isinstance(message, Mutation)
    assert message.args.fault == fault


def test_a_minus_zero_among_arguments_keeps_its_sign():
    text = '{"type":"Mutation","requestId":0,"udfPath":"m:x","args":[{"a":-0,"b":"-0"}]}'
    message = decode_client(text)
    assert isinstance(message, Mutation)
    assert message.args.encoded == b'{"a":-0.0,"b":"-0"}'


def test_arguments_nested_too_deeply_are_an_error_of_the_function():
    deep = "[" * 400 + "]" * 400
    one = '{"type":"Mutation","requestId":0,"udfPath":"m:x","args":[' + deep + "]}"
    two = '{"type":"Mutation","requestId":0,"udfPath":"m:x","args":[' + deep + ",1]}"
    for text, start in [
        (one, "Invalid arguments for {path}"),
        (two, "ArgumentValidationError: Expected to receive"),
    ]:
        message = decode_client(text)
        assert isinstance(message, Mutation)
        assert message.args.fault is not None
        assert message.args.fault.startswith(start)


def test_the_old_name_of_impersonating_is_understood():
    text = frame("Authenticate", baseVersion=0, tokenType="Admin", value="k", acting_as={"a": "b"})
    assert decode_client(text) == Authenticate(0, "Admin", "k", {"a": "b"})


def test_a_transition_is_spliced_from_encoded_results():
    encoded = encode_transition(
        Version(0, 0, 0),
        Version(1, 0, 1),
        [
            protocol.encode_removal(1),
            protocol.encode_result(
                2, failed=False, body=b'"value":17.0,"logLines":[],"journal":null}'
            ),
            protocol.encode_result(3, failed=True, body=b'"errorMessage":"x","logLines":[]}'),
        ],
        -12,
        1795317874060000000,
    )
    assert encoded == (
        b'{"type":"Transition","startVersion":{"querySet":0,"identity":0,"ts":"AAAAAAAAAAA="},'
        b'"endVersion":{"querySet":1,"identity":0,"ts":"AQAAAAAAAAA="},"modifications":['
        b'{"type":"QueryRemoved","queryId":1},'
        b'{"type":"QueryUpdated","queryId":2,"value":17.0,"logLines":[],"journal":null},'
        b'{"type":"QueryFailed","queryId":3,"errorMessage":"x","logLines":[]}],'
        b'"clientClockSkew":-12,"serverTs":1795317874060000000}'
    )


def test_unknown_clocks_are_left_out_of_a_transition():
    fields = json.loads(encode_transition(Version(0, 0, 0), Version(0, 0, 1), []))
    assert fields.keys() == {"type", "startVersion", "endVersion", "modifications"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            MutationResponse(3, True, b"17.0", 1, ("[LOG] 'hi'",)),
            (
                '{"type":"MutationResponse","requestId":3,"success":true,"result":17.0,'
                '"ts":"AQAAAAAAAAA=","logLines":["[LOG] \'hi\'"]}'
            ),
        ),
        (
            MutationResponse(3, False, "bad", None, ()),
            (
                '{"type":"MutationResponse","requestId":3,"success":false,"result":"bad",'
                '"ts":null,"logLines":[]}'
            ),
        ),
        (
            MutationResponse(3, False, "bad", None, (), b"null"),
            (
                '{"type":"MutationResponse","requestId":3,"success":false,"result":"bad",'
                '"ts":null,"logLines":[],"errorData":null}'
            ),
        ),
        (
            ActionResponse(4, True, b"null"),
            '{"type":"ActionResponse","requestId":4,"success":true,"result":null,"logLines":[]}',
        ),
        (
            ActionResponse(4, False, "bad", (), b'{"a":1.0}'),
            (
                '{"type":"ActionResponse","requestId":4,"success":false,"result":"bad","logLines":[],'
                '"errorData":{"a":1.0}}'
            ),
        ),
        (
            AuthError("no", 2, True),
            '{"type":"AuthError","error":"no","baseVersion":2,"authUpdateAttempted":true}',
        ),
        (FatalError("no"), '{"type":"FatalError","error":"no"}'),
        (Ping(), '{"type":"Ping"}'),
    ],
)
def test_server_messages_have_exactly_these_keys(message: protocol.ServerMessage, expected: str):
    assert encode_server(message).decode() == expected


@given(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=200),
    st.integers(4, 40),
)
def test_the_pieces_of_a_transition_are_small_and_make_the_whole(text: str, size: int):
    whole = text.encode()
    pieces = [decode_server(piece) for piece in split_transition(whole, size)]
    assert all(isinstance(piece, TransitionChunk) for piece in pieces)
    assert "".join(piece.chunk for piece in pieces) == text
    assert [piece.part_number for piece in pieces] == list(range(len(pieces)))
    assert {piece.total_parts for piece in pieces} == {len(pieces)}
    assert {piece.transition_id for piece in pieces} == {str(len(whole))}
    assert all(len(piece.chunk.encode()) <= size for piece in pieces)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        '{"type":"Nonsense"}',
        '{"type":"MutationResponse","requestId":0,"success":true,"result":1,"ts":null,"logLines":[]}',
        '{"type":"MutationResponse","requestId":0,"success":true,"ts":"AQAAAAAAAAA=","logLines":[]}',
        '{"type":"MutationResponse","requestId":0,"success":1,"result":1,"logLines":[]}',
        '{"type":"ActionResponse","requestId":0,"success":true,"result":1}',
        '{"type":"ActionResponse","requestId":0,"success":true,"result":1,"logLines":[5]}',
        '{"type":"Transition","startVersion":5}',
        '{"type":"FatalError"}',
    ],
)
def test_a_client_refuses_what_no_server_says(text: str):
    with pytest.raises(ProtocolError):
        decode_server(text)


def test_a_client_refuses_an_unknown_modification():
    version = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}
    change = {"type": "QueryChanged", "queryId": 0, "logLines": []}
    text = frame("Transition", startVersion=version, endVersion=version, modifications=[change])
    with pytest.raises(ProtocolError):
        decode_server(text)


def test_a_missing_attempted_flag_counts_as_true():
    assert decode_server('{"type":"AuthError","error":"x","baseVersion":null}') == AuthError(
        "x", None, True
    )
