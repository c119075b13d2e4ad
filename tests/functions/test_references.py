"""References: lazy names, functions and texts resolve to canonical paths."""

from __future__ import annotations

import copy
import pickle

import pytest

from reactive_store.errors import BadRequest
from reactive_store.functions.definitions import query
from reactive_store.functions.references import Reference, api, internal, resolve


@query
async def list_all(ctx) -> None: ...


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        (api.messages.list, "messages.js:list"),
        (api.experiment_results.list_by_experiment, "experimentResults.js:listByExperiment"),
        (api.experimentResults.listByExperiment, "experimentResults.js:listByExperiment"),
        (internal.admin.user_notes.remove, "admin/userNotes.js:remove"),
        (api.messages.default, "messages.js:default"),
        (api.resolve.path, "resolve.js:path"),
        ("messages:list", "messages.js:list"),
        ("user_notes.py:list_all", "userNotes.js:listAll"),
    ],
)
def test_a_reference_names_a_path(reference: object, path: str):
    assert resolve(reference) == path


def test_api_and_internal_name_the_same_function():
    assert api.notes.list_all == internal.notes.listAll
    assert hash(api.notes.list_all) == hash(internal.notes.listAll)
    assert api.notes.list_all != api.notes.list
    assert api.notes != "notes"


def test_a_decorated_function_resolves_once_it_is_loaded():
    with pytest.raises(BadRequest, match="no app has loaded it") as caught:
        resolve(list_all)
    assert caught.value.code == "InvalidFunctionReference"
    assert resolve(query(list_all.handler).at("notes.js:listAll")) == "notes.js:listAll"


@pytest.mark.parametrize(("reference", "shown"), [(api, "api"), (api.messages, "api.messages")])
def test_a_module_is_no_function(reference: Reference, shown: str):
    with pytest.raises(BadRequest) as caught:
        resolve(reference)
    assert caught.value.message == (
        f"API path is expected to be of the form `api.moduleName.functionName`. Found: `{shown}`"
    )


def test_anything_else_is_no_reference():
    with pytest.raises(BadRequest, match="17 is not a functionReference"):
        resolve(17)
    with pytest.raises(BadRequest) as caught:
        resolve(getattr(api.messages, "no name"))
    assert caught.value.code == "BadConvexFunctionIdentifier"
    assert getattr(api.messages, "no name") != api.messages.list


def test_references_are_values():
    assert api.messages.list is api.messages.list
    assert repr(internal.a.b.c) == "internal.a.b.c"
    assert copy.deepcopy(api.a.b) == api.a.b
    assert pickle.loads(pickle.dumps(api.a.b)) == api.a.b
    with pytest.raises(AttributeError, match="cannot be set"):
        api.messages = 1  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="private"):
        getattr(api.messages, "_hidden")  # noqa: B009 - written plainly it would be an expression
    with pytest.raises(TypeError, match=r"ctx\.run_query"):
        api.messages.list(limit=1)
