"""One history of files: clients store, delete and read; the power goes; what is there afterwards?

Everything is the product's own but the disk under its store of blobs, the threads that would ask
it, and the store of documents, which is in memory and takes nothing once the power is off. Chance
comes from one seed, so a history can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store.blobs import disk
from reactive_store.blobs.disk import DiskBlobs
from reactive_store.engine.database import Database
from reactive_store.errors import StoreError, StoreFailed
from reactive_store.functions.stored_files import StoredFiles, find_file
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.scheduling.blob_garbage import BlobGarbage
from reactive_store.testing import FaultyPersistence, TestBackend
from reactive_store.testing.virtual_runtime import VirtualRuntime
from tests.trust.files.simulated_disk import PowerLoss, SimulatedDisk

__all__ = ["Seen", "run_history"]

_FOLDER = Path("/simulated-files")
_CLIENTS = 3


@dataclass
class Seen:
    """What clients were told, and what they had asked for and were not told of."""

    stored: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)  # files whose deletion was not answered
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class _Documents(FaultyPersistence):
    """Documents in memory, on the machine that loses its power."""

    machine: SimulatedDisk
    rng: random.Random

    async def append(self, commits: Any) -> None:
        for _ in range(self.rng.randrange(20)):
            await asyncio.sleep(0)
        if self.machine.is_off:
            raise StoreFailed("the machine is off")
        self.machine.step()
        await super().append(commits)


async def _blobs(
    machine: SimulatedDisk, rng: random.Random, patch: pytest.MonkeyPatch
) -> DiskBlobs:
    """The store of blobs on that machine; what it would do in threads happens at chance moments."""

    async def at_some_time(self: DiskBlobs, work: Any, *args: Any) -> Any:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        return work(*args)

    patch.setattr(disk, "os", machine)
    patch.setattr(DiskBlobs, "_in_thread", at_some_time)
    return await DiskBlobs.open_directory(_FOLDER)


async def _chunks(data: bytes, rng: random.Random) -> AsyncIterator[bytes]:
    while data:
        size = rng.randint(1, len(data))
        yield data[:size]
        data = data[size:]
        await asyncio.sleep(0)


class _Client:
    """Does one thing after another until the power goes."""

    def __init__(self, t: TestBackend, seen: Seen, seed: str) -> None:
        self._t = t
        self._seen = seen
        self._rng = random.Random(seed)
        self._mine: list[str] = []

    async def work(self) -> None:
        with contextlib.suppress(PowerLoss, StoreError):
            while True:
                kind = self._rng.choice(("store", "store", "store", "delete", "undo", "read"))
                await getattr(self, f"_{kind}")()
                self._seen.counts[kind] += 1
                await asyncio.sleep(0)

    async def _store(self) -> None:
        data = self._rng.randbytes(self._rng.randrange(60))

        async def transact(work: Any) -> Any:
            async def attempt(transaction: Any) -> Any:
                return work(transaction)

            return (await self._t.backend.runner.transact(attempt))[0]

        chunks = _chunks(data, self._rng)
        file_id = await self._t.backend.files.store(transact, chunks, content_type=None)
        self._seen.stored[file_id] = data
        self._mine.append(file_id)

    async def _delete(self) -> None:
        if not self._mine:
            return
        file_id = self._mine.pop(self._rng.randrange(len(self._mine)))
        self._seen.in_doubt.add(file_id)
        await self._t.run(lambda ctx: ctx.storage.delete(file_id))
        self._seen.in_doubt.discard(file_id)
        self._seen.deleted.add(file_id)

    async def _undo(self) -> None:
        if not self._mine:
            return
        file_id = self._rng.choice(self._mine)

        async def undone(ctx: Any) -> None:
            await ctx.storage.delete(file_id)
            raise KeyError(file_id)

        with contextlib.suppress(KeyError):
            await self._t.run(undone)

    async def _read(self) -> None:
        if not self._mine:
            return
        file_id = self._rng.choice(self._mine)
        try:
            found = await _content(self._t.backend.database, self._t.backend.files, file_id)
        except StoreError as error:
            found = error.message.encode()
        if found != self._seen.stored[file_id]:
            self._seen.problems.append(f"acknowledged and not as it was, while serving: {file_id}")


async def _content(database: Database, files: StoredFiles, file_id: str) -> bytes | None:
    file = find_file(database.begin(), file_id)
    if file is None:
        return None
    reading = await files.open(file, 0, file.size)
    data = b"".join([block async for block in reading])
    await reading.aclose()
    if (len(data), hashlib.sha256(data).digest()) != (file.size, file.sha256):
        return b"not what the document says"
    return data


async def _pass_time(t: TestBackend, rng: random.Random) -> None:
    """The clock jumps now and then: what is deleted, and uploads under way, grow old."""
    while True:
        for _ in range(rng.randrange(5, 60)):
            await asyncio.sleep(0)
        _jump(t, timedelta(minutes=rng.choice((1, 7, 70))))


async def _collect_often(t: TestBackend) -> None:
    with contextlib.suppress(PowerLoss, StoreError):
        while True:
            await _collect(t)
            await asyncio.sleep(0)


async def _collect(t: TestBackend) -> None:
    """Collect garbage; it pauses between its steps, so the clock has to go on."""

    async def collect() -> None:
        garbage = BlobGarbage(t.backend.database, t.backend.files)
        await garbage.collect_deleted()
        await garbage.collect_abandoned()

    collecting = asyncio.create_task(collect())
    try:
        while not collecting.done():
            await t.advance(timedelta(milliseconds=10))
        collecting.result()
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


def _jump(t: TestBackend, duration: timedelta) -> None:
    """Set the clock forward, as after a sleep of the machine: nothing happens in between."""
    t.runtime._now_ns += duration // timedelta(microseconds=1) * 1000


async def _after(t: TestBackend, seen: Seen) -> None:
    """Compare what is there with what was said."""
    database, files = t.backend.database, t.backend.files
    problems = seen.problems
    for file_id, data in seen.stored.items():
        try:
            found = await _content(database, files, file_id)
        except StoreError as error:
            problems.append(f"acknowledged and gone: {file_id}: {error.message}")
            continue
        if file_id in seen.deleted:
            if found is not None:
                problems.append(f"deleted and there again: {file_id}")
        elif found != data and not (found is None and file_id in seen.in_doubt):
            problems.append(f"acknowledged and not as it was: {file_id}")
    rows = await t.run(lambda ctx: ctx.db.system.query("_storage").collect())
    held = set()
    for row in rows:
        file = find_file(database.begin(), row["_id"])
        assert file is not None
        held.add(file.uuid)
        try:
            if await _content(database, files, row["_id"]) == b"not what the document says":
                problems.append(f"a document with other bytes: {row['_id']}")
        except StoreError as error:
            problems.append(f"a document without bytes: {row['_id']}: {error.message}")
    await _collect(t)
    kept = {entry.key async for entry in files.blobs.entries()}
    if kept - held:
        problems.append(f"{len(kept - held)} blobs without a file stay for ever")
    unfinished = disk.os.scandir(f"{_FOLDER}/unfinished")
    if left := [entry.name for entry in unfinished]:
        problems.append(f"half-written files stay for ever: {left}")


async def run_history(seed: int, folder: Path, patch: pytest.MonkeyPatch) -> Seen:
    """Work until the power goes at a moment of the seed's choice, start again, and look.

    `folder` has an app without functions.
    """
    rng, seen = random.Random(seed), Seen()
    runtimes: list[VirtualRuntime] = []
    machine = SimulatedDisk(rng, lambda: runtimes[-1].now_ns() if runtimes else 0)
    memory = MemoryPersistence()
    documents = _Documents(memory)
    documents.machine, documents.rng = machine, rng
    t = TestBackend(
        functions=folder,
        persistence=documents,
        blobs=await _blobs(machine, rng, patch),
        seed=seed,
    )
    runtimes.append(t.runtime)
    async with contextlib.AsyncExitStack() as stack:
        # The process is gone with the machine; here it has to be put away, which cannot succeed.
        stack.push_async_exit(_of_no_interest)
        await stack.enter_async_context(t)
        machine.off_at = machine.calls + rng.randrange(1, 400)
        clients = [_Client(t, seen, f"{seed} {number}") for number in range(_CLIENTS)]
        work = [asyncio.create_task(client.work()) for client in clients]
        besides = [asyncio.create_task(each) for each in (_pass_time(t, rng), _collect_often(t))]
        try:
            async with asyncio.timeout(20):
                while not machine.is_off and not any(task.done() for task in work):
                    await asyncio.sleep(0)
        finally:
            for task in (*work, *besides):
                task.cancel()
            for ended in await asyncio.gather(*work, *besides, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
    again = machine.after_power_loss(lambda: runtimes[-1].now_ns())
    blobs = await _blobs(again, rng, patch)
    t = TestBackend(functions=folder, persistence=memory, blobs=blobs, seed=seed + 1)
    _jump(t, timedelta(days=300))  # its clock begins anew, the machine's did not
    runtimes.append(t.runtime)
    async with t:
        await _after(t, seen)
    return seen


async def _of_no_interest(_kind: object, error: BaseException | None, _trace: object) -> bool:
    return isinstance(error, PowerLoss | StoreError)
