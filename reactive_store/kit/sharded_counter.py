"""Counters that many may change at once: each is kept in several documents, its shards.

Two mutations that change one document conflict, and one of them runs again. A counter that every
request changes is spread over `shards` documents; a change goes to one of them by chance, reading
adds them up. For counts that follow a table, or that are asked by key, see `aggregate`.

The app declares the table: `define_schema({**counter_tables(), …})`.
"""

from __future__ import annotations

from typing import Final

from reactive_store import MutationCtx, QueryCtx, TableDefinition, define_table, v

__all__ = ["ShardedCounter", "counter_tables"]

_TABLE: Final = "counters"


def counter_tables(table: str = _TABLE) -> dict[str, TableDefinition]:
    """The table of all counters, to be merged into the schema."""
    fields = {"name": v.string(), "shard": v.number(), "value": v.number()}
    return {table: define_table(fields).index("by_name_shard", ["name", "shard"])}


class ShardedCounter:
    """A family of counters: one for each name that is used. Made once, at module level.

    Shapes   shards: how many changes of one counter can be under way without a conflict, about;
             reading reads up to that many documents
    """

    def __init__(self, *, shards: int = 16, table: str = _TABLE) -> None:
        if shards < 1:
            raise ValueError(f"a counter has at least one shard, not {shards}")
        self._shards = shards
        self._table = table

    async def add(self, ctx: MutationCtx, name: str, amount: float = 1) -> None:
        """Change a counter; a negative amount takes away.

        Cost     one point read and one write
        """
        shard = ctx.random.randrange(self._shards)
        found = await (
            ctx.db.query(self._table).with_index("by_name_shard", name=name, shard=shard).unique()
        )
        if found is None:
            await ctx.db.insert(self._table, {"name": name, "shard": shard, "value": amount})
        else:
            await ctx.db.patch(found["_id"], {"value": found["value"] + amount})

    async def count(self, ctx: QueryCtx, name: str) -> float:
        """What a counter stands at; zero when nothing was ever added.

        Cost     one read of all its shards
        """
        query = ctx.db.query(self._table).with_index("by_name_shard", name=name)
        total: float = sum([shard["value"] async for shard in query])
        return total

    async def reset(self, ctx: MutationCtx, name: str) -> None:
        """Set a counter to zero. Conflicts with every change of it."""
        query = ctx.db.query(self._table).with_index("by_name_shard", name=name)
        for shard in await query.collect():
            await ctx.db.delete(shard["_id"])
