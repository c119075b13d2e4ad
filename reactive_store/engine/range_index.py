"""Range indexes: from a document to its key in each index of its table.

A key is the encoded declared fields, then the creation time, then the 16 raw bytes of the
document's internal id. Two documents therefore never share a key, and ties resolve by age, then id.
`by_creation_time` declares no field; `by_id` is the table itself and has no keys of its own.

Source: docs/architecture.md, "The idea"; the order of values is `values.order`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from reactive_store.persistence.contract import IndexId
from reactive_store.values.order import encode_key, field_value
from reactive_store.values.value import UNSET, Value

__all__ = [
    "BY_CREATION_TIME",
    "BY_ID",
    "FieldPath",
    "IndexState",
    "RangeIndex",
    "parse_field_path",
]

BY_ID = "by_id"
BY_CREATION_TIME = "by_creation_time"

FieldPath = tuple[str, ...]


def parse_field_path(dotted: str) -> FieldPath:
    """`"a.b"` → `("a", "b")`; leading and trailing dots do not count."""
    return tuple(dotted.strip(".").split("."))


class IndexState(Enum):
    """Where an index is on its way into service."""

    BACKFILLING = "backfilling"  # commits keep it current; older documents may be missing
    READY = "ready"
    STAGED = "staged"  # complete and kept current, but not open to queries


@dataclass(frozen=True, slots=True)
class RangeIndex:
    """One index of one table."""

    name: str
    id: IndexId
    fields: tuple[str, ...]  # dotted, as declared
    state: IndexState
    since_ts: int = 0  # reads of earlier timestamps would miss entries: it was built later

    @property
    def is_building(self) -> bool:
        """Whether it is under construction."""
        return self.state is IndexState.BACKFILLING

    def key_encoder(self) -> Callable[[Mapping[str, Value]], bytes]:
        """A function from a document's fields to the encoded declared fields (without suffix)."""
        paths = tuple(parse_field_path(dotted) for dotted in self.fields)
        if not paths:
            return lambda fields: b""
        if all(len(path) == 1 for path in paths):
            names = tuple(path[0] for path in paths)
            if len(names) == 1:
                name = names[0]
                return lambda fields: encode_key(fields.get(name, UNSET))
            return lambda fields: b"".join([encode_key(fields.get(name, UNSET)) for name in names])
        return lambda fields: b"".join([encode_key(field_value(fields, path)) for path in paths])
