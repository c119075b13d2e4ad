"""The admin key and the secret of a data folder, whether or not a server is using it.

The key follows from two facts in the data file, of which the secret is one. They are read beside a
running server, which is the only one to write; a data folder that is new gets them here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from reactive_store.auth.keys import AdminKeys
from reactive_store.backend import (
    INSTANCE_NAME,
    INSTANCE_SECRET,
    database_path,
    load_instance,
)
from reactive_store.config import Settings
from reactive_store.errors import BadRequest
from reactive_store.persistence.data_lock import DataLock
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_format import connect_reader
from reactive_store.persistence.statements import load_statements
from reactive_store.runtime import SystemRuntime

__all__ = ["read_admin_key", "read_instance"]

_GET_GLOBAL: Final = load_statements("sqlite")["get_global"]


def read_admin_key(settings: Settings) -> str:
    """The admin key; a data folder that does not exist yet is made.

    Raises   BadRequest as `read_instance`
    """
    secret, name = read_instance(settings)
    return AdminKeys(name, secret).issue()


def read_instance(settings: Settings) -> tuple[bytes, str]:
    """The deployment's secret and name; a data folder that does not exist yet is made.

    Raises   BadRequest when the folder is in use by a server that has not got as far yet, or when
             its file cannot be read
    """
    if not settings.app.is_dir() and not settings.data.is_dir():
        raise BadRequest(
            f"There is no folder {settings.app}: give the app's with --app.", code="NoSuchFolder"
        )
    path = database_path(settings)
    instance = _stored_instance(path, settings) if path.exists() else None
    if instance is None:
        instance = asyncio.run(_new_instance(path, settings))
    return instance


def _stored_instance(path: Path, settings: Settings) -> tuple[bytes, str] | None:
    """Secret and name as the file has them; None when it is not far enough to have both."""
    try:
        with closing(connect_reader(path, settings.limits)) as connection:
            secret, name = (
                connection.execute(_GET_GLOBAL, (wanted,)).fetchone()
                for wanted in (INSTANCE_SECRET, INSTANCE_NAME)
            )
    except sqlite3.Error:
        return None  # opening it properly explains what is wrong with it
    return (secret[0], name[0].decode()) if secret and name else None


async def _new_instance(path: Path, settings: Settings) -> tuple[bytes, str]:
    runtime = SystemRuntime()
    with DataLock(settings.data, runtime=runtime):
        persistence = await SqlitePersistence.open(path, limits=settings.limits)
        try:
            return await load_instance(persistence, runtime)
        finally:
            await persistence.close()
