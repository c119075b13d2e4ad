"""Many documents into a store at once: past the functions, a commit for each batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from reactive_store.engine.database import Database
from reactive_store.persistence.contract import Commit, DocumentWrite, IndexWrite, Timestamp
from reactive_store.values.ids import encode_id
from reactive_store.values.order import encode_key

__all__ = ["append_documents"]

_CREATED_MS = 1_700_000_000_000.0


async def append_documents(
    database: Database,
    table_name: str,
    batches: Iterable[Iterable[Mapping[str, Any]]],
) -> None:
    """Append documents, with the entries of every range index.

    Shapes   the fields of each, names in order; nothing else may write meanwhile. What follows
             commits in memory learns of them after the next start
    """
    table = database.catalog.tables[table_name]
    ts, number = int(database.latest_ts), 0
    for batch in batches:
        writes, entries = [], []
        for fields in batch:
            identity = number.to_bytes(14, "big") + b"\x50\x00"
            document: dict[str, Any] = {
                "_creationTime": _CREATED_MS + number,
                "_id": encode_id(table.number, identity),
                **fields,
            }
            value = orjson.dumps(document)
            writes.append(DocumentWrite(table.number, identity, value, is_insert=True))
            suffix = encode_key(document["_creationTime"]) + identity
            entries += [
                IndexWrite(index.id, key(document) + suffix, table.number, identity, True)
                for index, key in table.encoders
            ]
            number += 1
        ts += 1
        await database.persistence.append([Commit(Timestamp(ts), tuple(writes), tuple(entries))])
