"""Loading apps: what becomes a function, what is refused and how, what is left behind."""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path

import pytest

from reactive_store.errors import BadRequest
from reactive_store.functions.loader import build_app, load_app
from reactive_store.functions.references import resolve
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v

QUERY = "from reactive_store import query\n\n@query\nasync def {name}(ctx) -> None: ...\n"
SCHEMA = (
    "from reactive_store import define_schema, define_table, v\n"
    "schema = define_schema({'notes': define_table({'text': v.string()})})\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def private_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("_reactive_store_app_")]


@pytest.fixture(autouse=True)
def nothing_is_left():
    gc.collect()
    before, finders = set(private_modules()), list(sys.meta_path)
    yield
    gc.collect()
    assert set(private_modules()) == before
    assert sys.meta_path == finders
    assert "functions" not in sys.modules
    assert "schema" not in sys.modules


def test_modules_and_folders_are_namespaces(tmp_path: Path):
    root = write(
        tmp_path,
        {
            "schema.py": SCHEMA,
            "functions/notes.py": QUERY.format(name="list_all"),
            "functions/user_area/open_tabs.py": QUERY.format(name="default"),
            "functions/admin/__init__.py": QUERY.format(name="status"),
        },
    )
    app = load_app(root)
    assert list(app.functions) == [
        "admin.js:status",
        "notes.js:listAll",
        "userArea/openTabs.js:default",
    ]
    assert list(app.schema.tables) == ["notes"]
    assert app.files == set(root.rglob("*.py"))
    function = app.find("notes.js:listAll")
    assert function is not None
    assert function.path == resolve(function) == "notes.js:listAll"
    assert (function.file, function.line) == (str(root / "functions" / "notes.py"), 3)


def test_private_and_test_files_are_left_alone(tmp_path: Path):
    broken = "raise RuntimeError"
    root = write(
        tmp_path,
        {
            "functions/notes.py": QUERY.format(name="shown")
            + QUERY.format(name="_hidden")
            + "from functions._rules import limit\n",
            "functions/_rules.py": QUERY.format(name="private_too") + "limit = 3\n",
            "functions/_drafts/old.py": broken,
            "functions/test_notes.py": broken,
            "functions/notes_test.py": broken,
            "functions/conftest.py": broken,
            "functions/.hidden/x.py": broken,
        },
    )
    app = load_app(root)
    assert list(app.functions) == ["notes.js:shown"]
    assert {file.name for file in app.files} == {"notes.py", "_rules.py"}


def test_a_function_belongs_to_the_module_that_defines_it(tmp_path: Path):
    root = write(
        tmp_path,
        {
            "functions/a.py": "from functions.b import shown, other as again\nfrom .c import *\n",
            "functions/b.py": QUERY.format(name="shown") + "other = shown\n",
            "functions/c.py": QUERY.format(name="starred"),
            "functions/d.py": "from functions._make import make\nlist_d = make()\n",
            "functions/_make.py": "from reactive_store import query\n"
            "def make():\n    @query\n    async def inner(ctx) -> None: ...\n    return inner\n",
        },
    )
    app = load_app(root)
    assert list(app.functions) == ["b.js:other", "b.js:shown", "c.js:starred", "d.js:listD"]
    assert {function.path for function in app.functions.values()} == set(app.functions)


async def test_apps_of_the_same_names_live_side_by_side(tmp_path: Path):
    apps = []
    for number in (1, 2):
        root = write(
            tmp_path / str(number),
            {
                "schema.py": SCHEMA.replace("notes", f"notes{number}"),
                "functions/main.py": "from reactive_store import query\n"
                "from schema import schema\nfrom functions._other import value\n"
                "@query\nasync def get(ctx):\n"
                "    from functions import _other\n"
                "    return value, _other.value, list(schema.tables)\n",
                "functions/_other.py": f"value = {number}\n",
            },
        )
        apps.append(load_app(root))
    for number, app in enumerate(apps, 1):
        result = await app.functions["main.js:get"].handler(None)
        assert result == (number, number, [f"notes{number}"])


async def test_a_reload_is_a_new_app_and_the_old_one_still_runs(tmp_path: Path):
    text = (
        "from reactive_store import query\n"
        "@query\nasync def get(ctx):\n    from functions.other import value\n    return value\n"
    )
    root = write(tmp_path, {"functions/main.py": text, "functions/other.py": "value = 1"})
    old = load_app(root)
    running = old.functions["main.js:get"]
    write(root, {"functions/other.py": "value = 2"})
    new = load_app(root)
    assert await running.handler(None) == 1
    assert await new.functions["main.js:get"].handler(None) == 2
    old.close()
    assert await running.handler(None) == 1
    loaded = len(private_modules())
    del new
    gc.collect()
    assert len(private_modules()) < loaded


def test_types_may_come_from_other_modules_and_from_further_down(tmp_path: Path):
    root = write(
        tmp_path,
        {
            "functions/a.py": "from __future__ import annotations\n"
            "from reactive_store import query\nimport functions.b as b\n"
            "@query\nasync def show(ctx, item: b.Item, extra: Extra): ...\n"
            "from pydantic import BaseModel\n"
            "class Extra(BaseModel):\n    inner: Inner\n"
            "class Inner(BaseModel):\n    x: int\n",
            "functions/b.py": "import functions.a\n"
            "from typing import TypedDict\nclass Item(TypedDict):\n    name: str\n",
        },
    )
    app = load_app(root)
    assert app.functions["a.js:show"].args == v.object(
        {
            "item": v.object({"name": v.string()}),
            "extra": v.object({"inner": v.object({"x": v.number()})}),
        }
    )


def test_schema_or_functions_may_be_missing_but_not_both(tmp_path: Path):
    only_schema = load_app(write(tmp_path / "a", {"schema.py": SCHEMA}))
    assert (list(only_schema.schema.tables), dict(only_schema.functions)) == (["notes"], {})
    only_functions = load_app(write(tmp_path / "b", {"functions/m.py": QUERY.format(name="f")}))
    assert dict(only_functions.schema.tables) == {}
    with pytest.raises(BadRequest, match="is no app") as caught:
        load_app(tmp_path)
    assert caught.value.code == "AppLoadFailed"


def test_schema_and_functions_may_have_other_names(tmp_path: Path):
    root = write(
        tmp_path,
        {
            "backend/tables.py": SCHEMA,
            "backend/api/notes.py": QUERY.format(name="f")
            + "from backend.tables import schema\nfrom backend.api._x import y\n",
            "backend/api/_x.py": "y = 1",
        },
    )
    app = load_app(root, schema="backend/tables.py", functions="backend/api")
    assert list(app.functions) == ["notes.js:f"]
    assert "backend" not in sys.modules


# ---- errors ----


def failure(root: Path, **options: str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        load_app(root, **options)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("x = 1\ny = (\n", 2, "SyntaxError: '(' was never closed"),
        (
            "x = 1\nimport functions.nope\n",
            2,
            "ModuleNotFoundError: No module named 'functions.nope'",
        ),
        ("from reactive_store import nope\n", 1, "ImportError: cannot import name 'nope'"),
        ("def f():\n    return 1 / 0\nf()\n", 2, "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("from reactive_store import v\n\nx = v.id(5)\n", 3, "BadRequest: v.id(tableName)"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_shown_with_file_line_and_traceback(
    tmp_path: Path, text: str, line: int, reason: str
):
    error = failure(write(tmp_path, {"functions/notes.py": text}))
    file = tmp_path / "functions" / "notes.py"
    assert error.code == "AppLoadFailed"
    assert error.message.startswith(f"{file}:{line}: {reason}")
    shown = error.message.partition("\n\n")[2]
    assert f'File "{file}", line {line}' in shown
    assert "_reactive_store_app_" not in error.message
    assert "importlib" not in shown
    assert error.__cause__ is not None


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("@query\ndef f(ctx): ...\n", 2, "`f` is a plain def"),
        ("@query\nasync def f(ctx, x): ...\n", 2, "argument `x` of `f` has neither"),
        ("@query\nasync def f(ctx, x: 'Nope'): ...\n", 2, "an annotation of `f` cannot be read"),
        (
            "@query\nasync def f(ctx): ...\n@query\nasync def f(ctx): ...\n",
            4,
            "`f` is defined a second time (first in line 2)",
        ),
        (
            "@query\nasync def a_b(ctx): ...\n@query\nasync def aB(ctx): ...\n",
            4,
            "`aB` and the function in",
        ),
        ("@query\nasync def naïve(ctx): ...\n", 2, "function name naïve must start"),
    ],
)
def test_a_wrong_definition_says_where_it_stands(tmp_path: Path, text: str, line: int, reason: str):
    source = f"from reactive_store import query\n{text}"
    error = failure(write(tmp_path, {"functions/notes.py": source}))
    assert error.code == "AppLoadFailed"
    assert error.message.startswith(f"{tmp_path / 'functions' / 'notes.py'}:{line}: {reason}")


def test_two_modules_cannot_share_a_path(tmp_path: Path):
    error = failure(
        write(
            tmp_path,
            {
                "functions/user_notes.py": QUERY.format(name="f"),
                "functions/userNotes.py": QUERY.format(name="f"),
            },
        )
    )
    assert "are both userNotes:f on the wire: rename one." in error.message


def test_functions_need_a_module_and_modules_a_name(tmp_path: Path):
    error = failure(write(tmp_path / "a", {"functions/__init__.py": QUERY.format(name="f")}))
    assert "`f` has no module" in error.message
    error = failure(write(tmp_path / "b", {"functions/my-notes.py": ""}))
    assert "'my-notes' cannot be part of a function's path" in error.message


def test_schema_errors_keep_their_code(tmp_path: Path):
    """V85."""
    bad = (
        "from reactive_store import define_schema, define_table\n"
        "schema = define_schema({'_x': define_table({})})\n"
    )
    error = failure(write(tmp_path / "a", {"schema.py": bad}))
    assert error.code == "TableNameReserved"
    assert error.message.startswith(
        "Hit an error while evaluating your schema:\n_x is a reserved table name."
    )
    assert f'File "{tmp_path / "a" / "schema.py"}", line 2' in error.message
    assert "defines no `schema`" in failure(write(tmp_path / "b", {"schema.py": ""})).message
    assert "something else" in failure(write(tmp_path / "c", {"schema.py": "schema = 1"})).message


# ---- apps from parts ----


def test_an_app_is_built_from_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    schema = define_schema({"given": define_table({})})
    root = write(
        tmp_path,
        {"schema.py": SCHEMA, "functions/notes.py": QUERY.format(name="list_all")},
    )
    assert dict(build_app().functions) == {}
    assert build_app(schema=schema).schema is schema
    app = build_app(schema=schema, functions=root / "functions")
    assert (list(app.functions), list(app.schema.tables)) == (["notes.js:listAll"], ["given"])
    assert list(build_app(functions=str(root / "functions")).schema.tables) == ["notes"]
    monkeypatch.chdir(root)
    assert list(build_app(functions="functions").functions) == ["notes.js:listAll"]
    with pytest.raises(BadRequest, match="neither a folder"):
        build_app(functions="nowhere")
    with pytest.raises(BadRequest, match="is a module, no package"):
        build_app(functions=importlib.import_module("ast"))


def test_a_package_is_loaded_apart_from_its_public_self(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(
        tmp_path,
        {
            "a_shop/__init__.py": "",
            "a_shop/schema.py": SCHEMA,
            "a_shop/functions/__init__.py": "",
            "a_shop/functions/notes.py": QUERY.format(name="list_all")
            + "from a_shop.functions.other import value\nfrom ..schema import schema\n",
            "a_shop/functions/other.py": "value = []\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        by_name = build_app(functions="a_shop.functions")
        public = importlib.import_module("a_shop.functions.notes")
        by_module = build_app(functions=sys.modules["a_shop.functions"])
        assert list(by_name.functions) == list(by_module.functions) == ["notes.js:listAll"]
        own = by_name.functions["notes.js:listAll"].handler.__globals__
        assert own["value"] is not public.value
        # A test that imports the module as usual still names the app's function with it.
        assert by_name.resolve(public.list_all) == "notes.js:listAll"
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "a_shop"]:
            del sys.modules[name]
