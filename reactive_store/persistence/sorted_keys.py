"""Byte keys in order, cut into chunks: the ordered half of every index held in memory.

Invariants: chunks are never empty; inside and across chunks keys ascend without repetition;
`_highest[i]` is the last key of `_chunks[i]`. `check` asserts them.
"""

from __future__ import annotations

from bisect import bisect_left, insort

__all__ = ["SortedKeys"]


class SortedKeys:
    """A set of byte strings that can be read in order from any place.

    Cost     adding and removing one bisection over chunks, one inside a chunk, and a short move
    """

    __slots__ = ("_chunks", "_highest")

    CHUNK_KEYS = 512  # a chunk of twice this size is cut in half

    def __init__(self) -> None:
        self._chunks: list[list[bytes]] = []
        self._highest: list[bytes] = []

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def add(self, key: bytes) -> None:
        """Put in a key that is not there."""
        if not self._chunks:
            self._chunks.append([key])
            self._highest.append(key)
            return
        position = bisect_left(self._highest, key)
        if position == len(self._highest):
            position -= 1
            self._chunks[position].append(key)
            self._highest[position] = key
        else:
            insort(self._chunks[position], key)
        chunk = self._chunks[position]
        if len(chunk) >= 2 * self.CHUNK_KEYS:
            half = chunk[: self.CHUNK_KEYS]
            del chunk[: self.CHUNK_KEYS]
            self._chunks.insert(position, half)
            self._highest.insert(position, half[-1])

    def remove(self, key: bytes) -> None:
        """Take out a key that is there."""
        position = bisect_left(self._highest, key)
        chunk = self._chunks[position]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._highest[position] = chunk[-1]
        else:
            del self._chunks[position]
            del self._highest[position]

    def ascending(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The first `limit` keys with start <= key < end (end None: no upper bound)."""
        position = bisect_left(self._highest, start)
        if position == len(self._highest):
            return []
        chunk = self._chunks[position]
        taken = self._upwards(chunk, bisect_left(chunk, start), end, limit)
        # A chunk that gave its last key does not hold the bound: the next one may have more.
        while taken and taken[-1] is self._highest[position] and len(taken) < limit:
            position += 1
            if position == len(self._chunks):
                break
            more = self._upwards(self._chunks[position], 0, end, limit - len(taken))
            if not more:
                break
            taken += more
        return taken

    @staticmethod
    def _upwards(chunk: list[bytes], first: int, end: bytes | None, limit: int) -> list[bytes]:
        stop = min(first + limit, len(chunk))
        if end is not None and stop > first and chunk[stop - 1] >= end:
            stop = bisect_left(chunk, end, first, stop)
        return chunk[first:stop]

    def descending(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The last `limit` keys with start <= key < end, highest first."""
        last = len(self._chunks) - 1
        position = last if end is None else min(bisect_left(self._highest, end), last)
        taken: list[bytes] = []
        while position >= 0 and len(taken) < limit:
            chunk = self._chunks[position]
            stop = len(chunk) if end is None else bisect_left(chunk, end)
            first = max(0, stop - (limit - len(taken)))
            if first < stop and chunk[first] < start:
                first = bisect_left(chunk, start, first, stop)
                taken += chunk[first:stop][::-1]
                break
            taken += chunk[first:stop][::-1]
            position -= 1
        return taken

    def check(self) -> None:
        """Assert the invariants; for tests."""
        assert all(self._chunks)
        assert [chunk[-1] for chunk in self._chunks] == self._highest
        everything = [key for chunk in self._chunks for key in chunk]
        assert everything == sorted(set(everything))
        assert all(len(chunk) < 2 * self.CHUNK_KEYS for chunk in self._chunks)
