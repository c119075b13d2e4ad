"""The order of values written down a second time, as Python tuples, apart from the product's bytes.

Source of facts: docs/reference/values.md, "Order".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from reactive_store.values.value import UNSET, Id, Int64, Unset

__all__ = ["at_path", "order_key"]

Key = tuple[Any, ...]


def order_key(value: Any) -> Key:
    """A tuple that compares like the value; equal exactly when the values are the same value."""
    return _KEYS[type(value)](value)


def at_path(fields: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; UNSET where a step is missing or no object."""
    value: Any = fields
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return UNSET
        value = value[name]
    return value


def _number(value: float) -> Key:
    (bits,) = struct.unpack(">q", struct.pack(">d", value))
    # The total order of IEEE 754: negatives count backwards.
    return (3, bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF) - 1)


_KEYS: dict[type, Callable[[Any], Key]] = {
    Unset: lambda _: (0,),
    type(None): lambda _: (1,),
    Int64: lambda value: (2, int(value)),
    int: _number,
    float: _number,
    bool: lambda value: (4, value),
    str: lambda value: (5, value),
    Id: lambda value: (5, str(value)),
    bytes: lambda value: (6, value),
    list: lambda value: (7, tuple([order_key(item) for item in value])),
    dict: lambda value: (8, tuple([(name, order_key(value[name])) for name in sorted(value)])),
}
