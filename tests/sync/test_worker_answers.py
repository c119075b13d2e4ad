"""What a worker says of mutations whose commits are still on their way to the disk, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reactive_store.errors import StoreFailed
from reactive_store.functions.outcome import Success
from reactive_store.functions.runner import Accepted
from reactive_store.persistence.contract import Timestamp
from reactive_store.sync.messages import Mutation, MutationResponse, Transition
from tests.sync import test_worker as plain
from tests.sync.test_worker import CONNECT, NO_ARGS, Bench, add, query_set, settled

Told = Callable[[StoreFailed | None], None]


class SlowDisk(plain.Store):
    """Accepts at once; a test says when a commit is durable."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Told] = []
        self.writes = True

    async def accept_mutation(self, path: str, *_: Any, **__: Any) -> Accepted:
        if path.endswith("slow") and self.gate is not None:
            await self.gate
        return Accepted(Success(b"null", (), Timestamp(101)), Timestamp(101))

    def when_durable(self, ts: int, told: Told) -> None:
        if self.writes:
            self.waiting.append(told)
        else:
            told(None)

    def publish(self, failure: StoreFailed | None = None) -> None:
        waiting, self.waiting = self.waiting, []
        for told in waiting:
            told(failure)
        if failure is None:
            self.commit()


async def test_nothing_is_said_before_the_commit_is_durable_then_both_leave_together():
    bench = Bench(store=SlowDisk())
    await bench.hear(CONNECT, query_set(0, add(0)))
    assert await bench.hear(Mutation(0, "m:x", NO_ARGS)) == []
    before = len(bench.line.together)
    bench.store.publish()
    await settled()
    heard = bench.line.take()
    assert [type(message) for message in heard] == [MutationResponse, Transition]
    assert bench.line.together[before:] == [2]


async def test_a_commit_that_fails_is_no_success():
    bench = Bench(store=SlowDisk())
    await bench.hear(CONNECT, query_set(0, add(0)), Mutation(0, "m:x", NO_ARGS))
    bench.store.publish(StoreFailed("the disk is full"))
    await settled()
    assert bench.line.take() == []
    assert bench.line.closed == (1011, "InternalServerError")


async def test_an_answer_does_not_wait_for_a_mutation_behind_it_nor_for_a_slow_query():
    bench = Bench(store=SlowDisk())
    bench.store.writes = False
    bench.store.gate = asyncio.get_running_loop().create_future()
    await bench.hear(CONNECT, query_set(0, add(0, "m:slow")))
    heard = await bench.hear(Mutation(0, "m:x", NO_ARGS), Mutation(1, "m:slow", NO_ARGS))
    assert [type(message) for message in heard] == [MutationResponse]
    bench.store.gate.set_result(None)
    await settled()
    assert MutationResponse in [type(message) for message in bench.line.take()]


async def test_a_closed_pump_begins_nothing():
    bench = Bench(store=SlowDisk())
    await bench.hear(CONNECT, query_set(0, add(0)), Mutation(0, "m:x", NO_ARGS))
    await bench.worker._pump.close()
    bench.store.publish()
    await settled()
    assert not bench.worker._pump._tasks


@pytest.mark.parametrize("commits", [1, 3])
async def test_commits_of_several_sockets_are_told_in_one_publication(commits: int):
    store = SlowDisk()
    pump = plain.Pump(plain.SystemRuntime())
    benches = [Bench(store=store, pump=pump) for _ in range(commits)]
    for bench in benches:
        assert await bench.hear(CONNECT, Mutation(0, "m:x", NO_ARGS)) == []
    assert len(store.waiting) == commits
    store.publish()
    await settled()
    for bench in benches:
        assert MutationResponse in [type(message) for message in bench.line.take()]
