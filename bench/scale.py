"""Reads while the data grows: `python -m bench.scale probe DATA DOCUMENTS` → JSON.

The documents are loaded past the functions: rows and index keys as the engine would write them go
to the store in batches, in a process of its own (`load DATA FROM TO`). The probe is a fresh process
too: what it measures is not warmed by the load.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from bench.answer import median
from bench.programs import resident_bytes
from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Success
from reactive_store.persistence.contract import Commit, DocumentWrite, IndexWrite, Timestamp
from reactive_store.values.ids import encode_id
from reactive_store.values.order import encode_key

__all__ = ["main"]

APP = Path(__file__).resolve().parent / "app"
PER_SENSOR = 25
BATCH = 4000
READS = 400
_ANYBODY = Caller(None, is_admin=False)
_TEXT = "20.4 degrees, a light wind from the west, nothing to report. " * 5
_CREATED_MS = 1_700_000_000_000.0


async def _open(data: Path) -> Backend:
    return await Backend.open(Settings(app=APP, data=data), app=load_app(APP))


def internal_id(number: int) -> bytes:
    """The id of the reading with a number."""
    return blake2b(number.to_bytes(8, "big"), digest_size=14).digest() + b"\x50\x00"


async def load(data: Path, first: int, last: int) -> dict[str, Any]:
    """Append the readings first … last - 1."""
    backend = await _open(data)
    start = time.perf_counter()
    try:
        database = backend.database
        table = database.catalog.tables["readings"]
        ts = int(database.latest_ts)
        for begin in range(first, last, BATCH):
            documents, entries = [], []
            for number in range(begin, min(begin + BATCH, last)):
                identity = internal_id(number)
                document: dict[str, Any] = {
                    "_creationTime": _CREATED_MS + number,
                    "_id": encode_id(table.number, identity),
                    "sensor": float(number // PER_SENSOR),
                    "text": _TEXT,
                }
                value = orjson.dumps(document)
                documents.append(DocumentWrite(table.number, identity, value, is_insert=True))
                suffix = encode_key(document["_creationTime"]) + identity
                entries += [
                    IndexWrite(
                        index.id, key(document) + suffix, table.number, identity, present=True
                    )
                    for index, key in table.encoders
                ]
            ts += 1
            await database.persistence.append(
                [Commit(Timestamp(ts), tuple(documents), tuple(entries))]
            )
    finally:
        await backend.close()
    return {"seconds": time.perf_counter() - start}


async def probe(data: Path, documents: int) -> dict[str, Any]:
    """Open, ask once, then ask many times for things nobody has asked before."""
    app = load_app(APP)
    start = time.perf_counter()
    backend = await Backend.open(Settings(app=APP, data=data), app=app)
    opened = time.perf_counter()
    try:
        table = backend.database.catalog.tables["readings"]
        chance = random.Random(documents)

        async def ask(path: str, args: dict[str, Any]) -> float:
            encoded = orjson.dumps(args)
            begun = time.perf_counter()
            outcome = await backend.runner.query(path, encoded, _ANYBODY)
            took = time.perf_counter() - begun
            assert isinstance(outcome, Success), outcome
            assert len(outcome.value) > 200, outcome
            return took

        def some_id() -> dict[str, Any]:
            return {"id": encode_id(table.number, internal_id(chance.randrange(documents)))}

        def some_sensor() -> dict[str, Any]:
            return {"sensor": chance.randrange(documents // PER_SENSOR)}

        first = await ask("readings.js:ofSensor", some_sensor())
        points = [await ask("readings.js:one", some_id()) for _ in range(READS)]
        ranges = [await ask("readings.js:ofSensor", some_sensor()) for _ in range(READS)]
        warm = some_sensor()
        again = [await ask("readings.js:ofSensor", warm) for _ in range(READS)]
        return {
            "open_ms": (opened - start) * 1000,
            "first_query_ms": (opened - start + first) * 1000,
            "point_us": median(points) * 1e6,
            "range_us": median(ranges) * 1e6,
            "same_range_us": median(again) * 1e6,
            "rss_mib": resident_bytes(os.getpid()) / 2**20,
        }
    finally:
        await backend.close()


def main() -> None:
    """Do one of the two and print what it took."""
    what, data, *numbers = sys.argv[1:]
    if what == "load":
        first, last = map(int, numbers)
        answer = asyncio.run(load(Path(data), first, last))
    else:
        answer = asyncio.run(probe(Path(data), int(numbers[0])))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
