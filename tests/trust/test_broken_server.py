"""The program with a breakage applied is the program, except where it is broken."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.server_process import APPS
from tests.trust import broken_engine
from tests.trust.broken_server import find_breakage, main

ROOT = Path(__file__).resolve().parents[2]
PLACE = "tests.trust.broken_functions:key-of-another-instance"


@contextmanager
def server(data: Path, *program: str) -> Iterator[str]:
    """A server process started by `python -m PROGRAM serve`; yields its URL."""
    command = [
        sys.executable, "-m", *program, "serve", "--app", str(APPS / "basic"),
        "--data", str(data), "--port", "0", "--site-port", "0",
    ]  # fmt: skip
    said = data.with_suffix(".stdout")
    with said.open("wb") as out, data.with_suffix(".stderr").open("wb") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
    try:
        for _ in range(1000):
            line = next((word for word in said.read_text().split() if "http://" in word), None)
            if line is not None:
                break
            assert process.poll() is None, data.with_suffix(".stderr").read_text()
            time.sleep(0.02)
        assert line is not None
        yield line
    finally:
        process.terminate()
        process.wait(timeout=20)


def status_for_a_made_up_key(url: str) -> int:
    request = urllib.request.Request(
        f"{url}/api/check_admin_key", headers={"Authorization": "Convex reactive-store|00"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.e2e
def test_a_server_is_broken_where_it_was_told_and_nowhere_else(tmp_path: Path) -> None:
    with server(tmp_path / "whole", "reactive_store") as url:
        assert status_for_a_made_up_key(url) == 403
    with server(tmp_path / "broken", "tests.trust.broken_server", PLACE) as url:
        assert status_for_a_made_up_key(url) == 200
        with urllib.request.urlopen(f"{url}/version", timeout=10) as response:
            assert response.status == 200
    assert "broken on purpose: an admin key" in (tmp_path / "broken.stderr").read_text()


def test_a_breakage_is_found_by_module_and_name() -> None:
    assert find_breakage(PLACE).name == "key-of-another-instance"
    assert all(
        find_breakage(f"tests.trust.broken_engine:{breakage.name}") is breakage
        for breakage in broken_engine.BREAKAGES
    )
    with pytest.raises(ValueError, match="is called 'none'; there are the-past-from-memory, "):
        find_breakage("tests.trust.broken_engine:none")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: "),
        (["tests.trust.broken_engine"], "is not MODULE:NAME"),
        (["tests.trust.no_such_module:x", "serve"], "No module named"),
        (["tests.trust.broken_engine:none", "serve"], "no breakage of"),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_started(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
