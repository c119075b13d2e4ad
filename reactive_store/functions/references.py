"""References to functions: `api`, `internal`, and what else stands for a function.

`api.experiment_results.list_by_experiment` names a function without importing it; so do the
decorated function itself, its path as text, and a handle: text that can be stored in a document.
`api` and `internal` are the same kind of object: what may be called is decided by the function,
not by the word used. `components.…` names what another deployment would have, and is refused.

Source of facts: docs/reference/functions.md, "References".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from reactive_store.errors import BadRequest
from reactive_store.functions.definitions import FunctionDef
from reactive_store.functions.names import parse_path

__all__ = [
    "Reference",
    "api",
    "components",
    "create_function_handle",
    "internal",
    "names_a_component",
    "no_components",
    "resolve",
]

_HANDLE: Final = "function://"
_CHILD: Final = "_reference/childComponent/"


class Reference:
    """A name that grows by attribute access; whether the function exists shows at the call.

    It has no public attribute of its own, so a module may be called anything. Two references are
    equal when they name the same function: `api.notes.list_all == internal.notes.listAll`.
    """

    # The words so far, `api` or `internal` first. Parts made once are kept as plain attributes.
    _words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "_words", words)

    def __getattr__(self, name: str) -> Reference:
        # Called only for what is not there yet. Names with an underscore in front are private in
        # an app, and are what copy, inspect and test tools probe for.
        if name.startswith("_"):
            raise AttributeError(
                f"{self!r} has no {name!r}: names with a leading underscore are private"
            )
        child = self.__dict__[name] = Reference(*self._words, name)
        return child

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} is a name; its parts cannot be set")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return _identity(self) == _identity(other)

    def __hash__(self) -> int:
        return hash(_identity(self))

    def __repr__(self) -> str:
        return ".".join(self._words)

    def __reduce__(self) -> tuple[type[Reference], tuple[str, ...]]:
        return Reference, self._words

    def __call__(self, *_args: object, **_kwargs: object) -> Any:
        raise TypeError(
            f"{self!r} only names a function; call it through ctx.run_query, ctx.run_mutation, "
            "ctx.run_action or ctx.scheduler"
        )


api: Final = Reference("api")
internal: Final = Reference("internal")
components: Final = Reference("components")


def resolve(reference: object) -> str:
    """The canonical path, `dir/module.js:function`, that a reference stands for.

    Shapes   `api.module.function`, a decorated function, or a path or a handle as text
    Cost     below a microsecond once the path was seen
    Raises   BadRequest[InvalidFunctionReference] for anything else, for `api.module` alone, and
             for a function that no app has loaded; BadRequest[BadConvexFunctionIdentifier] for
             text that is no path; BadRequest[ComponentNotFound] for a function of a component
    """
    if isinstance(reference, str):
        return _path_of(reference)
    if isinstance(reference, FunctionDef):
        if reference.path:
            return reference.path
        raise BadRequest(
            f"{reference!r} has no path, because no app has loaded it under a public name. It "
            "needs a module-level name without a leading underscore in a module of the app's "
            "functions.",
            code="InvalidFunctionReference",
        )
    if isinstance(reference, Reference):
        if reference._words[0] == "components":
            raise no_components(repr(reference))
        text = _path_text(reference)
        if text is not None:
            return parse_path(text)
        raise BadRequest(
            "API path is expected to be of the form `api.moduleName.functionName`. "
            f"Found: `{reference!r}`",
            code="InvalidFunctionReference",
        )
    raise BadRequest(f"{reference!r} is not a functionReference", code="InvalidFunctionReference")


def create_function_handle(reference: object, /) -> str:
    """Text that stands for a function wherever a reference is taken, and can be stored.

    Shapes   `function://;messages.js:send`
    Raises   as `resolve`; whether the function exists shows at the call
    """
    return f"{_HANDLE};{resolve(reference)}"


def names_a_component(text: str) -> bool:
    """Whether a path or handle is one of a function inside a component."""
    if text.startswith(_HANDLE):
        return not text.startswith((_HANDLE + ";", _HANDLE + "/")) and ";" in text
    return text.startswith(_CHILD)


def no_components(name: str) -> BadRequest:
    """The error for a call that names a component."""
    return BadRequest(
        f"{name} names a component, and this deployment has none: call a function of the app "
        "itself, through `api` or `internal`.",
        code="ComponentNotFound",
    )


@lru_cache(maxsize=8192)
def _path_of(text: str) -> str:
    """The canonical path that a text stands for: a path, or a handle."""
    if names_a_component(text):
        raise no_components(text)
    return parse_path(text.removeprefix(_HANDLE).removeprefix(";"))


def _path_text(reference: Reference) -> str | None:
    """The path as the author spelled it; None when the reference stops at a module."""
    _root, *words = repr(reference).split(".")
    return f"{'/'.join(words[:-1])}:{words[-1]}" if len(words) > 1 else None


def _identity(reference: Reference) -> str:
    text = _path_text(reference)
    try:
        return parse_path(text) if text is not None else repr(reference)
    except BadRequest:  # words that no path can hold; comparing must not fail
        return repr(reference)
