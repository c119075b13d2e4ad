"""One process per data directory, tried with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reactive_store.errors import BadRequest
from reactive_store.persistence import data_lock as lock_module
from reactive_store.persistence.data_lock import DataLock, Owner, read_owner

_HOLDER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from reactive_store.persistence.data_lock import DataLock
lock = DataLock(Path(sys.argv[1]))
lock.acquire()
lock.set_url("http://127.0.0.1:3210")
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def holder(directory):
    root = str(lock_module.__file__).rsplit("/reactive_store/", 1)[0]
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(directory), root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_who_holds_the_directory(directory, holder):
    with pytest.raises(BadRequest) as refused:
        DataLock(directory).acquire()
    assert refused.value.code == "DataDirectoryInUse"
    text = refused.value.message
    assert f"process {holder.pid} (http://127.0.0.1:3210), running since 20" in text
    assert str(directory) in text


def test_the_directory_is_free_once_the_holder_lets_go(directory, holder):
    holder.communicate("go\n")
    assert holder.returncode == 0
    assert not (directory / "server.json").exists()
    with DataLock(directory):
        assert read_owner(directory).pid == os.getpid()


def test_a_holder_killed_with_9_is_no_obstacle(directory, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (directory / "server.json").exists()
    assert read_owner(directory) is None
    with DataLock(directory):
        assert read_owner(directory).url is None


def test_the_owner_is_known_to_others_while_it_lives(directory, holder):
    owner = read_owner(directory)
    assert (owner.pid, owner.url) == (holder.pid, "http://127.0.0.1:3210")
    assert owner.started_ms > 1.7e12
    holder.communicate("go\n")
    assert read_owner(directory) is None


def test_a_directory_nobody_used_has_no_owner_and_is_not_made(directory):
    assert read_owner(directory) is None
    assert not directory.exists()


def test_a_second_lock_of_the_same_process_is_refused_too(directory):
    with DataLock(directory), pytest.raises(BadRequest):
        DataLock(directory).acquire()


@pytest.mark.parametrize("note", [None, "", "{", "[]", '{"pid": 1}'])
def test_an_unreadable_note_leaves_the_owner_unnamed(directory, note):
    with DataLock(directory):
        path = directory / "server.json"
        path.unlink() if note is None else path.write_text(note)
        assert read_owner(directory) == Owner(None, None, None)
        with pytest.raises(BadRequest, match="in use by another process\\."):
            DataLock(directory).acquire()


def test_the_note_says_pid_url_and_start(directory):
    lock = DataLock(directory)
    lock.acquire()
    lock.set_url("http://127.0.0.1:1")
    note = json.loads((directory / "server.json").read_text())
    assert note == {
        "pid": os.getpid(),
        "url": "http://127.0.0.1:1",
        "started_ms": lock._started_ms,
    }
    lock.release()
    lock.release()
    assert [entry.name for entry in directory.iterdir()] in ([], ["lock"])


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, below: str) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(BadRequest, match="cannot be used") as refused:
        DataLock(blocker / below if below else blocker).acquire()
    assert refused.value.code == "DataDirectoryUnusable"
    assert str(blocker) in refused.value.message
