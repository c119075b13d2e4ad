"""What an argument's annotation means: a validator, and how a checked value becomes the type.

`read_annotation` turns a resolved annotation into a `Reading`. Its validator decides what the wire
may carry; its `convert`, when there is one, receives a value that passed the validator and returns
what the handler was promised: an `Id` that knows its table, a model, a dataclass, a whole number.
Most annotations need no conversion, and then nothing runs.

Models and dataclasses keep the names of their fields (or the models' aliases): only the names of
arguments themselves change between Python and the wire.

Source of facts: docs/reference/functions.md, "Annotations".
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from reactive_store.errors import BadRequest
from reactive_store.functions.pagination import Page, PaginationFields, PaginationOpts
from reactive_store.schema.validators import (
    ArrayValidator,
    IdValidator,
    ObjectValidator,
    RecordValidator,
    UnionValidator,
    Validator,
    v,
)
from reactive_store.values.document import Document
from reactive_store.values.render import render
from reactive_store.values.value import Id, IdOf, Int64, Unset, normalize

__all__ = [
    "AnnotationRefusedError",
    "Convert",
    "MismatchError",
    "Reading",
    "convert_as",
    "guarded",
    "read_annotation",
    "resolve_annotation",
]

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What an annotation means."""

    validator: Validator
    convert: Convert | None = None  # None: the checked value is what the handler gets


class AnnotationRefusedError(Exception):
    """The annotation cannot describe a value. The text says what to write instead."""


class MismatchError(Exception):
    """A value has the right shape and still cannot become the annotated type."""

    def __init__(self, message: str, value: object, expected: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.expected = expected
        # Steps to the offending part, innermost first; containers append on the way out.
        self.steps: list[str] = []

    def describe(self) -> str:
        """The text, in the form of a validator's: reason, path, value, what was expected."""
        steps = "".join(reversed(self.steps))
        lines = [self.message, f"Path: {steps}" if steps else "", f"Value: {_shown(self.value)}"]
        return "\n".join([*lines, f"Validator: {self.expected}"] if self.expected else lines)


def resolve_annotation(
    annotation: Any, global_names: dict[str, Any], local_names: Mapping[str, Any] | None = None
) -> Any:
    """The annotation with every name in it looked up, also when it was written as text.

    Raises   NameError or AttributeError while a name does not exist (yet); SyntaxError, TypeError
    """
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    names = None if local_names is None else dict(local_names)
    return typing.get_type_hints(holder, global_names, names, include_extras=True)["it"]


def read_annotation(annotation: Any) -> Reading:
    """What a resolved annotation means.

    Raises   AnnotationRefusedError with the remedy; NameError while a model refers to a type that
             does not exist yet
    """
    return _read(annotation, ())


def convert_as(validator: Validator) -> Convert | None:
    """How a value that passed a written-out validator reaches the handler: ids know their table."""
    if isinstance(validator, IdValidator):
        return _to_id(validator.table)
    if isinstance(validator, ArrayValidator):
        return _each_item(convert_as(validator.element))
    if isinstance(validator, RecordValidator):
        return _each_value(convert_as(validator.value))
    if isinstance(validator, ObjectValidator):
        return _each_field({name: convert_as(part) for name, part in validator.fields.items()})
    if isinstance(validator, UnionValidator):
        return _choose([Reading(member, convert_as(member)) for member in validator.members])
    return None


def guarded(reading: Reading) -> Convert:
    """The conversion for a value that nobody has checked: wrong shapes are refused first."""

    def convert(value: Any) -> Any:
        if not reading.validator.matches(value, _ANY_TABLES):
            raise MismatchError("Value does not match validator.", value, repr(reading.validator))
        return value if reading.convert is None else reading.convert(value)

    return convert


class _AnyName(str):
    """Equal to every table name: ids were checked before, or belong to no table we know."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)


class _AnyTables:
    def table_name(self, number: int) -> str | None:
        return _AnyName()


_ANY_TABLES: Final = _AnyTables()


# ---- reading: one function per form of annotation; `within` holds the types being read ----


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise MismatchError(
        "Value does not match validator.", value, "v.float64() without a fraction (int)"
    )


_PLAIN: Final[dict[Any, Reading]] = {
    str: Reading(v.string()),
    bool: Reading(v.boolean()),
    int: Reading(v.number(), _whole),
    # An integral number may arrive as int, which Python takes for a float everywhere.
    float: Reading(v.number()),
    Int64: Reading(v.int64()),
    bytes: Reading(v.bytes()),
    None: Reading(v.null()),
    type(None): Reading(v.null()),
    Any: Reading(v.any()),
    object: Reading(v.any()),
    Document: Reading(v.any()),
    Page: Reading(
        v.object(
            {
                "page": v.array(v.any()),
                "isDone": v.boolean(),
                "continueCursor": v.string(),
                "splitCursor": v.optional(v.nullable(v.string())),
                "pageStatus": v.optional(
                    v.union(v.literal("SplitRecommended"), v.literal("SplitRequired"), v.null())
                ),
            }
        )
    ),
    # The table is in the id's own text; without a name for it the text stays as it is.
    Id: Reading(v.string()),
    list: Reading(v.array(v.any())),
    tuple: Reading(v.array(v.any()), tuple),
    dict: Reading(v.record(v.string(), v.any())),
    Sequence: Reading(v.array(v.any())),
    Mapping: Reading(v.record(v.string(), v.any())),
}

_REMEDIES: Final[tuple[tuple[type, str], ...]] = (
    (enum.Enum, "annotate the values themselves, Literal['a', 'b']"),
    (dt.date, "send Unix milliseconds and annotate float"),
    (dt.timedelta, "send seconds and annotate float"),
    (dt.time, "send text and annotate str"),
    (decimal.Decimal, "send text or a number and annotate str or float"),
    (uuid.UUID, "send text and annotate str"),
    (complex, "send two numbers and annotate list[float]"),
    (set, "send a list and annotate list[...]"),
    (frozenset, "send a list and annotate list[...]"),
    (bytearray, "annotate bytes"),
    (memoryview, "annotate bytes"),
    (tuple, "annotate list[...], or a TypedDict or dataclass with named fields"),
)
_UNDERSTOOD: Final = (
    "annotate str, int, float, bool, bytes, None, Any, Int64, Id['table'], list[...], "
    "dict[str, ...], Literal[...], T | None, a TypedDict, a dataclass or a pydantic model, "
    "or write the validators out with args="
)


def _read(hint: Any, within: tuple[type, ...]) -> Reading:
    try:
        plain = _PLAIN.get(hint)
    except TypeError:  # an unhashable part, as in Annotated[str, []]
        plain = None
    if plain is not None:
        return plain
    origin = get_origin(hint)
    if origin is not None:
        read = _GENERIC.get(origin)
        if read is not None:
            return read(hint, within)
        if isinstance(origin, type) and issubclass(origin, BaseModel):  # pragma: no cover
            return _read_model(origin, within)
        if isinstance(origin, type) and dataclasses.is_dataclass(origin):
            raise AnnotationRefusedError(f"{hint!r} is generic: write a class for this case")
    if isinstance(hint, type):
        return _read_class(hint, within)
    if isinstance(hint, NewType):
        return _read(hint.__supertype__, within)
    if hasattr(hint, "__value__"):  # type X = ... of Python 3.12
        return _read(hint.__value__, within)
    raise AnnotationRefusedError(f"{_name(hint)} does not describe a value: {_UNDERSTOOD}")


def _read_class(hint: type, within: tuple[type, ...]) -> Reading:
    if typing.is_typeddict(hint):
        return _read_typed_dict(hint, within)
    if hint is PaginationOpts:
        return Reading(_read_typed_dict(PaginationFields, within).validator, PaginationOpts)
    if issubclass(hint, BaseModel):
        return _read_model(hint, within)
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, within)
    remedy = next((text for kind, text in _REMEDIES if issubclass(hint, kind)), _UNDERSTOOD)
    raise AnnotationRefusedError(f"{_name(hint)} does not describe a value: {remedy}")


def _read_list(hint: Any, within: tuple[type, ...]) -> Reading:
    (item,) = get_args(hint)
    element = _read(item, within)
    return Reading(v.array(element.validator), _each_item(element.convert))


def _read_tuple(hint: Any, within: tuple[type, ...]) -> Reading:
    items = get_args(hint)
    if len(items) != 2 or items[1] is not Ellipsis:
        raise AnnotationRefusedError(
            f"{_name(hint)} has a fixed length, which validators cannot say: annotate "
            "tuple[T, ...] or list[T], or a TypedDict or dataclass with named fields"
        )
    element = _read(items[0], within)
    each = _each_item(element.convert)
    return Reading(
        v.array(element.validator), tuple if each is None else lambda value: tuple(each(value))
    )


def _read_dict(hint: Any, within: tuple[type, ...]) -> Reading:
    key, item = get_args(hint)
    keys = _read(key, within).validator
    value = _read(item, within)
    if keys.kind not in ("string", "id"):
        raise AnnotationRefusedError(
            f"{_name(hint)}: the keys of an object are strings: annotate dict[str, ...]"
        )
    return Reading(v.record(keys, value.validator), _each_value(value.convert))


def _read_literal(hint: Any, within: tuple[type, ...]) -> Reading:
    members: list[Validator] = []
    for value in get_args(hint):
        if value is None:
            members.append(v.null())
        elif isinstance(value, (str, int)) and not isinstance(value, enum.Enum):
            members.append(v.literal(value))
        else:
            raise AnnotationRefusedError(
                f"{value!r} cannot be a literal: use strings, integers, booleans or None"
            )
    return Reading(members[0] if len(members) == 1 else v.union(*members))


def _read_union(hint: Any, within: tuple[type, ...]) -> Reading:
    readings = [_read(part, within) for part in get_args(hint) if part is not Unset]
    distinct: dict[Validator, Reading] = {}
    for reading in readings:
        # `int | float` is a number: of two that take the same values the plain one wins.
        if reading.validator not in distinct or reading.convert is None:
            distinct[reading.validator] = reading
    members = list(distinct.values())
    if len(members) == 1:
        return members[0]
    return Reading(v.union(*distinct), _choose(members))


def _read_annotated(hint: Any, within: tuple[type, ...]) -> Reading:
    bare, *metadata = get_args(hint)
    for item in metadata:
        if isinstance(item, Validator):
            return Reading(item, convert_as(item))
        if isinstance(item, IdOf):
            return Reading(v.id(item.table), _to_id(item.table))
    reading = _read(bare, within)
    if any(isinstance(item, FieldInfo) and item.discriminator for item in metadata):
        return Reading(reading.validator, _validated_by(hint))
    constraints = [item for item in metadata if not isinstance(item, str)]
    if not constraints:
        return reading
    # Constraints (Field(gt=0), AfterValidator(...)) apply to what the handler would get.
    constrain = _validated_by(Annotated[(Any, *constraints)])
    first = reading.convert
    if first is None:
        return Reading(reading.validator, constrain)
    return Reading(reading.validator, lambda value: constrain(first(value)))


def _read_wrapped(hint: Any, within: tuple[type, ...]) -> Reading:
    return _read(get_args(hint)[0], within)


def _read_typed_dict(hint: Any, within: tuple[type, ...]) -> Reading:
    if hint in within:  # validators are finite; what lies deeper is taken as it comes
        return Reading(v.any())
    fields: dict[str, Validator] = {}
    converts: dict[str, Convert | None] = {}
    for name, part in typing.get_type_hints(hint, include_extras=True).items():
        reading = _field(hint, name, part, (*within, hint))
        # Annotations kept as text hide NotRequired from the class, so the wrapper itself decides.
        wrappers = set(_wrappers(part))
        required = typing.Required in wrappers or (
            typing.NotRequired not in wrappers and name in hint.__required_keys__
        )
        fields[name] = reading.validator if required else v.optional(reading.validator)
        converts[name] = reading.convert
    return Reading(v.object(fields), _each_field(converts))


def _read_dataclass(hint: Any, within: tuple[type, ...]) -> Reading:
    if hint in within:
        raise AnnotationRefusedError(
            f"{_name(hint)} contains itself, which validators cannot say: annotate the inner part "
            "as Any and build it in the handler"
        )
    hints = typing.get_type_hints(hint, include_extras=True)
    fields: dict[str, Validator] = {}
    converts: dict[str, Convert | None] = {}
    for field in dataclasses.fields(hint):
        if not field.init:
            continue
        reading = _field(hint, field.name, hints[field.name], (*within, hint))
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        fields[field.name] = v.optional(reading.validator) if has_default else reading.validator
        converts[field.name] = reading.convert
    each = _each_field(converts)

    def build(value: dict[str, Any]) -> Any:
        arguments = value if each is None else each(value)
        try:
            return hint(**arguments)
        except ValidationError as error:
            raise _from_pydantic(error, value) from error
        except ValueError as error:  # its __post_init__ does not want this value
            raise MismatchError(str(error), value, _name(hint)) from error

    return Reading(v.object(fields), build)


def _read_model(hint: type[BaseModel], within: tuple[type, ...]) -> Reading:
    if hint in within:  # the outer model checks the inner one itself
        return Reading(v.any())
    if not hint.__pydantic_complete__ and hint.model_rebuild(raise_errors=False) is not True:
        raise NameError(f"{_name(hint)} refers to a type that is not defined")
    convert = _validated_by(hint)
    fields: dict[str, Validator] = {}
    for name, info in hint.model_fields.items():
        if hint.__pydantic_root_model__:
            return Reading(_field_validator(hint, name, info, (*within, hint)), convert)
        alias = info.validation_alias if info.validation_alias is not None else info.alias
        if alias is not None and not isinstance(alias, str):
            return Reading(v.any(), convert)  # several places to read from: only pydantic knows
        part = _field_validator(hint, name, info, (*within, hint))
        fields[alias or name] = part if info.is_required() else v.optional(part)
    if hint.model_config.get("extra") == "allow":
        return Reading(v.any(), convert)
    return Reading(v.object(fields), convert)


def _field_validator(
    owner: type, name: str, info: FieldInfo, within: tuple[type, ...]
) -> Validator:
    for item in info.metadata:
        if isinstance(item, IdOf):
            return v.id(item.table)
        if isinstance(item, Validator):
            return item
    return _field(owner, name, info.annotation, within).validator


def _field(owner: Any, name: str, hint: Any, within: tuple[type, ...]) -> Reading:
    try:
        return _read(hint, within)
    except AnnotationRefusedError as error:
        raise AnnotationRefusedError(f"field {name} of {_name(owner)}: {error}") from error


_GENERIC: Final[dict[Any, Callable[[Any, tuple[type, ...]], Reading]]] = {
    list: _read_list,
    Sequence: _read_list,
    MutableSequence: _read_list,
    Iterable: _read_list,
    tuple: _read_tuple,
    dict: _read_dict,
    Mapping: _read_dict,
    MutableMapping: _read_dict,
    Literal: _read_literal,
    Union: _read_union,
    types.UnionType: _read_union,
    Annotated: _read_annotated,
    typing.Required: _read_wrapped,
    typing.NotRequired: _read_wrapped,
    typing.Final: _read_wrapped,
}


def _wrappers(hint: Any) -> Iterable[Any]:
    """Required, NotRequired and Annotated around a hint, outermost first."""
    while (origin := get_origin(hint)) in (typing.Required, typing.NotRequired, Annotated):
        yield origin
        hint = get_args(hint)[0]


# ---- converting ----


def _to_id(table: str) -> Convert:
    def convert(value: str) -> Id:
        return Id(value, table)

    return convert


def _each_item(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None

    def convert_items(value: list[Any]) -> list[Any]:
        items: list[Any] = []
        try:
            for item in value:
                items.append(convert(item))  # noqa: PERF401 - the length is the index of a failure
        except MismatchError as mismatch:
            mismatch.steps.append(f"[{len(items)}]")
            raise
        return items

    return convert_items


def _each_value(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None

    def convert_values(value: dict[str, Any]) -> dict[str, Any]:
        try:
            return {name: convert(item) for name, item in value.items()}
        except MismatchError as mismatch:
            mismatch.steps.append(".values()")
            raise

    return convert_values


def _each_field(converts: Mapping[str, Convert | None]) -> Convert | None:
    needed = {name: convert for name, convert in converts.items() if convert is not None}
    if not needed:
        return None

    def convert_fields(value: dict[str, Any]) -> dict[str, Any]:
        fields = dict(value)
        for name, convert in needed.items():
            if name in fields:
                try:
                    fields[name] = convert(fields[name])
                except MismatchError as mismatch:
                    mismatch.steps.append(f".{name}")
                    raise
        return fields

    return convert_fields


def _choose(members: Sequence[Reading]) -> Convert | None:
    """The conversion of a union: by the first member that takes the value."""
    converting = [member for member in members if member.convert is not None]
    if not converting:
        return None
    if sum(isinstance(member.validator, IdValidator) for member in members) > 1:
        # Which table an id is of, only the database knows: such an id stays a plain string.
        return _choose([m for m in members if not isinstance(m.validator, IdValidator)])
    first = converting[0].convert
    assert first is not None
    if len(converting) == 1 and all(
        member.convert is not None or member.validator.kind == "null" for member in members
    ):
        return lambda value: None if value is None else first(value)

    def convert(value: Any) -> Any:
        refusal: MismatchError | None = None
        for member in members:
            if member.validator.matches(value, _ANY_TABLES):
                if member.convert is None:
                    return value
                try:
                    return member.convert(value)
                except MismatchError as mismatch:
                    refusal = refusal or mismatch
        if refusal is not None:
            raise refusal
        return value

    return convert


def _validated_by(hint: Any) -> Convert:
    """Conversion by pydantic."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise AnnotationRefusedError(f"pydantic refuses {_name(hint)}: {error}") from error

    def convert(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise _from_pydantic(error, value) from error

    return convert


def _from_pydantic(error: ValidationError, value: object) -> MismatchError:
    first = error.errors(include_url=False, include_context=False)[0]
    mismatch = MismatchError(f"{first['msg']}.", first["input"], error.title)
    for step in reversed(first["loc"]):
        mismatch.steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    if first["type"] == "missing":
        mismatch.value = value
    return mismatch


def _shown(value: object) -> str:
    try:
        return render(normalize(value))
    except BadRequest:  # no value of the database, like what a model made of one
        return repr(value)


def _name(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) else str(hint).replace("typing.", "")


# ---- what models need to hold our own types; here, because values know nothing of pydantic ----


def _after(schema: str, function: Convert) -> dict[str, Any]:
    """Pydantic's own description of "validate as this, then call"."""
    return {
        "type": "function-after",
        "function": {"type": "no-info", "function": function},
        "schema": {"type": schema},
    }


def _schema_of_id(self: IdOf, _source: Any, _handler: Any) -> dict[str, Any]:
    return _after("str", _to_id(self.table))


def _schema_of_bare_id(_source: Any, _handler: Any) -> dict[str, Any]:
    return {"type": "str"}


def _schema_of_int64(_source: Any, _handler: Any) -> dict[str, Any]:
    return _after("int", Int64)


_HOOK: Final = "__get_pydantic_core_schema__"
setattr(IdOf, _HOOK, _schema_of_id)
setattr(Id, _HOOK, staticmethod(_schema_of_bare_id))
setattr(Int64, _HOOK, staticmethod(_schema_of_int64))
