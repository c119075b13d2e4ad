from __future__ import annotations

import json
import struct
import sys
from datetime import datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.values.document import Document
from reactive_store.values.order import encode_key
from reactive_store.values.value import UNSET, Id, Int64, normalize
from reactive_store.values.wire import (
    dumps,
    encode_normalized,
    error_data_message,
    from_json,
    loads,
    parse_json,
    to_clean_json,
    to_export_json,
    to_wire_json,
)
from tests.values.strategies import values


@given(values)
def test_what_is_written_is_read_back(value: Any) -> None:
    """V9."""
    text = dumps(value)
    normal = normalize(value)
    assert encode_key(loads(text)) == encode_key(normal)
    assert repr(loads(text)) == repr(normal)
    assert repr(loads(text.decode())) == repr(normal)
    assert encode_normalized(normal) == text
    assert dumps(loads(text)) == text
    assert orjson.dumps(to_wire_json(normal)) == text


@given(values)
def test_a_strict_reader_of_floats_finds_no_integer(value: Any) -> None:
    """V5."""

    def refuse(text: str) -> None:
        raise AssertionError(text)

    json.loads(dumps(value), parse_int=refuse, parse_constant=refuse)


@given(values)
def test_reading_does_not_change_what_was_parsed(value: Any) -> None:
    parsed = orjson.loads(dumps(value))
    before = json.dumps(parsed)
    from_json(parsed)
    assert json.dumps(parsed) == before


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17, b"17.0"),
        (2**53, b"9007199254740992.0"),
        (1e16, b"1e+16"),
        (-0.0, b'{"$float":"AAAAAAAAAIA="}'),
        (float("inf"), b'{"$float":"AAAAAAAA8H8="}'),
        (Int64(-1), b'{"$integer":"//////////8="}'),
        (b"\xfb\xff", b'{"$bytes":"+/8="}'),
        (Id("x", "t"), b'"x"'),
        ({"b": [1], "a": {"d": 1, "c": None}}, b'{"a":{"c":null,"d":1.0},"b":[1.0]}'),
    ],
)
def test_the_encoded_form(value: object, text: bytes) -> None:
    """V2, V3, V4, V5, V6."""
    assert dumps(value) == text


def test_documents_are_spliced_as_they_are() -> None:
    odd = Document(b'{"a": 1, "not decoded": \xff}', "t")
    assert dumps(odd) == odd.encoded
    assert dumps({"page": [odd, None], "n": 1}) == (
        b'{"n":1.0,"page":[{"a": 1, "not decoded": \xff},null]}'
    )
    assert encode_normalized([odd]) == b"[" + odd.encoded + b"]"


def test_a_list_of_documents_and_others_is_encoded_in_order() -> None:
    one, two = Document(b'{"a":1.0}', "t"), Document(b'{"a":2.0}', "t")
    assert dumps([one, two]) == b'[{"a":1.0},{"a":2.0}]'
    assert dumps([one]) == b'[{"a":1.0}]'
    assert dumps([one, 3, two, None]) == b'[{"a":1.0},3.0,{"a":2.0},null]'
    assert dumps([None, one]) == b'[null,{"a":1.0}]'
    assert dumps({"page": [one, two]}) == b'{"page":[{"a":1.0},{"a":2.0}]}'


def test_what_is_encoded_holds_no_spare_room() -> None:
    for value in ({"a": 1}, [1], "text"):
        encoded = dumps(value)
        assert sys.getsizeof(encoded) == sys.getsizeof(b"") + len(encoded)


def test_only_normal_values_are_encoded_without_normalising() -> None:
    with pytest.raises(TypeError, match="datetime is not a normal value"):
        encode_normalized([datetime(2026, 1, 1)])  # noqa: DTZ001


@pytest.mark.parametrize("text", ["", "{", "1e400", "NaN", "-Infinity", '"\\ud800"', "01", "1."])
def test_what_is_not_json_is_refused(text: str) -> None:
    """V8, V15."""
    for data in (text, text.encode()):
        with pytest.raises(BadRequest, match="Invalid JSON") as caught:
            loads(data)
        assert caught.value.code == "BadJsonBody"
    with pytest.raises(BadRequest):
        loads(b'"\xff"')


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("-0", "8000000000000000"),
        (" -0 ", "8000000000000000"),
        ("-0.0", "8000000000000000"),
        ("-0e5", "8000000000000000"),
        ("0", "0000000000000000"),
        ("1e-0", "3ff0000000000000"),
        ("-0.5", "bfe0000000000000"),
    ],
)
def test_a_minus_zero_keeps_its_sign(text: str, bits: str) -> None:
    """V7."""
    number = loads(text)
    assert struct.pack(">d", float(number)).hex() == bits  # type: ignore[arg-type]
    assert repr(loads(f'{{"a":[{text}]}}')) == repr({"a": [number]})


@given(
    st.lists(st.sampled_from(["-0", "a-0", '"', "\\", "1e-0", "-0.", "é"]), max_size=5).map("".join)
)
def test_minus_zero_inside_strings_is_left_alone(text: str) -> None:
    encoded = json.dumps([text, "sep"])[:-1] + ",-0]"
    assert repr(loads(encoded)) == repr([text, "sep", -0.0])


def test_an_integer_beyond_every_float_is_refused():
    """V7."""
    with pytest.raises(BadRequest, match="too large for a float64"):
        from_json([10**400])


def test_integers_beyond_two_to_the_fifty_three_become_the_nearest_double() -> None:
    """V7."""
    assert loads("9007199254740993") == 2**53
    assert type(loads("9007199254740993")) is int
    assert repr(loads("9223372036854775807")) == "9.223372036854776e+18"
    assert repr(from_json(2**64 - 1)) == "1.8446744073709552e+19"


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        ({"$integer": "AQAAAAAAAAA=", "x": 1}, "Field name $integer starts with '$'"),
        ({"$integer": "AQ=="}, "Int64 must be exactly eight bytes"),
        ({"$float": "AQ=="}, "Float64 must be exactly eight bytes"),
        ({"$float": "AAAAAAAA8D8="}, "Float64 1 should be encoded as a number"),
        ({"$bytes": "YQ"}, None),
        ({"$bytes": "YQ="}, "Invalid base64 in $bytes"),
        ({"$bytes": "YR=="}, "Invalid base64 in $bytes"),
        ({"$bytes": "Y"}, "Invalid base64 in $bytes"),
        ({"$bytes": "YQ==\n"}, "Invalid base64 in $bytes"),
        ({"$bytes": "é"}, "Invalid base64 in $bytes"),
        ({"$bytes": 5}, "Malformed $bytes field"),
        ({"a": [{"é": 1}]}, "Field name é has invalid character 'é'"),
        ([0] * 8193, "Array length is too long (8193 > maximum length 8192)"),
        ({f"f{i}": 0 for i in range(1025)}, "Object has too many fields"),
    ],
)
def test_the_encoded_form_is_read_strictly(obj: Any, text: str | None) -> None:
    """V10, V11, V12, V13, V37."""
    if text is None:
        assert from_json(obj) == b"a"
        return
    with pytest.raises(BadRequest) as caught:
        from_json(obj)
    assert text in caught.value.message


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_text_deeper_than_a_value_may_be_is_refused(open_: str, close: str) -> None:
    def text(levels: int) -> str:
        return open_ * levels + "1" + close * levels

    assert loads(text(64)) is not None
    for levels in (65, 900, 100_000):
        with pytest.raises(BadRequest) as caught:
            loads(text(levels))
        assert caught.value.code == ("TooNestedError" if levels < 1000 else "BadJsonBody")


def test_levels_around_a_value_count() -> None:
    """V33."""
    assert loads("[" * 63 + "]" * 63, levels=1) is not None
    with pytest.raises(BadRequest, match="nested 65 levels deep"):
        loads("[" * 64 + "]" * 64, levels=1)


def test_whole_messages_keep_the_sign_of_zeros() -> None:
    for data in (b'{"-0":[-0,0,1e-0]}', '{"-0":[-0,0,1e-0]}'):
        assert repr(parse_json(data)) == "{'-0': [-0.0, 0, 1.0]}"
    with pytest.raises(ValueError, match="unexpected"):
        parse_json("{-0")


def test_special_forms_are_not_a_level() -> None:
    bottom = '{"$bytes":"YQ=="}'
    assert loads("[" * 64 + bottom + "]" * 64) is not None


def test_names_are_read_in_order() -> None:
    """V6."""
    value = loads('{"b":{"z":1,"y":2},"a":3}')
    assert isinstance(value, dict)
    assert (list(value), list(value["b"])) == (["a", "b"], ["y", "z"])


VARIED = {
    "int": Int64(33),
    "nan": float("nan"),
    "inf": [float("inf"), -float("inf")],
    "zero": -0.0,
    "n": 5,
    "b": b"\x00",
    "s": "x",
    "t": True,
    "u": None,
}


def test_the_clean_form_is_for_people() -> None:
    """V17."""
    assert to_clean_json(VARIED) == (
        b'{"b":"AA==","inf":["Infinity","-Infinity"],"int":"33","n":5.0,"nan":"NaN","s":"x",'
        b'"t":true,"u":null,"zero":-0.0}'
    )


def test_the_export_form_keeps_int_and_float_apart() -> None:
    """V18."""
    assert to_export_json(VARIED) == (
        b'{"b":{"$bytes":"AA=="},"inf":[{"$float":"AAAAAAAA8H8="},{"$float":"AAAAAAAA8P8="}],'
        b'"int":33,"n":5.0,"nan":{"$float":"AAAAAAAA+H8="},"s":"x","t":true,"u":null,"zero":-0.0}'
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("boom", "boom"),
        (Id("x", "t"), "x"),
        (
            {"b": 1, "a": [1.5, Int64(2), UNSET, True, None]},
            '{"b":1,"a":[1.5,"2n","undefined",true,null]}',
        ),
        (
            [1e21, 1e20, 1e-5, 1e-7, -0.0, float("inf")],
            "[1e+21,100000000000000000000,0.00001,1e-7,0,null]",
        ),
        ({"d": b"x"}, '{"d":{}}'),
        (Document(b'{"a":1.0}', "t"), '{"a":1}'),
    ],
)
def test_error_data_prints_as_in_javascript(data: object, message: str) -> None:
    """V25."""
    assert error_data_message(data) == message


def test_a_long_message_is_cut() -> None:
    """V25."""
    message = error_data_message(["x" * 20000])
    assert len(message) == 16384
    assert message.endswith("x[...truncated]")
