"""An app: finding functions, listing them, saying why one is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_store.errors import BadRequest
from reactive_store.functions.app import App
from reactive_store.functions.loader import load_app

NOTES = """
from reactive_store import Id, api, internal_mutation, mutation, query, v

@query
async def list_all(ctx, limit: int = 10) -> list[str]: ...

@mutation(args={"note_id": v.id("notes")}, returns=v.null())
async def remove(ctx, note_id) -> str: ...

@internal_mutation
async def tidy(ctx, **anything): ...

async def forgotten_one(ctx): ...

def _private(): ...
"""


@pytest.fixture
def app(tmp_path: Path) -> App:
    folder = tmp_path / "functions" / "area"
    folder.mkdir(parents=True)
    (folder / "notes.py").write_text(NOTES)
    return load_app(tmp_path)


def test_functions_are_found_by_canonical_path(app: App):
    assert app.find("area/notes.js:listAll") is app.functions["area/notes.js:listAll"]
    assert app.find("area/notes:listAll") is None
    assert app.find("nowhere.js:x") is None


def test_the_listing_has_the_shape_clients_generate_types_from(app: App):
    assert app.spec() == [
        {
            "identifier": "area/notes.js:listAll",
            "functionType": "Query",
            "visibility": {"kind": "public"},
            "args": {
                "type": "object",
                "value": {"limit": {"fieldType": {"type": "number"}, "optional": True}},
            },
            "returns": {"type": "array", "value": {"type": "string"}},
        },
        {
            "identifier": "area/notes.js:remove",
            "functionType": "Mutation",
            "visibility": {"kind": "public"},
            "args": {
                "type": "object",
                "value": {
                    "noteId": {"fieldType": {"type": "id", "tableName": "notes"}, "optional": False}
                },
            },
            "returns": {"type": "null"},
        },
        {
            "identifier": "area/notes.js:tidy",
            "functionType": "Mutation",
            "visibility": {"kind": "internal"},
            "args": {"type": "any"},
            "returns": {"type": "any"},
        },
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "area/notes.js:forgottenOne",
            (
                "Function forgottenOne is neither a query or mutation. "
                "Did you forget to wrap it with `query` or `mutation`?"
            ),
        ),
        ("area/notes.js:nope", 'Couldn\'t find "nope" in module "area/notes.js".'),
        ("area/notes.js:_private", 'Couldn\'t find "_private" in module "area/notes.js".'),
        (
            "nope.js:x",
            "Could not find function for 'nope:x': the app has no module 'nope'.",
        ),
    ],
)
def test_a_missing_function_is_explained(app: App, path: str, text: str):
    assert app.explain_missing(path) == text


def test_an_app_cannot_be_changed(app: App):
    with pytest.raises(TypeError):
        app.functions["x.js:y"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        app.schema = None  # type: ignore[misc, assignment]


def test_a_foreign_function_does_not_resolve(app: App):
    namespace: dict = {}
    exec("from reactive_store import query\n@query\nasync def list_all(ctx): ...", namespace)
    with pytest.raises(BadRequest):
        app.resolve(namespace["list_all"])
    assert app.resolve("area/notes:listAll") == "area/notes.js:listAll"
