"""kill -9 of a real server during uploads and deletions: what it acknowledged is whole, or gone.

Uploaders and deleters note every answer, synced before the next request. After each restart every
acknowledged file is served whole, what was acknowledged as deleted is not, and every document has
its bytes; in the end the directory holds nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.functions.loader import load_app
from reactive_store.limits import Limits
from reactive_store.scheduling.blob_garbage import BlobGarbage
from tests.e2e.server_process import APPS, ServerProcess
from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.effort import Effort
from tests.trust.files.breakages import BREAKAGES

APP = APPS / "files"
_UPLOADERS = 4
_FILES_BETWEEN_KILLS = 6
_BROKEN = {breakage.name: breakage for breakage in BREAKAGES}


def _content(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _digest(data: bytes) -> str:
    return b64encode(hashlib.sha256(data).digest()).decode()


class Journal:
    """What was answered, on disk before anything else is asked."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self.stored: dict[str, str] = {}  # id → digest
        self.deleted: set[str] = set()
        self.in_doubt: set[str] = set()  # deletions that were asked for and not answered

    def note(self, **what: str) -> None:
        self._file.write(json.dumps(what) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Client:
    """Uploads, and now and then deletes what it uploaded, until the connection breaks."""

    def __init__(self, name: str, journal: Journal, seed: int) -> None:
        self._name = name
        self._journal = journal
        self._rng = random.Random(f"{seed} {name}")
        self._mine: list[str] = []
        self._count = 0

    async def work_until_cut(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
            try:
                address = await call(http, "mutation", "files:uploadUrl")
                while True:
                    if self._mine and self._rng.random() < 0.3:
                        await self._delete(http)
                    else:
                        await self._upload(http, address)
            except httpx.HTTPError:
                return

    async def _upload(self, http: httpx.AsyncClient, address: str) -> None:
        self._count += 1
        size = self._rng.choice((0, 100, 70_000, 1_500_000))
        data = _content(f"{self._name} {self._count}", size)

        async def in_parts() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 200_000):
                yield data[start : start + 200_000]

        response = await http.post(address, content=in_parts())
        assert response.status_code == 200, response.text
        file_id, digest = response.json()["storageId"], _digest(data)
        self._journal.note(stored=file_id, digest=digest)
        self._journal.stored[file_id] = digest
        self._mine.append(file_id)

    async def _delete(self, http: httpx.AsyncClient) -> None:
        file_id = self._mine.pop(self._rng.randrange(len(self._mine)))
        self._journal.in_doubt.add(file_id)
        await call(http, "mutation", "files:forget", storageId=file_id)
        self._journal.note(deleted=file_id)
        self._journal.in_doubt.discard(file_id)
        self._journal.deleted.add(file_id)


async def call(http: httpx.AsyncClient, kind: str, path: str, **args: Any) -> Any:
    body = {"path": path, "args": args, "format": "json"}
    answer = (await http.post(f"/api/{kind}", json=body)).json()
    assert answer["status"] == "success", answer
    return answer["value"]


async def problems_of(url: str, journal: Journal) -> list[str]:
    """What is served beside what was said."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        rows = {row["id"]: row for row in await call(http, "query", "files:stored")}
        problems = []
        missing = journal.stored.keys() - rows.keys() - journal.deleted - journal.in_doubt
        if missing:
            problems.append(f"acknowledged and gone: {sorted(missing)[:3]}, {len(missing)} in all")
        if back := journal.deleted & rows.keys():
            problems.append(f"deleted and there again: {sorted(back)[:3]}")
        for file_id, row in rows.items():
            try:
                response = await http.get(row["url"])
            except httpx.HTTPError as error:
                problems.append(f"not served whole: {file_id}: {error!r}")
                continue
            found = _digest(response.content)
            if response.status_code != 200 or found != row["sha256"]:
                problems.append(f"a document without its bytes: {file_id} {response.status_code}")
            elif found != journal.stored.get(file_id, found):
                problems.append(f"not what was uploaded: {file_id}")
    return problems


async def left_after_garbage(data: Path) -> list[str]:
    """What is in the directory of files once garbage was collected."""
    app = load_app(APP)
    limits = Limits(retention_seconds=0.0, abandoned_file_seconds=0.0)
    backend = await Backend.open(Settings(app=APP, data=data, limits=limits), app=app)
    try:
        garbage = BlobGarbage(backend.database, backend.files)
        await garbage.collect_deleted()
        await garbage.collect_abandoned()
        held = {entry.key async for entry in backend.files.blobs.entries()}
    finally:
        await backend.close()
        app.close()
    return sorted(held)


class BrokenServer(ServerProcess):
    """The same program with something made wrong on purpose."""

    breakage = ""

    def program(self) -> list[str]:
        return ["-m", "tests.trust.broken_server", f"tests.trust.files.breakages:{self.breakage}"]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    kept = Journal(tmp_path / "journal")
    yield kept
    kept.close()


async def _let_work(journal: Journal, files: int) -> None:
    """Wait until so many files are stored; how long that takes is the machine's affair."""
    async with asyncio.timeout(30):
        while len(journal.stored) < files:
            await asyncio.sleep(0.002)


async def kill_often(
    server: ServerProcess, journal: Journal, kills: int, seed: int
) -> tuple[list[str], dict[str, int]]:
    """The first problems found, and figures."""
    rng = random.Random(seed)
    clients = [Client(f"c{number}", journal, seed) for number in range(_UPLOADERS)]
    done, problems = 0, []
    while done < kills and not problems:
        tasks = [asyncio.create_task(each.work_until_cut(server.url)) for each in clients]
        await _let_work(journal, len(journal.stored) + _FILES_BETWEEN_KILLS)
        await asyncio.sleep(rng.uniform(0, 0.15))
        server.kill()
        await asyncio.gather(*tasks)
        done += 1
        await asyncio.to_thread(server.start)
        problems = await problems_of(server.url, journal)
    figures = {"kills": done, "files": len(journal.stored), "deletions": len(journal.deleted)}
    return problems, figures


@pytest.mark.e2e
async def test_a_server_killed_during_uploads_keeps_every_acknowledged_file_whole(
    tmp_path: Path, journal: Journal, effort: Effort, evidence: Say
) -> None:
    kills = effort.pick(3, 100)
    with ServerProcess(APP, tmp_path / "data") as server:
        problems, figures = await kill_often(server, journal, kills, effort.seed)
        assert not problems, f"seed {effort.seed}, {figures}: {problems}\n{server.said()}"
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            rows = await call(http, "query", "files:stored")
    assert figures["files"] >= _FILES_BETWEEN_KILLS * kills, "hardly any load"
    assert figures["deletions"], "no deletion"
    uuids = sorted(row["url"].rpartition("/")[2] for row in rows)
    assert await left_after_garbage(tmp_path / "data") == uuids
    unfinished = tmp_path / "data" / "files" / "unfinished"
    assert list(unfinished.iterdir()) == []
    evidence("durable", histories=1, **figures)


@pytest.mark.e2e
async def test_a_server_that_commits_before_the_bytes_is_caught_when_it_is_killed(
    tmp_path: Path, journal: Journal, evidence: Say
) -> None:
    breakage: Breakage = _BROKEN["document-first"]
    server = BrokenServer(APP, tmp_path / "data")
    server.breakage = breakage.name
    with server:
        problems, figures = await kill_often(server, journal, 30, 1)
    assert problems, f"not found after {figures}: {breakage.text}"
    evidence(breakage.promise, breakage=breakage, found=1, **figures)
