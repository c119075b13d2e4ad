"""`dev`: saves are live, errors keep the old code, `.env.local` is kept, nobody else gets in."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

QUERY = """
from reactive_store import QueryCtx, query


@query
async def answer(ctx: QueryCtx) -> {type}:
    print("asked")
    return {value}
"""


def ask(url: str) -> object:
    body = json.dumps({"path": "notes:answer", "args": {}, "format": "json"}).encode()
    request = urllib.request.Request(f"{url}/api/query", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    return answer.get("value", answer.get("errorMessage"))


@pytest.fixture
def notes(project):
    """The file with the function the tests ask."""
    file = project / "functions" / "notes.py"
    file.write_text(QUERY.format(type="int", value=1))
    return file


@pytest.fixture
def running(start, project, notes):
    return start("dev", "--app", project, "--port", "0")


def save(file, source: str) -> None:
    file.write_text(source)


def is_live(url: str, value: object, *, seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while ask(url) != value:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def test_saves_are_live_within_a_second_and_logs_are_shown(running, notes):
    url = running.url
    assert ask(url) == 1
    for value in (2, 3):
        save(notes, QUERY.format(type="int", value=value))
        assert is_live(url, value, seconds=1.0)
    running.wait_for(lambda: "[notes:answer] [LOG] 'asked'" in running.out)
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("source", "text"),
    [("def (", "notes.py:1: SyntaxError"), ("\nimport nowhere_at_all", "notes.py:2: ModuleNot")],
)
def test_code_with_an_error_is_explained_and_the_old_goes_on(running, notes, source, text):
    url = running.url
    save(notes, source)
    running.wait_for(lambda: text in running.err)
    assert "The last good version goes on serving." in running.err
    assert ask(url) == 1
    save(notes, QUERY.format(type="int", value=2))
    assert is_live(url, 2, seconds=1.5)


def test_a_schema_that_stored_documents_do_not_fit_is_explained(running, project, program, notes):
    url = running.url
    program("run", "messages:send", '{"author": "Ann", "body": "Hello"}', "--app", project)
    schema = project / "schema.py"
    good = schema.read_text()
    save(schema, good.replace('"body": v.string()', '"body": v.number()'))
    running.wait_for(lambda: "does not match the schema" in running.err)
    assert ask(url) == 1
    save(schema, good)
    save(notes, QUERY.format(type="int", value=2))
    assert is_live(url, 2, seconds=2.0)


def test_new_modules_in_new_folders_are_found(running, project, program):
    url = running.url
    (project / "functions" / "deep").mkdir()
    (project / "functions" / "deep" / "er.py").write_text(QUERY.format(type="int", value=7))
    running.wait_for(lambda: "Reloaded 4 functions" in running.out)
    assert program("run", "deep/er:answer", "--app", project).out == "7\n"
    assert ask(url) == 1


def test_a_project_with_an_error_is_served_once_it_has_none(start, project, notes):
    save(notes, "def (")
    running = start("dev", "--app", project, "--port", "0")
    running.wait_for(lambda: "waiting for the next save" in running.err)
    save(notes, QUERY.format(type="int", value=5))
    assert ask(running.url) == 5


def test_address_and_key_are_kept_where_clients_look(running, project, program):
    (url,) = {running.url}
    key = program("keys", "admin", "--app", project).out.strip()
    running.wait_for(lambda: "Ctrl-C" in running.out)
    assert (project / ".env.local").read_text().splitlines() == [
        f"CONVEX_URL={url}",
        f"CONVEX_SELF_HOSTED_URL={url}",
        f"CONVEX_SELF_HOSTED_ADMIN_KEY={key}",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com"])
def test_only_this_machine_is_served(program, project, host):
    result = program("dev", "--app", project, "--host", host)
    assert result.code == 1
    assert "reactive-store serve --host" in result.err
