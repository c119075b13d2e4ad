"""`data`: tables and documents of a running or stopped deployment."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(params=["stopped", "running"])
def filled(request, project, program):
    """A deployment with three messages, "0" the oldest."""
    if request.param == "running":
        request.getfixturevalue("server")
    for number in range(3):
        arguments = json.dumps({"author": "Ann", "body": str(number)})
        assert program("run", "messages:send", arguments, "--app", project).code == 0
    return project


def bodies(text: str) -> list[str]:
    return [document["body"] for document in json.loads(text)]


def test_tables_and_documents_are_listed(filled, program):
    assert program("data", "--app", filled).out == "messages\n"
    assert json.loads(program("data", "--app", filled, "--json").out) == [{"name": "messages"}]
    newest_first = program("data", "messages", "--app", filled, "--json").out
    assert bodies(newest_first) == ["2", "1", "0"]
    some = program("data", "messages", "--app", filled, "--json", "--order", "asc", "--limit", 2)
    assert bodies(some.out) == ["0", "1"]
    lines = program("data", "messages", "--app", filled).out.strip().splitlines()
    assert lines[0].split() == ["_id", "_creationTime", "author", "body", "channel"]
    assert len(lines) == 2 + 3


def test_a_table_that_does_not_exist_brings_up_those_there_are(filled, program):
    result = program("data", "mesages", "--app", filled)
    assert result.code == 1
    assert "Tables: messages" in result.err


def test_an_empty_table_is_said(project, program):
    result = program("data", "messages", "--app", project)
    assert (result.code, result.out) == (0, "")
    assert "no documents" in result.err
    assert program("data", "messages", "--app", project, "--json").out == "[]\n"


def test_more_documents_than_fit_one_page_are_fetched_in_several(project, program, monkeypatch):
    for number in range(7):
        arguments = json.dumps({"author": "Ann", "body": str(number)})
        program("run", "messages:send", arguments, "--app", project)
    monkeypatch.setattr("reactive_store.cli.data._PAGE", 3)
    result = program("data", "messages", "--app", project, "--json", "--limit", 7)
    assert bodies(result.out) == list("6543210")


def test_tables_of_the_product_stay_hidden(project, program):
    result = program("data", "_tables", "--app", project)
    assert result.code == 1
    assert "_tables" in result.err
    assert program("data", "_storage", "--app", project, "--json").out == "[]\n"


def test_long_values_are_shortened_for_people_only(project, program):
    arguments = json.dumps({"author": "Ann", "body": "x" * 500})
    program("run", "messages:send", arguments, "--app", project)
    assert "x" * 61 not in program("data", "messages", "--app", project).out
    assert "x" * 500 in program("data", "messages", "--app", project, "--json").out
