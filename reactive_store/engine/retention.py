"""Forget what nobody can still read: old versions, and records of requests long answered."""

from __future__ import annotations

import logging

from reactive_store.engine.catalog import SESSION_REQUESTS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import BY_CREATION_TIME
from reactive_store.errors import Conflict
from reactive_store.persistence.contract import Timestamp
from reactive_store.values.document import Document

__all__ = ["Retention"]

_LOG = logging.getLogger(__name__)

_PERIOD_S = 30.0
_RECORDS_PER_COMMIT = 500


class Retention:
    """Trims one database now and then."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Trim for ever; ends by cancellation."""
        while True:
            await self._database.runtime.sleep(_PERIOD_S)
            await self.trim()

    async def trim(self) -> int:
        """One round. Returns how many versions and entries were dropped."""
        database = self._database
        if database.failure is not None:
            return 0
        horizon = database.runtime.now_ns() - int(database.limits.retention_seconds * 1e9)
        # The newest commit stays readable however old it is: it is what everybody reads.
        before = Timestamp(max(0, min(horizon, database.latest_ts)))
        database.oldest_readable_ts = max(before, database.oldest_readable_ts)
        dropped = await database.persistence.trim(before)
        while await self._forget_records():
            pass
        return dropped

    async def _forget_records(self) -> bool:
        """Delete some request records that are too old; whether there may be more."""
        database = self._database
        oldest_ms = database.runtime.now_ns() / 1e6 - database.limits.request_record_seconds * 1e3
        transaction = database.begin_mutation()
        scan = transaction.scan(SESSION_REQUESTS, BY_CREATION_TIME, EVERYTHING)
        count = 0
        while count < _RECORDS_PER_COMMIT and (row := scan.next()) is not None:
            if Document(row.value, SESSION_REQUESTS)["_creationTime"] >= oldest_ms:
                break
            transaction.delete(SESSION_REQUESTS, row.id)
            count += 1
        if not count:
            return False
        try:
            await database.commit(transaction)
        except Conflict:
            _LOG.debug("request records changed while being forgotten; next round")
            return False
        return count == _RECORDS_PER_COMMIT
