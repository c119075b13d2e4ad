"""Forget what nobody can still read: old versions, entries of indexes out of service, and records
of requests long answered.

Each round asks for bounded pieces of work and pauses between them, so that commits get their turn
on the disk.
"""

from __future__ import annotations

import logging

from reactive_store.engine.catalog import DROPPED, DROPPING, INDEXES, SESSION_REQUESTS
from reactive_store.engine.database import Database
from reactive_store.engine.interval import EVERYTHING
from reactive_store.engine.range_index import BY_CREATION_TIME
from reactive_store.errors import Conflict, StoreError
from reactive_store.persistence.contract import IndexId, Timestamp
from reactive_store.values.document import Document

__all__ = ["Retention"]

_LOG = logging.getLogger(__name__)

_PERIOD_S = 30.0
_PAUSE_S = 0.02
_RECORDS_PER_COMMIT = 500


class Retention:
    """Trims one database now and then."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Trim for ever; ends by cancellation. A round that fails is tried again with the next."""
        while True:
            await self._database.runtime.sleep(_PERIOD_S)
            try:
                await self.trim()
            except StoreError as error:
                _LOG.warning("history was not trimmed: %s", error.message)

    async def trim(self) -> int:
        """One round. Returns how many versions and entries were dropped.

        Cost     nothing is written when nothing has become old enough
        Raises   StoreFailed
        """
        database = self._database
        if database.failure is not None:
            return 0
        horizon = database.runtime.now_ns() - int(database.limits.retention_seconds * 1e9)
        # The newest commit stays readable however old it is: it is what everybody reads.
        before = Timestamp(max(0, min(horizon, database.latest_ts)))
        dropped = 0
        if await database.forget_before(before):
            while count := await database.persistence.trim(before):
                dropped += count
                await database.runtime.sleep(_PAUSE_S)
            await self._forget_indexes(before)
        while await self._forget_records():
            await database.runtime.sleep(_PAUSE_S)
        return dropped

    async def _forget_indexes(self, before: Timestamp) -> None:
        """Drop the entries of indexes that went out of service at or before `before`."""
        database = self._database
        transaction = database.begin_mutation()
        scan = transaction.scan(INDEXES, BY_CREATION_TIME, EVERYTHING)
        highest, gone = 0, []
        while (row := scan.next()) is not None:
            document = Document(row.value, INDEXES)
            number = IndexId(document["index"])
            highest = max(highest, number)
            if document["state"] == DROPPED or (document["state"] == DROPPING and row.ts <= before):
                gone.append((number, document["state"], row.id))
        for number, state, document_id in gone:
            if state == DROPPING:
                await database.persistence.drop_index(number)
            if number != highest:
                transaction.delete(INDEXES, document_id)
            else:
                transaction.patch(INDEXES, document_id, {"state": DROPPED})
        try:
            await database.commit(transaction)
        except Conflict:
            _LOG.debug("indexes changed while old ones were being forgotten; next round")

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
