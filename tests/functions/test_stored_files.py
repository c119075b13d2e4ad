"""Files below `ctx.storage`: tokens, digests, documents."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.blobs.memory import MemoryBlobs
from reactive_store.engine.database import Database
from reactive_store.errors import BadRequest, Unauthenticated
from reactive_store.functions.stored_files import (
    StoredFiles,
    checked_content_type,
    discard_file,
    find_file,
    find_uuid,
    forget_blob,
    has_document,
    parse_digest,
    parse_uuid,
    unused_blobs,
)
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing.virtual_runtime import VirtualRuntime

SECRET = bytes(range(32))


def files_of(runtime: VirtualRuntime, *, secret: bytes = SECRET, **limits: int) -> StoredFiles:
    return StoredFiles(
        MemoryBlobs(runtime),
        runtime=runtime,
        limits=replace(Limits(), **limits),
        secret=secret,
        origin=lambda: "https://api.test",
    )


@pytest.fixture
def runtime() -> VirtualRuntime:
    return VirtualRuntime()


@pytest.fixture
def files(runtime) -> StoredFiles:
    return files_of(runtime)


@pytest.fixture
async def database(runtime) -> AsyncIterator[Database]:
    opened = await Database.open(MemoryPersistence(), runtime=runtime, limits=Limits())
    yield opened
    await opened.close()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def token_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


def fresh_token(files: StoredFiles, runtime: VirtualRuntime) -> str:
    return token_of(files.upload_url(runtime.now_ns() / 1e6))


# Addresses.


def test_addresses_begin_with_the_origin(files, runtime):
    assert files.url("some-uuid") == "https://api.test/api/storage/some-uuid"
    url = files.upload_url(runtime.now_ns() / 1e6)
    assert url.startswith("https://api.test/api/storage/upload?token=")


async def test_a_token_counts_for_an_hour_and_as_often_as_one_likes(files, runtime):
    token = fresh_token(files, runtime)
    files.check_token(token)
    await runtime.advance(timedelta(hours=1))
    files.check_token(token)
    await runtime.advance(timedelta(milliseconds=1))
    with pytest.raises(Unauthenticated, match="Store File Authorization expired") as caught:
        files.check_token(token)
    assert caught.value.code == "StorageTokenExpired"


async def test_a_token_of_the_future_counts_only_within_a_minute(files, runtime):
    now_ms = runtime.now_ns() / 1e6
    files.check_token(token_of(files.upload_url(now_ms + 59_000)))
    with pytest.raises(Unauthenticated):
        files.check_token(token_of(files.upload_url(now_ms + 61_000)))


def test_a_token_of_another_deployment_is_none(files, runtime):
    other = files_of(runtime, secret=bytes(32))
    with pytest.raises(Unauthenticated) as caught:
        files.check_token(fresh_token(other, runtime))
    assert caught.value.code == "StorageTokenInvalid"


@given(at=st.integers(0, 200), to=st.sampled_from("ABCabc019-_"))
def test_a_token_changed_anywhere_is_none(at: int, to: str):
    runtime = VirtualRuntime()
    files = files_of(runtime)
    token = fresh_token(files, runtime)
    at %= len(token)
    changed = token[:at] + to + token[at + 1 :]
    if base64.urlsafe_b64decode(changed + "==") == base64.urlsafe_b64decode(token + "=="):
        return  # the last character has bits that say nothing
    with pytest.raises(Unauthenticated):
        files.check_token(changed)


@given(st.text(max_size=90))
def test_any_text_is_a_token_or_is_refused_by_name(text: str):
    with pytest.raises(Unauthenticated, match="Couldn't decode the StoreFileAuthorization token"):
        files_of(VirtualRuntime()).check_token(text)


# Bytes.


async def keys(files: StoredFiles) -> list[str]:
    return [entry.key async for entry in files.blobs.entries()]


def transactions(database: Database):
    async def transact(work):
        transaction = database.begin_mutation()
        result = work(transaction)
        await database.commit(transaction)
        return result

    return transact


async def put(database: Database, files: StoredFiles, *parts: bytes, **options):
    options = {"content_type": None, **options}
    return await files.store(transactions(database), chunks(*parts), **options)


async def test_what_is_stored_is_counted_and_digested(database, files):
    parts = [bytes([number]) * 300_000 for number in range(12)]
    file_id = await put(database, files, *parts)
    whole = b"".join(parts)
    file = find_file(database.begin(), file_id)
    assert (file.size, file.sha256) == (len(whole), hashlib.sha256(whole).digest())
    reading = await files.open(file, 0, file.size)
    assert b"".join([block async for block in reading]) == whole
    assert (files.counters.received, files.counters.received_bytes) == (1, len(whole))


async def test_names_are_random_uuids_of_version_4(database, files):
    await put(database, files, b"1")
    await put(database, files, b"1")
    first, second = await keys(files)
    assert first != second
    assert parse_uuid(first) == first
    assert first[14] == "4"


async def test_another_digest_than_expected_leaves_nothing(database, files):
    expected = hashlib.sha256(b"other").digest()
    with pytest.raises(BadRequest) as caught:
        await put(database, files, b"these", expected_sha256=expected)
    assert caught.value.code == "Sha256Mismatch"
    actual = base64.b64encode(hashlib.sha256(b"these").digest()).decode()
    wanted = base64.b64encode(expected).decode()
    assert caught.value.message == f"Sha256 mismatch. Expected: {wanted} Actual: {actual}"
    assert await keys(files) == []


async def test_a_file_beyond_the_limit_leaves_nothing(database, runtime):
    files = files_of(runtime, file_bytes=10)
    await put(database, files, b"12345", b"67890")
    with pytest.raises(BadRequest, match="maximum 10 bytes") as caught:
        await put(database, files, b"12345", b"678901")
    assert caught.value.code == "FileTooLarge"
    assert len(await keys(files)) == 1


async def test_bytes_are_durable_before_their_documents_and_arriving_until_then(database, files):
    seen = []

    async def transact(work):
        (uuid,) = await keys(files)
        seen.append((files.is_arriving(uuid), has_document(database.begin(), uuid)))
        return await transactions(database)(work)

    await files.store(transact, chunks(b"1"), content_type=None)
    assert seen == [(True, False)]
    (uuid,) = await keys(files)
    assert (files.is_arriving(uuid), has_document(database.begin(), uuid)) == (False, True)


# Documents.


async def stored(database: Database, files: StoredFiles, data: bytes, kind: str | None = None):
    file_id = await put(database, files, data, content_type=kind)
    return file_id, find_uuid(database.begin(), file_id)


async def test_a_file_is_found_by_its_id_and_by_its_uuid(database, files):
    file_id, uuid = await stored(database, files, b"hello", "text/plain")
    await stored(database, files, b"other")
    reading = database.begin()
    for name in (file_id, uuid, uuid.upper()):
        assert find_uuid(reading, name) == uuid
        found = find_file(reading, name)
        assert (found.id, found.uuid, found.size) == (file_id, uuid, 5)
        assert (found.sha256, found.content_type) == (
            hashlib.sha256(b"hello").digest(),
            "text/plain",
        )


async def test_a_deleted_file_is_not_found_but_its_bytes_are_still_known(database, files, runtime):
    file_id, uuid = await stored(database, files, b"hello")
    before = database.begin()
    transaction = database.begin_mutation()
    discard_file(transaction, file_id)
    assert find_uuid(transaction, file_id) is None
    with pytest.raises(BadRequest, match=f"storage id {file_id} not found"):
        discard_file(transaction, file_id)
    await database.commit(transaction)
    after = database.begin()
    assert find_file(after, uuid) is None
    assert find_uuid(before, file_id) == uuid
    assert has_document(after, uuid)

    now_ms = runtime.now_ns() / 1e6
    assert unused_blobs(after, now_ms, 10) == []
    ((document_id, found),) = unused_blobs(after, now_ms + 1, 10)
    assert found == uuid
    transaction = database.begin_mutation()
    forget_blob(transaction, document_id)
    await database.commit(transaction)
    assert not has_document(database.begin(), uuid)


async def test_files_that_are_there_are_not_unused(database, files):
    await stored(database, files, b"hello")
    assert unused_blobs(database.begin(), 1e300, 10) == []


@pytest.mark.parametrize("text", ["nonsense", "", "95366df3d57a4b6c82cdceba95688331", 5, None])
async def test_what_is_neither_id_nor_uuid_is_refused(database, text):
    with pytest.raises(BadRequest) as caught:
        find_uuid(database.begin(), text)
    assert caught.value.message == (
        f"Invalid storage ID: \"{text}\". Storage ID should be an Id of '_storage' table, or a "
        "UUID string."
    )


# Texts from outside.


@pytest.mark.parametrize(
    "text",
    [
        "text/plain", "image/svg+xml", "text/plain; charset=UTF-8", "application/vnd.ms-excel",
        'video/webm;codecs="vp8, opus"', "video/webm;codecs=vp8,opus", "x/y;a=b; c=d", "a/b ;",
        "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
    ],
)  # fmt: skip
def test_content_types_of_real_life_are_kept_as_they_are(text):
    assert checked_content_type(f" {text} ") == text


@pytest.mark.parametrize(
    "text",
    [
        "", "text", "/", "text/", "/plain", "text/plain, text/html", "text/plain\r\nX-Evil: 1",
        "text/plain;a=\nb", "text plain/x", "a/b/c", "text/html;é=1", "a/" + "b" * 200, "a/b\x00",
    ],
)  # fmt: skip
def test_what_is_no_content_type_is_refused(text):
    with pytest.raises(BadRequest) as caught:
        checked_content_type(text)
    assert caught.value.code == "BadHeader"


def test_digests_are_base64_of_32_bytes():
    digest = hashlib.sha256(b"").digest()
    assert parse_digest(base64.b64encode(digest).decode()) == digest
    for text in ("", "abc", "é", digest.hex(), base64.b64encode(digest[:31]).decode()):
        with pytest.raises(BadRequest):
            parse_digest(text)


def test_a_uuid_has_one_spelling():
    uuid = "95366df3-d57a-4b6c-82cd-ceba95688331"
    assert parse_uuid(uuid.upper()) == uuid
    for text in (uuid[:-1], uuid + "0", uuid.replace("-", ""), f"{{{uuid}}}", uuid + "\n", "../x"):
        assert parse_uuid(text) is None
