"""Vectors of one index in memory, and the exact search for the nearest by cosine.

Rows are unit vectors of 32-bit floats, dense: the last row moves into a gap. They lie in large
blocks, so growing copies nothing, and a search is a few long multiplications that let other threads
run. Beside them every filter field has a column of small numbers, one for each distinct value.

A search reads and never writes, so it may run in another thread as long as nobody changes the
matrix meanwhile. Scores of a scan are only good to some last bits, which depend on how the
multiplication was cut up; whatever they leave in question is computed again in 64 bits. So the
answer is exact (recall 1.0), the same however it was computed, and equal vectors score equally.

Source: docs/decisions/0016-vector-search.md, with the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Condition", "Found", "Vector", "VectorMatrix", "VectorQuery", "unit", "unit_of"]

Vector = NDArray[np.float64]
_Scores = NDArray[np.float32]
_Rows = NDArray[np.intp]

Found = tuple[bytes, float]
"""A document's internal id, and its score."""

_BLOCK_BYTES: Final = 256 * 1024 * 1024  # reserved at once, taken from the system as rows are used
_MOST_BLOCK_ROWS: Final = 262_144
_RESCORE_ROWS: Final = 2048  # widened to 64 bits at a time
_GATHER: Final = 16  # below one row in so many, picking rows out is cheaper than a scan
_LONG_KEY: Final = 48  # bytes; filter values beyond are kept as a hash
_STEP: Final = float(np.finfo(np.float32).eps)


class Condition(NamedTuple):
    """A filter field, by its place in the declaration, and the encoded value it must have."""

    field: int
    key: bytes


class VectorQuery(NamedTuple):
    """One search."""

    vector: Vector  # of length one
    limit: int
    conditions: tuple[Condition, ...] = ()  # any of them; none: every document


def unit(vector: Vector) -> Vector | None:
    """The vector with length one; zeros stay zeros. None when a number is not finite."""
    largest = float(np.abs(vector).max())
    if not np.isfinite(largest):
        return None
    if largest == 0.0:
        return vector
    scaled = vector / largest  # squares of very large or very small numbers stay in range
    return np.asarray(scaled / np.sqrt(scaled @ scaled))


def unit_of(numbers: Sequence[float]) -> Vector | None:
    """As `unit`, of plain numbers."""
    return unit(np.array(numbers, np.float64))


class VectorMatrix:
    """Rows of vectors with their ids and filter values.

    Cost     4 bytes for each dimension, 4 for each filter field, about 150 for the id and 100 for
             each distinct filter value
    """

    __slots__ = ("_block_rows", "_blocks", "_columns", "_ids", "_rows", "dimensions")

    def __init__(
        self, dimensions: int, filter_fields: int, *, block_rows: int | None = None
    ) -> None:
        self.dimensions = dimensions
        fitting = _BLOCK_BYTES // (4 * dimensions)
        self._block_rows = min(fitting, _MOST_BLOCK_ROWS) if block_rows is None else block_rows
        self._blocks: list[NDArray[np.float32]] = []
        self._ids: list[bytes] = []  # by row
        self._rows: dict[bytes, int] = {}  # the inverse
        self._columns = [_Column() for _ in range(filter_fields)]

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, id: bytes) -> bool:
        return id in self._rows

    @property
    def matrix_bytes(self) -> int:
        """What the vectors take; ids and filter values come on top."""
        return 4 * self.dimensions * len(self._ids)

    def put(self, id: bytes, vector: Vector, keys: Sequence[bytes]) -> None:
        """Add a document, or give it another vector and other filter values.

        Shapes   vector: of length one (`unit`); keys: the encoded value of each filter field
        """
        row = self._rows.get(id)
        if row is None:
            row = self._rows[id] = len(self._ids)
            self._ids.append(id)
            if row == len(self._blocks) * self._block_rows:
                shape = (self._block_rows, self.dimensions)
                self._blocks.append(np.empty(shape, np.float32))
        block, offset = divmod(row, self._block_rows)
        self._blocks[block][offset] = vector
        for column, key in zip(self._columns, keys, strict=True):
            column.set(row, key)

    def remove(self, id: bytes) -> None:
        """Forget a document, if it is there."""
        row = self._rows.pop(id, None)
        if row is None:
            return
        last = len(self._ids) - 1
        moved = self._ids.pop()
        for column in self._columns:
            column.drop(row, last)
        if row != last:
            self._ids[row] = moved
            self._rows[moved] = row
            to, to_offset = divmod(row, self._block_rows)
            source, source_offset = divmod(last, self._block_rows)
            self._blocks[to][to_offset] = self._blocks[source][source_offset]
        # One empty block is kept: a table that shrinks and grows by a row must not pay each time.
        if len(self._blocks) > last // self._block_rows + 2:
            self._blocks.pop()

    def search(self, queries: Sequence[VectorQuery]) -> list[list[Found]]:
        """For each query the best documents: by falling score, then by falling id.

        Queries that look at most rows share one pass over the matrix.

        Cost     about 0.13 ms for each million numbers in the matrix, less for filters that leave
                 few rows
        """
        found: list[list[Found]] = [[] for _ in queries]
        scans: list[tuple[int, _Rows | None]] = []
        for place, query in enumerate(queries):
            rows = self._matching(query.conditions) if query.conditions else None
            if rows is None or len(rows) * _GATHER > len(self._ids):
                scans.append((place, rows))
            else:
                found[place] = self._best(query, rows)
        if scans and self._ids:
            scores = self._scan([queries[place].vector for place, _ in scans])
            for (place, rows), of_query in zip(scans, scores, strict=True):
                query = queries[place]
                found[place] = self._best(query, self._in_question(of_query, rows, query.limit))
        return found

    def _matching(self, conditions: Sequence[Condition]) -> _Rows:
        mask = np.zeros(len(self._ids), np.bool_)
        for field, key in conditions:
            self._columns[field].mark(mask, key)
        return np.flatnonzero(mask)

    def _scan(self, vectors: Sequence[Vector]) -> _Scores:
        """The scores of every row, for each vector."""
        count = len(self._ids)
        scores = np.empty((len(vectors), count), np.float32)
        asked = np.array(vectors, np.float32)
        for number, block in enumerate(self._blocks):
            start = number * self._block_rows
            if start >= count:
                break  # the block to grow into
            part = block[: count - start]
            if len(vectors) == 1:
                np.dot(part, asked[0], out=scores[0, start : start + len(part)])
            else:
                scores[:, start : start + len(part)] = asked @ part.T
        return scores

    def _in_question(self, scores: _Scores, rows: _Rows | None, limit: int) -> _Rows:
        """The rows that can be among the best `limit`, as exactly as the scan can tell."""
        if rows is not None:
            scores = scores[rows]
        if len(scores) > limit:
            place = len(scores) - limit
            least = float(np.partition(scores, place)[place])
            # Twice what a product of two unit vectors can be off in 32 bits, however it is summed.
            near = np.flatnonzero(scores >= least - 2 * (self.dimensions + 2) * _STEP)
            return near if rows is None else rows[near]
        return np.arange(len(scores)) if rows is None else rows

    def _best(self, query: VectorQuery, rows: _Rows) -> list[Found]:
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _RESCORE_ROWS):
            part = rows[start : start + _RESCORE_ROWS]
            exact = np.multiply(self._gather(part), query.vector, dtype=np.float64).sum(axis=1)
            scores[start : start + len(part)] = np.clip(exact, -1.0, 1.0)
        if len(rows) > query.limit:
            place = len(rows) - query.limit
            kept = np.flatnonzero(scores >= np.partition(scores, place)[place])
            rows, scores = rows[kept], scores[kept]
        ids = self._ids
        found = [
            (score, ids[row]) for score, row in zip(scores.tolist(), rows.tolist(), strict=True)
        ]
        found.sort(reverse=True)
        return [(best, score) for score, best in found[: query.limit]]

    def _gather(self, rows: _Rows) -> NDArray[np.float32]:
        if len(self._blocks) == 1:
            return self._blocks[0][rows]
        gathered = np.empty((len(rows), self.dimensions), np.float32)
        blocks, offsets = np.divmod(rows, self._block_rows)
        for number in np.unique(blocks).tolist():
            ours = blocks == number
            gathered[ours] = self._blocks[number][offsets[ours]]
        return gathered


class _Column:
    """The values of one filter field, each row's as the number of a distinct value."""

    __slots__ = ("_counts", "_free", "_keys", "_numbers", "_of_row", "_used")

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._keys: list[bytes] = []  # by number
        self._counts: list[int] = []  # rows with that number; 0: free for another value
        self._free: list[int] = []
        self._of_row = np.empty(64, np.int32)
        self._used = 0

    def set(self, row: int, key: bytes) -> None:
        key = _short(key)
        number = self._numbers.get(key)
        if number is None:
            number = self._new_number(key)
        self._counts[number] += 1
        if row < self._used:
            self._release(int(self._of_row[row]))
        else:
            self._used = row + 1
            if row == len(self._of_row):
                self._of_row = np.resize(self._of_row, 2 * row)
        self._of_row[row] = number

    def drop(self, row: int, last: int) -> None:
        """Forget a row; the last one takes its place."""
        self._release(int(self._of_row[row]))
        self._of_row[row] = self._of_row[last]
        self._used = last

    def mark(self, mask: NDArray[np.bool_], key: bytes) -> None:
        """Set the mask where the field has the value."""
        number = self._numbers.get(_short(key))
        if number is not None:
            mask |= self._of_row[: self._used] == number

    def _new_number(self, key: bytes) -> int:
        if self._free:
            number = self._free.pop()
            self._keys[number] = key
        else:
            number = len(self._keys)
            self._keys.append(key)
            self._counts.append(0)
        self._numbers[key] = number
        return number

    def _release(self, number: int) -> None:
        self._counts[number] -= 1
        if not self._counts[number]:
            del self._numbers[self._keys[number]]
            self._free.append(number)


def _short(key: bytes) -> bytes:
    # Keys never begin with a zero byte, so a hash is mistaken for no other value.
    return key if len(key) <= _LONG_KEY else b"\0" + blake2b(key, digest_size=32).digest()
