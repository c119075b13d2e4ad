"""Constraints of tables: unique fields, defaults, and references that stay whole.

    constraints = Constraints(schema)
    constraints.unique("users", "email")
    constraints.defaults("users", role="member")
    constraints.reference("posts", "author", on_delete="cascade")

    async def with_constraints(ctx: MutationCtx) -> MutationCtx:
        return constraints.enforce(ctx)

- Unique fields hold under any concurrency: the look for another document is part of what the
  mutation read, so of two mutations that store one value at once, one runs again and finds it.
- A document in which one of the fields is missing or null is not compared, as in SQL.
- What a constraint refuses raises a ConvexError, and that write is undone. A delete is made or
  refused as one with all that cascades from it.

Only writes through `enforce(ctx).db` are held to it, and stored documents are not looked at when a
constraint is added. Decorate every mutation of the app with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, TypeVar

from reactive_store import (
    UNSET,
    ConvexError,
    Document,
    MutationCtx,
    Query,
    Schema,
    TableDefinition,
)
from reactive_store.kit.layers import Write, WriterLayer

__all__ = ["Constraints"]

C = TypeVar("C", bound=MutationCtx)

OnDelete = Literal["restrict", "cascade", "set_null"]
"""What deleting a document does to those that refer to it: it is refused, they are deleted as well,
or their reference is set to null (removed, where the field is optional and takes no null)."""


@dataclass(frozen=True, slots=True)
class _Unique:
    """No two documents of a table have equal values in all of these fields."""

    table: str
    fields: tuple[str, ...]  # in the order of the index
    index: str


@dataclass(frozen=True, slots=True)
class _Reference:
    """A field of a table names a document of another one."""

    table: str
    field: str
    index: str
    target: str
    on_delete: OnDelete
    nothing: Any  # what set_null puts in place of the id: None or UNSET


class Constraints:
    """The constraints of an app's tables. Made once, at module level, of the app's schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._unique: dict[str, list[_Unique]] = {}
        self._defaults: dict[str, dict[str, Any]] = {}
        self._references: dict[str, list[_Reference]] = {}  # by the table they are in
        self._referring: dict[str, list[_Reference]] = {}  # by the table they point to

    def unique(self, table: str, *fields: str) -> None:
        """No two documents of `table` may have equal values in all of `fields`.

        Raises   TypeError without an index that begins with these fields, in any order
        """
        index, ordered = self._index(table, fields)
        self._unique.setdefault(table, []).append(_Unique(table, ordered, index))

    def defaults(self, table: str, /, **fields: Any) -> None:
        """What fields are when an insert leaves them out.

        Shapes   a value, or a function of the context: `createdAt=lambda ctx: ctx.now`
        """
        self._definition(table)
        self._defaults.setdefault(table, {}).update(fields)

    def reference(self, table: str, field: str, *, on_delete: OnDelete = "restrict") -> None:
        """What `field` names must exist, and deleting it does as `on_delete` says.

        The schema says which table it points to: `v.id("users")`, perhaps optional or nullable.

        Raises   TypeError when the field is no id, without an index that begins with it, or for
                 set_null where the field can be neither null nor absent
        """
        if on_delete not in ("restrict", "cascade", "set_null"):
            raise TypeError(f'on_delete is "restrict", "cascade" or "set_null", not {on_delete!r}')
        target, nothing = _target(table, field, self._definition(table))
        if on_delete == "set_null" and nothing is _NEVER:
            raise TypeError(
                f"{table}.{field} can be neither null nor absent: declare it as "
                f'v.nullable(v.id("{target}")), or use another on_delete'
            )
        index, _ = self._index(table, (field,))
        reference = _Reference(table, field, index, target, on_delete, nothing)
        self._references.setdefault(table, []).append(reference)
        self._referring.setdefault(target, []).append(reference)

    def enforce(self, ctx: C) -> C:
        """The same context with a `db` that keeps the constraints.

        Cost     about 4 µs. Per write: one index read for each unique constraint whose fields
                 change, one point read for each reference that changes; per delete: one index read
                 for each reference to the table
        """
        db = _Constrained.around(ctx.db)
        db._constraints, db._ctx = self, ctx
        return ctx.replace(db=db)

    def _definition(self, table: str) -> TableDefinition:
        definition = self._schema.tables.get(table)
        if definition is None:
            known = ", ".join(self._schema.tables)
            raise TypeError(f"there is no table {table!r} in the schema, which has {known}")
        return definition

    def _index(self, table: str, fields: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """An index that begins with the fields, and the order in which it has them."""
        if not fields:
            raise TypeError(f'name the fields: unique("{table}", "email")')
        if any("." in field for field in fields):
            raise TypeError(f"constraints take top-level fields of {table}, not {fields}")
        count = len(fields)
        for name, index in self._definition(table).indexes.items():
            if not index.staged and set(index.fields[:count]) == set(fields):
                return name, tuple(index.fields[:count])
        listed = ", ".join(f'"{field}"' for field in fields)
        raise TypeError(
            f"table {table} has no index that begins with {', '.join(fields)}, which is needed to "
            f'look for other documents: add .index("by_{"_".join(fields)}", [{listed}])'
        )


class _Constrained(WriterLayer):
    """`ctx.db` under constraints."""

    __slots__ = ("_constraints", "_ctx")

    _constraints: Constraints
    _ctx: MutationCtx

    async def _write(self, write: Write) -> Any:
        if write.operation == "delete":
            return await self._delete(write)
        old: Document | None = None
        if write.operation == "insert":
            write = self._with_defaults(write)
        else:
            old = await self._inner.get(write.id)
        # Written first and looked at then: what is stored is one document, however it was given.
        with self._inner.savepoint():
            result = await write.make()
            new = await self._inner.get(result if write.operation == "insert" else write.id)
            if new is None:
                raise TypeError(
                    "constraints cannot see what they write: put rules around constraints, "
                    "rules.guard(constraints.enforce(ctx))"
                )
            before: Mapping[str, Any] = {} if old is None else old
            await self._check(
                new, {name for name in {*before, *new} if before.get(name) != new.get(name)}
            )
        return result

    def _with_defaults(self, write: Write) -> Write:
        table, value = write.args
        defaults = self._constraints._defaults.get(table)
        if not defaults:
            return write
        if not isinstance(value, Mapping):
            raise TypeError(
                f"table {table} has defaults, so insert() needs the fields one by one: pass a "
                f"dict, not {type(value).__name__}"
            )
        missing = {
            name: default(self._ctx) if callable(default) else default
            for name, default in defaults.items()
            if value.get(name, UNSET) is UNSET
        }
        return write.with_value({**value, **missing})

    async def _check(self, new: Document, changed: set[str]) -> None:
        """Refuse a document that breaks a constraint of its table."""
        table = new.table
        for unique in self._constraints._unique.get(table, ()):
            values = {name: new.get(name) for name in unique.fields}
            if changed.isdisjoint(values) or None in values.values():
                continue
            if await self._has_other(unique, values, new):
                _refuse(
                    "not_unique",
                    f"There is another document in {table} with the same "
                    f"{' and '.join(unique.fields)}",
                    table=table,
                    fields=list(unique.fields),
                )
        for reference in self._constraints._references.get(table, ()):
            named = new.get(reference.field)
            if reference.field not in changed or named is None:
                continue
            if await self._inner.get(reference.target, named) is None:
                _refuse(
                    "missing_reference",
                    f"{reference.field} of a document in {table} names {named}, which does not "
                    f"exist in {reference.target}",
                    table=table,
                    fields=[reference.field],
                )

    async def _has_other(self, unique: _Unique, values: dict[str, Any], new: Document) -> bool:
        """Whether another document has these values."""
        found = self._inner.query(unique.table).with_index(unique.index, **values)
        return any(document["_id"] != new["_id"] for document in await found.take(2))

    async def _delete(self, write: Write) -> None:
        document = await self._inner.get(write.id)
        if document is None:
            await write.make()  # which says what is wrong
            return
        with self._inner.savepoint():
            # First it, then what refers to it: so circles of references come to an end.
            await write.make()
            for reference in self._constraints._referring.get(document.table, ()):
                await self._release(reference, document)

    async def _release(self, reference: _Reference, document: Document) -> None:
        """Do what a reference asks for when the document it points to is deleted."""
        referring = self._referring(reference, document["_id"])
        if reference.on_delete == "restrict":
            if await referring.first() is not None:
                _refuse(
                    "still_referenced",
                    f"A document in {document.table} cannot be deleted: {reference.field} of a "
                    f"document in {reference.table} names it",
                    table=reference.table,
                    fields=[reference.field],
                )
            return
        for each in await referring.collect():
            if reference.on_delete == "set_null":
                await self._inner.patch(each["_id"], {reference.field: reference.nothing})
            elif await self._inner.get(each["_id"]) is not None:
                await self.delete(each["_id"])

    def _referring(self, reference: _Reference, id: str) -> Query:
        query = self._inner.query(reference.table)
        return query.with_index(reference.index, **{reference.field: id})


_NEVER: Final = object()


def _target(table: str, field: str, definition: TableDefinition) -> tuple[str, Any]:
    """The table a field points to, and what may stand there instead of an id."""
    declared = definition.document.to_json()
    entry = declared.get("value", {}).get(field) if declared.get("type") == "object" else None
    if entry is None:
        raise TypeError(f"{table}.{field} is not declared in the schema: declare it as a v.id(…)")
    kind = entry["fieldType"]
    members = kind["value"] if kind["type"] == "union" else [kind]
    targets = {each["tableName"] for each in members if each["type"] == "id"}
    if len(targets) != 1 or any(each["type"] not in ("id", "null") for each in members):
        raise TypeError(
            f"{table}.{field} is no id of one table: a reference is declared as v.id(…), perhaps "
            "optional or nullable"
        )
    if any(each["type"] == "null" for each in members):
        return targets.pop(), None
    return targets.pop(), UNSET if entry["optional"] else _NEVER


def _refuse(code: str, message: str, **details: Any) -> NoReturn:
    raise ConvexError({"code": code, "message": message, **details})
