"""Writes the reference pages that are made from the code, and the snapshot of public names.

`make docs` runs this file as a program; `test_docs.py` and `test_exports.py` compare what it would
write with what is there. Look at the difference before you keep it: a name that vanished breaks
users.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a program
    sys.path.insert(0, str(ROOT))

REFERENCE = ROOT / "docs" / "reference"
EXPORTS = ROOT / "tests" / "exports.json"
PUBLIC = (
    "reactive_store",
    "reactive_store.asgi",
    "reactive_store.testing",
    "reactive_store.kit.claude",
    "reactive_store.kit.aggregate",
    "reactive_store.kit.constraints",
    "reactive_store.kit.custom_functions",
    "reactive_store.kit.filter",
    "reactive_store.kit.layers",
    "reactive_store.kit.relationships",
    "reactive_store.kit.rules",
    "reactive_store.kit.sessions",
    "reactive_store.kit.sharded_counter",
    "reactive_store.kit.triggers",
)


def exports() -> dict[str, list[str]]:
    """Every public module with its names."""
    return {name: sorted(importlib.import_module(name).__all__) for name in PUBLIC}


def settings_page() -> str:
    """One row per field of `Settings`, its text taken from the string below the field."""
    source = (ROOT / "reactive_store" / "config.py").read_text(encoding="utf-8")
    config = importlib.import_module("reactive_store.config")
    body = next(
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    rows = []
    for field, text in itertools.pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        name = field.target.id
        if name == "model_config":
            continue
        assert isinstance(text, ast.Expr), f"no text below Settings.{name}"
        assert isinstance(text.value, ast.Constant)
        info = config.Settings.model_fields[name]
        shown = info.alias or name
        variable = f"`{config.ENVIRONMENT_PREFIX}{shown.upper()}`"
        default = "see below" if name == "limits" else f"`{_plain(info.default)}`"
        if name in {"app", "limits"}:
            variable = ""
        rows.append(f"| `{shown}` | {variable} | {default} | {_one_line(text.value.value)} |")
    return "\n".join(
        [
            "# Settings",
            "",
            "What a deployment is configured with. Each comes from the first that names it of: the",
            "command line (`--site-port` for `site_port`), the environment,",
            "`[tool.reactive_store]` in the app's `pyproject.toml`, the default.",
            "They are read once, at the start.",
            "",
            "| name | environment | default | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "The fields of `limits` are on a [page of their own](limits.md).",
            "",
        ]
    )


def commands_page() -> str:
    """Every command with its help, as the program prints it."""
    typer = importlib.import_module("typer.main")
    root = typer.get_command(importlib.import_module("reactive_store.cli.main").app)
    lines = ["# Commands", "", _one_line(root.help or ""), ""]
    for path, command in _walk(root, ("reactive-store",)):
        lines += [f"## `{' '.join(path)}`", "", _paragraphs(command.help or ""), ""]
        rows = [_parameter(parameter) for parameter in command.params if not _is_hidden(parameter)]
        if rows:
            lines += ["| option | default | meaning |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _walk(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        return [(path, command)]
    found = []
    for name, inner in command.commands.items():
        if not inner.hidden:
            found += _walk(inner, (*path, name))
    return found


def _is_hidden(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False)) or parameter.name == "help"


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar if parameter.metavar is not None else parameter.name.upper()
    else:
        name = " / ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    shown = "" if default is None or callable(default) or default == "" else f"`{_plain(default)}`"
    if parameter.required:
        shown = "required"
    text = _one_line(getattr(parameter, "help", None) or "").replace("|", "\\|")
    return f"| `{name}` | {shown} | {text} |"


def names_page() -> str:
    """Every public name with the first line of its docstring."""
    lines = [
        "# Names",
        "",
        "What an app, its tests and programs around it import. Everything else is inside, and may",
        "change.",
        "",
    ]
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        lines += [f"## `{module_name}`", "", "| name | is |", "| --- | --- |"]
        lines += [
            f"| `{name}` | {_summary(getattr(module, name))} |" for name in sorted(module.__all__)
        ]
        lines.append("")
    return "\n".join(lines)


def _summary(value: Any) -> str:
    is_own = inspect.isclass(value) or inspect.isroutine(value)
    owner = value if is_own else type(value)
    text = (inspect.getdoc(owner) or "").strip().split("\n\n")[0]
    if owner.__module__ == "builtins" or not text:
        text = f"a {type(value).__name__}"
    return _one_line(text).replace("|", "\\|")


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Enum):
        value = value.value
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _paragraphs(text: str) -> str:
    parts = text.replace("\b", "").split("\n\n")
    return "\n\n".join(_one_line(part) for part in parts if part.strip())


def snapshot() -> str:
    """The public names as they are recorded."""
    return json.dumps(exports(), indent=2) + "\n"


# Everything that is made from the code: where it stands, and what makes it.
PAGES: dict[Path, Callable[[], str]] = {
    REFERENCE / "settings.md": settings_page,
    REFERENCE / "cli.md": commands_page,
    REFERENCE / "api.md": names_page,
    EXPORTS: snapshot,
}


if __name__ == "__main__":
    for page, make in PAGES.items():
        page.write_text(make(), encoding="utf-8")
        print("wrote", page.relative_to(ROOT))
