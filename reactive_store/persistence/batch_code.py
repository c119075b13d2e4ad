"""A batch of commits as one byte string, for the log, and back.

A byte string is a version, a checksum of the rest, the number of integers, the integers, then all
ids, values and keys in the order in which the integers give their lengths. Integers are gathered
and packed in one call, bytes are joined in one call: no work per field beyond a list's `extend`.

An entry names its document by its position among the commit's document writes. An entry whose
document the commit does not write cannot be expressed; the contract rules it out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from reactive_store.persistence.contract import (
    Commit,
    DocumentWrite,
    IndexId,
    IndexWrite,
    TableNumber,
    Timestamp,
)

__all__ = ["decode_batch", "encode_batch"]

_VERSION: Final = 1
_HEAD: Final = struct.Struct("<BI")  # version, checksum of all that follows
_COUNT: Final = struct.Struct("<I")  # of integers
_DELETED: Final = 1  # flags of a document write
_INSERTED: Final = 2


def encode_batch(commits: Sequence[Commit]) -> bytes:
    """The batch as bytes.

    Cost     about 2 µs for a document with three entries
    Raises   AssertionError when an entry's document is not written by its commit, or begins for a
             document the commit deletes
    """
    integers: list[int] = []
    chunks: list[bytes] = []
    for ts, documents, entries in [(c.ts, c.documents, c.entries) for c in commits]:
        integers += (ts, len(documents), len(entries))
        positions: dict[tuple[int, bytes], int] = {}
        for position, (table, name, value, is_insert) in enumerate(documents):
            flags = _INSERTED if is_insert else 0
            chunks.append(name)
            if value is None:
                integers += (table, len(name), flags | _DELETED, 0)
            else:
                integers += (table, len(name), flags, len(value))
                chunks.append(value)
            positions[table, name] = position
        for index, key, table, name, present in entries:
            position = positions.get((table, name), -1)
            if position < 0 or (present and documents[position].value is None):
                raise AssertionError(f"index {index}: key {key.hex()} cannot be given")
            integers += (index, len(key), position * 2 + present)
            chunks.append(key)
    count = len(integers)
    body = b"".join((struct.pack(f"<I{count}Q", count, *integers), *chunks))
    return _HEAD.pack(_VERSION, crc32(body)) + body


def decode_batch(data: bytes) -> list[Commit]:
    """What `encode_batch` was given.

    Raises   ValueError when the bytes are not what was written
    """
    if len(data) < _HEAD.size + _COUNT.size:
        raise ValueError("it is cut short")
    version, checksum = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"its form {version} is not known")
    if crc32(memoryview(data)[_HEAD.size :]) != checksum:
        raise ValueError("its checksum does not fit")
    try:
        return _commits(data)
    except (struct.error, IndexError, RuntimeError, StopIteration) as error:
        # A generator that meets the end of the integers raises RuntimeError.
        raise ValueError(f"its integers do not fit its bytes: {error}") from error


def _commits(data: bytes) -> list[Commit]:
    offset = _HEAD.size + _COUNT.size
    (count,) = _COUNT.unpack_from(data, _HEAD.size)
    integers = iter(struct.unpack_from(f"<{count}Q", data, offset))
    offset += 8 * count
    commits: list[Commit] = []
    for ts in integers:
        document_count, entry_count = next(integers), next(integers)
        documents: list[DocumentWrite] = []
        for _ in range(document_count):
            table, name_bytes, flags, value_bytes = (next(integers) for _ in range(4))
            middle = offset + name_bytes
            end = middle + value_bytes
            value = None if flags & _DELETED else data[middle:end]
            documents.append(
                DocumentWrite(
                    TableNumber(table), data[offset:middle], value, bool(flags & _INSERTED)
                )
            )
            offset = end
        entries: list[IndexWrite] = []
        for _ in range(entry_count):
            index, key_bytes, place = next(integers), next(integers), next(integers)
            end = offset + key_bytes
            table, name, _value, _is_insert = documents[place >> 1]
            entries.append(
                IndexWrite(IndexId(index), data[offset:end], table, name, bool(place & 1))
            )
            offset = end
        commits.append(Commit(Timestamp(ts), tuple(documents), tuple(entries)))
    return commits
