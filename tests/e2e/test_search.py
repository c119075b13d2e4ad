"""Text search as clients reach it: a search box in Chromium, npm's and PyPI's, after a kill -9."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from convex import ConvexClient
from convex.http_client import ConvexHttpClient

from tests.e2e.client_script import node_script, run_node_tests
from tests.e2e.server_process import APPS, ServerProcess


@pytest.fixture
def search_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(APPS / "search", tmp_path / "data", options=("--no-redact",)) as running:
        yield running


async def test_a_search_box_is_live_while_somebody_types(
    search_server: ServerProcess, browser: str
):
    async with node_script("search.mjs", browser, search_server.url) as script:
        await script.expect("done", seconds=60)
    assert [each for each in script.seen if each["event"].endswith("-error")] == []


def test_npm_clients_search(search_server: ServerProcess):
    run_node_tests("search.test.mjs", search_server.url)


def test_python_clients_search(search_server: ServerProcess):
    socket, http = ConvexClient(search_server.url), ConvexHttpClient(search_server.url)
    (first, _) = socket.mutation("notes:add", {"folder": "a", "texts": ["green tea", "tea"]})
    for client in (socket, http):
        assert client.query("notes:find", {"text": "te"}) == ["tea", "green tea"]
    watched = socket.subscribe("notes:find", {"text": "green"})
    assert next(watched) == ["green tea"]
    http.mutation("notes:edit", {"id": first, "text": "greener tea"})
    assert next(watched) == ["greener tea"]
    watched.unsubscribe()


def test_the_index_is_whole_after_a_kill(search_server: ServerProcess):
    chance = random.Random(4)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(chance.choices(words, k=chance.randint(1, 9))) for _ in range(400)]
    http = ConvexHttpClient(search_server.url)
    made = http.mutation("notes:add", {"folder": "a", "texts": texts})
    for each in made[:60]:
        http.mutation("notes:remove", {"id": each})
    for each in made[60:90]:
        http.mutation("notes:edit", {"id": each, "text": "w1 w2 edited"})
    questions = [{"text": text} for text in ("w1 w2", "w3", "w", "edi", "w29 w28 w1")]
    before = [http.query("notes:find", question) for question in questions]
    assert before[3] == ["w1 w2 edited"] * 10
    search_server.kill()
    search_server.start()
    assert [http.query("notes:find", question) for question in questions] == before
