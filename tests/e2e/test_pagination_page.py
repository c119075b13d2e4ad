"""The official `usePaginatedQuery` in headless Chromium, while others insert and delete.

The server redacts errors as in production: that a list begins anew after an invalid cursor rests on
the error's data alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client_script import node_script
from tests.e2e.cuttable_proxy import CuttableProxy
from tests.e2e.server_process import APPS, ServerProcess


@pytest.fixture
def pages_server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(APPS / "pages", tmp_path / "data") as running:
        yield running


async def test_pages_are_gapless_while_others_write(pages_server: ServerProcess, browser: str):
    with CuttableProxy(pages_server.port) as proxy:
        async with node_script("pages.mjs", browser, pages_server.url, proxy.url) as script:
            await script.expect("cut", seconds=60)
            proxy.cut(refuse=True)
            script.send("go on")
            await script.expect("flow", seconds=30)
            proxy.flow()
            script.send("go on")
            done = await script.expect("done", seconds=60)
        problems = [each for each in script.seen if each["event"] == "page-error"]
    assert problems == []
    assert done["renders"] > 10
    assert done["splits"] >= 2
