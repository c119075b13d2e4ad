"""What a value is, and how anything a function hands over becomes one.

A *normal* value is made of exactly these types: None, bool, int, float, Int64, str, Id, bytes,
list and dict. In it

- a Convex number is an `int` when integral and within ±2**53 (and not -0.0), else a `float`;
- a NaN has the canonical bits; a bigint is an `Int64`;
- objects are dicts with valid names in ascending order; nothing is missing inside;
- arrays, objects and nesting are within the limits of the format.

Source of facts: docs/reference/values.md; Convex's npm client 1.48 for what is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from math import copysign
from typing import Annotated, Any, Final, Literal, Self, SupportsIndex, TypeAlias

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.values.names import FIELD_NAMES, check_field_name

__all__ = [
    "Value",
    "Int64",
    "Id",
    "IdOf",
    "Unset",
    "UNSET",
    "Encoded",
    "LARGEST_EXACT",
    "normalize",
    "normalize_patch",
    "normalize_keeping_encoded",
    "normal_float",
    "nesting",
    "is_all_encoded",
    "too_nested",
]

Value: TypeAlias = bool | int | float | str | bytes | list[Any] | dict[str, Any] | None

LARGEST_EXACT: Final = 2**53  # beyond it a float64 cannot hold every integer

_FORMAT = Limits()
_NAN: Final[float] = struct.unpack("<d", b"\0\0\0\0\0\0\xf8\x7f")[0]


class Unset(Enum):
    """The type of `UNSET`, which says that a field is missing (JavaScript's `undefined`)."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> Literal[False]:
        return False


UNSET: Final = Unset.UNSET


class Int64(int):
    """A Convex bigint: an integer of 64 bits, never equal to a number in the database.

    Sums, differences, products, quotients and remainders with integers stay Int64.
    Raises   TypeError for anything but an integer; BadRequest[InvalidInt64] beyond 64 bits
    """

    __slots__ = ()

    def __new__(cls, value: SupportsIndex) -> Self:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"Int64 takes an int, not {type(value).__name__}")
        number = int.__new__(cls, value)
        if not -(2**63) <= number < 2**63:
            raise BadRequest(
                f"Int64 {int(value)} does not fit into a 64-bit signed integer.",
                code="InvalidInt64",
            )
        return number

    def __repr__(self) -> str:
        return f"Int64({int.__repr__(self)})"

    __str__ = int.__repr__


def _keeping_int64(name: str) -> Callable[[Int64, Any], Any]:
    plain: Callable[[int, Any], Any] = getattr(int, name)

    def operation(self: Int64, other: Any) -> Any:
        result = plain(self, other)
        return Int64(result) if type(result) is int else result

    operation.__name__ = name
    return operation


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(Int64, f"__{_name}__", _keeping_int64(f"__{_name}__"))
    setattr(Int64, f"__r{_name}__", _keeping_int64(f"__r{_name}__"))
Int64.__neg__ = lambda self: Int64(-int(self))  # type: ignore[method-assign]
Int64.__abs__ = lambda self: Int64(abs(int(self)))  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class IdOf:
    """What `Id["experiments"]` annotates: the id of a document of one table."""

    table: str


class Id(str):
    """A document id: a string that knows its table.

    `Id["experiments"]` is for annotations. A type checker that reads the string as a type name
    is content with the same thing spelled `Annotated[Id, IdOf("experiments")]`.
    """

    __slots__ = ("table",)

    table: str

    def __new__(cls, text: str, table: str) -> Self:
        self = str.__new__(cls, text)
        self.table = table
        return self

    def __class_getitem__(cls, table: str) -> Any:
        return Annotated[cls, IdOf(table)]

    def __reduce__(self) -> tuple[type[Id], tuple[str, str]]:
        return Id, (str.__str__(self), self.table)

    # The text alone: an id prints, concatenates and formats like the string it is.
    __str__ = str.__str__


class Encoded:
    """A value whose encoded bytes are at hand. Encoding it means copying `encoded`."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        _CONVERTERS[cls] = _encoded

    @property
    def encoded(self) -> bytes:
        """The encoded form, canonical (names in order, floats printed as floats)."""
        raise AttributeError("encoded")

    def decode(self) -> Value:
        """The value, normal, newly made: it belongs to the caller."""
        raise AttributeError("decode")


class _RefusedError(Exception):
    """Something inside the value cannot stay. `path` grows on the way out, innermost first."""

    def __init__(self, message: str, code: str = "InvalidValue", *, at: str = "value") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.at = at  # "value", "name" (the path ends at the object) or "" (no path helps)
        self.path: list[str] = []

    def leave(self, step: str) -> None:
        """One container on the way out."""
        if self.at == "name":
            self.at = "value"
        else:
            self.path.append(step)

    def to_bad_request(self) -> BadRequest:
        message = self.message
        if self.path and self.at:
            message += f" (present at path {''.join(reversed(self.path))})"
        return BadRequest(message, code=self.code)


def normalize(value: object, *, levels: int = 0) -> Value:
    """The normal value that anything accepted from a function stands for; shares nothing with it.

    Shapes   None, bool, int, float, Int64, str, bytes-like, list, tuple and other sequences,
             mappings, pydantic models, dataclasses, documents. Fields that are UNSET are left out
    Units    levels: containers around it that count towards its depth
    Cost     O(size); about 2 µs for 12 flat fields
    Raises   BadRequest saying what cannot be stored, where it is, and what to do
    """
    try:
        normal: Value = _convert(value, levels, False)
    except _RefusedError as refused:
        raise refused.to_bad_request() from refused
    return normal


def normalize_keeping_encoded(value: object) -> Any:
    """Like `normalize`, but documents and other `Encoded` parts stay as they are, undecoded."""
    try:
        return _convert(value, 0, True)
    except _RefusedError as refused:
        raise refused.to_bad_request() from refused


def normalize_patch(changes: object) -> dict[str, Value | Unset]:
    """The changes of a patch: like `normalize`, but UNSET stays at the top level ("remove it").

    Raises   BadRequest as `normalize`; also when `changes` is not an object
    """
    removed: list[str] = []
    if isinstance(changes, Mapping):
        removed = [check_field_name(name) for name, item in changes.items() if item is UNSET]
    kept = normalize(changes)
    if type(kept) is not dict:
        raise BadRequest(
            f"The changes of a patch must be an object, not {type(changes).__name__}.",
            code="InvalidValue",
        )
    result: dict[str, Value | Unset] = kept
    for name in removed:
        result[name] = UNSET
    return result


def normal_float(number: float) -> int | float:
    """The normal form of a float64: `int` where that loses nothing. NaN bits are kept."""
    if (
        number.is_integer()
        and -LARGEST_EXACT <= number <= LARGEST_EXACT
        and (number or copysign(1.0, number) > 0.0)
    ):
        return int(number)
    return number


def nesting(value: Value) -> int:
    """How deep a normal value is: scalars 0, containers one more than their deepest part."""
    if type(value) is dict:
        parts = [part for part in value.values() if type(part) is dict or type(part) is list]
    elif type(value) is list:
        parts = [part for part in value if type(part) is dict or type(part) is list]
    else:
        return 0
    return 1 + max(map(nesting, parts)) if parts else 1


def too_nested(levels: int) -> str:
    """The text for a value that is deeper than any value may be."""
    return (
        f"Value is too nested (nested {levels} levels deep > "
        f"maximum nesting {_FORMAT.value_nesting})"
    )


# ---- one converter per type: (value, containers around it, keep Encoded parts) ----


def _same(value: Any, _depth: int, _keep: bool) -> Any:
    return value


def _encoded(value: Encoded, _depth: int, keep: bool) -> Any:
    return value if keep else value.decode()


def _text(value: str, _depth: int, _keep: bool) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _RefusedError(
                f"String has an unpaired surrogate at position {error.start}: "
                "strings must be valid Unicode."
            ) from error
    return value


def _number(value: int, _depth: int, _keep: bool) -> int:
    if -LARGEST_EXACT <= value <= LARGEST_EXACT:
        return value
    raise _RefusedError(
        f"Integer {value} is outside the range of a Convex number (-2^53 to 2^53). "
        "Wrap it in Int64 to store a 64-bit integer."
    )


def _float(value: float, _depth: int, _keep: bool) -> int | float:
    # A NaN that arithmetic made may carry a sign; it would sort below everything.
    return normal_float(value) if value == value else _NAN


def _bytes(value: Any, _depth: int, _keep: bool) -> bytes:
    return bytes(value)


def is_all_encoded(items: Sequence[Any]) -> bool:
    """Whether an array holds nothing but encoded parts, of one class: what most queries return.

    Cost     0.5 µs for 20 items
    """
    kinds = set(map(type, items))
    return len(kinds) == 1 and issubclass(kinds.pop(), Encoded)


def _array(value: Sequence[Any], depth: int, keep: bool) -> list[Any]:
    if depth >= _FORMAT.value_nesting:
        raise _RefusedError(too_nested(depth + 1), "TooNestedError", at="")
    if len(value) > _FORMAT.array_elements:
        raise _RefusedError(
            f"Array length is too long ({len(value)} > maximum length {_FORMAT.array_elements})",
            "ArrayTooLong",
        )
    if keep and type(value) is list and is_all_encoded(value):
        return value
    depth += 1
    items: list[Any] = []
    try:
        for item in value:
            items.append(_CONVERTERS.get(type(item), _other)(item, depth, keep))  # noqa: PERF401 - the length is the index of a failure
    except _RefusedError as refused:
        refused.leave(f"[{len(items)}]")
        raise
    return items


def _object(value: Mapping[Any, Any], depth: int, keep: bool) -> dict[str, Any]:
    if depth >= _FORMAT.value_nesting:
        raise _RefusedError(too_nested(depth + 1), "TooNestedError", at="")
    depth += 1
    result: dict[str, Any] = {}
    name: Any = None
    try:
        for name in _sorted_names(value):
            item = value[name]
            if item is UNSET:
                continue
            plain = FIELD_NAMES.get(name) or _field_name(name)
            kind = type(item)
            if kind is str and item.isascii():
                result[plain] = item
            else:
                result[plain] = _CONVERTERS.get(kind, _other)(item, depth, keep)
    except _RefusedError as refused:
        refused.leave(f".{name}")
        raise
    if len(result) > _FORMAT.object_fields:
        raise _RefusedError(
            f"Object has too many fields ({len(result)} > maximum number {_FORMAT.object_fields})",
            "TooManyFieldsError",
        )
    return result


def _sorted_names(value: Mapping[Any, Any]) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:
        for name in value:
            if not isinstance(name, str):
                _field_name(name)
        raise


def _field_name(name: object) -> str:
    try:
        return check_field_name(name)
    except BadRequest as error:
        raise _RefusedError(error.message, error.code, at="name") from error


def _missing(_value: object, _depth: int, _keep: bool) -> Value:
    raise _RefusedError(
        "UNSET is not a valid Convex value: leave the field out, or use None for null."
    )


def _other(value: Any, depth: int, keep: bool) -> Any:
    """Everything that is not of exactly one of the common types; order matters."""
    if isinstance(value, Encoded):
        return value if keep else value.decode()
    if isinstance(value, str):
        return _text(str.__str__(value), depth, keep)
    if isinstance(value, Int64):
        return value
    if isinstance(value, int):
        return _number(int(value), depth, keep)
    if isinstance(value, float):
        return _float(float(value), depth, keep)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Mapping):
        return _object(value, depth, keep)
    if isinstance(value, Sequence):
        return _array(value, depth, keep)
    if not isinstance(value, type):
        if hasattr(value, "model_dump") and hasattr(type(value), "model_fields"):
            # By alias: what a client sends is read by alias too.
            return _object(value.model_dump(by_alias=True), depth, keep)
        if is_dataclass(value):
            return _object({f.name: getattr(value, f.name) for f in fields(value)}, depth, keep)
    raise _RefusedError(_unsupported(value))


_HINTS: Final = {
    "set": "use a list",
    "frozenset": "use a list",
    "generator": "use a list",
    "dict_keys": "use a list",
    "dict_values": "use a list",
    "datetime": "store Unix milliseconds (value.timestamp() * 1000) or value.isoformat()",
    "date": "store value.isoformat()",
    "timedelta": "store value.total_seconds()",
    "Decimal": "store a str or a float",
    "UUID": "store str(value)",
    "coroutine": "await it first",
}


def _unsupported(value: object) -> str:
    kind = type(value)
    hint = _HINTS.get(kind.__name__)
    if hint is None and isinstance(value, Enum):
        hint = "store its .value"
    shown = repr(value)
    if len(shown) > 100:
        shown = shown[:100] + "…"
    name = kind.__name__ if kind.__module__ == "builtins" else kind.__qualname__
    return f"{name} {shown} is not a supported Convex type" + (f": {hint}." if hint else ".")


_CONVERTERS: Final[dict[type, Callable[[Any, int, bool], Any]]] = {
    type(None): _same,
    bool: _same,
    int: _number,
    float: _float,
    Int64: _same,
    str: _text,
    Id: _text,
    bytes: _same,
    bytearray: _bytes,
    memoryview: _bytes,
    list: _array,
    tuple: _array,
    dict: _object,
    Unset: _missing,
}


def _convert(value: object, depth: int, keep: bool) -> Any:
    return _CONVERTERS.get(type(value), _other)(value, depth, keep)
