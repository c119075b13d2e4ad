"""An app: its schema and its functions by path. Immutable; a reload makes a new one.

Source of facts: docs/reference/functions.md; Convex's open server for the listing of functions and
the texts about functions that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reactive_store.auth.providers import AuthProvider
from reactive_store.functions.crons import Crons
from reactive_store.functions.definitions import FunctionDef, FunctionKind
from reactive_store.functions.names import display_path, is_private, split_path, to_wire
from reactive_store.functions.references import resolve
from reactive_store.functions.router import HttpRouter
from reactive_store.schema.tables import Schema

__all__ = ["App"]


def _nothing() -> None:
    """What closing an app that was not loaded from files does."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class App:
    """What is deployed. Made by `load_app` or `build_app`.

    Its modules stay loaded as long as it exists; an app that nobody holds any more cleans up after
    itself, `close` does it at once.
    """

    schema: Schema
    functions: Mapping[str, FunctionDef]  # by canonical path, `dir/module.js:function`, in order
    files: frozenset[Path] = frozenset()  # absolute; what was read to make it
    # Every public module (`dir/module.js`) with its functions without decorator, by wire name.
    plain_functions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    root: Path | None = None  # the folder it was loaded from; None when made of parts
    # What its special modules define; None where there is no such module.
    crons: Crons | None = None
    http: HttpRouter | None = None
    providers: tuple[AuthProvider, ...] = ()
    # Takes the modules out of the interpreter; may be called twice.
    unload: Callable[[], object] = field(default=_nothing, repr=False)

    def find(self, path: str) -> FunctionDef | None:
        """The function at a canonical path, public or not.

        Cost     one dictionary lookup
        """
        return self.functions.get(path)

    def resolve(self, reference: object) -> str:
        """The canonical path of a reference, like `references.resolve`.

        A function imported from one of this app's files outside of the app (by a test, say) is
        another object than the app's own; it is found by its file and name.

        Raises   BadRequest as `references.resolve`
        """
        if isinstance(reference, FunctionDef) and not reference.path:
            for path, function in self.functions.items():
                same_place = (function.file, function.name) == (reference.file, reference.name)
                if same_place and not is_private(reference.name):
                    return path
        return resolve(reference)

    def explain_missing(self, path: str) -> str:
        """Why `find` has no answer, for a caller who may know: module, export, or decorator."""
        module, function = split_path(path)
        plain = self.plain_functions.get(module)
        if plain is None:
            return (
                f"Could not find function for '{display_path(path)}': the app has no module "
                f"'{module.removesuffix('.js')}'."
            )
        if to_wire(function) in plain:
            return (
                f"Function {function} is neither a query or mutation. "
                "Did you forget to wrap it with `query` or `mutation`?"
            )
        return f'Couldn\'t find "{function}" in module "{module}".'

    def spec(self) -> list[dict[str, Any]]:
        """The listing of functions that clients generate types from, in order of paths.

        Shapes   identifier `dir/module.js:function`, functionType, visibility {kind}, args and
                 returns in the validators' export form. What a return annotation promises counts
                 where no `returns=` says more. Then one entry per HTTP route: functionType
                 HttpAction, method, path
        """
        routes = [] if self.http is None else self.http.routes()
        return [
            *(
                _describe(path, function)
                for path, function in sorted(self.functions.items())
                if function.kind is not FunctionKind.HTTP_ACTION
            ),
            *(
                {
                    "functionType": FunctionKind.HTTP_ACTION.value,
                    "method": route.method,
                    "path": route.path,
                }
                for route in routes
            ),
        ]

    def close(self) -> None:
        """Forget the app's modules. Functions that still run may finish."""
        self.unload()


def _describe(path: str, function: FunctionDef) -> dict[str, Any]:
    returns = function.returns if function.returns is not None else function.returns_hint
    return {
        "identifier": path,
        "functionType": function.kind.value,
        "visibility": {"kind": function.visibility},
        "args": function.args.to_json(),
        "returns": {"type": "any"} if returns is None else returns.to_json(),
    }
