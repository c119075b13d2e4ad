"""`python -m bench.commit_path [--seconds 10] [--json]`: three ways to keep commits, in one run.

rows       every commit written to the tables before it is acknowledged
log        SqlitePersistence: one log row per batch on a thread, tables behind on another
processes  the same with a child process that writes the log and one that writes the tables

"sustained" has sixteen clients and the tables being written behind them, "busy" a loop that never
rests besides. Documents have 600 bytes and three index entries. The last form is a prototype: it
measures what processes would bring and recovers from nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from reactive_store.limits import Limits
from reactive_store.persistence.batch_code import decode_batch, encode_batch
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    Page,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite import SqlitePersistence
from reactive_store.persistence.sqlite_format import connect_log, connect_writer
from reactive_store.persistence.sqlite_tables import SqliteTables
from reactive_store.persistence.sqlite_writes import SQL, read_clock, write_commits
from reactive_store.persistence.writer_thread import Health, Pacer

_TABLE: Final = TableNumber(10_001)
_BY_TIME, _BY_OWNER, _BY_RANDOM = IndexId(1), IndexId(2), IndexId(3)
_VALUE: Final = b"x" * 600
_BUSY_S: Final = 0.000_08  # what the loop does besides for every commit, in the sustained parts


class Documents:
    """Commits of one new document each."""

    def __init__(self) -> None:
        self.ts = 0
        self._random = random.Random(1)

    def take(self, count: int) -> list[Commit]:
        commits = []
        for _ in range(count):
            self.ts += 1
            name = self._random.randbytes(16)
            time_key = self.ts.to_bytes(8, "big")
            keys = (
                (_BY_TIME, time_key + name),
                (_BY_OWNER, self._random.randrange(1000).to_bytes(2, "big") + time_key + name),
                (_BY_RANDOM, self._random.randbytes(8) + time_key + name),
            )
            commits.append(
                Commit(
                    Timestamp(self.ts),
                    (DocumentWrite(_TABLE, name, _VALUE, True),),
                    tuple(IndexWrite(index, key, _TABLE, name, True) for index, key in keys),
                )
            )
        return commits


class TableRows:
    """Commits as table rows at once, each batch in one durable transaction."""

    def __init__(self, tables: SqliteTables) -> None:
        self._tables = tables
        self.last_ts = 0
        self._next_doc = 1

    @classmethod
    async def open(cls, path: Path) -> TableRows:
        return cls(await SqliteTables.open(path, "FULL", Limits(), Health(), Pacer()))

    async def append(self, commits: Sequence[Commit]) -> None:
        self._next_doc, rows = await self._tables.write(
            partial(write_commits, commits=commits, next_doc=self._next_doc), 0
        )
        self._tables.rows_in_log += rows
        self.last_ts = commits[-1].ts
        if self._tables.rows_in_log > 4000:
            await self._tables.checkpoint()

    def scan(self, index: IndexId, start: bytes, at: int, limit: int) -> list[Any]:
        return self._tables.index_rows(index, start, None, at, False, limit + 1)

    async def close(self) -> None:
        await self._tables.close()


class Child:
    """A process that answers each message with eight bytes once it is dealt with."""

    def __init__(self, work: Callable[[], Callable[[int, bytes], None]]) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _serve(theirs, work())
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Callable[[BaseException | None], None]] = []
        self._unsent = b""
        self._loop.add_reader(ours.fileno(), self._read)

    def send(self, ts: int, data: bytes, done: Callable[[BaseException | None], None]) -> None:
        self._waiting.append(done)
        message = struct.pack("<QQ", ts, len(data)) + data
        if self._unsent:
            self._unsent += message
            return
        self._unsent = message
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        for _ in range(len(self._socket.recv(1 << 16)) // 8):
            self._waiting.pop(0)(None)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        os.waitpid(self.pid, 0)


def _serve(end: socket.socket, deal: Callable[[int, bytes], None]) -> None:
    messages = end.makefile("rb")
    while len(head := messages.read(16)) == 16:
        ts, size = struct.unpack("<QQ", head)
        deal(ts, messages.read(size))
        end.send(head[:8])
    os._exit(0)


def _log_child(path: Path) -> Callable[[int, bytes], None]:
    connection = connect_log(path, "FULL", Limits())
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    return lambda ts, batch: connection.execute(SQL["append_batch"], (ts, batch)) and None


def _tables_child(path: Path) -> Callable[[int, bytes], None]:
    connection = connect_writer(path, "NORMAL", Limits())
    _, next_doc = read_clock(connection)
    connection.execute("PRAGMA wal_autocheckpoint = 4000")

    def deal(_: int, batch: bytes) -> None:
        nonlocal next_doc
        connection.execute("BEGIN IMMEDIATE")
        next_doc, _ = write_commits(connection, decode_batch(batch), next_doc)
        connection.execute("COMMIT")

    return deal


class _Instead:
    """An object with some of its parts replaced."""

    def __init__(self, inner: Any, **parts: Any) -> None:
        self._inner = inner
        self.__dict__ |= parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def open_with_children(path: Path) -> Any:
    """SqlitePersistence with its two writers replaced by processes."""
    log_child = Child(partial(_log_child, path.with_name("child-log.sqlite3")))
    tables_child = Child(partial(_tables_child, path))
    await asyncio.sleep(0.5)  # the files are being made
    store: Any = await SqlitePersistence.open(path)
    tables = store._tables

    async def write(commits: Sequence[Commit]) -> None:
        done = asyncio.get_running_loop().create_future()
        batch = encode_batch(commits)
        tables_child.send(commits[-1].ts, batch, lambda _: done.set_result(None))
        await done
        tables._submitted_ts = tables.written_ts = commits[-1].ts

    async def close() -> None:
        await store.close()
        log_child.close()
        tables_child.close()

    store._materialiser._tables = _Instead(tables, write_commits=write)
    store._log = _Instead(store._log, append=log_child.send)
    return _Instead(store, close=close)


def _scan(store: Any, index: IndexId, start: bytes) -> float:
    began = time.perf_counter()
    if isinstance(store, TableRows):
        rows = store.scan(index, start, store.last_ts, 20)
        count = min(20, len(rows))
    else:
        page: Page = store.scan(index, start, None, store.last_ts, descending=False, limit=20)
        count = len(page.rows)
    assert count == 20
    return time.perf_counter() - began


def _spend(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def _measure(store: Any, seconds: float) -> dict[str, float]:
    documents = Documents()
    await store.append(documents.take(2000))
    figures: dict[str, float] = {}
    for group in (1, 10, 64):
        times = []
        for _ in range(300):
            commits = documents.take(group)
            began = time.perf_counter()
            await store.append(commits)
            times.append(time.perf_counter() - began)
        figures[f"append_{group}_p50_ms"] = _at(times, 0.5) * 1e3
        figures[f"append_{group}_p99_ms"] = _at(times, 0.99) * 1e3
    starts = [number.to_bytes(2, "big") for number in range(900)]
    first, again = [], []
    for start in random.Random(2).choices(starts, k=200):
        await store.append(documents.take(1))
        first.append(_scan(store, _BY_OWNER, start))
        again.append(_scan(store, _BY_OWNER, start))
    figures["first_scan_us"] = _at(first, 0.5) * 1e6
    figures["scan_us"] = _at(again, 0.5) * 1e6
    for is_busy in (False, True):
        figures |= await _sustain(store, documents, seconds, is_busy=is_busy)
    return figures


async def _sustain(
    store: Any, documents: Documents, seconds: float, *, is_busy: bool
) -> dict[str, float]:
    """Sixteen clients that commit one document after another, in batches as the engine's.

    `is_busy`: one more task computes without rest, like a server with queries to answer.
    """
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def write() -> None:
        while time.perf_counter() < end or waiting:
            batch = waiting[:]
            waiting.clear()
            if batch:
                await store.append(documents.take(len(batch)))
            else:
                await asyncio.sleep(0.0001)
            for future in batch:
                future.set_result(None)

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            _spend(_BUSY_S)
            durable = loop.create_future()
            waiting.append(durable)
            await durable
            times.append(time.perf_counter() - began)

    async def compute() -> None:
        while time.perf_counter() < end:
            _spend(_BUSY_S)
            await asyncio.sleep(0)

    readers = [compute()] if is_busy else []
    await asyncio.gather(write(), *(client() for _ in range(16)), *readers)
    name = "busy" if is_busy else "sustained"
    return {
        f"{name}_commits_s": len(times) / seconds,
        f"{name}_p50_ms": _at(times, 0.5) * 1e3,
        f"{name}_p99_ms": _at(times, 0.99) * 1e3,
        f"{name}_max_ms": max(times) * 1e3,
    }


async def _recovery(path: Path, count: int) -> float:
    """Seconds to open a log of `count` documents that are not in the tables."""
    documents = Documents()
    (await SqliteTables.open(path, "FULL", Limits(), Health(), Pacer())).thread.stop()
    connection = connect_log(path.with_name("log.sqlite3"), "FULL", Limits())
    connection.execute("BEGIN")
    for _ in range(count // 10):
        commits = documents.take(10)
        connection.execute(SQL["append_batch"], (commits[-1].ts, encode_batch(commits)))
    connection.execute("COMMIT")
    connection.close()
    began = time.perf_counter()
    store = await SqlitePersistence.open(path)
    taken = time.perf_counter() - began
    assert store.last_ts == documents.ts
    await store.close()
    return taken


async def _run(seconds: float) -> dict[str, Any]:
    forms: dict[str, Callable[[Path], Any]] = {
        "rows": TableRows.open,
        "log": SqlitePersistence.open,
        "processes": open_with_children,
    }
    results: dict[str, Any] = {}
    for name, open_store in forms.items():
        with tempfile.TemporaryDirectory() as directory:
            store = await open_store(Path(directory) / "data.sqlite3")
            results[name] = await _measure(store, seconds)
            began = time.perf_counter()
            await store.close()
            results[name]["close_s"] = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as directory:
        results["log"]["recovery_50000_s"] = await _recovery(
            Path(directory) / "data.sqlite3", 50_000
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each sustained part")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = asyncio.run(_run(options.seconds))
    results["sqlite"] = sqlite3.sqlite_version
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':26}{'rows':>12}{'log':>12}{'processes':>12}{'rows/log':>10}{'proc/log':>10}")
    for name, value in results["log"].items():
        rows, children = results["rows"].get(name), results["processes"].get(name)
        if rows is None or children is None:
            print(f"{name:26}{'':>12}{value:12.3f}")
            continue
        print(
            f"{name:26}{rows:12.3f}{value:12.3f}{children:12.3f}"
            f"{rows / value:10.2f}{children / value:10.2f}"
        )


if __name__ == "__main__":
    main()
