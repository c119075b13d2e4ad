"""Private imports: the same public names, several apps, nothing left behind."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from reactive_store.functions.private_imports import PrivateImports


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def imports_of(root: Path, **options: object) -> PrivateImports:
    settings = {
        "own": frozenset({"schema", "functions"}),
        "mounts": {"functions": root / "functions"},
        "aliases": {},
        "replaced": {},
    }
    return PrivateImports(root, **{**settings, **options})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_is_left():
    before, finders = set(sys.modules), list(sys.meta_path)
    yield
    left = {name for name in set(sys.modules) - before if not name.startswith("pydantic")}
    assert {name for name in left if name.split(".")[0] in ("schema", "functions")} == set()
    assert {name for name in left if name.startswith("_reactive_store_app_")} == set()
    assert sys.meta_path == finders


FORMS = {
    "from functions.other import value": "value",
    "from functions import other": "other.value",
    "import functions.other": "functions.other.value",
    "import functions.other as o": "o.value",
    "from .other import value": "value",
    "from . import other": "other.value",
    "from functions.deep.inner import twice": "twice // 2",
    "import beside": "beside.value",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["top", "body"])
def test_every_form_of_import_finds_its_own_app(tmp_path: Path, form: str, place: str):
    get = FORMS[form]
    text = (
        f"{form}\ndef get():\n    return {get}\n"
        if place == "top"
        else f"def get():\n    {form}\n    return {get}\n"
    )
    apps = []
    for number in (1, 2):
        root = write(
            tmp_path / str(number),
            {
                "functions/main.py": text,
                "functions/other.py": f"value = {number}",
                "functions/deep/inner.py": "from ..other import value\ntwice = value * 2",
                "beside.py": f"value = {number}",
            },
        )
        apps.append(imports_of(root))
    modules = [app.load("functions.main") for app in apps]
    assert [module.get() for module in modules] == [1, 2]
    for app in apps:
        app.close()
    # Functions that still run after a reload finish on what they had.
    if "beside" not in form or place == "top":
        assert modules[0].get() == 1


def test_a_packages_public_name_means_the_app_too(tmp_path: Path):
    root = write(
        tmp_path,
        {
            "functions/main.py": "from shop.functions.other import value",
            "functions/other.py": "value = 3",
        },
    )
    app = imports_of(root, aliases={"shop.functions": "functions"})
    assert app.load("functions.main").value == 3
    app.close()


def test_python_and_installed_packages_come_first(tmp_path: Path):
    root = write(
        tmp_path,
        {
            "functions/main.py": "import json, pydantic, reactive_store",
            "json.py": "raise RuntimeError",
            "pydantic.py": "raise RuntimeError",
            "reactive_store/__init__.py": "raise RuntimeError",
        },
    )
    app = imports_of(root)
    main = app.load("functions.main")
    assert main.json is sys.modules["json"]
    assert main.reactive_store is sys.modules["reactive_store"]
    app.close()


def test_replaced_builtins_are_seen_by_the_apps_modules_only(tmp_path: Path):
    root = write(tmp_path, {"functions/main.py": "def shout():\n    return len([])"})
    app = imports_of(root, replaced={"len": lambda _items: "replaced"})
    assert app.load("functions.main").shout() == "replaced"
    assert len([]) == 0
    app.close()


def test_a_missing_module_is_named_as_the_author_knows_it(tmp_path: Path):
    app = imports_of(write(tmp_path, {"functions/main.py": "import functions.nope"}))
    with pytest.raises(ModuleNotFoundError) as caught:
        app.load("functions.main")
    assert app.public_text(str(caught.value)) == "No module named 'functions.nope'"
    app.close()


def test_files_are_read_anew_and_leave_no_bytecode(tmp_path: Path):
    root = write(tmp_path, {"functions/main.py": "value = 1"})
    first = imports_of(root)
    assert first.load("functions.main").value == 1
    write(root, {"functions/main.py": "value = 2"})  # same size, same second
    second = imports_of(root)
    assert second.load("functions.main").value == 2
    assert first.load("functions.main").value == 1
    assert second.files == {root / "functions" / "main.py"}
    assert not list(root.rglob("__pycache__"))
    first.close()
    second.close()
    second.close()


def test_what_was_never_imported_cannot_be_after_closing(tmp_path: Path):
    root = write(
        tmp_path,
        {
            "functions/main.py": "def late():\n    from functions.other import value",
            "functions/other.py": "value = 1",
        },
    )
    app = imports_of(root)
    main = app.load("functions.main")
    app.close()
    with pytest.raises(ImportError, match=r"functions\.other cannot be imported any more"):
        main.late()


def test_other_modules_are_none_of_its_business(tmp_path: Path):
    app = imports_of(tmp_path)
    assert app.find_spec("json") is None
    assert app.find_spec(f"{app.package}0.functions") is None
    assert app.find_spec(f"{app.package}.nowhere") is None
    assert importlib.import_module("json") is sys.modules["json"]
    app.close()
