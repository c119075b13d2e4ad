"""Shared options read alike everywhere."""

from __future__ import annotations

import pytest

TALKS = [["run", "x:y"], ["data"], ["env", "list"]]


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_what_serves_takes_the_same_options(program, command: str):
    text = program(command, "--help").out
    for option in ("--app", "--data", "--store", "--files", "--host", "--port", "--site-port"):
        assert f"  {option} " in text


@pytest.mark.parametrize("command", TALKS)
def test_what_talks_to_a_deployment_finds_it_by_the_same_options(program, command):
    text = program(*command, "--help").out
    for option in ("--app", "--data", "--url", "--admin-key", "--json"):
        assert f"  {option} " in text


@pytest.mark.parametrize("command", TALKS)
def test_a_url_needs_a_key_and_says_where_to_get_one(program, command):
    result = program(*command, "--url", "http://127.0.0.1:1")
    assert result.code == 1
    assert "keys admin" in result.err


@pytest.mark.parametrize("command", TALKS)
def test_a_deployment_out_of_reach_is_named(program, command):
    result = program(*command, "--url", "http://127.0.0.1:1", "--admin-key", "a|b")
    assert result.code == 1
    assert "http://127.0.0.1:1 cannot be reached" in result.err
