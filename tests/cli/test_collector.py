"""The collector of a serving process: what was loaded is set aside, the rest looked at rarely."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from reactive_store.cli.collector import settle_collector


class Node:
    """Something that can be part of a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_is_loaded_is_not_walked_through_again():
    settle_collector()
    assert gc.get_freeze_count() > 1000


def test_collections_are_rarer_than_pythons():
    usual = gc.get_threshold()
    settle_collector()
    assert all(mine > theirs for mine, theirs in zip(gc.get_threshold(), usual, strict=True))


def test_garbage_made_before_is_freed_not_kept():
    node = weakref.ref(Node())
    settle_collector()
    assert node() is None


def test_garbage_made_afterwards_is_still_found():
    settle_collector()
    node = weakref.ref(Node())
    gc.collect()
    assert node() is None
