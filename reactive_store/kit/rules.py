"""Row-level rules: who may read, insert and change which documents, around `ctx.db`.

    rules = Rules(default="deny")

    @rules.read("messages")
    async def members_only(ctx: QueryCtx, message: Document) -> bool: ...

    async def with_rules(ctx: C) -> C:
        return rules.guard(ctx)

- What may not be read acts as if it were not there: `get` answers None, queries leave it out.
- What may not be written raises a ConvexError, and nothing was written.
- A rule is given the context that `guard` was given: its `ctx.db` is not guarded, so rules may look
  at anything, and cannot run in circles.
- What a rule reads is part of what the function read: a live query runs again when it changes.

Nested calls (`ctx.run_query`) are functions of their own, guarded by their own decorators.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Literal, TypeVar

from reactive_store import (
    ConvexError,
    DatabaseReader,
    DatabaseWriter,
    Document,
    MutationCtx,
    Query,
    QueryCtx,
)
from reactive_store.kit.filter import filtered, nothing
from reactive_store.kit.layers import ReaderLayer, Write, WriterLayer

__all__ = ["Rules"]

C = TypeVar("C", bound=QueryCtx)
G = TypeVar("G", bound=QueryCtx)
R = TypeVar("R", bound="Callable[..., Any]")

Rule = Callable[[C, Any], bool | Awaitable[bool]]
"""(ctx, document) → whether it is allowed; may be `async def`. The document of an insert is what
the function passed to it, without `_id`."""

_ACTIONS: Final = ("read", "insert", "modify")


class Rules(Generic[C]):
    """The rules of an app's tables. Made once, at module level; `guard` applies them to a call.

    Shapes   C: the context that rules take, QueryCtx or one that the app derived from it.
             default: what holds where a table has no rule for what is being done; "allow" or "deny"
    """

    def __init__(self, *, default: Literal["allow", "deny"] = "allow") -> None:
        if default not in ("allow", "deny"):
            raise TypeError(f'default is "allow" or "deny", not {default!r}')
        self._default = default == "allow"
        self._rules: dict[tuple[str, str], Rule[C]] = {}

    def read(self, table: str) -> Callable[[R], R]:
        """Decorates the rule (ctx, document) that says whether a document can be seen."""
        return self._adding(table, "read")

    def insert(self, table: str) -> Callable[[R], R]:
        """Decorates the rule (ctx, value) that says whether a document may be stored."""
        return self._adding(table, "insert")

    def modify(self, table: str) -> Callable[[R], R]:
        """Decorates the rule (ctx, document) that says whether a stored document may be changed.

        It is asked before a patch, replace or delete, about the document as it is stored. The
        document must also be readable.
        """
        return self._adding(table, "modify")

    def guard(self, ctx: G) -> G:
        """The same context with a `db` that keeps the rules.

        Cost     about 5 µs, and one call of a rule per document read or written
        """
        if isinstance(ctx, MutationCtx):
            writer = _RuledWriter.around(ctx.db)
            writer._rules, writer._ctx = self, ctx
            return ctx.replace(db=writer)
        reader = _RuledReader.around(ctx.db)
        reader._rules, reader._ctx = self, ctx
        return ctx.replace(db=reader)

    def _adding(self, table: str, action: str) -> Callable[[R], R]:
        if not isinstance(table, str):
            raise TypeError(f'a rule names its table: @rules.{action}("messages")')

        def add(rule: R) -> R:
            if (table, action) in self._rules:
                raise TypeError(
                    f"table {table!r} has a rule for {action} already: put both conditions into one"
                )
            self._rules[table, action] = rule
            return rule

        return add

    def _verdict(self, table: str, action: str) -> Rule[C] | bool:
        """The rule that decides, or what is decided without one."""
        return self._rules.get((table, action), self._default)


class _Ruled:
    """What reading and writing layers have in common: reading."""

    __slots__ = ()

    _inner: DatabaseReader
    _rules: Rules[Any]
    _ctx: Any

    async def get(self, *args: Any) -> Document | None:
        document = await self._inner.get(*args)
        if document is None or not await self._allows(document.table, "read", document):
            return None
        return document

    def query(self, table: str, /) -> Query:
        query = self._inner.query(table)
        rule = self._rules._verdict(table, "read")
        if rule is True:
            return query
        if rule is False:
            return filtered(query, nothing)
        return filtered(query, lambda document: _ask(rule, self._ctx, document))

    async def _allows(self, table: str, action: str, value: Any) -> bool:
        rule = self._rules._verdict(table, action)
        return rule if isinstance(rule, bool) else await _ask(rule, self._ctx, value)


class _RuledReader(_Ruled, ReaderLayer):
    """`ctx.db` of a query under rules."""

    __slots__ = ("_ctx", "_rules")


class _RuledWriter(_Ruled, WriterLayer):
    """`ctx.db` of a mutation under rules."""

    __slots__ = ("_ctx", "_rules")

    _inner: DatabaseWriter

    async def _write(self, write: Write) -> Any:
        if write.operation == "insert":
            table = write.args[0]
            if not await self._allows(table, "insert", write.value):
                raise _refused("insert access not allowed", table)
            return await write.make()
        document = await self.get(write.id)
        if document is None:
            raise _refused("no read access or doc does not exist")
        if not await self._allows(document.table, "modify", document):
            raise _refused("write access not allowed", document.table)
        return await write.make()


async def _ask(rule: Rule[Any], ctx: Any, value: Any) -> bool:
    answer = rule(ctx, value)
    return bool(await answer if inspect.isawaitable(answer) else answer)


def _refused(text: str, table: str | None = None) -> ConvexError:
    data: dict[str, Any] = {"code": "forbidden", "message": text}
    if table is not None:
        data["table"] = table
    return ConvexError(data)
