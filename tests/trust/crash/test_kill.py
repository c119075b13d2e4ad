"""kill -9 of a real server at any moment, clients that insist, and a journal of what was answered.

Writers keep a journal of every acknowledgement, synced before the next request. After each restart
everything in it is there once, whatever was in doubt is there at most once, sums are the same, and
a live query shows at least what it had shown before the kill. An entry is found by its key. A
transfer leaves no entry: each moves an amount of its own, so that what was moved in all says which
of them took effect.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import WebSocketException

from tests.e2e.sync_socket import SyncSocket
from tests.trust.breakage import Breakage
from tests.trust.conftest import Say
from tests.trust.crash.breakages import BREAKAGES
from tests.trust.crash.killed_server import KilledServer
from tests.trust.effort import EFFORT, Effort

_OWNERS = ("ada", "bob", "eve")
_CENTS = 10_000
_EAGER = ("tests.trust.crash.eager_server",)
_BROKEN = {breakage.name: breakage for breakage in BREAKAGES}


class Journal:
    """Keys that were acknowledged, on disk before anything else is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def note(self, key: str) -> None:
        self._file.write(key.encode() + b"\n")
        os.fsync(self._file.fileno())

    def read(self) -> list[str]:
        return self._path.read_text().split()

    def close(self) -> None:
        self._file.close()


def _is_transfer(key: str) -> bool:
    """Whether a writer's request of that key moves money, or writes an entry."""
    writer, _, number = key.partition(":")
    return writer != HttpWriter.name and int(number) % 3 == 2


def _cents(key: str) -> int:
    """What a transfer moves: sums of different transfers differ, and stay exact in a float."""
    return random.Random(key).randrange(1, 1 << 36)


def _wrongly_moved(moved: int, told: Iterable[str], in_doubt: Iterable[str]) -> str | None:
    """Whether something else took effect than the transfers of `told` once each, and of those
    of `in_doubt` any, once each at most."""
    told, possible = list(told), {0}
    for key in in_doubt:
        possible |= {cents + _cents(key) for cents in possible}
    beyond = moved - sum(map(_cents, told))
    if beyond in possible:
        return None
    for key in told:
        if beyond + _cents(key) in possible:
            return f"acknowledged and gone: transfer {key}"
        if beyond - _cents(key) in possible:
            return f"took effect more than once: transfer {key}"
    return f"{len(told)} transfers were acknowledged, {beyond} cents beyond theirs have moved"


class Writer:
    """A session that outlives servers: it repeats a request under its number until answered."""

    def __init__(self, name: str, journal: Journal, seed: int) -> None:
        self.name = name
        self.session: str | None = None
        self.request = 0
        self.in_doubt = 0  # requests that had to be asked again
        self._journal = journal
        self._rng = random.Random(f"{seed} {name}")

    async def write_until_cut(self, url: str) -> None:
        try:
            async with SyncSocket(url, session=self.session) as socket:
                self.session = socket.session
                while True:
                    await self._write(socket)
        except (OSError, WebSocketException):
            self.in_doubt += 1

    async def _write(self, socket: SyncSocket) -> None:
        key = f"{self.name}:{self.request}"
        if _is_transfer(key):
            giver, taker = self._rng.choice(_OWNERS), self._rng.choice(_OWNERS)
            await socket.mutation(
                "accounts:transfer",
                request=self.request,
                giver=giver,
                taker=taker,
                cents=float(_cents(key)),
            )
        else:
            answer = await socket.mutation(
                "ledger:record",
                request=self.request,
                key=key,
                writer=self.name,
                rank=float(self.request % 17),
            )
            assert answer == key, "answered with another request's result"
        self._journal.note(key)
        self.request += 1


class HttpWriter:
    """Without a session: what is not answered is not asked again, so it is there once or not."""

    name = "http"

    def __init__(self, journal: Journal) -> None:
        self.asked = 0
        self._journal = journal

    async def write_until_cut(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            while True:
                key = f"http:{self.asked}"
                self.asked += 1
                args = {"key": key, "writer": "http", "rank": 1.0}
                body = {"path": "ledger:record", "args": args, "format": "json"}
                try:
                    response = await client.post("/api/mutation", json=body)
                except httpx.HTTPError:
                    return
                answer = response.json()
                assert (answer["status"], answer.get("value")) == ("success", key), answer
                self._journal.note(key)


class Watcher:
    """A live query that resumes: what it has shown must not be gone after a restart."""

    def __init__(self) -> None:
        self.shown: dict[str, float] = {}
        self.transitions = 0

    async def watch_until_cut(self, url: str) -> None:
        try:
            async with SyncSocket(url) as socket:
                tallies, total = await socket.subscribe(
                    ("ledger:tallies", {}), ("accounts:total", {})
                )
                before = dict(self.shown)
                while True:
                    results = (await socket.next_transition(seconds=0.05))["results"]
                    if tallies in results:
                        self.shown = results[tallies]
                        lost = {name for name in before if self.shown.get(name, 0) < before[name]}
                        assert not lost, f"shown {before}, after the restart {self.shown}"
                        self.transitions += 1
                    if total in results:
                        assert results[total] == len(_OWNERS) * 2 * _CENTS
        except TimeoutError:
            # Nothing to tell: look whether the connection is still there by asking anew.
            return await self.watch_until_cut(url)
        except (OSError, WebSocketException):
            return None


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., KilledServer]]:
    servers: list[KilledServer] = []

    def start(*module: str) -> KilledServer:
        server = KilledServer(tmp_path, module=module or _EAGER)
        servers.append(server)
        server.begin()
        server.wait_ready()
        return server

    yield start
    for server in servers:
        server.end()


async def _ask(url: str, path: str, **args: Any) -> Any:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        body = {"path": path, "args": args, "format": "json"}
        kind = "mutation" if path == "accounts:openAccount" else "query"
        response = (await client.post(f"/api/{kind}", json=body)).json()
        assert response["status"] == "success", response
        return response["value"]


async def _problems(url: str, journal: Journal, writers: list[Writer], asked: int) -> list[str]:
    """What the data say beside what the clients were told."""
    by_table, by_key = [
        [entry.split("/")[0] for entry in await _ask(url, "ledger:survey", way=way)]
        for way in ("table", "by_key")
    ]
    problems = []
    if sorted(by_table) != by_key:
        problems.append("the table and its index disagree")
    noted = journal.read()
    held, told = Counter(by_table), {key for key in noted if not _is_transfer(key)}
    if lost := sorted(told - held.keys()):
        problems.append(f"acknowledged and gone: {lost[:5]}, {len(lost)} in all")
    if twice := [key for key, times in held.items() if times > 1]:
        problems.append(f"took effect more than once: {twice[:5]}")
    possible = {f"{writer.name}:{writer.request}" for writer in writers}
    possible |= {f"http:{number}" for number in range(asked)}
    if strange := sorted(held.keys() - told - possible):
        problems.append(f"nobody asked for {strange[:5]}")
    tallies = await _ask(url, "ledger:tallies")
    if any(
        tallies.get(name, 0) != sum(key.startswith(f"{name}:") for key in by_table)
        for name in {key.split(":")[0] for key in by_table}
    ):
        problems.append("half of a mutation is there: tallies and entries disagree")
    left = await _ask(url, "accounts:checkingTotal")
    transfers = filter(_is_transfer, noted)
    unanswered = filter(_is_transfer, (f"{writer.name}:{writer.request}" for writer in writers))
    if wrong := _wrongly_moved(len(_OWNERS) * _CENTS - int(left), transfers, unanswered):
        problems.append(wrong)
    if await _ask(url, "accounts:total") != len(_OWNERS) * 2 * _CENTS:
        problems.append("money has appeared or vanished")
    return problems


def _start_again(server: KilledServer, rng: random.Random) -> int:
    """Start after a kill; now and then kill it again on the way up. Returns how often."""
    killed = 0
    while rng.random() < 0.5 and killed < 3:
        server.begin()
        if rng.random() < 0.8:
            server.wait_locked()  # recovery is what follows
        else:
            time.sleep(rng.uniform(0, 0.2))
        time.sleep(rng.uniform(0, 0.03))
        server.kill()
        killed += 1
    server.begin()
    server.wait_ready()
    return killed


async def _kill_often(
    server: KilledServer, journal: Journal, kills: int, seed: int, *, writers_count: int = 4
) -> tuple[list[str], dict[str, int]]:
    """The first problems found, and figures."""
    rng = random.Random(seed)
    for owner in _OWNERS:
        await _ask(server.url, "accounts:openAccount", owner=owner, cents=_CENTS)
    writers = [Writer(f"w{number}", journal, seed) for number in range(writers_count)]
    over_http, watcher = HttpWriter(journal), Watcher()
    done = starts_killed = 0
    problems: list[str] = []
    while done < kills and not problems:
        work = [
            *(writer.write_until_cut(server.url) for writer in writers),
            over_http.write_until_cut(server.url),
            watcher.watch_until_cut(server.url),
        ]
        tasks = [asyncio.create_task(each) for each in work]
        await asyncio.sleep(rng.uniform(0.05, 0.35))
        server.kill()
        await asyncio.gather(*tasks)
        again = await asyncio.to_thread(_start_again, server, rng)
        done, starts_killed = done + 1 + again, starts_killed + again
        problems = await _problems(server.url, journal, writers, over_http.asked)
    noted = journal.read()
    figures = {
        "kills": done,
        "starts_killed": starts_killed,
        "transactions": len(noted),
        "transfers": sum(map(_is_transfer, noted)),
        "asked_again": sum(writer.in_doubt for writer in writers),
        "transitions": watcher.transitions,
    }
    return problems, figures


def test_what_was_moved_in_all_tells_a_lost_and_a_doubled_transfer() -> None:
    told, in_doubt = [f"w{n % 4}:{3 * n + 2}" for n in range(500)], ["w0:2000", "w1:2003"]
    sums = sum(map(_cents, told))
    for more in (0, _cents("w0:2000"), _cents("w0:2000") + _cents("w1:2003")):
        assert _wrongly_moved(sums + more, told, in_doubt) is None
        for key in (told[0], told[-1]):
            lost = _wrongly_moved(sums + more - _cents(key), told, in_doubt)
            twice = _wrongly_moved(sums + more + _cents(key), told, in_doubt)
            assert lost == f"acknowledged and gone: transfer {key}"
            assert twice == f"took effect more than once: transfer {key}"
    assert _wrongly_moved(sums + 2 * _cents("w0:2000"), told, in_doubt) is not None
    assert _wrongly_moved(sums + 1, told, in_doubt) is not None


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    kept = Journal(tmp_path / "journal")
    yield kept
    kept.close()


@pytest.mark.e2e
@pytest.mark.slow
async def test_a_server_killed_at_any_moment_keeps_what_it_acknowledged_once(
    serve: Callable[..., KilledServer], journal: Journal, effort: Effort, evidence: Say
) -> None:
    server = serve()
    kills = effort.pick(8, 150)
    problems, figures = await _kill_often(server, journal, kills, effort.seed)
    assert not problems, f"seed {effort.seed}, {figures}: {problems}\n{server.said()}"
    assert figures["transactions"] > 10 * kills, "hardly any load"
    assert figures["transfers"] > kills, "hardly any transfer"
    assert figures["starts_killed"] > 0
    evidence("durable", histories=1, **figures)


# The second takes many kills to show; test_power_loss.py finds it at once.
@pytest.mark.e2e
@pytest.mark.parametrize(
    "name", EFFORT.pick(["log-row-late"], ["log-row-late", "record-forgotten"])
)
async def test_a_broken_server_is_caught_when_it_is_killed(
    serve: Callable[..., KilledServer], journal: Journal, evidence: Say, name: str
) -> None:
    breakage: Breakage = _BROKEN[name]
    server = serve("tests.trust.broken_server", f"tests.trust.crash.breakages:{name}")
    figures: dict[str, int] = {}
    try:
        problems, figures = await _kill_often(server, journal, 40, 1, writers_count=16)
    except AssertionError as seen:  # a client noticed by itself
        problems = [str(seen)]
    assert problems, f"not found after {figures}: {breakage.text}"
    evidence(breakage.promise, breakage=breakage, found=1, **figures)
