"""Ranges of an index: from `r.eq("a", 1).gt("b", 2)` to an interval of keys.

Equalities cover the first fields of the index, in any order; then one lower and one upper bound
may limit the field that follows. Every index ends with `_creationTime` and `_id`, which may be
bounded like the others. Bounds compare across types, and exactly: a key ends where its value ends,
so a bound on "foo" neither covers nor skips "foo\\0bar".

Source of facts: docs/reference/queries.md, "Index ranges".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from reactive_store.engine.interval import EVERYTHING, Interval, after, prefix_end
from reactive_store.engine.range_index import BY_ID
from reactive_store.errors import BadRequest
from reactive_store.values.order import encode_key
from reactive_store.values.render import render
from reactive_store.values.value import UNSET, Unset, Value, normalize

__all__ = ["Bound", "IndexRangeBuilder", "compile_range"]

_BEHIND: Final = b"\xff"  # above every tag that can follow a key's last value
_DOCS: Final = "https://docs.convex.dev/using/indexes"


class Bound(NamedTuple):
    """One comparison of a range."""

    comparator: str  # == > >= < <=
    field: str  # dotted, as the index declares it
    value: Value | Unset


class IndexRangeBuilder:
    """What the function given to `with_index` receives; each call gives the next link of a chain.

    UNSET as a value is a missing field. A link may be continued once: two chains from one link
    are two halves of a range that would never meet.
    """

    __slots__ = ("_bounds", "_is_used")

    def __init__(self, bounds: tuple[Bound, ...] = ()) -> None:
        self._bounds = bounds
        self._is_used = False

    @classmethod
    def of_equalities(cls, equalities: Mapping[str, object]) -> IndexRangeBuilder:
        """The link after one `eq` for each."""
        return cls(
            tuple([Bound("==", field, _normal(value)) for field, value in equalities.items()])
        )

    def eq(self, field: str, value: object, /) -> IndexRangeBuilder:
        """The field equals the value."""
        return self._add("==", field, value)

    def gt(self, field: str, value: object, /) -> IndexRangeBuilder:
        """The field comes after the value."""
        return self._add(">", field, value)

    def gte(self, field: str, value: object, /) -> IndexRangeBuilder:
        """The field does not come before the value."""
        return self._add(">=", field, value)

    def lt(self, field: str, value: object, /) -> IndexRangeBuilder:
        """The field comes before the value; a missing field always does."""
        return self._add("<", field, value)

    def lte(self, field: str, value: object, /) -> IndexRangeBuilder:
        """The field does not come after the value."""
        return self._add("<=", field, value)

    def finish(self) -> tuple[Bound, ...]:
        """All bounds of the chain; the builder is used up."""
        self._use()
        return self._bounds

    def _add(self, comparator: str, field: str, value: object) -> IndexRangeBuilder:
        self._use()
        if not isinstance(field, str):
            raise TypeError(f"a field's path is a string, not {field!r}")
        return IndexRangeBuilder((*self._bounds, Bound(comparator, field, _normal(value))))

    def _use(self) -> None:
        if self._is_used:
            raise BadRequest(
                "IndexRangeBuilder has already been used! Chain your method calls like "
                f"`q => q.eq(...).eq(...)`. See {_DOCS}",
                code="IndexRangeBuilderReused",
            )
        self._is_used = True


def _normal(value: object) -> Value | Unset:
    return UNSET if value is UNSET else normalize(value)


class _Sides:
    """The bounds of a range, sorted out."""

    __slots__ = ("equal", "lower", "upper")

    def __init__(self) -> None:
        self.equal: dict[str, Value | Unset] = {}
        self.lower: Bound | None = None
        self.upper: Bound | None = None

    @property
    def limited_field(self) -> str | None:
        """The field with a lower or upper bound."""
        bound = self.lower or self.upper
        return None if bound is None else bound.field

    def add(self, bound: Bound, index: str) -> None:
        comparator, field, value = bound
        limited = self.limited_field
        if comparator == "==":
            if field in self.equal:
                raise _already_defined("equality", bound)
            if field == limited:
                raise _already_defined("inequality", bound)
            self.equal[field] = value
            return
        if field in self.equal:
            raise _already_defined("equality", bound)
        if limited is not None and field != limited:
            raise BadRequest(
                "Upper and lower bounds in `range` can only be applied to a single index field. "
                f"This query against index {index} attempted to set a range bound on both "
                f'"{limited}" and "{field}". Consider using `filter` instead. '
                f"See {_DOCS} for more info.",
                code="BoundsOnMultipleFields",
            )
        if comparator in (">", ">="):
            if self.lower is not None:
                raise _already_defined("lower", bound)
            self.lower = bound
        else:
            if self.upper is not None:
                raise _already_defined("upper", bound)
            self.upper = bound


def compile_range(
    table: str,
    index: str,
    declared: Sequence[str],
    bounds: Sequence[Bound],
    id_bytes: Callable[[Value | Unset], bytes],
) -> tuple[Interval, int]:
    """The interval of keys within all bounds, and how many first bytes all its keys share.

    Shapes   declared: the index's own fields, dotted, without `_creationTime` and `_id`
             id_bytes: the key of an `_id`; raises BadRequest for what is no id of the table
    Raises   BadRequest[AlreadyDefinedBound, BoundsOnMultipleFields, FieldNotInIndex,
             InvalidIndexRange]
    """
    if not bounds:
        return EVERYTHING, 0
    prefix = _equal_prefix(declared, bounds)
    if prefix is not None:
        return Interval(prefix, prefix + _BEHIND), len(prefix)
    name = f"{table}.{index}"
    sides = _Sides()
    for bound in bounds:
        sides.add(bound, name)
    fields = ("_id",) if index == BY_ID else (*declared, "_creationTime", "_id")
    _check_fields(name, fields, bounds, sides)

    def key(field: str, value: Value | Unset) -> bytes:
        return id_bytes(value) if field == "_id" else encode_key(value)

    equal_fields = fields[: len(sides.equal)]
    prefix = b"".join([key(field, sides.equal[field]) for field in equal_fields])
    start, end = prefix, _above(prefix, equal_fields[-1]) if equal_fields else None
    if sides.lower is not None:
        comparator, field, value = sides.lower
        start = prefix + key(field, value)
        if comparator == ">":
            start = _above(start, field)
    if sides.upper is not None:
        comparator, field, value = sides.upper
        end = prefix + key(field, value)
        if comparator == "<=":
            end = _above(end, field)
    return Interval(start, end), len(prefix)


def _above(key: bytes, field: str) -> bytes:
    """The first key above all that continue `key`, whose last value is that of `field`."""
    if field == "_id":
        return after(key)
    if field == "_creationTime":
        # Raw id bytes follow, any of them; the encoded time itself never is a prefix of another.
        end = prefix_end(key)
        assert end is not None
        return end
    # A value's tag (01 to 15) follows. FF would continue the value itself: it marks an escaped
    # zero byte in text and bytes, and an empty name in objects.
    return key + _BEHIND


def _equal_prefix(declared: Sequence[str], bounds: Sequence[Bound]) -> bytes | None:
    """The keys' shared bytes for the usual range: equalities of the first fields, in their order.

    None: it is another one, or a wrong one.
    """
    if len(bounds) > len(declared):
        return None
    keys = []
    for (comparator, field, value), expected in zip(bounds, declared, strict=False):
        if comparator != "==" or field != expected:
            return None
        keys.append(encode_key(value))
    return b"".join(keys)


def _already_defined(kind: str, bound: Bound) -> BadRequest:
    return BadRequest(
        f"Already defined {kind} bound in index range. "
        f'Can\'t add "{bound.field}" {bound.comparator} {render(bound.value)}.',
        code="AlreadyDefinedBound",
    )


def _shown(fields: Sequence[str]) -> str:
    return json.dumps([field for field in fields if field != "_id"] or list(fields))


def _check_fields(name: str, fields: Sequence[str], bounds: Sequence[Bound], sides: _Sides) -> None:
    for bound in bounds:
        if bound.field not in fields:
            raise BadRequest(
                f'The index range included a comparison with "{bound.field}", but {name} with '
                f"fields {_shown(fields)} doesn't index this field. "
                f"For more information see {_DOCS}.",
                code="FieldNotInIndex",
            )
    queried = [field for field in fields if field in sides.equal]
    if sides.limited_field is not None:
        queried.append(sides.limited_field)
    for field, expected in zip(queried, fields, strict=False):
        if field != expected:
            raise BadRequest(
                f"Tried to query index {name} but the query didn't use the index fields in order."
                f"\nIndex fields: {_shown(fields)}\nQuery fields: {json.dumps(queried)}"
                f'\nFirst incorrect field: "{field}"'
                f"\nFor more information see {_DOCS}.",
                code="InvalidIndexRange",
            )
