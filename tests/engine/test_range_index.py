"""From a document to its key in an index."""

from __future__ import annotations

import pytest

from reactive_store.engine.range_index import IndexState, RangeIndex, parse_field_path
from reactive_store.persistence.contract import IndexId
from reactive_store.values.order import encode_key
from reactive_store.values.value import UNSET


def key(fields: tuple[str, ...], document: dict) -> bytes:
    return RangeIndex("by_x", IndexId(1), fields, IndexState.READY).key_encoder()(document)


@pytest.mark.parametrize(
    ("dotted", "path"),
    [("a", ("a",)), ("a.b", ("a", "b")), (".a.b.", ("a", "b"))],
)
def test_a_dotted_path_is_split(dotted: str, path: tuple[str, ...]) -> None:
    assert parse_field_path(dotted) == path


def test_an_index_over_nothing_has_empty_keys() -> None:
    assert key((), {"n": 1}) == b""


def test_one_field_is_encoded_and_a_missing_one_sorts_first() -> None:
    assert key(("n",), {"n": 1, "m": 2}) == encode_key(1)
    assert key(("n",), {}) == encode_key(UNSET) < encode_key(None)


def test_fields_follow_each_other_as_declared() -> None:
    assert key(("m", "n"), {"n": 1, "m": "x"}) == encode_key("x") + encode_key(1)
    assert key(("m", "n"), {"m": "x"}) == encode_key("x") + encode_key(UNSET)


def test_nested_fields_are_followed_through_objects_only() -> None:
    assert key(("n", "a.b"), {"n": 1, "a": {"b": 2}}) == encode_key(1) + encode_key(2)
    for document in ({}, {"a": {}}, {"a": 5}, {"a": [{"b": 2}]}):
        assert key(("a.b",), document) == encode_key(UNSET)


def test_arrays_and_objects_are_keys_as_a_whole() -> None:
    assert key(("tags",), {"tags": ["a", "b"]}) == encode_key(["a", "b"])
    assert key(("a",), {"a": {"b": 1}}) == encode_key({"b": 1})


@pytest.mark.parametrize("state", IndexState)
def test_only_a_backfilling_index_is_under_construction(state: IndexState) -> None:
    index = RangeIndex("by_x", IndexId(1), ("x",), state)
    assert index.is_building is (state is IndexState.BACKFILLING)
