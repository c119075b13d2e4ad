"""Tables: the documents they hold and the indexes over them.

Definitions are immutable values; each method returns a new one. `define_schema` checks everything
a deployment would refuse, so a `Schema` that exists is sound.

Source of facts: docs/reference/schema.md; Convex's npm client 1.48 for the export form, its open
server for rules and texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.schema.codegen import TableNames
from reactive_store.schema.index_rules import (
    IndexDefinition,
    SearchIndexDefinition,
    VectorIndexDefinition,
    check_indexes,
)
from reactive_store.schema.validators import (
    IdValidator,
    ObjectValidator,
    UnionValidator,
    Validator,
    v,
)
from reactive_store.values.names import is_identifier
from reactive_store.values.value import Unset, Value

__all__ = [
    "IndexDefinition",
    "Schema",
    "SearchIndexDefinition",
    "TableDefinition",
    "VectorIndexDefinition",
    "define_schema",
    "define_table",
    "doc_validator",
]

_LEARN_MORE = "see the schema documentation at https://docs.convex.dev/database/schemas."


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """What a table holds and how it is indexed. Made by `define_table`."""

    document: Validator
    staged_document: Validator | None = None
    definitions: tuple[IndexDefinition | SearchIndexDefinition | VectorIndexDefinition, ...] = ()
    # `document` without the top-level fields that start with an underscore: what is enforced.
    enforced: Validator = field(init=False, compare=False, repr=False)
    # The same, but taking any system fields: what a whole document is tested against first.
    _whole: Validator = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "enforced", _each_object(self.document, _without_system_fields))
        object.__setattr__(self, "_whole", _each_object(self.enforced, _with_any_system_fields))

    def index(self, name: str, fields: Sequence[str], *, staged: bool = False) -> TableDefinition:
        """Add an index over `fields`, each a name or a dotted path; `_creationTime` follows them.

        Shapes   staged: built in the background and not queryable
        """
        paths = tuple(path.strip(".") for path in fields)
        return self._with(IndexDefinition(name, paths, staged))

    def search_index(
        self,
        name: str,
        *,
        search_field: str,
        filter_fields: Sequence[str] = (),
        staged: bool = False,
    ) -> TableDefinition:
        """Add a full-text index over one string field."""
        filters = tuple(path.strip(".") for path in filter_fields)
        return self._with(SearchIndexDefinition(name, search_field.strip("."), filters, staged))

    def vector_index(
        self,
        name: str,
        *,
        vector_field: str,
        dimensions: int,
        filter_fields: Sequence[str] = (),
        staged: bool = False,
    ) -> TableDefinition:
        """Add a vector index over one field that holds `dimensions` numbers."""
        filters = tuple(path.strip(".") for path in filter_fields)
        return self._with(
            VectorIndexDefinition(name, vector_field.strip("."), dimensions, filters, staged)
        )

    def staged(self, changes: Validator | Mapping[str, Validator | Unset]) -> TableDefinition:
        """Propose the next document validator: a whole one, or changes to fields (UNSET removes).

        Raises   BadRequest[InvalidValidator] the second time, or for changes to a union
        """
        if self.staged_document is not None:
            raise BadRequest(
                "Table cannot have more than one staged validator.", code="InvalidValidator"
            )
        if isinstance(changes, Validator):
            return replace(self, staged_document=changes)
        if isinstance(self.document, ObjectValidator):
            fields: dict[str, Validator | Unset] = {**self.document.fields, **changes}
        elif self.document.kind == "any":
            fields = dict(changes)
        else:
            raise BadRequest(
                "Specifying top-level field changes is only supported for simple table "
                "definitions. For a table defined with a union or record validator, you must "
                "stage a fully defined object or union validator.",
                code="InvalidValidator",
            )
        kept = {name: item for name, item in fields.items() if not isinstance(item, Unset)}
        return replace(self, staged_document=v.object(kept))

    @property
    def indexes(self) -> Mapping[str, IndexDefinition]:
        """Database indexes by name, staged ones included."""
        return {d.name: d for d in self.definitions if isinstance(d, IndexDefinition)}

    @property
    def search_indexes(self) -> Mapping[str, SearchIndexDefinition]:
        """Full-text indexes by name, staged ones included."""
        return {d.name: d for d in self.definitions if isinstance(d, SearchIndexDefinition)}

    @property
    def vector_indexes(self) -> Mapping[str, VectorIndexDefinition]:
        """Vector indexes by name, staged ones included."""
        return {d.name: d for d in self.definitions if isinstance(d, VectorIndexDefinition)}

    def check(self, document: dict[str, Value], tables: TableNames) -> None:
        """Accept a normal document, or say what is wrong. System fields are not looked at.

        Cost     about 2 µs for 12 flat fields
        Raises   BadRequest as `Validator.check`
        """
        if not self._whole.matches(document, tables):
            own = {name: item for name, item in document.items() if not name.startswith("_")}
            self.enforced.check(own, tables)

    def _with(
        self, definition: IndexDefinition | SearchIndexDefinition | VectorIndexDefinition
    ) -> TableDefinition:
        return replace(self, definitions=(*self.definitions, definition))


@dataclass(frozen=True, slots=True)
class Schema:
    """All tables of an app. Made by `define_schema`."""

    tables: Mapping[str, TableDefinition]
    schema_validation: bool = True
    strict_table_names: bool = True

    def doc(self, table: str) -> Validator:
        """The validator of whole documents of a table, system fields included.

        Raises   BadRequest[UnknownTable]
        """
        return doc_validator(table, self._table(table))

    def id(self, table: str) -> IdValidator:
        """The validator of ids of a table.

        Raises   BadRequest[UnknownTable]
        """
        self._table(table)
        return IdValidator(table)

    def to_json(self) -> dict[str, Any]:
        """The export form of Convex's clients."""
        return {
            "tables": [_table_to_json(name, table) for name, table in self.tables.items()],
            "schemaValidation": self.schema_validation,
        }

    def _table(self, name: str) -> TableDefinition:
        table = self.tables.get(name)
        if table is None:
            known = ", ".join(self.tables)
            raise BadRequest(
                f'Table "{name}" is not in this schema. Tables in this schema: {known}',
                code="UnknownTable",
            )
        return table


def define_table(document: Validator | Mapping[str, Validator]) -> TableDefinition:
    """A table whose documents have these fields, or match this object, union of objects or any."""
    return TableDefinition(document if isinstance(document, Validator) else v.object(document))


def define_schema(
    tables: Mapping[str, TableDefinition],
    *,
    schema_validation: bool = True,
    strict_table_names: bool = True,
) -> Schema:
    """The schema of an app.

    Shapes   schema_validation: whether documents are checked; strict_table_names: whether
             generated types know only these tables
    Raises   BadRequest[InvalidTableName, TableNameReserved, InvalidTopLevelTypeInSchemaError,
             TooManyTables, and the codes of the rules for indexes]
    """
    limits = Limits()
    if len(tables) > limits.tables:
        raise BadRequest(f"Number of tables cannot exceed {limits.tables}.", code="TooManyTables")
    for name, table in tables.items():
        _check_table_name(name)
        if not isinstance(table, TableDefinition):
            raise BadRequest(
                f'Table "{name}" must be made with define_table(...).', code="InvalidSchema"
            )
        for document in (table.document, table.staged_document):
            if document is not None:
                _check_document_type(document)
        check_indexes(
            name, table.definitions, table.document if schema_validation else None, limits
        )
    return Schema(MappingProxyType(dict(tables)), schema_validation, strict_table_names)


def doc_validator(table: str, definition: TableDefinition) -> Validator:
    """The validator of whole documents of a table: its own fields, `_id` and `_creationTime`.

    Raises   BadRequest[InvalidTopLevelTypeInSchemaError] when documents are not objects
    """
    return _with_system_fields(table, definition.document)


def _with_system_fields(table: str, document: Validator) -> Validator:
    if isinstance(document, ObjectValidator):
        return document.extend({"_id": v.id(table), "_creationTime": v.number()})
    if isinstance(document, UnionValidator):
        return v.union(*(_with_system_fields(table, member) for member in document.members))
    if document.kind == "any":
        return document
    raise BadRequest(
        f'Invalid validator for table "{table}": a table\'s documents must be objects, or a union '
        "of objects (see https://docs.convex.dev/database/schemas)",
        code="InvalidTopLevelTypeInSchemaError",
    )


def _each_object(document: Validator, change: Any) -> Validator:
    if isinstance(document, ObjectValidator):
        changed: Validator = change(document)
        return changed
    if isinstance(document, UnionValidator):
        return v.union(*(_each_object(member, change) for member in document.members))
    return document


def _without_system_fields(document: ObjectValidator) -> Validator:
    return document.omit(*(name for name in document.fields if name.startswith("_")))


_ANY_SYSTEM_FIELDS: Final = {"_id": v.optional(v.any()), "_creationTime": v.optional(v.any())}


def _with_any_system_fields(document: ObjectValidator) -> Validator:
    return document.extend(_ANY_SYSTEM_FIELDS)


def _check_table_name(name: str) -> None:
    if not is_identifier(name) or not name.lstrip("_")[0].isalpha():
        raise BadRequest(
            f'Invalid table name: "{name}". Identifiers must start with a letter and can only '
            "contain letters, digits, and underscores.",
            code="InvalidTableName",
        )
    if name.startswith("_"):
        raise BadRequest(f"{name} is a reserved table name.", code="TableNameReserved")


def _check_document_type(document: Validator) -> None:
    if document.kind == "any":
        return
    parts = document.members if isinstance(document, UnionValidator) else (document,)
    for part in parts:
        if not isinstance(part, ObjectValidator):
            raise BadRequest(
                "The document validator in a schema must be an object, a union of objects, or "
                f"`v.any()`. Found {part!r}. To learn more, {_LEARN_MORE}",
                code="InvalidTopLevelTypeInSchemaError",
            )


def _table_to_json(name: str, table: TableDefinition) -> dict[str, Any]:
    kinds = (
        (IndexDefinition, "indexes", "stagedDbIndexes"),
        (SearchIndexDefinition, "searchIndexes", "stagedSearchIndexes"),
        (VectorIndexDefinition, "vectorIndexes", "stagedVectorIndexes"),
    )
    exported: dict[str, Any] = {"tableName": name}
    for kind, enabled, staged in kinds:
        ours = [d for d in table.definitions if isinstance(d, kind)]
        exported[enabled] = [d.to_json() for d in ours if not d.staged]
        exported[staged] = [d.to_json() for d in ours if d.staged]
    exported["documentType"] = table.document.to_json()
    if table.staged_document is not None:
        exported["stagedDocumentType"] = table.staged_document.to_json()
    return exported
