"""Validators: what a value may be, as immutable values built with `v`.

A validator compares, hashes and prints by content. `check` accepts or raises with the exact place
and reason; `matches` only answers. Both come in two parts that always agree: generated code that
says yes quickly, and a walk that finds the first offence in the order the texts promise (fields of
an object alphabetically, then undeclared fields).

Whatever a schema push would refuse is refused at construction.

Source of facts: docs/reference/validators.md; Convex's npm client 1.48 for names, exports and
construction errors, its open server for matching rules and texts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

from reactive_store.errors import BadRequest
from reactive_store.schema.codegen import Source, TableNames, Test
from reactive_store.values.ids import table_number_of
from reactive_store.values.names import check_field_name, check_identifier
from reactive_store.values.order import compare
from reactive_store.values.render import render, render_json_number, render_string
from reactive_store.values.value import UNSET, Id, Int64, Value, normalize
from reactive_store.values.wire import from_json, to_wire_json

__all__ = [
    "ArrayValidator",
    "IdValidator",
    "LiteralValidator",
    "ObjectValidator",
    "RecordValidator",
    "ScalarValidator",
    "TableNames",
    "UnionValidator",
    "Validator",
    "v",
]


class Validator(ABC):
    """What a value may be. `is_optional` means something only on a field of an object."""

    __slots__ = ("_is_optional", "_test")

    kind: str

    # The generated test; made at the first check, kept for good.
    _test: Test | None

    def __init__(self) -> None:
        self._is_optional = False
        self._test = None

    @property
    def is_optional(self) -> bool:
        """Whether the field may be absent. Null is never absent."""
        return self._is_optional

    def optional(self) -> Self:
        """The same validator, for a field that may be absent."""
        return self.with_optional(True)

    def with_optional(self, is_optional: bool) -> Self:
        if self._is_optional == is_optional:
            return self
        copy = object.__new__(type(self))
        for owner in type(self).__mro__:
            for name in getattr(owner, "__slots__", ()):
                if hasattr(self, name):
                    setattr(copy, name, getattr(self, name))
        copy._is_optional = is_optional
        return copy

    def check(self, value: Value, tables: TableNames) -> None:
        """Accept a normal value, or say what is wrong with it.

        Cost     about 2 µs for an object of 12 flat fields; the first check compiles (0.5 ms)
        Raises   BadRequest[MissingRequiredField, ExtraField, NoMatch, LiteralValuesDoNotMatch,
                 TableNamesDoNotMatch, SystemTableReference]
        """
        if not (self._test or self._compile())(value, tables):
            error = self.explain(value, "", tables)
            if error is not None:
                raise error

    def matches(self, value: Value, tables: TableNames) -> bool:
        """Whether `check` would accept it."""
        return (self._test or self._compile())(value, tables)

    def _compile(self) -> Test:
        source = Source()
        self._test = test = source.compile(self.expression("value", source))
        return test

    def to_json(self) -> dict[str, Any]:
        """The export form of Convex's clients. The optional flag shows only in the enclosing
        object.
        """
        return {"type": self.kind}

    @staticmethod
    def from_json(obj: Any) -> Validator:
        """The validator that an export form stands for.

        Raises   BadRequest[InvalidValidator, …] as construction does, and for unknown types
        """
        return _from_json(obj)

    @abstractmethod
    def _content(self) -> Any:
        """What two validators of one kind must share to be equal; hashable."""

    @abstractmethod
    def expression(self, name: str, source: Source) -> str:
        """Python for "the variable `name` matches"; `tables` is in scope."""

    @abstractmethod
    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        """The first offence, or None."""

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Validator):
            return NotImplemented
        return (
            self.kind == other.kind
            and self._is_optional == other._is_optional
            and bool(self._content() == other._content())
        )

    def __hash__(self) -> int:
        return hash((self.kind, self._is_optional, self._content()))

    def __repr__(self) -> str:
        text = self.describe()
        return f"v.optional({text})" if self._is_optional else text

    def describe(self) -> str:
        """The validator in builder syntax, without the optional flag."""
        return f"v.{self.kind}()"

    def _no_match(self, value: Value, path: str) -> BadRequest:
        return BadRequest(
            f"Value does not match validator.\n{_context(path)}\n"
            f"Value: {render(value)}\nValidator: {self.describe()}",
            code="NoMatch",
        )


def _context(path: str) -> str:
    return f"Path: {path}" if path else ""


class ScalarValidator(Validator):
    """Null, a number, a bigint, a boolean, a string, bytes, or anything."""

    __slots__ = ("kind",)

    # kind → (name in the export form, the exact types of normal values it takes)
    KINDS: ClassVar[Mapping[str, tuple[str, tuple[type, ...]]]] = {
        "null": ("null", (type(None),)),
        "float64": ("number", (int, float)),
        "int64": ("bigint", (Int64,)),
        "commitTs": ("commitTs", (Int64,)),
        "boolean": ("boolean", (bool,)),
        "string": ("string", (str, Id)),
        "bytes": ("bytes", (bytes,)),
        "any": ("any", ()),
    }

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def to_json(self) -> dict[str, Any]:
        return {"type": self.KINDS[self.kind][0]}

    def _content(self) -> Any:
        return None

    def expression(self, name: str, source: Source) -> str:
        if self.kind == "any":
            return "True"
        if self.kind == "null":
            return f"{name} is None"
        types = self.KINDS[self.kind][1]
        return "(" + " or ".join(f"type({name}) is {kind.__name__}" for kind in types) + ")"

    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        if self.kind == "any" or type(value) in self.KINDS[self.kind][1]:
            return None
        return self._no_match(value, path)


class IdValidator(Validator):
    """A string that is the id of a document of one table. The document need not exist."""

    __slots__ = ("table",)

    kind = "id"

    def __init__(self, table: str) -> None:
        super().__init__()
        if not isinstance(table, str):
            raise _invalid("v.id(tableName) requires a string")
        check_identifier(table)
        self.table = str(table)

    def to_json(self) -> dict[str, Any]:
        return {"type": "id", "tableName": self.table}

    def _content(self) -> Any:
        return self.table

    def describe(self) -> str:
        return f'v.id("{self.table}")'

    def expression(self, name: str, source: Source) -> str:
        return (
            f"((type({name}) is str or type({name}) is Id) "
            f"and tables.table_name(number_of({name})) == {self.table!r})"
        )

    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        if not isinstance(value, str):
            return self._no_match(value, path)
        number = table_number_of(value)
        table = tables.table_name(number) if number else None
        if table is None:
            return self._no_match(value, path)
        if table == self.table:
            return None
        if table.startswith("_"):
            found, code = "a system table", "SystemTableReference"
        else:
            found, code = f"table `{table}`", "TableNamesDoNotMatch"
        return BadRequest(
            f'Found ID "{value}" from {found}, which does not match the table name in '
            f"validator `{self.describe()}`.{_context(path)}",
            code=code,
        )


class LiteralValidator(Validator):
    """Exactly one string, number, bigint or boolean; -0 is not 0, a bigint is not a number."""

    __slots__ = ("value",)

    kind = "literal"

    def __init__(self, value: object) -> None:
        super().__init__()
        if not isinstance(value, (str, int, float)):
            raise _invalid("v.literal(value) must be a string, number, or boolean")
        normal = normalize(value)
        if isinstance(normal, float) and not (normal - normal == 0):
            raise _invalid("Infinite or NaN values are not supported in literal validators.")
        self.value = str.__str__(normal) if isinstance(normal, str) else normal

    def to_json(self) -> dict[str, Any]:
        return {"type": "literal", "value": to_wire_json(self.value)}

    def _content(self) -> Any:
        # The type keeps 1, True and Int64(1) apart, the text keeps 0 and -0.0 apart.
        return type(self.value), repr(self.value)

    def describe(self) -> str:
        value = self.value
        if isinstance(value, str):
            text = render_string(value)
        elif isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, Int64):
            text = "<bigint>"
        else:
            text = render_json_number(float(value))  # type: ignore[arg-type]
        return f"v.literal({text})"

    def expression(self, name: str, source: Source) -> str:
        value = self.value
        if isinstance(value, bool):
            return f"{name} is {value}"
        if isinstance(value, str):
            return f"((type({name}) is str or type({name}) is Id) and {name} == {value!r})"
        # Among normal values a float zero can only be -0.0, so comparing type and value is exact.
        return f"(type({name}) is {type(value).__name__} and {name} == {value!r})"

    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        if compare(value, self.value) == 0:
            return None
        return BadRequest(
            f"`{render(value)}` does not match literal validator `{self.describe()}`."
            f"{_context(path)}",
            code="LiteralValuesDoNotMatch",
        )


class ArrayValidator(Validator):
    """An array, every element of which matches."""

    __slots__ = ("element",)

    kind = "array"

    def __init__(self, element: Validator) -> None:
        super().__init__()
        part = _part(element, None, "array", "Element of v.array() must be a validator")
        self.element = part.with_optional(False)

    def to_json(self) -> dict[str, Any]:
        return {"type": "array", "value": self.element.to_json()}

    def _content(self) -> Any:
        return self.element

    def describe(self) -> str:
        return f"v.array({self.element.describe()})"

    def expression(self, name: str, source: Source) -> str:
        test = self.element.expression("item", source)
        if test == "True":
            return f"type({name}) is list"
        function = source.function(
            [
                "if type(value) is not list: return False",
                "for item in value:",
                f"    if not {test}: return False",
                "return True",
            ]
        )
        return f"{function}({name}, tables)"

    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        if not isinstance(value, list):
            return self._no_match(value, path)
        for index, item in enumerate(value):
            if error := self.element.explain(item, f"{path}[{index}]", tables):
                return error
        return None


class ObjectValidator(Validator):
    """An object with exactly these fields, in whatever order; optional ones may be absent."""

    __slots__ = ("fields",)

    kind = "object"

    fields: Mapping[str, Validator]

    def __init__(self, fields: Mapping[str, Validator]) -> None:
        super().__init__()
        if not isinstance(fields, Mapping):
            raise _invalid("v.object() requires a mapping of field names to validators")
        for name, field in fields.items():
            _part(field, name, "object", "v.object() entries must be validators")
            check_field_name(name)
            check_identifier(name)
        self.fields = MappingProxyType(dict(fields))

    def pick(self, *names: str) -> ObjectValidator:
        """Only these fields, in this order.

        Raises   BadRequest[InvalidValidator] for a name it does not have
        """
        return self._like({name: self.fields.get(name, UNSET) for name in names})

    def omit(self, *names: str) -> ObjectValidator:
        """Without these fields; names it does not have are ignored."""
        return self._like({n: field for n, field in self.fields.items() if n not in names})

    def partial(self) -> ObjectValidator:
        """Every field optional. Objects inside stay as they are."""
        return self._like({name: field.optional() for name, field in self.fields.items()})

    def extend(self, fields: Mapping[str, Validator]) -> ObjectValidator:
        """With these fields added or replaced."""
        return self._like({**self.fields, **fields})

    def _like(self, fields: Mapping[str, Any]) -> ObjectValidator:
        return ObjectValidator(fields).with_optional(self._is_optional)

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "object",
            "value": {
                name: {"fieldType": field.to_json(), "optional": field.is_optional}
                for name, field in self.fields.items()
            },
        }

    def _content(self) -> Any:
        return frozenset(self.fields.items())

    def describe(self) -> str:
        inner = ", ".join(f"{name}: {self.fields[name]!r}" for name in sorted(self.fields))
        return f"v.object({{{inner}}})"

    def expression(self, name: str, source: Source) -> str:
        required: list[str] = []
        optional: list[str] = []
        for field_name, field in self.fields.items():
            test = field.expression("item", source)
            if not field.is_optional:
                if test == "True":
                    required.append(f"    value[{field_name!r}]")
                else:
                    required.append(f"    item = value[{field_name!r}]")
                    required.append(f"    if not {test}: return False")
            else:
                optional.append(f"item = value.get({field_name!r}, MISSING)")
                optional.append("if item is not MISSING:")
                if test != "True":
                    optional.append(f"    if not {test}: return False")
                optional.append("    present += 1")
        body = ["if type(value) is not dict: return False"]
        if required:
            body += ["try:", *required, "except KeyError: return False"]
        body.append(f"present = {sum(not f.is_optional for f in self.fields.values())}")
        body += [*optional, "return len(value) == present"]
        return f"{source.function(body)}({name}, tables)"

    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        if not isinstance(value, dict):
            return self._no_match(value, path)
        for name in sorted(self.fields):
            field = self.fields[name]
            if name in value:
                if error := field.explain(value[name], f"{path}.{name}", tables):
                    return error
            elif not field.is_optional:
                return BadRequest(
                    f"Object is missing the required field `{name}`. Consider wrapping the field "
                    "validator in `v.optional(...)` if this is expected."
                    + self._object_context(value, path),
                    code="MissingRequiredField",
                )
        for name in sorted(value):
            if name not in self.fields:
                return BadRequest(
                    f"Object contains extra field `{name}` that is not in the validator."
                    + self._object_context(value, path),
                    code="ExtraField",
                )
        return None

    def _object_context(self, value: dict[str, Any], path: str) -> str:
        return f"\n{_context(path)}\nObject: {render(value)}\nValidator: {self.describe()}"


class RecordValidator(Validator):
    """An object whose every key and every value matches; any number of fields."""

    __slots__ = ("key", "value")

    kind = "record"

    def __init__(self, key: Validator, value: Validator) -> None:
        super().__init__()
        for part, name in ((key, "key"), (value, "value")):
            _part(part, name, "record", "Key and value of v.record() must be validators")
        if key.is_optional:
            raise _invalid("Record validator cannot have optional keys")
        if value.is_optional:
            raise _invalid("Record validator cannot have optional values")
        _check_record_key(key, key)
        self.key = key
        self.value = value

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "record",
            "keys": self.key.to_json(),
            "values": {"fieldType": self.value.to_json(), "optional": False},
        }

    def _content(self) -> Any:
        return self.key, self.value

    def describe(self) -> str:
        return f"v.record({self.key!r}, {self.value!r})"

    def expression(self, name: str, source: Source) -> str:
        tests = []
        if self.key.kind != "string":
            tests.append(f"    if not {self.key.expression('key', source)}: return False")
        tests.append(f"    if not {self.value.expression('item', source)}: return False")
        body = ["if type(value) is not dict: return False", "for key, item in value.items():"]
        return f"{source.function([*body, *tests, 'return True'])}({name}, tables)"

    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        if not isinstance(value, dict):
            return self._no_match(value, path)
        for name in sorted(value):
            error = self.key.explain(name, f"{path}.keys()", tables) or self.value.explain(
                value[name], f"{path}.values()", tables
            )
            if error:
                return error
        return None


class UnionValidator(Validator):
    """Whatever one of the members accepts."""

    __slots__ = ("members",)

    kind = "union"

    def __init__(self, *members: Validator) -> None:
        super().__init__()
        for index, member in enumerate(members):
            where = f"member at index {index}"
            _part(member, where, "union", "All members of v.union() must be validators")
        self.members = tuple(member.with_optional(False) for member in members)

    def to_json(self) -> dict[str, Any]:
        return {"type": "union", "value": [member.to_json() for member in self.members]}

    def _content(self) -> Any:
        return self.members

    def describe(self) -> str:
        return f"v.union({', '.join(map(repr, self.members))})"

    def expression(self, name: str, source: Source) -> str:
        texts = {m.value for m in self.members if isinstance(m, LiteralValidator)}
        if (
            len(texts) > 1
            and len(self.members) > 1
            and all(
                isinstance(m, LiteralValidator) and isinstance(m.value, str) for m in self.members
            )
        ):
            allowed = source.constant(frozenset(texts))
            return f"((type({name}) is str or type({name}) is Id) and {name} in {allowed})"
        tests = [member.expression(name, source) for member in self.members]
        return f"({' or '.join(tests)})" if tests else "False"

    def explain(self, value: Value, path: str, tables: TableNames) -> BadRequest | None:
        errors = []
        for member in self.members:
            error = member.explain(value, path, tables)
            if error is None:
                return None
            errors.append(error)
        return errors[0] if len(errors) == 1 else self._no_match(value, path)


def _invalid(message: str, code: str = "InvalidValidator") -> BadRequest:
    return BadRequest(message, code=code)


def _part(part: object, field: str | None, builder: str, refusal: str) -> Validator:
    """A part of a bigger validator. None and UNSET are what an import cycle leaves behind."""
    if isinstance(part, Validator):
        return part
    if part is not None and part is not UNSET:
        raise _invalid(refusal)
    where = f' for field "{field}"' if field is not None else ""
    raise _invalid(
        f"A validator is undefined{where} in v.{builder}(). This is often caused by circular "
        "imports. See https://docs.convex.dev/error#undefined-validator for details."
    )


def _check_record_key(part: Validator, key: Validator) -> None:
    if isinstance(part, UnionValidator):
        for member in part.members:
            _check_record_key(member, key)
    elif isinstance(part, LiteralValidator) and isinstance(part.value, str):
        raise _invalid("Records cannot have string literal keys")
    elif part.kind not in ("string", "id"):
        raise _invalid(
            "Records can only have string keys. Your validator contains a record with key typed "
            f"as `{key!r}`, which is not a subtype of `v.string()`",
            "InvalidRecordType",
        )


# ---- reading the export form ----

_SCALAR_KINDS: Final = {
    **{export: kind for kind, (export, _) in ScalarValidator.KINDS.items()},
    # Containers of an older server; whatever they held is not described any more.
    "map": "any",
    "set": "any",
}


def _from_json(obj: Any) -> Validator:
    match obj:
        case {"type": "id", "tableName": table}:
            return IdValidator(table)
        case {"type": "literal", "value": value}:
            return LiteralValidator(from_json(value))
        case {"type": "array", "value": element}:
            return ArrayValidator(_from_json(element))
        case {"type": "union", "value": list(members)}:
            return UnionValidator(*map(_from_json, members))
        case {"type": "record", "keys": key, "values": field}:
            value = _field_from_json(field)
            if value.is_optional:
                raise _invalid("Records cannot have optional values")
            return RecordValidator(_from_json(key), value)
        case {"type": "object", "value": dict(fields)}:
            return ObjectValidator({n: _named_field(n, field) for n, field in fields.items()})
        case {"type": str(name)} if name in _SCALAR_KINDS:
            return ScalarValidator(_SCALAR_KINDS[name])
    raise _invalid(f"Not a validator: {obj!r}")


def _named_field(name: str, field: Any) -> Validator:
    try:
        return _field_from_json(field)
    except BadRequest as error:
        raise _invalid(
            f"Invalid validator for key `{name}`: {error.message}", error.code
        ) from error


def _field_from_json(field: Any) -> Validator:
    match field:
        case {"fieldType": inner, **rest}:
            return _from_json(inner).with_optional(rest.get("optional") is True)
    raise _invalid(f"Not a field of a validator: {field!r}")


class _Builders:
    """The functions of `v`."""

    __slots__ = ()

    def string(self) -> ScalarValidator:
        """Any string."""
        return ScalarValidator("string")

    def number(self) -> ScalarValidator:
        """Any number: a Python int or float, infinities and NaN included. Never an Int64."""
        return ScalarValidator("float64")

    float64 = number

    def boolean(self) -> ScalarValidator:
        """True or False."""
        return ScalarValidator("boolean")

    def int64(self) -> ScalarValidator:
        """An Int64, never a plain number."""
        return ScalarValidator("int64")

    bigint = int64

    def commit_ts(self) -> ScalarValidator:
        """A commit timestamp: an Int64 of nanoseconds."""
        return ScalarValidator("commitTs")

    def bytes(self) -> ScalarValidator:
        """Bytes."""
        return ScalarValidator("bytes")

    def null(self) -> ScalarValidator:
        """None only."""
        return ScalarValidator("null")

    def any(self) -> ScalarValidator:
        """Any value."""
        return ScalarValidator("any")

    def id(self, table: str) -> IdValidator:
        """The id of a document of `table`."""
        return IdValidator(table)

    def literal(self, value: str | float | bool) -> LiteralValidator:
        """Exactly this string, number, Int64 or boolean."""
        return LiteralValidator(value)

    def literals(self, *values: str | float | bool) -> UnionValidator:
        """One of these strings, numbers, Int64s or booleans."""
        return UnionValidator(*map(LiteralValidator, values))

    def union(self, *members: Validator) -> UnionValidator:
        """Whatever one of the members accepts."""
        return UnionValidator(*members)

    def nullable(self, member: Validator) -> UnionValidator:
        """None, or what `member` accepts."""
        return UnionValidator(member, ScalarValidator("null"))

    def object(self, fields: Mapping[str, Validator]) -> ObjectValidator:
        """An object with exactly these fields."""
        return ObjectValidator(fields)

    def array(self, element: Validator) -> ArrayValidator:
        """An array of any length."""
        return ArrayValidator(element)

    def record(self, key: Validator, value: Validator) -> RecordValidator:
        """An object with any keys and values of these kinds; keys are strings or ids."""
        return RecordValidator(key, value)

    def optional(self, validator: Validator) -> Validator:
        """For a field of an object that may be absent (which None is not)."""
        if not isinstance(validator, Validator):
            raise _invalid("v.optional() requires a validator")
        return validator.optional()


v: Final = _Builders()
