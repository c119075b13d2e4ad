"""Decorators: what they make of a handler, what they refuse, how arguments reach it."""

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from reactive_store.errors import BadRequest
from reactive_store.functions.definitions import (
    FunctionDef,
    FunctionKind,
    action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from reactive_store.functions.names import to_wire
from reactive_store.schema.validators import v
from reactive_store.values.value import UNSET, Id, IdOf, Unset


class Options(TypedDict):
    depth: int
    note: NotRequired[str]


@dataclass
class Span:
    start: int
    end: int = 10


class Config(BaseModel):
    count: int = Field(gt=0)


class NoTables:
    def table_name(self, number: int) -> str | None:
        return "experiments"


async def call(function: FunctionDef, args: dict[str, Any]) -> Any:
    """What the runner does: rename, check, bind, call."""
    canonical = dict(function.canonical_args(args))
    function.args.check(canonical, NoTables())
    return await function.handler(None, **function.bind(canonical))


def refusal(decorate: Any, *rest: Any, **options: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        decorate(*rest, **options)
    assert caught.value.code == "InvalidFunction"
    assert __file__ in caught.value.message
    return caught.value.message


# ---- what a decorated function is ----


@pytest.mark.parametrize(
    ("decorator", "kind", "visibility"),
    [
        (query, "Query", "public"),
        (mutation, "Mutation", "public"),
        (action, "Action", "public"),
        (internal_query, "Query", "internal"),
        (internal_mutation, "Mutation", "internal"),
        (internal_action, "Action", "internal"),
    ],
)
def test_the_decorator_says_kind_and_visibility(decorator: Any, kind: str, visibility: str):
    @decorator
    async def bare(ctx) -> None:
        """What it does."""

    @decorator()
    async def empty(ctx) -> None: ...

    for function in (bare, empty):
        assert function.kind is FunctionKind(kind)
        assert function.visibility == visibility
        assert function.is_public == (visibility == "public")
    assert bare.__doc__ == "What it does."
    assert bare.__name__ == bare.name == "bare"
    assert bare.file == __file__
    assert bare.line == bare.handler.__code__.co_firstlineno


def test_a_function_is_immutable_and_has_one_path():
    @query
    async def here(ctx) -> None: ...

    with pytest.raises(AttributeError, match="cannot be changed"):
        here.kind = FunctionKind.ACTION
    assert here.path == ""
    assert here.at("a.js:here") is here
    other = here.at("a.js:there")
    assert (here.path, other.path) == ("a.js:here", "a.js:there")
    assert other.handler is here.handler
    assert repr(here) == "<query a.js:here>"


async def test_calling_it_runs_the_handler_with_the_same_ctx():
    @query
    async def double(ctx, number: int) -> tuple:
        return ctx, number * 2

    assert await double("ctx", 4) == ("ctx", 8)
    assert await double("ctx", number=4) == ("ctx", 8)


# ---- arguments from annotations ----


def test_annotations_become_an_object_with_wire_names():
    @query
    async def find(
        ctx, experiment_id: Id["experiments"], limit: int = 100, by: str | None = None
    ): ...

    assert find.args == v.object(
        {
            "experimentId": v.id("experiments"),
            "limit": v.optional(v.number()),
            "by": v.optional(v.nullable(v.string())),
        }
    )


async def test_arguments_arrive_under_their_python_names_as_annotated():
    @query
    async def everything(
        ctx,
        *,
        experiment_id: Id["experiments"],
        spans: list[Span],
        config: Config,
        options: Options,
        limit: int = 7,
        note: str | Unset = UNSET,
    ):
        return experiment_id, spans, config, options, limit, note

    key = "k0000000000000000000000000000000"
    args = {
        "experimentId": key,
        "spans": [{"start": 1}, {"start": 2, "end": 3}],
        "config": {"count": 2},
        "options": {"depth": 3.0},
    }
    bound = everything.bind(args)
    assert bound == {
        "experiment_id": key,
        "spans": [Span(1, 10), Span(2, 3)],
        "config": Config(count=2),
        "options": {"depth": 3},
    }
    assert bound["experiment_id"].table == "experiments"
    result = await everything(None, **bound)
    assert result[4:] == (7, UNSET)


async def test_arguments_that_need_nothing_are_passed_on_untouched():
    @query
    async def plain(ctx, channel: str, body: str) -> None: ...

    args = {"channel": "a", "body": "b"}
    assert plain.canonical_args(args) is args
    assert plain.bind(args) is args


@given(st.floats(allow_infinity=True, allow_nan=True))
def test_an_int_argument_refuses_a_fraction(number: float):
    @query
    async def take(ctx, how_many: int) -> None: ...

    if number.is_integer():
        assert take.bind({"howMany": number}) == {"how_many": int(number)}
        return
    with pytest.raises(BadRequest) as caught:
        take.bind({"howMany": number})
    assert caught.value.code == "ArgumentValidation"
    assert caught.value.message.startswith(
        "ArgumentValidationError: Value does not match validator.\nPath: .howMany\nValue: "
    )


def test_a_model_refuses_with_the_place():
    @query
    async def run(ctx, configs: list[Config]) -> None: ...

    with pytest.raises(BadRequest) as caught:
        run.bind({"configs": [{"count": 1}, {"count": 0}]})
    assert caught.value.message == (
        "ArgumentValidationError: Input should be greater than 0.\n"
        "Path: .configs[1].count\nValue: 0.0\nValidator: Config"
    )


def test_missing_wrong_and_extra_arguments_are_the_validators_business():
    @query
    async def show(ctx, first: str, second: str) -> None: ...

    for args, code in [
        ({"second": 1}, "MissingRequiredField"),
        ({"first": 1, "second": 1}, "NoMatch"),
        ({"first": "", "second": "", "third": ""}, "ExtraField"),
    ]:
        with pytest.raises(BadRequest) as caught:
            show.args.check(dict(show.canonical_args(args)), NoTables())
        assert caught.value.code == code


def test_both_spellings_are_taken_but_not_together():
    @query
    async def show(ctx, project_id: str, name: str = "") -> None: ...

    assert show.canonical_args({"project_id": "p", "name": "n"}) == {"projectId": "p", "name": "n"}
    assert show.canonical_args({"projectId": "p"}) == {"projectId": "p"}
    # What is not declared stays as it was written, for the error to name it.
    assert show.canonical_args({"un_known": 1}) == {"un_known": 1}
    with pytest.raises(BadRequest, match="`projectId` is given twice") as caught:
        show.canonical_args({"project_id": "p", "projectId": "p"})
    assert caught.value.code == "ArgumentValidation"


@given(st.dictionaries(st.sampled_from(["a_b", "aB", "c", "d_e_f", "dEF", "x_y"]), st.integers()))
def test_renaming_loses_nothing(args: dict[str, int]):
    @query
    async def show(ctx, a_b: int = 0, c: int = 0, d_e_f: int = 0) -> None: ...

    twice = {"a_b", "aB"} <= args.keys() or {"d_e_f", "dEF"} <= args.keys()
    if twice:
        with pytest.raises(BadRequest):
            show.canonical_args(args)
        return
    renamed = show.canonical_args(args)
    assert sorted(renamed.values()) == sorted(args.values())
    assert {to_wire(name) for name in args} == {to_wire(name) for name in renamed}


def test_a_keyword_of_python_can_be_an_argument():
    @query
    async def moved(ctx, from_: str, to: str) -> None: ...

    assert moved.args == v.object({"from": v.string(), "to": v.string()})
    assert moved.bind({"from": "a", "to": "b"}) == {"from_": "a", "to": "b"}


# ---- arguments written out ----


async def test_written_out_validators_take_both_spellings_and_make_ids():
    @mutation(args={"experiment_id": v.id("experiments"), "newName": v.string()}, returns=v.null())
    async def rename(ctx, experiment_id, new_name):
        return experiment_id, new_name

    assert rename.args == v.object({"experimentId": v.id("experiments"), "newName": v.string()})
    assert rename.returns == v.null()
    bound = rename.bind({"experimentId": "e1", "newName": "n"})
    assert bound == {"experiment_id": "e1", "new_name": "n"}
    assert bound["experiment_id"].table == "experiments"


async def test_an_optional_argument_without_default_is_none_when_absent():
    @query(args={"a": v.string(), "b": v.optional(v.string()), "c": v.optional(v.string())})
    async def show(ctx, a, b, c="default"):
        return a, b, c

    assert await call(show, {"a": "1"}) == ("1", None, "default")
    assert await call(show, {"a": "1", "b": "2", "c": "3"}) == ("1", "2", "3")


async def test_validators_and_annotations_work_together():
    @query(args=v.object({"span": v.object({"start": v.number(), "end": v.optional(v.number())})}))
    async def width(ctx, span: Span):
        return span.end - span.start

    assert await call(width, {"span": {"start": 1}}) == 9


def test_no_declared_argument_means_none_is_taken():
    @query(args={})
    async def nothing(ctx) -> None: ...

    @query
    async def nothing_either(ctx) -> None: ...

    assert nothing.args == nothing_either.args == v.object({})
    with pytest.raises(BadRequest, match="extra field `x`"):
        nothing.args.check({"x": 1}, NoTables())


async def test_unchecked_arguments_reach_the_handler_as_they_are():
    @query
    async def rest(ctx, **everything):
        return everything

    @query(args=v.any())
    async def some(ctx, first_name, age: int = 3):
        return first_name, age

    assert rest.args == some.args == v.any()
    args = {"some_name": 1, "otherName": 2}
    assert rest.canonical_args(args) == args
    assert await call(rest, args) == args
    assert await call(some, {"firstName": "a", "unknown": 1}) == ("a", 3)
    assert await call(some, {"first_name": "a", "age": 4.0}) == ("a", 4)
    with pytest.raises(BadRequest, match="missing the required field `firstName`"):
        some.bind({})
    with pytest.raises(BadRequest, match=r"Path: \.age"):
        some.bind({"firstName": "a", "age": "old"})


async def test_named_and_other_arguments_mix():
    @query
    async def mixed(ctx, first_one: str, **rest):
        return first_one, rest

    assert await call(mixed, {"firstOne": "a", "more_data": 1}) == ("a", {"more_data": 1})

    @query(args={"first_one": v.string(), "second_one": v.string()})
    async def declared(ctx, first_one, **rest):
        return first_one, rest

    assert await call(declared, {"firstOne": "a", "secondOne": "b"}) == ("a", {"second_one": "b"})


# ---- results ----


def test_only_returns_is_checked_and_the_annotation_is_a_hint():
    """V78."""

    @query
    async def hinted(ctx) -> list[Id["experiments"]]: ...

    @query(returns={"name": v.string()})
    async def checked(ctx) -> int: ...

    @query
    async def silent(ctx): ...

    @query
    async def unknown(ctx) -> "Nowhere": ...

    @query
    async def odd(ctx) -> set[str]: ...

    assert (hinted.returns, hinted.returns_hint) == (None, v.array(v.id("experiments")))
    assert checked.returns == v.object({"name": v.string()})
    assert [f.returns_hint for f in (silent, unknown, odd)] == [None, None, None]


# ---- what is refused ----


def test_a_plain_def_is_refused_with_file_line_and_remedy():
    def plain(ctx):
        return 1

    message = refusal(query, plain)
    line = plain.__code__.co_firstlineno
    assert message.startswith(f"{__file__}:{line}: `plain` is a plain def")
    assert message.endswith("write `async def plain`")


def test_other_things_that_are_no_handler_are_refused():
    async def stream(ctx):
        yield 1

    assert "contains `yield`" in refusal(query, stream)

    async def fine(ctx): ...

    assert "decorated twice" in refusal(mutation, query(fine))
    with pytest.raises(BadRequest, match="is no function"):
        query(17)


def test_an_argument_with_neither_annotation_nor_validator_is_refused():
    async def bare(ctx, limit): ...

    message = refusal(query, bare)
    assert f"{__file__}:{bare.__code__.co_firstlineno}: argument `limit` of `bare`" in message
    assert "write `limit: str`" in message


def test_handlers_take_a_context_and_named_arguments():
    async def nothing(): ...

    async def only_keywords(*, ctx): ...

    async def positional(ctx, x: int, /): ...

    async def star(ctx, *xs: int): ...

    async def twice(ctx, user_id: str, userId: str): ...

    async def unreadable(ctx, x: set[str]): ...

    assert "takes no context" in refusal(query, nothing)
    assert "takes no context" in refusal(query, only_keywords)
    assert "`x` of `positional` is positional-only" in refusal(query, positional)
    assert "takes *xs" in refusal(query, star)
    assert "both `userId` on the wire" in refusal(query, twice)
    assert "argument `x` of `unreadable`" in refusal(query, unreadable)

    async def fine(context, /, x: int): ...

    assert query(fine).args == v.object({"x": v.number()})


def test_validators_and_parameters_must_agree():
    async def handler(ctx, name): ...

    async def renamed(ctx, new_name): ...

    assert "`extra`, which the handler does not take" in refusal(
        query(args={"name": v.string(), "extra": v.string()}), handler
    )
    assert "`name` of `handler` is not declared in args=" in refusal(query(args={}), handler)
    assert "names `newName` in two spellings" in refusal(
        query(args={"new_name": v.string(), "newName": v.string()}), renamed
    )


def test_what_is_no_validator_is_refused():
    """V77."""

    async def handler(ctx, name): ...

    message = refusal(query(args=v.string()), handler)
    assert (
        "Error in args validator: Args validator must be an object or any\n"
        "See https://docs.convex.dev/functions/validation for docs on how to do argument"
    ) in message
    assert 'A validator is undefined for field "name"' in refusal(
        query(args={"name": None}), handler
    )
    assert "Error in returns validator: 17" in refusal(
        query(args={"name": v.any()}, returns=17), handler
    )


def test_a_type_defined_further_down_is_found_later():
    namespace: dict[str, Any] = {"query": query, "__name__": "late"}
    source = (
        "from __future__ import annotations\n"
        "from typing import TypedDict\n"
        "@query\n"
        "async def show(ctx, shape: Shape) -> Shape: ...\n"
        "@query\n"
        "async def never(ctx, shape: Nowhere): ...\n"
        "class Shape(TypedDict):\n"
        "    sides: int\n"
    )
    exec(compile(source, "late.py", "exec"), namespace)
    shape = v.object({"sides": v.number()})
    assert namespace["show"].args == v.object({"shape": shape})
    assert namespace["show"].returns_hint == shape
    with pytest.raises(BadRequest, match=r"late\.py:5: .*Nowhere.*TYPE_CHECKING") as caught:
        namespace["never"].complete()
    assert caught.value.code == "InvalidFunction"


def test_ids_may_be_annotated_the_long_way():
    from typing import Annotated

    @query
    async def show(ctx, key: Annotated[Id, IdOf("experiments")]) -> None: ...

    assert show.args == v.object({"key": v.id("experiments")})
