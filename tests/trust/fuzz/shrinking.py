"""Smaller and smaller: the shortest sequence that still shows what a longer one has shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Find", "report", "shrink", "shrink_bytes"]

T = TypeVar("T")

_MOST_TRIES = 200


@dataclass(frozen=True, slots=True)
class Find:
    """Something that should not have happened: a kind to compare, and what was seen."""

    kind: str
    seen: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.seen[:600]}"


async def shrink(
    items: Sequence[T], shows: Callable[[list[T]], Awaitable[bool]], *, tries: int = _MOST_TRIES
) -> list[T]:
    """A part of `items`, in order, that still shows it and from which nothing can be left out
    (as far as `tries` attempts go)."""
    best = list(items)
    size = max(1, len(best) // 2)
    while best and tries > 0:
        start, is_smaller = 0, False
        while start < len(best) and tries > 0:
            fewer = best[:start] + best[start + size :]
            tries -= 1
            if await shows(fewer):
                best, is_smaller = fewer, True
            else:
                start += size
        if size == 1 and not is_smaller:
            break
        size = max(1, size // 2)
    return best


async def shrink_bytes(data: bytes, shows: Callable[[bytes], Awaitable[bool]]) -> bytes:
    """`shrink` for a byte string: first large pieces are left out, then single bytes."""

    async def shows_list(parts: list[int]) -> bool:
        return await shows(bytes(parts))

    return bytes(await shrink(list(data), shows_list))


def report(promise: str, seed: object, smallest: object, find: Find) -> str:
    """What a failing test prints: everything that is needed to see it again."""
    shown = repr(smallest)
    if len(shown) > 3000:
        shown = f"{shown[:2900]}… ({len(shown)} characters)"
    return f"{promise}\n  seed {seed}\n  smallest input {shown}\n  seen {find}"
