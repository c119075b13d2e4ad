from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.engine.interval import EVERYTHING, IntervalMap
from reactive_store.errors import BadRequest
from reactive_store.functions.index_range import Bound, IndexRangeBuilder, compile_range
from reactive_store.values.order import compare, encode_key
from reactive_store.values.value import UNSET, normalize
from tests.functions.small_world import EDGY_VALUES, edgy_values

COMPARATORS = {
    "==": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
FIELDS = ("a", "b")
IDS = [b"\0" * 16, b"\xff" * 16, bytes(range(16)), b"\xff" + bytes(15)]


def id_bytes(value: Any) -> bytes:
    assert isinstance(value, bytes)
    return value


def normal(value: Any) -> Any:
    return UNSET if value is UNSET else normalize(value)


def compiled(*bounds: tuple[str, str, Any], index: str = "by_a_b", fields=FIELDS):
    return compile_range("t", index, fields, [Bound(*bound) for bound in bounds], id_bytes)


def refusal(*bounds: tuple[str, str, Any], **options: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        compiled(*bounds, **options)
    return caught.value


values = edgy_values() | st.just(UNSET)
times = st.sampled_from([1.0, 2.0, 2.0000000000000004, 1e12])
entries = st.tuples(values, values, times, st.sampled_from(IDS))


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[str, str, Any]]:
    """Bounds that obey the rules, in any order."""
    names = ("a", "b", "_creationTime", "_id")
    sources = {"a": values, "b": values, "_creationTime": times, "_id": st.sampled_from(IDS)}
    equal = draw(st.integers(0, 4))
    bounds = [("==", name, draw(sources[name])) for name in names[:equal]]
    if equal < 4:
        name = names[equal]
        if draw(st.booleans()):
            bounds.append((draw(st.sampled_from([">", ">="])), name, draw(sources[name])))
        if draw(st.booleans()):
            bounds.append((draw(st.sampled_from(["<", "<="])), name, draw(sources[name])))
    return draw(st.permutations(bounds))


@given(ranges(), st.lists(entries, min_size=1, max_size=30))
def test_the_interval_holds_exactly_the_keys_the_bounds_describe(bounds, documents):
    """V66."""
    interval, prefix_bytes = compiled(*[(c, f, normal(v)) for c, f, v in bounds])
    for a, b, created, identity in documents:
        held = {"a": normal(a), "b": normal(b), "_creationTime": created}
        key = b"".join(map(encode_key, held.values())) + identity
        expected = all(
            COMPARATORS[comparator](
                (identity > value) - (identity < value)
                if field == "_id"
                else compare(held[field], normal(value)),
                0,
            )
            for comparator, field, value in bounds
        )
        assert interval.contains(key) is expected
        if expected:
            assert key[:prefix_bytes] == interval.start[:prefix_bytes]


@given(ranges())
def test_the_interval_can_be_filed_under_its_prefix(bounds):
    interval, prefix_bytes = compiled(*[(c, f, normal(v)) for c, f, v in bounds])
    by_key: IntervalMap[str] = IntervalMap()
    by_key.add(interval, prefix_bytes, "read")
    by_key.check()


def test_no_bounds_mean_everything():
    assert compiled() == (EVERYTHING, 0)


def test_bounds_on_text_neither_cover_nor_skip_what_follows_a_zero_byte():
    longer = encode_key("foo\0bar") + encode_key(1) + encode_key(1.0) + bytes(16)
    assert not compiled(("==", "a", "foo"))[0].contains(longer)
    assert compiled((">", "a", "foo"))[0].contains(longer)
    assert not compiled(("<=", "a", "foo"))[0].contains(longer)


def test_contradictions_are_empty():
    interval, _ = compiled((">", "a", 5), ("<", "a", 3))
    assert interval.is_empty


def test_by_id_takes_bounds_on_the_id():
    interval, prefix_bytes = compiled(("==", "_id", IDS[2]), index="by_id", fields=())
    assert [interval.contains(key) for key in IDS] == [False, False, True, False]
    assert prefix_bytes == 16
    interval, _ = compiled((">", "_id", IDS[2]), index="by_id", fields=())
    assert [interval.contains(key) for key in IDS] == [False, True, False, True]


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (
            [(">", "a", 1), (">=", "a", 5)],
            'Already defined lower bound in index range. Can\'t add "a" >= 5.0.',
        ),
        (
            [("<", "a", 1), ("<=", "a", 5)],
            'Already defined upper bound in index range. Can\'t add "a" <= 5.0.',
        ),
        (
            [("==", "a", 1), ("==", "a", 5)],
            'Already defined equality bound in index range. Can\'t add "a" == 5.0.',
        ),
        (
            [("==", "a", 1), (">", "a", 5)],
            'Already defined equality bound in index range. Can\'t add "a" > 5.0.',
        ),
        (
            [(">", "a", 1), ("==", "a", UNSET)],
            'Already defined inequality bound in index range. Can\'t add "a" == undefined.',
        ),
    ],
)
def test_a_bound_can_be_set_once(bounds, text):
    """V67."""
    error = refusal(*bounds)
    assert error.message == text
    assert error.code == "AlreadyDefinedBound"


def test_bounds_on_two_fields_are_refused():
    """V67."""
    error = refusal((">", "a", 1), ("<", "b", 5))
    assert error.message == (
        "Upper and lower bounds in `range` can only be applied to a single index field. This query "
        'against index t.by_a_b attempted to set a range bound on both "a" and "b". Consider using '
        "`filter` instead. See https://docs.convex.dev/using/indexes for more info."
    )
    assert error.code == "BoundsOnMultipleFields"


@pytest.mark.parametrize(
    ("bounds", "queried", "first"),
    [
        ([("==", "b", 1)], '["b"]', "b"),
        ([(">", "b", 1)], '["b"]', "b"),
        ([("==", "a", 1), (">", "_creationTime", 1)], '["a", "_creationTime"]', "_creationTime"),
        ([("==", "_creationTime", 1), ("==", "a", 1)], '["a", "_creationTime"]', "_creationTime"),
        ([("==", "b", 1), (">", "a", 1)], '["b", "a"]', "b"),
    ],
)
def test_fields_out_of_order_are_refused(bounds, queried, first):
    """V67."""
    error = refusal(*bounds)
    assert error.message == (
        "Tried to query index t.by_a_b but the query didn't use the index fields in order.\n"
        'Index fields: ["a", "b", "_creationTime"]\n'
        f"Query fields: {queried}\n"
        f'First incorrect field: "{first}"\n'
        "For more information see https://docs.convex.dev/using/indexes."
    )
    assert error.code == "InvalidIndexRange"


def test_foreign_fields_are_refused():
    """V67."""
    error = refusal(("==", "z", 1), index="by_x", fields=("a",))
    assert error.message == (
        'The index range included a comparison with "z", but t.by_x with fields '
        '["a", "_creationTime"] doesn\'t index this field. For more information see '
        "https://docs.convex.dev/using/indexes."
    )
    assert error.code == "FieldNotInIndex"
    assert 'fields ["_id"] ' in refusal(("==", "a", 1), index="by_id", fields=()).message


def test_the_builder_collects_normal_values_in_order():
    built = IndexRangeBuilder().eq("a", (1, 2.0)).gt("b", UNSET).lte("b", bytearray(b"x"))
    assert built.finish() == (
        Bound("==", "a", [1, 2]),
        Bound(">", "b", UNSET),
        Bound("<=", "b", b"x"),
    )
    assert IndexRangeBuilder().gte("a", 1).lt("a", 2).finish() == (
        Bound(">=", "a", 1),
        Bound("<", "a", 2),
    )


def test_a_link_of_the_chain_is_used_once():
    builder = IndexRangeBuilder()
    builder.eq("a", 1)
    with pytest.raises(BadRequest, match="IndexRangeBuilder has already been used! Chain your"):
        builder.gt("b", 2)


def test_a_field_is_named_by_a_string():
    with pytest.raises(TypeError, match="path is a string"):
        IndexRangeBuilder().eq(3, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", EDGY_VALUES, ids=repr)
def test_equality_finds_exactly_its_value(value):
    interval, _ = compiled(("==", "a", normalize(value)))
    suffix = encode_key(None) + encode_key(1.0) + b"\xff" * 16
    found = [v for v in EDGY_VALUES if interval.contains(encode_key(normalize(v)) + suffix)]
    assert [encode_key(normalize(v)) for v in found] == [encode_key(normalize(value))]
