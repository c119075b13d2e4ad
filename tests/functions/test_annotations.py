# ruff: noqa: UP037 - Id["table"] names a table, it is no forward reference
"""Annotations: which validator each form means, and what values become."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    Union,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel

from reactive_store.functions.annotations import (
    AnnotationRefusedError,
    MismatchError,
    convert_as,
    guarded,
    read_annotation,
    resolve_annotation,
)
from reactive_store.functions.pagination import Page, PaginationOpts
from reactive_store.schema.validators import v
from reactive_store.values.document import Document
from reactive_store.values.value import UNSET, Id, IdOf, Int64, Unset

UserId = NewType("UserId", str)


class Colour(enum.Enum):
    RED = "red"


class Point(TypedDict):
    x: float
    y: float
    label: NotRequired[str]


class Loose(TypedDict, total=False):
    owner: Required[Id["users"]]
    size: int


class Tree(TypedDict):
    name: str
    children: list[Tree]


@dataclass
class Span:
    start: int
    end: int
    tags: list[str] = field(default_factory=list)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ValueError("a span ends after it starts")
        self.length = self.end - self.start


@dataclass
class Chain:
    rest: Chain | None


class Config(BaseModel):
    count: int = Field(gt=0)
    mode: Literal["fast", "slow"] = "fast"
    owner: Annotated[Id, IdOf("users")] | None = None
    spans: list[Span] = []


class Aliased(BaseModel):
    shown_name: str = Field(alias="shownName")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Numbers(RootModel[list[int]]):
    pass


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


SPAN = v.object({"start": v.number(), "end": v.number(), "tags": v.optional(v.array(v.string()))})


@pytest.mark.parametrize(
    ("annotation", "validator"),
    [
        (str, v.string()),
        (int, v.number()),
        (float, v.number()),
        (int | float, v.number()),
        (bool, v.boolean()),
        (bytes, v.bytes()),
        (None, v.null()),
        (Any, v.any()),
        (Document, v.any()),
        (Int64, v.int64()),
        (Id["users"], v.id("users")),
        (Annotated[Id, IdOf("users")], v.id("users")),
        (Id, v.string()),
        (UserId, v.string()),
        (list, v.array(v.any())),
        (list[str], v.array(v.string())),
        (Sequence[Id["users"]], v.array(v.id("users"))),
        (tuple[int, ...], v.array(v.number())),
        (dict, v.record(v.string(), v.any())),
        (dict[str, int], v.record(v.string(), v.number())),
        (Mapping[Id["users"], bool], v.record(v.id("users"), v.boolean())),
        (str | None, v.nullable(v.string())),
        (Optional[str], v.nullable(v.string())),  # noqa: UP045
        (Union[str, int, None], v.union(v.string(), v.number(), v.null())),  # noqa: UP007
        (str | Unset, v.string()),
        (Literal["a"], v.literal("a")),
        (
            Literal["a", 1, True, None],  # noqa: PYI061 - the form itself is what is read
            v.union(v.literal("a"), v.literal(1), v.literal(True), v.null()),
        ),
        (Annotated[str, "documentation"], v.string()),
        (Annotated[Any, v.literals("a", "b")], v.literals("a", "b")),
        (Annotated[int, Field(ge=0)], v.number()),
        (
            Point,
            v.object({"x": v.number(), "y": v.number(), "label": v.optional(v.string())}),
        ),
        (Loose, v.object({"owner": v.id("users"), "size": v.optional(v.number())})),
        (Tree, v.object({"name": v.string(), "children": v.array(v.any())})),
        (Span, SPAN),
        (
            Config,
            v.object(
                {
                    "count": v.number(),
                    "mode": v.optional(v.literals("fast", "slow")),
                    "owner": v.optional(v.nullable(v.id("users"))),
                    "spans": v.optional(v.array(SPAN)),
                }
            ),
        ),
        (Aliased, v.object({"shownName": v.string()})),
        (Open, v.any()),
        (Numbers, v.array(v.number())),
        (Node, v.object({"name": v.string(), "children": v.optional(v.array(v.any()))})),
    ],
)  # fmt: skip
def test_each_form_means_a_validator(annotation: Any, validator: object):
    assert read_annotation(annotation).validator == validator


@pytest.mark.parametrize(
    ("annotation", "remedy"),
    [
        (Colour, "Literal"),
        (dt.datetime, "milliseconds"),
        (dt.timedelta, "seconds"),
        (uuid.UUID, "annotate str"),
        (Decimal, "annotate str or float"),
        (set[str], "does not describe a value"),
        (set, "list"),
        (tuple[int, str], "fixed length"),
        (dict[int, str], "keys of an object are strings"),
        (Literal[b"x"], "cannot be a literal"),
        (Chain, "contains itself"),
        (type, "does not describe a value"),
        (list[Colour], "Literal"),
    ],
)
def test_what_no_value_can_be_is_refused_with_a_remedy(annotation: Any, remedy: str):
    with pytest.raises(AnnotationRefusedError, match=remedy):
        read_annotation(annotation)


def test_a_refused_field_is_named():
    @dataclass
    class Event:
        at: dt.datetime

    with pytest.raises(AnnotationRefusedError, match=r"field at of .*Event: datetime"):
        read_annotation(Event)


@pytest.mark.parametrize(
    "annotation",
    [str, float, bool, Any, list[str], dict[str, float], Point, Tree, str | None, Literal["a"]],
)
def test_nothing_runs_where_nothing_changes(annotation: Any):
    assert read_annotation(annotation).convert is None


@given(st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=True)))
def test_an_int_is_whole_or_refused(number: float):
    convert = read_annotation(int).convert
    assert convert is not None
    if isinstance(number, int) or number.is_integer():
        whole = convert(number)
        assert type(whole) is int
        assert whole == number
    else:
        with pytest.raises(MismatchError):
            convert(number)


def converted(annotation: Any, value: Any) -> Any:
    reading = read_annotation(annotation)
    return value if reading.convert is None else reading.convert(value)


def test_ids_know_their_table_at_any_depth():
    found = converted(list[Id["users"]], ["a", "b"])
    assert [(type(i), i, i.table) for i in found] == [(Id, "a", "users"), (Id, "b", "users")]
    assert converted(Id["users"] | None, None) is None
    assert converted(Id["users"] | None, "a").table == "users"
    assert converted(dict[str, Id["users"]], {"k": "a"})["k"].table == "users"
    assert converted(Loose, {"owner": "a"})["owner"].table == "users"
    # Which of two tables it is, only the database knows.
    assert converted(Id["users"] | Id["teams"], "a") == "a"


def test_written_out_validators_convert_ids_too():
    validator = v.object(
        {"a": v.id("t"), "b": v.array(v.id("t")), "c": v.record(v.string(), v.id("t")),
         "d": v.nullable(v.id("t")), "e": v.string(), "f": v.optional(v.id("t"))}
    )  # fmt: skip
    convert = convert_as(validator)
    assert convert is not None
    value = {"a": "1", "b": ["2"], "c": {"k": "3"}, "d": None, "e": "5"}
    result = convert(value)
    assert [result["a"].table, result["b"][0].table, result["c"]["k"].table] == ["t", "t", "t"]
    assert type(value["a"]) is str
    assert convert_as(v.array(v.string())) is None


def test_structures_arrive_as_annotated():
    assert converted(tuple[int, ...], [1, 2.0]) == (1, 2)
    assert converted(Span, {"start": 1, "end": 3}) == Span(1, 3)
    assert converted(list[Span], [{"start": 1, "end": 3, "tags": ["x"]}]) == [Span(1, 3, ["x"])]
    config = converted(Config, {"count": 2, "owner": "u1", "spans": [{"start": 0, "end": 1}]})
    assert config == Config(count=2, owner=Id("u1", "users"), spans=[Span(0, 1)])
    assert config.owner.table == "users"
    assert converted(Aliased, {"shownName": "n"}).shown_name == "n"
    assert converted(Open, {"name": "n", "more": 1}).more == 1
    assert converted(Numbers, [1, 2]).root == [1, 2]
    assert converted(Node, {"name": "a", "children": [{"name": "b"}]}).children == [Node(name="b")]
    assert converted(Page, {"page": []}) == {"page": []}


def test_a_union_picks_the_member_that_fits():
    pet = Cat | Dog | str
    assert converted(pet, {"kind": "cat", "lives": 9}) == Cat(kind="cat", lives=9)
    assert converted(pet, {"kind": "dog", "name": "Rex"}) == Dog(kind="dog", name="Rex")
    assert converted(pet, "none") == "none"
    tagged = Annotated[Cat | Dog, Field(discriminator="kind")]
    assert converted(tagged, {"kind": "dog", "name": "Rex"}) == Dog(kind="dog", name="Rex")
    with pytest.raises(MismatchError):
        converted(Span | int, {"start": 2, "end": 1})


@pytest.mark.parametrize(
    ("annotation", "value", "lines"),
    [
        (
            list[int],
            [1, 2.5],
            ["Value does not match validator.", "Path: [1]", "Value: 2.5",
             "Validator: v.float64() without a fraction (int)"],
        ),
        (
            dict[str, list[int]],
            {"k": [0.5]},
            ["Value does not match validator.", "Path: .values()[0]", "Value: 0.5",
             "Validator: v.float64() without a fraction (int)"],
        ),
        (
            Config,
            {"count": 0},
            ["Input should be greater than 0.", "Path: .count", "Value: 0.0", "Validator: Config"],
        ),
        (
            Span,
            {"start": 2, "end": 1},
            ["a span ends after it starts", "", "Value: {end: 1.0, start: 2.0}", "Validator: Span"],
        ),
    ],
)  # fmt: skip
def test_a_value_that_cannot_become_the_type_is_refused_with_its_place(
    annotation: Any, value: Any, lines: list[str]
):
    with pytest.raises(MismatchError) as caught:
        converted(annotation, value)
    assert caught.value.describe().split("\n") == lines


def test_constraints_in_annotated_are_enforced_on_what_the_handler_gets():
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    assert converted(Annotated[int, Field(ge=1), AfterValidator(even)], 2.0) == 2
    with pytest.raises(MismatchError, match="greater than or equal to 1"):
        converted(Annotated[int, Field(ge=1)], 0)
    with pytest.raises(MismatchError, match="odd"):
        converted(Annotated[int, AfterValidator(even)], 3)
    with pytest.raises(MismatchError, match="at most 2"):
        converted(Annotated[list[str], Field(max_length=2)], ["a", "b", "c"])


def test_pagination_options_are_what_clients_send():
    reading = read_annotation(PaginationOpts)
    assert reading.validator == v.object(
        {
            "numItems": v.number(),
            "cursor": v.nullable(v.string()),
            "endCursor": v.optional(v.nullable(v.string())),
            "id": v.optional(v.number()),
            "maximumRowsRead": v.optional(v.number()),
            "maximumBytesRead": v.optional(v.number()),
        }
    )
    options = converted(PaginationOpts, {"numItems": 5, "cursor": None})
    assert type(options) is PaginationOpts
    assert options == PaginationOpts(num_items=5)


def test_an_unchecked_value_of_the_wrong_shape_is_refused_before_it_is_converted():
    convert = guarded(read_annotation(Span))
    assert convert({"start": 0, "end": 1}) == Span(0, 1)
    with pytest.raises(MismatchError):
        convert("text")
    with pytest.raises(MismatchError):
        guarded(read_annotation(int))("1")


def test_annotations_written_as_text_find_their_names():
    assert resolve_annotation("list[Point]", globals()) == list[Point]
    assert resolve_annotation(None, {}) is type(None)
    assert resolve_annotation("Here", {}, {"Here": int}) is int
    with pytest.raises(NameError):
        resolve_annotation("Nowhere", {})


def test_a_model_that_waits_for_a_type_is_read_when_the_type_exists():
    class Waiting(BaseModel):
        part: Later

    with pytest.raises(NameError, match="Waiting"):
        read_annotation(Waiting)

    class Later(BaseModel):
        x: int

    Waiting.model_rebuild(_types_namespace={"Later": Later})
    assert read_annotation(Waiting).validator == v.object({"part": v.object({"x": v.number()})})


def test_models_hold_ids_and_bigints():
    class Holder(BaseModel):
        owner: Annotated[Id, IdOf("users")]
        plain: Id
        big: Int64

    held = Holder(owner="u1", plain="p1", big=Int64(2**60))
    assert (type(held.owner), held.owner.table) == (Id, "users")
    assert held.plain == "p1"
    assert type(held.big) is Int64
    assert UNSET not in (held.owner, held.plain)
