"""The program as a whole: help, version, exit codes, how failures read."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = ["init", "dev", "serve", "run", "data", "env", "keys"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reactive_store", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_module_is_the_program():
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert "\x1b" not in done.stdout


def test_help_does_not_load_what_only_some_commands_need():
    script = (
        "import sys; sys.argv = ['x', '--help']; from reactive_store.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('uvicorn', 'starlette', 'watchfiles', 'websockets', 'aiosqlite', "
        "'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself(program, name: str, option: str):
    result = program(name, option)
    assert result.code == 0
    assert "Usage:" in result.out


def test_version_names_program_and_version(program):
    result = program("--version")
    assert result.code == 0
    assert result.out.startswith("reactive-store ")


def test_a_wrong_word_is_wrong_usage_and_gets_a_hint(program):
    result = program("serv")
    assert result.code == 2
    assert "serve" in result.err


def test_a_failure_is_one_message_without_a_traceback(program, tmp_path):
    result = program("run", "messages:list", "--app", tmp_path)
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "is no app" in result.err
    assert "Traceback" not in result.err


def test_a_reader_that_has_had_enough_is_no_failure_with_a_traceback(project, program):
    for number in range(3):
        program("run", "messages:send", f'{{"author": "A", "body": "{number}"}}', "--app", project)
    command = f"{sys.executable} -m reactive_store data messages --app {project} | true"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
