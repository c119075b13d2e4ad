"""What a handler is given: `ctx.db`, `ctx.auth`, `ctx.env`, time, randomness, nested calls.

A context belongs to one call. Nested queries and mutations get contexts of their own on the same
transaction; an action has no transaction, and each of its nested calls is one by itself.

Source: docs/reference/api.md (the contract of the public API).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import get_annotations
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, Self

from reactive_store.auth.identity import Identity
from reactive_store.functions.db import DatabaseReader, DatabaseWriter
from reactive_store.functions.metadata import CallOptions, Metadata
from reactive_store.functions.scheduler import Scheduler
from reactive_store.functions.storage import (
    StorageActionWriter,
    StorageReader,
    StorageWriter,
)
from reactive_store.functions.vector_search import (
    VectorFilter,
    VectorFilterBuilder,
    VectorResult,
)

__all__ = ["ActionCalls", "ActionCtx", "Auth", "Calls", "MutationCtx", "QueryCtx"]


class Calls(Protocol):
    """Nested calls, as the runner offers them to one context."""

    async def run_query(
        self, reference: object, args: Mapping[str, Any], options: CallOptions | None = None
    ) -> Any:
        """Run a query."""
        ...

    async def run_mutation(
        self, reference: object, args: Mapping[str, Any], options: CallOptions | None = None
    ) -> Any:
        """Run a mutation."""
        ...

    async def run_action(self, reference: object, args: Mapping[str, Any]) -> Any:
        """Run an action."""
        ...

    def scheduler(self) -> Scheduler:
        """What `ctx.scheduler` is."""
        ...

    def storage(self) -> Any:
        """What `ctx.storage` is, as much of it as this kind of function has."""
        ...

    def meta(self) -> Metadata:
        """What `ctx.meta` is."""
        ...


class ActionCalls(Calls, Protocol):
    """What the runner offers to an action besides."""

    async def vector_search(
        self,
        table: str,
        index: str,
        vector: Sequence[float],
        limit: int,
        filter: Callable[[VectorFilterBuilder], VectorFilter] | None,
    ) -> list[VectorResult]:
        """Search a vector index."""
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
    kind = _kind(type(context)).__name__.removesuffix("Ctx")
    raise AttributeError(
        _NOT_HERE.get((kind, name))
        or f"{type(context).__name__!r} object has no attribute {name!r}",
        name=name,
        obj=context,
    )


def _check_options(options: object) -> None:
    if not isinstance(options, CallOptions):
        raise TypeError(
            f"{options!r} is given in the place of options: pass arguments by name, "
            "`ctx.run_query(reference, name=value)`"
        )


def _kind(context: type) -> type:
    """Which of the contexts below a class is, or was derived from."""
    return next((each for each in context.__mro__ if each.__module__ == __name__), context)


class _Places(NamedTuple):
    """Where a class of contexts keeps what belongs to one."""

    slots: tuple[str, ...]  # inherited ones included
    parts: frozenset[str]  # the public ones of these, and what the class only annotates

    @classmethod
    def of(cls, context: type) -> _Places:
        """Those of a class. Kept in the class itself: an app that is reloaded takes them along."""
        known: _Places | None = context.__dict__.get("_places")
        if known is None:
            slots: list[str] = []
            annotated: set[str] = set()
            for each in context.__mro__:
                own = each.__dict__.get("__slots__", ())
                slots += (own,) if isinstance(own, str) else own
                annotated.update(get_annotations(each))
            public = {name for name in annotated.union(slots) if not name.startswith("_")}
            known = _Places(tuple(slots), frozenset(public))
            type.__setattr__(context, "_places", known)
        return known


class _Extensible:
    """How an app makes contexts of its own: other parts in the old places, or further ones."""

    __slots__ = ()

    @classmethod
    def extend(cls, ctx: _Extensible, /, **parts: Any) -> Self:
        """A context of this class for the same call as `ctx`, with further parts.

        Shapes   cls: a class derived from QueryCtx, MutationCtx or ActionCtx that declares what it
                 adds (`user: Document`); parts: each of these, and what is to be replaced
        Cost     about 5 µs
        Raises   TypeError for a part that is missing, or that the class does not declare
        """
        kind = _kind(cls)
        if not isinstance(ctx, kind):
            raise TypeError(
                f"{cls.__name__} is a {kind.__name__}, which cannot be made of a "
                f"{type(ctx).__name__}: derive it from {_kind(type(ctx)).__name__}"
            )
        places = _Places.of(cls)
        if not places.parts.issuperset(parts):
            name = next(name for name in parts if name not in places.parts)
            raise TypeError(
                f"{cls.__name__} has no part {name!r}: declare it in the class, `{name}: SomeType`"
            )
        old = {name: getattr(ctx, name) for name in _Places.of(type(ctx)).slots}
        if type(ctx).__dictoffset__:
            old |= ctx.__dict__
        new = cls.__new__(cls)
        for name, part in {**old, **parts}.items():
            if cls.__dictoffset__ or name in places.slots:
                object.__setattr__(new, name, part)
        for name in places.parts:
            if not hasattr(new, name):
                raise TypeError(f"{cls.__name__} needs {name!r}: pass `{name}=` to extend()")
        return new

    def replace(self, **parts: Any) -> Self:
        """The same context with some parts replaced, say its `db`.

        Cost     about 5 µs
        Raises   TypeError for a part the class does not declare
        """
        return type(self).extend(self, **parts)


class QueryCtx(_Extensible):
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
    def storage(self) -> StorageReader:
        """Stored files: their metadata and their URLs."""
        found: StorageReader = self._calls.storage()
        return found

    if not TYPE_CHECKING:  # a checker must go on refusing unknown attributes

        def __getattr__(self, name: str) -> NoReturn:
            _missing(self, name)

    @property
    def meta(self) -> Metadata:
        """About this call: the function, what its transaction has used, the deployment."""
        return self._calls.meta()

    async def run_query(
        self, reference: object, options: CallOptions | None = None, /, **args: Any
    ) -> Any:
        """Run another query on the same snapshot; its exception is raised here."""
        if options is not None:
            _check_options(options)
        return await self._calls.run_query(reference, args, options)


class MutationCtx(QueryCtx):
    """The context of a mutation: reads of one instant, writes that commit together."""

    __slots__ = ()

    db: DatabaseWriter

    @property
    def storage(self) -> StorageWriter:
        """Stored files: also upload addresses and deletion, as part of the transaction."""
        found: StorageWriter = self._calls.storage()
        return found

    @property
    def scheduler(self) -> Scheduler:
        """Functions that run later."""
        return self._calls.scheduler()

    async def run_mutation(
        self, reference: object, options: CallOptions | None = None, /, **args: Any
    ) -> Any:
        """Run another mutation inside this transaction.

        Its exception is raised here. What it wrote is undone first, so catching the exception and
        going on keeps only what this mutation wrote itself.
        """
        if options is not None:
            _check_options(options)
        return await self._calls.run_mutation(reference, args, options)


class ActionCtx(_Extensible):
    """The context of an action: anything goes, but data only through queries and mutations."""

    __slots__ = ("_calls", "_clock", "_make_random", "_random", "auth", "env")

    def __init__(
        self,
        *,
        auth: Auth,
        env: Mapping[str, str],
        clock: Clock,
        make_random: Callable[[], Random],
        calls: ActionCalls,
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
    def storage(self) -> StorageActionWriter:
        """Stored files: also their bytes, in and out."""
        found: StorageActionWriter = self._calls.storage()
        return found

    @property
    def scheduler(self) -> Scheduler:
        """Functions that run later."""
        return self._calls.scheduler()

    @property
    def meta(self) -> Metadata:
        """About this call: the function, the deployment, the request it came with."""
        return self._calls.meta()

    async def run_query(self, reference: object, /, **args: Any) -> Any:
        """Run a query at the newest snapshot."""
        return await self._calls.run_query(reference, args)

    async def run_mutation(self, reference: object, /, **args: Any) -> Any:
        """Run a mutation as a transaction of its own; durable when this returns."""
        return await self._calls.run_mutation(reference, args)

    async def run_action(self, reference: object, /, **args: Any) -> Any:
        """Run another action."""
        return await self._calls.run_action(reference, args)

    async def vector_search(
        self,
        table: str,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = 10,
        filter: Callable[[VectorFilterBuilder], VectorFilter] | None = None,
    ) -> list[VectorResult]:
        """The ids of the documents nearest to a vector by cosine, best first, with their scores.

        It sees everything that is committed by now.

        Shapes   vector: as many numbers as the index has dimensions; limit: 1 to 256;
                 filter: `lambda f: f.eq("field", x)` or `lambda f: f.or_(f.eq(…), f.eq(…))`
        Cost     docs/performance.md; a scan is done in another thread
        Raises   BadRequest with the rule that was broken
        """
        return await self._calls.vector_search(table, index, vector, limit, filter)


class Clock(Protocol):
    """The part of the runtime an action may look at."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...
