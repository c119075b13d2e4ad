"""Wire names and paths: both spellings, one canonical form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.errors import BadRequest
from reactive_store.functions.names import (
    display_path,
    function_path,
    is_private,
    module_path,
    name_problem,
    parse_path,
    split_path,
    to_wire,
)

names = st.from_regex(r"_{0,2}[A-Za-z][A-Za-z0-9_]{0,12}", fullmatch=True)


@pytest.mark.parametrize(
    ("python", "wire"),
    [
        ("list", "list"),
        ("list_by_project", "listByProject"),
        ("listByProject", "listByProject"),
        ("step_1", "step1"),
        ("by_2_fields", "by2Fields"),
        ("double__underscore", "doubleUnderscore"),
        ("from_", "from"),
        ("_private_thing", "_privateThing"),
        ("__dunder__", "__dunder"),
        ("_", "_"),
        ("HTTP_url", "HTTPUrl"),
    ],
)
def test_snake_case_becomes_camel_case(python: str, wire: str):
    assert to_wire(python) == wire


@given(names)
def test_a_wire_name_is_its_own_wire_name(name: str):
    once = to_wire(name)
    assert to_wire(once) == once
    assert is_private(once) == is_private(name)
    assert "_" not in once.lstrip("_")


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("messages", "messages.js:default"),
        ("messages:default", "messages.js:default"),
        ("messages.js:default", "messages.js:default"),
        ("messages:list", "messages.js:list"),
        ("messages.py:send", "messages.js:send"),
        ("dir/mod.js:send", "dir/mod.js:send"),
        ("user_notes:list_all", "userNotes.js:listAll"),
        ("admin_area/user_notes.py:list_all", "adminArea/userNotes.js:listAll"),
        ("a.b/c:d", "a.b/c.js:d"),
        ("_system/frontend/getSchemas", "_system/frontend/getSchemas.js:default"),
        ("_system/cli/tables:query", "_system/cli/tables.js:query"),
    ],
)
def test_every_spelling_has_one_canonical_path(spelling: str, canonical: str):
    assert parse_path(spelling) == canonical
    assert parse_path(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "The path has no module."),
        (":list", "The path has no module."),
        ("messages:", "A function name cannot be empty."),
        ("/messages:list", "Module path /messages must be relative."),
        ("a//b:list", "Path component cannot be empty."),
        ("messages.ts:list", "Module path messages.ts has an extension that isn't 'js': ts."),
        ("a.test.js.map:list", "Module path a.test.js.map has an extension that isn't 'js': map."),
        (
            "mes sages:list",
            (
                "Path component mes sages can only contain alphanumeric characters, underscores, "
                "or periods."
            ),
        ),
        ("../secret:list", "Path component .. must have at least one alphanumeric character."),
        ("__:list", "Path component __ must have at least one alphanumeric character."),
        (f"{'m' * 65}:f", f"Path component is too long (65 > maximum 64): {'m' * 65}."),
        ("m:1st", None),
        ("m:___", None),
        ("m:naïve", None),
        (f"m:{'f' * 65}", f"Function name {'f' * 65} is too long (65 > maximum 64)."),
    ],
)
def test_what_is_no_path_is_refused_with_the_reason(text: str, detail: str | None):
    with pytest.raises(BadRequest) as caught:
        parse_path(text)
    assert caught.value.code == "BadConvexFunctionIdentifier"
    assert caught.value.message.startswith(f"{text} is not a valid path to a Convex function. ")
    if detail is not None:
        assert caught.value.message.endswith(detail)


@given(st.lists(names, min_size=1, max_size=3), names)
def test_canonical_paths_survive_being_shown_and_read_again(module: list[str], function: str):
    canonical = function_path(module, function)
    assert parse_path(canonical) == canonical
    assert parse_path(display_path(canonical)) == canonical
    assert split_path(canonical) == (module_path(module), to_wire(function))


def test_people_see_neither_extension_nor_default():
    assert display_path("dir/mod.js:send") == "dir/mod:send"
    assert display_path("mod.js:default") == "mod"
    assert display_path("POST /webhook") == "POST /webhook"  # a route is named by itself


def test_names_are_ascii_identifiers_of_64_characters():
    assert name_problem("a" * 64) is None
    assert name_problem("_x1") is None
    for name in ("", "a" * 65, "1a", "a-b", "__", "ünder"):
        assert name_problem(name) is not None


def test_a_path_beyond_its_longest_is_refused_without_repeating_it() -> None:
    fits = "a/" * 2046 + "b:c"
    assert parse_path(fits).endswith("/b.js:c")
    with pytest.raises(BadRequest, match="too long") as caught:
        parse_path("a/" * 1_000_000 + "b:c")
    assert caught.value.code == "BadConvexFunctionIdentifier"
    assert len(caught.value.message) < 300
