"""Whether everything one validator accepts is certainly accepted by another.

`False` means "not certain": the caller looks at the data. Used when a schema changes, to leave
alone the tables whose documents cannot have become wrong.

Source of facts: docs/reference/schema-push.md, "Which tables are read again".
"""

from __future__ import annotations

from reactive_store.schema.validators import (
    ArrayValidator,
    LiteralValidator,
    ObjectValidator,
    UnionValidator,
    Validator,
)
from reactive_store.values.value import Int64

__all__ = ["is_subset"]

_BIGINTS = ("int64", "commitTs")


def is_subset(a: Validator, b: Validator) -> bool:
    """Whether every value `a` accepts is accepted by `b`, as far as the shapes tell.

    Cost     O(size of a * size of b) in the worst case
    """
    if b.kind == "any" or a.optional() == b.optional():
        return True
    if isinstance(a, UnionValidator):
        return all(is_subset(member, b) for member in a.members)
    if isinstance(b, UnionValidator):
        if a.kind == "boolean":
            values = [m.value for m in b.members if isinstance(m, LiteralValidator)]
            if any(value is True for value in values) and any(value is False for value in values):
                return True
        return any(is_subset(a, member) for member in b.members)
    if isinstance(a, LiteralValidator):
        return b.kind in _kinds_of(a)
    if isinstance(a, ArrayValidator) and isinstance(b, ArrayValidator):
        return is_subset(a.element, b.element)
    if isinstance(a, ObjectValidator) and isinstance(b, ObjectValidator):
        return _is_object_subset(a, b)
    return (a.kind == "id" and b.kind == "string") or (a.kind in _BIGINTS and b.kind in _BIGINTS)


def _kinds_of(literal: LiteralValidator) -> tuple[str, ...]:
    value = literal.value
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, Int64):
        return _BIGINTS
    return ("string",) if isinstance(value, str) else ("float64",)


def _is_object_subset(a: ObjectValidator, b: ObjectValidator) -> bool:
    if not a.fields.keys() <= b.fields.keys():
        return False
    for name, theirs in b.fields.items():
        ours = a.fields.get(name)
        if ours is None:
            if not theirs.is_optional:
                return False
        elif (ours.is_optional and not theirs.is_optional) or not is_subset(ours, theirs):
            return False
    return True
