"""Ways to lose a file in one line, each of which a test of this folder must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reactive_store.blobs import disk
from reactive_store.functions import stored_files
from reactive_store.functions.storage import StorageWriter
from reactive_store.functions.stored_files import StoredFiles
from reactive_store.scheduling import blob_garbage
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES"]

# Long enough for a process to be killed in between.
_LATE_S = 0.03


def _leave_bytes_unsynced(patch: pytest.MonkeyPatch) -> None:
    finish = disk._Writing.finish
    patch.setattr(disk._Writing, "finish", lambda self, *, synced: finish(self, synced=False))


def _leave_names_unsynced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disk.DiskBlobs, "_sync_folder", lambda self, folder: None)


def _commit_before_the_bytes(patch: pytest.MonkeyPatch) -> None:
    async def store(
        self: StoredFiles,
        transact: Callable[..., Any],
        chunks: Any,
        *,
        content_type: str | None,
        expected_sha256: bytes | None = None,
    ) -> Any:
        data = b"".join([chunk async for chunk in chunks])
        tally = stored_files._Tally(_once(data), expected_sha256, self._limits.file_bytes)
        blocks = [block async for block in tally.blocks()]
        uuid = str(stored_files.UUID(bytes=self._runtime.random_bytes(16), version=4))
        received = stored_files.Received(uuid, tally.digest.digest(), tally.size)
        found = await transact(lambda tx: stored_files.add_file(tx, received, content_type))
        await self._runtime.sleep(_LATE_S)
        await self.blobs.put(uuid, _once(*blocks))
        return found

    patch.setattr(StoredFiles, "store", store)


async def _once(*blocks: bytes) -> Any:
    for block in blocks:
        if block:
            yield block


def _delete_bytes_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    delete = StorageWriter.delete

    async def at_once(self: StorageWriter, storage_id: str, /) -> None:
        uuid = stored_files.find_uuid(self._reading(), storage_id)
        if uuid is not None:
            await self._files.blobs.delete(uuid)
        await delete(self, storage_id)

    patch.setattr(StorageWriter, "delete", at_once)


def _forget_what_arrives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StoredFiles, "is_arriving", lambda self, uuid: False)


def _forget_the_bytes_of_deleted_files(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any) -> int:
        return 0

    patch.setattr(blob_garbage.BlobGarbage, "collect_deleted", nothing)


BREAKAGES = [
    Breakage(
        "bytes-unsynced",
        "durable",
        "a file is acknowledged before its bytes are on disk",
        _leave_bytes_unsynced,
    ),
    Breakage(
        "names-unsynced",
        "durable",
        "a file is acknowledged before its name is on disk",
        _leave_names_unsynced,
    ),
    Breakage(
        "document-first",
        "durable",
        "the document of a file is committed before its bytes are stored",
        _commit_before_the_bytes,
    ),
    Breakage(
        "bytes-deleted-first",
        "durable",
        "the bytes of a file are deleted before its deletion is committed",
        _delete_bytes_before_the_commit,
    ),
    Breakage(
        "arrivals-forgotten",
        "durable",
        "garbage is collected without regard to uploads under way",
        _forget_what_arrives,
    ),
    Breakage(
        "deleted-kept",
        "bounded",
        "the bytes of deleted files are never removed",
        _forget_the_bytes_of_deleted_files,
    ),
]
