"""Changes of an app's files: each is noticed once, others' files are not."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from reactive_store.cli.app_watch import AppWatch


@pytest.fixture
async def changed(tmp_path):
    """`await changed()` waits for the next change; the folders are being watched by then."""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "a.py").write_text("1")
    watch = AppWatch(tmp_path, tmp_path / "functions")
    async with contextlib.aclosing(watch.changes()) as changes:

        async def wait(seconds: float = 5.0) -> None:
            await asyncio.wait_for(anext(changes), seconds)

        wait.watch = watch
        yield wait


@pytest.mark.parametrize("name", ["functions/a.py", "functions/new.py", "schema.py"])
async def test_a_written_file_is_noticed(tmp_path, changed, name):
    (tmp_path / name).write_text("12")
    await changed()


async def test_a_removed_file_is_noticed(tmp_path, changed):
    (tmp_path / "functions" / "a.py").unlink()
    await changed()


async def test_files_in_folders_made_later_are_noticed(tmp_path, changed):
    folder = tmp_path / "functions" / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "b.py").write_text("1")
    await changed()
    (folder / "b.py").write_text("12")
    await changed()


async def test_a_file_elsewhere_is_noticed_once_the_app_was_made_of_it(tmp_path, changed):
    other = tmp_path / "beside" / "code.py"
    other.parent.mkdir()
    other.write_text("1")
    changed.watch.include(frozenset({other}))
    other.write_text("12")
    await changed()


async def test_other_files_are_not_noticed(tmp_path, changed):
    (tmp_path / "README.md").write_text("1")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "x.py").write_text("1")
    with pytest.raises(TimeoutError):
        await changed(1.5)
