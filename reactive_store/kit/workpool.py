"""Work pools: queues whose actions and mutations run so many at a time, with retries.

    pool = Workpool("mail", max_parallelism=4)
    mail_turn, mail_act = pool.functions          # in a module of functions/: gives them paths

    @mutation
    async def invite(ctx: MutationCtx, address: str) -> str:
        return await pool.enqueue_action(ctx, send_mail, {"to": address}, retry=True)

- Enqueueing is part of the mutation's transaction. Everything is kept in documents: a restart
  loses nothing.
- A mutation runs exactly once. An action that fails, or that a restart interrupts, runs again if it
  was enqueued with `retry`, after a pause that doubles and has some chance in it; so it may run
  more than once, and should do no harm by it. Without `retry` it runs at most once.
- `on_complete` is a mutation that is scheduled in the commit that ends the work, so it runs exactly
  once, however the work ended.

How it works: one mutation, the turn, starts what is due, as far as there is room, and schedules the
next turn for when something is to be done: work that becomes due, a look after running actions, a
record to forget. Work that ends asks for a turn at once. An action that did not tell of its end
is found by its scheduled function, which has ended then.

Invariants: at most `max_parallelism` items are "running"; at most one turn is scheduled.

The app declares the tables: `define_schema({**workpool_tables(), …})`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from reactive_store import (
    ActionCtx,
    ConvexError,
    Document,
    Id,
    MutationCtx,
    QueryCtx,
    TableDefinition,
    create_function_handle,
    define_table,
    internal_action,
    internal_mutation,
    v,
)

__all__ = ["RetryPolicy", "Workpool", "failure_of", "workpool_tables"]

_LOG = logging.getLogger(__name__)

_ITEMS: Final = "workpoolItems"
_POOLS: Final = "workpools"
_BY_STATE: Final = "by_pool_state"
_BY_NAME: Final = "by_name"

_MILLISECOND: Final = timedelta(milliseconds=1)
_SAME_INSTANT_MS: Final = 1.0  # times are rounded when they become scheduled ones
_PER_TURN: Final = 100  # items started or forgotten by one turn
_ALIVE: Final = frozenset(("pending", "inProgress"))


def workpool_tables() -> dict[str, TableDefinition]:
    """The tables of all pools, to be merged into the schema."""
    items = {
        "pool": v.string(),
        "state": v.literals("waiting", "running", "finished"),
        # Unix milliseconds: when it is due, is to be looked after, has ended.
        "at": v.number(),
        "kind": v.literals("action", "mutation"),
        "function": v.string(),
        "args": v.any(),
        "attempt": v.number(),  # the one that runs or ran last, from 1
        "retry": v.nullable(
            v.object({"maxAttempts": v.number(), "firstPauseMs": v.number(), "factor": v.number()})
        ),
        "onComplete": v.nullable(v.string()),
        "context": v.any(),
        "job": v.nullable(v.string()),  # the scheduled function that runs it
        "result": v.any(),
    }
    pools = {"name": v.string(), "job": v.nullable(v.string()), "at": v.number()}
    return {
        _ITEMS: define_table(items).index(_BY_STATE, ["pool", "state", "at"]),
        _POOLS: define_table(pools).index(_BY_NAME, ["name"]),
    }


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an action is tried, and how long the pauses are.

    The pause after attempt n is `first_pause * factor ** (n - 1)`, times something between a half
    and one and a half by chance.

    Raises   ValueError for less than one attempt, or a factor below one
    """

    max_attempts: int = 5
    first_pause: timedelta = timedelta(milliseconds=250)
    factor: float = 2

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.factor < 1 or self.first_pause < timedelta():
            raise ValueError("a retry policy has attempts, no negative pause, a factor from one on")

    def stored(self) -> dict[str, float]:
        """As it is kept with the work."""
        return {
            "maxAttempts": self.max_attempts,
            "firstPauseMs": self.first_pause / _MILLISECOND,
            "factor": self.factor,
        }


def failure_of(error: Exception) -> dict[str, Any]:
    """The result {kind: "failed", error, data?} that tells of an exception."""
    if isinstance(error, ConvexError):
        return {"kind": "failed", "error": str(error), "data": error.data}
    text = str(error)
    name = type(error).__name__
    return {"kind": "failed", "error": f"{name}: {text}" if text else name}


class Workpool:
    """One queue. Made once, at module level; `functions` get their paths in a module of the app.

    Shapes   name: what the documents call it; no two pools of an app share one
             max_parallelism: how many items run at a time
             retry: what `retry=True` means
             check_every: how soon after a restart, at the latest, interrupted actions are found
             keep: how long `status` knows how an item ended
             results, as `on_complete` and `status` tell them:
             {"kind": "success", "returnValue": …}, {"kind": "failed", "error": text, "data"?: of a
             ConvexError}, {"kind": "canceled"}
    """

    def __init__(
        self,
        name: str,
        *,
        max_parallelism: int = 10,
        retry: RetryPolicy | None = None,
        check_every: timedelta = timedelta(seconds=30),
        keep: timedelta = timedelta(days=1),
    ) -> None:
        if max_parallelism < 1:
            raise ValueError(f"a pool runs at least one item at a time, not {max_parallelism}")
        self._name = name
        self._max_parallelism = max_parallelism
        self._retry = retry or RetryPolicy()
        self._check_ms = check_every / _MILLISECOND
        self._keep_ms = keep / _MILLISECOND

        async def turn(
            ctx: MutationCtx,
            item: str | None = None,
            attempt: float = 0,
            result: dict[str, Any] | None = None,
        ) -> None:
            if item is None:
                await self._turn(ctx)
            elif result is None:
                await self._run_mutation(ctx, item, attempt)
            else:
                await self._end(ctx, item, attempt, result)

        async def act(
            ctx: ActionCtx, item: str, attempt: float, function: str, args: dict[str, Any]
        ) -> None:
            told = {"item": item, "attempt": attempt}
            try:
                value = await ctx.run_action(function, **args)
                result = {"kind": "success", "returnValue": value}
                await ctx.run_mutation(self._turn_function, **told, result=result)
            except Exception as error:  # noqa: BLE001 - the app's code, or an answer too large to keep
                await ctx.run_mutation(self._turn_function, **told, result=failure_of(error))

        # A name of their own: functions of one file are told apart by it.
        turn.__name__, act.__name__ = f"{name}_turn", f"{name}_act"
        self._turn_function = internal_mutation(turn)
        self._act_function = internal_action(act)
        self.functions = self._turn_function, self._act_function
        """The internal functions that do the work. `mail_turn, mail_act = pool.functions` in a
        module of functions/ makes them part of the app; the names are not to be changed while work
        is under way."""

    async def enqueue_action(
        self,
        ctx: MutationCtx,
        function: object,
        args: Mapping[str, Any] | None = None,
        *,
        retry: bool | RetryPolicy = False,
        on_complete: object = None,
        context: Any = None,
        delay: timedelta = timedelta(),
    ) -> Id:
        """Have an action run.

        Shapes   function: a reference. on_complete: a reference to a mutation that takes `work_id`,
                 `result` and `context`. delay: how long to wait at least
        Returns  the id of the work, for `status` and `cancel`
        """
        policy = self._retry if retry is True else retry or None
        stored = None if policy is None else policy.stored()
        return await self._enqueue(
            ctx, "action", function, args, stored, on_complete, context, delay
        )

    async def enqueue_mutation(
        self,
        ctx: MutationCtx,
        function: object,
        args: Mapping[str, Any] | None = None,
        *,
        on_complete: object = None,
        context: Any = None,
        delay: timedelta = timedelta(),
    ) -> Id:
        """Have a mutation run, once. Otherwise as `enqueue_action`."""
        return await self._enqueue(
            ctx, "mutation", function, args, None, on_complete, context, delay
        )

    async def status(self, ctx: QueryCtx, work_id: str) -> dict[str, Any] | None:
        """How far some work is; None when nothing is known of it any more.

        Shapes   {"state": "waiting", "running" or "finished", "attempts": begun so far,
                 "result": see above; None until it has finished}
        """
        item = await ctx.db.get(_ITEMS, work_id)
        if item is None:
            return None
        return {"state": item["state"], "attempts": item["attempt"], "result": item["result"]}

    async def cancel(self, ctx: MutationCtx, work_id: str) -> bool:
        """End some work as canceled; False when it had ended. `on_complete` is told.

        An action that runs goes on, and what comes of it is ignored.
        """
        item = await ctx.db.get(_ITEMS, work_id)
        if item is None or item["state"] == "finished":
            return False
        # A mutation sees by itself that it is not wanted any more; and may be the one that asks.
        if item["kind"] == "action" and item["job"] is not None:
            await ctx.scheduler.cancel(item["job"])
        await self._finish(ctx, item, {"kind": "canceled"})
        return True

    async def _enqueue(
        self,
        ctx: MutationCtx,
        kind: Literal["action", "mutation"],
        function: object,
        args: Mapping[str, Any] | None,
        retry: Mapping[str, float] | None,
        on_complete: object,
        context: Any,
        delay: timedelta,
    ) -> Id:
        at_ms = ctx.now + delay / _MILLISECOND
        done = None if on_complete is None else create_function_handle(on_complete)
        work_id = await ctx.db.insert(
            _ITEMS,
            {
                "pool": self._name,
                "state": "waiting",
                "at": at_ms,
                "kind": kind,
                "function": create_function_handle(function),
                "args": dict(args or {}),
                "attempt": 0,
                "retry": retry,
                "onComplete": done,
                "context": context,
                "job": None,
                "result": None,
            },
        )
        await self._ask_for_turn(ctx, at_ms)
        return work_id

    async def _ask_for_turn(self, ctx: MutationCtx, at_ms: float) -> None:
        """See to it that a turn comes at a time, or before."""
        pool = await ctx.db.query(_POOLS).with_index(_BY_NAME, name=self._name).unique()
        if pool is not None and pool["job"] is not None:
            job = await ctx.db.system.get(pool["job"])
            # One that failed, say because a version without this pool was deployed, counts nothing.
            if job is not None and job["state"]["kind"] in _ALIVE:
                if pool["at"] <= at_ms:
                    return
                await ctx.scheduler.cancel(pool["job"])
        await self._schedule_turn(ctx, pool, at_ms)

    async def _schedule_turn(
        self, ctx: MutationCtx, pool: Document | None, at_ms: float | None
    ) -> None:
        job = None
        if at_ms is not None:
            delay = max(0.0, at_ms - ctx.now) * _MILLISECOND
            job = await ctx.scheduler.run_after(delay, self._turn_function)
        planned = {"name": self._name, "job": job, "at": at_ms or 0}
        if pool is None:
            await ctx.db.insert(_POOLS, planned)
        else:
            await ctx.db.replace(pool["_id"], planned)

    async def _turn(self, ctx: MutationCtx) -> None:
        """Do what is to be done now, and plan the next turn."""
        pool = await ctx.db.query(_POOLS).with_index(_BY_NAME, name=self._name).unique()
        if pool is not None:
            await ctx.db.patch(pool["_id"], {"job": None})  # this one; it cannot be canceled
        now = ctx.now + _SAME_INSTANT_MS
        running = await self._in_state(ctx, "running").collect()
        alive = [each for each in running if await self._look_after(ctx, each, now)]
        room = self._max_parallelism - len(alive)
        started = 0
        for item in await self._in_state(ctx, "waiting").take(min(room, _PER_TURN)):
            if item["at"] > now:
                break
            await self._start(ctx, item)
            started += 1
        forgotten = 0
        next_ms: float | None = None  # when there is something to do again
        async for item in self._in_state(ctx, "finished"):
            if item["at"] + self._keep_ms > now or forgotten == _PER_TURN:
                next_ms = item["at"] + self._keep_ms
                break
            await ctx.db.delete(item["_id"])
            forgotten += 1
        times: list[float] = [] if next_ms is None else [next_ms]
        waiting = await self._in_state(ctx, "waiting").first() if room > started else None
        if waiting is not None:
            times.append(waiting["at"])
        if (item_ := await self._in_state(ctx, "running").first()) is not None:
            times.append(item_["at"])
        # What happened above may have asked for a turn already.
        pool = await ctx.db.query(_POOLS).with_index(_BY_NAME, name=self._name).unique()
        if times and pool is not None and pool["job"] is not None:
            await self._ask_for_turn(ctx, min(times))
        elif pool is None or pool["job"] is None:
            await self._schedule_turn(ctx, pool, min(times, default=None))

    def _in_state(self, ctx: QueryCtx, state: str) -> Any:
        return ctx.db.query(_ITEMS).with_index(_BY_STATE, pool=self._name, state=state)

    async def _look_after(self, ctx: MutationCtx, item: Document, now: float) -> bool:
        """Whether an item runs; what ended without a word, in a crash say, is ended here."""
        if item["at"] > now:
            return True
        job = await ctx.db.system.get(item["job"])
        if job is not None and job["state"]["kind"] in _ALIVE:
            await ctx.db.patch(item["_id"], {"at": ctx.now + self._check_ms})
            return True
        error = "the scheduled function is gone" if job is None else job["state"].get("error")
        result = {"kind": "failed", "error": (error or "it told nothing of its end").strip()}
        await self._settle(ctx, item, result)
        return False

    async def _start(self, ctx: MutationCtx, item: Document) -> None:
        attempt = item["attempt"] + 1
        named = {"item": item["_id"], "attempt": attempt}
        if item["kind"] == "action":
            job = await ctx.scheduler.run_after(
                timedelta(),
                self._act_function,
                **named,
                function=item["function"],
                args=item["args"],
            )
        else:
            job = await ctx.scheduler.run_after(timedelta(), self._turn_function, **named)
        changes = {"state": "running", "at": ctx.now + self._check_ms, "attempt": attempt}
        await ctx.db.patch(item["_id"], {**changes, "job": job})

    async def _run_mutation(self, ctx: MutationCtx, work_id: str, attempt: float) -> None:
        item = await self._running(ctx, work_id, attempt)
        if item is None:
            return
        try:
            value = await ctx.run_mutation(item["function"], **item["args"])
        except Exception as error:  # noqa: BLE001 - what it wrote is undone; the failure is kept
            result = failure_of(error)
        else:
            result = {"kind": "success", "returnValue": value}
        # It may have ended itself, say by canceling.
        await self._end(ctx, work_id, attempt, result)

    async def _end(
        self, ctx: MutationCtx, work_id: str, attempt: float, result: dict[str, Any]
    ) -> None:
        item = await self._running(ctx, work_id, attempt)
        if item is not None:
            await self._settle(ctx, item, result)

    async def _running(self, ctx: QueryCtx, work_id: str, attempt: float) -> Document | None:
        """The item, unless that attempt is not the one that counts any more."""
        item = await ctx.db.get(_ITEMS, work_id)
        if item is None or item["state"] != "running" or item["attempt"] != attempt:
            return None
        return item

    async def _settle(self, ctx: MutationCtx, item: Document, result: dict[str, Any]) -> None:
        """An attempt has ended: it is the end of the item, or there will be another one."""
        retry = item["retry"]
        attempt = item["attempt"]
        if result["kind"] == "success" or retry is None or attempt >= retry["maxAttempts"]:
            await self._finish(ctx, item, result)
            return
        pause_ms = retry["firstPauseMs"] * retry["factor"] ** (attempt - 1)
        at_ms = ctx.now + pause_ms * (0.5 + ctx.random.random())
        await ctx.db.patch(item["_id"], {"state": "waiting", "at": at_ms, "job": None})
        # Its place is free now, so the turn comes at once.
        await self._ask_for_turn(ctx, ctx.now)

    async def _finish(self, ctx: MutationCtx, item: Document, result: dict[str, Any]) -> None:
        changes = {"state": "finished", "at": ctx.now, "job": None, "result": result}
        await ctx.db.patch(item["_id"], changes)
        if item["onComplete"] is not None:
            told = {"work_id": item["_id"], "result": result, "context": item["context"]}
            try:
                await ctx.scheduler.run_after(timedelta(), item["onComplete"], **told)
            except Exception:  # noqa: BLE001 - a function that is gone must not stop the queue
                _LOG.exception("on_complete cannot be scheduled pool=%s", self._name)
        await self._ask_for_turn(ctx, ctx.now)
