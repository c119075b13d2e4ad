"""Vector search as clients reach it: by npm's and PyPI's clients, after a kill -9 too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from convex import ConvexClient
from convex.http_client import ConvexHttpClient

from tests.e2e.client_script import run_node_tests
from tests.e2e.server_process import APPS, ServerProcess


@pytest.fixture
def vectors_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(APPS / "vectors", tmp_path / "data", options=("--no-redact",)) as running:
        yield running


def test_npm_clients_search_vectors(vectors_server: ServerProcess):
    run_node_tests("vectors.test.mjs", vectors_server.url)


def names(found: Any) -> list[str]:
    return [food["name"] for food in found]


def test_python_clients_search_vectors(vectors_server: ServerProcess):
    socket, http = ConvexClient(vectors_server.url), ConvexHttpClient(vectors_server.url)
    foods = [
        {"name": "a", "cuisine": "x", "embedding": [1.0, 0.0, 0.0]},
        {"name": "b", "cuisine": "y", "embedding": [1.0, 1.0, 0.0]},
    ]
    (first, _) = socket.mutation("foods:add", {"foods": foods})
    for client in (socket, http):
        found = client.action("foods:similar", {"vector": [1.0, 0.2, 0.0]})
        assert names(found) == ["a", "b"]
        found = client.action("foods:similar", {"vector": [1.0, 0.0, 0.0], "cuisines": ["y"]})
        assert found == [{"name": "b", "score": pytest.approx(0.5**0.5)}]
    with pytest.raises(Exception, match=r"Expected a vector with dimensions 3, received 1\."):
        http.action("foods:similar", {"vector": [1.0]})
    socket.mutation("foods:remove", {"id": first})
    assert names(socket.action("foods:similar", {"vector": [1.0, 0.0, 0.0]})) == ["b"]


def test_the_index_is_whole_after_a_kill(vectors_server: ServerProcess):
    chance = random.Random(4)
    foods = [
        {"name": f"n{n}", "cuisine": "x", "embedding": [chance.gauss(0, 1) for _ in range(3)]}
        for n in range(300)
    ]
    http = ConvexHttpClient(vectors_server.url)
    made = http.mutation("foods:add", {"foods": foods})
    for each in made[:50]:
        http.mutation("foods:remove", {"id": each})
    question = {"vector": [0.3, 0.4, 0.5], "limit": 256}
    before = http.action("foods:similar", question)
    assert set(names(before)) == {f"n{n}" for n in range(50, 300)}
    vectors_server.kill()
    vectors_server.start()
    assert http.action("foods:similar", question) == before
