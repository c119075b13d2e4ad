from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from reactive_store.schema.subset import is_subset
from reactive_store.schema.validators import v
from reactive_store.values.value import Int64, normalize
from tests.schema.test_validators import TABLES, validators
from tests.values.strategies import values

A = v.object({"a": v.string()})


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (v.string(), v.string(), True),
        (v.string(), v.number(), False),
        (v.string(), v.any(), True),
        (v.any(), v.string(), False),
        (v.literal("a"), v.string(), True),
        (v.literal(1), v.number(), True),
        (v.literal(1), v.int64(), False),
        (v.literal(True), v.boolean(), True),
        (v.literal(Int64(1)), v.int64(), True),
        (v.literal(Int64(1)), v.commit_ts(), True),
        (v.literal("a"), v.literal("b"), False),
        (v.int64(), v.commit_ts(), True),
        (v.commit_ts(), v.int64(), True),
        (v.id("t"), v.string(), True),
        (v.id("t"), v.id("u"), False),
        (v.string(), v.id("t"), False),
        (v.array(v.id("t")), v.array(v.string()), True),
        (v.array(v.string()), v.array(v.id("t")), False),
        (A, v.object({"a": v.string(), "b": v.optional(v.any())}), True),
        (A, v.object({"a": v.string(), "b": v.any()}), False),
        (v.object({"a": v.string(), "b": v.any()}), A, False),
        (A, v.object({"a": v.optional(v.string())}), True),
        (v.object({"a": v.optional(v.string())}), A, False),
        (A, v.object({"a": v.number()}), False),
        (v.union(v.literal("a"), v.id("t")), v.string(), True),
        (v.union(v.literal("a"), v.null()), v.string(), False),
        (v.string(), v.nullable(v.string()), True),
        (v.union(), v.string(), True),
        (v.boolean(), v.literals(True, False), True),
        (v.boolean(), v.literals(True, 1), False),
        (v.boolean(), v.union(v.boolean(), v.null()), True),
        (v.record(v.string(), v.any()), v.record(v.string(), v.any()), True),
        (v.record(v.id("t"), v.any()), v.record(v.string(), v.any()), False),
        (v.optional(v.string()), v.string(), True),
    ],
)
def test_subset_rules(a: Any, b: Any, expected: bool) -> None:
    assert is_subset(a, b) is expected


@given(validators, validators, values)
def test_what_a_subset_accepts_the_other_accepts(a: Any, b: Any, value: Any) -> None:
    normal = normalize(value)
    if is_subset(a, b) and a.matches(normal, TABLES):
        assert b.matches(normal, TABLES)


@given(validators, validators)
def test_everything_is_a_subset_of_itself_and_of_unions_with_itself(a: Any, b: Any) -> None:
    assert is_subset(a, a)
    assert is_subset(a, v.union(b, a))
    assert is_subset(a, v.any())
