"""Blobs in memory: what the common suite does not say."""

from __future__ import annotations

from datetime import timedelta

from reactive_store.blobs.memory import MemoryBlobs
from reactive_store.testing.virtual_runtime import VirtualRuntime


async def test_time_is_that_of_the_runtime():
    runtime = VirtualRuntime()
    store = MemoryBlobs(runtime)

    async def nothing():
        for each in ():
            yield each

    await store.put("a", nothing())
    await runtime.advance(timedelta(hours=1))
    await store.put("b", nothing())
    first, second = [entry.stored_ms async for entry in store.entries()]
    assert second - first == 3_600_000
