"""What a value costs in bytes, and the limits on values and documents.

Null and booleans cost 1, both kinds of number 9, strings and bytes 2 more than their bytes, arrays
2 more than their elements, objects 2 more than their fields, a field its name, 1 and its value.

Source of facts: docs/reference/limits.md; tests/conformance/vectors/values.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.values.render import render
from reactive_store.values.value import Id, Int64, Unset, Value, nesting, too_nested

__all__ = [
    "check_document",
    "check_document_size",
    "check_value",
    "document_size",
    "format_size",
    "size_of",
]

_ID_CHARS = 32
_ID_COST = len("_id") + 1 + 2
_CREATION_TIME_COST = len("_creationTime") + 1 + 9
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_of(value: Value | Unset) -> int:
    """The size in bytes of a normal value; UNSET costs nothing.

    Cost     O(size); about 1.5 µs for 12 flat fields
    """
    return _SIZES[type(value)](value)


def document_size(document: Mapping[str, Any], *, id_chars: int = _ID_CHARS) -> int:
    """The size in bytes of a document, its system fields included, present or not."""
    size = _object(document)
    if "_id" not in document:
        size += _ID_COST + id_chars
    if "_creationTime" not in document:
        size += _CREATION_TIME_COST
    return size


def format_size(size: int) -> str:
    """`16 MiB`, `1.50 MiB`, `12 B`: whole numbers without decimals, others with two."""
    unit = 0
    divisor = 1
    while size >= divisor * 1024 and unit < len(_UNITS) - 1:
        divisor *= 1024
        unit += 1
    number = f"{size // divisor}" if size % divisor == 0 else f"{size / divisor:.2f}"
    return f"{number} {_UNITS[unit]}"


def check_value(value: Value, limits: Limits) -> None:
    """Refuse a normal value that is too large or too deep to exist at all.

    Raises   BadRequest[ValueTooLargeError, TooNestedError]
    """
    _check_size(size_of(value), limits.value_bytes)
    levels = nesting(value)
    if levels > limits.value_nesting:
        raise BadRequest(too_nested(levels), code="TooNestedError")


def check_document(document: dict[str, Any], limits: Limits) -> int:
    """Refuse what cannot be a document: names reserved at its top level, too many levels.

    Returns its size, which is not checked here.

    Shapes   document: normal, with its system fields
    Cost     one walk; about 1.5 µs for 12 flat fields
    Raises   BadRequest[InvalidDocumentError] naming all reasons
    """
    size = 2
    is_flat = has_own_names = True
    for name, item in document.items():
        kind = type(item)
        if kind is str and item.isascii():
            size += len(name) + 3 + len(item)
        else:
            size += len(name) + 1 + _SIZES[kind](item)
            if kind is dict or kind is list:
                is_flat = False
        if name[:1] == "_" and name != "_id" and name != "_creationTime":
            has_own_names = False
    if not is_flat or not has_own_names:
        _check_structure(document, limits)
    return size


def _check_structure(document: dict[str, Any], limits: Limits) -> None:
    reasons = [
        f"Field '{name}' starts with an underscore, which is only allowed for system fields "
        "like '_id'"
        for name in document
        if name.startswith("_") and name not in ("_id", "_creationTime")
    ]
    levels = nesting(document)
    if levels > limits.document_nesting:
        reasons.append(
            f"Document is too nested (nested {levels} levels deep > "
            f"maximum nesting {limits.document_nesting})"
        )
    if reasons:
        raise BadRequest(
            f"Document(value: {render(document)}) isn't a valid document: " + "\n ".join(reasons),
            code="InvalidDocumentError",
        )


def check_document_size(document: Mapping[str, Any], limits: Limits) -> int:
    """The size of a document, its system fields included.

    Raises   BadRequest[ValueTooLargeError] when it is more than a document may have
    """
    size = document_size(document)
    _check_size(size, limits.document_bytes)
    return size


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise BadRequest(
            f"Value is too large ({format_size(size)} > maximum size {format_size(most)})",
            code="ValueTooLargeError",
        )


def _one(_value: object) -> int:
    return 1


def _nine(_value: object) -> int:
    return 9


def _string(value: str) -> int:
    return 2 + (len(value) if value.isascii() else len(value.encode()))


def _bytes(value: bytes) -> int:
    return 2 + len(value)


def _array(value: list[Any]) -> int:
    return 2 + sum([_SIZES[type(item)](item) for item in value])


def _object(value: Mapping[str, Any]) -> int:
    size = 2
    for name, item in value.items():
        size += len(name) + 1 + _SIZES[type(item)](item)
    return size


_SIZES: Final[dict[type, Callable[[Any], int]]] = {
    Unset: lambda _: 0,
    type(None): _one,
    bool: _one,
    int: _nine,
    float: _nine,
    Int64: _nine,
    str: _string,
    Id: _string,
    bytes: _bytes,
    list: _array,
    dict: _object,
}
