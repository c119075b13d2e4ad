"""Names: keys of objects, and identifiers (tables, indexes, keys of `v.object`).

A field name is 0 to 1024 characters of printable ASCII and does not start with `$`. An identifier
is 1 to 64 ASCII letters, digits and underscores, starts with a letter or underscore, and is not
made of underscores alone.

Source of facts: docs/reference/values.md, "Names"; texts as Convex's open server words them.
"""

from __future__ import annotations

import re
from typing import Final

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits

__all__ = ["FIELD_NAMES", "check_field_name", "check_identifier", "is_identifier"]

_FORMAT = Limits()
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_NOT_IN_IDENTIFIER = re.compile(r"[^A-Za-z0-9_]")
_IDENTIFIER = re.compile(r"(?=_*[A-Za-z0-9])[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MOST_NAMES_KEPT = 16_384

# Names found valid, each with the one string object every object of the process uses for it: one
# lookup replaces the check, and equal keys share memory. Bounded, since clients choose names.
FIELD_NAMES: Final[dict[str, str]] = {}


def check_field_name(name: object) -> str:
    """The name as a plain `str`, remembered in FIELD_NAMES.

    Raises   BadRequest[InvalidFieldName] when it cannot be the key of an object
    """
    if not isinstance(name, str):
        raise BadRequest(
            f"Convex object keys must be strings, found {name!r}", code="InvalidFieldName"
        )
    plain = str.__str__(name)
    if len(plain) > _FORMAT.field_name_chars:
        raise BadRequest(
            f"Field name is too long ({len(plain)} > maximum {_FORMAT.field_name_chars})",
            code="InvalidFieldName",
        )
    if plain.startswith("$"):
        raise BadRequest(
            f"Field name {plain} starts with '$', which is reserved.", code="InvalidFieldName"
        )
    if odd := _UNPRINTABLE.search(plain):
        raise BadRequest(
            f"Field name {plain} has invalid character '{odd[0]}': "
            "Field names can only contain non-control ASCII characters",
            code="InvalidFieldName",
        )
    if len(FIELD_NAMES) < _MOST_NAMES_KEPT:
        return FIELD_NAMES.setdefault(plain, plain)
    return plain


def is_identifier(text: str) -> bool:
    """Whether `check_identifier` would accept it."""
    return len(text) <= _FORMAT.identifier_chars and _IDENTIFIER.fullmatch(text) is not None


def check_identifier(text: str) -> None:
    """Refuse what cannot name a table, an index or a field of `v.object`.

    Raises   BadRequest[InvalidIdentifier]
    """
    if problem := _identifier_problem(text):
        raise BadRequest(problem, code="InvalidIdentifier")


def _identifier_problem(text: str) -> str | None:
    if not text:
        return "Identifier cannot be empty"
    first = text[0]
    if not (first == "_" or (first.isascii() and first.isalpha())):
        return (
            f"Invalid first character '{first}' in {text}: "
            "Identifiers must start with an alphabetic character or underscore"
        )
    if odd := _NOT_IN_IDENTIFIER.search(text):
        return (
            f"Identifier {text} has invalid character '{odd[0]}': "
            "Identifiers can only contain alphanumeric characters or underscores"
        )
    if len(text) > _FORMAT.identifier_chars:
        return f"Identifier is too long ({len(text)} > maximum {_FORMAT.identifier_chars})"
    if not text.strip("_"):
        return f"Identifier {text} cannot have exclusively underscores"
    return None
