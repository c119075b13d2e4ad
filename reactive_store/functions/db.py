"""`ctx.db`: documents by id, queries, and (in mutations) writes.

The reader sees the app's tables; `db.system` sees `_storage` and `_scheduled_functions`, and no
other table of ours is visible to functions. What is written goes through `values.value.normalize`;
the transaction checks the schema and keeps the limits.

Checks come in the order Convex makes them: arguments, ids, tables, then whether a document exists.
Source of facts: docs/reference/documents.md; the texts are those clients of Convex see.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self, overload

from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.functions.pagination import CursorCodec, ReadScope
from reactive_store.functions.query_builder import Query
from reactive_store.values.document import Document
from reactive_store.values.ids import DecodedId, decode_id, encode_id
from reactive_store.values.names import check_identifier
from reactive_store.values.render import render
from reactive_store.values.value import UNSET, Id, Int64, normalize, normalize_patch

__all__ = ["DatabaseReader", "DatabaseWriter", "SavepointBlock", "SystemReader"]

_VISIBLE_SYSTEM_TABLES: Final = frozenset(("_storage", "_scheduled_functions"))
_READ_ONLY: Final = "System tables (prefixed with `_`) are read-only."
_OLD_ID_CHARS: Final = 22

# Joins ask for the same ids again and again. Only successes are kept.
_decode: Final = lru_cache(maxsize=8192)(decode_id)


class _TableReader:
    """What the reader of the app's tables and that of the system tables have in common."""

    __slots__ = ("_scope",)

    _path = "db"
    _is_system = False

    def __init__(self, scope: ReadScope) -> None:
        self._scope = scope

    @overload
    async def get(self, id: str, /) -> Document | None: ...

    @overload
    async def get(self, table: str, id: str, /) -> Document | None: ...

    async def get(self, first: Any = UNSET, second: Any = UNSET, /) -> Document | None:
        """The document with that id, or None. With a table first, the id must be of that table.

        Cost     one point read
        Raises   BadRequest[InvalidId, SystemTableError]
        """
        table, text = (None, first) if second is UNSET else (first, second)
        method = f"{self._path}.get"
        number, internal_id = _decoded(method, "get", text)
        name = self._scope.tx.table_name(number)
        if name is None:
            return None
        if table is not None and table != name:
            raise _wrong_table(method, table, name)
        if name.startswith("_") is not self._is_system:
            raise _system_table_error(
                "User tables cannot be accessed with db.system."
                if self._is_system
                else "System tables can only be accessed with db.system."
            )
        if self._is_system and name not in _VISIBLE_SYSTEM_TABLES:
            return None
        row = self._scope.tx.get(name, internal_id)
        return None if row is None else Document(row.value, name)

    def query(self, table: str, /) -> Query:
        """A query of the table; nothing is read yet. A table that does not exist is empty.

        Raises   BadRequest[SystemTableError] for a table this reader does not show
        """
        self._check_side(table, "query")
        if self._is_system and table not in _VISIBLE_SYSTEM_TABLES:
            raise _system_table_error(f'There is no system table "{table}".')
        return Query(self._scope, table)

    def normalize_id(self, table: str, text: str, /) -> Id | None:
        """The text as an id of the table, or None when it is not one. No document is read.

        Raises   BadRequest[SystemTableError, InvalidIdentifier]
        """
        self._check_side(table, "normalizeId")
        with _Argument("table", f"{self._path}.normalizeId"):
            check_identifier(table)
        if not isinstance(text, str):
            raise _not_a_string("id", f"{self._path}.normalizeId", text)
        number = self._scope.tx.table_number(table)
        if number is None or (self._is_system and table not in _VISIBLE_SYSTEM_TABLES):
            return None
        try:
            found = _decode(text)
        except BadRequest:
            adopted = _adopt(text, number)
            return None if adopted is None else Id(adopted, table)
        return Id(text, table) if found.table_number == number else None

    def _check_side(self, table: str, method: str) -> None:
        if not isinstance(table, str):
            raise _not_a_string("table", f"{self._path}.{method}", table)
        if table.startswith("_") is self._is_system:
            return
        if self._is_system:
            raise _system_table_error(f"User tables can only be accessed from db.{method}().")
        raise _system_table_error(f"System tables can only be accessed from db.system.{method}().")


class SystemReader(_TableReader):
    """`ctx.db.system`: the tables of files and scheduled functions."""

    __slots__ = ()

    _path = "db.system"
    _is_system = True


class DatabaseReader(_TableReader):
    """`ctx.db` in a query. One per function call: pagination is counted here.

    `pause` is awaited now and then during long scans, so that others can run.
    """

    __slots__ = ()

    def __init__(
        self,
        tx: Transaction,
        pause: Callable[[], Awaitable[None]],
        *,
        cursors: CursorCodec,
        journal: str | None = None,
    ) -> None:
        super().__init__(ReadScope(tx, pause, cursors, journal))

    @classmethod
    def over(cls, db: DatabaseReader, /) -> Self:
        """One of a derived class that belongs to the same call as `db`.

        A class derived from this one may change what its methods do; `over` is how one is made. It
        usually keeps `db` and passes on to it.
        """
        layer = cls.__new__(cls)
        layer._scope = db._scope
        return layer

    @property
    def system(self) -> SystemReader:
        """The same for the system tables `_storage` and `_scheduled_functions`."""
        return SystemReader(self._scope)

    def close(self) -> ReadScope:
        """The function call has returned: from now on every use is refused. Returns the scope."""
        self._scope.close()
        return self._scope

    @property
    def journal_in(self) -> str | None:
        """Where an earlier run of the live query ended its page."""
        return self._scope.journal_in

    @property
    def journal_out(self) -> str | None:
        """Where this run ended its page; None when it took none."""
        return self._scope.journal_out


class DatabaseWriter(DatabaseReader):
    """`ctx.db` in a mutation: also writes. Its own writes are visible to it at once."""

    __slots__ = ()

    async def insert(self, table: str = UNSET, value: Any = UNSET, /) -> Id:  # type: ignore[assignment]
        """Store a new document; the table comes into being with its first one.

        Shapes   value: an object without `_id` and `_creationTime`; UNSET fields are left out
        Raises   BadRequest[SystemTableError, SchemaEnforcementError, InvalidDocumentError …]
        """
        _require(("table", table), ("value", value), method="insert")
        if not isinstance(table, str):
            raise _not_a_string("table", "db.insert", table)
        if table.startswith("_"):
            raise _system_table_error(_READ_ONLY)
        with _Argument("value", "db.insert"):
            fields = normalize(value)
            if type(fields) is not dict:
                raise _not_an_object()
        with _Argument("table", "db.insert"):
            check_identifier(table)
        if "_id" in fields:
            raise BadRequest(
                "Provided document ID (assigned when the document is stored) doesn't match '_id' "
                f"field {render(fields['_id'])}",
                code="InvalidIdError",
            )
        if "_creationTime" in fields:
            raise BadRequest(
                "Provided creation time (assigned when the document is stored) doesn't match "
                f"'_creationTime' field in {render(fields)}",
                code="InvalidCreationTimeError",
            )
        return self._scope.tx.insert(table, fields)

    @overload
    async def patch(self, id: str, value: Mapping[str, Any] | Any, /) -> None: ...

    @overload
    async def patch(self, table: str, id: str, value: Mapping[str, Any] | Any, /) -> None: ...

    async def patch(self, first: Any = UNSET, second: Any = UNSET, third: Any = UNSET, /) -> None:
        """Change some top-level fields of a document. UNSET removes one; objects go whole.

        Raises   BadRequest[InvalidId, NonexistentDocument, SchemaEnforcementError …]
        """
        table, id, value = _shift(first, second, third)  # noqa: A001
        _require(("id", id), ("value", value), method="patch")
        name, internal_id = self._target("patch", table, id)
        with _Argument("value", "db.patch"):
            if value is None or isinstance(value, str | int | float | bytes | list | tuple):
                raise _not_an_object()
            changes = normalize_patch(value)
        _check_writable(name)
        self._scope.tx.patch(name, internal_id, changes)

    @overload
    async def replace(self, id: str, value: Mapping[str, Any] | Any, /) -> None: ...

    @overload
    async def replace(self, table: str, id: str, value: Mapping[str, Any] | Any, /) -> None: ...

    async def replace(self, first: Any = UNSET, second: Any = UNSET, third: Any = UNSET, /) -> None:
        """Put a whole new document in a stored one's place; its id and creation time stay.

        Raises   BadRequest[InvalidId, NonexistentDocument, SchemaEnforcementError …]
        """
        table, id, value = _shift(first, second, third)  # noqa: A001
        _require(("id", id), ("value", value), method="replace")
        name, internal_id = self._target("replace", table, id)
        with _Argument("value", "db.replace"):
            fields = normalize(value)
            if type(fields) is not dict:
                raise _not_an_object()
        _check_writable(name)
        self._scope.tx.replace(name, internal_id, fields, verb="Replace")

    @overload
    async def delete(self, id: str, /) -> None: ...

    @overload
    async def delete(self, table: str, id: str, /) -> None: ...

    async def delete(self, first: Any = UNSET, second: Any = UNSET, /) -> None:
        """Remove a document. References to it are not looked for.

        Raises   BadRequest[InvalidId, NonexistentDocument]
        """
        table, id = (None, first) if second is UNSET else (first, second)  # noqa: A001
        _require(("id", id), method="delete")
        name, internal_id = self._target("delete", table, id)
        _check_writable(name)
        self._scope.tx.delete(name, internal_id)

    def savepoint(self) -> SavepointBlock:
        """`with ctx.db.savepoint(): …` undoes what was written inside when an exception leaves it.

        Reads stay reads. What other tasks of the same call wrote meanwhile is undone as well.
        """
        return SavepointBlock(self._scope.tx)

    def _target(self, method: str, table: Any, text: Any) -> tuple[str, bytes]:
        if isinstance(table, str) and table.startswith("_"):
            raise _system_table_error(_READ_ONLY)
        path = f"db.{method}"
        number, internal_id = _decoded(path, method, text)
        name = self._scope.tx.table_name(number)
        if name is None:
            raise _invalid_argument(
                "id", path, BadRequest(f'Table for ID "{text}" not found', code="InvalidId")
            )
        if table is not None and table != name:
            raise _wrong_table(path, table, name)
        return name, internal_id


class SavepointBlock:
    """A block of code that writes everything or nothing. Made by `DatabaseWriter.savepoint`."""

    __slots__ = ("_savepoint", "_tx")

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def __enter__(self) -> None:
        self._savepoint = self._tx.savepoint()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._tx.rollback(self._savepoint)


class _Argument:
    """Within it, what is refused is said to be an argument of a method."""

    __slots__ = ("_method", "_name")

    def __init__(self, name: str, method: str) -> None:
        self._name = name
        self._method = method

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, BadRequest):
            raise _invalid_argument(self._name, self._method, error) from error


def _invalid_argument(name: str, method: str, cause: BadRequest) -> BadRequest:
    return BadRequest(f"Invalid argument `{name}` for `{method}`: {cause.message}", code=cause.code)


def _system_table_error(message: str) -> BadRequest:
    return BadRequest(message, code="SystemTableError")


def _not_an_object() -> BadRequest:
    return BadRequest("Value must be an Object", code="InvalidValue")


def _not_a_string(name: str, method: str, value: object) -> BadRequest:
    return BadRequest(
        f"Invalid argument `{name}` for `{method}`, expected string but got "
        f"'{_type_of(value)}': {_shown(value)}",
        code="InvalidArgument",
    )


def _type_of(value: object) -> str:
    """The type's name in the words of a JavaScript engine, which the texts are written in."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, Int64):
        return "bigint"
    return "number" if isinstance(value, int | float) else "object"


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _require(*arguments: tuple[str, object], method: str) -> None:
    for position, (name, value) in enumerate(arguments, 1):
        if value is UNSET:
            raise TypeError(f"Must provide arg {position} `{name}` to `{method}`")


def _shift(first: Any, second: Any, third: Any) -> tuple[Any, Any, Any]:
    """(table or None, id, value) of a method that takes the table or leaves it out."""
    return (None, first, second) if third is UNSET else (first, second, third)


def _check_writable(table: str) -> None:
    if table.startswith("_"):
        raise _system_table_error(_READ_ONLY)


def _decoded(path: str, method: str, text: Any) -> DecodedId:
    if text is UNSET:
        raise TypeError(f"Must provide arg 1 `id` to `{method}`")
    if not isinstance(text, str):
        raise _not_a_string("id", path, text)
    try:
        return _decode(text)
    except BadRequest as error:
        raise _invalid_argument("id", path, error) from error


def _wrong_table(method: str, wanted: Any, found: str) -> BadRequest:
    if not isinstance(wanted, str):
        return _not_a_string("table", method, wanted)
    try:
        check_identifier(wanted)
    except BadRequest as error:
        return _invalid_argument("table", method, error)
    text = f'expected to be an Id<"{wanted}">, got Id<"{found}"> instead.'
    return _invalid_argument("id", method, BadRequest(text, code="InvalidId"))


def _adopt(text: str, table_number: int) -> str | None:
    """The id of a document from the time when ids did not name their table, or None."""
    if len(text) != _OLD_ID_CHARS:
        return None
    try:
        internal_id = urlsafe_b64decode(text + "==")
    except (binascii.Error, ValueError):
        return None
    if urlsafe_b64encode(internal_id).rstrip(b"=").decode("ascii") != text:
        return None
    return encode_id(table_number, internal_id)
