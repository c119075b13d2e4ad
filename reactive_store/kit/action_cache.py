"""A cache of what an action answers: by its arguments, for some time.

    embeddings = ActionCache("embeddings", embed, ttl=timedelta(days=30))
    embeddings_entry, embeddings_write = embeddings.functions      # in a module of functions/

    vector = await embeddings.fetch(ctx, {"text": text})           # in an action

- The first call with some arguments runs the action; later ones get its answer until the time is
  up. Calls that come while it runs wait for it, and share its answer or its exception.
- Answers are documents, so they survive a restart. Each removes itself when its time is up.

The app declares the table: `define_schema({**action_cache_tables(), …})`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from reactive_store import (
    UNSET,
    ActionCtx,
    Document,
    Int64,
    MutationCtx,
    QueryCtx,
    TableDefinition,
    define_table,
    internal_mutation,
    internal_query,
    v,
)

__all__ = ["ActionCache", "action_cache_tables"]

_TABLE: Final = "actionCache"
_BY_KEY: Final = "by_name_key"
_MILLISECOND: Final = timedelta(milliseconds=1)
_SAME_INSTANT_MS: Final = 1.0  # times are rounded when they become scheduled ones
_REMOVED_AT_ONCE: Final = 500


def action_cache_tables() -> dict[str, TableDefinition]:
    """The table of all caches, to be merged into the schema."""
    fields = {
        "name": v.string(),
        "key": v.string(),  # a hash of the arguments
        "value": v.any(),
        "expiresAt": v.nullable(v.number()),  # Unix milliseconds
    }
    return {_TABLE: define_table(fields).index(_BY_KEY, ["name", "key"])}


class ActionCache:
    """The answers of one action. Made once, at module level.

    Shapes   name: what its documents call it; a new name is an empty cache, say for a new version
             function: a reference to an action. ttl: how long an answer counts; None: for ever
    """

    def __init__(self, name: str, function: object, *, ttl: timedelta | None = None) -> None:
        self._name = name
        self._function = function
        self._ttl_ms = None if ttl is None else ttl / _MILLISECOND
        self._under_way: dict[str, asyncio.Future[Any]] = {}

        async def entry(ctx: QueryCtx, key: str) -> dict[str, Any] | None:
            found = await self._stored(ctx, key)
            return None if found is None else {"value": found["value"], "at": found["expiresAt"]}

        async def write(
            ctx: MutationCtx,
            key: str | None = None,
            answer: dict[str, Any] | None = None,
            expired: bool = False,
        ) -> None:
            if answer is not None and key is not None:
                await self._store(ctx, key, answer["value"])
            elif expired and key is not None:
                await self._remove_expired(ctx, key)
            else:
                await self._remove(ctx, key)

        entry.__name__, write.__name__ = f"{name}_entry", f"{name}_write"
        self._entry = internal_query(entry)
        self._write = internal_mutation(write)
        self.functions = self._entry, self._write
        """The internal functions that read and write it. `cache_entry, cache_write =
        cache.functions` in a module of functions/ makes them part of the app."""

    async def fetch(
        self, ctx: ActionCtx, args: Mapping[str, Any] | None = None, *, force: bool = False
    ) -> Any:
        """The action's answer, from the cache if it is there.

        Shapes   force: run it anyway, and keep the new answer
        Cost     a query; the action and a mutation where it is missing
        Raises   what the action raises; that is not kept
        """
        given = {name: value for name, value in (args or {}).items() if value is not UNSET}
        key = _key(given)
        if not force:
            found = await ctx.run_query(self._entry, key=key)
            if found is not None and not _is_over(found["at"], ctx.now):
                return found["value"]
        running = self._under_way.get(key)
        if running is not None:
            # Shielded: whoever waits may leave without taking the answer from the others.
            return await asyncio.shield(running)
        future = self._under_way[key] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look_at)
        try:
            value = await ctx.run_action(self._function, **given)
            await ctx.run_mutation(self._write, key=key, answer={"value": value})
        except asyncio.CancelledError:
            future.set_exception(RuntimeError("the action that all waited for was interrupted"))
            raise
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(value)
            return value
        finally:
            del self._under_way[key]

    async def remove(self, ctx: MutationCtx, args: Mapping[str, Any] | None = None) -> None:
        """Forget the answer to these arguments."""
        await self._remove(ctx, _key(args or {}))

    async def clear(self, ctx: MutationCtx) -> None:
        """Forget all answers: 500 at once, the rest by a scheduled function."""
        await self._remove(ctx, None)

    async def _stored(self, ctx: QueryCtx, key: str) -> Document | None:
        return await ctx.db.query(_TABLE).with_index(_BY_KEY, name=self._name, key=key).unique()

    async def _store(self, ctx: MutationCtx, key: str, value: Any) -> None:
        found = await self._stored(ctx, key)
        expires_at = None if self._ttl_ms is None else ctx.now + self._ttl_ms
        entry = {"name": self._name, "key": key, "value": value, "expiresAt": expires_at}
        if found is None:
            await ctx.db.insert(_TABLE, entry)
        else:
            await ctx.db.replace(found["_id"], entry)
        if self._ttl_ms is not None:
            delay = self._ttl_ms * _MILLISECOND
            await ctx.scheduler.run_after(delay, self._write, key=key, expired=True)

    async def _remove_expired(self, ctx: MutationCtx, key: str) -> None:
        found = await self._stored(ctx, key)
        # A newer answer has a function of its own that will come for it.
        if found is not None and _is_over(found["expiresAt"], ctx.now):
            await ctx.db.delete(found["_id"])

    async def _remove(self, ctx: MutationCtx, key: str | None) -> None:
        equal = {"name": self._name} if key is None else {"name": self._name, "key": key}
        found = await ctx.db.query(_TABLE).with_index(_BY_KEY, **equal).take(_REMOVED_AT_ONCE)
        for each in found:
            await ctx.db.delete(each["_id"])
        if len(found) == _REMOVED_AT_ONCE:
            await ctx.scheduler.run_after(timedelta(), self._write)


def _is_over(expires_at: float | None, now_ms: float) -> bool:
    return expires_at is not None and expires_at <= now_ms + _SAME_INSTANT_MS


def _key(args: Mapping[str, Any]) -> str:
    """A name for some arguments, whatever their order."""
    text = json.dumps(_shown(args), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _shown(value: Any) -> Any:
    """Values as JSON that tells different ones apart."""
    if isinstance(value, Mapping):
        return {name: _shown(part) for name, part in value.items() if part is not UNSET}
    if isinstance(value, list | tuple):
        return [_shown(part) for part in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": bytes(value).hex()}
    if isinstance(value, Int64):
        return {"$int64": str(int(value))}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value


def _look_at(future: asyncio.Future[Any]) -> None:
    """Nobody may wait for it; its exception goes to the caller in any case."""
    if not future.cancelled():
        future.exception()
