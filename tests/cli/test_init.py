"""`init`: a project that serves at once, and nothing of the user's is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess


def test_the_project_works_as_it_is(project: Path, program):
    arguments = json.dumps({"author": "Ann", "body": "Hello"})
    assert program("run", "messages:send", arguments, "--app", project).code == 0
    (message,) = json.loads(program("run", "messages:list", "--app", project, "--json").out)
    assert (message["author"], message["body"], message["channel"]) == ("Ann", "Hello", "general")
    refused = program("run", "messages:send", '{"author": "Ann", "body": " "}', "--app", project)
    assert "empty_message" in refused.err


def test_the_project_serves_at_once(server: ServerProcess):
    assert server.url.startswith("http://127.0.0.1:")


def test_every_file_is_named_and_so_is_the_next_step(program, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = program("init", "app")
    written = [line.removeprefix("wrote ") for line in result.out.splitlines() if "wrote" in line]
    assert sorted(written) == [
        "app/.gitignore",
        "app/README.md",
        "app/functions/messages.py",
        "app/schema.py",
    ]
    assert all(Path(path).is_file() for path in written)
    assert "reactive-store dev --app app" in result.out


@pytest.mark.parametrize("name", ["schema.py", "functions/messages.py", "README.md"])
def test_nothing_is_overwritten_and_then_nothing_is_written(program, tmp_path: Path, name: str):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    result = program("init", tmp_path)
    assert result.code == 1
    assert name in result.err
    assert file.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_gitignore_keeps_its_lines_and_gets_those_it_lacks(program, tmp_path: Path):
    (tmp_path / ".gitignore").write_text("mine\n__pycache__")
    assert program("init", tmp_path).code == 0
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines == ["mine", "__pycache__", ".reactive_store/", ".env.local"]


def test_a_place_that_cannot_be_written_is_said(program, tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = program("init", tmp_path / "file")
    assert result.code == 1
    assert "cannot be written" in result.err
