"""The shape of the code, read from its syntax trees: layers, homes, sizes, names, docstrings.

The rules are those of docs/architecture.md. A module that needs an exception stands in a table
here, with its reason; there is no other way around a rule.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "reactive_store"

FILE_LINES = 800
FUNCTION_LINES = 100
PUBLIC_NAMES = 20

# A module's level is the longest entry that is a prefix of its name.
LEVELS = {
    "errors": 0, "limits": 0, "runtime": 0, "config": 0,
    "values": 1, "schema": 1,
    "persistence": 2, "blobs": 2, "auth": 2,
    "engine": 3,
    "functions": 4,
    "sync": 5, "scheduling": 5, "transfer": 5,
    "backend": 6,
    "server": 7, "client": 7, "asgi": 7,
    "cli": 8, "testing": 8, "__main__": 8,
}  # fmt: skip

# Packages of one level that may see each other, besides themselves.
SIDEWAYS = {
    ("schema", "values"),
    ("asgi", "server"),
    ("__main__", "cli"),
    ("config", "limits"),
    ("config", "errors"),
}

# The kit is written on public names, like an app.
APP_SIDE = ("kit", "dashboard")

# What may import a third party. A trailing dot means the package and everything in it.
HOMES = {
    "starlette": ("__init__", "server.", "asgi", "testing.", "cli."),
    "uvicorn": ("server.", "asgi", "cli."),
    "websockets": ("client.", "server."),
    "aiosqlite": ("persistence.writer_thread",),
    "jwt": ("auth.",),
    "cryptography": ("auth.",),
    "cronsim": ("functions.crons",),
    "numpy": ("engine.",),
    "obstore": ("blobs.",),
    "filelock": ("persistence.data_lock",),
    "anthropic": ("kit.claude",),
    "orjson": ("values.wire", "sync.protocol", "server."),
    "pydantic": ("config", "functions.annotations", "server.", "auth.", "schema."),
    "typer": ("cli.",),
    "rich": ("cli.",),
    "watchfiles": ("cli.",),
}

# Distributions that are imported under another name.
IMPORT_NAMES = {"pyjwt": "jwt"}

# Cores that decide without waiting: no event loop, socket, thread or clock inside.
PURE = (
    "values.", "schema.", "sync.protocol", "sync.session", "client.state",
    "engine.interval", "engine.reads", "engine.write_log",
)  # fmt: skip
IMPURE_IMPORTS = {"asyncio", "anyio", "socket", "ssl", "threading", "time", "random", "uuid"}

# The only door to time, chance and background work is runtime.py. (module, attribute)
DOORS = {
    ("time", "time"), ("time", "time_ns"), ("time", "monotonic"), ("time", "perf_counter"),
    ("datetime", "now"), ("datetime", "utcnow"), ("asyncio", "create_task"),
    ("asyncio", "ensure_future"), ("os", "urandom"), ("random", "random"), ("uuid", "uuid4"),
    ("secrets", "token_bytes"), ("secrets", "token_hex"),
}  # fmt: skip
# functions.metering watches a computing handler from another thread: it needs the real clock.
DOOR_KEEPERS = ("runtime", "functions.metering", "cli.", "testing.", "client.", "kit.")

FORBIDDEN_WORDS = {
    "util", "utils", "helper", "helpers", "common", "misc", "base", "core", "manager", "service",
    "processor", "impl", "wrapper",
}  # fmt: skip

# Modules whose behaviour is pinned by another test file than the one of the same name.
COVERED_ELSEWHERE = {
    "__init__": "tests/test_exports.py holds its surface",
    "__main__": "tests/cli runs it as a program",
    "errors": "a tree of names; every test that expects an error uses it",
    "limits": "tests/test_docs.py compares it with the reference page",
    "runtime": "thin calls into the standard library; the virtual twin has tests",
    "asgi": "tests/server drives the application it builds",
}


@dataclass(frozen=True)
class Module:
    """One file of the package with its dotted name (without `reactive_store.`) and syntax tree."""

    name: str
    path: Path
    source: str
    tree: ast.Module

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    def within(self, places: tuple[str, ...]) -> bool:
        return any(
            self.name == place.rstrip(".") or (place.endswith(".") and self.name.startswith(place))
            for place in places
        )


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if "node_modules" in path.parts:
            continue
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        source = path.read_text(encoding="utf-8")
        found.append(Module(".".join(parts), path, source, ast.parse(source)))
    return tuple(found)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module named by an import, with its line; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def report(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(sorted(set(problems)))


def test_there_is_something_to_check():
    assert len(modules()) >= 3


def test_imports_point_down():
    problems = []
    for module in modules():
        if module.name == "__init__" or module.top in APP_SIDE:
            continue  # the vocabulary re-exports; the app side has its own rule
        own = LEVELS.get(module.top)
        if own is None:
            problems.append(f"{module.name}: no level; give {module.top!r} one in LEVELS")
            continue
        for target, line in imports(module.tree):
            if not target.startswith("reactive_store."):
                if target == "reactive_store":
                    problems.append(f"{module.path}:{line} imports the package root")
                continue
            top = target.split(".")[1]
            if top == module.top or (module.top, top) in SIDEWAYS:
                continue
            if top in APP_SIDE or LEVELS.get(top, -1) >= own:
                problems.append(f"{module.path}:{line} {module.name} may not import {target}")
    report(problems)


def test_the_engine_knows_storage_only_by_its_contract():
    # `sorted_keys` is a data structure, not a store: text search keeps its words in order with it.
    problems = [
        f"{module.path}:{line} imports {target}"
        for module in modules()
        if module.top in {"engine", "functions", "sync", "scheduling", "server"}
        for target, line in imports(module.tree)
        if target.startswith("reactive_store.persistence")
        and not target.startswith("reactive_store.persistence.contract")
        and not target.startswith("reactive_store.persistence.sorted_keys")
        and target != "reactive_store.persistence"
    ]
    report(problems)


def test_the_client_sees_values_and_the_protocol_only():
    allowed = {"errors", "limits", "runtime", "config", "values", "schema", "client"}
    problems = [
        f"{module.path}:{line} imports {target}"
        for module in modules()
        if module.top == "client"
        for target, line in imports(module.tree)
        if target.startswith("reactive_store.")
        and target.split(".")[1] not in allowed
        and not target.startswith("reactive_store.sync.protocol")
        and target != "reactive_store.sync"
    ]
    report(problems)


def test_the_app_side_uses_public_names_only():
    public = {"reactive_store", "reactive_store.testing", "reactive_store.client"}
    problems = []
    app_files = [m.path for m in modules() if m.top in APP_SIDE]
    app_files += [ROOT / "schema.py", *(ROOT / "functions").rglob("*.py")]
    for path in app_files:
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = []
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                named = [node.module]
            problems += [
                f"{path}:{node.lineno} imports {name}"
                for name in named
                if name.startswith("reactive_store.")
                and name not in public
                and not name.startswith("reactive_store.kit")
            ]
    report(problems)


def test_third_parties_stay_in_their_homes():
    problems = [
        f"{module.path}:{line} {target}: lives in {HOMES[target.split('.')[0]]}"
        for module in modules()
        for target, line in imports(module.tree)
        if target.split(".")[0] in HOMES and not module.within(HOMES[target.split(".")[0]])
    ]
    report(problems)


def test_only_declared_third_parties_are_imported():
    known = set(sys.stdlib_module_names) | set(HOMES) | {"reactive_store"}
    problems = [
        f"{module.path}:{line} {target} is no declared dependency"
        for module in modules()
        for target, line in imports(module.tree)
        if target.split(".")[0] not in known
    ]
    report(problems)


def test_every_third_party_with_a_home_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = set()
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    for requirement in [*project["dependencies"], *extras]:
        name = re.split(r"[\s\[<>=!~;]", requirement)[0].lower()
        declared.add(IMPORT_NAMES.get(name, name))
    used = {
        target.split(".")[0]
        for module in modules()
        for target, _ in imports(module.tree)
        if target.split(".")[0] in HOMES
    }
    assert used <= declared


def test_pure_modules_do_not_wait_or_look_at_the_clock():
    problems = []
    for module in modules():
        if not module.within(PURE):
            continue
        problems += [
            f"{module.path}:{line} imports {target}"
            for target, line in imports(module.tree)
            if target.split(".")[0] in IMPURE_IMPORTS
        ]
        problems += [
            f"{module.path}:{node.lineno} is async"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.AsyncFunctionDef | ast.Await)
        ]
    report(problems)


def test_time_chance_and_tasks_enter_through_the_runtime():
    problems = [
        f"{module.path}:{node.lineno} uses {node.value.id}.{node.attr}"
        for module in modules()
        if not module.within(DOOR_KEEPERS)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in DOORS
    ]
    report(problems)


def test_imports_stand_at_the_top_of_a_module():
    problems = [
        f"{module.path}:{inner.lineno} imports inside {node.name}"
        for module in modules()
        if module.top != "cli"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    report(problems)


def test_imports_are_absolute():
    problems = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    report(problems)


def test_files_functions_and_classes_stay_small():
    problems = []
    for module in modules():
        lines = module.source.count("\n")
        if lines > FILE_LINES:
            problems.append(f"{module.path}: {lines} lines, the limit is {FILE_LINES}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    problems.append(f"{module.path}:{node.lineno} {node.name}: {length} lines")
            elif isinstance(node, ast.ClassDef):
                public = public_names(node)
                if len(public) > PUBLIC_NAMES and not is_record(node):
                    problems.append(
                        f"{module.path}:{node.lineno} {node.name}: {len(public)} public names"
                    )
    report(problems)


def public_names(node: ast.ClassDef) -> set[str]:
    names = set()
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(item.name)
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            names.add(item.target.id)
        elif isinstance(item, ast.Assign):
            names |= {target.id for target in item.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def is_record(node: ast.ClassDef) -> bool:
    """A dataclass or model whose public names are fields: a table of values, not an interface."""
    methods = [
        item
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        and not item.name.startswith("_")
    ]
    return len(methods) <= PUBLIC_NAMES // 2 and any(
        isinstance(item, ast.AnnAssign) for item in node.body
    )


def test_names_say_what_a_thing_is():
    problems = []
    for module in modules():
        words = set(re.split(r"[._]+", module.name))
        problems += [f"{module.path}: {word} in a file's name" for word in words & FORBIDDEN_WORDS]
        if module.path.stem.startswith("_") and module.path.stem not in {"__init__", "__main__"}:
            problems.append(f"{module.path}: a file is never private")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                parts = {part.lower() for part in re.findall(r"[A-Z][a-z0-9]*", node.name)}
                problems += [
                    f"{module.path}:{node.lineno} class {node.name}: {part}"
                    for part in parts & FORBIDDEN_WORDS
                ]
    report(problems)


def test_every_module_says_what_it_is_and_what_it_offers():
    problems = []
    for module in modules():
        if not ast.get_docstring(module.tree):
            problems.append(f"{module.path}: no docstring")
        lists_names = any(
            isinstance(node, ast.Assign | ast.AnnAssign)
            and "__all__" in ast.unparse(node).split("=")[0]
            for node in module.tree.body
        )
        defines = any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ImportFrom)
            for node in module.tree.body
        )
        if defines and not lists_names and module.path.stem != "__main__":
            problems.append(f"{module.path}: no __all__")
    report(problems)


def test_every_public_name_has_a_docstring():
    problems = []
    for module in modules():
        problems += [
            f"{module.path}:{node.lineno} {node.name}"
            for node in module.tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
            and "overload" not in [ast.unparse(each) for each in node.decorator_list]
        ]
    report(problems)


def test_every_module_has_a_test_file_of_its_name():
    problems = []
    for module in modules():
        if module.name in COVERED_ELSEWHERE or module.path.stem == "__init__":
            continue
        *folders, leaf = module.name.split(".")
        wanted = ROOT.joinpath("tests", *folders, f"test_{leaf}.py")
        if not wanted.exists():
            problems.append(f"{module.name}: {wanted.relative_to(ROOT)} is missing")
    report(problems)


def test_exceptions_of_this_file_name_modules_that_exist():
    names = {module.name for module in modules()}
    stale = [name for name in COVERED_ELSEWHERE if name not in names]
    allowed_to_come = {"__main__", "asgi", "__init__"}
    assert set(stale) <= allowed_to_come


@cache
def tracked_files() -> tuple[Path, ...]:
    """What a fresh clone holds (or would hold, once added); without git, every plain file."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode == 0:
        paths = [ROOT / line for line in listing.stdout.splitlines()]
    else:
        hidden = {".git", ".venv", "node_modules", "dist", "artifacts"}
        paths = [p for p in ROOT.rglob("*") if not hidden & set(p.relative_to(ROOT).parts)]
    return tuple(path for path in paths if path.is_file())


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked_files():
        if path.suffix in {".png", ".jpg", ".ico", ".woff2", ".zip"}:
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_nothing_names_a_machine_or_a_private_registry():
    # Built from pieces so that this file does not contain what it looks for.
    slash = "/"
    patterns = [
        re.compile(rf"(?<![\w.\-{slash}]){slash}(?:work|root|farm|home){slash}\w"),
        re.compile(r"\b(?:index-url|extra-index-url|npm_config_registry|_authToken)\b\s*[=:]"),
        re.compile(r"\"resolved\":\s*\"https?://(?!registry\.npmjs\.org/)"),
    ]
    problems = []
    for path, text in texts():
        for pattern in patterns:
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                problems.append(f"{path.relative_to(ROOT)}:{line} {match.group()}")
    report(problems)


def test_nothing_is_left_for_later():
    later = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX|NotImplemented" r"Error)\b")
    problems = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1} {match.group()}"
        for path, text in texts()
        if path.suffix in {".py", ".mjs", ".ts", ".tsx", ".jsx", ".js", ".sh", ".sql"}
        for match in later.finditer(text)
    ]
    report(problems)


@pytest.mark.parametrize("root", ["tests", "bench", "functions", "examples"])
def test_files_outside_the_package_stay_small_too(root: str):
    problems = []
    for path in tracked_files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == root:
            lines = path.read_text(encoding="utf-8").count("\n")
            if lines > FILE_LINES:
                problems.append(f"{path.relative_to(ROOT)}: {lines} lines")
    report(problems)


def test_no_test_is_switched_off():
    off = re.compile(
        r"pytest\.(?:mark\.)?(?:skip|skipif|xfail)\b|\b(?:it|test|describe)\.(?:skip|todo)\b"
    )
    here = Path(__file__).resolve()
    problems = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        for path, text in texts()
        if path.relative_to(ROOT).parts[0] == "tests" and path != here
        for match in off.finditer(text)
    ]
    report(problems)
