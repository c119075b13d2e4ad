"""How often something may happen."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_store import ConvexError, MutationCtx, define_schema
from reactive_store.kit.rate_limit import (
    FixedWindow,
    RateLimiter,
    RateLimitStatus,
    TokenBucket,
    rate_limit_tables,
)
from reactive_store.testing import TestBackend

SCHEMA = define_schema(rate_limit_tables())
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


class Limited:
    """A backend with the limit "x"."""

    def __init__(self, limit: TokenBucket | FixedWindow) -> None:
        self.limits = RateLimiter({"x": limit})
        self.t = TestBackend(schema=SCHEMA)

    async def __aenter__(self) -> Self:
        await self.t.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.t.__aexit__(None, None, None)

    async def take(self, count: float = 1, **options: Any) -> RateLimitStatus:
        return await self.t.run(lambda ctx: self.limits.limit(ctx, "x", count=count, **options))

    async def value(self, **options: Any) -> float:
        return await self.t.run(lambda ctx: self.limits.value(ctx, "x", **options))


async def test_a_bucket_fills_steadily_up_to_its_capacity():
    async with Limited(TokenBucket(6, MINUTE, capacity=3)) as x:
        assert [(await x.take()).ok for _ in range(3)] == [True, True, True]
        assert await x.take() == RateLimitStatus(False, timedelta(seconds=10))
        await x.t.advance(timedelta(seconds=4))
        assert await x.take() == RateLimitStatus(False, timedelta(seconds=6))
        await x.t.advance(timedelta(seconds=6))
        assert (await x.take()).ok
        assert not (await x.take()).ok
        await x.t.advance(timedelta(hours=1))
        assert await x.value() == 3
        assert await x.take(3) == RateLimitStatus(True)


async def test_a_window_fills_when_it_begins():
    async with Limited(FixedWindow(2, MINUTE)) as x:
        await x.take(2)
        await x.t.advance(timedelta(seconds=59))
        assert await x.take() == RateLimitStatus(False, SECOND)
        await x.t.advance(SECOND)
        assert (await x.take(2)).ok
        assert await x.take() == RateLimitStatus(False, MINUTE)


async def test_a_window_keeps_what_was_not_taken_up_to_its_capacity():
    async with Limited(FixedWindow(2, MINUTE, capacity=5)) as x:
        assert await x.value() == 2
        await x.take(1)
        await x.t.advance(MINUTE)
        assert await x.value() == 3
        await x.t.advance(10 * MINUTE)
        assert await x.value() == 5
        await x.take(5)
        # Three more take two windows.
        assert await x.take(3) == RateLimitStatus(False, 2 * MINUTE)


async def test_windows_may_begin_by_the_clock():
    start = datetime(2024, 1, 1, 0, 0, 20, tzinfo=UTC)
    async with Limited(FixedWindow(1, MINUTE, start=start)) as x:
        await x.take()  # at 00:00:00
        assert await x.take() == RateLimitStatus(False, timedelta(seconds=20))


async def test_keys_count_for_themselves_and_reset_forgets():
    async with Limited(TokenBucket(1, MINUTE)) as x:
        for key in (None, "ann", "bob"):
            assert (await x.take(key=key)).ok
            assert not (await x.take(key=key)).ok
        await x.t.run(lambda ctx: x.limits.reset(ctx, "x", key="ann"))
        assert (await x.take(key="ann")).ok
        assert not (await x.take(key="bob")).ok
        assert not (await x.take()).ok


async def test_what_is_refused_says_when_and_a_failed_mutation_takes_nothing():
    async with Limited(TokenBucket(2, MINUTE)) as x:

        async def twice(ctx: MutationCtx, times: int) -> None:
            for _ in range(times):
                await x.limits.require(ctx, "x")

        with pytest.raises(ConvexError) as refused:
            await x.t.run(lambda ctx: twice(ctx, 3))
        assert refused.value.data == {"kind": "RateLimited", "name": "x", "retryAfter": 30_000}
        await x.t.run(lambda ctx: twice(ctx, 2))  # nothing was taken before


async def test_checking_takes_nothing():
    async with Limited(TokenBucket(1, MINUTE)) as x:

        async def look(ctx: MutationCtx) -> RateLimitStatus:
            return await x.limits.check(ctx, "x")

        assert await x.t.run(look) == RateLimitStatus(True)
        assert (await x.take()).ok
        assert await x.t.run(look) == RateLimitStatus(False, MINUTE)


async def test_a_reservation_takes_from_what_is_to_come():
    async with Limited(TokenBucket(6, MINUTE, capacity=1, max_reserved=2)) as x:
        answers = [await x.take(reserve=True) for _ in range(4)]
        waits = [None, timedelta(seconds=10), timedelta(seconds=20)]
        assert answers[:3] == [RateLimitStatus(True, wait) for wait in waits]
        assert not answers[3].ok
        await x.t.advance(timedelta(seconds=20))
        assert not (await x.take()).ok  # those belong to the reservations
        await x.t.advance(timedelta(seconds=10))
        assert (await x.take()).ok


async def test_calls_at_once_never_get_more_than_there_is():
    async with Limited(TokenBucket(5, MINUTE)) as x:
        answers = await asyncio.gather(*(x.take() for _ in range(20)))
        assert sum(each.ok for each in answers) == 5


async def test_shards_share_the_limit():
    async with Limited(TokenBucket(100, MINUTE, shards=10)) as x:
        answers = await asyncio.gather(*(x.take() for _ in range(60)))
        assert sum(each.ok for each in answers) > 50
        taken = 100 - await x.value()
        assert taken == sum(each.ok for each in answers)

        async def shards(ctx: MutationCtx) -> int:
            return len(await ctx.db.query("rateLimits").collect())

        assert await x.t.run(shards) > 5
        for _ in range(200):
            await x.take()
        assert 0 <= await x.value() < 20


async def test_mistakes_are_named():
    with pytest.raises(TypeError, match="timedelta"):
        TokenBucket(1, 60)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="above zero"):
        FixedWindow(0, MINUTE)
    with pytest.raises(ValueError, match="at least one shard"):
        TokenBucket(1, MINUTE, shards=0)
    with pytest.raises(ValueError, match="time zone"):
        FixedWindow(1, MINUTE, start=datetime(2025, 1, 1))  # noqa: DTZ001
    async with Limited(TokenBucket(4, MINUTE, shards=2)) as x:
        with pytest.raises(ValueError, match="never allows 3"):
            await x.take(3)
        with pytest.raises(ValueError, match="negative"):
            await x.take(-1)

        async def unknown(ctx: MutationCtx) -> None:
            await x.limits.limit(ctx, "y")

        with pytest.raises(LookupError, match="no rate limit 'y'"):
            await x.t.run(unknown)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 4)), max_size=25),
    is_window=st.booleans(),
)
def test_never_more_than_the_capacity_and_what_came_in(
    steps: list[tuple[int, int]], is_window: bool
):
    """Over any stretch of time: at most what it holds at first and what comes in meanwhile."""

    async def run() -> None:
        kind: Any = FixedWindow if is_window else TokenBucket
        async with Limited(kind(4, MINUTE)) as x:
            taken: list[tuple[float, int]] = []
            for seconds, count in steps:
                await x.t.advance(timedelta(seconds=seconds))
                status = await x.take(count)
                if status.ok:
                    taken.append((x.t.now_ms, count))
                else:
                    assert status.retry_after is not None
                    await x.t.advance(status.retry_after + timedelta(milliseconds=1))
                    assert (await x.take(count)).ok  # the promise holds
                    taken.append((x.t.now_ms, count))
            for first in range(len(taken)):
                total = 0
                for at_ms, count in taken[first:]:
                    total += count
                    periods = (at_ms - taken[first][0]) / 60_000
                    assert total <= 4 + 4 * (int(periods) + 1 if is_window else periods) + 1e-6

    asyncio.run(run())
