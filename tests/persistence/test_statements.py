"""Named SQL: loading, and one statement for many rows."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from reactive_store.persistence import statements
from reactive_store.persistence.statements import RowStatement, load_statements

_FILE = Path(statements.__file__).parent / "queries" / "sqlite.sql"


def test_every_statement_is_described_by_a_comment():
    lines = _FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("-- name: "):
            assert re.match(r"-- [A-Z]", lines[number + 1]), line


def test_every_statement_is_used():
    sources = "".join(path.read_text() for path in _FILE.parent.parent.glob("*.py"))
    for name in load_statements("sqlite"):
        stem = re.sub(r"_(a|de)scending(_unbounded)?$", "", name)
        assert re.search(rf"""["']({name}|{stem})["']""", sources), name


def test_names_stand_for_their_text_without_comments():
    loaded = load_statements("sqlite")
    assert loaded["read_clock"] == "SELECT last_ts, next_doc FROM clock;"
    assert not any("--" in text for text in loaded.values())


@pytest.fixture
def connection():
    opened = sqlite3.connect(":memory:")
    opened.execute("CREATE TABLE pairs (a INTEGER, b INTEGER)")
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 127, 128, 129, 400])
def test_a_row_statement_takes_any_number_of_rows_in_order(connection, count):
    rows = [(n, -n) for n in range(count)]
    insert = RowStatement("INSERT INTO pairs VALUES (?, ?)")
    assert insert.execute(connection, rows) == count
    assert connection.execute("SELECT a, b FROM pairs ORDER BY rowid").fetchall() == rows
    find = RowStatement("WITH wanted (a) AS (VALUES (?)) SELECT b FROM wanted JOIN pairs USING (a)")
    found = find.fetch(connection, [(a,) for a, _ in rows])
    assert sorted(found, reverse=True) == [(b,) for _, b in rows]


def test_many_rows_cost_few_statements(connection):
    ran = []
    connection.set_trace_callback(ran.append)
    RowStatement("INSERT INTO pairs VALUES (?, ?)").execute(connection, [(1, 1)] * 300)
    assert len([text for text in ran if text.startswith("INSERT")]) == 5
