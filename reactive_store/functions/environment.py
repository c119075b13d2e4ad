"""Environment variables of a deployment: documents that functions read by name.

A variable's document has an id derived from its name, so reading one is a point read: a query that
read a variable runs again when that variable changes, and for no other.

Source: docs/reference/limits.md for the bounds, Convex's admin API for names and texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from reactive_store.engine.catalog import ENVIRONMENT
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import BY_CREATION_TIME
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.values.document import Document

__all__ = ["Environment", "change_environment", "read_environment"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME_BYTES = 256
_VALUE_BYTES = 8192
_COUNT = 512
_TOTAL_BYTES = 512 * 1024
_BUILT_IN = frozenset({"CONVEX_CLOUD_URL", "CONVEX_SITE_URL"})


def _id_of(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16, person=b"environment").digest()


class Environment(Mapping[str, str]):
    """`ctx.env`: the variables as one transaction sees them, read one by one."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __getitem__(self, name: str) -> str:
        row = self._transaction.get(ENVIRONMENT, _id_of(name))
        if row is None:
            raise KeyError(name)
        return str(Document(row.value, ENVIRONMENT)["value"])

    def __iter__(self) -> Iterator[str]:
        return iter(read_environment(self._transaction))

    def __len__(self) -> int:
        return len(read_environment(self._transaction))

    def __repr__(self) -> str:
        return "Environment(…)"


def read_environment(transaction: Transaction) -> dict[str, str]:
    """Every variable, by name."""
    scan = transaction.scan(ENVIRONMENT, BY_CREATION_TIME, EVERYTHING)
    found: dict[str, str] = {}
    while (row := scan.next()) is not None:
        document = Document(row.value, ENVIRONMENT)
        found[str(document["name"])] = str(document["value"])
    return dict(sorted(found.items()))


def change_environment(transaction: Transaction, changes: Mapping[str, str | None]) -> None:
    """Set variables, or remove those given as None, all in one transaction.

    Raises   BadRequest[EnvironmentVariableNameInvalid …] naming the variable
    """
    for name, value in changes.items():
        _check(name, value)
        identity = _id_of(name)
        exists = transaction.get(ENVIRONMENT, identity) is not None
        if value is not None:
            fields = {"name": name, "value": value}
            if exists:
                transaction.patch(ENVIRONMENT, identity, fields)
            else:
                transaction.insert(ENVIRONMENT, dict(fields), internal_id=identity)
        elif exists:
            transaction.delete(ENVIRONMENT, identity)
    found = read_environment(transaction)
    if len(found) > _COUNT:
        raise BadRequest(
            f"Too many environment variables ({len(found)} > maximum {_COUNT}).",
            code="EnvVarLimitMet",
        )
    total = sum(len(name.encode()) + len(value.encode()) for name, value in found.items())
    if total > _TOTAL_BYTES:
        raise BadRequest(
            f"Environment variables are too large together ({total} bytes > maximum "
            f"{_TOTAL_BYTES}).",
            code="EnvVarTotalSizeLimitMet",
        )


def _check(name: str, value: str | None) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"The environment variable name {name!r} is invalid. Use letters, digits and "
            "underscores, and start with a letter.",
            code="EnvironmentVariableNameInvalid",
        )
    if len(name) > _NAME_BYTES:
        raise BadRequest(
            f"The environment variable name {name[:32]!r}… is longer than {_NAME_BYTES} "
            "characters.",
            code="EnvironmentVariableNameTooLong",
        )
    if name in _BUILT_IN:
        raise BadRequest(
            f'Environment variable with name "{name}" is built-in and cannot be overridden',
            code="EnvironmentVariableNameForbidden",
        )
    if value is not None and len(value.encode()) > _VALUE_BYTES:
        raise BadRequest(
            f'The value of environment variable "{name}" is larger than {_VALUE_BYTES} bytes.',
            code="EnvironmentVariableValueTooLarge",
        )
