"""What every store of blobs keeps: one suite, run by all of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

import pytest

from reactive_store.blobs.contract import BLOCK_BYTES, checked_key
from reactive_store.errors import NotFound

KEY = "95366df3-d57a-4b6c-82cd-ceba95688331"
OTHER = "0a000000-d57a-4b6c-82cd-ceba95688331"


async def blocks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(store, key: str, start: int, end: int) -> bytes:
    reading = await store.open(key, start, end)
    try:
        return b"".join([block async for block in reading])
    finally:
        await reading.aclose()


async def keys(store) -> list[str]:
    return sorted([entry.key async for entry in store.entries()])


async def test_what_was_put_is_read_whole_and_in_part(store):
    await store.put(KEY, blocks(b"hello", b" ", b"world"))
    assert await read(store, KEY, 0, 11) == b"hello world"
    assert await read(store, KEY, 4, 7) == b"o w"
    assert await read(store, KEY, 10, 11) == b"d"
    assert await read(store, KEY, 3, 3) == b""


async def test_a_blob_may_be_empty(store):
    await store.put(KEY, blocks())
    assert await keys(store) == [KEY]
    assert await read(store, KEY, 0, 0) == b""


async def test_a_long_blob_comes_in_blocks(store):
    part = hashlib.sha256(b"seed").digest() * (BLOCK_BYTES // 8)  # four blocks
    await store.put(KEY, blocks(*[part] * 12))
    whole = part * 12
    reading = await store.open(KEY, 5, len(whole) - 5)
    found = [block async for block in reading]
    await reading.aclose()
    await reading.aclose()
    assert b"".join(found) == whole[5:-5]
    assert len(found) > 2
    assert all(found)


async def test_a_blob_that_was_never_put_is_not_found(store):
    with pytest.raises(NotFound, match=f"File {KEY} not found"):
        await store.open(KEY, 0, 1)
    await store.delete(KEY)  # and is no error to delete


async def test_a_deleted_blob_is_gone_and_others_stay(store):
    await store.put(KEY, blocks(b"x"))
    await store.put(OTHER, blocks(b"y"))
    await store.delete(KEY)
    assert await keys(store) == [OTHER]
    with pytest.raises(NotFound):
        await store.open(KEY, 0, 1)
    assert await read(store, OTHER, 0, 1) == b"y"


async def test_entries_say_how_long_and_since_when(store):
    before = time.time() * 1e3
    await store.put(KEY, blocks(b"12345"))
    (entry,) = [entry async for entry in store.entries()]
    assert (entry.key, entry.size_bytes) == (KEY, 5)
    assert before - 2000 <= entry.stored_ms <= time.time() * 1e3 + 2000


@pytest.mark.parametrize("after_bytes", [0, 3, 9 * 1024 * 1024])
async def test_an_error_on_the_way_leaves_nothing(store, after_bytes: int):
    async def broken() -> AsyncIterator[bytes]:
        for start in range(0, after_bytes, 1 << 20):
            yield bytes(min(1 << 20, after_bytes - start))
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await store.put(KEY, broken())
    assert await keys(store) == []
    await store.put(KEY, blocks(b"again"))
    assert await read(store, KEY, 0, 5) == b"again"


async def test_a_cancelled_put_leaves_nothing(store):
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        reached.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(store.put(KEY, endless()))
    await reached.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await keys(store) == []


async def test_a_put_takes_the_next_block_only_when_the_last_is_dealt_with(store):
    given = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(200):
            given += 1
            yield bytes(1 << 18)
            # Whoever runs ahead does it by a bounded number of blocks: none here may wait long.
            await asyncio.sleep(0)

    await store.put(KEY, counted())
    assert given == 200
    assert [entry.size_bytes async for entry in store.entries()] == [200 << 18]


async def test_many_may_be_put_and_read_at_a_time(store):
    names = [f"{number:02x}-{number}" for number in range(20)]
    await asyncio.gather(*[store.put(name, blocks(name.encode() * 1000)) for name in names])
    found = await asyncio.gather(*[read(store, name, 0, len(name) * 1000) for name in names])
    assert found == [name.encode() * 1000 for name in names]
    assert await keys(store) == sorted(names)


async def test_the_first_owner_stays_the_owner(open_store):
    first = await open_store()
    assert await first.claim("one") == "one"
    assert await first.claim("two") == "one"
    assert await (await open_store()).claim("three") == "one"


async def test_the_mark_of_the_owner_is_no_blob(store):
    await store.claim("one")
    assert await keys(store) == []


async def test_a_second_opening_finds_everything(open_store):
    await (await open_store()).put(KEY, blocks(b"kept"))
    again = await open_store()
    assert await again.remove_unfinished() == 0
    assert await read(again, KEY, 0, 4) == b"kept"


@pytest.mark.parametrize("key", ["", "../x", "a/b", "A", "a.b", "-a", "a" * 65, "a\n", "ä"])
async def test_what_could_be_a_path_is_no_key(store, key: str):
    with pytest.raises(ValueError, match="cannot be the key"):
        checked_key(key)
    with pytest.raises(ValueError, match="cannot be the key"):
        await store.put(key, blocks(b"x"))
    with pytest.raises(ValueError, match="cannot be the key"):
        await store.open(key, 0, 1)
    with pytest.raises(ValueError, match="cannot be the key"):
        await store.delete(key)
