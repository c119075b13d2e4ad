"""Importing an app's modules under private names, so that several apps live in one process.

Every app calls its modules `schema` and `functions`. Each loaded app gets a package of its own,
`_reactive_store_app_N`, and its modules import through a hook that finds `schema`, `functions` and
modules beside them inside that package. Nothing is left under the public names. What Python's own
machinery does (locks, circular imports, relative imports, submodules) it still does.

A text given to `importlib.import_module` is not seen by the hook: only a relative one
(`import_module(".notes", __package__)`) finds the app's own modules.

Source of facts: Python's import system, docs.python.org/3/reference/import.html.
"""

from __future__ import annotations

import builtins
import importlib
import itertools
import linecache
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, resolve_name, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

__all__ = ["PrivateImports"]

_PREFIX: Final = "_reactive_store_app_"
_numbers = itertools.count(1)


class PrivateImports:
    """The import system of one app: a finder for its package, and the hook its modules use.

    Shapes   `root` holds the app; `mounts` places dotted names of the package in folders or files
             (without `.py`) elsewhere; `aliases` maps public dotted names to names in the package
    """

    def __init__(
        self,
        root: Path,
        *,
        own: frozenset[str],
        mounts: Mapping[str, Path],
        aliases: Mapping[str, str],
        replaced: Mapping[str, Any],
    ) -> None:
        self.package = f"{_PREFIX}{next(_numbers)}"
        self.files: set[Path] = set()  # what was executed; grows while the app lives
        self._root = root
        self._mounts = dict(mounts)
        self._aliases = dict(aliases)
        # First words that belong to the app. Decided once each, at the first import.
        self._own: dict[str, bool] = dict.fromkeys(own, True)
        self._builtins: dict[str, Any] = {
            **vars(builtins),
            **replaced,
            "__import__": self._import,
        }
        # The modules after closing: functions that still run may import them again.
        self._retired: dict[str, ModuleType] | None = None
        sys.meta_path.insert(0, self)

    def load(self, name: str) -> ModuleType:
        """The app's module of this dotted name, executed if it was not yet."""
        return importlib.import_module(f"{self.package}.{name}")

    def public_text(self, text: str) -> str:
        """A text of Python about the modules, with the names the author knows."""
        return text.replace(f"{self.package}.", "").replace(self.package, self._root.name)

    def close(self) -> None:
        """Take the modules out of the interpreter. Idempotent."""
        if self._retired is not None:
            return
        inner = f"{self.package}."
        names = [name for name in sys.modules if name == self.package or name.startswith(inner)]
        self._retired = {name: sys.modules.pop(name) for name in names}
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    # ---- finder: what importlib asks ----

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Where a module of this app is; None for every other module."""
        if not fullname.startswith(self.package):
            return None
        if fullname == self.package:
            return _namespace(fullname, self._root)
        if fullname[len(self.package)] != ".":
            return None
        place = self._place(fullname[len(self.package) + 1 :])
        packaged = place / "__init__.py"
        if packaged.is_file():
            return spec_from_file_location(
                fullname,
                packaged,
                loader=_Loader(fullname, packaged, self),
                submodule_search_locations=[str(place)],
            )
        single = place.with_name(f"{place.name}.py")
        if single.is_file():
            return spec_from_file_location(fullname, single, loader=_Loader(fullname, single, self))
        return _namespace(fullname, place) if place.is_dir() else None

    def _place(self, name: str) -> Path:
        for mounted, place in self._mounts.items():
            if name == mounted:
                return place
            if name.startswith(f"{mounted}."):
                return place.joinpath(*name[len(mounted) + 1 :].split("."))
        return self._root.joinpath(*name.split("."))

    def prepare(self, module: ModuleType, file: Path) -> None:
        """Give a module that is about to be executed the app's builtins."""
        vars(module)["__builtins__"] = self._builtins
        self.files.add(file)
        linecache.checkcache(str(file))

    # ---- hook: what `import` statements of the app's modules call ----

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        private = self._private_name(name, bool(fromlist)) if level == 0 else None
        if self._retired is not None:
            if level:
                private = resolve_name("." * level + name, (globals or {})["__package__"])
            if private is not None:
                return self._import_retired(private, name, fromlist)
        if private is None:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if fromlist:
            return builtins.__import__(private, globals, locals, fromlist, 0)
        importlib.import_module(private)
        # `import functions.notes` binds the first word.
        return sys.modules[f"{self.package}.{name.partition('.')[0]}"]

    def _private_name(self, name: str, has_fromlist: bool) -> str | None:
        """The name inside the package that an absolute import means, or None."""
        for public, own in self._aliases.items():
            if name == public or name.startswith(f"{public}."):
                # `import myapp.functions.notes` binds `myapp`, which is not ours to replace.
                return f"{self.package}.{own}{name[len(public) :]}" if has_fromlist else None
        top = name.partition(".")[0]
        own_top = self._own.get(top)
        if own_top is None:
            own_top = self._own[top] = self._is_beside(top)
        return f"{self.package}.{name}" if own_top else None

    def _is_beside(self, top: str) -> bool:
        """Whether a module lies in the app's folder and nowhere Python would find it."""
        if top in sys.stdlib_module_names or top in sys.modules:
            return False
        beside = (self._root / f"{top}.py", self._root / top / "__init__.py")
        return any(file.is_file() for file in beside) and find_spec(top) is None

    def _import_retired(
        self, private: str, name: str, fromlist: Sequence[str] | None
    ) -> ModuleType:
        retired = self._retired or {}
        module = retired.get(private)
        if module is None:
            raise ImportError(
                f"{self.public_text(private)} cannot be imported any more: the app was replaced "
                "by a newer version while this function ran. Import it at the top of the module"
            )
        if fromlist:
            return module
        return retired[f"{self.package}.{name.partition('.')[0]}"]


class _Loader(SourceFileLoader):
    """Executes a file of an app, always from its source.

    No bytecode is kept: two saves within a second would look alike to Python's cache.
    """

    def __init__(self, fullname: str, file: Path, imports: PrivateImports) -> None:
        super().__init__(fullname, str(file))
        self._file = file
        self._imports = imports

    def get_code(self, fullname: str) -> CodeType:
        """The compiled file."""
        path = str(self._file)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Execute the file in the module."""
        self._imports.prepare(module, self._file)
        super().exec_module(module)


def _namespace(fullname: str, folder: Path) -> ModuleSpec:
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return spec
