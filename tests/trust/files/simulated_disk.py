"""A disk that forgets: what `os` is to the store of blobs, with a state that survives power loss.

What was written and not synced may be there afterwards, in part, as zeros, or not at all. What was
renamed, made or deleted in a folder that was not synced may have happened or not, each by itself:
POSIX promises no order. Every call that changes something is a moment at which the power can go.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn, Self

__all__ = ["PowerLoss", "SimulatedDisk"]


class PowerLoss(BaseException):
    """The machine is off: nothing that runs on it goes on."""


@dataclass(eq=False)
class _File:
    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    changed_ns: int = 0


@dataclass(eq=False)
class _Folder:
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, name: str, to: _File | _Folder | None) -> None:
        _apply(self.now, name, to)
        self.pending.append((name, to))


def _apply(entries: dict[str, Any], name: str, to: Any) -> None:
    if to is None:
        entries.pop(name, None)
    else:
        entries[name] = to


class SimulatedDisk:
    """Stands in for the module `os`. `calls` counts the changes; the power goes at `off_at`."""

    O_CREAT, O_EXCL, O_WRONLY, O_RDONLY = os.O_CREAT, os.O_EXCL, os.O_WRONLY, os.O_RDONLY
    SEEK_SET = os.SEEK_SET
    name = "posix"
    path = os.path

    def __init__(
        self, rng: random.Random, clock: Callable[[], int], root: _Folder | None = None
    ) -> None:
        self.calls = 0
        self.off_at: int | None = None
        self._rng = rng
        self._clock = clock
        self._root = root or _Folder()
        self._open: dict[int, tuple[Any, int]] = {}
        self._next = 100

    @property
    def is_off(self) -> bool:
        return self.off_at is not None and self.calls >= self.off_at

    def step(self) -> None:
        """Something is about to change.

        Raises   PowerLoss
        """
        self.check()
        self.calls += 1

    def check(self) -> None:
        """Raises   PowerLoss"""
        if self.is_off:
            raise PowerLoss

    def after_power_loss(self, clock: Callable[[], int]) -> SimulatedDisk:
        """What the machine finds when it is on again."""
        seen: dict[int, Any] = {}
        root = self._survivor(self._root, seen)
        return SimulatedDisk(self._rng, clock, root)

    def _survivor(self, entry: Any, seen: dict[int, Any]) -> Any:
        if id(entry) in seen:
            return seen[id(entry)]
        if isinstance(entry, _File):
            data = self._survived(entry)
            seen[id(entry)] = _File(bytearray(data), data, entry.changed_ns)
            return seen[id(entry)]
        entries = dict(entry.durable)
        for name, to in entry.pending:
            if self._rng.random() < 0.5:
                _apply(entries, name, to)
        kept = seen[id(entry)] = _Folder()
        kept.now = {name: self._survivor(each, seen) for name, each in entries.items()}
        kept.durable = dict(kept.now)
        return kept

    def _survived(self, file: _File) -> bytes:
        now = bytes(file.now)
        if now == file.durable:
            return now
        way = self._rng.randrange(4)
        if way == 0:
            return file.durable
        if way == 1:  # the size came through, the bytes did not
            return file.durable + bytes(len(now) - len(file.durable))
        if way == 2:
            return now[: self._rng.randint(len(file.durable), len(now))]
        return now

    # What the store asks for.

    def _find(self, path: Any) -> Any:
        entry: Any = self._root
        for name in str(path).strip("/").split("/"):
            if not isinstance(entry, _Folder) or name not in entry.now:
                raise FileNotFoundError(errno.ENOENT, "not there", str(path))
            entry = entry.now[name]
        return entry

    def _folder(self, path: Any) -> tuple[_Folder, str]:
        above, _, name = str(path).strip("/").rpartition("/")
        return (self._find(above) if above else self._root), name

    def open(self, path: Any, flags: int, mode: int = 0) -> int:
        self.check()
        if flags & self.O_CREAT:
            self.step()
            folder, name = self._folder(path)
            if name in folder.now:
                raise FileExistsError(errno.EEXIST, "there already", str(path))
            folder.change(name, _File(changed_ns=self._clock()))
        entry = self._root if str(path) == "/" else self._find(path)
        self._next += 1
        self._open[self._next] = (entry, 0)
        return self._next

    def close(self, descriptor: int) -> None:
        self.check()
        del self._open[descriptor]

    def write(self, descriptor: int, data: Any) -> int:
        self.step()
        file, _ = self._open[descriptor]
        taken = self._rng.randint(1, len(data))  # a disk may take less than it is given
        file.now += bytes(data[:taken])
        file.changed_ns = self._clock()
        return taken

    def read(self, descriptor: int, size: int) -> bytes:
        self.check()
        file, at = self._open[descriptor]
        data = bytes(file.now[at : at + size])
        self._open[descriptor] = (file, at + len(data))
        return data

    def lseek(self, descriptor: int, at: int, _whence: int) -> None:
        self._open[descriptor] = (self._open[descriptor][0], at)

    def fsync(self, descriptor: int) -> None:
        self.step()
        entry, _ = self._open[descriptor]
        if isinstance(entry, _File):
            entry.durable = bytes(entry.now)
        else:
            entry.durable, entry.pending = dict(entry.now), []

    def replace(self, source: str, target: str) -> None:
        self.step()
        old, name = self._folder(source)
        file = self._find(source)
        new, new_name = self._folder(target)
        old.change(name, None)
        new.change(new_name, file)

    def unlink(self, path: str) -> None:
        self.step()
        self._find(path)
        folder, name = self._folder(path)
        folder.change(name, None)

    def mkdir(self, path: Any) -> None:
        self.step()
        folder, name = self._folder(path)
        if name in folder.now:
            raise FileExistsError(errno.EEXIST, "there already", str(path))
        folder.change(name, _Folder())

    def scandir(self, path: str) -> _Listing:
        self.check()
        folder = self._find(path)
        return _Listing([_entry(path, name, each) for name, each in folder.now.items()])

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"the simulated disk has no os.{name}")


def _entry(path: str, name: str, entry: Any) -> Any:
    changed_ns = getattr(entry, "changed_ns", 0)
    status = SimpleNamespace(st_size=len(entry.now), st_mtime_ns=changed_ns)
    return SimpleNamespace(name=name, path=f"{path}/{name}", stat=lambda: status)


class _Listing:
    def __init__(self, entries: list[Any]) -> None:
        self._entries = entries

    def __iter__(self) -> Any:
        return iter(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
