"""How a data file is recognised: ours, new, newer, somebody else's, damaged."""

from __future__ import annotations

import os
import sqlite3

import pytest

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.persistence.sqlite_format import (
    FORMAT_VERSION,
    connect_reader,
    connect_writer,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some where?" / "data#1.sqlite3"


def open_writer(path, synchronous="FULL"):
    return connect_writer(path, synchronous, Limits())


def test_a_missing_file_is_made_with_its_directory(path):
    open_writer(path).close()
    connection = open_writer(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_the_way_to_a_new_file_is_made_durable(path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda one: (synced.append(os.readlink(f"/proc/self/fd/{one}")), fsync(one))
    )
    open_writer(path).close()
    # The directory of the file itself is synced by SQLite.
    assert synced == [str(directory) for directory in path.parent.parents]
    open_writer(path).close()
    assert len(synced) == len(path.parent.parents)


@pytest.mark.parametrize(("synchronous", "level"), [("NORMAL", 1), ("FULL", 2)])
def test_the_writer_waits_for_the_disk_as_told(path, synchronous, level):
    connection = open_writer(path, synchronous)
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    connection.close()


def test_the_reader_cannot_write(path):
    writer = open_writer(path)
    reader = connect_reader(path, Limits())
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM documents")
    reader.close()
    writer.close()


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_was(path):
    open_writer(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(BadRequest, match=r"newer version.*Upgrade reactive_store") as refused:
        open_writer(path)
    assert refused.value.code == "DataDirectoryTooNew"
    assert path.read_bytes() == before


def test_a_database_of_somebody_else_is_refused_and_stays_as_it_was(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(BadRequest, match="not a data file of reactive_store") as refused:
        open_writer(path)
    assert refused.value.code == "DataFileUnreadable"
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_stays_as_it_was(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(BadRequest, match="cannot be opened") as refused:
        open_writer(path)
    assert refused.value.code == "DataFileUnreadable"
    assert path.read_bytes() == b"not a database" * 1000


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRequest) as refused:
        open_writer(tmp_path / "file" / "data.sqlite3")
    assert refused.value.code == "DataFileUnreadable"
    with pytest.raises(BadRequest):
        open_writer(tmp_path)


def test_a_file_whose_schema_is_no_text_any_more_is_refused(path):
    open_writer(path).close()
    content = path.read_bytes()
    assert content.count(b"CREATE TABLE documents") == 1
    path.write_bytes(content.replace(b"CREATE TABLE documents", b"CREATE TABLE \xccocuments"))
    with pytest.raises(BadRequest) as refused:
        open_writer(path)
    assert refused.value.code == "DataFileUnreadable"
