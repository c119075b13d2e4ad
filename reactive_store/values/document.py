"""A document as handlers see it: a read-only mapping over its encoded bytes.

Nothing is decoded until somebody looks inside, and a document that is only passed on is copied
as bytes. Its fields cannot be assigned. Lists and dicts inside belong to the reader: changing
one shows when this very object is looked at or returned again, and nowhere else.

Source of facts: docs/reference/documents.md.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn

from reactive_store.values.value import Encoded, Id, normalize
from reactive_store.values.wire import encode_normalized, loads

__all__ = ["Document"]


class Document(Encoded, Mapping[str, Any]):
    """`doc["name"]`, `doc.get("name")`, `**doc`, `dict(doc)`, `doc | {...}`; `_id` is an `Id`.

    Shapes   `encoded` holds an object in the encoded form, `table` names its table
    Cost     nothing to make; the first look inside decodes (about 4 µs for 12 flat fields)
    """

    __slots__ = ("_encoded", "_fields", "_lent", "table")

    __hash__ = None  # type: ignore[assignment]  # equal to dicts, which have no hash either

    def __init__(self, encoded: bytes, table: str) -> None:
        self.table = table
        self._encoded = encoded
        # The decoded fields; set on the first look inside, never cleared.
        self._fields: dict[str, Any] | None = None
        # Whether a list or dict was handed out, which the reader may have changed since.
        self._lent = False

    @property
    def encoded(self) -> bytes:
        """The bytes it was made of (made anew if a list or dict inside was handed out)."""
        return encode_normalized(normalize(self._fields)) if self._lent else self._encoded

    def decode(self) -> dict[str, Any]:
        """A new dict with all fields, which the caller may change."""
        if self._lent:
            return normalize(self._fields)  # type: ignore[return-value]
        return self._read()

    def _read(self) -> dict[str, Any]:
        fields = loads(self._encoded)
        assert isinstance(fields, dict)
        text = fields.get("_id")
        if type(text) is str:
            fields["_id"] = Id(text, self.table)
        return fields

    def _look(self) -> dict[str, Any]:
        fields = self._fields
        if fields is None:
            fields = self._fields = self._read()
        return fields

    def __getitem__(self, name: str) -> Any:
        value = (self._fields or self._look())[name]
        if type(value) is dict or type(value) is list:
            self._lent = True
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` when the document does not have it."""
        value = (self._fields or self._look()).get(name, default)
        if type(value) is dict or type(value) is list:
            self._lent = True
        return value

    def __contains__(self, name: object) -> bool:
        return name in (self._fields or self._look())

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())

    def keys(self) -> KeysView[str]:
        """The names of the fields, in order."""
        return self._look().keys()

    def values(self) -> ValuesView[Any]:
        """The fields' values, in the order of their names."""
        self._lend_all()
        return self._look().values()

    def items(self) -> ItemsView[str, Any]:
        """Names and values, in the order of the names."""
        self._lend_all()
        return self._look().items()

    def _lend_all(self) -> None:
        if not self._lent:
            self._lent = any(type(v) is dict or type(v) is list for v in self._look().values())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Document):
            return self._look() == other._look()
        if isinstance(other, Mapping):
            return self._look() == dict(other)
        return NotImplemented

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**other, **self}

    def __repr__(self) -> str:
        return f"Document({self._look()!r})"

    def __reduce__(self) -> tuple[type[Document], tuple[bytes, str]]:
        return Document, (self.encoded, self.table)

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError(
            "a Document cannot be changed: store changes with ctx.db.patch(doc['_id'], {...}), "
            "or make a copy with dict(doc)"
        )

    __setitem__ = __delitem__ = _refuse
    update = pop = popitem = setdefault = clear = _refuse
