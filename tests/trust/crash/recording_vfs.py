"""SQLite as the disk sees it: every write, cut, sync and directory change, in one numbered stream.

`recording(directory)` makes a shim the default VFS of the libsqlite3 that Python's `sqlite3` uses.
Files are opened by SQLite's own unix VFS; of files inside the directory the table of methods is
replaced by a copy in which writing, truncating and syncing go through here first. Everything else
(reads, locks, shared memory) stays native.

The record says what a disk may have kept when power is lost, under POSIX's words and no more:
content is certain after a sync of its file, a name after a sync of its directory.

A `fault` looks at each write and sync before it happens and may answer it with an error of SQLite.

Source: SQLite's documentation of the OS interface (sqlite3_vfs, sqlite3_io_methods).
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "SQLITE_FULL",
    "SQLITE_IOERR_FSYNC",
    "SQLITE_IOERR_READ",
    "SQLITE_IOERR_SHORT_READ",
    "SQLITE_IOERR_WRITE",
    "Create",
    "Delete",
    "Event",
    "Mark",
    "Sync",
    "SyncNames",
    "Tape",
    "Truncate",
    "Write",
    "recording",
]

SQLITE_OK, SQLITE_IOERR, SQLITE_FULL = 0, 10, 13
SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC = 778, 1034
SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ = 266, 522

_P = ctypes.c_void_p
_I = ctypes.c_int
_OPEN = ctypes.CFUNCTYPE(_I, _P, _P, _P, _I, ctypes.POINTER(_I))
_DELETE = ctypes.CFUNCTYPE(_I, _P, ctypes.c_char_p, _I)
_WRITE = ctypes.CFUNCTYPE(_I, _P, _P, _I, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(_I, _P, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(_I, _P, _I)
_READ = ctypes.CFUNCTYPE(_I, _P, _P, _I, ctypes.c_int64)
_SET_CALL = ctypes.CFUNCTYPE(_I, _P, ctypes.c_char_p, _P)
_GET_CALL = ctypes.CFUNCTYPE(_P, _P, ctypes.c_char_p)
_OPEN_DIRECTORY = ctypes.CFUNCTYPE(_I, ctypes.c_char_p, ctypes.POINTER(_I))


class _Methods(ctypes.Structure):
    _fields_ = [
        ("version", _I),
        ("close", _P),
        ("read", _P),
        ("write", _P),
        ("truncate", _P),
        ("sync", _P),
        *((name, _P) for name in ("size", "lock", "unlock", "reserved", "control", "sector")),
        *((name, _P) for name in ("device", "map", "shm_lock", "barrier", "unmap")),
        *((name, _P) for name in ("fetch", "unfetch")),
    ]


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", _I),
        ("file_bytes", _I),
        ("path_bytes", _I),
        ("next", _P),
        ("name", ctypes.c_char_p),
        ("data", _P),
        ("open", _P),
        ("delete", _P),
        *((name, _P) for name in ("access", "full_path", "dl_open", "dl_error", "dl_sym")),
        *((name, _P) for name in ("dl_close", "random", "sleep", "time", "last_error")),
        ("time64", _P),
        ("set_call", _P),
        ("get_call", _P),
        ("next_call", _P),
    ]


class Write(NamedTuple):
    """Bytes into a file. `file` is a number: a name made anew is another file."""

    file: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: int
    size: int


class Sync(NamedTuple):
    file: int


class Create(NamedTuple):
    name: str
    file: int


class Delete(NamedTuple):
    name: str


class SyncNames(NamedTuple):
    """The directory was synced: the names in it are as they are."""


class Mark(NamedTuple):
    """Something the workload says at this point of the stream."""

    value: Any


Event = Write | Truncate | Sync | Create | Delete | SyncNames | Mark


class Tape:
    """The stream of one directory, and the fault that is put into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory.resolve())
        self.events: list[Event] = []
        self.files: dict[str, int] = {}  # by name, as the running system sees it
        self.names: dict[int, str] = {}
        self.begun = 0  # so many events stand for what was there before
        self.operations = 0  # writes, truncations and syncs so far
        # (operation, its number) → an error of SQLite, or SQLITE_OK to let it happen.
        self.fault: Callable[[str, int], int] | None = None
        # (name of the file, number of the read) → the same. Reads go through here only if it is
        # set when a file is opened; then they do not go through the memory map.
        self.read_fault: Callable[[str, int], int] | None = None
        self.reads = 0

    def mark(self, value: Any) -> None:
        self.events.append(Mark(value))

    def _name(self, path: str) -> str | None:
        head, name = os.path.split(path)
        return name if head == self.directory and not name.endswith("-shm") else None

    def opened(self, path: str, *, existed: bool) -> int | None:
        """The number of the file behind a path, when it is one of ours."""
        name = self._name(path)
        if name is None:
            return None
        if name not in self.files or not existed:
            number = len(self.names) + 1
            self.files[name] = number
            self.names[number] = name
            self.events.append(Create(name, number))
        return self.files[name]

    def deleted(self, path: str) -> None:
        name = self._name(path)
        if name is not None and self.files.pop(name, None) is not None:
            self.events.append(Delete(name))

    def names_synced(self, directory: str) -> None:
        if directory == self.directory:
            self.events.append(SyncNames())

    def refused(self, operation: str) -> int:
        """Count an operation; the error it is to end with, if any."""
        self.operations += 1
        return SQLITE_OK if self.fault is None else self.fault(operation, self.operations)


def _library() -> ctypes.CDLL:
    """The libsqlite3 that the `sqlite3` module of this Python calls."""
    sqlite3.connect(":memory:").close()
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"\S*/libsqlite3\S*", maps)
    path = found[0] if found else _sqlite3.__file__
    library = ctypes.CDLL(path)
    if not hasattr(library, "sqlite3_vfs_register"):
        raise RuntimeError(
            "this Python has SQLite linked into it and does not export its functions: the power "
            "loss tests need an interpreter that uses a shared libsqlite3"
        )
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
    library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), _I]
    library.sqlite3_vfs_unregister.argtypes = [ctypes.POINTER(_Vfs)]
    assert library.sqlite3_libversion_number() == _version_number(), "not the library in use"
    return library


def _version_number() -> int:
    major, minor, patch = sqlite3.sqlite_version_info
    return major * 1_000_000 + minor * 1000 + patch


class _Shim:
    """The VFS. Made once and kept for ever: connections may outlive the recording."""

    def __init__(self) -> None:
        self.tape: Tape | None = None
        self._library = _library()
        self._unix = self._library.sqlite3_vfs_find(None)
        unix = self._unix.contents
        self._unix_open = _OPEN(unix.open)
        self._unix_delete = _DELETE(unix.delete)
        self._numbers: dict[int, int] = {}  # address of an open file → its number on the tape
        # Address of a table of methods, and whether reads count → ours.
        self._tables: dict[tuple[int, bool], _Methods] = {}
        self._native: dict[int, tuple[Any, ...]] = {}  # address of ours → native calls
        # Kept alive: SQLite holds only their addresses.
        self._write = _WRITE(self._on_write)
        self._truncate = _TRUNCATE(self._on_truncate)
        self._sync = _SYNC(self._on_sync)
        self._read = _READ(self._on_read)
        self._open = _OPEN(self._on_open)
        self._delete = _DELETE(self._on_delete)
        own = _Vfs()
        ctypes.pointer(own)[0] = unix
        own.name = b"recording"
        own.next = None
        own.open = ctypes.cast(self._open, _P)
        own.delete = ctypes.cast(self._delete, _P)
        self._own = own
        get_call, self._set_call = _GET_CALL(unix.get_call), _SET_CALL(unix.set_call)
        self._native_directory = _OPEN_DIRECTORY(get_call(ctypes.addressof(unix), b"openDirectory"))
        self._directory = _OPEN_DIRECTORY(self._on_open_directory)

    def install(self, tape: Tape) -> None:
        assert self.tape is None, "one recording at a time"
        self.tape = tape
        self._library.sqlite3_vfs_register(ctypes.byref(self._own), 1)
        # SQLite opens a directory only to sync it.
        address = ctypes.cast(self._directory, _P)
        self._set_call(ctypes.addressof(self._unix.contents), b"openDirectory", address)

    def remove(self) -> None:
        self.tape = None
        self._set_call(ctypes.addressof(self._unix.contents), b"openDirectory", None)
        self._library.sqlite3_vfs_register(self._unix, 1)
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._own))

    # Called by SQLite, on any thread.

    def _on_open(self, _: int, name: int | None, file: int, flags: int, out: Any) -> int:
        path = None if name is None else os.fsdecode(ctypes.string_at(name))
        existed = path is not None and os.path.exists(path)
        unix = ctypes.addressof(self._unix.contents)
        code = self._unix_open(unix, name, file, flags, out)
        tape = self.tape
        if code == SQLITE_OK and tape is not None and path is not None:
            number = tape.opened(path, existed=existed)
            if number is not None:
                self._numbers[file] = number
                methods = ctypes.cast(file, ctypes.POINTER(_P))
                methods[0] = self._replaced(methods[0], tape.read_fault is not None)
        return code

    def _replaced(self, address: int, counts_reads: bool) -> int:
        own = self._tables.get((address, counts_reads))
        if own is None:
            native = _Methods.from_address(address)
            own = _Methods()
            ctypes.pointer(own)[0] = native
            own.write = ctypes.cast(self._write, _P)
            own.truncate = ctypes.cast(self._truncate, _P)
            own.sync = ctypes.cast(self._sync, _P)
            if counts_reads:
                own.read = ctypes.cast(self._read, _P)
                own.version = 2  # the memory map came with 3
            self._tables[address, counts_reads] = own
            self._native[ctypes.addressof(own)] = (
                _WRITE(native.write),
                _TRUNCATE(native.truncate),
                _SYNC(native.sync),
                _READ(native.read),
            )
        return ctypes.addressof(own)

    def _calls(self, file: int) -> tuple[Any, ...]:
        return self._native[ctypes.cast(file, ctypes.POINTER(_P))[0]]

    def _on_read(self, file: int, out: int, size: int, offset: int) -> int:
        tape = self.tape
        if tape is not None and tape.read_fault is not None:
            tape.reads += 1
            code = tape.read_fault(tape.names[self._numbers[file]], tape.reads)
            if code:
                # What a read that came short did not bring is zero, by SQLite's rules.
                ctypes.memset(out, 0, size)
                return code
        return self._calls(file)[3](file, out, size, offset)

    def _on_write(self, file: int, data: int, size: int, offset: int) -> int:
        tape = self.tape
        if tape is None:
            return self._calls(file)[0](file, data, size, offset)
        code = tape.refused("write")
        if code:
            # A disk that is full takes what fits; here the first half of an odd write.
            size = size // 2 if tape.operations % 2 else 0
        if size:
            tape.events.append(Write(self._numbers[file], offset, ctypes.string_at(data, size)))
            code = self._calls(file)[0](file, data, size, offset) or code
        return code

    def _on_truncate(self, file: int, size: int) -> int:
        tape = self.tape
        if tape is not None:
            code = tape.refused("truncate")
            if code:
                return code
            tape.events.append(Truncate(self._numbers[file], size))
        return self._calls(file)[1](file, size)

    def _on_sync(self, file: int, flags: int) -> int:
        tape = self.tape
        if tape is not None:
            code = tape.refused("sync")
            if code:
                return code
            tape.events.append(Sync(self._numbers[file]))
        # The first sync of a journal or write-ahead log syncs its directory as well.
        return self._calls(file)[2](file, flags)

    def _on_delete(self, _: int, path: bytes, sync_names: int) -> int:
        unix = ctypes.addressof(self._unix.contents)
        tape = self.tape
        if tape is not None:
            tape.deleted(os.fsdecode(path))
        return self._unix_delete(unix, path, sync_names)

    def _on_open_directory(self, path: bytes, out: Any) -> int:
        tape = self.tape
        if tape is not None:
            tape.names_synced(os.path.dirname(os.fsdecode(path)))
        return self._native_directory(path, out)


_shims: list[_Shim] = []


@contextmanager
def recording(directory: Path, *, holding: Mapping[str, bytes] | None = None) -> Iterator[Tape]:
    """Record what SQLite does to the files in `directory`, which must be there, until the end.

    `holding`: files that are in it already, durably.
    """
    if not _shims:
        _shims.append(_Shim())
    tape = Tape(directory)
    for name, content in (holding or {}).items():
        number = tape.opened(str(directory.resolve() / name), existed=False)
        assert number is not None
        tape.events += (Write(number, 0, content), Sync(number))
    tape.names_synced(tape.directory)
    tape.begun = len(tape.events)
    _shims[0].install(tape)
    try:
        yield tape
    finally:
        _shims[0].remove()
