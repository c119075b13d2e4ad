"""Reading the admin key beside a server, from a stopped deployment, and from what is neither."""

from __future__ import annotations

import pytest

from reactive_store.backend import Backend
from reactive_store.cli.admin_key import read_admin_key
from reactive_store.config import load_settings
from reactive_store.errors import BadRequest
from reactive_store.functions.app import App
from reactive_store.persistence.data_lock import DataLock
from reactive_store.schema.tables import define_schema


@pytest.fixture
def settings(tmp_path):
    return load_settings(tmp_path)


async def test_the_key_is_that_of_the_deployment_while_it_runs(settings):
    backend = await Backend.open(settings, app=App(define_schema({}), {}))
    try:
        assert read_admin_key(settings) == backend.admin_keys.issue()
    finally:
        await backend.close()


def test_a_new_data_folder_is_made_and_keeps_its_key(settings):
    key = read_admin_key(settings)
    assert (settings.data / "data.sqlite3").is_file()
    assert read_admin_key(settings) == key


def test_a_folder_in_use_without_a_file_is_said(settings):
    with DataLock(settings.data), pytest.raises(BadRequest, match="in use"):
        read_admin_key(settings)


def test_a_file_that_is_not_ours_is_said(settings):
    settings.data.mkdir()
    (settings.data / "data.sqlite3").write_text("not a database, " * 100)
    with pytest.raises(BadRequest, match=r"data\.sqlite3 cannot be opened"):
        read_admin_key(settings)


def test_a_misspelled_folder_is_not_made(tmp_path):
    with pytest.raises(BadRequest, match="There is no folder"):
        read_admin_key(load_settings(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()
