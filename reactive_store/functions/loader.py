"""From files to an `App`: finds the modules, executes them, collects what they define.

- `schema.py` defines `schema`; every module of the functions folder is a namespace of functions.
- Private are modules, folders and functions with a leading underscore. Test files are left alone.
- A function belongs to the module that defines it, not to modules that import it.
- Whatever goes wrong leaves nothing behind and says where: file, line, error, traceback.

Source of facts: docs/reference/functions.md, "Loading"; Convex's npm client 1.48 for which files
are entry points.
"""

from __future__ import annotations

import ast
import importlib
import traceback
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import isfunction
from pathlib import Path
from types import MappingProxyType, ModuleType, TracebackType
from typing import Final, NoReturn, TypeVar

from reactive_store.auth.providers import AuthProvider
from reactive_store.errors import BadRequest
from reactive_store.functions import private_imports
from reactive_store.functions.app import App
from reactive_store.functions.crons import Crons, cron_targets
from reactive_store.functions.definitions import FunctionDef
from reactive_store.functions.logs import captured_print
from reactive_store.functions.names import (
    function_path,
    is_private,
    module_path,
    name_problem,
    split_path,
    to_wire,
)
from reactive_store.functions.private_imports import PrivateImports
from reactive_store.functions.router import HttpRouter
from reactive_store.schema.tables import Schema, define_schema

__all__ = ["build_app", "load_app"]

T = TypeVar("T")

_SCHEMA_NAME: Final = "schema"

# Files whose lines say nothing to an app's author: how imports work.
_MACHINERY: Final = frozenset(
    {
        importlib.__file__,
        private_imports.__file__,
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>",
    }
)


def load_app(root: Path, *, schema: str = "schema.py", functions: str = "functions") -> App:
    """The app in a folder.

    Shapes   schema, functions: paths relative to `root` (or absolute). Either may be missing, then
             the app has no tables or no functions; not both
    Cost     executes every module
    Raises   BadRequest[AppLoadFailed] with file, line, the error and its traceback; what
             `define_schema` raises keeps its code
    """
    root = Path(root).resolve()
    schema_file, folder = root / schema, root / functions
    if not schema_file.is_file() and not folder.is_dir():
        raise _failure(
            f"{root} is no app: it has neither {schema} nor a folder {functions}/. "
            "Give the app's folder, or make one with `reactive-store init`."
        )
    return _Loading(root, schema_file, folder, alias=None).app(None)


def build_app(
    *, functions: str | Path | ModuleType | None = None, schema: Schema | None = None
) -> App:
    """An app from parts, for tests and for embedding.

    Shapes   functions: a folder, or a package (the module or its dotted name); None: no functions.
             schema: without it, `schema.py` beside the folder counts, if there is one
    Raises   BadRequest as `load_app`
    """
    if functions is None:
        return App(schema or define_schema({}), MappingProxyType({}))
    folder, alias = _functions_folder(functions)
    root = folder.parent
    return _Loading(root, root / "schema.py", folder, alias=alias).app(schema)


def _functions_folder(functions: str | Path | ModuleType) -> tuple[Path, str | None]:
    """The folder, and the public name its modules may know themselves by."""
    if isinstance(functions, ModuleType):
        places = list(getattr(functions, "__path__", ()))
        if not places:
            raise _failure(f"{functions.__name__} is a module, no package: pass its folder.")
        return Path(places[0]).resolve(), functions.__name__
    folder = Path(functions).resolve()
    if folder.is_dir():
        return folder, None
    name = str(functions)
    if all(part.isidentifier() for part in name.split(".")):
        try:
            spec = find_spec(name)
        except ModuleNotFoundError:
            spec = None
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations))).resolve(), name
    raise _failure(f"{functions} is neither a folder (looked for {folder}) nor a package.")


@dataclass(frozen=True, slots=True)
class _FunctionModule:
    """A file of the functions folder whose functions have paths."""

    file: Path
    words: tuple[str, ...]  # folders and name, as in Python: ("admin", "user_notes")


@dataclass(frozen=True, slots=True)
class _Special:
    """What the modules with a meaning of their own define: crons.py, http.py, auth_config.py."""

    crons: Crons | None
    http: HttpRouter | None
    providers: tuple[AuthProvider, ...]

    @staticmethod
    def of(loaded: Mapping[tuple[str, ...], tuple[Path, ModuleType]]) -> _Special:
        """Take them from the loaded modules, by the words of each.

        Raises   BadRequest[AppLoadFailed] naming the file and what it should define
        """
        return _Special(
            _defined(loaded, "crons", "crons", Crons, "crons = Crons()"),
            _defined(loaded, "http", "http", HttpRouter, "http = HttpRouter()"),
            _providers(loaded),
        )

    def close_router(self) -> None:
        """The routes are complete.

        Raises   BadRequest[AppLoadFailed] when one has no handler
        """
        try:
            if self.http is not None:
                self.http.close()
        except BadRequest as error:
            raise _failure(error.message) from error


_Loaded = Mapping[tuple[str, ...], tuple[Path, ModuleType]]


def _defined(loaded: _Loaded, module: str, name: str, kind: type[T], example: str) -> T | None:
    """The object that a special module defines under its name; None when there is no module."""
    if (module,) not in loaded:
        return None
    file, namespace = loaded[(module,)]
    value = getattr(namespace, name, None)
    if isinstance(value, kind):
        return value
    problem = f"defines no `{name}`" if value is None else f"defines `{name}` as something else"
    raise _failure(f"{file} {problem}: write `{example}` at module level.")


def _providers(loaded: _Loaded) -> tuple[AuthProvider, ...]:
    if ("auth_config",) not in loaded:
        return ()
    file, namespace = loaded[("auth_config",)]
    value = getattr(namespace, "providers", None)
    if isinstance(value, list | tuple) and all(isinstance(each, AuthProvider) for each in value):
        return tuple(value)
    raise _failure(
        f"{file} defines no list `providers`: write `providers = [OidcProvider(...)]` at module "
        "level."
    )


class _Loading:
    """One attempt at loading an app."""

    def __init__(self, root: Path, schema_file: Path, folder: Path, *, alias: str | None) -> None:
        self._root = root
        self._schema_file = schema_file
        self._folder = folder
        schema_name = _dotted(root, schema_file.with_suffix(""))
        folder_name = _dotted(root, folder)
        self._schema_name = schema_name or schema_file.stem
        self._folder_name = folder_name or folder.name
        own = set()
        if schema_file.is_file():
            own.add(self._schema_name.partition(".")[0])
        if folder.is_dir():
            own.add(self._folder_name.partition(".")[0])
        self._imports = PrivateImports(
            root,
            own=frozenset(own),
            mounts={
                self._schema_name: schema_file.with_suffix(""),
                self._folder_name: folder,
            },
            aliases={alias: self._folder_name} if alias and alias != self._folder_name else {},
            replaced={"print": captured_print},
        )

    def app(self, schema: Schema | None) -> App:
        """Load everything.

        Raises   BadRequest; then nothing of the attempt is left
        """
        try:
            schema = schema or self._schema()
            functions: dict[str, FunctionDef] = {}
            plain: dict[str, frozenset[str]] = {}
            loaded = [
                (module, self._load(".".join((self._folder_name, *module.words))))
                for module in self._modules()
            ]
            self._refuse_functions_of_the_package()
            # Only now: annotations may name types of modules that were loaded later.
            for module, namespace in loaded:
                self._collect(module, namespace, functions)
                plain[module_path(list(module.words))] = _plain_functions(namespace)
            special = _Special.of({module.words: (module.file, names) for module, names in loaded})
            special.close_router()
        except BaseException:
            self._imports.close()
            raise
        app = App(
            schema,
            MappingProxyType(dict(sorted(functions.items()))),
            frozenset(self._imports.files),
            MappingProxyType(plain),
            self._root,
            crons=special.crons,
            http=special.http,
            providers=special.providers,
            unload=self._imports.close,
        )
        try:
            cron_targets(app)
        except BadRequest as error:
            app.close()
            raise _failure(f"{self._folder / 'crons.py'}: {error.message}") from error
        weakref.finalize(app, self._imports.close).atexit = False
        return app

    def _schema(self) -> Schema:
        if not self._schema_file.is_file():
            return define_schema({})
        namespace = self._load(self._schema_name)
        schema = getattr(namespace, _SCHEMA_NAME, None)
        if isinstance(schema, Schema):
            return schema
        problem = "defines no `schema`" if schema is None else "defines `schema` as something else"
        raise _failure(
            f"{self._schema_file} {problem}: write `schema = define_schema({{...}})` at module "
            "level."
        )

    def _modules(self) -> Iterator[_FunctionModule]:
        if not self._folder.is_dir():
            return
        for file in sorted(self._folder.rglob("*.py")):
            *folders, name = file.relative_to(self._folder).with_suffix("").parts
            if any(is_private(part) or part.startswith(".") for part in folders):
                continue
            words = (*folders,) if name == "__init__" else (*folders, name)
            if not words or _is_left_out(words[-1]):
                continue
            for word in words:
                if not word.isidentifier() or (problem := name_problem(word)) is not None:
                    problem = f"{word!r} cannot be part of a function's path"
                    raise _failure(
                        f"{file}: {problem}: use ASCII letters, digits and underscores (at most "
                        "64), or a leading underscore to keep the module private."
                    )
            yield _FunctionModule(file, words)

    def _load(self, name: str) -> ModuleType:
        """Execute a module. The one place where the app's code may fail in any way."""
        try:
            return self._imports.load(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the app's code may raise anything
            self._refuse(error, self._is_schema(name))

    def _is_schema(self, name: str) -> bool:
        return name == self._schema_name

    def _refuse(self, error: BaseException, is_schema: bool) -> NoReturn:
        if isinstance(error, BadRequest) and error.code == "InvalidFunction":
            raise _failure(error.message) from error  # says file, line and remedy by itself
        if isinstance(error, BadRequest) and is_schema:
            raise BadRequest(
                f"Hit an error while evaluating your schema:\n{error.message}"
                f"\n\n{self._traceback(error)}",
                code=error.code,
            ) from error
        place, text = self._place(error), self._imports.public_text(str(error))
        raise _failure(
            f"{place}: {type(error).__name__}: {text}\n\n{self._traceback(error)}"
        ) from error

    def _place(self, error: BaseException) -> str:
        """File and line: of the syntax error, or of the innermost line of the app's own code."""
        if isinstance(error, SyntaxError) and error.filename:
            return f"{error.filename}:{error.lineno or 1}"
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if self._is_own(frame.filename)]
        return f"{own[-1].filename}:{own[-1].lineno}" if own else str(self._root)

    def _traceback(self, error: BaseException) -> str:
        """The traceback from the first line of the app's code on."""
        step: TracebackType | None = error.__traceback__
        while step is not None and not self._is_own(step.tb_frame.f_code.co_filename):
            step = step.tb_next
        shown = traceback.TracebackException(type(error), error, step)
        shown.stack[:] = [frame for frame in shown.stack if frame.filename not in _MACHINERY]
        return self._imports.public_text("".join(shown.format())).rstrip()

    def _is_own(self, filename: str) -> bool:
        path = Path(filename)
        return path.is_relative_to(self._root) or path.is_relative_to(self._folder)

    def _refuse_functions_of_the_package(self) -> None:
        """Functions in `functions/__init__.py` would have a path without a module."""
        package = self._imports.load(self._folder_name) if self._folder.is_dir() else None
        if package is None or not package.__file__:
            return
        for name, value in vars(package).items():
            if isinstance(value, FunctionDef) and value.file == package.__file__:
                raise _failure(
                    f"{value.file}:{value.line}: `{name}` has no module to give it a path: move it "
                    f"from {self._folder.name}/__init__.py into a module beside it."
                )

    def _collect(
        self,
        module: _FunctionModule,
        namespace: ModuleType,
        functions: dict[str, FunctionDef],
    ) -> None:
        """Register the functions of one module under their paths."""
        imported = _imported_names(module.file)
        for name, value in list(vars(namespace).items()):
            if not isinstance(value, FunctionDef) or is_private(name) or name in imported:
                continue
            if "*" in imported and value.handler.__module__ != namespace.__name__:
                continue
            if (problem := name_problem(to_wire(name))) is not None:
                raise _failure(f"{value.file}:{value.line}: {problem}.")
            path = function_path(list(module.words), name)
            other = functions.get(path)
            if other is not None:
                raise _failure(
                    f"{value.file}:{value.line}: `{name}` and the function in "
                    f"{other.file}:{other.line} are both {_shown(path)}: rename one."
                )
            try:
                value.complete()
            except BadRequest as error:
                raise _failure(error.message) from error
            functions[path] = value.at(path)


def _is_left_out(name: str) -> bool:
    return (
        is_private(name)
        or name == "conftest"
        or name.startswith(("test_", "."))
        or name.endswith("_test")
    )


def _dotted(root: Path, path: Path) -> str | None:
    """The dotted name of a path below the root; None when it lies elsewhere."""
    if not path.is_relative_to(root) or path == root:
        return None
    return ".".join(path.relative_to(root).parts)


def _plain_functions(namespace: ModuleType) -> frozenset[str]:
    return frozenset(
        to_wire(name)
        for name, value in vars(namespace).items()
        if isfunction(value) and value.__module__ == namespace.__name__ and not is_private(name)
    )


def _imported_names(file: Path) -> set[str]:
    """What a module binds by import statements outside of functions and classes."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return names


def _shown(path: str) -> str:
    module, function = split_path(path)
    return f"{module.removesuffix('.js')}:{function} on the wire"


def _failure(text: str) -> BadRequest:
    return BadRequest(text, code="AppLoadFailed")
