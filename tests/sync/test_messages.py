"""Messages are values: a close reason fits its frame, and only some clients take pieces."""

from __future__ import annotations

import pytest

from reactive_store.sync.messages import ClientVersion, Close, Version


@pytest.mark.parametrize("reason", ["", "x" * 123, "é" * 61])
def test_a_short_close_reason_stays_as_it_is(reason: str):
    assert Close(1013, reason).reason == reason


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "日" * 100])
def test_a_long_close_reason_is_cut_between_characters(reason: str):
    cut = Close(1013, reason).reason
    assert reason.startswith(cut)
    assert 120 <= len(cut.encode()) <= 123


@pytest.mark.parametrize(
    ("client", "takes_chunks"),
    [
        (ClientVersion("npm", (1, 48, 0)), True),
        (ClientVersion("npm", (1, 28, 0)), True),
        (ClientVersion("npm", (2, 0, 0)), True),
        (ClientVersion("npm", (1, 27, 9)), False),
        (ClientVersion("npm", None), False),
        (ClientVersion("python", (9, 0, 0)), False),
        (ClientVersion("rust", (1, 48, 0)), False),
        (ClientVersion(), False),
    ],
)
def test_only_recent_npm_clients_take_pieces(client: ClientVersion, takes_chunks: bool):
    assert client.takes_chunks is takes_chunks


def test_versions_compare_by_query_set_then_identity_then_time():
    assert Version(0, 9, 9) < Version(1, 0, 0) < Version(1, 0, 1) < Version(1, 1, 0)
