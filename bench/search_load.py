"""Text search beside SQLite's FTS5: `python -m bench.search_load …` → JSON.

    load DATA DOCUMENTS        articles of about 200 words go to the store, past the functions
    probe DATA DOCUMENTS SECONDS    a fresh process: build, search, write

Words follow Zipf's law over 50,000 of them. The ceiling of a search is the same question to an FTS5
table in memory with the same texts, ranked by its bm25, the best twenty, in the same process
between the searches; beside it the plain scan over the texts in Python. The ceiling of a write is
the same write into a table without an index.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from bench.answer import median
from bench.filling import append_documents
from bench.vector_load import own_bytes
from reactive_store.auth.identity import Caller
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.functions.outcome import Success

__all__ = ["main"]

APP = Path(__file__).resolve().parent / "search_app"
BATCH = 1000
WORDS = 50_000
LENGTH = 200
TOPICS = 1000
TOGETHER = 16
_ANYBODY = Caller(None, is_admin=False)


def _vocabulary() -> list[str]:
    """The words, the most common first: short ones of letters, all different."""
    chance = random.Random(3)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    found: dict[str, None] = {}
    while len(found) < WORDS:
        length = min(12, 2 + int(chance.expovariate(0.35)))
        found["".join(chance.choices(letters, k=length))] = None
    return list(found)


class Texts:
    """Articles, the same for the same seed."""

    def __init__(self) -> None:
        self.words = _vocabulary()
        self._weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(WORDS)))

    def some(self, count: int, seed: int) -> list[str]:
        chance = random.Random(seed)
        return [
            " ".join(
                chance.choices(
                    self.words,
                    cum_weights=self._weights,
                    k=chance.randint(LENGTH // 2, 3 * LENGTH // 2),
                )
            )
            for _ in range(count)
        ]


async def _open(data: Path) -> Backend:
    return await Backend.open(Settings(app=APP, data=data), app=load_app(APP))


async def load(data: Path, documents: int) -> dict[str, Any]:
    """Append so many articles."""
    backend = await _open(data)
    texts = Texts()
    start = time.perf_counter()
    try:
        await append_documents(
            backend.database,
            "articles",
            (
                [
                    {"text": text, "topic": f"topic {number % TOPICS}"}
                    for number, text in enumerate(
                        texts.some(min(BATCH, documents - first), first), first
                    )
                ]
                for first in range(0, documents, BATCH)
            ),
        )
    finally:
        await backend.close()
    return {"seconds": time.perf_counter() - start}


class _Bare:
    """FTS5 in memory, and the texts themselves."""

    def __init__(self, texts: Texts, documents: int) -> None:
        self.texts: list[str] = []
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize = unicode61)")
        for first in range(0, documents, BATCH):
            some = texts.some(min(BATCH, documents - first), first)
            self.texts += some
            self.connection.executemany(
                "INSERT INTO t(text) VALUES (?)", [(each,) for each in some]
            )
        self.connection.commit()

    def find(self, asked: str) -> float:
        """Seconds FTS5 takes for any of the words, the last one a prefix."""
        *words, last = asked.split()
        match = " OR ".join([*words, f"{last}*"])
        begun = time.perf_counter()
        sql = "SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank LIMIT 20"
        self.connection.execute(sql, (match,)).fetchall()
        return time.perf_counter() - begun

    def scan(self, asked: str) -> float:
        """Seconds Python takes to look at every text for one of the words."""
        words = set(asked.split())
        begun = time.perf_counter()
        sum(not words.isdisjoint(text.split()) for text in self.texts)
        return time.perf_counter() - begun


class _Probe:
    def __init__(self, backend: Backend, texts: Texts, seconds: float) -> None:
        self.backend = backend
        self.texts = texts
        self.seconds = seconds
        self.salt = 0

    async def ask(self, text: str, topic: str | None = None) -> tuple[float, list[str]]:
        # The salt keeps the answer from being an older one.
        self.salt += 1
        question: dict[str, Any] = {"text": text, "salt": self.salt}
        if topic is not None:
            question["topic"] = topic
        args = orjson.dumps(question)
        begun = time.perf_counter()
        outcome = await self.backend.runner.query("articles.js:find", args, _ANYBODY)
        took = time.perf_counter() - begun
        assert isinstance(outcome, Success), outcome
        return took, orjson.loads(outcome.value)

    def questions(self, kind: str) -> Iterator[str]:
        words = self.texts.words
        chance = random.Random(kind)
        while True:
            if kind == "rare":
                yield words[chance.randrange(WORDS // 2, WORDS)]
            elif kind == "common":
                # The last word is also a prefix: one that nothing else begins with.
                yield f"{words[chance.randrange(10)]} {words[chance.randrange(10)]} {'q' * 12}"
            else:
                yield words[chance.randrange(1000, 5000)][:3]

    async def searches(self, kind: str, bare: _Bare) -> dict[str, float]:
        took, others = [], []
        until = time.perf_counter() + self.seconds
        for text in self.questions(kind):
            seconds, _ = await self.ask(text)
            took.append(seconds)
            others.append(bare.find(text))
            if time.perf_counter() > until and len(took) >= 20:
                break
        took.sort()
        return {
            f"{kind}_ms": median(took) * 1000,
            f"{kind}_p99_ms": took[int(len(took) * 0.99)] * 1000,
            f"{kind}_fts_ms": median(others) * 1000,
            f"{kind}_fts_least_ms": min(others) * 1000,
        }

    async def filtered(self) -> float:
        """Milliseconds of a search for common words in one topic of a thousand."""
        took = []
        for number, text in zip(range(30), self.questions("common"), strict=False):
            took.append((await self.ask(text, f"topic {number}"))[0])
        return median(took) * 1000

    async def writes(self, table: str) -> float:
        """Writes per second by sixteen clients."""
        bodies = [
            orjson.dumps({"table": table, "article": {"text": text, "topic": "new"}})
            for text in self.texts.some(500, 10**6)
        ]
        done, is_over = 0, False

        async def client() -> None:
            nonlocal done
            while not is_over:
                done += 1
                outcome = await self.backend.runner.mutation(
                    "articles.js:write", bodies[done % 500], _ANYBODY
                )
                assert isinstance(outcome, Success), outcome

        start = time.perf_counter()
        running = [asyncio.create_task(client()) for _ in range(TOGETHER)]
        await asyncio.sleep(self.seconds)
        is_over = True
        await asyncio.gather(*running)
        return done / (time.perf_counter() - start)

    async def fresh(self) -> tuple[float, float]:
        """Milliseconds from the begin of a write to an answer that has it; and within one."""
        took, within = [], []
        for number, text in enumerate(self.texts.some(20, 2 * 10**6)):
            word = f"fresh{number}x{self.salt}"
            article = {"text": f"{text} {word}", "topic": "new"}
            args = orjson.dumps({"table": "articles", "article": article})
            begun = time.perf_counter()
            await self.backend.runner.mutation("articles.js:write", args, _ANYBODY)
            _, found = await self.ask(word)
            took.append(time.perf_counter() - begun)
            assert len(found) == 1
            args = orjson.dumps({"article": article, "text": word})
            begun = time.perf_counter()
            outcome = await self.backend.runner.mutation("articles.js:writeAndFind", args, _ANYBODY)
            within.append(time.perf_counter() - begun)
            assert isinstance(outcome, Success), outcome
            assert orjson.loads(outcome.value) == 2
        return median(took) * 1000, median(within) * 1000


async def probe(data: Path, documents: int, seconds: float) -> dict[str, Any]:
    """Everything that is measured."""
    texts = Texts()
    before = own_bytes()
    opening = time.perf_counter()
    backend = await _open(data)
    try:
        load = _Probe(backend, texts, seconds)
        found: dict[str, Any] = {"open_seconds": time.perf_counter() - opening}
        worst, begun, spent = 0.0, time.perf_counter(), time.thread_time()
        built = asyncio.create_task(backend.database.searches.wait_built())
        while not built.done():
            turn = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - turn)
        (state,) = backend.database.searches.states()
        found |= {
            "build_seconds": time.perf_counter() - begun,
            "build_cpu_seconds": time.thread_time() - spent,
            "build_stall_ms": worst * 1000,
            "memory_mib": (own_bytes() - before) / 2**20,
            "terms": state.terms,
        }
        assert state.documents >= documents
        bare = _Bare(texts, documents)
        for kind in ("rare", "common", "prefix"):
            found |= await load.searches(kind, bare)
        found["scan_ms"] = (
            median(
                [
                    bare.scan(text)
                    for _, text in zip(range(3), load.questions("common"), strict=False)
                ]
            )
            * 1000
        )
        found["texts_mib"] = sum(map(len, bare.texts)) / 2**20
        found["filtered_ms"] = await load.filtered()
        found["fresh_ms"], found["within_ms"] = await load.fresh()
        plain = [await load.writes("plain")]
        found["writes_per_second"] = await load.writes("articles")
        plain.append(await load.writes("plain"))
        return found | {"plain_per_second": plain}
    finally:
        await backend.close()


def main() -> None:
    """Do one of the two and print what it took."""
    what, data, *numbers = sys.argv[1:]
    if what == "load":
        answer = asyncio.run(load(Path(data), int(numbers[0])))
    else:
        answer = asyncio.run(probe(Path(data), int(numbers[0]), float(numbers[1])))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
