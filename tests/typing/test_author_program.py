"""The public names as type checkers see them: a program to accept, and one to refuse line by line.

Both are read by mypy and by pyright, and neither is ever executed by the checkers.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ACCEPTED, REJECTED = HERE / "accepted.py", HERE / "rejected.py"


def mypy_errors(file: Path) -> dict[int, str]:
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty",
         "--show-absolute-path", "--config-file=", str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    pattern = re.compile(rf"^{re.escape(str(file))}:(\d+): error: (.*)$", re.MULTILINE)
    return {int(line): text for line, text in pattern.findall(run.stdout)}


def pyright_errors(file: Path) -> dict[int, str]:
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable,
         str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return {
        found["range"]["start"]["line"] + 1: found["message"]
        for found in json.loads(run.stdout)["generalDiagnostics"]
        if found["severity"] == "error"
    }


CHECKERS = [pytest.param(mypy_errors, id="mypy"), pytest.param(pyright_errors, id="pyright")]


@pytest.mark.parametrize("errors", CHECKERS)
def test_an_authors_program_is_accepted(errors: Callable[[Path], dict[int, str]]):
    assert errors(ACCEPTED) == {}


@pytest.mark.parametrize("errors", CHECKERS)
def test_each_mistake_is_found_where_it_is_made(errors: Callable[[Path], dict[int, str]]):
    lines = REJECTED.read_text(encoding="utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert set(errors(REJECTED)) == marked


def test_the_accepted_program_also_runs():
    assert "schema" in runpy.run_path(str(ACCEPTED))
