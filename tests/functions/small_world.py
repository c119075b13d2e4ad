"""A database in memory with some tables and indexes, as the tests of `ctx.db` need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from reactive_store.engine.database import Database
from reactive_store.engine.range_index import IndexState, RangeIndex
from reactive_store.engine.transaction import Transaction
from reactive_store.functions.db import DatabaseReader, DatabaseWriter
from reactive_store.functions.pagination import CursorCodec
from reactive_store.limits import Limits
from reactive_store.persistence.contract import IndexId
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.values.value import Int64

Indexes = Mapping[str, Mapping[str, Sequence[str]]]

CODEC = CursorCodec(b"a secret of the tests")

# Few values, close to each other and to every edge of the order.
EDGY_VALUES: list[Any] = [
    None, False, True, 0, -0.0, 1, 2.5, -3, float("inf"), float("nan"), Int64(0), Int64(1),
    Int64(-5), "", "foo", "foo\0", "foo\0bar", "fop", b"", b"\0", b"a", [], [1], [1, None], ["foo"],
    {}, {"": None}, {"a": 1}, {"a": 1, "b": []},
]  # fmt: skip


def edgy_values() -> st.SearchStrategy[Any]:
    """Values that tell wrong bounds from right ones."""
    return st.sampled_from(EDGY_VALUES)


class FrozenRuntime(SystemRuntime):
    """The clock stands still; documents then differ in creation time by the smallest step."""

    def now_ns(self) -> int:
        return 1_750_000_000_000_000_000


class SmallWorld:
    """Some tables, and readers and writers on them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.pauses = 0

    @classmethod
    async def open(cls, indexes: Indexes, *, limits: Limits | None = None) -> SmallWorld:
        limits = limits or Limits()
        database = await Database.open(MemoryPersistence(), runtime=FrozenRuntime(), limits=limits)
        tx = database.begin_mutation()
        for table_name, by_name in indexes.items():
            table = tx.create_table(table_name)
            first = tx.catalog.next_index
            added = [
                RangeIndex(name, IndexId(first + position), tuple(fields), IndexState.READY)
                for position, (name, fields) in enumerate(by_name.items())
            ]
            tx.catalog = tx.catalog.with_table(table.with_indexes([*table.indexes, *added]))
        await database.commit(tx)
        return cls(database)

    async def insert(self, table: str, *documents: Mapping[str, Any]) -> list[str]:
        """Commit documents, in order."""
        tx = self.database.begin_mutation()
        writer = self.writer(tx)
        ids = [await writer.insert(table, document) for document in documents]
        await self.database.commit(tx)
        return ids

    def reader(
        self, *, journal: str | None = None, tx: Transaction | None = None
    ) -> DatabaseReader:
        """What a query's `ctx.db` is."""
        tx = tx or self.database.begin()
        return DatabaseReader(tx, self.pause, cursors=CODEC, journal=journal)

    def writer(self, tx: Transaction | None = None) -> DatabaseWriter:
        """What a mutation's `ctx.db` is."""
        return DatabaseWriter(tx or self.database.begin_mutation(), self.pause, cursors=CODEC)

    async def pause(self) -> None:
        self.pauses += 1

    async def is_touched(self, read: Transaction, *changes: tuple[Any, ...]) -> bool:
        """Commit calls such as `("delete", id)`: does that commit invalidate what was read?"""
        before = self.database.latest_ts
        tx = self.database.begin_mutation()
        writer = self.writer(tx)
        for method, *arguments in changes:
            await getattr(writer, method)(*arguments)
        await self.database.commit(tx)
        answer = self.database.subscribe(read.read_set(), before, lambda ts: None)
        if isinstance(answer, int):
            return True
        self.database.cancel(answer)
        return False
