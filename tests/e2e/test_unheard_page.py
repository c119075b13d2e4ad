"""The Unheard page in headless Chromium, on the server that `make demo` starts."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client_script import node_script
from tests.e2e.node import node_environment

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the page, served by the demo program on free ports and empty data."""
    folder = tmp_path_factory.mktemp("unheard")
    said = folder / "output"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "examples/unheard/demo.py", "--port", "0", "--data", folder / "data"],
            cwd=ROOT,
            env=node_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        give_up = time.monotonic() + 90
        while time.monotonic() < give_up and process.poll() is None:
            if match := re.search(r"http://[\w.]+:[1-9]\d*/unheard/\S*", said.read_text()):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"the demo did not start\n{said.read_text()}")
        yield match.group()
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.slow
async def test_results_stream_into_two_tabs(page: str, browser: str):
    ARTIFACTS.mkdir(exist_ok=True)
    async with node_script("unheard.mjs", browser, page, str(ARTIFACTS)) as script:
        done = await script.expect("done", seconds=110)
        problems = [e for e in script.seen if e["event"] in {"console-error", "page-error"}]
    first, second = done["first"], done["second"]
    assert problems == []
    assert first == second, "the tabs show different things"
    assert first["results"] >= 3
    assert first["progress"]["value"] == first["progress"]["max"] == first["results"]
    assert "complete" in first["status"].lower()
    assert done["steps"] >= 4, "the results came all at once"
    for picture in ("before", "streaming", "done", "second-tab"):
        assert (ARTIFACTS / f"unheard-{picture}.png").stat().st_size > 10_000
