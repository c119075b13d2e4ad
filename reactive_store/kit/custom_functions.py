"""Decorators of an app's own: `query`, `mutation` and `action` that do something around handlers.

A *customization* is an `async def` that gets the context of a call, and arguments of its own, and
answers with the context that handlers get:

    class UserCtx(QueryCtx):
        user: Document

    async def with_user(ctx: QueryCtx) -> UserCtx:
        identity = await ctx.auth.get_user_identity()
        ...
        return UserCtx.extend(ctx, user=user)

    user_query = custom_query(with_user)

- Its parameters after `ctx` become arguments of every function defined with the decorator. It keeps
  them, unless the handler names them as well; then both get them.
- What it raises ends the call. In a query or mutation it runs in the same transaction.
- A custom decorator is a decorator like any other: another customization can be put on top of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, Generic, TypeVar, get_type_hints, overload

from reactive_store import (
    ActionCtx,
    FunctionDecorator,
    MutationCtx,
    QueryCtx,
    Validator,
    action,
    internal_query,
    mutation,
    query,
    v,
)

__all__ = ["Customized", "custom_action", "custom_function", "custom_mutation", "custom_query"]

A = TypeVar("A")  # the context a customization gets
C = TypeVar("C", bound=QueryCtx | ActionCtx)  # the context it makes for handlers

_Handler = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Customized(Generic[C]):
    """What a customization may answer when a context alone does not say it.

    `args` are given to the handler by name, in addition to its arguments or in their place; a
    handler that takes them as parameters must give these a default. `on_success` is awaited with
    the handler's result after it returned, before anything is committed; an exception from it is
    the call's.
    """

    ctx: C
    args: Mapping[str, Any] = field(default_factory=dict)
    on_success: Callable[[Any], Awaitable[None]] | None = None


@overload
def custom_function(
    on: FunctionDecorator[A],
    customize: Callable[Concatenate[A, ...], Coroutine[Any, Any, Customized[C]]],
    /,
) -> FunctionDecorator[C]: ...


@overload
def custom_function(
    on: FunctionDecorator[A],
    customize: Callable[Concatenate[A, ...], Coroutine[Any, Any, C]],
    /,
) -> FunctionDecorator[C]: ...


def custom_function(on: FunctionDecorator[Any], customize: _Handler, /) -> FunctionDecorator[Any]:
    """A decorator like `on` whose handlers get the context that `customize` makes.

    Shapes   on: `query`, `internal_mutation` …, or another custom decorator
    Cost     what `customize` does, and about 1 µs per call
    Raises   BadRequest[InvalidFunction] when `customize` is no coroutine function with a ctx, or
             one of its parameters has no annotation
    """
    return _CustomDecorator(on, customize)


@overload
def custom_query(
    customize: Callable[Concatenate[QueryCtx, ...], Coroutine[Any, Any, Customized[C]]], /
) -> FunctionDecorator[C]: ...


@overload
def custom_query(
    customize: Callable[Concatenate[QueryCtx, ...], Coroutine[Any, Any, C]], /
) -> FunctionDecorator[C]: ...


def custom_query(customize: _Handler, /) -> FunctionDecorator[Any]:
    """`custom_function(query, customize)`."""
    return _CustomDecorator(query, customize)


@overload
def custom_mutation(
    customize: Callable[Concatenate[MutationCtx, ...], Coroutine[Any, Any, Customized[C]]], /
) -> FunctionDecorator[C]: ...


@overload
def custom_mutation(
    customize: Callable[Concatenate[MutationCtx, ...], Coroutine[Any, Any, C]], /
) -> FunctionDecorator[C]: ...


def custom_mutation(customize: _Handler, /) -> FunctionDecorator[Any]:
    """`custom_function(mutation, customize)`."""
    return _CustomDecorator(mutation, customize)


@overload
def custom_action(
    customize: Callable[Concatenate[ActionCtx, ...], Coroutine[Any, Any, Customized[C]]], /
) -> FunctionDecorator[C]: ...


@overload
def custom_action(
    customize: Callable[Concatenate[ActionCtx, ...], Coroutine[Any, Any, C]], /
) -> FunctionDecorator[C]: ...


def custom_action(customize: _Handler, /) -> FunctionDecorator[Any]:
    """`custom_function(action, customize)`."""
    return _CustomDecorator(action, customize)


class _CustomDecorator(FunctionDecorator[Any]):
    """A decorator that puts a customization between a call and the handler."""

    __slots__ = ("_consumed", "_customize", "_on", "_parameters")

    def __init__(self, on: FunctionDecorator[Any], customize: _Handler) -> None:
        super().__init__(on.kind, on.visibility)
        self._on = on
        self._customize = customize
        # A customization is a handler: what a handler may look like is checked by defining one.
        self._consumed = internal_query(customize)
        self._parameters = _parameters(customize)

    def define(self, handler: Any, *, args: Any, returns: Any) -> Any:
        """A function whose handler is called by the customization."""
        if not inspect.iscoroutinefunction(handler):
            return self._on.define(handler, args=args, returns=returns)  # which says what is wrong
        own = inspect.signature(handler)
        shared = frozenset(name for name in self._parameters if name in own.parameters)
        around = _around(handler, self._customize, tuple(self._parameters), shared)
        around.__signature__ = _merged(own, self._parameters)  # type: ignore[attr-defined]
        return self._on.define(around, args=self._with_consumed(args), returns=returns)

    def _with_consumed(self, args: Any) -> Any:
        """Declared validators with those of the customization; None stays: annotations say it."""
        fields = args if isinstance(args, Mapping) else getattr(args, "fields", None)
        if not self._parameters or fields is None:
            return args
        validators: Mapping[str, Validator] = getattr(self._consumed.args, "fields", {})
        # In the customization's own spelling: a handler that shares an argument spells it alike.
        consumed = dict(zip(self._parameters, validators.values(), strict=False))
        return v.object({**consumed, **fields})


def _parameters(customize: _Handler) -> dict[str, inspect.Parameter]:
    """What a customization takes besides the context, by name, with the types looked up."""
    _, *parameters = inspect.signature(customize).parameters.values()
    names = {each.name for each in parameters}
    annotations = inspect.get_annotations(customize)

    def stub() -> None: ...

    # Without the return annotation, which may well name a type defined inside a function.
    stub.__annotations__ = {name: annotations[name] for name in names if name in annotations}
    target: Any = inspect.unwrap(customize)
    types = get_type_hints(stub, globalns=target.__globals__, include_extras=True)
    return {
        each.name: each.replace(
            annotation=types.get(each.name, each.annotation), kind=inspect.Parameter.KEYWORD_ONLY
        )
        for each in parameters
        if each.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _merged(own: inspect.Signature, consumed: Mapping[str, inspect.Parameter]) -> inspect.Signature:
    """A handler's signature with the parameters of the customization."""
    parameters = list(own.parameters.values())
    added = [each for name, each in consumed.items() if name not in own.parameters]
    has_rest = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    rest = [parameters.pop()] if has_rest else []
    return own.replace(parameters=[*parameters, *added, *rest])


_MISSING: Final = object()


def _around(
    handler: _Handler, customize: _Handler, consumed: tuple[str, ...], shared: frozenset[str]
) -> _Handler:
    @functools.wraps(handler)
    async def around(ctx: Any, /, **kwargs: Any) -> Any:
        own: dict[str, Any] = {}
        for name in consumed:
            value = kwargs.get(name, _MISSING) if name in shared else kwargs.pop(name, _MISSING)
            if value is not _MISSING:
                own[name] = value
        answer = await customize(ctx, **own)
        if not isinstance(answer, Customized):
            return await handler(answer, **kwargs)
        result = await handler(answer.ctx, **{**kwargs, **answer.args})
        if answer.on_success is not None:
            await answer.on_success(result)
        return result

    return around
