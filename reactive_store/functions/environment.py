"""Environment variables of a deployment: documents that functions read by name.

A variable's document has an id derived from its name, so reading one is a point read: a query that
read a variable runs again when that variable changes, and for no other. Two are built in: the
addresses of the deployment.

Source: docs/reference/limits.md for the bounds, Convex's admin API for names and texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from reactive_store.engine.catalog import ENVIRONMENT
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import BY_CREATION_TIME
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.values.document import Document

__all__ = ["BuiltInVariables", "Environment", "change_environment", "read_environment"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CLOUD_URL: Final = "CONVEX_CLOUD_URL"
_SITE_URL: Final = "CONVEX_SITE_URL"
_BUILT_IN: Final = frozenset({_CLOUD_URL, _SITE_URL})


@dataclass(slots=True)
class BuiltInVariables:
    """The variables that nobody sets: where the deployment is. Changed when it is announced."""

    cloud_url: str = "http://127.0.0.1:3210"  # the API
    site_url: str = "http://127.0.0.1:3211"  # the app's own HTTP routes

    def get(self, name: str) -> str | None:
        """The value of a variable, if it is one of these."""
        if name == _CLOUD_URL:
            return self.cloud_url
        return self.site_url if name == _SITE_URL else None


def _id_of(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16, person=b"environment").digest()


class Environment(Mapping[str, str]):
    """`ctx.env`: the variables as one transaction sees them, read one by one."""

    __slots__ = ("_built_in", "_transaction")

    def __init__(self, transaction: Transaction, built_in: BuiltInVariables) -> None:
        self._transaction = transaction
        self._built_in = built_in

    def __getitem__(self, name: str) -> str:
        address = self._built_in.get(name)
        if address is not None:
            return address
        row = self._transaction.get(ENVIRONMENT, _id_of(name))
        if row is None:
            raise KeyError(name)
        return str(Document(row.value, ENVIRONMENT)["value"])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted((*_BUILT_IN, *read_environment(self._transaction))))

    def __len__(self) -> int:
        return len(_BUILT_IN) + len(read_environment(self._transaction))

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
    limits = transaction.limits
    for name, value in changes.items():
        _check(name, value, limits)
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
    if len(found) > limits.environment_variables:
        raise BadRequest(
            f"Too many environment variables ({len(found)} > maximum "
            f"{limits.environment_variables}).",
            code="EnvVarLimitMet",
        )
    total = sum(len(name.encode()) + len(value.encode()) for name, value in found.items())
    if total > limits.environment_bytes:
        raise BadRequest(
            f"Environment variables are too large together ({total} bytes > maximum "
            f"{limits.environment_bytes}).",
            code="EnvVarTotalSizeLimitMet",
        )


def _check(name: str, value: str | None, limits: Limits) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"The environment variable name {name} is invalid. Use letters, digits and "
            "underscores, and start with a letter.",
            code="EnvironmentVariableNameInvalid",
        )
    if len(name) > limits.environment_name_chars:
        raise BadRequest(
            f"The environment variable name {name[:32]}… is longer than "
            f"{limits.environment_name_chars} characters.",
            code="EnvironmentVariableNameTooLong",
        )
    if name in _BUILT_IN:
        raise BadRequest(
            f'Environment variable with name "{name}" is built-in and cannot be overridden',
            code="EnvironmentVariableNameForbidden",
        )
    if value is not None and len(value.encode()) > limits.environment_value_bytes:
        raise BadRequest(
            f'The value of environment variable "{name}" is larger than '
            f"{limits.environment_value_bytes} bytes.",
            code="EnvironmentVariableValueTooLarge",
        )
