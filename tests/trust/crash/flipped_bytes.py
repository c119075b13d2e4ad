"""One byte of a file is not what was written: what does whoever opens it get to know?

refused    the store does not open, and says why
reported   reading or the store's own check says that something is wrong
harmless   everything reads as it was written
cut short  everything reads as it was at an earlier commit: later ones are gone
silent     something reads as it never was, and nobody says so
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.sqlite import SqlitePersistence
from tests.trust.crash.images import image_at
from tests.trust.crash.oracle import History, difference
from tests.trust.crash.recording_vfs import Mark, recording
from tests.trust.crash.workload import DATA, Answer, Step, clear, plan, run

__all__ = ["OUTCOMES", "flips", "outcome_of", "put", "some_files"]

OUTCOMES = ("refused", "reported", "harmless", "cut short", "silent")
_LIMITS = Limits(page_cache_bytes=1 << 20)


Files = dict[str, bytes]


async def some_files(directory: Path, *, seed: int) -> tuple[Files, Files, History]:
    """The files of a process that was killed (with write-ahead logs), those of one that let go
    with commits in its log (without), and the truth about both."""
    clear(directory)
    asks = [step for step in plan(seed, rounds=6) if step.kind == "ask"]
    middle = len(asks) // 2
    steps = [*asks[:middle], Step("rest"), *asks[middle:], Step("drop")]
    with recording(directory) as tape:
        await run(directory, tape, steps, seed=seed, synchronous="FULL")
    answered = max(
        at
        for at, event in enumerate(tape.events)
        if isinstance(event, Mark) and isinstance(event.value, Answer)
    )
    killed = image_at(tape, answered + 1, "everything", random.Random(seed)).files
    let_go = {path.name: path.read_bytes() for path in directory.iterdir()}
    return killed, let_go, History(tape.events)


def put(files: Files, directory: Path) -> None:
    """Make a directory of them."""
    clear(directory)
    for name, content in files.items():
        (directory / name).write_bytes(content)


def flips(content: bytes, rng: random.Random, count: int) -> Iterator[tuple[int, bytes]]:
    """The content with one bit of one byte turned, `count` times; half of them where bytes are."""
    for number in range(count):
        place = rng.randrange(len(content))
        if number % 2:
            for _ in range(200):
                if content[place]:
                    break
                place = rng.randrange(len(content))
        turned = content[place] ^ (1 << rng.randrange(8))
        yield place, content[:place] + bytes([turned]) + content[place + 1 :]


async def outcome_of(directory: Path, history: History) -> str:
    """Open the store, read everything, ask its check."""
    try:
        store = await SqlitePersistence.open(directory / DATA, limits=_LIMITS)
    except BadRequest as error:
        known = error.code in ("DataFileUnreadable", "DataDirectoryTooNew")
        return "refused" if known else f"refused as {error.code}"
    try:
        last = store.last_ts
        differs = difference(store, history, last)
        if differs is None and (not last or last in history.timestamps):
            return "harmless" if last == history.timestamps[-1] else "cut short"
        return "reported" if store.check() else "silent"
    except sqlite3.DatabaseError:
        return "reported"
    finally:
        await store.close()
