"""What a handler is given: `ctx.db`, `ctx.auth`, `ctx.env`, time, randomness, nested calls.

A context belongs to one call. Nested queries and mutations get contexts of their own on the same
transaction; an action has no transaction, and each of its nested calls is one by itself.

Source: docs/reference/api.md (the contract of the public API).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from reactive_store.auth.identity import Identity
from reactive_store.functions.db import DatabaseReader, DatabaseWriter
from reactive_store.functions.scheduler import Scheduler
from reactive_store.functions.storage import Storage

__all__ = ["ActionCtx", "Auth", "Calls", "MutationCtx", "QueryCtx"]


class Calls(Protocol):
    """Nested calls, as the runner offers them to one context."""

    async def run_query(self, reference: object, args: Mapping[str, Any]) -> Any:
        """Run a query."""
        ...

    async def run_mutation(self, reference: object, args: Mapping[str, Any]) -> Any:
        """Run a mutation."""
        ...

    async def run_action(self, reference: object, args: Mapping[str, Any]) -> Any:
        """Run an action."""
        ...

    def scheduler(self) -> Scheduler:
        """What `ctx.scheduler` is."""
        ...

    def storage(self) -> Storage:
        """What `ctx.storage` is."""
        ...


class Auth(Protocol):
    """`ctx.auth`: who is calling."""

    async def get_user_identity(self) -> Identity | None:
        """The caller's identity, or None when nobody is logged in."""
        ...


_NOT_HERE = {
    ("Query", "run_mutation"): "Cannot call a Mutation function from a Query function",
    ("Query", "run_action"): "Cannot call an Action function from a Query function",
    ("Query", "scheduler"): "A query cannot schedule functions: it has no effects",
    ("Mutation", "run_action"): "Cannot call an Action function from a Mutation function",
    ("Action", "db"): "An action has no ctx.db: read and write through ctx.run_query and "
    "ctx.run_mutation",
}


def _missing(context: object, name: str) -> NoReturn:
    """Say why a context has no such part, where the reason is a rule."""
    kind = type(context).__name__.removesuffix("Ctx")
    raise AttributeError(
        _NOT_HERE.get((kind, name))
        or f"{type(context).__name__!r} object has no attribute {name!r}",
        name=name,
        obj=context,
    )


class QueryCtx:
    """The context of a query: reads at one instant."""

    __slots__ = ("_calls", "_make_random", "_random", "auth", "db", "env", "now")

    def __init__(
        self,
        *,
        db: DatabaseReader,
        auth: Auth,
        env: Mapping[str, str],
        now: float,
        make_random: Callable[[], Random],
        calls: Calls,
    ) -> None:
        self.db = db
        self.auth = auth
        self.env = env
        self.now = now  # Unix milliseconds, frozen for the transaction
        self._make_random = make_random
        self._random: Random | None = None
        self._calls = calls

    @property
    def random(self) -> Random:
        """The deterministic source of chance; seeded for this call."""
        if self._random is None:
            self._random = self._make_random()
        return self._random

    @property
    def storage(self) -> Storage:
        """Stored files: their metadata and their URLs."""
        return self._calls.storage()

    if not TYPE_CHECKING:  # a checker must go on refusing unknown attributes

        def __getattr__(self, name: str) -> NoReturn:
            _missing(self, name)

    async def run_query(self, reference: object, /, **args: Any) -> Any:
        """Run another query on the same snapshot; its exception is raised here."""
        return await self._calls.run_query(reference, args)


class MutationCtx(QueryCtx):
    """The context of a mutation: reads of one instant, writes that commit together."""

    __slots__ = ()

    db: DatabaseWriter

    @property
    def scheduler(self) -> Scheduler:
        """Functions that run later."""
        return self._calls.scheduler()

    async def run_mutation(self, reference: object, /, **args: Any) -> Any:
        """Run another mutation inside this transaction.

        Its exception is raised here. What it wrote is undone first, so catching the exception and
        going on keeps only what this mutation wrote itself.
        """
        return await self._calls.run_mutation(reference, args)


class ActionCtx:
    """The context of an action: anything goes, but data only through queries and mutations."""

    __slots__ = ("_calls", "_clock", "_make_random", "_random", "auth", "env")

    def __init__(
        self,
        *,
        auth: Auth,
        env: Mapping[str, str],
        clock: Clock,
        make_random: Callable[[], Random],
        calls: Calls,
    ) -> None:
        self.auth = auth
        self.env = env
        self._make_random = make_random
        self._random: Random | None = None
        self._clock = clock
        self._calls = calls

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            _missing(self, name)

    @property
    def random(self) -> Random:
        """A source of chance of this call's own."""
        if self._random is None:
            self._random = self._make_random()
        return self._random

    @property
    def now(self) -> float:
        """Unix milliseconds; it goes on while the action runs."""
        return self._clock.now_ns() / 1e6

    @property
    def storage(self) -> Storage:
        """Stored files: their metadata and their URLs."""
        return self._calls.storage()

    @property
    def scheduler(self) -> Scheduler:
        """Functions that run later."""
        return self._calls.scheduler()

    async def run_query(self, reference: object, /, **args: Any) -> Any:
        """Run a query at the newest snapshot."""
        return await self._calls.run_query(reference, args)

    async def run_mutation(self, reference: object, /, **args: Any) -> Any:
        """Run a mutation as a transaction of its own; durable when this returns."""
        return await self._calls.run_mutation(reference, args)

    async def run_action(self, reference: object, /, **args: Any) -> Any:
        """Run another action."""
        return await self._calls.run_action(reference, args)


class Clock(Protocol):
    """The part of the runtime an action may look at."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...
