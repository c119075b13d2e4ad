"""Layers over `ctx.db`: what rules, triggers and constraints have in common.

A layer is a `ctx.db` itself and passes on to another one, so layers can be stacked in any order.
Every write of a layer goes through one method, `_write`; a kind of layer is that method.

Invariants: a layer adds no read and no write of its own; what it refuses was not written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from reactive_store import DatabaseReader, DatabaseWriter, Document, Id, Query

__all__ = ["ReaderLayer", "Write", "WriterLayer"]

Operation = Literal["insert", "patch", "replace", "delete"]


@dataclass(frozen=True, slots=True)
class Write:
    """A write that was asked for and not made yet."""

    operation: Operation
    # As the method was called: (table, value) of an insert; else id, perhaps with its table in
    # front, and the value unless it is a delete.
    args: tuple[Any, ...]
    call: Callable[..., Awaitable[Any]]

    @property
    def value(self) -> Any:
        """The new document, or the changes of a patch; not to be asked of a delete."""
        return self.args[-1]

    @property
    def id(self) -> str:
        """Which document; not to be asked of an insert."""
        return str(self.args[-1 if self.operation == "delete" else -2])

    def with_value(self, value: Mapping[str, Any]) -> Write:
        """The same write of another document, or with other changes."""
        return replace(self, args=(*self.args[:-1], value))

    async def make(self) -> Any:
        """Write. An insert answers with the new id."""
        return await self.call(*self.args)


class ReaderLayer(DatabaseReader):
    """A reader that passes everything on. Made by `around`."""

    __slots__ = ("_inner",)

    _inner: DatabaseReader

    @classmethod
    def around(cls, inner: DatabaseReader) -> Self:
        """A layer around a `ctx.db`, or around another layer."""
        layer = cls.over(inner)
        layer._inner = inner
        return layer

    async def get(self, *args: Any) -> Document | None:
        """The document with that id, or None."""
        return await self._inner.get(*args)

    def query(self, table: str, /) -> Query:
        """A query of the table."""
        return self._inner.query(table)


class WriterLayer(DatabaseWriter):
    """A writer whose writes all pass one method. Made by `around`."""

    __slots__ = ("_inner",)

    _inner: DatabaseWriter

    @classmethod
    def around(cls, inner: DatabaseWriter) -> Self:
        """A layer around a `ctx.db`, or around another layer."""
        layer = cls.over(inner)
        layer._inner = inner
        return layer

    async def get(self, *args: Any) -> Document | None:
        """The document with that id, or None."""
        return await self._inner.get(*args)

    def query(self, table: str, /) -> Query:
        """A query of the table."""
        return self._inner.query(table)

    async def insert(self, *args: Any) -> Id:
        """Store a new document."""
        if len(args) != 2 or not isinstance(args[0], str):
            return await self._inner.insert(*args)  # which says what is wrong
        created: Id = await self._write(Write("insert", args, self._inner.insert))
        return created

    async def patch(self, *args: Any) -> None:
        """Change some top-level fields of a document."""
        if len(args) not in (2, 3):
            await self._inner.patch(*args)
        await self._write(Write("patch", args, self._inner.patch))

    async def replace(self, *args: Any) -> None:
        """Put a whole new document in a stored one's place."""
        if len(args) not in (2, 3):
            await self._inner.replace(*args)
        await self._write(Write("replace", args, self._inner.replace))

    async def delete(self, *args: Any) -> None:
        """Remove a document."""
        if len(args) not in (1, 2):
            await self._inner.delete(*args)
        await self._write(Write("delete", args, self._inner.delete))

    async def _write(self, write: Write) -> Any:
        """Make a write, or refuse it, or do more."""
        return await write.make()
