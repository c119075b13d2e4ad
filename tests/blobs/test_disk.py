"""Blobs on disk: what is asked of the operating system, and what a dead process leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from reactive_store.blobs import disk
from reactive_store.blobs.disk import DiskBlobs
from reactive_store.errors import FilesUnavailable


async def blocks(*parts: bytes):
    for part in parts:
        yield part


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
async def store(tmp_path):
    opened = await DiskBlobs.open_directory(tmp_path / "deep" / "blobs")
    yield opened
    await opened.close()


class Recorded:
    """The calls of `os` that change a disk, in order; anything else passes through."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._names: dict[int, str] = {}

    def __getattr__(self, name: str):
        return getattr(os, name)

    def open(self, path, flags, mode=0o777):
        descriptor = os.open(path, flags, mode)
        self._names[descriptor] = Path(path).name
        return descriptor

    def fsync(self, descriptor):
        self.calls.append(f"sync {self._names[descriptor]}")
        os.fsync(descriptor)

    def write(self, descriptor, block):
        self.calls.append("write")
        return os.write(descriptor, block)

    def replace(self, source, target):
        self.calls.append(f"rename {Path(source).name} {Path(target).name}")
        os.replace(source, target)


async def test_bytes_are_synced_before_the_name_and_the_name_before_the_end(store, monkeypatch):
    recorded = Recorded()
    monkeypatch.setattr(disk, "os", recorded)
    await store.put("aa-key", blocks(b"1", b"2"))
    folder = Path(store._path_of("aa-key")).parent.name
    assert recorded.calls == [
        "write", "write", "sync aa-key.1", "rename aa-key.1 aa-key", f"sync {folder}",
    ]  # fmt: skip


async def test_without_durability_nothing_is_synced(tmp_path, monkeypatch):
    recorded = Recorded()
    monkeypatch.setattr(disk, "os", recorded)
    fast = await DiskBlobs.open_directory(tmp_path / "blobs", durable=False)
    await fast.put("key", blocks(b"1"))
    await fast.claim("me")
    await fast.close()
    assert not [call for call in recorded.calls if call.startswith("sync")]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
async def test_a_disk_that_refuses_leaves_nothing(store, monkeypatch, tmp_path, failing):
    class Refusing(Recorded):
        pass

    def refuse(*_args):
        raise OSError(errno.ENOSPC, "no space")

    refusing = Refusing()
    setattr(refusing, failing, refuse)
    monkeypatch.setattr(disk, "os", refusing)
    with pytest.raises(FilesUnavailable) as caught:
        await store.put("key", blocks(b"1"))
    assert caught.value.code == "FileStorageFull"
    assert files(tmp_path) == []


async def test_a_folder_that_cannot_be_synced_takes_the_name_back(store, monkeypatch, tmp_path):
    class Refusing(Recorded):
        def fsync(self, descriptor):
            if self._names[descriptor] != "key.1":
                raise OSError(errno.EIO, "bad disk")
            super().fsync(descriptor)

    monkeypatch.setattr(disk, "os", Refusing())
    with pytest.raises(FilesUnavailable) as caught:
        await store.put("key", blocks(b"1"))
    assert caught.value.code == "FileStorageUnavailable"
    assert "bad disk" not in caught.value.message
    assert files(tmp_path) == []


async def test_what_a_dead_process_left_is_removed_at_the_next_start(store, tmp_path):
    await store.put("whole", blocks(b"1"))
    left = tmp_path / "deep" / "blobs" / "unfinished" / "half.7"
    left.write_bytes(b"ha")
    assert [entry.key async for entry in store.entries()] == ["whole"]
    assert await store.remove_unfinished() == 1
    assert files(tmp_path) == ["whole"]


async def test_what_is_being_written_is_no_remainder(store, tmp_path):
    async def interrupted():
        yield b"1"
        assert await store.remove_unfinished() == 0
        yield b"2"

    await store.put("key", interrupted())
    assert files(tmp_path) == ["key"]


async def test_a_stranger_who_takes_files_away_is_noticed(store, tmp_path):
    async def robbed():
        yield b"1"
        (tmp_path / "deep" / "blobs" / "unfinished" / "key.1").unlink()

    with pytest.raises(FilesUnavailable):
        await store.put("key", robbed())
    assert files(tmp_path) == []


async def test_a_blob_deleted_while_it_is_read_is_read_to_the_end(store):
    await store.put("key", blocks(b"x" * 1_000_000))
    reading = await store.open("key", 0, 1_000_000)
    size = len(await anext(reading))
    await store.delete("key")
    async for block in reading:
        size += len(block)
    await reading.aclose()
    assert size == 1_000_000


async def test_a_blob_that_became_shorter_is_an_error_and_no_end(store):
    await store.put("key", blocks(b"x" * 100))
    os.truncate(store._path_of("key"), 40)
    reading = await store.open("key", 0, 100)
    assert len(await anext(reading)) == 40
    with pytest.raises(FilesUnavailable, match="shorter"):
        await anext(reading)
    await reading.aclose()


async def test_a_cancelled_write_ends_before_its_file_is_closed(store, monkeypatch, tmp_path):
    writing, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    class Slow(Recorded):
        def write(self, descriptor, block):
            writing.set()
            go_on.wait(10)
            order.append("written")
            return super().write(descriptor, block)

        def close(self, descriptor):
            order.append("closed")
            os.close(descriptor)

    monkeypatch.setattr(disk, "os", Slow())
    putting = asyncio.create_task(store.put("key", blocks(b"1")))
    await asyncio.to_thread(writing.wait, 10)
    putting.cancel()
    await asyncio.sleep(0.01)
    putting.cancel()
    assert not putting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert order == ["written", "closed"]
    assert files(tmp_path) == []


async def test_a_cancelled_opening_holds_nothing_open(store, monkeypatch):
    await store.put("key", blocks(b"1"))
    opening, go_on = threading.Event(), threading.Event()
    held: set[int] = set()

    class Slow(Recorded):
        def open(self, path, flags, mode=0o777):
            opening.set()
            go_on.wait(10)
            descriptor = super().open(path, flags, mode)
            held.add(descriptor)
            return descriptor

        def close(self, descriptor):
            held.discard(descriptor)
            os.close(descriptor)

    monkeypatch.setattr(disk, "os", Slow())
    reading = asyncio.create_task(store.open("key", 0, 1))
    await asyncio.to_thread(opening.wait, 10)
    reading.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert held == set()


async def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FilesUnavailable):
        await DiskBlobs.open_directory(tmp_path / "file" / "blobs")
