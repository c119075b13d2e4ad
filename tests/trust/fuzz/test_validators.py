"""Validators against an interpreter of their export form that shares no line with them."""

from __future__ import annotations

import base64
import struct
from typing import Any

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.schema.validators import Validator
from reactive_store.values.ids import encode_id
from reactive_store.values.value import Int64, normalize
from reactive_store.values.wire import to_wire_json
from tests.trust.effort import EFFORT
from tests.trust.fuzz.test_decoders import same, tried
from tests.values.strategies import scalars, values

_CODES = {
    "MissingRequiredField", "ExtraField", "NoMatch", "LiteralValuesDoNotMatch",
    "TableNamesDoNotMatch", "SystemTableReference",
}  # fmt: skip
_TABLES = {10001: "users", 10002: "notes", 540: "_storage"}
_IDS = [encode_id(number, bytes((number % 251,)) * 16) for number in (*_TABLES, 10003)]


class Tables:
    """The tables of a deployment."""

    def table_name(self, number: int) -> str | None:
        return _TABLES.get(number)

    def table_number(self, name: str) -> int | None:
        return next((number for number, each in _TABLES.items() if each == name), None)


_names = st.sampled_from(["a", "b", "c_d", "_e", "F1"])
_literals = st.one_of(
    st.booleans(),
    st.sampled_from(["a", "", "users", 0, -0.0, 1, 0.5, Int64(0), Int64(1), Int64(-(2**62))]),
).map(lambda value: {"type": "literal", "value": to_wire_json(normalize(value))})
_leaves = st.one_of(
    st.sampled_from(
        ["null", "number", "bigint", "commitTs", "boolean", "string", "bytes", "any"]
    ).map(lambda name: {"type": name}),
    st.sampled_from(["users", "notes", "_storage", "nowhere"]).map(
        lambda table: {"type": "id", "tableName": table}
    ),
    _literals,
)


def _larger(forms: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.fixed_dictionaries({"fieldType": forms, "optional": st.booleans()})
    keys = st.sampled_from([{"type": "string"}, {"type": "id", "tableName": "users"}])
    return st.one_of(
        forms.map(lambda form: {"type": "array", "value": form}),
        st.lists(forms, max_size=3).map(lambda members: {"type": "union", "value": members}),
        st.dictionaries(_names, fields, max_size=3).map(
            lambda fields: {"type": "object", "value": fields}
        ),
        st.tuples(keys, forms).map(
            lambda pair: {
                "type": "record",
                "keys": pair[0],
                "values": {"fieldType": pair[1], "optional": False},
            }
        ),
    )


forms = st.recursive(_leaves, _larger, max_leaves=8)


def table_of(text: Any) -> str | None:
    """The table an id names; the ids of these tests are all there are."""
    if not isinstance(text, str) or text not in _IDS:
        return None
    return [*_TABLES.values(), None][_IDS.index(text)]


def accepts(form: Any, value: Any) -> bool:
    """What docs/reference/validators.md says about a form and a normal value."""
    match form["type"]:
        case "any":
            return True
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "number":
            numbers = isinstance(value, int | float)
            return numbers and not isinstance(value, bool | Int64)
        case "bigint" | "commitTs":
            return isinstance(value, Int64)
        case "string":
            return isinstance(value, str)
        case "bytes":
            return isinstance(value, bytes)
        case "id":
            return table_of(value) == form["tableName"]
        case "literal":
            return same(value, literal(form["value"]))
        case "array":
            return isinstance(value, list) and all(accepts(form["value"], i) for i in value)
        case "union":
            return any(accepts(member, value) for member in form["value"])
        case "record":
            inner = form["values"]["fieldType"]
            return isinstance(value, dict) and all(
                accepts(form["keys"], key) and accepts(inner, item) for key, item in value.items()
            )
    fields = form["value"]
    if not isinstance(value, dict) or not set(value) <= set(fields):
        return False
    return all(
        accepts(field["fieldType"], value[name]) if name in value else field["optional"]
        for name, field in fields.items()
    )


def literal(encoded: Any) -> Any:
    """A literal's value out of its encoded form."""
    if isinstance(encoded, dict):
        ((kind, text),) = encoded.items()
        raw = base64.b64decode(text)
        return (
            Int64(int.from_bytes(raw, "little", signed=True))
            if kind == "$integer"
            else (struct.unpack("<d", raw)[0])
        )
    return encoded


def near(form: Any) -> st.SearchStrategy[Any]:
    """Values that the form accepts, mostly."""
    match form["type"]:
        case "id":
            return st.sampled_from(_IDS)
        case "literal":
            return st.just(literal(form["value"])) | scalars
        case "array":
            return st.lists(near(form["value"]), max_size=3)
        case "union" if form["value"]:
            return st.one_of([near(member) for member in form["value"]])
        case "object":
            shapes = {name: near(field["fieldType"]) for name, field in form["value"].items()}
            right = st.fixed_dictionaries(
                {n: s for n, s in shapes.items() if not form["value"][n]["optional"]},
                optional={n: s for n, s in shapes.items() if form["value"][n]["optional"]},
            )
            return right | st.tuples(right, st.dictionaries(_names, scalars, max_size=1)).map(
                lambda pair: {**pair[0], **pair[1]}
            )
        case "record":
            keys = st.sampled_from(_IDS) if form["keys"]["type"] == "id" else _names
            return st.dictionaries(keys, near(form["values"]["fieldType"]), max_size=3)
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "string":
            return st.text(max_size=3)
        case "bigint" | "commitTs":
            return st.integers(-(2**63), 2**63 - 1).map(Int64)
        case "bytes":
            return st.binary(max_size=3)
    return scalars


_SETTINGS = settings(max_examples=EFFORT.pick(700, 20_000), deadline=None, database=None)
_counts = {"accepted": 0, "refused": 0}


@seed(EFFORT.seed)
@_SETTINGS
@given(forms.flatmap(lambda form: st.tuples(st.just(form), near(form) | values)))
def _agrees(pair: tuple[Any, Any]) -> None:
    form, value = pair
    normal = normalize(value)
    validator = Validator.from_json(form)
    expected = accepts(form, normal)
    _counts["accepted" if expected else "refused"] += 1
    assert validator.matches(normal, Tables()) == expected
    assert (validator.explain(normal, "", Tables()) is None) == expected
    again = Validator.from_json(validator.to_json())
    assert (again, hash(again)) == (validator, hash(validator))
    error = tried(lambda: validator.check(normal, Tables()), BadRequest)
    assert (error is None) == expected
    assert error is None or error.code in _CODES


def test_a_validator_accepts_what_its_export_form_says(evidence: Any) -> None:
    _counts.update(accepted=0, refused=0)
    _agrees()
    assert min(_counts.values()) > _SETTINGS.max_examples // 10, _counts
    evidence("robust", validators=sum(_counts.values()))
