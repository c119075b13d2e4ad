"""Promises under load and kill -9: exact counters, nothing acknowledged lost, no torn state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from tests.e2e.client_script import node_script
from tests.e2e.server_process import ServerProcess
from tests.e2e.sync_socket import SyncSocket, timestamp

KILLS = 50
WRITERS = 6
WAYS = ("table", "by_key", "by_writer", "by_rank")


@pytest.mark.slow
async def test_64_clients_increment_one_counter_and_no_step_is_lost(server: ServerProcess):
    clients, times = 64, 100
    arguments = (server.url, "stampede", str(clients), str(times))
    async with node_script("stampede.mjs", *arguments) as script:
        done = await script.expect("done", seconds=100)
    assert done["errors"] == []
    assert done["disconnects"] == []
    assert done["distinct"] == done["highest"] == clients * times
    assert done["goingBack"] == 0


async def test_no_subscriber_ever_sees_money_appear_or_vanish(server: ServerProcess):
    owners, transfers, subscribers = 8, 60, 4
    async with SyncSocket(server.url) as bank:
        for owner in range(owners):
            await bank.mutation("accounts:openAccount", owner=f"o{owner}", cents=10_000)
    expected = owners * 2 * 10_000
    sums: list[tuple[int, float]] = []
    finished = asyncio.Event()

    async def subscriber(number: int) -> int:
        told = 0
        async with SyncSocket(server.url) as socket:
            checking, savings, total = await socket.subscribe(
                ("accounts:checkingTotal", {}),
                ("accounts:savingsTotal", {}),
                ("accounts:total", {}),
            )
            while not (finished.is_set() and socket.transitions.empty()):
                try:
                    results = (await socket.next_transition(seconds=0.5))["results"]
                except TimeoutError:
                    continue
                told += 1
                sums.append((number, results[checking] + results[savings]))
                sums.append((number, results[total]))
        return told

    async def writer(number: int) -> None:
        chance = random.Random(number)
        async with SyncSocket(server.url) as socket:
            for _ in range(transfers):
                await socket.mutation(
                    "accounts:transfer",
                    giver=f"o{chance.randrange(owners)}",
                    taker=f"o{chance.randrange(owners)}",
                    cents=chance.randrange(-500, 500),
                )

    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(subscriber(number)) for number in range(subscribers)]
        await asyncio.sleep(0.2)
        await asyncio.gather(*(writer(number) for number in range(WRITERS)))
        finished.set()
    assert {cents for _, cents in sums} == {expected}
    assert all(task.result() > 10 for task in watching), "too few transitions to mean anything"


class Writer:
    """One session that outlives its server: it repeats a request until it is answered.

    The key of a request is its number, so the ledger tells what was applied and how often.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.session: str | None = None
        self.next_request = 0
        self.acknowledged: list[str] = []
        self.resent = 0

    async def write_until_cut(self, url: str) -> None:
        """Connect, send (again) what is unanswered, go on until the connection breaks."""
        try:
            async with SyncSocket(url, session=self.session) as socket:
                self.session = socket.session
                while True:
                    request = self.next_request
                    key = f"{self.name}:{request}"
                    result = await socket.mutation(
                        "ledger:record",
                        request=request,
                        key=key,
                        writer=self.name,
                        rank=float(request * 7919 % 101),
                    )
                    assert result == key, "answered with another request's result"
                    self.acknowledged.append(key)
                    self.next_request += 1
        except (OSError, WebSocketException):
            self.resent += 1  # the request under way is sent again next time


async def read(url: str, path: str, **arguments: Any) -> Any:
    async with SyncSocket(url) as socket:
        (query,) = await socket.subscribe((path, arguments))
        while query not in socket.results:
            await socket.next_transition()
        return socket.results[query]


async def check_everything(url: str, writers: list[Writer]) -> None:
    """Every acknowledged entry once, no entry nobody asked for, all ways of reading agree."""
    ways = {way: await read(url, "ledger:survey", way=way) for way in WAYS}
    entries = ways["table"]
    assert len(set(entries)) == len(entries), "an entry is there twice"
    for way, found in ways.items():
        assert sorted(found) == sorted(entries), f"{way} disagrees with the table"
    assert ways["by_key"] == sorted(entries, key=lambda entry: entry.split("/")[0])
    ranks = [float(entry.split("/")[2]) for entry in ways["by_rank"]]
    assert ranks == sorted(ranks)
    keys = [entry.split("/")[0] for entry in entries]
    assert len(set(keys)) == len(keys), "a request was applied twice"
    tallies = await read(url, "ledger:tallies")
    for writer in writers:
        own = {key for key in keys if key.startswith(f"{writer.name}:")}
        missing = set(writer.acknowledged) - own
        assert not missing, f"acknowledged and lost: {sorted(missing)[:5]}"
        in_doubt = own - set(writer.acknowledged)
        assert in_doubt <= {f"{writer.name}:{writer.next_request}"}, "entries nobody asked for"
        assert tallies.get(writer.name, 0) == len(own), "two tables of one mutation disagree"


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_fifty_kills_lose_nothing_that_was_acknowledged(
    own_server: Callable[..., ServerProcess],
):
    server = own_server()
    writers = [Writer(f"w{number}") for number in range(WRITERS)]
    chance = random.Random(20_240_601)
    for kill in range(KILLS):
        before = [len(writer.acknowledged) for writer in writers]
        work = [asyncio.create_task(writer.write_until_cut(server.url)) for writer in writers]
        await asyncio.sleep(chance.uniform(0.03, 0.2))
        server.kill()
        await asyncio.gather(*work)
        await asyncio.to_thread(server.start)
        fresh = [
            key
            for writer, done in zip(writers, before, strict=True)
            for key in writer.acknowledged[done:]
        ]
        counts = await read(server.url, "ledger:timesWritten", keys=fresh[-500:])
        assert counts == [1] * len(counts), f"after kill {kill + 1}"
        if kill % 10 == 9:
            await check_everything(server.url, writers)
    assert sum(len(writer.acknowledged) for writer in writers) > KILLS, "hardly any load"
    assert sum(writer.resent for writer in writers) > KILLS


async def test_timestamps_never_go_back_over_restarts(own_server: Callable[..., ServerProcess]):
    """C71."""
    server = own_server()
    latest = 0
    for expected in range(1, 5):
        async with SyncSocket(server.url) as socket:
            (query,) = await socket.subscribe(("counters:value", {"name": "restarts"}))
            await socket.mutation("counters:increment", name="restarts")
            transition = await socket.next_transition()
            while transition["results"][query] != expected:
                transition = await socket.next_transition()
            end = timestamp(transition["endVersion"]["ts"])
            assert end > latest
            latest = end
        server.restart()


async def test_answer_of_a_repeated_request_is_the_first_answer(server: ServerProcess):
    async with SyncSocket(server.url) as first:
        assert await first.mutation("counters:increment", request=0, name="repeat") == 1
        session = first.session
    async with SyncSocket(server.url) as other:
        assert await other.mutation("counters:increment", name="repeat") == 2
    async with SyncSocket(server.url, session=session) as again:
        assert await again.mutation("counters:increment", request=0, name="repeat") == 1
        assert await again.mutation("counters:increment", request=1, name="repeat") == 3
