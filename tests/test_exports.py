"""The public names are the recorded ones, each is really there, and each is defined in one place.

A change on purpose: run `make docs`, look at the difference in tests/exports.json, add a line to
CHANGELOG.md.
"""

from __future__ import annotations

import importlib
import inspect
import json

import pytest

from tests.reference_pages import EXPORTS, PUBLIC, exports


def test_public_names_are_the_recorded_ones():
    assert exports() == json.loads(EXPORTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_listed_name_exists_once(name: str):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


def test_nothing_public_is_defined_twice():
    owners: dict[str, set[int]] = {}
    for name in PUBLIC:
        module = importlib.import_module(name)
        for each in module.__all__:
            value = getattr(module, each)
            if inspect.isclass(value) or inspect.isroutine(value):
                owners.setdefault(each, set()).add(id(value))
    assert {each: ids for each, ids in owners.items() if len(ids) > 1} == {}


def test_a_star_import_gives_the_vocabulary_and_nothing_else():
    names: dict[str, object] = {}
    exec("from reactive_store import *", names)
    names.pop("__builtins__")
    assert sorted(names) == exports()["reactive_store"]
