from __future__ import annotations

import math
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.functions.filters import compile_predicate, filter_expression
from reactive_store.values.document import Document
from reactive_store.values.order import compare
from reactive_store.values.value import UNSET, Id, Int64, normalize
from reactive_store.values.wire import dumps
from tests.functions.small_world import EDGY_VALUES

COMPARISONS = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def passes(build, **fields: Any) -> bool:
    document = Document(dumps(fields), "t")
    return compile_predicate(filter_expression(build))(document)


def refusal(build, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        passes(build, **fields)
    return caught.value


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_comparisons_follow_the_order_of_values_on_either_side(name):
    values = [*map(normalize, EDGY_VALUES), UNSET]

    def compiled(build):
        return compile_predicate(filter_expression(build))

    both = compiled(lambda f: getattr(f, name)(f.field("x"), f.field("y")))
    for right in values:
        against = compiled(lambda f, y=right: getattr(f, name)(f.field("x"), y))
        mirrored = compiled(lambda f, y=right: getattr(f, name)(y, f.field("x")))
        for left in values:
            document = Document(dumps({"x": left, "y": right}), "t")
            expected = COMPARISONS[name](compare(left, right), 0)
            assert against(document) is expected, (left, right)
            assert both(document) is expected, (left, right)
            assert mirrored(document) is COMPARISONS[name](compare(right, left), 0), (left, right)


@given(
    left=st.floats(allow_nan=False) | st.integers(-100, 100) | st.text(max_size=3),
    right=st.floats(allow_nan=False) | st.integers(-100, 100) | st.text(max_size=3),
    name=st.sampled_from(sorted(COMPARISONS)),
)
def test_comparisons_of_ordinary_numbers_and_texts_agree_too(left, right, name):
    expected = COMPARISONS[name](compare(normalize(left), normalize(right)), 0)
    assert passes(lambda f: getattr(f, name)(f.field("x"), right), x=left) is expected


def test_a_missing_field_equals_unset_and_not_null():
    assert not passes(lambda f: f.eq(f.field("missing"), None))
    assert passes(lambda f: f.eq(f.field("missing"), UNSET))


def test_texts_are_greater_than_numbers():
    assert not passes(lambda f: f.lt(f.field("s"), 5), s="text")
    assert passes(lambda f: f.gt(f.field("s"), 5), s="text")


def test_python_operators_build_the_same_expressions_as_methods():
    def json_of(build):
        return filter_expression(build).to_json()

    for written, method in [
        (lambda f: f.field("a") == 1, lambda f: f.eq(f.field("a"), 1)),
        (lambda f: f.field("a") != 1, lambda f: f.neq(f.field("a"), 1)),
        (lambda f: f.field("a") < 1, lambda f: f.lt(f.field("a"), 1)),
        (lambda f: f.field("a") <= 1, lambda f: f.lte(f.field("a"), 1)),
        (lambda f: f.field("a") > 1, lambda f: f.gt(f.field("a"), 1)),
        (lambda f: f.field("a") >= 1, lambda f: f.gte(f.field("a"), 1)),
        (lambda f: f.field("a") + 1, lambda f: f.add(f.field("a"), 1)),
        (lambda f: 1 + f.field("a"), lambda f: f.add(1, f.field("a"))),
        (lambda f: f.field("a") - 1, lambda f: f.sub(f.field("a"), 1)),
        (lambda f: 1 - f.field("a"), lambda f: f.sub(1, f.field("a"))),
        (lambda f: f.field("a") * 2, lambda f: f.mul(f.field("a"), 2)),
        (lambda f: 2 * f.field("a"), lambda f: f.mul(2, f.field("a"))),
        (lambda f: f.field("a") / 2, lambda f: f.div(f.field("a"), 2)),
        (lambda f: 2 / f.field("a"), lambda f: f.div(2, f.field("a"))),
        (lambda f: f.field("a") % 2, lambda f: f.mod(f.field("a"), 2)),
        (lambda f: 2 % f.field("a"), lambda f: f.mod(2, f.field("a"))),
        (lambda f: -f.field("a"), lambda f: f.neg(f.field("a"))),
        (lambda f: ~f.field("a"), lambda f: f.not_(f.field("a"))),
        (lambda f: f.field("a") & True, lambda f: f.and_(f.field("a"), True)),
        (lambda f: True & f.field("a"), lambda f: f.and_(True, f.field("a"))),
        (lambda f: f.field("a") | True, lambda f: f.or_(f.field("a"), True)),
        (lambda f: True | f.field("a"), lambda f: f.or_(True, f.field("a"))),
    ]:
        assert json_of(written) == json_of(method)


def test_the_json_form_is_the_official_one():
    expression = filter_expression(
        lambda f: f.or_(
            f.eq(f.field("a.b"), UNSET),
            f.not_(f.lt(f.neg(f.field("n")), 5)),
            f.neq(f.field("i"), Int64(1)),
        )
    )
    assert expression.to_json() == {
        "$or": [
            {"$eq": [{"$field": "a.b"}, {"$literal": {"$undefined": None}}]},
            {"$not": {"$lt": [{"$neg": {"$field": "n"}}, {"$literal": 5.0}]}},
            {"$neq": [{"$field": "i"}, {"$literal": {"$integer": "AQAAAAAAAAA="}}]},
        ]
    }
    assert "$or" in repr(expression)


def test_ids_are_texts():
    written = filter_expression(lambda f: f.eq(f.field("user"), Id("j57", "users")))
    assert written.to_json() == {"$eq": [{"$field": "user"}, {"$literal": "j57"}]}
    assert passes(lambda f: f.eq(f.field("user"), Id("j57", "users")), user="j57")
    assert passes(lambda f: f.gt(f.field("_id"), "j56"), _id="j57")
    assert passes(lambda f: f.eq(f.field("_id"), "j57"), _id="j57")


def test_a_dotted_field_reads_objects_only():
    nested = lambda f: f.eq(f.field("a.b"), 1)  # noqa: E731
    assert passes(nested, a={"b": 1})
    assert not passes(nested, a={"c": 1})
    assert passes(lambda f: f.eq(f.field("a.b"), UNSET), a="text")
    assert passes(lambda f: f.eq(f.field("a.b"), UNSET), a=[1])
    assert passes(lambda f: f.eq(f.field("a.b"), UNSET))


def test_and_or_stop_at_the_first_operand_that_decides():
    boom = "not a boolean"
    assert not passes(lambda f: f.and_(False, boom))
    assert passes(lambda f: f.or_(True, boom))
    assert passes(lambda f: f.and_())
    assert not passes(lambda f: f.or_())
    assert "as a Boolean" in refusal(lambda f: f.and_(True, boom)).message
    assert "as a Boolean" in refusal(lambda f: f.or_(False, boom)).message


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1.0 (type Float64)"),
        ("x", '"x" (type String)'),
        (None, "null (type Null)"),
        (Int64(2), "2 (type Int64)"),
        ([], "[] (type Array)"),
        ({}, "{} (type Object)"),
    ],
)
def test_only_booleans_decide(value, shown):
    error = refusal(lambda f: f.field("v"), v=value)
    assert error.message == f"Cannot use value {shown} as a Boolean"
    assert error.code == "EvalError"
    assert refusal(lambda f: f.not_(f.field("v")), v=value).message == error.message


def test_a_missing_result_is_no_boolean():
    assert refusal(lambda f: f.field("v")).message == (
        "Cannot use value undefined (type undefined) as a Boolean"
    )


def test_a_boolean_field_is_a_condition():
    assert passes(lambda f: f.field("done"), done=True)
    assert not passes(lambda f: f.field("done"), done=False)
    assert passes(lambda f: ~f.field("done"), done=False)
    assert passes(lambda f: True)


@pytest.mark.parametrize(
    ("name", "left", "right", "result"),
    [
        ("add", 1, 2, 3),
        ("sub", 1.5, 2, -0.5),
        ("mul", 2, 3, 6),
        ("div", 1, 2, 0.5),
        ("div", 1, 0, math.inf),
        ("div", -1, 0, -math.inf),
        ("div", 1, -0.0, -math.inf),
        ("mod", -7, 3, -1),
        ("mod", 7, -3, 1),
        ("mod", 5.5, math.inf, 5.5),
        ("add", Int64(1), Int64(2), Int64(3)),
        ("sub", Int64(1), Int64(2), Int64(-1)),
        ("mul", Int64(-4), Int64(2), Int64(-8)),
        ("div", Int64(-7), Int64(2), Int64(-3)),
        ("div", Int64(7), Int64(-2), Int64(-3)),
        ("mod", Int64(-7), Int64(2), Int64(-1)),
        ("mod", Int64(7), Int64(-2), Int64(1)),
    ],
)
def test_arithmetic(name, left, right, result):
    """V69."""
    assert passes(
        lambda f: f.eq(getattr(f, name)(f.field("l"), f.field("r")), result), l=left, r=right
    )


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [("div", 0, 0), ("mod", 1, 0), ("mod", math.inf, 2), ("sub", math.inf, math.inf)],
)
def test_arithmetic_without_a_result_gives_the_one_nan(name, left, right):
    assert passes(lambda f: f.eq(getattr(f, name)(left, f.field("r")), math.nan), r=right)


def test_negation_tells_zeros_apart():
    assert passes(lambda f: f.eq(-f.field("n"), -0.0), n=0)
    assert passes(lambda f: f.eq(-f.field("n"), 0), n=-0.0)
    assert passes(lambda f: f.eq(-f.field("n"), Int64(-3)), n=Int64(3))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda f: f.add(f.field("i"), 1), "Cannot add 1 (type Int64) and 1.0 (type Float64)"),
        (
            lambda f: f.sub(f.field("s"), 1),
            'Cannot subtract "x" (type String) and 1.0 (type Float64)',
        ),
        (
            lambda f: f.mul(True, True),
            "Cannot multiply true (type Boolean) and true (type Boolean)",
        ),
        (lambda f: f.div(None, 1), "Cannot divide null (type Null) and 1.0 (type Float64)"),
        (
            lambda f: f.mod(f.field("nope"), 1),
            "Cannot mod undefined (type undefined) and 1.0 (type Float64)",
        ),
        (lambda f: f.div(f.field("i"), Int64(0)), "Cannot divide 1 by zero"),
        (lambda f: f.mod(f.field("i"), Int64(0)), "Cannot mod 1 by zero"),
        (
            lambda f: f.add(Int64(2**63 - 1), f.field("i")),
            "Cannot add 9223372036854775807 and 1: the result is out of range for Int64",
        ),
        (
            lambda f: f.neg(Int64(-(2**63))),
            "Cannot negate -9223372036854775808: the result is out of range for Int64",
        ),
        (lambda f: f.neg(f.field("s")), 'Cannot negate "x" (type String)'),
    ],
)
def test_arithmetic_on_what_does_not_fit_says_what(build, text):
    """V69."""
    error = refusal(build, i=Int64(1), s="x")
    assert error.message == text
    assert error.code == "EvalError"


@pytest.mark.parametrize(
    "build",
    [
        lambda f: f.field("a") and f.field("b"),
        lambda f: not f.field("a"),
        lambda f: 1 < f.field("a") < 3,
    ],
)
def test_an_expression_has_no_truth_value(build):
    with pytest.raises(TypeError, match=r"use & \| ~"):
        filter_expression(build)


def test_what_is_no_condition_is_refused_when_the_query_is_built():
    with pytest.raises(TypeError, match="takes a function"):
        filter_expression("a == 1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="returned None"):
        filter_expression(lambda f: None)
    with pytest.raises(TypeError, match="non-empty string"):
        filter_expression(lambda f: f.field(3))  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="not a supported"):
        filter_expression(lambda f: f.eq(f.field("a"), object()))
