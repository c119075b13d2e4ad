"""Rate limits: how often something may happen, for everybody or for each user, address, key.

    limits = RateLimiter(
        {
            "send": TokenBucket(10, timedelta(minutes=1), capacity=20),
            "login": FixedWindow(5, timedelta(hours=1)),
        }
    )

    await limits.require(ctx, "send", key=user)          # raises ConvexError when it is too much
    status = await limits.limit(ctx, "login", key=ip)    # or tells

- What is used up is part of the transaction: a mutation that fails has used nothing, and two at the
  same time cannot both take the last one.
- A token bucket fills steadily; a fixed window fills by its whole rate at once when it begins.
- One document for each name and key, or for each of its shards. Nothing runs in the background.

The app declares the table: `define_schema({**rate_limit_tables(), …})`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from reactive_store import (
    ConvexError,
    Document,
    MutationCtx,
    QueryCtx,
    TableDefinition,
    define_table,
    v,
)

__all__ = ["FixedWindow", "RateLimitStatus", "RateLimiter", "TokenBucket", "rate_limit_tables"]

_TABLE: Final = "rateLimits"
_INDEX: Final = "by_name_key_shard"
_MILLISECOND: Final = timedelta(milliseconds=1)
_ROUNDING: Final = 1e-9  # what sums of fractions may lack


def rate_limit_tables(table: str = _TABLE) -> dict[str, TableDefinition]:
    """The table of all limits, to be merged into the schema."""
    fields = {
        "name": v.string(),
        "key": v.nullable(v.string()),
        "shard": v.number(),
        "value": v.number(),  # what may still be taken; below zero: reserved
        "at": v.number(),  # Unix milliseconds at which it was so; for a window, when it began
    }
    return {table: define_table(fields).index(_INDEX, ["name", "key", "shard"])}


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """`rate` per `period`, coming in steadily, up to `capacity` when nobody takes any.

    Shapes   capacity: as large as the rate when left out; may be smaller or larger
             shards: over how many documents it is spread, see `RateLimiter`
             max_reserved: how far `reserve=True` may go into the future's share; None: any
    Raises   ValueError for what is not above zero
    """

    rate: float
    period: timedelta
    capacity: float | None = None
    shards: int = 1
    max_reserved: float | None = None

    def __post_init__(self) -> None:
        _check(self.rate, self.period, self.capacity, self.shards, self.max_reserved)


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """`rate` at the beginning of each `period`; what is not taken is kept up to `capacity`.

    Shapes   start: when some window began, with a time zone; without it, a key's first window
             begins with its first use. Others as TokenBucket
    Raises   ValueError for what is not above zero
    """

    rate: float
    period: timedelta
    capacity: float | None = None
    shards: int = 1
    max_reserved: float | None = None
    start: datetime | None = None

    def __post_init__(self) -> None:
        _check(self.rate, self.period, self.capacity, self.shards, self.max_reserved)
        if self.start is not None and self.start.utcoffset() is None:
            raise ValueError("`start` needs a time zone: datetime(…, tzinfo=UTC)")


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """Whether it may happen, and if not now, when.

    Shapes   retry_after: when to ask again; with `ok`, only after a reservation: how long to wait
             before doing what was reserved
    """

    ok: bool
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class _Share:
    """What one document of a limit stands for, with the times as Unix milliseconds."""

    rate: float
    capacity: float
    period_ms: float
    reservable: float
    is_window: bool
    start_ms: float | None

    def level(self, stored: Document | None, now_ms: float) -> tuple[float, float]:
        """What may be taken now, and the time that belongs to it."""
        if stored is None:
            start_ms = now_ms
            if self.is_window and self.start_ms is not None:
                passed = math.floor((now_ms - self.start_ms) / self.period_ms)
                start_ms = self.start_ms + passed * self.period_ms
            return self.capacity if not self.is_window else min(self.rate, self.capacity), start_ms
        value, at_ms = stored["value"], stored["at"]
        # A clock that was set back takes nothing away.
        periods = max(0.0, (now_ms - at_ms) / self.period_ms)
        if self.is_window:
            periods = math.floor(periods)
            return min(self.capacity, value + periods * self.rate), at_ms + periods * self.period_ms
        return min(self.capacity, value + periods * self.rate), max(at_ms, now_ms)

    def wait_ms(self, missing: float, at_ms: float, now_ms: float) -> float:
        """How long until so much more has come."""
        periods = missing / self.rate
        if self.is_window:
            return at_ms + math.ceil(periods - _ROUNDING) * self.period_ms - now_ms
        return periods * self.period_ms


class RateLimiter:
    """The limits of an app, by name. Made once, at module level.

    A limit that everybody shares may be spread over shards, each with its part of rate and
    capacity: a call looks at two of them by chance and takes from the fuller one. So calls conflict
    rarely, and the limit may say no a little before all is used up.

    Shapes   key: whom a limit counts for; None: everybody together. count: how much is taken
    Cost     a point read and a write per shard looked at
    Raises   LookupError for a name there is no limit of; ValueError for a count that no waiting
             could ever satisfy
    """

    def __init__(
        self, limits: Mapping[str, TokenBucket | FixedWindow], *, table: str = _TABLE
    ) -> None:
        self._limits = dict(limits)
        self._shares = {name: _share(limit) for name, limit in limits.items()}
        self._table = table

    async def limit(
        self,
        ctx: MutationCtx,
        name: str,
        *,
        key: str | None = None,
        count: float = 1,
        reserve: bool = False,
    ) -> RateLimitStatus:
        """Take `count`, if there is so much; else nothing is taken.

        Shapes   reserve: take it from what is to come; the answer is `ok` with `retry_after`, and
                 the caller does what it asked for only then, say by the scheduler
        """
        status, found = await self._look(ctx, name, key, count, reserve=reserve)
        if status.ok:
            stored = {"name": name, "key": key, "shard": found.shard, "at": found.at_ms}
            stored["value"] = found.value - count
            if found.document is None:
                await ctx.db.insert(self._table, stored)
            else:
                await ctx.db.replace(found.document["_id"], stored)
        return status

    async def require(
        self,
        ctx: MutationCtx,
        name: str,
        *,
        key: str | None = None,
        count: float = 1,
        reserve: bool = False,
    ) -> RateLimitStatus:
        """As `limit`, and what is refused ends the mutation.

        Raises   ConvexError with {"kind": "RateLimited", "name", "retryAfter" in milliseconds}
        """
        status = await self.limit(ctx, name, key=key, count=count, reserve=reserve)
        if not status.ok:
            wait = status.retry_after or timedelta()
            retry_after = math.ceil(wait / _MILLISECOND)
            raise ConvexError({"kind": "RateLimited", "name": name, "retryAfter": retry_after})
        return status

    async def check(
        self,
        ctx: QueryCtx,
        name: str,
        *,
        key: str | None = None,
        count: float = 1,
        reserve: bool = False,
    ) -> RateLimitStatus:
        """What `limit` would answer, without taking anything."""
        status, _ = await self._look(ctx, name, key, count, reserve=reserve)
        return status

    async def value(self, ctx: QueryCtx, name: str, *, key: str | None = None) -> float:
        """How much could be taken at `ctx.now`, of all shards together. Reads all of them."""
        limit, share = self._limit(name), self._shares[name]
        levels = [
            share.level(await self._stored(ctx, name, key, shard), ctx.now)[0]
            for shard in range(limit.shards)
        ]
        return sum(levels)

    async def reset(self, ctx: MutationCtx, name: str, *, key: str | None = None) -> None:
        """Forget what was taken, and what was reserved."""
        self._limit(name)
        for each in (
            await ctx.db.query(self._table).with_index(_INDEX, name=name, key=key).collect()
        ):
            await ctx.db.delete(each["_id"])

    def _limit(self, name: str) -> TokenBucket | FixedWindow:
        if name not in self._limits:
            raise LookupError(f"there is no rate limit {name!r}: {', '.join(sorted(self._limits))}")
        return self._limits[name]

    async def _look(
        self, ctx: QueryCtx, name: str, key: str | None, count: float, *, reserve: bool
    ) -> tuple[RateLimitStatus, _Found]:
        limit, share = self._limit(name), self._shares[name]
        if count < 0:
            raise ValueError(f"a rate limit cannot be given back by a negative count, {count}")
        reservable = share.reservable if reserve else 0.0
        if count > share.capacity + reservable:
            raise ValueError(
                f"rate limit {name!r} never allows {count:g} at once: a shard holds "
                f"{share.capacity:g} at most"
            )
        shards = range(limit.shards)
        looked_at = shards if limit.shards < 3 else ctx.random.sample(shards, 2)
        best: _Found | None = None
        for shard in looked_at:
            document = await self._stored(ctx, name, key, shard)
            value, at_ms = share.level(document, ctx.now)
            if best is None or value > best.value:
                best = _Found(document, shard, value, at_ms)
        assert best is not None
        missing = count - best.value
        if missing <= _ROUNDING:
            return RateLimitStatus(True), best
        wait = max(0.0, share.wait_ms(missing, best.at_ms, ctx.now)) * _MILLISECOND
        if reserve and missing <= reservable + _ROUNDING:
            return RateLimitStatus(True, wait), best
        return RateLimitStatus(False, wait), best

    async def _stored(
        self, ctx: QueryCtx, name: str, key: str | None, shard: int
    ) -> Document | None:
        query = ctx.db.query(self._table).with_index(_INDEX, name=name, key=key, shard=shard)
        return await query.unique()


@dataclass(frozen=True, slots=True)
class _Found:
    """The document that a limit would be taken from, as it stands now."""

    document: Document | None
    shard: int
    value: float
    at_ms: float


def _share(limit: TokenBucket | FixedWindow) -> _Share:
    """What each shard stands for."""
    capacity = limit.rate if limit.capacity is None else limit.capacity
    reservable = math.inf if limit.max_reserved is None else limit.max_reserved
    start = limit.start if isinstance(limit, FixedWindow) else None
    return _Share(
        limit.rate / limit.shards,
        capacity / limit.shards,
        limit.period / _MILLISECOND,
        reservable / limit.shards,
        isinstance(limit, FixedWindow),
        None if start is None else start.timestamp() * 1e3,
    )


def _check(
    rate: float, period: timedelta, capacity: float | None, shards: int, reserved: float | None
) -> None:
    if not isinstance(period, timedelta):
        raise TypeError(f"a period is a timedelta, such as timedelta(minutes=1), not {period!r}")
    if rate <= 0 or period <= timedelta() or (capacity is not None and capacity <= 0):
        raise ValueError("rate, period and capacity of a rate limit are above zero")
    if shards < 1 or (reserved is not None and reserved < 0):
        raise ValueError("a rate limit has at least one shard, and reserves nothing below zero")
