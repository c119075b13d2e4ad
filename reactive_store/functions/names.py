"""Python names and wire names of functions and arguments; function paths.

- Python is snake_case, the wire is camelCase. `to_wire` turns one into the other and leaves a wire
  name as it is, so both spellings name the same thing everywhere.
- A path has one canonical form, `dir/module.js:function`. It is what the store keeps and compares;
  people see `display_path`, without `.js` and `:default`.
- A name with a leading underscore is private: it is never registered under a path.

Source of facts: docs/reference/functions.md, "Names"; function paths as Convex's npm client 1.48
and Python client 0.8 send them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from reactive_store.errors import BadRequest

__all__ = [
    "DEFAULT_EXPORT",
    "display_path",
    "function_path",
    "is_private",
    "module_path",
    "name_problem",
    "parse_path",
    "split_path",
    "to_wire",
]

DEFAULT_EXPORT: Final = "default"
_NAME_CHARS: Final = 64
_PATH_CHARS: Final = 4096  # strangers choose how many folders they write
_COMPONENT = re.compile(r"(?=[_.]*[A-Za-z0-9])[A-Za-z0-9_.]+")
_FUNCTION = re.compile(r"(?=_*[A-Za-z0-9])[A-Za-z_][A-Za-z0-9_]*")
_EXTENSIONS: Final = ("js", "py")


@lru_cache(maxsize=8192)
def to_wire(name: str) -> str:
    """The camelCase spelling: `list_by_project` → `listByProject`. A second time changes nothing.

    Leading underscores stay (they mean private); a trailing one, which Python code needs for names
    that are keywords (`from_`), goes.
    """
    bare = name.lstrip("_")
    if "_" not in bare:
        return name
    first, *rest = [word for word in bare.split("_") if word]
    prefix = name[: len(name) - len(bare)]
    return prefix + first + "".join(word[0].upper() + word[1:] for word in rest)


def is_private(name: str) -> bool:
    """Whether a module or function of this name is kept out of the app's paths."""
    return name.startswith("_")


def name_problem(name: str) -> str | None:
    """Why this cannot name a function on the wire, or None."""
    if not name:
        return "a function name cannot be empty"
    if len(name) > _NAME_CHARS:
        return f"function name {name} is too long ({len(name)} > maximum {_NAME_CHARS})"
    if _FUNCTION.fullmatch(name) is None:
        return (
            f"function name {name} must start with an ASCII letter or underscore and can only "
            "contain ASCII letters, digits and underscores"
        )
    return None


@lru_cache(maxsize=8192)
def parse_path(text: str) -> str:
    """The canonical path that any spelling of it names.

    `messages`, `messages:default`, `messages.js:default` are one; so are `user_notes:list_all`,
    `userNotes.py:listAll` and `userNotes.js:listAll`.

    Cost     0.1 µs for a spelling seen lately, about 3 µs otherwise
    Raises   BadRequest[BadConvexFunctionIdentifier] when it is no path
    """
    if len(text) > _PATH_CHARS:
        raise BadRequest(
            f"{text[:64]}… is not a valid path to a Convex function. It is too long "
            f"({len(text)} > maximum {_PATH_CHARS}).",
            code="BadConvexFunctionIdentifier",
        )
    module, colon, function = text.rpartition(":")
    if not colon:
        module, function = text, DEFAULT_EXPORT
    problem = _module_problem(module) or name_problem(function)
    if problem is not None:
        raise BadRequest(
            f"{text} is not a valid path to a Convex function. "
            f"{problem[0].upper()}{problem[1:].rstrip('.')}.",
            code="BadConvexFunctionIdentifier",
        )
    stem, dot, extension = module.rpartition(".")
    if dot and extension in _EXTENSIONS:
        module = stem
    return function_path(module.split("/"), function)


def function_path(module: list[str], function: str) -> str:
    """The canonical path of a function in a module, given as folders and file, any spelling."""
    return f"{module_path(module)}:{to_wire(function)}"


def module_path(module: list[str]) -> str:
    """The canonical name of a module: `["admin", "user_notes"]` → `admin/userNotes.js`."""
    return "/".join(map(to_wire, module)) + ".js"


def split_path(canonical: str) -> tuple[str, str]:
    """A canonical path as module and function: (`dir/module.js`, `function`)."""
    module, _, function = canonical.rpartition(":")
    return module, function


def display_path(canonical: str) -> str:
    """The path as people write it: no `.js`, no `:default`."""
    module, function = split_path(canonical)
    if not module:  # an HTTP route, `POST /webhook`
        return function
    module = module.removesuffix(".js")
    return module if function == DEFAULT_EXPORT else f"{module}:{function}"


def _module_problem(module: str) -> str | None:
    if not module:
        return "the path has no module"
    if module.startswith("/"):
        return f"module path {module} must be relative"
    *folders, last = module.split("/")
    stem, dot, extension = last.rpartition(".")
    if dot:
        if extension not in _EXTENSIONS:
            return f"module path {module} has an extension that isn't 'js': {extension}"
        last = stem
    return next(filter(None, map(_component_problem, [*folders, last])), None)


def _component_problem(component: str) -> str | None:
    if not component:
        return "path component cannot be empty"
    if len(component) > _NAME_CHARS:
        return f"path component is too long ({len(component)} > maximum {_NAME_CHARS}): {component}"
    if _COMPONENT.fullmatch(component) is None:
        if re.fullmatch(r"[_.]+", component):
            return f"path component {component} must have at least one alphanumeric character"
        return (
            f"path component {component} can only contain alphanumeric characters, underscores, "
            "or periods"
        )
    return None
