"""A request is found when its record was accepted, and new ones cost the store nothing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from reactive_store.engine.catalog import SESSION_REQUESTS
from reactive_store.engine.database import Database
from reactive_store.errors import Conflict
from reactive_store.functions.session_requests import SessionRequest, SessionRequests
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Row, TableNumber, Timestamp
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.runtime import SystemRuntime
from reactive_store.values.document import Document


class CountedReads(MemoryPersistence):
    """Counts what is asked of the store."""

    reads = 0

    def get(self, table: TableNumber, id: bytes, at: Timestamp) -> Row | None:
        self.reads += 1
        return super().get(table, id, at)

    def scan_table(self, *args, **options):
        self.reads += 1
        return super().scan_table(*args, **options)


@pytest.fixture
async def store() -> AsyncIterator[tuple[Database, CountedReads]]:
    persistence = CountedReads()
    database = await Database.open(persistence, runtime=SystemRuntime(), limits=Limits())
    yield database, persistence
    await database.close()


async def once(database: Database, requests: SessionRequests, request: SessionRequest) -> str:
    """What the request came to: run now, or as its record says."""
    transaction = database.begin_mutation()
    row = requests.find(transaction, request)
    if row is not None:
        return str(Document(row.value, SESSION_REQUESTS)["result"])
    requests.record(transaction, request, f"run {request.request_id}", ())
    await database.commit(transaction)
    requests.note_accepted(request)
    return f"ran {request.request_id}"


async def test_requests_in_order_ask_the_store_once(store):
    database, persistence = store
    requests = SessionRequests(10)
    for number in range(3):
        assert await once(database, requests, SessionRequest("s", number)) == f"ran {number}"
        if number == 0:
            before = persistence.reads
    assert persistence.reads == before


@pytest.mark.parametrize("most_sessions", [1, 2, 100])
@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_requests_runs_each_once(store, most_sessions, seed):
    database, _ = store
    chance = random.Random(seed)
    requests = SessionRequests(most_sessions)
    done: set[tuple[str, int]] = set()
    for _ in range(60):
        if chance.random() < 0.05:
            requests = SessionRequests(most_sessions)  # the process was started again
        session, number = chance.choice("abc"), chance.randrange(12)
        said = await once(database, requests, SessionRequest(session, number))
        assert said == (f"run {number}" if (session, number) in done else f"ran {number}")
        done.add((session, number))


async def test_the_largest_request_numbers_are_found(store):
    database, _ = store
    for number in (2**32 - 1, 2**32 - 2):
        assert await once(database, SessionRequests(1), SessionRequest("s", number)) == (
            f"ran {number}"
        )
        assert await once(database, SessionRequests(1), SessionRequest("s", number)) == (
            f"run {number}"
        )


async def test_two_attempts_at_once_are_decided_when_they_commit(store):
    database, _ = store
    requests = SessionRequests(10)
    await once(database, requests, SessionRequest("s", 0))
    request = SessionRequest("s", 1)
    attempts = [database.begin_mutation() for _ in range(2)]
    for attempt in attempts:
        assert requests.find(attempt, request) is None
        requests.record(attempt, request, "run 1", ())
    await database.commit(attempts[0])
    requests.note_accepted(request)
    with pytest.raises(Conflict):
        await database.commit(attempts[1])
    assert await once(database, requests, request) == "run 1"


async def test_what_did_not_commit_is_new_again(store):
    database, _ = store
    requests = SessionRequests(10)
    transaction = database.begin_mutation()
    assert requests.find(transaction, SessionRequest("s", 5)) is None
    assert await once(database, requests, SessionRequest("s", 5)) == "ran 5"


async def test_sessions_do_not_see_each_other(store):
    database, _ = store
    requests = SessionRequests(10)
    for session in ("", "s", "s|1", "é"):
        assert await once(database, requests, SessionRequest(session, 1)) == "ran 1"
