"""Every vector of the five files: values, order, ids, validators, validation.

The files were made with Convex's npm client 1.48 (see their "description"). Where it and the open
server differ, we follow the server; where JavaScript has something Python has not, the test says
which Python behaviour stands for it.
"""

from __future__ import annotations

import json
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from reactive_store.errors import BadRequest
from reactive_store.schema.tables import (
    Schema,
    TableDefinition,
    define_schema,
    define_table,
    doc_validator,
)
from reactive_store.schema.validators import UnionValidator, Validator, v
from reactive_store.values.ids import decode_id, encode_id, new_internal_id, table_number_of
from reactive_store.values.order import compare, encode_key, encode_key_parts, field_value
from reactive_store.values.size import document_size, size_of
from reactive_store.values.value import UNSET, Int64, nesting, normalize, normalize_patch
from reactive_store.values.wire import (
    dumps,
    encode_normalized,
    error_data_message,
    from_json,
    loads,
    to_clean_json,
    to_export_json,
)

FILES = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (Path(__file__).parent / "vectors").glob("*.json")
}


def cases(file: str, section: str) -> pytest.MarkDecorator:
    rows = FILES[file][section]
    names = [f"{i}-{row.get('name') or row.get('note') or ''}" for i, row in enumerate(rows)]
    return pytest.mark.parametrize("case", rows, ids=names)


def as_python(tagged: dict[str, Any]) -> Any:
    """A tagged value as a function author would write it (floats stay floats)."""
    match tagged:
        case {"type": "null"}:
            return None
        case {"type": "undefined"}:
            return UNSET
        case {"type": "int64", "value": text}:
            return Int64(int(text))
        case {"type": "float64", "bits": bits}:
            return struct.unpack(">d", bytes.fromhex(bits))[0]
        case {"type": "string", "utf16": units}:
            return b"".join(bytes.fromhex(unit) for unit in units).decode(
                "utf-16-be", "surrogatepass"
            )
        case {"type": "bytes", "hex": text}:
            return bytes.fromhex(text)
        case {"type": "array", "items": items}:
            return [as_python(item) for item in items]
        case {"type": "object", "fields": fields}:
            return {name: as_python(item) for name, item in fields}
        case {"type": "commitTs"}:
            return Int64(2**63 - 1)  # how it sorts and what it costs; it has no spelling here
        case {"type": "js", "js": js}:
            return PYTHON_STANDS_FOR[js]
        case {"type": "boolean" | "string", "value": value}:
            return value
    raise AssertionError(tagged)


class Foo:
    def __init__(self) -> None:
        self.x = 1


# A Uint8Array has no counterpart that Python refuses (bytes-like objects are bytes); a complex
# number is a built-in type that cannot be stored, like a symbol.
PYTHON_STANDS_FOR: dict[str, Any] = {
    "Set": {1},
    "Map": {"a": 1}.items(),
    "Date": datetime(1970, 1, 1),  # noqa: DTZ001
    "Uint8Array": iter([1, 2]),
    "instance of class Foo": Foo(),
    "function": as_python,
    "symbol": 1j,
}


def has_commit_timestamp(tagged: Any) -> bool:
    return '"commitTs"' in json.dumps(tagged)


def as_doubles(obj: Any) -> Any:
    """JSON with numbers that compare as doubles, and by type."""
    if isinstance(obj, bool) or obj is None or isinstance(obj, str):
        return obj
    if isinstance(obj, (int, float)):
        return ("number", struct.pack(">d", float(obj)))
    if isinstance(obj, list):
        return [as_doubles(item) for item in obj]
    return {name: as_doubles(item) for name, item in obj.items()}


def identical(a: Any, b: Any) -> bool:
    """Equal with the same types and bits."""
    return encode_key(a) == encode_key(b) and type(a) is type(b)


def refusal_of(call: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        call()
    assert caught.value.code != "BadRequest"
    return caught.value.message


# ---- values.json ----


@cases("values", "encode")
def test_a_value_encodes_as_on_convex(case: dict[str, Any]) -> None:
    """V1, V2, V3, V4, V15, V16, V26, V31, V34."""
    tagged = case["value"]
    if has_commit_timestamp(tagged):
        # Python code has no spelling for the placeholder, and nobody may send it.
        assert "starts with '$'" in refusal_of(lambda: from_json(case["encoded"]))
    elif "error" in case:
        check_encoding_error(case)
    elif "surrogate" in case.get("backend_expectation", ""):
        assert "surrogate" in refusal_of(lambda: dumps(as_python(tagged)))
        assert "surrogate" in refusal_of(lambda: loads(json.dumps(case["encoded"])))
    elif case["nesting"] > 64:
        assert refusal_of(lambda: dumps(as_python(tagged))) == (
            f"Value is too nested (nested {case['nesting']} levels deep > maximum nesting 64)"
        )
    else:
        value = normalize(as_python(tagged))
        text = dumps(as_python(tagged))
        assert as_doubles(orjson.loads(text)) == as_doubles(case["encoded"])
        assert encode_normalized(value) == text
        assert identical(loads(text), value)
        assert identical(from_json(case["encoded"]), value)
        assert size_of(value) == case["size"]
        assert nesting(value) == case["nesting"]
        # The vector's key counts fields that are undefined, which a stored value has not.
        assert encode_key(as_python(tagged)).hex() == case["key_hex"]
        # The vector's own JSON lost the sign of zeros.
        clean = to_clean_json(value).replace(b"-0.0", b"0.0")
        assert as_doubles(orjson.loads(clean)) == as_doubles(case["clean_json"])
        assert orjson.loads(to_export_json(value)) is not None or value is None


def check_encoding_error(case: dict[str, Any]) -> None:
    expected = case["error"]
    message = refusal_of(lambda: dumps(as_python(case["value"])))
    if expected.startswith("Field name") and "reserved" in expected:
        assert message.startswith(expected.replace("a '$'", "'$'"))  # the server's wording
    elif "exceeds maximum field name length" in expected:
        assert message == "Field name is too long (1025 > maximum 1024)"  # the server's wording
    elif "invalid character" in expected and "\ud83d" not in expected:
        assert message == expected
    elif "invalid character" in expected:
        assert "has invalid character '\U0001f600'" in message  # Python has whole characters
    elif "does not fit" in expected:
        assert message == expected.replace("BigInt", "Int64")
    elif expected.startswith("undefined"):
        assert message.startswith("UNSET is not a valid Convex value")  # our name for it
    else:
        assert "is not a supported Convex type" in message
    if " (present at path " in expected:
        path = expected.split(" (present at path ")[1].split(" in original")[0]
        assert message.endswith(f"(present at path {path})")


@cases("values", "decode")
def test_json_decodes_as_on_convex(case: dict[str, Any]) -> None:
    """V10, V11, V12, V13."""
    name = case["name"]
    if name in SERVER_DECIDES_DECODING:
        expected = SERVER_DECIDES_DECODING[name]
        if isinstance(expected, str):
            assert refusal_of(lambda: from_json(case["json"])).startswith(expected)
        else:
            assert identical(from_json(case["json"]), expected)
    elif "error" in case:
        message = refusal_of(lambda: from_json(case["json"]))
        assert message == case["error"].replace("a '$'", "'$'")
    else:
        value = from_json(case["json"])
        assert identical(loads(orjson.dumps(case["json"])), value)
        assert as_doubles(orjson.loads(dumps(value))) == (
            as_doubles(case["reencoded"])
            if name != "float_neg_nan"
            else {"$float": "AAAAAAAA+H8="}  # handed over by a function: canonical
        )
        assert as_doubles(orjson.loads(encode_normalized(value))) == as_doubles(case["reencoded"])
        if not has_commit_timestamp(case["value"]) and name != "float_neg_nan":
            assert identical(value, normalize(as_python(case["value"])))


EIGHT_INT = "Int64 must be exactly eight bytes"
EIGHT_FLOAT = "Float64 must be exactly eight bytes"
SERVER_DECIDES_DECODING: dict[str, Any] = {
    "integer_urlsafe": "Invalid base64 in $integer",
    "integer_short": EIGHT_INT,
    "integer_long": EIGHT_INT,
    "integer_empty": EIGHT_INT,
    "integer_not_string": "Malformed $integer field",
    "integer_null": "Malformed $integer field",
    "integer_unpadded": Int64(1),
    "float_pos_zero": 0,
    "float_normal": "Float64 1 should be encoded as a number",
    "float_subnormal": "Float64 5e-324 should be encoded as a number",
    "float_short": EIGHT_FLOAT,
    "float_not_string": "Malformed $float field",
    "bytes_urlsafe": "Invalid base64 in $bytes",
    "bytes_bad_len": "Invalid base64 in $bytes",  # padding may be absent, spare bits may not
    "bytes_not_string": "Malformed $bytes field",
    "commitTs": "Field name $commitTs starts with '$', which is reserved.",
    "commitTs_not_null": "Field name $commitTs starts with '$', which is reserved.",
    "set": "Field name $set starts with '$', which is reserved.",
    "map": "Field name $map starts with '$', which is reserved.",
    "nested_dollar_in_integer": "Malformed $integer field",
}


@cases("values", "raw_json")
def test_json_text_is_read_as_the_server_reads_it(case: dict[str, Any]) -> None:
    """V5, V7, V8, V14, V15."""
    if case.get("error"):
        refusal_of(lambda: loads(case["text"]))
        refusal_of(lambda: loads(case["text"].encode()))
    else:
        assert identical(loads(case["text"]), normalize(as_python(case["value"])))
        assert identical(loads(case["text"].encode()), normalize(as_python(case["value"])))


@cases("values", "sizes")
def test_a_value_costs_what_it_costs_on_convex(case: dict[str, Any]) -> None:
    """V34."""
    value = as_python(case["value"])
    assert size_of(value if value is UNSET else normalize(value)) == case["size"]


@cases("values", "document_sizes")
def test_a_document_costs_what_it_costs_on_convex(case: dict[str, Any]) -> None:
    """V35."""
    document = normalize(as_python(case["value"]))
    assert isinstance(document, dict)
    id_chars = case.get("options", {}).get("customIdLength", 32)
    assert document_size(document, id_chars=id_chars) == case["size"]


@cases("values", "patch")
def test_a_patch_keeps_unset_only_at_its_top(case: dict[str, Any]) -> None:
    """V21."""
    if has_commit_timestamp(case["value"]):
        refusal_of(lambda: from_json(case["encoded"]))
    elif "error" in case:
        message = refusal_of(lambda: normalize_patch(as_python(case["value"])))
        if case["error"].startswith("Field name"):
            assert message == case["error"].replace("a '$'", "'$'")
        else:
            assert "object" in message or message.startswith("UNSET is not a valid Convex value")
    elif case["name"] == "not_object":
        refusal_of(lambda: normalize_patch(as_python(case["value"])))
    else:
        changes = normalize_patch(as_python(case["value"]))
        encoded = {
            name: {"$undefined": None} if item is UNSET else orjson.loads(dumps(item))
            for name, item in changes.items()
        }
        assert as_doubles(encoded) == as_doubles(case["encoded"])


@cases("values", "literal")
def test_a_literal_of_a_filter_may_be_unset(case: dict[str, Any]) -> None:
    """V21."""
    value = as_python(case["value"])
    if "error" in case:
        assert refusal_of(lambda: normalize(value)).endswith("(present at path [0])")
    elif value is UNSET:
        assert encode_key(value) == b"\x01"
    else:
        assert as_doubles(orjson.loads(dumps(value))) == as_doubles(case["encoded"])


@cases("values", "convex_error_message")
def test_the_data_of_an_error_makes_its_message(case: dict[str, Any]) -> None:
    """V25."""
    data = "x" * 20000 if case["name"] == "long" else as_python(case["data"])
    message = error_data_message(data)
    assert len(message) == case["message_length"]
    if case["name"] != "long":
        assert message == case["message"]


# ---- order.json ----

ASCENDING = [
    as_python(row["value"]) if row["value"]["type"] == "undefined" else from_json(row["encoded"])
    for row in FILES["order"]["ascending"]
]


def test_values_ascend_in_the_order_of_convex() -> None:
    """V58, V59, V60, V61, V63."""
    keys = [encode_key(value) for value in ASCENDING]
    assert [key.hex() for key in keys] == [row["key_hex"] for row in FILES["order"]["ascending"]]
    assert keys == sorted(set(keys))


def test_every_pair_of_the_order_compares_both_ways() -> None:
    for i in range(0, len(ASCENDING), 7):
        for j in range(len(ASCENDING)):
            assert compare(ASCENDING[i], ASCENDING[j]) == (i > j) - (i < j)


@cases("order", "ascending")
def test_ordered_values_survive_the_wire(case: dict[str, Any]) -> None:
    tagged = case["value"]
    if tagged["type"] != "undefined":
        value = from_json(case["encoded"])
        assert identical(loads(encode_normalized(value)), value)
        negative_nan = tagged.get("repr") == "NaN" and tagged["bits"].startswith("f")
        if not negative_nan and "fff8" not in json.dumps(tagged):
            assert identical(normalize(as_python(tagged)), value)


@cases("order", "equal")
def test_equal_values_compare_equal(case: dict[str, Any]) -> None:
    """V62."""
    assert compare(as_python(case["a"]), as_python(case["b"])) == 0


@cases("order", "different")
def test_different_values_compare_by_the_total_order(case: dict[str, Any]) -> None:
    """V62."""
    a, b = (as_python(case[side]) for side in "ab")
    assert compare(a, b) == case["compare"]
    assert compare(b, a) == -case["compare"]


@cases("order", "index_keys")
def test_an_index_key_joins_fields_time_and_id(case: dict[str, Any]) -> None:
    """V64."""
    parts = []
    if "document" in case:
        document = normalize(as_python(case["document"]))
        assert isinstance(document, dict)
        parts = [field_value(document, path.split(".")) for path in case["index_fields"]]
        parts.append(normalize(as_python(case["_creationTime"])))
    parts.append(case["_id"])
    assert encode_key_parts(parts).hex() == case["key_hex"]


# ---- ids.json ----


@cases("ids", "valid")
def test_an_id_says_its_table_and_internal_id(case: dict[str, Any]) -> None:
    """V45, V47."""
    internal_id = bytes.fromhex(case["internal_id"])
    assert decode_id(case["id"]) == (case["table_number"], internal_id)
    assert encode_id(case["table_number"], internal_id) == case["id"]
    assert table_number_of(case["id"]) == case["table_number"]
    assert len(case["id"]) == case["length"]
    assert new_internal_id(internal_id[:14], case["day_since_epoch"]) == internal_id


@cases("ids", "invalid")
def test_what_is_not_an_id_is_refused_with_the_reason(case: dict[str, Any]) -> None:
    """V46."""
    assert refusal_of(lambda: decode_id(case["id"])) == case["backend_error"]
    assert table_number_of(case["id"]) == 0


@cases("ids", "normalize")
def test_an_id_belongs_to_one_table(case: dict[str, Any]) -> None:
    number = table_number_of(case["id_string"])
    if case["note"].startswith("legacy"):
        assert number == 0  # forms older than this project are not ids here
    else:
        belongs = number != 0 and number == case["table_number"]
        assert (case["id_string"] if belongs else None) == case["result"]


# ---- validators.json ----

NOT_VALIDATORS: dict[str, Any] = {"undefined": UNSET, "plain object": {}, "number": 5}


def build(expr: Any) -> Any:
    """A validator written as in the vectors, with our `v`."""
    match expr:
        case {"js": js}:
            return NOT_VALIDATORS[js]
        case {"v": "id", "table": table}:
            return v.id(build(table) if isinstance(table, dict) else table)
        case {"v": "literal", "value": value}:
            return v.literal(as_python(value))
        case {"v": "array", "element": element}:
            return v.array(build(element))
        case {"v": "object", "fields": fields}:
            return v.object(build_fields(fields))
        case {"v": "record", "keys": key, "values": value}:
            return v.record(build(key), build(value))
        case {"v": "union", "members": members}:
            return v.union(*map(build, members))
        case {"v": "optional" | "nullable" as name, "of": inner}:
            return getattr(v, name)(build(inner))
        case {"method": "extend", "on": on, "fields": fields}:
            return build(on).extend(build_fields(fields))
        case {"method": name, "on": on}:
            return getattr(build(on), name)(*expr.get("args", ()))
        case {"v": "commitTs"}:
            return v.commit_ts()
        case {"v": name}:
            return getattr(v, name)()
    raise AssertionError(expr)


def build_fields(fields: list[Any]) -> dict[str, Any]:
    return {name: build(expr) for name, expr in fields}


def build_definition(expr: Any) -> Any:
    return build_fields(expr) if isinstance(expr, list) else build(expr)


@cases("validators", "validators")
def test_a_validator_exports_or_refuses_as_on_convex(case: dict[str, Any]) -> None:
    """V70, V71, V72, V73, V74, V76."""
    expectation = case.get("backend_expectation", "")
    if "rejected" in expectation:
        # What a push would refuse is refused at construction, in the server's words.
        expected = expectation.split(": ", 1)[1]
        assert refusal_of(lambda: build(case["expr"])) == expected
        assert expected in refusal_of(lambda: Validator.from_json(case["json"]))
    elif "is not a function" in case.get("error", ""):
        with pytest.raises(AttributeError):
            build(case["expr"])
    elif "error" in case:
        expected = case["error"].replace("BigInt", "Int64")
        if "Cannot read properties" in expected:
            expected = "v.optional() requires a validator"  # JavaScript's own complaint
        assert refusal_of(lambda: build(case["expr"])) == expected
    else:
        validator = build(case["expr"])
        assert validator.kind == case["kind"]
        assert validator.is_optional == (case["is_optional"] == "optional")
        assert as_doubles(validator.to_json()) == as_doubles(case["json"])
        assert list(order_of_fields(validator.to_json())) == list(order_of_fields(case["json"]))
        again = Validator.from_json(case["json"])
        assert again.optional() == validator.optional()
        assert hash(again.optional()) == hash(validator.optional())


def order_of_fields(obj: Any) -> Any:
    if isinstance(obj, dict):
        if obj.get("type") == "object":
            yield list(obj["value"])
        for item in obj.values():
            yield from order_of_fields(item)


@cases("validators", "library")
def test_validators_of_the_official_library_are_read(case: dict[str, Any]) -> None:
    """V79."""
    assert Validator.from_json(case["json"]).to_json() == case["json"]


@cases("validators", "functions")
def test_argument_and_result_validators_export_as_on_convex(case: dict[str, Any]) -> None:
    """V78."""

    def build_part(expr: Any) -> Any:
        built = v.any() if expr is None else build_definition(expr)
        return v.object(built) if isinstance(built, dict) else built

    if "error" in case:
        assert refusal_of(lambda: build_part(case["args"])) == case["error"]
    else:
        assert build_part(case["args"]).to_json() == case["export_args"]
        if case["returns"] is not None:
            assert build_part(case["returns"]).to_json() == case["export_returns"]


def build_table(definition: dict[str, Any]) -> TableDefinition:
    table = define_table(build_definition(definition["document"]))
    for call in definition.get("calls", ()):
        config = call.get("config", {})
        staged = config.get("staged", False)
        filters = config.get("filterFields", ())
        match call:
            case {"index": name}:
                fields = call["fields"] if "fields" in call else config["fields"]
                table = table.index(name, fields, staged=staged)
            case {"searchIndex": name}:
                table = table.search_index(
                    name,
                    search_field=config["searchField"],
                    filter_fields=filters,
                    staged=staged,
                )
            case {"vectorIndex": name}:
                table = table.vector_index(
                    name,
                    vector_field=config["vectorField"],
                    dimensions=config["dimensions"],
                    filter_fields=filters,
                    staged=staged,
                )
            case {"staged": changes}:
                table = table.staged(build_definition(changes))
            case _:
                raise AssertionError(call)
    return table


def build_schema(case: dict[str, Any]) -> Schema:
    options = case.get("options", {})
    return define_schema(
        {name: build_table(definition) for name, definition in case["tables"]},
        schema_validation=options.get("schemaValidation", True),
        strict_table_names=options.get("strictTableNameTypes", True),
    )


@cases("validators", "schemas")
def test_a_schema_exports_or_refuses_as_on_convex(case: dict[str, Any]) -> None:
    """V30, V80, V81, V83, V102, V103, V104, V105, V106, V107."""
    if "error" in case:
        assert refusal_of(lambda: build_schema(case)) == case["error"]
    elif "backend_error" in case:
        assert refusal_of(lambda: build_schema(case)) == case["backend_error"]
    elif "backend_error_prefix" in case:
        assert refusal_of(lambda: build_schema(case)).startswith(case["backend_error_prefix"])
    else:
        schema = build_schema(case)
        expected = case["export"]
        if case["name"] == "index_leading_trailing_dots_trimmed":
            # The client exports what was typed; the server, and we, keep the trimmed path.
            expected["tables"][0]["indexes"][0]["fields"] = ["o.x"]
        assert as_doubles(schema.to_json()) == as_doubles(expected)
        for name, fields in case.get("backend_index_fields", {}).items():
            [table] = schema.tables.values()
            assert [*table.indexes[name].fields, "_creationTime"] == fields


@cases("validators", "docs")
def test_the_validator_of_whole_documents(case: dict[str, Any]) -> None:
    """V84."""
    if "definition" not in case:
        schema = define_schema({"users": define_table({})})
        for ask in (schema.doc, schema.id):
            assert refusal_of(lambda ask=ask: ask(case["table"])) == case["error"]
        return
    table = build_table(case["definition"])
    if "error" in case:
        assert refusal_of(lambda: doc_validator(case["table"], table)) == case["error"]
    else:
        assert doc_validator(case["table"], table).to_json() == case["doc"]
        if not isinstance(table.document, UnionValidator):
            schema = define_schema({case["table"]: table})
            assert schema.doc(case["table"]).to_json() == case["doc"]
            assert schema.id(case["table"]).to_json() == case["id"]


# ---- validation.json ----


TABLE_NAMES = {int(number): name for number, name in FILES["validation"]["tables"].items()}


class Tables:
    def table_name(self, number: int) -> str | None:
        return TABLE_NAMES.get(number)


@cases("validation", "cases")
def test_a_value_is_checked_as_on_convex(case: dict[str, Any]) -> None:
    """V50, V87, V88, V89, V90, V93, V94."""
    validator = Validator.from_json(case["validator"])
    value = from_json(case["encoded"])
    assert validator.matches(value, Tables()) == case["ok"]
    offence = validator.explain(value, "", Tables())
    if case["ok"]:
        validator.check(value, Tables())
        assert offence is None
    else:
        with pytest.raises(BadRequest) as caught:
            validator.check(value, Tables())
        assert caught.value.message == case["message"]
        assert caught.value.code == case["kind"]
        assert offence is not None


@cases("validation", "envelopes")
def test_the_error_inside_every_envelope_is_ours(case: dict[str, Any]) -> None:
    validator = v.object({"a": v.string(), "b": v.number()})
    with pytest.raises(BadRequest) as caught:
        validator.check({"a": "x"}, Tables())
    assert case["text"].endswith(caught.value.message)
