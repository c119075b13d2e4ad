"""Vector search beside bare numpy: `python -m bench.vector_load …` → JSON.

    load DATA DIMENSIONS DOCUMENTS        notes go to the store in batches, past the functions
    probe DATA DIMENSIONS SECONDS         a fresh process: build, search, write

The ceiling of a search is one product of a numpy matrix with the same rows and a partition for the
best ten, in the same process between the searches. The ceiling of a write is the same write into a
table without an index.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.answer import median
from bench.filling import append_documents
from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Success

__all__ = ["main", "own_bytes"]

APP = Path(__file__).resolve().parent / "vectors_app"
BATCH = 1000
TOPICS = 1000
TOGETHER = 16
_ANYBODY = Caller(None, is_admin=False)
_TEXT = "A paragraph that an embedding stands for, about as long as they are. " * 6


def _vectors(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Around a few hundred centres, as embeddings of texts are."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((300, dimensions))
    found = centres[chance.integers(0, 300, count)] + chance.standard_normal((count, dimensions))
    return np.round(found / np.linalg.norm(found, axis=1, keepdims=True), 8)


def own_bytes() -> int:
    """Memory of this process but for mapped files (Linux)."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


async def _open(data: Path) -> Backend:
    return await Backend.open(Settings(app=APP, data=data), app=load_app(APP))


async def load(data: Path, dimensions: int, documents: int) -> dict[str, Any]:
    """Append so many notes."""
    backend = await _open(data)
    start = time.perf_counter()
    try:
        await append_documents(
            backend.database,
            f"notes{dimensions}",
            (
                [
                    {"embedding": row, "text": _TEXT, "topic": f"topic {number % TOPICS}"}
                    for number, row in enumerate(
                        _vectors(min(BATCH, documents - first), dimensions, first).tolist(), first
                    )
                ]
                for first in range(0, documents, BATCH)
            ),
        )
    finally:
        await backend.close()
    return {"seconds": time.perf_counter() - start}


class _Probe:
    def __init__(self, backend: Backend, dimensions: int, seconds: float) -> None:
        self.backend = backend
        self.dimensions = dimensions
        self.seconds = seconds
        self.table = f"notes{dimensions}"

    def questions(self, seed: int) -> Iterator[bytes]:
        while True:
            for row in _vectors(100, self.dimensions, seed).tolist():
                yield orjson.dumps({"table": self.table, "vector": row})
            seed += 1

    async def ask(self, args: bytes) -> tuple[float, Any]:
        begun = time.perf_counter()
        outcome = await self.backend.runner.action("notes.js:near", args, _ANYBODY)
        took = time.perf_counter() - begun
        assert isinstance(outcome, Success), outcome
        return took, orjson.loads(outcome.value)

    async def searches(self, matrix: np.ndarray) -> dict[str, Any]:
        """Searches one after the other, each beside the bare product."""
        took, bare, hits = [], [], 0
        until = time.perf_counter() + self.seconds
        for args in self.questions(10**6):
            seconds, found = await self.ask(args)
            took.append(seconds)
            asked = np.array(orjson.loads(args)["vector"], np.float32)
            begun = time.perf_counter()
            scores = matrix @ asked
            best = np.argpartition(scores, len(scores) - 10)[-10:]
            bare.append(time.perf_counter() - begun)
            floor = float(scores[best].min()) - 1e-6
            hits += sum(each["_score"] >= floor for each in found)
            if time.perf_counter() > until and len(took) >= 20:
                break
        took.sort()
        return {
            "search_ms": median(took) * 1000,
            "search_p99_ms": took[int(len(took) * 0.99)] * 1000,
            "bare_ms": median(bare) * 1000,
            "bare_each_ms": [each * 1000 for each in bare],
            "recall": hits / (10 * len(took)),
        }

    async def filtered(self) -> float:
        """Milliseconds of a search in one topic of a thousand."""
        took = []
        questions = self.questions(2 * 10**6)
        for number in range(30):
            args = {**orjson.loads(next(questions)), "topic": f"topic {number}"}
            took.append((await self.ask(orjson.dumps(args)))[0])
        return median(took) * 1000

    async def together(self) -> dict[str, Any]:
        """Searches per second by sixteen clients, and the longest the loop stood still."""
        done, worst, is_over = 0, 0.0, False
        prepared = self.questions(3 * 10**6)
        questions = [next(prepared) for _ in range(100)]

        async def client(number: int) -> None:
            nonlocal done
            while not is_over:
                await self.ask(questions[(number + done) % 100])
                done += 1

        async def tick() -> None:
            nonlocal worst
            while not is_over:
                begun = time.perf_counter()
                await asyncio.sleep(0.001)
                worst = max(worst, time.perf_counter() - begun - 0.001)

        start = time.perf_counter()
        running = [asyncio.create_task(client(number)) for number in range(TOGETHER)]
        running.append(asyncio.create_task(tick()))
        await asyncio.sleep(self.seconds)
        is_over = True
        await asyncio.gather(*running)
        return {
            "together_per_second": done / (time.perf_counter() - start),
            "stall_ms": worst * 1000,
        }

    async def writes(self, table: str) -> float:
        """Writes per second by sixteen clients; the index has them all at the end."""
        rows = _vectors(200, self.dimensions, 5 * 10**6).tolist()
        bodies = [
            orjson.dumps(
                {"table": table, "note": {"embedding": row, "text": _TEXT, "topic": "new"}}
            )
            for row in rows
        ]
        done, is_over = 0, False

        async def client() -> None:
            nonlocal done
            while not is_over:
                done += 1
                outcome = await self.backend.runner.mutation(
                    "notes.js:write", bodies[done % 200], _ANYBODY
                )
                assert isinstance(outcome, Success), outcome

        start = time.perf_counter()
        running = [asyncio.create_task(client()) for _ in range(TOGETHER)]
        await asyncio.sleep(self.seconds)
        is_over = True
        await asyncio.gather(*running)
        if table == self.table:
            await self.ask(next(self.questions(6 * 10**6)))
        return done / (time.perf_counter() - start)

    async def fresh(self) -> float:
        """Milliseconds from the begin of a write to an answer that has it."""
        took = []
        run = time.time_ns()  # the data may have been probed before
        for number in range(20):
            (row,) = _vectors(1, self.dimensions, 7 * 10**6 + number).tolist()
            note = {"embedding": row, "text": "fresh", "topic": f"{run} {number}"}
            begun = time.perf_counter()
            args = orjson.dumps({"table": self.table, "note": note})
            await self.backend.runner.mutation("notes.js:write", args, _ANYBODY)
            asked = orjson.dumps({"table": self.table, "vector": row, "topic": f"{run} {number}"})
            _, found = await self.ask(asked)
            took.append(time.perf_counter() - begun)
            assert len(found) == 1
        return median(took) * 1000


async def probe(data: Path, dimensions: int, seconds: float) -> dict[str, Any]:
    """Everything that is measured of one length of vectors."""
    backend = await _open(data)
    try:
        vectors = backend.database.vectors
        before = own_bytes()
        start = time.perf_counter()
        worst = 0.0
        built = asyncio.create_task(vectors.wait_built())
        while not built.done():
            begun = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - begun)
        build_seconds = time.perf_counter() - start
        taken = own_bytes() - before
        documents = next(s.documents for s in vectors.states() if s.table == f"notes{dimensions}")
        matrix = np.concatenate(
            [
                _vectors(min(BATCH, documents - first), dimensions, first).astype(np.float32)
                for first in range(0, documents, BATCH)
            ]
        )
        load = _Probe(backend, dimensions, seconds)
        found = await load.searches(matrix)
        found["filtered_ms"] = await load.filtered()
        found |= await load.together()
        found["fresh_ms"] = await load.fresh()
        plain = [await load.writes("plain")]
        found["writes_per_second"] = await load.writes(load.table)
        plain.append(await load.writes("plain"))
        return found | {
            "plain_per_second": median(plain),
            "documents": documents,
            "build_seconds": build_seconds,
            "build_stall_ms": worst * 1000,
            "memory_mib": taken / 2**20,
            "bare_mib": matrix.nbytes / 2**20,
        }
    finally:
        await backend.close()


def main() -> None:
    """Do one of the two and print what it took."""
    what, data, dimensions, number = sys.argv[1:]
    if what == "load":
        answer = asyncio.run(load(Path(data), int(dimensions), int(number)))
    else:
        answer = asyncio.run(probe(Path(data), int(dimensions), float(number)))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
