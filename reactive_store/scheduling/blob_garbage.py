"""Takes away bytes that are no file: of files long deleted, and of uploads that became none.

    deleted     `_blobs` says since when; the bytes go when no reader of the past can ask for them,
                first the bytes, then the document, so that a crash in between only repeats it
    abandoned   bytes without a document for an hour, and not of an upload under way

The first is looked for every few minutes through an index, the second at the start and every few
hours by listing the store. Both work in small steps and pause between them.

Source: docs/decisions/0014-files.md
"""

from __future__ import annotations

import logging
from typing import Final

from reactive_store.engine.database import Database
from reactive_store.errors import Conflict, StoreError
from reactive_store.functions.stored_files import (
    StoredFiles,
    forget_blob,
    has_document,
    unused_blobs,
)

__all__ = ["BlobGarbage"]

_LOG = logging.getLogger(__name__)

_PERIOD_S: Final = 300.0
_SWEEP_EVERY: Final = 12  # so many periods
_PAUSE_S: Final = 0.02
_STEP: Final = 100


class BlobGarbage:
    """Collects the garbage of one deployment's files."""

    def __init__(self, database: Database, files: StoredFiles) -> None:
        self._database = database
        self._files = files
        self._blobs = files.blobs

    async def run(self) -> None:
        """Collect for ever; ends by cancellation. A round that fails is tried again later."""
        rounds = 0
        while True:
            try:
                if rounds == 0:
                    await self._blobs.remove_unfinished()
                await self.collect_deleted()
                if rounds % _SWEEP_EVERY == 0:
                    await self.collect_abandoned()
            except StoreError as error:
                _LOG.warning("garbage of files was not collected: %s", error.message)
            rounds += 1
            await self._database.runtime.sleep(_PERIOD_S)

    async def collect_deleted(self) -> int:
        """Remove the bytes of files deleted longer ago than history is kept; how many.

        Raises   StoreFailed; FilesUnavailable
        """
        database = self._database
        before_ms = database.runtime.now_ns() / 1e6 - database.limits.retention_seconds * 1e3
        removed = 0
        while database.failure is None:
            found = unused_blobs(database.begin(), before_ms, _STEP)
            if not found:
                break
            for _, uuid in found:
                await self._blobs.delete(uuid)
            transaction = database.begin_mutation()
            for document_id, _ in found:
                forget_blob(transaction, document_id)
            try:
                await database.commit(transaction)
            except Conflict:
                _LOG.debug("files changed while deleted ones were being removed; next round")
                break
            removed += len(found)
            await database.runtime.sleep(_PAUSE_S)
        return removed

    async def collect_abandoned(self) -> int:
        """Remove bytes that have been without a document for long; how many.

        Cost     a listing of the store, and a look into an index for each old blob
        Raises   FilesUnavailable
        """
        database = self._database
        age_ms = database.limits.abandoned_file_seconds * 1e3
        removed = looked_at = 0
        async for entry in self._blobs.entries():
            if entry.stored_ms > database.runtime.now_ns() / 1e6 - age_ms:
                continue
            # In this order: what arrives has its documents before it has ceased to arrive.
            is_arriving = self._files.is_arriving(entry.key)
            if not is_arriving and not has_document(database.begin(), entry.key):
                await self._blobs.delete(entry.key)
                removed += 1
            looked_at += 1
            if looked_at % _STEP == 0:
                await database.runtime.sleep(_PAUSE_S)
        if removed:
            _LOG.info("removed abandoned uploads=%d", removed)
        return removed
