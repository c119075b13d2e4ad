"""Functions of an app as values: the decorators and what they make.

A `FunctionDef` is what a decorated handler becomes. It knows its kind and visibility, the
validators of its arguments and result, and how checked arguments turn into the handler's keyword
arguments. It never changes, except that its path is set, once, by the app that loads it.

- Handlers are `async def`. Whatever a handler cannot be is refused where it is defined, with file,
  line and remedy.
- Names of arguments are camelCase in `args` and on the wire; `bind` gives the handler its own.
- An annotation may name a type that is defined further down: such a function is completed when the
  app is loaded, or when it is first used.

Source of facts: docs/reference/functions.md; Convex's npm client 1.48 for the builders, its open
server for the texts.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from types import FrameType
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    cast,
    overload,
)

from reactive_store.errors import BadRequest
from reactive_store.functions.annotations import (
    AnnotationRefusedError,
    Convert,
    MismatchError,
    Reading,
    convert_as,
    guarded,
    read_annotation,
    resolve_annotation,
)
from reactive_store.functions.context import ActionCtx, MutationCtx, QueryCtx
from reactive_store.functions.names import to_wire
from reactive_store.schema.validators import ObjectValidator, Validator, v

__all__ = [
    "CallableFunction",
    "FunctionDecorator",
    "FunctionDef",
    "FunctionKind",
    "Visibility",
    "action",
    "http_action",
    "internal_action",
    "internal_mutation",
    "internal_query",
    "mutation",
    "query",
]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

Visibility = Literal["public", "internal"]
ArgsSpec = Mapping[str, Validator] | Validator
ReturnsSpec = Mapping[str, Validator] | Validator

_LEARN_ARGS: Final = (
    "\nSee https://docs.convex.dev/functions/validation for docs on how to do argument validation."
)
_LEARN_RETURNS: Final = (
    "\nSee https://docs.convex.dev/functions/validation for docs on how to do return value "
    "validation."
)


class FunctionKind(Enum):
    """What a function may do. The values are the names that clients and error texts use."""

    QUERY = "Query"
    MUTATION = "Mutation"
    ACTION = "Action"
    HTTP_ACTION = "HttpAction"


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One argument of a handler, as its signature has it."""

    name: str
    annotation: Any  # inspect.Parameter.empty when there is none; text under late evaluation
    has_default: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """How arguments become keyword arguments. Made once per function."""

    args: Validator
    # wire name → (name for the handler, conversion or None)
    names: dict[str, tuple[str, Convert | None]]
    # Parameters that get None when their optional argument is absent: they have no default.
    filled: tuple[str, ...]
    # Wire names that must be there although nothing checks the arguments.
    needed: tuple[str, ...]
    # Whether names outside `names` go to the handler as they are (else they are left out).
    takes_rest: bool
    # Whether checked arguments already are the keyword arguments.
    is_direct: bool


class FunctionDef:
    """A query, mutation, action or HTTP action of an app. Made by the decorators; immutable."""

    kind: FunctionKind
    visibility: Visibility
    handler: Callable[..., Coroutine[Any, Any, Any]]
    returns: Validator | None  # checked at run time; only set by `returns=`
    name: str  # as in Python
    file: str
    line: int
    path: str  # canonical, `dir/module.js:function`; empty until an app loads it
    # What the plan is made of, and the plan once it could be made.
    _source: _Handler
    _args_spec: ArgsSpec | None
    _plan: _Plan | None
    _hint: Validator | Literal[False] | None  # False: the return annotation was not read yet

    def __init__(
        self,
        kind: FunctionKind,
        visibility: Visibility,
        handler: Callable[..., Coroutine[Any, Any, Any]],
        *,
        args: ArgsSpec | None = None,
        returns: ReturnsSpec | None = None,
    ) -> None:
        source = _Handler(handler)
        fields = {
            "kind": kind,
            "visibility": visibility,
            "handler": handler,
            "returns": _returns_validator(returns, source),
            "name": source.name,
            "file": source.file,
            "line": source.line,
            "path": "",
            "_source": source,
            "_args_spec": _args_validator(args, source),
            "_plan": None,
            "_hint": False,
        }
        self.__dict__.update(fields)
        functools.update_wrapper(cast("Any", self), handler, updated=())
        source.refuse_redefinition()
        try:
            self._complete()
        except (NameError, AttributeError):
            source.keep_local_names()

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("__"):  # the wrapped function's identity, set by functools
            self.__dict__[name] = value
            return
        raise AttributeError(f"{self!r} cannot be changed")

    def __repr__(self) -> str:
        prefix = "internal_" if self.visibility == "internal" else ""
        return f"<{prefix}{self.kind.value.lower()} {self.path or self.name}>"

    @property
    def is_public(self) -> bool:
        """Whether clients may call it."""
        return self.visibility == "public"

    @property
    def args(self) -> Validator:
        """What arguments must be: an object with camelCase fields, or anything (unchecked)."""
        return (self._plan or self.complete()).args

    @property
    def returns_hint(self) -> Validator | None:
        """What the return annotation promises, for generated types; None when it says nothing."""
        if self._hint is False:
            self.__dict__["_hint"] = self._source.read_return()
        return cast("Validator | None", self._hint)

    def at(self, path: str) -> Self:
        """This function under a canonical path: itself the first time, a copy for a second name."""
        if self.path and self.path != path:
            other = copy.copy(self)
            other.__dict__["path"] = path
            return other
        self.__dict__["path"] = path
        return self

    def complete(self) -> _Plan:
        """Read the annotations that could not be read at definition.

        Raises   BadRequest[InvalidFunction] when a name in them still does not exist
        """
        if self._plan is not None:
            return self._plan
        try:
            return self._complete()
        except (NameError, AttributeError) as error:
            raise self._source.refused(
                f"an annotation of `{self.name}` cannot be read: {error}. Types of arguments are "
                "needed at run time: import them outside `if TYPE_CHECKING`, at module level"
            ) from error

    def _complete(self) -> _Plan:
        if self.kind is FunctionKind.HTTP_ACTION:
            plan = _request_plan(self._source)
        else:
            plan = _make_plan(self._source, self._args_spec)
        self.__dict__["_plan"] = plan
        return plan

    def canonical_args(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments with declared names in camelCase; other names stay as they are.

        Cost     0.3 µs when nothing is to be renamed, and then `args` itself is the answer
        Raises   BadRequest[ArgumentValidation] when one argument is given in both spellings
        """
        names = (self._plan or self.complete()).names
        if args.keys() <= names.keys():
            return args
        renamed: dict[str, Any] = {}
        for name, value in args.items():
            wire = name if name in names else to_wire(name)
            if wire not in names:
                wire = name
            if wire in renamed:
                raise BadRequest(
                    f"Argument `{wire}` is given twice, as {_both(args, wire)}: give it once.",
                    code="ArgumentValidation",
                )
            renamed[wire] = value
        return renamed

    def bind(self, args: dict[str, Any]) -> dict[str, Any]:
        """Checked arguments with canonical names → the handler's keyword arguments.

        Cost     0.1 µs when nothing changes (and then `args` itself is the answer)
        Raises   BadRequest[ArgumentValidation] when a value passed its validator and still cannot
                 become the annotated type: a fraction for an int, a model that refuses it
        """
        plan = self._plan or self.complete()
        if plan.is_direct:
            return args
        names = plan.names
        bound: dict[str, Any] = {}
        wire = ""
        try:
            for wire, value in args.items():
                known = names.get(wire)
                if known is not None:
                    name, convert = known
                    bound[name] = value if convert is None else convert(value)
                elif plan.takes_rest:
                    bound[wire] = value
        except MismatchError as mismatch:
            mismatch.steps.append(f".{wire}")
            raise _mismatch(mismatch.describe()) from mismatch
        for name in plan.filled:
            bound.setdefault(name, None)
        for wire in plan.needed:
            if wire not in args:
                raise _mismatch(f"Object is missing the required field `{wire}`.")
        return bound


class CallableFunction(FunctionDef, Generic[P, R]):
    """A decorated handler. Calling it runs the handler, as a plain function with the same ctx."""

    def __call__(self, ctx: Any, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return self.handler(ctx, *args, **kwargs)


class FunctionDecorator(Generic[C]):
    """`@query` and its kin: bare, or with `args=` and `returns=`. C is the context handlers get.

    Shapes   args: field name → validator, an object validator, or `v.any()` (unchecked); without
             it the annotations of the handler say what arguments are. returns: a validator, or
             field name → validator; without it results are not checked
    Raises   BadRequest[InvalidFunction] naming file, line and remedy
    """

    __slots__ = ("kind", "visibility")

    def __init__(self, kind: FunctionKind, visibility: Visibility) -> None:
        self.kind = kind
        self.visibility: Visibility = visibility

    @overload
    def __call__(
        self, handler: Callable[Concatenate[C, P], Coroutine[Any, Any, R]], /
    ) -> CallableFunction[P, R]: ...

    @overload
    def __call__(
        self, /, *, args: ArgsSpec | None = None, returns: ReturnsSpec | None = None
    ) -> Callable[
        [Callable[Concatenate[C, P], Coroutine[Any, Any, R]]], CallableFunction[P, R]
    ]: ...

    def __call__(
        self,
        handler: Any = None,
        /,
        *,
        args: ArgsSpec | None = None,
        returns: ReturnsSpec | None = None,
    ) -> Any:
        def decorate(handler: Any) -> CallableFunction[..., Any]:
            return self.define(handler, args=args, returns=returns)

        return decorate if handler is None else decorate(handler)

    def define(
        self,
        handler: Callable[..., Coroutine[Any, Any, R]],
        *,
        args: ArgsSpec | None,
        returns: ReturnsSpec | None,
    ) -> CallableFunction[..., R]:
        """What decorating comes to. A derived decorator puts its own handler in between here."""
        return CallableFunction(self.kind, self.visibility, handler, args=args, returns=returns)

    def __repr__(self) -> str:
        return f"<decorator {self.visibility} {self.kind.value}>"


query: Final = FunctionDecorator[QueryCtx](FunctionKind.QUERY, "public")
mutation: Final = FunctionDecorator[MutationCtx](FunctionKind.MUTATION, "public")
action: Final = FunctionDecorator[ActionCtx](FunctionKind.ACTION, "public")


def http_action(
    handler: Callable[[ActionCtx, Any], Coroutine[Any, Any, R]], /
) -> CallableFunction[[Any], R]:
    """A handler of HTTP requests: `async def handler(ctx, request) -> Response`.

    Routes lead to it (`http.route(…, handler=…)`); it cannot be called by name. Routes take plain
    handlers too: the decorator is for handlers that stand in other modules than http.py.

    Raises   BadRequest[InvalidFunction] naming file, line and remedy
    """
    return CallableFunction(FunctionKind.HTTP_ACTION, "public", handler)


internal_query: Final = FunctionDecorator[QueryCtx](FunctionKind.QUERY, "internal")
internal_mutation: Final = FunctionDecorator[MutationCtx](FunctionKind.MUTATION, "internal")
internal_action: Final = FunctionDecorator[ActionCtx](FunctionKind.ACTION, "internal")


class _Handler:
    """What a decorated function looks like from outside, with every rule about it checked."""

    def __init__(self, handler: Any) -> None:
        target = inspect.unwrap(handler) if callable(handler) else handler
        self.name = getattr(target, "__name__", repr(handler))
        code = getattr(target, "__code__", None)
        self.file = code.co_filename if code is not None else "<unknown>"
        self.line = code.co_firstlineno if code is not None else 0
        self.globals: dict[str, Any] = getattr(target, "__globals__", {})
        self._target = target
        # Names around a handler defined inside another function; kept only while types are missing.
        self._local_names: dict[str, Any] | None = None
        self._refuse_what_is_no_coroutine_function(handler)
        self.parameters: list[_Parameter] = []
        self.takes_rest = False  # has **kwargs
        self._read_signature(handler)

    def refused(self, text: str) -> BadRequest:
        """The error for a definition that cannot be, with its place."""
        return BadRequest(f"{self.file}:{self.line}: {text}", code="InvalidFunction")

    def _refuse_what_is_no_coroutine_function(self, handler: Any) -> None:
        name = self.name
        if isinstance(handler, FunctionDef):
            raise BadRequest(
                f"{handler.file}:{handler.line}: `{handler.name}` is decorated twice: keep one of "
                "query, mutation, action and their internal forms",
                code="InvalidFunction",
            )
        if inspect.iscoroutinefunction(handler):
            return
        if inspect.isasyncgenfunction(handler):
            raise self.refused(
                f"`{name}` contains `yield`: a function returns one value. Return a list; a live "
                "query sends each new one by itself"
            )
        if inspect.isfunction(handler):
            raise self.refused(
                f"`{name}` is a plain def, but everything in ctx is awaited: "
                f"write `async def {name}`"
            )
        raise self.refused(f"{name} is no function: decorate an `async def`")

    def _read_signature(self, handler: Any) -> None:
        name = self.name
        parameters = list(inspect.signature(handler).parameters.values())
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise self.refused(
                f"`{name}` takes no context: its first parameter is the ctx, "
                f"`async def {name}(ctx, ...)`"
            )
        for parameter in parameters[1:]:
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                raise self.refused(
                    f"argument `{parameter.name}` of `{name}` is positional-only, but arguments "
                    "are passed by name: move the `/` right behind ctx or leave it out"
                )
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                raise self.refused(
                    f"`{name}` takes *{parameter.name}, but arguments are passed by name: "
                    "take a list, or **kwargs for anything"
                )
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self.takes_rest = True
                continue
            self.parameters.append(
                _Parameter(
                    parameter.name,
                    parameter.annotation,
                    parameter.default is not inspect.Parameter.empty,
                )
            )
        by_wire: dict[str, str] = {}
        for parameter_ in self.parameters:
            other = by_wire.setdefault(to_wire(parameter_.name), parameter_.name)
            if other != parameter_.name:
                raise self.refused(
                    f"arguments `{other}` and `{parameter_.name}` of `{name}` are both "
                    f"`{to_wire(other)}` on the wire: rename one"
                )

    def refuse_redefinition(self) -> None:
        """Refuse a second function of one name in a module: the first would silently be lost."""
        # Only while a module is executed for the first time is an earlier one certainly a mistake:
        # a reload or a notebook defines names again on purpose.
        spec = self.globals.get("__spec__")
        if not getattr(spec, "_initializing", False) or "<locals>" in self._target.__qualname__:
            return
        earlier = self.globals.get(self.name)
        if (
            isinstance(earlier, FunctionDef)
            and earlier.file == self.file
            and earlier.name == self.name
        ):
            raise self.refused(
                f"`{self.name}` is defined a second time (first in line {earlier.line}): "
                "rename one of them"
            )

    def resolve(self, annotation: Any) -> Any:
        """The annotation with its names looked up where the handler was defined."""
        local_names = self._local_names
        if local_names is None and "<locals>" in self._target.__qualname__:
            local_names = _names_around()
        return resolve_annotation(annotation, self.globals, local_names)

    def keep_local_names(self) -> None:
        """Remember the names around the definition, for another try when they are complete."""
        if "<locals>" in self._target.__qualname__:
            self._local_names = _names_around()

    def read(self, parameter: _Parameter) -> Reading:
        """What an argument's annotation means."""
        try:
            return read_annotation(self.resolve(parameter.annotation))
        except (AnnotationRefusedError, BadRequest, SyntaxError, TypeError) as error:
            text = getattr(error, "message", None) or str(error)
            raise self.refused(f"argument `{parameter.name}` of `{self.name}`: {text}") from error

    def read_return(self) -> Validator | None:
        """What the return annotation promises, or None; never an error: nothing depends on it."""
        annotation = self._target.__annotations__.get("return", inspect.Parameter.empty)
        if annotation is inspect.Parameter.empty:
            return None
        try:
            return read_annotation(self.resolve(annotation)).validator
        except (AnnotationRefusedError, BadRequest, NameError, AttributeError, SyntaxError):
            return None
        except TypeError:
            return None


def _names_around() -> dict[str, Any]:
    """The local names of the first frame outside this module and the ones it uses to read types."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return dict(frame.f_locals) if frame is not None else {}


# ---- from a handler and its `args=` to a plan ----


def _args_validator(args: Any, source: _Handler) -> Any:
    if args is None:
        return None
    try:
        validator = v.object(args) if isinstance(args, Mapping) else args
    except BadRequest as error:
        raise source.refused(f"Error in args validator: {error.message}{_LEARN_ARGS}") from error
    if not isinstance(validator, Validator) or validator.kind not in ("object", "any"):
        raise source.refused(
            f"Error in args validator: Args validator must be an object or any{_LEARN_ARGS}"
        )
    return validator


def _returns_validator(returns: Any, source: _Handler) -> Validator | None:
    if returns is None:
        return None
    try:
        validator = v.object(returns) if isinstance(returns, Mapping) else returns
    except BadRequest as error:
        raise source.refused(
            f"Error in returns validator: {error.message}{_LEARN_RETURNS}"
        ) from error
    if not isinstance(validator, Validator):
        raise source.refused(
            f"Error in returns validator: {returns!r} is no validator{_LEARN_RETURNS}"
        )
    return validator


def _make_plan(source: _Handler, args: Any) -> _Plan:
    if isinstance(args, ObjectValidator):
        return _declared_plan(source, args)
    if args is not None or source.takes_rest:
        return _unchecked_plan(source)
    return _annotated_plan(source)


def _request_plan(source: _Handler) -> _Plan:
    """An HTTP action has one argument, the request, which nothing checks."""
    count = len(source.parameters)
    if count == 0 or any(not each.has_default for each in source.parameters[1:]):
        raise source.refused(
            f"`{source.name}` handles HTTP requests: it takes the ctx and the request, "
            f"`async def {source.name}(ctx, request)`"
        )
    return _Plan(v.any(), {}, (), (), True, True)


def _annotated_plan(source: _Handler) -> _Plan:
    """Validators from the annotations."""
    fields: dict[str, Validator] = {}
    names: dict[str, tuple[str, Convert | None]] = {}
    for parameter in source.parameters:
        if parameter.annotation is inspect.Parameter.empty:
            raise source.refused(
                f"argument `{parameter.name}` of `{source.name}` has neither annotation nor "
                f"validator: write `{parameter.name}: str` (or another type), or pass "
                f'args={{"{parameter.name}": v.string()}} to the decorator'
            )
    for parameter in source.parameters:
        reading = source.read(parameter)
        wire = to_wire(parameter.name)
        fields[wire] = v.optional(reading.validator) if parameter.has_default else reading.validator
        names[wire] = (parameter.name, reading.convert)
    try:
        validator = v.object(fields)
    except BadRequest as error:
        raise source.refused(f"arguments of `{source.name}`: {error.message}") from error
    return _Plan(validator, names, (), (), False, _is_direct(names))


def _declared_plan(source: _Handler, args: ObjectValidator) -> _Plan:
    """Validators written out; annotations, where there are any, only say what values become."""
    parameters = {to_wire(parameter.name): parameter for parameter in source.parameters}
    fields: dict[str, Validator] = {}
    names: dict[str, tuple[str, Convert | None]] = {}
    filled: list[str] = []
    for spelled, validator in args.fields.items():
        wire = to_wire(spelled)
        if wire in fields:
            raise source.refused(f"args= of `{source.name}` names `{wire}` in two spellings")
        fields[wire] = validator
        parameter = parameters.pop(wire, None)
        if parameter is None:
            if not source.takes_rest:
                raise source.refused(
                    f"args= of `{source.name}` declares `{spelled}`, which the handler does not "
                    f"take: add the parameter, `async def {source.name}(ctx, ..., {spelled})`"
                )
            names[wire] = (spelled, convert_as(validator))
            continue
        names[wire] = (parameter.name, _conversion(source, parameter, validator))
        if validator.is_optional and not parameter.has_default:
            filled.append(parameter.name)
    for parameter in parameters.values():
        if not parameter.has_default:
            raise source.refused(
                f"argument `{parameter.name}` of `{source.name}` is not declared in args=: declare "
                "it there, or give it a default"
            )
    same = list(fields) == list(args.fields)
    validator = args if same else v.object(fields)
    return _Plan(validator, names, tuple(filled), (), False, not filled and _is_direct(names))


def _conversion(source: _Handler, parameter: _Parameter, validator: Validator) -> Convert | None:
    if parameter.annotation is inspect.Parameter.empty:
        return convert_as(validator)
    try:
        reading = read_annotation(source.resolve(parameter.annotation))
    except (AnnotationRefusedError, BadRequest, SyntaxError, TypeError):
        return convert_as(validator)  # the validator alone decides; the annotation is for people
    if reading.convert is None:
        return convert_as(validator)
    return reading.convert if reading.validator == validator else guarded(reading)


def _unchecked_plan(source: _Handler) -> _Plan:
    """Any object. Parameters the handler names are still converted, and checked for that."""
    names: dict[str, tuple[str, Convert | None]] = {}
    needed: list[str] = []
    for parameter in source.parameters:
        wire = to_wire(parameter.name)
        if parameter.annotation is inspect.Parameter.empty:
            names[wire] = (parameter.name, None)
        else:
            reading = source.read(parameter)
            is_any = reading.validator.kind == "any" and reading.convert is None
            names[wire] = (parameter.name, None if is_any else guarded(reading))
        if not parameter.has_default:
            needed.append(wire)
    is_direct = source.takes_rest and not needed and _is_direct(names)
    return _Plan(v.any(), names, (), tuple(needed), source.takes_rest, is_direct)


def _is_direct(names: Mapping[str, tuple[str, Convert | None]]) -> bool:
    return all(wire == name and convert is None for wire, (name, convert) in names.items())


def _mismatch(text: str) -> BadRequest:
    return BadRequest(f"ArgumentValidationError: {text}", code="ArgumentValidation")


def _both(args: Mapping[str, Any], wire: str) -> str:
    return " and ".join(f"`{name}`" for name in args if to_wire(name) == to_wire(wire))
