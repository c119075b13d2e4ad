"""Python source for "does this value match?", put together by validators.

A validator contributes an expression over a variable; one that needs statements contributes a
function and an expression that calls it. The generated text holds only what `repr` printed and
names made here, never text from outside. About ten times faster than walking validators.

Source of facts: docs/decisions on compiled validators; measured in bench/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from reactive_store.values.ids import table_number_of
from reactive_store.values.value import Id, Int64, Value

__all__ = ["Source", "TableNames", "Test"]


class TableNames(Protocol):
    """Which table a number means, in the deployment at hand."""

    def table_name(self, number: int) -> str | None:
        """The name of the table with this number, or None; 0 is never one."""
        ...


Test = Callable[[Value, TableNames], bool]


class Source:
    """The functions of one compiled validator, collected innermost first."""

    def __init__(self) -> None:
        self._functions: list[str] = []
        self._constants: dict[str, Any] = {}

    def constant(self, value: Any) -> str:
        """A name by which the generated code can use `value`."""
        name = f"c{len(self._constants)}"
        self._constants[name] = value
        return name

    def function(self, body: list[str]) -> str:
        """Add a function of `(value, tables)`; the name by which to call it."""
        name = f"f{len(self._functions)}"
        lines = "\n".join(f"    {line}" for line in body)
        self._functions.append(f"def {name}(value, tables):\n{lines}\n")
        return name

    def compile(self, expression: str) -> Test:
        """The test that an expression over `value` stands for. Cost: about 0.5 ms."""
        name = self.function([f"return {expression}"])
        namespace: dict[str, Any] = {
            "Id": Id,
            "Int64": Int64,
            "MISSING": object(),
            "number_of": table_number_of,
            **self._constants,
        }
        exec("\n".join(self._functions), namespace)  # noqa: S102 - built from reprs only, see above
        test: Test = namespace[name]
        return test
