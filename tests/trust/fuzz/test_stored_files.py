"""Damaged files: opening them says so, or gives what was written; never something else.

The log carries a checksum for each batch, so every change in it is either refused or made where it
changes nothing (room that SQLite does not use). SQLite's write-ahead log ends, for it, at the first
frame that is not whole: it cannot tell a torn write from a damaged one, so the newest commits may
be missing after damage there, as a whole and in order. The tables have SQLite's own format and no
checksum of ours: what was changed inside a document cannot be told. Whatever comes out must still
be rows, or an error of the documented class, and `check` must not raise.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reactive_store.errors import BadRequest, StoreFailed
from reactive_store.persistence.batch_code import decode_batch, encode_batch
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite import SqlitePersistence
from tests.trust.breakage import Breakage
from tests.trust.effort import Effort
from tests.trust.fuzz.breakages import named
from tests.trust.fuzz.mangling import mangle_bytes

TABLE, INDEX = TableNumber(10001), IndexId(7)
_CODES = {"DataFileUnreadable", "DataDirectoryTooNew"}


def some_commits(rng: random.Random, first_ts: int, count: int) -> list[Commit]:
    commits = []
    for number in range(count):
        documents, entries = [], []
        for _ in range(rng.choice((1, 1, 2, 3))):
            name, value = rng.randbytes(16), b'{"a":"%b"}' % rng.randbytes(8).hex().encode()
            documents.append(DocumentWrite(TABLE, name, value, True))
            entries.append(IndexWrite(INDEX, rng.randbytes(6) + name, TABLE, name, True))
        commits.append(Commit(Timestamp(first_ts + number), tuple(documents), tuple(entries)))
    return commits


# ---- batches ----


def explore_batches(first: int, count: int) -> tuple[int, str | None]:
    """Damage encoded batches; how many, and the first that was taken although it had changed."""
    for number in range(count):
        rng = random.Random(f"batches {first} {number}")
        commits = some_commits(rng, rng.choice((1, 2**62)), rng.choice((1, 2, 5)))
        data = encode_batch(commits)
        other = encode_batch(some_commits(rng, 9, 1))
        damaged = mangle_bytes(rng, data, [other])
        try:
            found = decode_batch(damaged)
        except ValueError:
            continue
        except Exception as error:
            return number + 1, f"{damaged.hex()} raised {error!r}"
        if found not in (commits, decode_batch(other)):
            return number + 1, f"{damaged.hex()} was taken for {found}"
    return count, None


def test_a_damaged_batch_is_refused(effort: Effort, evidence: Any) -> None:
    tried, problem = explore_batches(effort.seed, effort.pick(4000, 60_000))
    assert problem is None, problem
    evidence("robust", batches=tried)


@pytest.mark.parametrize("breakage", named("batch-checksum"), ids=str)
def test_an_unchecked_batch_is_found(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, evidence: Any
) -> None:
    breakage.apply(monkeypatch)
    tried, problem = explore_batches(1, 2000)
    assert problem is not None
    evidence("robust", breakage=breakage, found=1, inputs=tried)


def forged(rng: random.Random, data: bytes) -> bytes:
    """Damage behind the checksum, and a checksum that fits."""
    body = mangle_bytes(rng, data[5:])
    return data[:1] + zlib.crc32(body).to_bytes(4, "little") + body


def test_a_batch_with_a_forged_checksum_is_refused_or_commits(
    effort: Effort, evidence: Any
) -> None:
    """Only who can write the file can do this; even then reading ends, and ends in order."""
    count, odd = effort.pick(3000, 40_000), 0
    for number in range(count):
        rng = random.Random(f"forged {effort.seed} {number}")
        data = forged(rng, encode_batch(some_commits(rng, 5, 2)))
        try:
            assert isinstance(decode_batch(data), list)
        except ValueError:
            pass
        except Exception:  # counted: the bound is that it ends, whatever it raises
            odd += 1
    evidence("robust", batches=count, other_errors=odd)


# ---- files ----


Contents = dict[bytes, bytes | None]
Seen = tuple[str, str]  # what came out, and of which damage


async def written(folder: Path, rng: random.Random) -> list[Contents]:
    """Write a store whose log and tables both hold something; its documents after each commit."""
    store = await SqlitePersistence.open(folder / "data.sqlite3")
    commits = some_commits(rng, 100, 30)
    await store.append(commits[:20])
    await store._materialiser.settle()
    for commit in commits[20:]:
        await store.append([commit])
    (folder / "copy").mkdir()
    for name in ("data.sqlite3", "log.sqlite3"):
        for suffix in ("", "-wal"):
            if (folder / f"{name}{suffix}").exists():
                shutil.copy(folder / f"{name}{suffix}", folder / "copy" / f"{name}{suffix}")
    await store.close()
    states: list[Contents] = [{}]
    for commit in commits:
        states.append(states[-1] | {each.id: each.value for each in commit.documents})
    return states


async def read_damaged(folder: Path, states: list[Contents]) -> str:
    """Open a damaged store and read it all: "refused", "same", "earlier" or "other".

    "earlier": exactly what had been there after one of the commits before the last.

    Raises   AssertionError for an error of no documented class
    """
    refusal: BadRequest | None = None
    try:
        store = await SqlitePersistence.open(folder / "data.sqlite3")
    except StoreFailed:
        return "refused"
    except BadRequest as error:
        refusal = error
    if refusal is not None:
        assert refusal.code in _CODES, refusal
        return "refused"
    try:
        at = store.last_ts
        rows = store.scan_table(TABLE, b"", None, at, descending=False, limit=1000).rows
        found = {row.id: row.value for row in rows}
        entries = store.scan(INDEX, b"", None, at, descending=False, limit=1000).rows
        assert all(isinstance(row.value, bytes) for row in entries)
    except (sqlite3.DatabaseError, StoreFailed, BadRequest):
        return "refused"
    finally:
        with suppress(StoreFailed, BadRequest, sqlite3.DatabaseError):
            await store.close()
    if found == states[-1]:
        return "same"
    return "earlier" if found in states else "other"


def damage(rng: random.Random, file: Path) -> str:
    """Change a file in one place, or cut it; says how."""
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            file.write_bytes(data[:at])
            return f"cut at {at}"
        case 1:
            at = at // 4096 * 4096
            data[at : at + 4096] = bytes(min(4096, len(data) - at))
        case 2:
            data[at : at + 16] = rng.randbytes(min(16, len(data) - at))
        case _:
            data[at] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return f"changed at {at}"


async def damaged(name: str, tmp_path: Path, seed: int, count: int) -> AsyncIterator[Seen]:
    """Damage a file `count` times, each time as it was written, and read the store."""
    rng = random.Random(f"files {seed} {name}")
    states = await written(tmp_path, rng)
    source = tmp_path / "copy"
    if not name.endswith("-wal"):
        # As after a checkpoint: everything in the file itself.
        connection = sqlite3.connect(source / name)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    for number in range(count):
        folder = tmp_path / f"{number}"
        shutil.copytree(source, folder)
        how = damage(rng, folder / name)
        result = await read_damaged(folder, states)
        yield result, f"{name} {how} (seed {seed}, number {number})"
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["log.sqlite3-wal", "log.sqlite3"])
async def test_a_damaged_log_is_refused_or_read_as_it_was_after_one_of_its_commits(
    name: str, tmp_path: Path, effort: Effort, evidence: Any
) -> None:
    seen: Counter[str] = Counter()
    async for result, how in damaged(name, tmp_path, effort.seed, effort.pick(40, 400)):
        seen[result] += 1
        # What the log's end has lost may have been torn while it was written, and is the newest.
        # Nothing of the middle may be missing, nothing may be there that was never written.
        assert result != "other", how
    assert seen["same"] + seen["refused"] > 0, seen
    evidence("robust", files=seen.total(), **seen)


async def test_damaged_tables_give_rows_or_a_documented_refusal_and_no_other_error(
    tmp_path: Path, effort: Effort, evidence: Any
) -> None:
    """Whether a document is as it was cannot be told: the tables have no checksum of ours."""
    seen: Counter[str] = Counter()
    async for result, _ in damaged("data.sqlite3", tmp_path, effort.seed, effort.pick(40, 400)):
        seen[result] += 1  # what is no documented refusal has been raised by now
    assert seen["same"] + seen["refused"] > 0, seen
    evidence("robust", files=seen.total(), **seen)
