"""Which bytes are taken away, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from reactive_store.errors import FilesUnavailable
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.scheduling.blob_garbage import BlobGarbage
from reactive_store.testing import TestBackend


@pytest.fixture
async def t(tmp_path) -> AsyncIterator[TestBackend]:
    (tmp_path / "functions").mkdir()
    async with TestBackend(functions=tmp_path / "functions") as backend:
        yield backend


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def keys(t: TestBackend) -> set[str]:
    return {entry.key async for entry in t.backend.files.blobs.entries()}


async def put(t: TestBackend, data: bytes) -> str:
    return await t.run(lambda ctx: ctx.storage.store(data))


async def uuid_of(t: TestBackend, storage_id: str) -> str:
    return (await t.run(lambda ctx: ctx.storage.get_url(storage_id))).rpartition("/")[2]


def garbage_of(t: TestBackend) -> BlobGarbage:
    return BlobGarbage(t.backend.database, t.backend.files)


async def test_bytes_of_a_deleted_file_go_when_nobody_can_read_them_any_more(t):
    kept, gone = await put(t, b"1"), await put(t, b"2")
    kept_uuid, gone_uuid = await uuid_of(t, kept), await uuid_of(t, gone)
    await t.run(lambda ctx: ctx.storage.delete(gone))
    garbage = garbage_of(t)
    assert await garbage.collect_deleted() == 0
    assert await keys(t) == {kept_uuid, gone_uuid}
    await t.advance(timedelta(minutes=11))  # the loop of the deployment does it
    assert await keys(t) == {kept_uuid}
    assert await garbage.collect_deleted() == 0
    assert await garbage.collect_abandoned() == 0


async def test_bytes_that_became_no_file_go_after_an_hour(t):
    kept = await uuid_of(t, await put(t, b"1"))
    abandoned = "95366df3-d57a-4b6c-82cd-ceba95688331"
    await t.backend.files.blobs.put(abandoned, chunks(b"2"))  # and then the process died
    garbage = garbage_of(t)
    assert await garbage.collect_abandoned() == 0
    assert await keys(t) == {kept, abandoned}
    await t.advance(timedelta(minutes=59))
    assert await garbage.collect_abandoned() == 0
    await t.advance(timedelta(minutes=1, seconds=1))
    await garbage.collect_abandoned()
    assert await keys(t) == {kept}


async def test_the_deployment_looks_for_abandoned_bytes_by_itself(t):
    await t.backend.files.blobs.put("abandoned", chunks(b"2"))
    await t.advance(timedelta(hours=3))
    assert await keys(t) == set()


async def test_bytes_whose_documents_are_still_to_come_stay_however_old_they_are(t):
    during = []

    async def transact(work):
        await t.advance(timedelta(hours=9))  # the process was suspended, say
        await garbage_of(t).collect_abandoned()
        during.extend(await keys(t))

        async def attempt(transaction):
            return work(transaction)

        return (await t.backend.runner.transact(attempt))[0]

    storage_id = await t.backend.files.store(transact, chunks(b"1"), content_type=None)
    assert during == [await uuid_of(t, storage_id)]


async def test_more_than_one_step_of_garbage_goes_in_one_round(t):
    async def fill(ctx):
        return [await ctx.storage.store(b"x") for _ in range(120)]

    ids = await t.run(fill)

    async def forget(ctx):
        for each in ids:
            await ctx.storage.delete(each)

    await t.run(forget)
    assert len(await keys(t)) == 120
    await t.advance(timedelta(minutes=11))
    assert await keys(t) == set()


async def test_a_store_that_fails_is_asked_again_later(t, monkeypatch):
    storage_id = await put(t, b"1")
    uuid = await uuid_of(t, storage_id)
    await t.run(lambda ctx: ctx.storage.delete(storage_id))
    blobs = t.backend.files.blobs
    delete, failures = blobs.delete, []

    async def refuse(key):
        failures.append(key)
        raise FilesUnavailable("gone")

    monkeypatch.setattr(blobs, "delete", refuse)
    await t.advance(timedelta(minutes=11))
    assert set(failures) == {uuid}
    assert await keys(t) == {uuid}
    monkeypatch.setattr(blobs, "delete", delete)
    await t.advance(timedelta(minutes=6))
    assert await keys(t) == set()


async def test_a_crash_between_bytes_and_document_repeats_the_deletion(t):
    storage_id = await put(t, b"1")
    uuid = await uuid_of(t, storage_id)
    await t.run(lambda ctx: ctx.storage.delete(storage_id))
    await t.backend.files.blobs.delete(uuid)  # and then the process died
    await t.advance(timedelta(minutes=11))
    assert await garbage_of(t).collect_deleted() == 0  # the document is gone as well


async def test_what_a_dead_process_left_half_written_goes_at_the_start(tmp_path):
    (tmp_path / "functions").mkdir()
    persistence = MemoryPersistence()

    class Blobs:
        removed = 0

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        async def remove_unfinished(self):
            self.removed += 1
            return 3

    async with TestBackend(functions=tmp_path / "functions", persistence=persistence) as first:
        blobs = Blobs(first.backend.files.blobs)
        async with TestBackend(functions=tmp_path / "functions", blobs=blobs) as t:
            await t.advance(timedelta(hours=2))
            assert blobs.removed == 1
