"""From the setting `files` to a store."""

from __future__ import annotations

import importlib
from urllib.parse import urlsplit

import pytest

from reactive_store.blobs.disk import DiskBlobs
from reactive_store.blobs.location import open_blobs
from reactive_store.blobs.object_store import ObjectBlobs
from reactive_store.errors import BadRequest
from reactive_store.runtime import SystemRuntime


async def opened(url, data, owner="me"):
    return await open_blobs(url, data=data, durable=False, owner=owner, runtime=SystemRuntime())


async def test_without_a_setting_files_are_kept_beside_the_data(tmp_path):
    store = await opened(None, tmp_path / "data")
    await store.close()
    assert isinstance(store, DiskBlobs)
    assert (tmp_path / "data" / "files" / "owner").read_text() == "me"


async def test_a_directory_may_be_named(tmp_path):
    store = await opened(f"file://{tmp_path}/with%20space", tmp_path / "data")
    await store.close()
    assert (tmp_path / "with space" / "owner").exists()
    assert not (tmp_path / "data").exists()


async def test_an_object_store_may_be_named(s3_url, tmp_path):
    store = await opened(s3_url, tmp_path)
    await store.close()
    assert isinstance(store, ObjectBlobs)


async def test_the_files_of_another_deployment_are_refused(tmp_path):
    await (await opened(None, tmp_path)).close()
    await (await opened(None, tmp_path)).close()
    with pytest.raises(BadRequest, match="another deployment") as caught:
        await opened(None, tmp_path, owner="somebody else")
    assert caught.value.code == "FilesInUse"


async def test_the_refusal_of_an_object_store_does_not_tell_its_key(s3_url, tmp_path):
    await (await opened(s3_url, tmp_path)).close()
    with pytest.raises(BadRequest, match="another deployment") as caught:
        await opened(s3_url, tmp_path, owner="somebody else")
    parts = urlsplit(s3_url)
    assert parts.password
    assert parts.hostname
    assert parts.password not in caught.value.message
    assert parts.hostname in caught.value.message


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file://relative/path", "file:///absolute/path"),
        ("file:relative", "file:///absolute/path"),
        ("ftp://host/path", "file:///… or s3://…"),
        ("/plain/path", "file:///… or s3://…"),
    ],
)
async def test_a_setting_that_names_no_store_is_refused(tmp_path, url, text):
    with pytest.raises(BadRequest, match=text) as caught:
        await opened(url, tmp_path)
    assert caught.value.code == "InvalidSetting"


async def test_a_directory_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadRequest, match="cannot be used") as caught:
        await opened(f"file://{tmp_path}/file", tmp_path)
    assert caught.value.code == "InvalidSetting"


async def test_a_missing_library_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BadRequest, match=r"install reactive_store\[s3\]"):
        await opened("s3://bucket", tmp_path)
