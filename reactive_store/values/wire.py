"""Values as JSON, in three forms.

- *encoded*: lossless, what clients speak and what is stored. Numbers are always printed with a
  fraction or an exponent; names are in order; what JSON lacks is written `{"$integer": …}`,
  `{"$float": …}` or `{"$bytes": …}`, each holding base64.
- *clean* (the HTTP format "json"): for people; loses types.
- *export*: for snapshots; int and float differ only by the fraction.

`loads(dumps(value))` is `normalize(value)`, ids apart (they come back as plain strings).
Encoded parts (documents) are spliced in as bytes, never decoded.

Source of facts: docs/reference/values.md, "Wire encoding"; Convex's open server decides what is
refused on the way in.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import copysign, isfinite
from struct import Struct
from typing import Any, Final

import orjson

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.values.names import FIELD_NAMES, check_field_name
from reactive_store.values.value import (
    LARGEST_EXACT,
    UNSET,
    Encoded,
    Id,
    Int64,
    Value,
    is_all_encoded,
    normal_float,
    normalize,
    normalize_keeping_encoded,
    too_nested,
)

__all__ = [
    "dumps",
    "encode_normalized",
    "loads",
    "parse_json",
    "parse_stored",
    "from_json",
    "to_wire_json",
    "to_clean_json",
    "to_export_json",
    "error_data_message",
]

_FORMAT = Limits()
_INT64 = Struct("<q")
_FLOAT64 = Struct("<d")
_TO_JSON: Final = orjson.dumps
_MESSAGE_CHARS = 16_384
_TRUNCATED = "[...truncated]"


# ---- writing the encoded form ----


def dumps(value: object) -> bytes:
    """The encoded form of anything `normalize` accepts; documents inside are spliced.

    Cost     O(size); about 4 µs for 12 flat fields, 0.2 µs for a document as it was read
    Raises   BadRequest as `normalize`
    """
    if isinstance(value, Encoded):
        return value.encoded
    return encode_normalized(normalize_keeping_encoded(value))


def encode_normalized(value: Any) -> bytes:
    """The encoded form of a value that is already normal (`Encoded` parts are allowed).

    Cost     half of `dumps`
    """
    if type(value) is list and is_all_encoded(value):
        return b"[" + b",".join([item.encoded for item in value]) + b"]"
    # Formatting copies the bytes: those of orjson keep the room they were written into (4 KiB).
    return b"%b" % _TO_JSON(_ENCODERS.get(type(value), _encode_part)(value))


def to_wire_json(value: Value) -> Any:
    """The encoded form of a normal value as a structure, for JSON that contains values."""
    return _ENCODERS[type(value)](value)


def _same(value: Any) -> Any:
    return value


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _encode_float(number: float) -> Any:
    if isfinite(number) and (number or copysign(1.0, number) > 0.0):
        return number
    return {"$float": _base64(_FLOAT64.pack(number))}


def _encode_int64(number: Int64) -> Any:
    return {"$integer": _base64(_INT64.pack(number))}


def _encode_bytes(data: bytes) -> Any:
    return {"$bytes": _base64(data)}


def _encode_array(items: list[Any]) -> Any:
    return [_ENCODERS.get(type(item), _encode_part)(item) for item in items]


def _encode_object(fields: dict[str, Any]) -> Any:
    result: dict[str, Any] = {}
    for name, item in fields.items():
        kind = type(item)
        if kind is str or kind is bool:
            result[name] = item
        elif kind is int:
            result[name] = float(item)
        else:
            result[name] = _ENCODERS.get(kind, _encode_part)(item)
    return result


def _encode_part(value: Any) -> Any:
    if isinstance(value, Encoded):
        return orjson.Fragment(value.encoded)
    raise TypeError(f"{type(value).__name__} is not a normal value")


_ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    type(None): _same,
    bool: _same,
    str: _same,
    Id: _same,
    int: float,
    float: _encode_float,
    Int64: _encode_int64,
    bytes: _encode_bytes,
    list: _encode_array,
    dict: _encode_object,
}


# ---- reading the encoded form ----

# The JSON parser makes an integer of the text "-0", which loses the sign. The first pattern finds
# candidates cheaply; the second walks strings and whole numbers to change only real ones.
_MINUS_ZERO = re.compile(rb"-0(?![0-9.eE])")
_STRING_OR_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*', re.DOTALL)


def loads(data: bytes | str, *, levels: int = 0) -> Value:
    """The normal value that encoded JSON text stands for.

    Units    levels: containers around it that count towards its depth
    Cost     O(size); about 4 µs for 12 flat fields
    Raises   BadRequest[BadJsonBody] when it is not JSON (numbers beyond a double, `NaN` and
             unpaired surrogates are not); BadRequest as `from_json`
    """
    try:
        parsed = parse_json(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"Invalid JSON: {error}", code="BadJsonBody") from error
    value: Value = _DECODERS[type(parsed)](parsed, levels)
    return value


def parse_json(data: bytes | str) -> Any:
    """JSON text parsed and not decoded, where every number keeps its sign: for whole messages.

    Raises   ValueError when it is not JSON
    """
    parsed = orjson.loads(data)
    if ("-0" in data) if isinstance(data, str) else (b"-0" in data):
        raw = data.encode() if isinstance(data, str) else data
        if _MINUS_ZERO.search(raw):
            return orjson.loads(_STRING_OR_NUMBER.sub(_with_fraction, raw))
    return parsed


def parse_stored(data: bytes) -> Any:
    """The JSON of an encoded value, parsed and not decoded: `from_json` decodes parts of it.

    For readers that want little of a large value. What is no JSON number, such as a bigint, is an
    object with one `$` field here.
    """
    return orjson.loads(data)


def _with_fraction(token: re.Match[bytes]) -> bytes:
    text = token[0]
    return b"-0.0" if text == b"-0" else text


def from_json(obj: Any) -> Value:
    """The normal value for JSON that is already parsed (ints and floats are both float64).

    Raises   BadRequest[InvalidValue, InvalidFieldName, TooNestedError, ArrayTooLong,
             TooManyFieldsError]
    """
    value: Value = _DECODERS[type(obj)](obj, 0)
    return value


def _decode_same(value: Any, _depth: int) -> Any:
    return value


def _decode_int(number: int, _depth: int) -> int | float:
    if -LARGEST_EXACT <= number <= LARGEST_EXACT:
        return number
    try:
        return normal_float(float(number))
    except OverflowError:
        raise BadRequest(
            "Invalid JSON: a number is too large for a float64", code="InvalidValue"
        ) from None


def _decode_float(number: float, _depth: int) -> int | float:
    return normal_float(number)


def _decode_array(items: list[Any], depth: int) -> list[Any]:
    if depth >= _FORMAT.value_nesting:
        raise BadRequest(too_nested(depth + 1), code="TooNestedError")
    if len(items) > _FORMAT.array_elements:
        raise BadRequest(
            f"Array length is too long ({len(items)} > maximum length {_FORMAT.array_elements})",
            code="ArrayTooLong",
        )
    depth += 1
    return [_DECODERS[type(item)](item, depth) for item in items]


def _decode_object(fields: dict[str, Any], depth: int) -> Any:
    if len(fields) == 1:
        [(name, item)] = fields.items()
        special = _SPECIAL.get(name)
        if special is not None:
            return special(item)
    if depth >= _FORMAT.value_nesting:
        raise BadRequest(too_nested(depth + 1), code="TooNestedError")
    if len(fields) > _FORMAT.object_fields:
        raise BadRequest(
            f"Object has too many fields ({len(fields)} > maximum number {_FORMAT.object_fields})",
            code="TooManyFieldsError",
        )
    depth += 1
    result: dict[str, Any] = {}
    for name in sorted(fields):
        item = fields[name]
        plain = FIELD_NAMES.get(name) or check_field_name(name)
        kind = type(item)
        if kind is str or kind is bool:
            result[plain] = item
        else:
            result[plain] = _DECODERS[kind](item, depth)
    return result


def _decode_integer(text: object) -> Int64:
    data = _decode_base64("$integer", text)
    if len(data) != 8:
        raise BadRequest("Int64 must be exactly eight bytes", code="InvalidValue")
    return Int64(_INT64.unpack(data)[0])


def _decode_special_float(text: object) -> int | float:
    data = _decode_base64("$float", text)
    if len(data) != 8:
        raise BadRequest("Float64 must be exactly eight bytes", code="InvalidValue")
    number: float = _FLOAT64.unpack(data)[0]
    if number and isfinite(number):
        shown = int(number) if number.is_integer() and abs(number) < 1e21 else number
        raise BadRequest(f"Float64 {shown} should be encoded as a number", code="InvalidValue")
    return normal_float(number)


def _decode_bytes(text: object) -> bytes:
    return _decode_base64("$bytes", text)


def _decode_base64(name: str, text: object) -> bytes:
    """Standard alphabet, padding optional, spare bits zero: what writing it again gives back."""
    if not isinstance(text, str):
        raise BadRequest(
            f"Malformed {name} field: expected base64 in a string, found {type(text).__name__}",
            code="InvalidValue",
        )
    try:
        data = a2b_base64(text + "=" * (-len(text) % 4))
        canonical = _base64(data)
    except (Base64Error, ValueError) as error:
        raise BadRequest(f"Invalid base64 in {name}: {error}", code="InvalidValue") from error
    if text not in (canonical, canonical.rstrip("=")):
        raise BadRequest(f"Invalid base64 in {name}: not canonical", code="InvalidValue")
    return data


_DECODERS: Final[dict[type, Callable[[Any, int], Any]]] = {
    type(None): _decode_same,
    bool: _decode_same,
    str: _decode_same,
    int: _decode_int,
    float: _decode_float,
    list: _decode_array,
    dict: _decode_object,
}
_SPECIAL: Final[dict[str, Callable[[object], Any]]] = {
    "$integer": _decode_integer,
    "$float": _decode_special_float,
    "$bytes": _decode_bytes,
}


# ---- the other forms ----


def to_clean_json(value: object) -> bytes:
    """The lossy "json" form: bigints as decimal strings, bytes as base64, NaN as `"NaN"`."""
    return _TO_JSON(_clean(normalize(value)))


def _clean(value: Value) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _clean(item) for name, item in value.items()}  # type: ignore[union-attr]
    if kind is list:
        return [_clean(item) for item in value]  # type: ignore[union-attr]
    if kind is Int64:
        return str(value)
    if kind is bytes:
        return _base64(value)  # type: ignore[arg-type]
    if kind is float and not isfinite(value):  # type: ignore[arg-type]
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # type: ignore[operator]
    return float(value) if kind is int else value  # type: ignore[arg-type]


def to_export_json(value: object) -> bytes:
    """The form of snapshot exports: bigints as bare integers, the rest as encoded."""
    return _TO_JSON(_export(normalize(value)))


def _export(value: Value) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _export(item) for name, item in value.items()}  # type: ignore[union-attr]
    if kind is list:
        return [_export(item) for item in value]  # type: ignore[union-attr]
    if kind is Int64:
        return int(value)  # type: ignore[arg-type]
    if kind is float and isfinite(value):  # type: ignore[arg-type]
        return value
    return _ENCODERS[kind](value)


def error_data_message(data: object) -> str:
    """The message of a ConvexError with this data: a string as it is, else JSON as JavaScript
    prints it, bigints as `"5n"`, cut at 16384 characters.

    `data` is what the app raised, before normalising: fields stay in the order they were written.
    """
    if isinstance(data, str):
        return str.__str__(data)
    text = _TO_JSON(_as_javascript(data), option=orjson.OPT_NON_STR_KEYS).decode()
    if len(text) > _MESSAGE_CHARS:
        text = text[: _MESSAGE_CHARS - len(_TRUNCATED)] + _TRUNCATED
    return text


def _as_javascript(value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if value is UNSET:
        return "undefined"
    if isinstance(value, str):
        return str.__str__(value).encode("utf-8", "replace").decode()
    if isinstance(value, Int64):
        return f"{value}n"
    if isinstance(value, (int, float)):
        return orjson.Fragment(_javascript_number(float(value)))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {}
    if isinstance(value, Mapping):
        return {str(name): _as_javascript(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_javascript(item) for item in value]
    return _as_javascript(normalize(value))


def _javascript_number(number: float) -> str:
    if not isfinite(number):
        return "null"
    size = abs(number)
    if number.is_integer() and size < 1e21:
        return str(int(number))
    if 1e-6 <= size < 1e-4:
        return format(Decimal(repr(number)), "f")
    return re.sub(r"e([+-])0+", r"e\1", repr(number))
