"""`ctx.storage` in queries, mutations and actions."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tempfile
from base64 import b64encode

import pytest

from reactive_store.errors import BadRequest
from reactive_store.functions.storage import StorageActionWriter, StorageReader, StorageWriter
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.functions.running import INLINE, FailedCall, Running

UNKNOWN = "95366df3-d57a-4b6c-82cd-ceba95688331"

SOURCE = """
@mutation
async def fail_after(ctx, storage_id: str):
    await ctx.storage.delete(storage_id)
    raise ValueError("no")

@mutation
async def caught(ctx, storage_id: str):
    try:
        await ctx.run_mutation("m:fail_after", storage_id=storage_id)
    except ValueError:
        pass
    return await ctx.storage.get_url(storage_id)

@mutation
async def url_then_delete(ctx, storage_id: str):
    before = await ctx.storage.get_url(storage_id)
    await ctx.storage.delete(storage_id)
    return [before, await ctx.storage.get_url(storage_id)]
"""


@pytest.fixture
async def store(tmp_path):
    modules = {"m": SOURCE, "inline": INLINE}
    async with Running.open(tmp_path, modules, runtime=VirtualRuntime()) as running:
        yield running


async def put(store: Running, data, **options) -> str:
    async def body(ctx):
        return await ctx.storage.store(data, **options)

    return await store.acts(body)


async def url_of(store: Running, storage_id: str):
    async def body(ctx):
        return await ctx.storage.get_url(storage_id)

    return await store.reads(body)


async def content_of(store: Running, storage_id: str):
    async def body(ctx):
        file = await ctx.storage.get(storage_id)
        return None if file is None else [await file.read(), file.content_type, float(file.size)]

    return await store.acts(body)


class Bytes:
    """A file of an asynchronous library."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(size)


async def pieces():
    yield b"he"
    yield bytearray(b"llo")


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "view", "stream", "file", "async file"])
async def test_stored_bytes_come_back_with_their_type(store, kind):
    """F151."""
    with tempfile.TemporaryFile() as file:
        file.write(b"hello")
        file.seek(0)
        data = {
            "bytes": b"hello",
            "bytearray": bytearray(b"hello"),
            "view": memoryview(b"hello"),
            "stream": pieces(),
            "file": file,
            "async file": Bytes(b"hello"),
        }[kind]
        storage_id = await put(store, data, content_type="text/plain; charset=utf-8")
    assert await content_of(store, storage_id) == [b"hello", "text/plain; charset=utf-8", 5.0]
    with pytest.raises(FailedCall, match=r"store\(\) expects a Blob"):
        await put(store, 5)


async def test_a_file_is_read_in_chunks_more_than_once(store):
    storage_id = await put(store, bytes(range(256)) * 4000)

    async def body(ctx):
        file = await ctx.storage.get(storage_id)
        first = [chunk async for chunk in file]
        return len(first) > 1 and b"".join(first) == await file.read()

    assert await store.acts(body) is True


async def test_what_is_no_bytes_is_not_stored(store):
    for data in ("text", 5, None, {"a": 1}, [b"x"], io.StringIO("text")):
        with pytest.raises(FailedCall, match=r"store\(\) expects a Blob"):
            await put(store, data)

    async def texts():
        yield "text"

    with pytest.raises(FailedCall, match=r"`await request.body\(\)`"):
        await put(store, texts())
    assert [entry async for entry in store.backend.files.blobs.entries()] == []


async def test_a_digest_may_be_demanded(store):
    right = b64encode(hashlib.sha256(b"hello").digest()).decode()
    await put(store, b"hello", sha256=right)
    with pytest.raises(FailedCall, match="Sha256 mismatch"):
        await put(store, b"other", sha256=right)
    with pytest.raises(FailedCall, match="digest"):
        await put(store, b"hello", sha256="wrong")
    with pytest.raises(FailedCall, match="content-type"):
        await put(store, b"hello", content_type="no type")


async def test_metadata_say_the_digest_in_hexadecimal_and_documents_in_base64(store):
    """F149: `getMetadata` gives hex sha256, `_storage` base64."""
    storage_id = await put(store, b"hello", content_type="text/plain")
    digest = hashlib.sha256(b"hello").digest()

    async def metadata(ctx):
        return await ctx.storage.get_metadata(storage_id)

    async def document(ctx):
        return await ctx.db.system.get(storage_id)

    found = await store.reads(metadata)
    url = await url_of(store, storage_id)
    assert found == {
        "storageId": url.rpartition("/")[2],
        "sha256": digest.hex(),
        "size": 5.0,
        "contentType": "text/plain",
    }
    kept = await store.reads(document)
    assert kept.pop("_creationTime") > 0
    assert kept == {
        "_id": storage_id,
        "sha256": b64encode(digest).decode(),
        "size": 5.0,
        "contentType": "text/plain",
    }


async def test_a_type_that_was_not_given_is_null(store):
    storage_id = await put(store, b"")
    assert await content_of(store, storage_id) == [b"", None, 0.0]


async def test_an_address_is_nothing_but_the_origin_and_a_uuid(store):
    storage_id = await put(store, b"hello")
    url = await url_of(store, storage_id)
    assert url.startswith(f"{store.backend.files._origin()}/api/storage/")
    uuid = url.rpartition("/")[2]
    assert storage_id not in url
    assert await url_of(store, uuid) == url  # the old name of a file


async def test_what_is_not_there_has_no_address_metadata_or_content(store):
    """F147."""
    storage_id = await put(store, b"hello")

    async def forget(ctx):
        await ctx.storage.delete(storage_id)

    await store.writes(forget)
    for name in (storage_id, UNKNOWN):

        async def metadata(ctx, name=name):
            return await ctx.storage.get_metadata(name)

        assert await url_of(store, name) is None
        assert await store.reads(metadata) is None
        assert await content_of(store, name) is None


async def test_a_deletion_that_is_rolled_back_deletes_nothing(store):
    """F148."""
    storage_id = await put(store, b"hello")
    url = await url_of(store, storage_id)
    with pytest.raises(FailedCall, match="no"):
        await store.mutation("m:fail_after", storage_id=storage_id)
    assert await url_of(store, storage_id) == url
    assert await store.mutation("m:caught", storage_id=storage_id) == url
    assert await content_of(store, storage_id) == [b"hello", None, 5.0]
    with pytest.raises(FailedCall, match=f"storage id {UNKNOWN} not found"):
        await store.mutation("m:url_then_delete", storage_id=UNKNOWN)


async def test_a_mutation_sees_its_own_deletion(store):
    storage_id = await put(store, b"hello")
    url = await url_of(store, storage_id)
    assert await store.mutation("m:url_then_delete", storage_id=storage_id) == [url, None]


async def test_deleting_what_is_not_there_is_an_error(store):
    async def forget(ctx):
        await ctx.storage.delete(UNKNOWN)

    for run in (store.writes, store.acts):
        with pytest.raises(FailedCall, match=f"storage id {UNKNOWN} not found"):
            await run(forget)


async def test_an_action_deletes_at_once(store):
    storage_id = await put(store, b"hello")

    async def body(ctx):
        await ctx.storage.delete(storage_id)
        return await ctx.storage.get_url(storage_id)

    assert await store.acts(body) is None


async def test_ids_of_other_tables_are_refused_everywhere(store):
    """F150."""

    async def make(ctx):
        return await ctx.db.insert("other", {})

    other = await store.writes(make)
    text = "Storage ID cannot be an ID on any table other than '_storage'"
    for name in ("get_url", "get_metadata"):
        for run in (store.reads, store.writes, store.acts):

            async def look(ctx, name=name):
                return await getattr(ctx.storage, name)(other)

            with pytest.raises(FailedCall, match=f"Invalid storage ID. {text}"):
                await run(look)
    for name in ("delete", "get"):

        async def act(ctx, name=name):
            return await getattr(ctx.storage, name)(other)

        with pytest.raises(FailedCall, match=text):
            await store.acts(act)


async def test_a_stored_file_cannot_be_deleted_as_a_document(store):
    storage_id = await put(store, b"hello")

    async def forget(ctx):
        await ctx.db.delete(storage_id)

    with pytest.raises(FailedCall, match=r"System tables .* are read-only"):
        await store.writes(forget)


async def test_a_live_query_hears_of_a_deletion_and_of_no_other_file(store):
    storage_id, other = await put(store, b"1"), await put(store, b"2")

    async def body(ctx):
        return await ctx.storage.get_url(storage_id)

    watched = store.watches(body)
    assert await watched.read() is not None

    async def forget(ctx, name):
        await ctx.storage.delete(name)

    await store.writes(lambda ctx: forget(ctx, other))
    await put(store, b"3")
    assert watched.told == 0
    await store.writes(lambda ctx: forget(ctx, storage_id))
    assert watched.told == 1
    assert await watched.read() is None
    watched.close()


async def test_upload_addresses_are_for_mutations_and_actions(store):
    async def body(ctx):
        return await ctx.storage.generate_upload_url()

    for run in (store.writes, store.acts):
        assert "/api/storage/upload?token=" in await run(body)
    with pytest.raises(FailedCall, match="it has no effects"):
        await store.reads(body)


@pytest.mark.parametrize("name", ["store", "get"])
async def test_bytes_are_for_actions(store, name):
    async def body(ctx):
        return await getattr(ctx.storage, name)(b"")

    text = (
        rf"Can't use storage.{name}\(\) in queries and mutations. Please consider using an action."
    )
    for run in (store.reads, store.writes):
        with pytest.raises(FailedCall, match=text):
            await run(body)


async def test_each_kind_of_function_has_its_own_part(store):
    kinds = []

    async def body(ctx):
        kinds.append(type(ctx.storage))
        with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
            _ = ctx.storage.nonsense

    for run in (store.reads, store.writes, store.acts):
        await run(body)
    assert kinds == [StorageReader, StorageWriter, StorageActionWriter]


async def test_a_deletion_that_is_not_awaited_fails_the_mutation(store):
    storage_id = await put(store, b"hello")

    async def forget(ctx):
        ctx.storage.delete(storage_id)

    with pytest.raises(FailedCall, match=r"`delete\(…\)` was called without `await`"):
        await store.writes(forget)
    assert await url_of(store, storage_id) is not None


async def test_a_deletion_after_the_mutation_has_returned_is_refused(store):
    storage_id = await put(store, b"hello")
    kept = []

    async def keep(ctx):
        kept.append(ctx.storage)

    await store.writes(keep)
    with pytest.raises(BadRequest, match="after the function had returned"):
        await kept[0].delete(storage_id)
    assert await url_of(store, storage_id) is not None
