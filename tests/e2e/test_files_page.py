"""A React page with uploads in headless Chromium: the official client, another origin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client_script import node_script
from tests.e2e.server_process import APPS, ServerProcess


@pytest.fixture
def files_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(APPS / "files", tmp_path / "data", options=("--no-redact",)) as running:
        yield running


async def test_files_are_uploaded_shown_and_deleted_from_a_page(
    files_server: ServerProcess, browser: str
):
    async with node_script("files.mjs", browser, files_server.url) as script:
        done = await script.expect("done", seconds=60)
        problems = [each for each in script.seen if each["event"] == "page-error"]
        # A file that is gone is a 404, which Chromium writes to the console.
        complaints = [each["text"] for each in script.seen if each["event"] == "console-error"]
    assert problems == []
    assert [each for each in complaints if "404" not in each] == []
    assert done["widths"] == [1, 7]
    assert done["text"] == "read me"
    assert "ran" not in done["titles"], "a script of an uploaded file ran"
    assert done["origin"] == "null", "an uploaded page has the origin of the deployment"
    assert any("sandbox" in each for each in done["blocked"])
    assert done["shown"] == 1
    assert done["part"] == [206, "PNG"]
    assert done["after"] == 404
