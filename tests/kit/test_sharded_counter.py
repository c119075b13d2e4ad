"""Counters that many may change at once."""

from __future__ import annotations

import asyncio

import pytest

from reactive_store import MutationCtx, define_schema
from reactive_store.kit.sharded_counter import ShardedCounter, counter_tables
from reactive_store.testing import TestBackend

SCHEMA = define_schema(counter_tables())


async def test_names_count_for_themselves():
    counters = ShardedCounter(shards=4)

    async def work(ctx: MutationCtx) -> None:
        assert await counters.count(ctx, "a") == 0
        for _ in range(20):
            await counters.add(ctx, "a")
        await counters.add(ctx, "a", -2.5)
        await counters.add(ctx, "b", 7)
        assert await counters.count(ctx, "a") == 17.5
        assert await counters.count(ctx, "b") == 7
        assert len(await ctx.db.query("counters").collect()) <= 5
        await counters.reset(ctx, "a")
        assert await counters.count(ctx, "a") == 0
        assert await counters.count(ctx, "b") == 7

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)


async def test_changes_at_once_all_count_and_use_several_shards():
    counters = ShardedCounter()
    async with TestBackend(schema=SCHEMA) as t:
        await asyncio.gather(*(t.run(lambda ctx: counters.add(ctx, "a")) for _ in range(60)))
        assert await t.run(lambda ctx: counters.count(ctx, "a")) == 60

        async def shards(ctx: MutationCtx) -> int:
            return len(await ctx.db.query("counters").collect())

        assert 8 < await t.run(shards) <= 16


def test_a_counter_has_a_shard():
    with pytest.raises(ValueError, match="at least one shard"):
        ShardedCounter(shards=0)
