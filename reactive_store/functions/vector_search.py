"""`ctx.vector_search`: the documents whose vectors are nearest, for actions.

    await ctx.vector_search("foods", "by_embedding", vector=[…], limit=16,
                            filter=lambda f: f.or_(f.eq("cuisine", "thai"), f.eq("cuisine", "lao")))

The answer is ids with scores: an action has no snapshot, and the documents are read by a query. It
covers everything committed when it was asked for. It is no part of a transaction, so nothing is
subscribed to it.

Source of facts: docs/reference/queries.md, "Vector search"; Convex's open server for the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypedDict

from reactive_store.engine.database import Database
from reactive_store.engine.vector_matrix import Condition, VectorQuery, unit_of
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.schema.tables import VectorIndexDefinition
from reactive_store.values.ids import encode_id
from reactive_store.values.order import encode_key
from reactive_store.values.render import render
from reactive_store.values.value import UNSET, Id, normalize

__all__ = ["VectorFilter", "VectorFilterBuilder", "VectorResult", "search_vectors"]


class VectorResult(TypedDict):
    """One document found, as clients see it."""

    _id: Id
    _score: float


class _Equality(NamedTuple):
    field: str
    key: bytes


class VectorFilter:
    """A condition of a vector search; made by the builder."""

    __slots__ = ("equalities", "is_or")

    def __init__(self, equalities: tuple[_Equality, ...], *, is_or: bool) -> None:
        self.equalities = equalities  # any of them
        self.is_or = is_or


class VectorFilterBuilder:
    """What the function given as `filter` receives."""

    __slots__ = ()

    def eq(self, field: str, value: object, /) -> VectorFilter:
        """The filter field equals the value; UNSET stands for a missing field."""
        if not isinstance(field, str):
            raise TypeError(f"a field's path is a string, not {field!r}")
        key = encode_key(UNSET if value is UNSET else normalize(value))
        return VectorFilter((_Equality(field.strip("."), key),), is_or=False)

    def or_(self, *filters: VectorFilter) -> VectorFilter:
        """Any of these equalities holds; they may name different fields."""
        for part in filters:
            if type(part) is not VectorFilter or part.is_or:
                raise _wrong_filter()
        return VectorFilter(tuple(part.equalities[0] for part in filters), is_or=True)


_BUILDER: Final = VectorFilterBuilder()


async def search_vectors(
    database: Database,
    table: str,
    index: str,
    *,
    vector: Sequence[float],
    limit: int,
    filter: Callable[[VectorFilterBuilder], VectorFilter] | None,
) -> list[VectorResult]:
    """The documents with the greatest cosine to `vector`, best first; equal ones by falling id.

    Shapes   vector: as many finite numbers as the index declares; a numpy array too
    Units    _score: cosine, -1 to 1, in 32 bits
    Cost     docs/decisions/0016-vector-search.md; a restart's first search waits for the index
    Raises   BadRequest[InvalidVectorQuery, IndexNotFoundError, IndexStagedError, and as the rules
             of docs/reference/queries.md say]
    """
    numbers = _checked_vector(vector)
    condition = None if filter is None else _built(filter)
    found = database.vectors.find(table, index)
    if found is None:
        return []  # no such table: nothing to find
    definition, limits = found.definition, database.limits
    if type(limit) is not int:
        raise TypeError(f"limit is a whole number, not {limit!r}")
    if limit > limits.vector_results:
        raise BadRequest(
            f"Vector queries can fetch at most {limits.vector_results} results, requested {limit}.",
            code="InvalidVectorQuery",
        )
    if limit < 1:
        raise BadRequest(
            f"Vector queries fetch at least 1 result, requested {limit}.", code="InvalidVectorQuery"
        )
    if len(numbers) != definition.dimensions:
        raise BadRequest(
            f"Expected a vector with dimensions {definition.dimensions}, received {len(numbers)}.",
            code="InvalidVectorQuery",
        )
    conditions = _conditions(f"{table}.{index}", condition, definition, limits)
    direction = unit_of(numbers)
    if direction is None:
        raise BadRequest(
            "`vector` must hold finite numbers in vectorSearch", code="InvalidVectorQuery"
        )
    if condition is not None and not conditions:
        return []  # any of nothing
    number = database.committer.durable_catalog.tables[table].number
    best = await found.search(VectorQuery(direction, limit, conditions))
    return [
        {"_id": Id(encode_id(number, internal_id), table), "_score": score}
        for internal_id, score in best
    ]


def _checked_vector(vector: object) -> Sequence[Any]:
    numbers = vector.tolist() if hasattr(vector, "tolist") else vector
    if not isinstance(numbers, list | tuple) or not numbers:
        raise BadRequest(
            "`vector` must be a non-empty Array in vectorSearch", code="InvalidVectorQuery"
        )
    for number in numbers:
        if type(number) is not float and type(number) is not int:
            raise BadRequest(
                f"`vector` must hold numbers in vectorSearch, not {render(normalize(number))}",
                code="InvalidVectorQuery",
            )
    return numbers


def _built(build: Callable[[VectorFilterBuilder], VectorFilter]) -> VectorFilter:
    if not callable(build):
        raise TypeError(f"a filter is a function such as lambda f: f.eq(…), not {build!r}")
    condition = build(_BUILDER)
    if not isinstance(condition, VectorFilter):
        raise _wrong_filter()
    return condition


def _wrong_filter() -> BadRequest:
    return BadRequest(
        "Filters should be a combination of `q.eq` and `q.or`.", code="InvalidVectorQuery"
    )


def _conditions(
    name: str, condition: VectorFilter | None, definition: VectorIndexDefinition, limits: Limits
) -> tuple[Condition, ...]:
    if condition is None:
        return ()
    if len(condition.equalities) > limits.vector_filters:
        raise BadRequest(
            f"Vector query against {name} has too many conditions. Max: {limits.vector_filters} "
            f"Actual: {len(condition.equalities)}",
            code="InvalidVectorQuery",
        )
    fields = {path: place for place, path in enumerate(definition.filter_fields)}
    conditions = []
    for field, key in condition.equalities:
        place = fields.get(field)
        if place is None:
            raise BadRequest(
                f'Vector query against {name} contains a filter on "{field}" but that field isn\'t '
                "indexed for filtering in `filterFields`.",
                code="InvalidVectorQuery",
            )
        conditions.append(Condition(place, key))
    return tuple(conditions)
