"""Workflows: functions of many steps that survive restarts and may take months.

    pool = Workpool("work")
    work_turn, work_act = pool.functions
    flows = Workflows("flows", pool)
    flows_turn = flows.function                   # in a module of functions/: gives it a path

    @flows.define
    async def onboard(step: Step, user: str) -> str:
        mail = await step.run_action(internal.mail.write, user=user)
        await asyncio.gather(
            step.run_action(internal.mail.send, True, mail=mail),
            step.run_mutation(internal.users.mark, user=user),
        )
        await step.sleep(timedelta(days=7))
        return await step.wait_event("answered")

    @mutation
    async def join(ctx: MutationCtx, user: str) -> Id["workflows"]:
        return await flows.start(ctx, onboard, {"user": user})

How it works: each call of `step` is a numbered entry of the workflow's journal. Whenever a step has
ended, a mutation, the turn, runs the handler from its beginning; steps that the journal knows give
their results again, and where the handler asks for a new one, that is begun. The results are given
in the order in which they came, each once the handler waits for nothing else: so a handler makes
the same calls in the same order every time, parallel ones included.

A handler must do the same every time it runs: it waits only for its steps (and `asyncio.gather`,
TaskGroup, `asyncio.wait` over them), and everything from outside comes through steps.

Invariants: a step's beginning, and its end with what the handler does next, are one commit each; a
query or mutation is a step exactly once; an action at most once, or at least once with retries.

The app declares the tables: `define_schema({**workflow_tables(), **workpool_tables(), …})`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from reactive_store import (
    UNSET,
    ConvexError,
    Document,
    Id,
    MutationCtx,
    QueryCtx,
    TableDefinition,
    create_function_handle,
    define_table,
    internal_mutation,
    v,
)
from reactive_store.kit.workpool import RetryPolicy, Workpool, failure_of

__all__ = ["Step", "StepError", "Workflows", "workflow_tables"]

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_FLOWS: Final = "workflows"
_STEPS: Final = "workflowSteps"
_EVENTS: Final = "workflowEvents"
_BY_NUMBER: Final = "by_workflow_number"
_BY_NAME: Final = "by_workflow_name"

_MILLISECOND: Final = timedelta(milliseconds=1)
_HANDLE: Final = "function://;"

# Rounds of the event loop in which a handler does nothing until it is taken to wait for its steps:
# while there are results to give, and at the end, where it must be certain. A handler that stands
# at a step itself waits at once, save for tasks it has just made; in others a result that ends a
# task takes two rounds for each `gather` around it.
_ROUNDS_ALONE: Final = (1, 4)
_ROUNDS_OF_TASKS: Final = (8, 16)

Handler = Callable[..., Coroutine[Any, Any, Any]]


def workflow_tables() -> dict[str, TableDefinition]:
    """The tables of all workflows, to be merged into the schema beside those of the pool."""
    flows = {
        "name": v.string(),
        "handler": v.string(),
        "args": v.any(),
        "state": v.literals("running", "success", "failed", "canceled"),
        "result": v.any(),  # as of a work pool; null while it runs
        "onComplete": v.nullable(v.string()),
        "context": v.any(),
        "endedAt": v.nullable(v.number()),
    }
    steps = {
        "workflow": v.id(_FLOWS),
        "number": v.number(),
        "kind": v.literals("query", "mutation", "action", "sleep", "event"),
        "function": v.string(),  # a handle, or the name of an event
        "args": v.any(),
        "order": v.nullable(v.number()),  # of its end among the ends of all; null until then
        "result": v.any(),
        "runsAs": v.nullable(v.string()),  # the work of the pool, or the scheduled function
    }
    events = {"workflow": v.id(_FLOWS), "name": v.string(), "value": v.any()}
    return {
        _FLOWS: define_table(flows),
        _STEPS: define_table(steps).index(_BY_NUMBER, ["workflow", "number"]),
        _EVENTS: define_table(events).index(_BY_NAME, ["workflow", "name"]),
    }


class StepError(Exception):
    """A step failed, or was interrupted. What it raised as ConvexError arrives as ConvexError."""


class JournalMismatchError(Exception):
    """The handler does something else than its journal says."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call of `step` in one run of the handler."""

    number: int
    kind: str
    function: str
    args: dict[str, Any]
    retry: bool | RetryPolicy
    task: asyncio.Task[Any] | None
    future: asyncio.Future[Any] = field(repr=False)


class Step:
    """What a workflow's handler is given. It has no `db`: everything it does is a step.

    Args and results are values, as everywhere, and come back as they are stored: tuples are lists,
    numbers floats.
    """

    def __init__(self, workflow_id: Id, started_at: float) -> None:
        self.workflow_id = workflow_id
        self.started_at = started_at  # Unix milliseconds
        self.random = Random(workflow_id)  # noqa: S311 - the same in every run, on purpose
        self._calls: list[_Call] = []
        self._open: list[_Call] = []  # those without a result yet
        self._tasks: set[asyncio.Task[Any]] = set()  # who called
        self._is_closed = False

    async def run_query(self, reference: object, /, **args: Any) -> Any:
        """What a query answers at this point, for ever.

        Raises   StepError or ConvexError when it fails
        """
        return await self._call("query", create_function_handle(reference), args)

    async def run_mutation(self, reference: object, /, **args: Any) -> Any:
        """Run a mutation exactly once.

        Raises   as `run_query`
        """
        return await self._call("mutation", create_function_handle(reference), args)

    async def run_action(
        self, reference: object, retry: bool | RetryPolicy = False, /, **args: Any
    ) -> Any:
        """Run an action: at most once, or until it succeeds with `retry`, at least once then.

        Shapes   retry: True for the pool's policy, or a policy
        Raises   as `run_query`, when no attempt is left
        """
        return await self._call("action", create_function_handle(reference), args, retry)

    async def sleep(self, duration: timedelta, /) -> None:
        """Go on after some time. Nothing runs meanwhile."""
        if not isinstance(duration, timedelta):
            raise TypeError(f"sleep takes a timedelta, such as timedelta(days=1), not {duration!r}")
        await self._call("sleep", "", {"ms": duration / _MILLISECOND})

    async def wait_event(self, name: str, /) -> Any:
        """The value of the next event of that name sent to this workflow, an earlier one first."""
        return await self._call("event", name, {})

    async def _call(
        self, kind: str, function: str, args: dict[str, Any], retry: bool | RetryPolicy = False
    ) -> Any:
        if self._is_closed:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        future = asyncio.get_running_loop().create_future()
        call = _Call(len(self._calls), kind, function, args, retry, task, future)
        self._calls.append(call)
        self._open.append(call)
        if task is not None:
            self._tasks.add(task)
        result = await future
        if result["kind"] == "success":
            return result["returnValue"]
        if "data" in result:
            raise ConvexError(result["data"])
        raise StepError(result.get("error", "the step was canceled"))


class Workflows:
    """The workflows of an app. Made once, at module level; `function` gets its path in a module.

    Shapes   pool: runs the mutations and actions, and so bounds how many run at a time
             results, as `on_complete` and `status` tell them: as of a Workpool
    """

    def __init__(self, name: str, pool: Workpool) -> None:
        self._name = name
        self._pool = pool
        self._handlers: dict[str, Handler] = {}

        async def turn(
            ctx: MutationCtx, work_id: str, result: dict[str, Any] | None, context: dict[str, Any]
        ) -> None:
            await self._turn(ctx, context["workflow"], context["number"], result)

        turn.__name__ = f"{name}_turn"
        self.function = internal_mutation(turn)
        """The internal function that runs handlers. `flows_turn = flows.function` in a module of
        functions/ makes it part of the app."""

    def define(
        self, handler: Callable[Concatenate[Step, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Step, P], Coroutine[Any, Any, R]]:
        """Decorates a handler, `async def name(step: Step, …)`, which its name stands for.

        Raises   ValueError for a second one of that name
        """
        if not inspect.iscoroutinefunction(handler):
            raise TypeError(f"a workflow is an `async def` that takes a Step, not {handler!r}")
        if handler.__name__ in self._handlers:
            raise ValueError(f"there is a workflow {handler.__name__!r} already: rename one")
        self._handlers[handler.__name__] = handler
        return handler

    async def start(
        self,
        ctx: MutationCtx,
        handler: Callable[..., Coroutine[Any, Any, Any]] | str,
        args: Mapping[str, Any] | None = None,
        *,
        on_complete: object = None,
        context: Any = None,
    ) -> Id:
        """Begin a workflow, with the commit of this mutation.

        Shapes   on_complete: a reference to a mutation that takes `workflow_id`, `result` and
                 `context`; runs once, however the workflow ended
        Returns  its id, for `status`, `cancel`, `send_event`
        """
        name = handler if isinstance(handler, str) else handler.__name__
        if name not in self._handlers:
            raise LookupError(f"there is no workflow {name!r}: decorate it with define")
        done = None if on_complete is None else create_function_handle(on_complete)
        flow = await ctx.db.insert(
            _FLOWS,
            {
                "name": self._name,
                "handler": name,
                "args": dict(args or {}),
                "state": "running",
                "result": None,
                "onComplete": done,
                "context": context,
                "endedAt": None,
            },
        )
        await self._schedule_turn(ctx, flow)
        return flow

    async def status(self, ctx: QueryCtx, workflow_id: str) -> dict[str, Any] | None:
        """How far a workflow is; None for one that is not there.

        Shapes   {"state": "running", "success", "failed" or "canceled", "result": see above or
                 None, "steps": [{"kind", "name", "state": "running", "success" …}]}
        Cost     reads its whole journal
        """
        flow = await ctx.db.get(_FLOWS, workflow_id)
        if flow is None:
            return None
        steps = [
            {
                "kind": entry["kind"],
                "name": entry["function"].removeprefix(_HANDLE),
                "state": "running" if entry["order"] is None else entry["result"]["kind"],
            }
            for entry in await self._journal(ctx, workflow_id)
        ]
        return {"state": flow["state"], "result": flow["result"], "steps": steps}

    async def cancel(self, ctx: MutationCtx, workflow_id: str) -> bool:
        """End a workflow, and its steps with it; False when it had ended. `on_complete` is told."""
        flow = await ctx.db.get(_FLOWS, workflow_id)
        if flow is None or flow["state"] != "running":
            return False
        journal = await self._journal(ctx, workflow_id)
        await self._finish(ctx, flow, journal, {"kind": "canceled"})
        return True

    async def send_event(
        self, ctx: MutationCtx, workflow_id: str, name: str, value: Any = None
    ) -> bool:
        """Give a workflow an event, which it may wait for now or later; False when it has ended."""
        flow = await ctx.db.get(_FLOWS, workflow_id)
        if flow is None or flow["state"] != "running":
            return False
        journal = await self._journal(ctx, workflow_id)
        for entry in journal:
            waits = entry["kind"] == "event" and entry["order"] is None
            if waits and entry["function"] == name:
                await self._record(ctx, journal, entry, _success(value))
                await self._schedule_turn(ctx, flow["_id"])
                return True
        await ctx.db.insert(_EVENTS, {"workflow": flow["_id"], "name": name, "value": value})
        return True

    async def cleanup(self, ctx: MutationCtx, workflow_id: str) -> bool:
        """Forget a workflow that has ended, with its journal; False while it runs."""
        flow = await ctx.db.get(_FLOWS, workflow_id)
        if flow is None:
            return True
        if flow["state"] == "running":
            return False
        for table, index in ((_STEPS, _BY_NUMBER), (_EVENTS, _BY_NAME)):
            async for each in ctx.db.query(table).with_index(index, workflow=flow["_id"]):
                await ctx.db.delete(each["_id"])
        await ctx.db.delete(flow["_id"])
        return True

    # How it goes on.

    async def _schedule_turn(self, ctx: MutationCtx, flow: Id) -> None:
        told = {"workflow": flow, "number": None}
        await ctx.scheduler.run_after(
            timedelta(), self.function, work_id="", result=None, context=told
        )

    async def _journal(self, ctx: QueryCtx, workflow_id: str) -> list[Document]:
        query = ctx.db.query(_STEPS).with_index(_BY_NUMBER, workflow=workflow_id)
        return await query.collect()

    async def _record(
        self,
        ctx: MutationCtx,
        journal: list[Document],
        entry: Document,
        result: Mapping[str, Any],
    ) -> None:
        """Put a step's end into the journal, as the last one so far."""
        order = 1 + max((each["order"] or 0 for each in journal), default=0)
        await ctx.db.patch(entry["_id"], {"order": order, "result": result})

    async def _turn(
        self, ctx: MutationCtx, workflow_id: str, number: float | None, result: Any
    ) -> None:
        flow = await ctx.db.get(_FLOWS, workflow_id)
        if flow is None or flow["state"] != "running":
            return
        journal = await self._journal(ctx, workflow_id)
        if number is not None:
            entry = journal[int(number)]
            if entry["order"] is not None:
                return
            await self._record(ctx, journal, entry, result)
            recorded = await ctx.db.get(entry["_id"])
            assert recorded is not None
            journal[int(number)] = recorded
        handler = self._handlers.get(flow["handler"])
        if handler is None:
            error = f"the workflow {flow['handler']} is not defined any more"
            await self._finish(ctx, flow, journal, {"kind": "failed", "error": error})
            return
        try:
            with ctx.db.savepoint():
                ended = await self._run(ctx, flow, handler, journal)
        except Exception as error_:  # noqa: BLE001 - whatever it is, it is how the workflow ended
            ended = failure_of(error_)
            journal = await self._journal(ctx, workflow_id)
        if ended is not None:
            await self._finish(ctx, flow, journal, ended)

    async def _run(
        self, ctx: MutationCtx, flow: Document, handler: Handler, journal: list[Document]
    ) -> dict[str, Any] | None:
        """Run the handler as far as it gets; how it ended, or None when it waits for steps.

        New steps are begun, and put at the end of `journal`.
        """
        step = Step(flow["_id"], flow["_creationTime"])
        task = asyncio.ensure_future(_call(handler, step, flow["args"]))
        ended = [entry for entry in journal if entry["order"] is not None]
        waiting = deque(sorted(ended, key=lambda entry: float(entry["order"])))
        seen = 0
        try:
            while True:
                await _until_it_waits(task, step, is_end=not waiting)
                for call in step._calls[seen:]:
                    if call.number < len(journal):
                        _compare(call, journal[call.number])
                        continue
                    entry = await self._begin(ctx, flow, call, journal)
                    journal.append(entry)
                    if entry["order"] is not None:
                        waiting.append(entry)
                seen = len(step._calls)
                if task.done():
                    if task.cancelled():
                        raise StepError(f"the workflow {flow['handler']} canceled itself")
                    if seen < len(journal):
                        raise _mismatch(journal[seen], "the handler ends without it")
                    return _success(task.result())
                if not waiting:
                    break
                entry = waiting.popleft()
                if entry["number"] >= seen:
                    raise _mismatch(entry, "the handler does not ask for it any more")
                call = step._calls[int(entry["number"])]
                step._open.remove(call)
                if not call.future.done():  # the handler may have stopped waiting
                    call.future.set_result(entry["result"])
            if not step._open:
                raise StepError(
                    f"the workflow {flow['handler']} waits for something that is no step: it may "
                    "await step.… only, also to sleep"
                )
            return None
        finally:
            await _close(step, task)

    async def _begin(
        self, ctx: MutationCtx, flow: Document, call: _Call, journal: list[Document]
    ) -> Document:
        """Begin a step; its entry, which has a result already where that is known at once."""
        told = {"workflow": flow["_id"], "number": call.number}
        runs_as: str | None = None
        result: dict[str, Any] | None = None
        match call.kind:
            case "query":
                result = await _query(ctx, call)
            case "event":
                query = ctx.db.query(_EVENTS)
                sent = await query.with_index(
                    _BY_NAME, workflow=flow["_id"], name=call.function
                ).first()
                if sent is not None:
                    await ctx.db.delete(sent["_id"])
                    result = _success(sent["value"])
            case "sleep":
                delay = max(0.0, call.args["ms"]) * _MILLISECOND
                runs_as = await ctx.scheduler.run_after(
                    delay, self.function, work_id="", result=_success(None), context=told
                )
            case "mutation":
                runs_as = await self._pool.enqueue_mutation(
                    ctx, call.function, call.args, on_complete=self.function, context=told
                )
            case _:
                runs_as = await self._pool.enqueue_action(
                    ctx,
                    call.function,
                    call.args,
                    retry=call.retry,
                    on_complete=self.function,
                    context=told,
                )
        order = None
        if result is not None:
            order = 1 + max((each["order"] or 0 for each in journal), default=0)
        entry = await ctx.db.insert(
            _STEPS,
            {
                "workflow": flow["_id"],
                "number": call.number,
                "kind": call.kind,
                "function": call.function,
                "args": call.args,
                "order": order,
                "result": result,
                "runsAs": runs_as,
            },
        )
        stored = await ctx.db.get(entry)
        assert stored is not None
        return stored

    async def _finish(
        self,
        ctx: MutationCtx,
        flow: Document,
        journal: list[Document],
        result: dict[str, Any],
    ) -> None:
        for entry in journal:
            if entry["order"] is None and entry["runsAs"] is not None:
                if entry["kind"] == "sleep":
                    await ctx.scheduler.cancel(entry["runsAs"])
                else:
                    await self._pool.cancel(ctx, entry["runsAs"])
        ended = {"state": result["kind"], "endedAt": ctx.now}
        try:
            await ctx.db.patch(flow["_id"], {**ended, "result": result})
        except Exception as error:  # noqa: BLE001 - a result that is no value
            result = failure_of(error)
            await ctx.db.patch(flow["_id"], {**ended, "state": "failed", "result": result})
        if flow["onComplete"] is None:
            return
        told = {"workflow_id": flow["_id"], "result": result, "context": flow["context"]}
        try:
            await ctx.scheduler.run_after(timedelta(), flow["onComplete"], **told)
        except Exception:  # noqa: BLE001 - a function that is gone: the workflow has ended all the same
            _LOG.exception("on_complete cannot be scheduled workflow=%s", flow["handler"])


async def _call(handler: Handler, step: Step, args: dict[str, Any]) -> Any:
    return await handler(step, **args)


async def _query(ctx: MutationCtx, call: _Call) -> dict[str, Any]:
    try:
        return _success(await ctx.run_query(call.function, **call.args))
    except Exception as error:  # noqa: BLE001 - the handler is told
        return failure_of(error)


async def _until_it_waits(task: asyncio.Task[Any], step: Step, *, is_end: bool) -> None:
    """Let the handler run until it has ended, or waits for its steps in all its tasks."""
    seen, rounds = len(step._calls), 0
    while not task.done():
        is_alone = len(step._open) == 1 and step._tasks == {task}
        if rounds >= (_ROUNDS_ALONE if is_alone else _ROUNDS_OF_TASKS)[is_end]:
            return
        await asyncio.sleep(0)
        calls = len(step._calls)
        seen, rounds = calls, rounds + 1 if calls == seen else 0


async def _close(step: Step, task: asyncio.Task[Any]) -> None:
    """End what still waits; the next run begins anew."""
    step._is_closed = True
    tasks = {task, *step._tasks}
    for each in tasks:
        each.cancel()
    await asyncio.wait(tasks)
    for each in tasks:
        if not each.cancelled():
            each.exception()  # it was looked at, or belongs to a run that does not count


def _compare(call: _Call, entry: Document) -> None:
    same = (call.kind, call.function) == (entry["kind"], entry["function"])
    if not same or not _is_same(call.args, entry["args"]):
        name = call.function.removeprefix(_HANDLE)
        raise _mismatch(entry, f"the handler asks for {call.kind} {name} {call.args!r}")


def _is_same(given: Any, stored: Any) -> bool:
    """Whether a value is what was stored, whose lists may have been tuples."""
    if isinstance(given, Mapping):
        kept = {name: value for name, value in given.items() if value is not UNSET}
        return (
            isinstance(stored, Mapping)
            and kept.keys() == stored.keys()
            and all(_is_same(value, stored[name]) for name, value in kept.items())
        )
    if isinstance(given, list | tuple):
        return (
            isinstance(stored, list)
            and len(given) == len(stored)
            and all(map(_is_same, given, stored))
        )
    return bool(given == stored) or (given != given and stored != stored)


def _mismatch(entry: Document, what: str) -> JournalMismatchError:
    name = entry["function"].removeprefix(_HANDLE)
    return JournalMismatchError(
        f"step {int(entry['number'])} of the journal is {entry['kind']} {name} "
        f"{dict(entry['args'])!r}, but {what}: the code of a workflow was changed while one was "
        "under way, or does not do the same every time. Define the new version under another name"
    )


def _success(value: Any) -> dict[str, Any]:
    return {"kind": "success", "returnValue": value}
