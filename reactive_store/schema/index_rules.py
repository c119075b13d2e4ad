"""Definitions of indexes and the rules they keep.

Source of facts: docs/reference/schema.md, "Indexes"; texts and codes as Convex's open server has
them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.schema.validators import (
    ArrayValidator,
    ObjectValidator,
    UnionValidator,
    Validator,
)
from reactive_store.values.names import is_identifier

__all__ = [
    "AnyIndexDefinition",
    "IndexDefinition",
    "SearchIndexDefinition",
    "VectorIndexDefinition",
    "check_indexes",
]


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """An index over field paths; `_creationTime` and `_id` follow them and are not listed."""

    name: str
    fields: tuple[str, ...]
    staged: bool = False

    def to_json(self) -> dict[str, Any]:
        """The export form of Convex's clients."""
        return {"indexDescriptor": self.name, "fields": list(self.fields)}


@dataclass(frozen=True, slots=True)
class SearchIndexDefinition:
    """A full-text index over one field. Documents where it is not a string are not in it."""

    name: str
    search_field: str
    filter_fields: tuple[str, ...] = ()
    staged: bool = False

    @property
    def content(self) -> tuple[str, tuple[str, ...]]:
        """What it indexes, whatever it is called: the search field and the filter fields."""
        return self.search_field, self.filter_fields

    def to_json(self) -> dict[str, Any]:
        """The export form of Convex's clients."""
        return {
            "indexDescriptor": self.name,
            "searchField": self.search_field,
            "filterFields": list(self.filter_fields),
        }


@dataclass(frozen=True, slots=True)
class VectorIndexDefinition:
    """A vector index over one field. Only arrays of exactly `dimensions` numbers are in it."""

    name: str
    vector_field: str
    dimensions: int
    filter_fields: tuple[str, ...] = ()
    staged: bool = False

    def to_json(self) -> dict[str, Any]:
        """The export form of Convex's clients."""
        return {
            "indexDescriptor": self.name,
            "vectorField": self.vector_field,
            "dimensions": self.dimensions,
            "filterFields": list(self.filter_fields),
        }


AnyIndexDefinition: TypeAlias = IndexDefinition | SearchIndexDefinition | VectorIndexDefinition


def check_indexes(
    table: str,
    definitions: Sequence[AnyIndexDefinition],
    document: Validator | None,
    limits: Limits,
) -> None:
    """Refuse a table's indexes if one breaks a rule; `document` is None without validation.

    Raises   BadRequest with the code of the rule
    """
    for definition in definitions:
        _check_name(table, definition.name)
        if isinstance(definition, IndexDefinition):
            _check_fields(table, definition, limits)
        else:
            _check_special(table, definition, limits)
    _check_names_unique(table, definitions)
    if len(definitions) > limits.indexes_per_table:
        raise BadRequest(
            f'Table "{table}" cannot have more than {limits.indexes_per_table} indexes.',
            code="TooManyIndexes",
        )
    _check_content_unique(table, definitions)
    if document is not None:
        for definition in definitions:
            _check_possible(table, definition, document)


def _check_name(table: str, name: str) -> None:
    if name.startswith("_") or name in ("by_id", "by_creation_time"):
        raise BadRequest(
            f'In table "{table}" cannot name an index "{name}" because the name is reserved. '
            'Indexes may not start with an underscore or be named "by_id" or "by_creation_time".',
            code="IndexNameReserved",
        )
    if not is_identifier(name):
        raise BadRequest(
            f'In table "{table}": Invalid index name: "{name}". Identifiers must be 64 characters '
            "or less, start with a letter, and only contain letters, digits, underscores.",
            code="InvalidIndexName",
        )


def _check_fields(table: str, index: IndexDefinition, limits: Limits) -> None:
    where = f'In table "{table}": In index "{index.name}": '
    if not index.fields:
        kind = "staged index" if index.staged else "index"
        raise BadRequest(
            f'In table "{table}" {kind} "{index.name}" must have at least one field.',
            code="EmptyIndex",
        )
    # The automatic _creationTime counts. The server notices one field too many only after it has
    # added it, and then without saying where.
    most = limits.index_fields + 1
    if len(index.fields) > limits.index_fields:
        raise BadRequest(
            (where if len(index.fields) > most else "") + f"Indexes may have up to {most} fields.",
            code="IndexTooManyFields",
        )
    seen = set()
    for path in index.fields:
        _check_path(where, path)
        if path == "_id":
            raise BadRequest(
                f"{where}`_id` is not a valid index field. "
                "To load documents by ID, use `db.get(id)`.",
                code="IndexFieldsContainId",
            )
        if path == "_creationTime":
            raise BadRequest(
                "`_creationTime` is automatically added to the end of each index. It should not "
                "be added explicitly in the index definition. "
                "See https://docs.convex.dev/using/indexes for more details.",
                code="IndexFieldsContainCreationTime",
            )
        if any(segment.startswith("_") for segment in path.split(".")):
            raise BadRequest(
                "Reserved fields (starting with `_`) are not allowed in indexes.",
                code="IndexFieldNameReserved",
            )
        if path in seen:
            raise BadRequest(
                f'{where}Duplicate field "{path}". Index fields must be unique within an index.',
                code="FieldsNotUniqueWithinIndex",
            )
        seen.add(path)


def _check_special(
    table: str, index: SearchIndexDefinition | VectorIndexDefinition, limits: Limits
) -> None:
    where = f'In table "{table}": In index "{index.name}": '
    if isinstance(index, VectorIndexDefinition):
        _check_path(where, index.vector_field)
        if not 2 <= index.dimensions <= limits.vector_dimensions:
            raise BadRequest(
                f'In table "{table}": Dimensions {index.dimensions} must be between 2 and '
                f"{limits.vector_dimensions}.",
                code="InvalidVectorDimensionError",
            )
    else:
        _check_path(where, index.search_field)
    for path in index.filter_fields:
        _check_path(where, path)
    if len(set(index.filter_fields)) > limits.index_filter_fields:
        raise BadRequest(
            f'In table "{table}": Search indexes may have up to '
            f"{limits.index_filter_fields} filter fields.",
            code="IndexTooManyFilterFields",
        )


def _check_path(where: str, path: str) -> None:
    if not all(map(is_identifier, path.split("."))):
        raise BadRequest(f'{where}Invalid index field: "{path}"', code="InvalidIndexField")


def _check_names_unique(table: str, definitions: Sequence[AnyIndexDefinition]) -> None:
    seen = set()
    for definition in definitions:
        if definition.name in seen:
            raise BadRequest(
                f'Table "{table}" has two or more definitions of index "{definition.name}".',
                code="IndexNamesNotUnique",
            )
        seen.add(definition.name)


def _check_content_unique(table: str, definitions: Sequence[AnyIndexDefinition]) -> None:
    seen: dict[Hashable, str] = {}
    for definition in sorted(definitions, key=lambda definition: definition.name):
        content: Hashable
        if isinstance(definition, IndexDefinition):
            content = ("", definition.fields)
        elif isinstance(definition, SearchIndexDefinition):
            content = (definition.search_field, frozenset(definition.filter_fields))
        else:
            content = (definition.vector_field, definition.dimensions)
        if content in seen:
            raise _same_content(table, definition, seen[content])
        seen[content] = definition.name


def _same_content(table: str, later: AnyIndexDefinition, earlier: str) -> BadRequest:
    pair = f'index "{later.name}" and '
    if isinstance(later, IndexDefinition):
        return BadRequest(
            f'In table "{table}" {pair}index "{earlier}" have the same fields. '
            "Indexes must be unique within a table.",
            code="IndexNotUnique",
        )
    if isinstance(later, SearchIndexDefinition):
        return BadRequest(
            f'In table "{table}" search {pair}search index "{earlier}" have the same '
            "`searchField`. Search index fields must be unique within a table. You should combine "
            "the filter fields of both into one search index.",
            code="SearchIndexFieldNotUnique",
        )
    return BadRequest(
        f'In table "{table}" vector {pair}vector index "{earlier}" have the same `vectorField`. '
        "Vector index fields must be unique within a table. You should combine the filter fields "
        "of both into one vector index.",
        code="VectorIndexFieldNotUnique",
    )


def _check_possible(table: str, index: AnyIndexDefinition, document: Validator) -> None:
    # Filter fields of vector indexes are not looked at, as on Convex.
    if isinstance(index, IndexDefinition):
        paths: tuple[str, ...] = index.fields
    elif isinstance(index, SearchIndexDefinition):
        paths = (index.search_field, *index.filter_fields)
    else:
        paths = (index.vector_field,)
    for path in paths:
        if not _at_path(document, path.split(".")):
            raise BadRequest(
                f'In table "{table}" the index "{index.name}" is invalid because it references '
                f'the field "{path}" that does not exist.',
                code="SchemaDefinitionError",
            )
    if isinstance(index, VectorIndexDefinition) and not any(
        map(_can_be_vector, _at_path(document, index.vector_field.split(".")))
    ):
        raise BadRequest(
            f'In table "{table}" the vector index "{index.name}" is invalid because it references '
            f'the field "{index.vector_field}" that is neither an array of float64 or optional '
            "array of float64.",
            code="SchemaDefinitionError",
        )


_ANYTHING = Validator.from_json({"type": "any"})


def _at_path(document: Validator, path: list[str]) -> list[Validator]:
    """What the field at a path may be: one validator for each way to get there, none if none."""
    if len(path) == 1 and path[0].startswith("_"):
        return [_ANYTHING]
    found = [document]
    for name in path:
        found = [field for part in found for field in _field(part, name)]
    return found


def _field(part: Validator, name: str) -> list[Validator]:
    if part.kind == "any":
        return [part]
    if isinstance(part, UnionValidator):
        return [field for member in part.members for field in _field(member, name)]
    if isinstance(part, ObjectValidator) and name in part.fields:
        return [part.fields[name]]
    return []


def _can_be_vector(part: Validator) -> bool:
    if isinstance(part, UnionValidator):
        return any(map(_can_be_vector, part.members))
    if isinstance(part, ArrayValidator):
        return part.element.kind in ("float64", "any")
    return part.kind == "any"
