"""The data file and its log: how they are recognised, made and opened.

Two numbers in a file's header say what it is: SQLite's `application_id` names the product and the
kind of file, `user_version` the format. Both are read before anything is written, so a file of
somebody else or of a newer version stays as it was. A data file of format 1 had no log beside it;
its tables are the same, so it is used as it is and marked, and from then on an older version of the
product, which would not read the log, refuses it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.statements import load_statements

__all__ = [
    "FORMAT_VERSION",
    "Synchronous",
    "connect_log",
    "connect_reader",
    "connect_writer",
    "unreadable",
]

Synchronous = Literal["FULL", "NORMAL"]
"""FULL: a commit waits for the disk. NORMAL: loss of power may take the newest commits with it
(never half of one, and never out of order); the end of the process alone takes nothing."""

FORMAT_VERSION: Final = 2  # of the data file and of the log
_DATA_ID: Final = 0x52535430  # "RST0"
_LOG_ID: Final = 0x5253544C  # "RSTL"
_PREPARED: Final = 256  # prepared statements kept per connection; there are fewer


def connect_writer(path: Path, synchronous: Synchronous, limits: Limits) -> sqlite3.Connection:
    """The connection that writes the tables; the file is made when it is missing.

    Raises   BadRequest[DataDirectoryTooNew] when a newer version of the product wrote the file,
             BadRequest[DataFileUnreadable] when it is damaged, foreign or out of reach
    """
    return _connect(path, _DATA_ID, ("create",), synchronous, limits)


def connect_log(path: Path, synchronous: Synchronous, limits: Limits) -> sqlite3.Connection:
    """A connection that writes the log; the file is made when it is missing.

    Raises   BadRequest as `connect_writer` does
    """
    return _connect(path, _LOG_ID, ("create_log", "create_pairing"), synchronous, limits)


def _connect(
    path: Path,
    application: int,
    creation: tuple[str, ...],
    synchronous: Synchronous,
    limits: Limits,
) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=_PREPARED
        )
        version = _inspect(connection, path, application)
        _configure(connection, limits)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        # Checkpoints are the writer's to time, and a log that once grew is cut down again.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {limits.page_cache_bytes}")
        if version == 0:
            statements = load_statements("sqlite")
            _create(connection, application, "\n".join(statements[name] for name in creation))
            _sync_directories(path)
        elif version < FORMAT_VERSION:
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    # A damaged name of a table is no text, and the driver says so in its own way.
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        if connection is not None:
            connection.close()
        raise unreadable(path, error) from error
    except BadRequest:
        if connection is not None:
            connection.close()
        raise
    return connection


def connect_reader(path: Path, limits: Limits) -> sqlite3.Connection:
    """A second connection that cannot write, to a file a writer has opened."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_PREPARED,
    )
    _configure(connection, limits)
    return connection


def _inspect(connection: sqlite3.Connection, path: Path, expected: int) -> int:
    """The file's format; 0 when it is empty. Raises when it is not ours to use."""
    application, version, tables = (
        connection.execute(question).fetchone()[0]
        for question in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if application == 0 and version == 0 and tables == 0:
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise BadRequest(
                f"The file system under {path} does not support SQLite's write-ahead log. "
                "Put the data directory on a local disk.",
                code="DataFileUnreadable",
            )
        return 0
    if application != expected:
        raise BadRequest(
            f"{path} is not a data file of reactive_store. Choose another data directory, "
            "or move the file away.",
            code="DataFileUnreadable",
        )
    if version > FORMAT_VERSION:
        raise BadRequest(
            f"{path} was written by a newer version of reactive_store (format {version}; this "
            f"version knows formats up to {FORMAT_VERSION}). Upgrade reactive_store, or choose "
            "another data directory. Nothing was changed.",
            code="DataDirectoryTooNew",
        )
    return int(version)


def _configure(connection: sqlite3.Connection, limits: Limits) -> None:
    connection.execute(f"PRAGMA cache_size = -{limits.page_cache_bytes // 1024}")
    connection.execute(f"PRAGMA mmap_size = {limits.mapped_bytes}")
    connection.execute("PRAGMA temp_store = MEMORY")


def _create(connection: sqlite3.Connection, application: int, tables: str) -> None:
    """Make the tables and say what the file is, in one transaction."""
    connection.executescript(
        "BEGIN IMMEDIATE;\n"
        f"{tables}\n"
        f"PRAGMA application_id = {application};\n"
        f"PRAGMA user_version = {FORMAT_VERSION};\n"
        "COMMIT;"
    )


def _sync_directories(path: Path) -> None:
    """Make the way to a new file durable.

    SQLite syncs the directory the file is in; those above it may be as new, and would take the
    file with them when power is lost.
    """
    for directory in path.absolute().parent.parents:
        # Not every system lets a directory be opened, and those above need not be ours.
        with suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def unreadable(path: Path, error: Exception) -> BadRequest:
    """What whoever wanted to open a file is told."""
    return BadRequest(
        f"{path} cannot be opened: {error}. If the file is damaged, put back a copy or an export; "
        "if not, check that it is there and that this user may read and write it.",
        code="DataFileUnreadable",
    )
