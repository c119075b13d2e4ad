"""`keys admin`: the key and nothing else, the same whether or not a server runs."""

from __future__ import annotations

import re

from tests.e2e.server_process import ServerProcess


def test_the_key_is_all_that_is_printed(project, program):
    result = program("keys", "admin", "--app", project)
    assert result.code == 0
    assert re.fullmatch(r"reactive-store\|[0-9a-f]+\n", result.out)
    assert program("keys", "admin", "--app", project).out == result.out


def test_the_key_opens_the_running_deployment(server: ServerProcess, project, program):
    key = program("keys", "admin", "--app", project).out.strip()
    assert program("data", "--url", server.url, "--admin-key", key).code == 0
    server.stop()
    assert program("keys", "admin", "--app", project).out.strip() == key


def test_a_key_of_another_deployment_is_refused(server: ServerProcess, project, program, tmp_path):
    key = program("keys", "admin", "--app", project, "--data", tmp_path / "other").out.strip()
    result = program("data", "--url", server.url, "--admin-key", key)
    assert result.code == 1
    assert "deploy key was invalid" in result.err
