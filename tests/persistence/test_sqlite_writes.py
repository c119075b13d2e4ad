"""What a batch of commits leaves in the tables, and how much work it is."""

from __future__ import annotations

import pytest

from reactive_store.limits import Limits
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)
from reactive_store.persistence.sqlite_format import connect_writer
from reactive_store.persistence.sqlite_writes import (
    begin_drop,
    drop_rows,
    read_clock,
    read_drops,
    trim_rows,
    write_commits,
)

TABLE, INDEX = TableNumber(1), IndexId(1)


@pytest.fixture
def connection(tmp_path):
    opened = connect_writer(tmp_path / "data.sqlite3", "NORMAL", Limits())
    yield opened
    opened.close()


def names(count):
    return [n.to_bytes(16, "big") for n in range(count)]


def inserts(ts, ids):
    return Commit(
        Timestamp(ts),
        tuple(DocumentWrite(TABLE, doc, b"v", True) for doc in ids),
        tuple(IndexWrite(INDEX, doc, TABLE, doc, True) for doc in ids),
    )


def deletes(ts, ids):
    return Commit(
        Timestamp(ts),
        tuple(DocumentWrite(TABLE, doc, None, False) for doc in ids),
        tuple(IndexWrite(INDEX, doc, TABLE, doc, False) for doc in ids),
    )


def counts(connection):
    tables = ("documents", "history", "entries", "entry_history")
    return [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


def test_a_hot_document_is_stored_once_per_batch_with_all_its_versions(connection):
    (doc,) = names(1)
    commits = [inserts(1, [doc])] + [
        Commit(Timestamp(ts), (DocumentWrite(TABLE, doc, b"%d" % ts, False),), ())
        for ts in range(2, 101)
    ]
    ran = []
    connection.set_trace_callback(ran.append)
    assert write_commits(connection, commits, 1) == (2, 101)
    connection.set_trace_callback(None)
    assert counts(connection) == [1, 99, 1, 0]
    assert len(ran) < 15
    assert connection.execute("SELECT ts, value FROM documents").fetchall() == [(100, b"100")]


def test_statements_depend_on_kinds_of_rows_not_on_commits(connection):
    ran = []
    connection.set_trace_callback(ran.append)
    write_commits(connection, [inserts(n + 1, [doc]) for n, doc in enumerate(names(128))], 1)
    assert len(ran) == 4  # look up, documents, entries, clock


def test_the_clock_and_the_document_numbers_go_on(connection):
    next_doc, _ = write_commits(connection, [inserts(5, names(3))], 1)
    assert read_clock(connection) == (5, next_doc) == (5, 4)


def test_a_document_made_and_deleted_in_one_batch_leaves_its_past(connection):
    ids = names(2)
    write_commits(connection, [inserts(1, ids), deletes(2, ids)], 1)
    assert counts(connection) == [2, 2, 0, 2]


def test_trim_takes_deleted_documents_last(connection):
    ids = names(10)
    write_commits(connection, [inserts(1, ids), deletes(2, ids)], 1)
    assert trim_rows(connection, Timestamp(1), 100) == 0
    for room in (4, 8, 8):
        assert trim_rows(connection, Timestamp(2), room) == room
        assert counts(connection)[0] == 10  # what is left may still name these rows
    assert trim_rows(connection, Timestamp(2), 8) == 0
    assert counts(connection)[0] == 2
    assert trim_rows(connection, Timestamp(2), 8) == 0
    assert counts(connection) == [0, 0, 0, 0]


def test_a_drop_under_way_is_remembered_until_nothing_is_left(connection):
    write_commits(connection, [inserts(1, names(10)), deletes(2, names(4))], 1)
    begin_drop(connection, INDEX)
    steps = []
    while True:
        assert read_drops(connection) == [INDEX]
        steps.append(drop_rows(connection, INDEX, 4))
        if steps[-1]:
            break
    assert len(steps) == 3
    assert read_drops(connection) == []
    assert counts(connection) == [10, 4, 0, 0]
