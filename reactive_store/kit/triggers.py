"""Triggers: functions that run inside the transaction that changed a document.

    triggers = Triggers()

    @triggers.on("messages")
    async def count(ctx: MutationCtx, change: Change) -> None: ...

    async def with_triggers(ctx: MutationCtx) -> MutationCtx:
        return triggers.watch(ctx)

- A write returns when every trigger it started has run. Triggers see the data as it is after the
  write, in the order in which they were registered.
- What a trigger writes through its `ctx.db` starts triggers too: they queue up behind the ones that
  wait already, so changes are handled in the order in which they happened. `change.inner_db` writes
  without starting any.
- An exception leaves the write that started it all; that write and everything its triggers wrote
  are undone, also when the caller catches it.
- Writes to tables with triggers go one after the other, also when a function starts several.

Only writes through `watch(ctx).db` start triggers. Decorate every mutation of the app with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from reactive_store import DatabaseWriter, Document, Id, MutationCtx
from reactive_store.kit.layers import Write, WriterLayer

__all__ = ["Change", "Triggers"]

C = TypeVar("C", bound=MutationCtx)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one document.

    Shapes   old: None for an insert; new: None for a delete; both as stored, `_id` included.
             inner_db: what wrote it, without triggers
    """

    operation: Literal["insert", "update", "delete"]
    table: str
    id: Id
    old: Document | None
    new: Document | None
    inner_db: DatabaseWriter = field(repr=False, compare=False)


Trigger = Callable[[C, Change], Awaitable[None]]
"""An `async def` that takes (ctx, change)."""


class Triggers(Generic[C]):
    """The triggers of an app's tables. Made once, at module level.

    Shapes   C: the context that triggers take, MutationCtx or one that the app derived from it
    """

    def __init__(self) -> None:
        self._of_table: dict[str, list[Trigger[C]]] = {}

    def on(self, *tables: str) -> Callable[[Trigger[C]], Trigger[C]]:
        """Decorates a trigger of these tables."""
        if not tables or not all(isinstance(table, str) for table in tables):
            raise TypeError('a trigger names its tables: @triggers.on("messages")')

        def add(trigger: Trigger[C]) -> Trigger[C]:
            for table in tables:
                self.register(table, trigger)
            return trigger

        return add

    def register(self, table: str, trigger: Trigger[C]) -> None:
        """Add a trigger that something else made, say an aggregate."""
        self._of_table.setdefault(table, []).append(trigger)

    def watch(self, ctx: C) -> C:
        """The same context with a `db` whose writes start the triggers.

        Cost     about 5 µs; two point reads per write to a table with triggers, none elsewhere
        """
        outer = _Watched.around(ctx.db)
        inside = _Watched.around(ctx.db)
        queue: _Queue = deque()
        outer._triggers = inside._triggers = self._of_table
        outer._queue = inside._queue = queue
        outer._ctx_of_triggers = inside._ctx_of_triggers = ctx.replace(db=inside)
        outer._is_outermost, inside._is_outermost = True, False
        outer._turn = inside._turn = None
        return ctx.replace(db=outer)


_Queue = deque[tuple[Trigger[Any], Change]]


class _Watched(WriterLayer):
    """`ctx.db` whose writes start triggers: the function's own, or the one triggers get."""

    __slots__ = ("_ctx_of_triggers", "_is_outermost", "_queue", "_triggers", "_turn")

    _triggers: dict[str, list[Trigger[Any]]]
    _queue: _Queue
    _ctx_of_triggers: MutationCtx
    _is_outermost: bool  # whether a write here waits until the queue is empty
    _turn: asyncio.Lock | None  # made by the first write: one at a time

    async def _write(self, write: Write) -> Any:
        if write.operation == "insert":
            triggers = self._triggers.get(write.args[0])
        else:
            # Only a look at which table it is: what is stored counts once it is our turn.
            found = await self._inner.get(write.id)
            triggers = None if found is None else self._triggers.get(found.table)
        if not triggers:
            return await write.make()
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            if not self._is_outermost:
                return await self._make(write, triggers)
            with self._inner.savepoint():
                try:
                    result = await self._make(write, triggers)
                    while self._queue:
                        trigger, change = self._queue.popleft()
                        await trigger(self._ctx_of_triggers, change)
                except BaseException:
                    self._queue.clear()
                    raise
            return result

    async def _make(self, write: Write, triggers: list[Trigger[Any]]) -> Any:
        """Make the write and put its triggers into the queue."""
        inner = self._inner
        if write.operation == "insert":
            operation: Literal["insert", "update", "delete"] = "insert"
            old = None
            result = identity = await write.make()
        else:
            operation = "delete" if write.operation == "delete" else "update"
            old = await inner.get(write.id)
            result = await write.make()
            identity = write.id if old is None else old["_id"]
        new = None if operation == "delete" else await inner.get(identity)
        table = identity.table
        change = Change(operation, table, identity, old, new, inner)
        self._queue.extend((trigger, change) for trigger in triggers)
        return result
