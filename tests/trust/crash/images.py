"""What may be on a disk after power was lost, made from a recording.

A file's content up to its last sync is certain. Of what was written to it since, any part may have
arrived: nothing, the first so many, or any choice of them, in whatever order the disk liked; of the
last one only some sectors. Names made or deleted since the directory's last sync may be there or
not, in their order, as a journaled file system has it. Shared memory is gone.

    for image in Images(tape).at_every_event(rng, kinds): image.write(directory)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.trust.crash.recording_vfs import (
    Create,
    Delete,
    Event,
    Mark,
    Sync,
    SyncNames,
    Tape,
    Truncate,
    Write,
)

__all__ = ["KINDS", "Image", "Kept", "again", "image_at", "images"]

SECTOR: Final = 512

Change = Write | Truncate


@dataclass(slots=True)
class _File:
    """One file: what is certain, and what was written since."""

    certain: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Change]] = field(default_factory=list)  # with the event's number
    synced_at: int = -1


@dataclass(frozen=True, slots=True)
class Kept:
    """Which pending changes arrived: event numbers, and the sectors of a torn write."""

    events: tuple[int, ...]
    torn: tuple[tuple[int, tuple[int, ...]], ...] = ()  # event → sectors of it that arrived
    names: int = 0  # how many pending changes of names arrived


@dataclass(frozen=True, slots=True)
class Image:
    """One possible disk. `at` is the number of events that had happened."""

    at: int
    kind: str
    kept: Kept
    lost: tuple[int, ...]  # events that had happened and did not arrive
    files: dict[str, bytes]
    key: tuple[object, ...]  # equal for equal content

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def _apply(content: bytearray, change: Change) -> None:
    if isinstance(change, Truncate):
        if change.size < len(content):
            del content[change.size :]
        else:
            content.extend(bytes(change.size - len(content)))
        return
    _put(content, change.offset, change.data)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, write: Write, sectors: tuple[int, ...]) -> None:
    """Put those pieces of a write down that share a sector of the file with one that arrived."""
    first = write.offset // SECTOR
    for sector in sectors:
        low = max((first + sector) * SECTOR, write.offset)
        high = min((first + sector + 1) * SECTOR, write.offset + len(write.data))
        _put(content, low, write.data[low - write.offset : high - write.offset])


def _sector_count(write: Write) -> int:
    return (write.offset + len(write.data) - 1) // SECTOR - write.offset // SECTOR + 1


Chooser = Callable[[random.Random, list[list[tuple[int, Change]]]], Kept]


def _lost(_: random.Random, __: list[list[tuple[int, Change]]]) -> Kept:
    return Kept(())


def _all(_: random.Random, files: list[list[tuple[int, Change]]]) -> Kept:
    return Kept(tuple(number for changes in files for number, _ in changes))


def _in_order(rng: random.Random, files: list[list[tuple[int, Change]]]) -> Kept:
    return Kept(
        tuple(number for changes in files for number, _ in changes[: rng.randint(0, len(changes))])
    )


def _any(rng: random.Random, files: list[list[tuple[int, Change]]]) -> Kept:
    share = rng.choice((0.2, 0.5, 0.8))
    return Kept(tuple(number for changes in files for number, _ in changes if rng.random() < share))


def _torn(rng: random.Random, files: list[list[tuple[int, Change]]]) -> Kept:
    """A run of changes per file, the last of which is torn, if it is a write."""
    events: list[int] = []
    torn: list[tuple[int, tuple[int, ...]]] = []
    for changes in files:
        run = changes[: rng.randint(0, len(changes))]
        if not run:
            continue
        number, last = run[-1]
        events += (each for each, _ in run)
        if isinstance(last, Write):
            count = _sector_count(last)
            if rng.random() < 0.5:  # the first so many
                sectors = tuple(range(rng.randint(0, count)))
            else:
                sectors = tuple(each for each in range(count) if rng.random() < 0.5)
            torn.append((number, sectors))
    return Kept(tuple(events), tuple(torn))


KINDS: Final[dict[str, Chooser]] = {
    "nothing since the last sync": _lost,
    "everything": _all,
    "kept in order": _in_order,
    "any choice": _any,
    "last one torn": _torn,
}


class _Disk:
    """The disk at one point of the stream."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}  # certain
        self._pending_names: list[Create | Delete] = []
        self.at = 0

    def step(self, event: Event) -> None:
        match event:
            case Write() | Truncate():
                self._files[event.file].pending.append((self.at, event))
            case Sync():
                file = self._files[event.file]
                for _, change in file.pending:
                    _apply(file.certain, change)
                file.pending.clear()
                file.synced_at = self.at
            case Create():
                self._files[event.file] = _File()
                self._pending_names.append(event)
            case Delete():
                self._pending_names.append(event)
            case SyncNames():
                self._names = self._names_after(len(self._pending_names))
                self._pending_names.clear()
            case Mark():
                pass
        self.at += 1

    def _names_after(self, count: int) -> dict[str, int]:
        names = dict(self._names)
        for change in self._pending_names[:count]:
            if isinstance(change, Create):
                names[change.name] = change.file
            else:
                names.pop(change.name, None)
        return names

    def image(self, kind: str, rng: random.Random) -> Image:
        pending = [file.pending for file in self._files.values() if file.pending]
        kept = KINDS[kind](rng, pending)
        count = len(self._pending_names)
        names = {"nothing since the last sync": 0, "everything": count}.get(
            kind, rng.randint(0, count)
        )
        return self.image_of(kind, Kept(kept.events, kept.torn, names))

    def image_of(self, kind: str, kept: Kept) -> Image:
        chosen, torn = set(kept.events), dict(kept.torn)
        files: dict[str, bytes] = {}
        key: list[object] = []
        lost: list[int] = []
        for name, number in sorted(self._names_after(kept.names).items()):
            file = self._files[number]
            content = bytearray(file.certain)
            here = []
            for event, change in file.pending:
                if event not in chosen:
                    lost.append(event)
                elif event in torn and isinstance(change, Write):
                    _apply_torn(content, change, torn[event])
                    here.append((event, torn[event]))
                else:
                    _apply(content, change)
                    here.append((event, None))
            files[name] = bytes(content)
            key.append((name, number, file.synced_at, tuple(here)))
        return Image(self.at, kind, kept, tuple(lost), files, tuple(key))


def images(
    tape: Tape, rng: random.Random, choices: int = 1, *, only_last: bool = False
) -> Iterator[Image]:
    """Images after every event that changes the disk: one of the certain kinds, `choices` of each
    kind that draws. `only_last`: what is certain at the end, and nothing else."""
    disk = _Disk(tape)
    for event in list(tape.events):
        disk.step(event)
        if only_last:
            continue
        if isinstance(event, Mark):
            # Nothing happened to the disk, but more may be asked of it now.
            yield disk.image("nothing since the last sync", rng)
            continue
        for kind in KINDS:
            drawn = kind in ("kept in order", "any choice", "last one torn")
            for _ in range(choices if drawn else 1):
                yield disk.image(kind, rng)
    if only_last:
        yield disk.image("nothing since the last sync", rng)


def image_at(tape: Tape, at: int, kind: str, rng: random.Random) -> Image:
    """One image of the moment after `at` events."""
    disk = _Disk(tape)
    for event in tape.events[:at]:
        disk.step(event)
    return disk.image(kind, rng)


def again(tape: Tape, image: Image, kept: Kept) -> Image:
    """Another image of the same moment: for finding the smallest one that shows a problem."""
    disk = _Disk(tape)
    for event in tape.events[: image.at]:
        disk.step(event)
    return disk.image_of(image.kind, kept)
