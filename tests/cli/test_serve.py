"""`serve`: one line when it is ready, a graceful end, and refusals that say what to do."""

from __future__ import annotations

import json
import signal
import urllib.request

import pytest


def serve(start, project, *options: str):
    return start("serve", "--app", project, "--port", "0", "--site-port", "0", *options)


def post(url: str, path: str, arguments: dict) -> dict:
    body = json.dumps({"path": path, "args": arguments, "format": "json"}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_its_url_in_one_line_and_ends_on_a_signal(start, project, number):
    running = serve(start, project)
    with urllib.request.urlopen(f"{running.url}/version", timeout=10) as response:
        assert response.status == 200
    assert running.out == f"Serving {running.url}\n"
    assert running.stop(number) == 0
    assert running.out.count("\n") == 1
    assert "Traceback" not in running.err


def test_what_was_acknowledged_is_there_after_a_restart(start, project, program):
    running = serve(start, project, "--durability", "normal")
    message = {"author": "Ann", "body": "Hello"}
    answer = post(f"{running.url}/api/mutation", "messages:send", message)
    assert answer["status"] == "success"
    assert running.stop() == 0
    again = serve(start, project)
    listed = post(f"{again.url}/api/query", "messages:list", {})["value"]
    assert [one["body"] for one in listed] == ["Hello"]


@pytest.mark.parametrize(("option", "is_shown"), [("--redact", False), ("--no-redact", True)])
def test_error_texts_are_hidden_from_clients_and_stand_in_the_log(start, project, option, is_shown):
    running = serve(start, project, option)
    answer = post(f"{running.url}/api/mutation", "messages:send", {"author": "A", "body": ""})
    assert ("empty_message" in answer["errorMessage"]) is is_shown
    assert answer["errorData"] == {"code": "empty_message"}
    running.wait_for(lambda: "messages:send failed: Uncaught ConvexError" in running.err)


def refused(start, project, *options: str) -> str:
    ended = serve(start, project, *options)
    assert ended.process.wait(timeout=15) == 1
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    return ended.err


def test_a_port_in_use_is_said(start, project, tmp_path):
    port = serve(start, project).url.rpartition(":")[2]
    text = refused(start, project, "--data", str(tmp_path / "other"), "--port", port)
    assert f"port {port} is in use" in text
    assert "--port" in text


def test_a_data_folder_in_use_names_who_uses_it(start, project):
    first = serve(start, project)
    url = first.url
    text = refused(start, project)
    assert str(first.process.pid) in text
    assert url in text


def test_stored_documents_that_do_not_fit_are_named(start, project, program):
    program("run", "messages:send", '{"author": "Ann", "body": "Hello"}', "--app", project)
    schema = project / "schema.py"
    schema.write_text(schema.read_text().replace('"body": v.string()', '"body": v.number()'))
    text = refused(start, project)
    assert "does not match the schema" in text
    assert '"messages"' in text
    assert ".body" in text


@pytest.mark.parametrize(
    ("source", "place", "what"),
    [
        ("x = (", "broken.py:1", "SyntaxError"),
        ("\nimport nowhere_to_be_found", "broken.py:2", "ModuleNotFoundError"),
        ("\n\n1 / 0", "broken.py:3", "ZeroDivisionError"),
    ],
)
def test_code_that_cannot_be_loaded_is_named_with_file_and_line(
    start, project, source, place, what
):
    (project / "functions" / "broken.py").write_text(source)
    text = refused(start, project)
    assert place in text
    assert what in text
    assert len(text.splitlines()) == 1


def test_a_setting_that_cannot_be_is_named(start, project):
    assert "'port' from the command line" in refused(start, project, "--port", "70000")
