"""Tools for the tests of an app, and of anything built on the engine.

    async with TestBackend(schema=schema, functions="functions") as t:
        id = await t.mutation("messages:send", body="Hello")
        async with t.subscribe("messages:list") as live:
            assert [message["_id"] for message in await live.next()] == [id]

The engine is the real one, in memory, under a clock that stands still until it is told to move.
"""

from __future__ import annotations

from reactive_store.testing.backend import FunctionError, LiveValue, TestBackend, TestCaller
from reactive_store.testing.faulty_persistence import FaultyPersistence
from reactive_store.testing.sequencer import Sequencer
from reactive_store.testing.site import HttpResponse
from reactive_store.testing.virtual_runtime import VirtualRuntime

__all__ = [
    "FaultyPersistence",
    "FunctionError",
    "HttpResponse",
    "LiveValue",
    "Sequencer",
    "TestBackend",
    "TestCaller",
    "VirtualRuntime",
]
