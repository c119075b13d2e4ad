"""What is acknowledged is in the files at that moment, and in sight from then on."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite import SqlitePersistence

TABLE, INDEX = TableNumber(1), IndexId(1)


def insert(ts: int) -> Commit:
    """One document under one key."""
    document = ts.to_bytes(16, "big")
    return Commit(
        Timestamp(ts),
        (DocumentWrite(TABLE, document, b"%d" % ts, True),),
        (IndexWrite(INDEX, document, TABLE, document, True),),
    )


def contents(store: SqlitePersistence, at: int) -> list[tuple[int, bytes]]:
    rows = store.scan(INDEX, b"", None, Timestamp(at), descending=False, limit=100).rows
    return [(row.ts, row.value) for row in rows]


async def test_what_was_acknowledged_together_is_all_in_the_files_at_that_moment(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    store = await SqlitePersistence.open(folder / "data.sqlite3")
    await store.append([insert(1), insert(2), insert(3)])
    await store.append([insert(4), insert(5)])
    # As they lie there while the process lives: what a crash right now would leave.
    left = shutil.copytree(folder, tmp_path / "left")
    expected = contents(store, 5)
    await store.close()
    again = await SqlitePersistence.open(left / "data.sqlite3")
    try:
        assert (again.last_ts, contents(again, 5)) == (5, expected)
        assert [ts for ts, _ in expected] == [1, 2, 3, 4, 5]
        assert again.check() == []
    finally:
        await again.close()


async def test_commits_on_their_way_to_the_tables_are_seen_all_the_time(tmp_path: Path) -> None:
    store = await SqlitePersistence.open(tmp_path / "data.sqlite3")
    go_on = threading.Event()
    try:
        await store.append([insert(ts) for ts in range(1, 6)])
        expected = contents(store, 5)
        # The thread that writes the tables stands still, so the round is under way for a while.
        store._tables.thread.submit(lambda _: go_on.wait(), lambda _: None)
        moving = asyncio.ensure_future(store._materialiser.settle())
        for _ in range(5):
            await asyncio.sleep(0)
            assert contents(store, 5) == expected
            assert store.get(TABLE, (3).to_bytes(16, "big"), Timestamp(5)) is not None
        go_on.set()
        await moving
        assert contents(store, 5) == expected
    finally:
        go_on.set()
        await store.close()
