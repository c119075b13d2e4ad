"""Notices that the files of an app have changed.

The operating system's notices only wake us; what counts is a comparison of times and sizes with
those of the last look, so that no change is lost while a watch is set up anew, and none is reported
that is none. Where there are no notices (some network drives) the look comes once a second.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from watchfiles import awatch

__all__ = ["AppWatch"]

_LOOK_MS: Final = 1000
_QUIET_MS: Final = 50  # an editor's several writes of one save come closer together
_AT_MOST_MS: Final = 300


class AppWatch:
    """The Python files of one app: of its folder, and everything below its functions."""

    def __init__(self, root: Path, functions: Path) -> None:
        self._root = root
        self._functions = functions
        self._extra: frozenset[Path] = frozenset()
        self._seen = self._look()

    def include(self, files: frozenset[Path]) -> None:
        """Also watch these files: what the app was made of, wherever it lies."""
        added = files - self._extra
        self._extra |= added
        self._seen = {**self._stamps(added), **self._seen}

    async def changes(self) -> AsyncGenerator[None]:
        """Yields after each change; several at once are one. Ends by being closed."""
        while True:
            folders = self._folders()
            async for _ in awatch(
                *folders,
                recursive=False,
                watch_filter=None,
                debounce=_AT_MOST_MS,
                step=_QUIET_MS,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
            ):
                seen = self._look()
                if seen != self._seen:
                    self._seen = seen
                    yield
                if self._folders() != folders:
                    break

    def _folders(self) -> frozenset[Path]:
        folders = {self._root, *(file.parent for file in self._extra)}
        if self._functions.is_dir():
            folders |= {self._functions, *_folders_below(self._functions)}
        return frozenset(folder for folder in folders if folder.is_dir())

    def _look(self) -> dict[Path, tuple[int, int]]:
        files = {*self._root.glob("*.py"), *self._extra}
        for folder in self._folders():
            if folder.is_relative_to(self._functions):
                files |= set(folder.glob("*.py"))
        return self._stamps(files)

    @staticmethod
    def _stamps(files: frozenset[Path] | set[Path]) -> dict[Path, tuple[int, int]]:
        stamps = {}
        for file in files:
            try:
                status = file.stat()
            except OSError:
                continue  # gone: its absence is what changes
            stamps[file] = (status.st_mtime_ns, status.st_size)
        return stamps


def _folders_below(folder: Path) -> set[Path]:
    return {
        path
        for path in folder.rglob("*")
        if path.is_dir() and "__pycache__" not in path.parts and "node_modules" not in path.parts
    }
