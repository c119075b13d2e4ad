"""What the log is made of: every batch comes back as it was, and damage is noticed."""

from __future__ import annotations

import contextlib
import random
import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.persistence.batch_code import decode_batch, encode_batch
from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)

_WRITES = st.builds(
    DocumentWrite,
    st.integers(1, 2**32 - 1),
    st.binary(max_size=20),
    st.none() | st.binary(max_size=50),
    st.booleans(),
)


@st.composite
def commits(draw):
    documents = draw(st.lists(_WRITES, max_size=4, unique_by=lambda write: write[:2]))
    entries = []
    for write in documents:
        for key in draw(st.lists(st.binary(max_size=30), max_size=3)):
            present = write.value is not None and draw(st.booleans())
            index = draw(st.integers(0, 2**63))
            entries.append(IndexWrite(index, key, write.table, write.id, present))
    return Commit(
        Timestamp(draw(st.integers(1, 2**63 - 1))),
        tuple(documents),
        tuple(draw(st.permutations(entries))),
    )


@given(st.lists(commits(), max_size=4))
def test_a_batch_comes_back_as_it_was(batch):
    assert decode_batch(encode_batch(batch)) == batch


def example():
    write = DocumentWrite(TableNumber(7), b"i" * 16, b"value", True)
    entry = IndexWrite(IndexId(3), b"key", TableNumber(7), b"i" * 16, True)
    return Commit(Timestamp(5), (write,), (entry,))


def test_each_changed_byte_is_noticed():
    data = encode_batch([example()])
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        with pytest.raises(ValueError, match=r"form|checksum"):
            decode_batch(bytes(damaged))


@pytest.mark.parametrize("length", [0, 5, 9, 40])
def test_a_batch_cut_short_is_noticed(length):
    with pytest.raises(ValueError, match=r"cut short|checksum"):
        decode_batch(encode_batch([example()])[:length])


def test_a_batch_of_a_later_form_is_not_guessed_at():
    with pytest.raises(ValueError, match="form 9 is not known"):
        decode_batch(b"\x09" + encode_batch([example()])[1:])


@pytest.mark.parametrize(
    "documents",
    [(), (DocumentWrite(TableNumber(7), b"i" * 16, None, False),)],
    ids=["not written", "deleted"],
)
def test_an_entry_that_begins_without_its_document_is_refused(documents):
    with pytest.raises(AssertionError, match="index 3"):
        encode_batch([Commit(Timestamp(5), documents, example().entries)])


@pytest.mark.parametrize("seed", range(60))
def test_a_wrong_body_under_a_fitting_checksum_is_a_value_error_or_commits(seed: int):
    chance = random.Random(seed)
    body = bytearray(encode_batch([example()])[5:])
    for _ in range(chance.randrange(1, 4)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    forged = struct.pack("<BI", 1, crc32(body)) + body
    with contextlib.suppress(ValueError):
        assert isinstance(decode_batch(forged), list)
