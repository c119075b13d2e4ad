"""Lookups along references: by ids, back through an index, and through a table of pairs.

Each takes `ctx.db`, or a layer of it, and reads what it names and nothing else. Documents come in
the order of the ids or of the index. The `…_or_throw` forms raise instead of answering with None.

The field of an index need not be given where the index is named after it: `"by_userId"` and
`"userId"` are both taken for an index over `userId`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reactive_store import DatabaseReader, Document

__all__ = [
    "MissingDocumentError",
    "get_all",
    "get_all_or_throw",
    "get_many_from",
    "get_many_via",
    "get_many_via_or_throw",
    "get_one_from",
    "get_one_from_or_throw",
    "get_or_throw",
]


class MissingDocumentError(LookupError):
    """A document that must be there is not, or may not be seen."""


async def get_or_throw(db: DatabaseReader, id: str) -> Document:
    """The document with that id.

    Raises   MissingDocumentError
    """
    document = await db.get(id)
    if document is None:
        raise MissingDocumentError(f"Could not find id {id}")
    return document


async def get_all(db: DatabaseReader, ids: Iterable[str]) -> list[Document | None]:
    """The documents with these ids, in their order; None for each that does not exist."""
    return [await db.get(each) for each in ids]


async def get_all_or_throw(db: DatabaseReader, ids: Iterable[str]) -> list[Document]:
    """The documents with these ids, in their order.

    Raises   MissingDocumentError for the first that does not exist
    """
    return [await get_or_throw(db, each) for each in ids]


async def get_one_from(
    db: DatabaseReader, table: str, index: str, value: object, field: str | None = None
) -> Document | None:
    """The only document whose field is `value`, or None.

    Raises   BadRequest[NotUnique] when there are several
    """
    return await db.query(table).with_index(index, **_equality(index, value, field)).unique()


async def get_one_from_or_throw(
    db: DatabaseReader, table: str, index: str, value: object, field: str | None = None
) -> Document:
    """The only document whose field is `value`.

    Raises   MissingDocumentError; BadRequest[NotUnique] when there are several
    """
    document = await get_one_from(db, table, index, value, field)
    if document is None:
        name = field or _field_of(index)
        raise MissingDocumentError(f"Could not find a document in {table} with {name} = {value!r}")
    return document


async def get_many_from(
    db: DatabaseReader, table: str, index: str, value: object, field: str | None = None
) -> list[Document]:
    """Every document whose field is `value`, in the order of the index."""
    return await db.query(table).with_index(index, **_equality(index, value, field)).collect()


async def get_many_via(
    db: DatabaseReader,
    join_table: str,
    to_field: str,
    index: str,
    value: object,
    field: str | None = None,
) -> list[Document | None]:
    """What the documents of a joining table point to, where their field is `value`.

    Shapes   to_field: the field of the joining table that holds the ids of the answer; `index` and
             `field`: its index over the other one
    """
    pairs = await get_many_from(db, join_table, index, value, field)
    return await get_all(db, [pair[to_field] for pair in pairs])


async def get_many_via_or_throw(
    db: DatabaseReader,
    join_table: str,
    to_field: str,
    index: str,
    value: object,
    field: str | None = None,
) -> list[Document]:
    """As `get_many_via`, where everything pointed to must exist.

    Raises   MissingDocumentError naming the pair that points to nothing
    """
    found: list[Document] = []
    for pair in await get_many_from(db, join_table, index, value, field):
        document = await db.get(pair[to_field])
        if document is None:
            raise MissingDocumentError(
                f"Could not find id {pair[to_field]}, which {to_field} of {pair['_id']} in "
                f"{join_table} points to"
            )
        found.append(document)
    return found


def _field_of(index: str) -> str:
    return index.removeprefix("by_")


def _equality(index: str, value: object, field: str | None) -> dict[str, Any]:
    return {field or _field_of(index): value}
