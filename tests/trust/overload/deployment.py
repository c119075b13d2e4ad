"""A server process under attack: the attacked app, chosen limits, and what it costs.

Limits travel as they do for users, in the app's pyproject.toml; so each deployment serves a copy of
the app. Under a breakage the same command line runs in `tests.trust.broken_server`.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from reactive_store.limits import Limits
from tests.e2e.server_process import ServerProcess
from tests.trust.breakage import Breakage

__all__ = ["KIB", "MIB", "Deployment"]

KIB, MIB = 1024, 1024 * 1024
ROOT = Path(__file__).resolve().parents[3]
_BREAKAGES = "tests.trust.overload.breakages"


class Deployment(ServerProcess):
    """`ServerProcess` with limits and breakages. `limits` is what is in force, for bounds."""

    SOURCE = Path(__file__).resolve().parent / "app"
    folder = ROOT  # where `tests` can be imported

    def __init__(self, folder: Path, *, breakage: Breakage | None = None, **limits: float) -> None:
        app = folder / "app"
        shutil.copytree(self.SOURCE, app, ignore=shutil.ignore_patterns("__pycache__"))
        lines = "".join(f"{name} = {value}\n" for name, value in limits.items())
        (app / "pyproject.toml").write_text(f"[tool.reactive_store.limits]\n{lines}")
        super().__init__(app, folder / "data", options=("--no-redact", "--memory", "64MiB"))
        self.breakage = breakage
        self.limits = Limits(**limits)  # type: ignore[arg-type]

    def program(self) -> list[str]:
        """As the base class, through `broken_server` when there is a breakage."""
        if self.breakage is None:
            return super().program()
        return ["-m", "tests.trust.broken_server", f"{_BREAKAGES}:{self.breakage.name}"]

    def log(self) -> str:
        """What it has written to standard error so far."""
        return self._file("stderr").read_text(errors="replace")

    def peak_bytes(self) -> int:
        """The most memory it has held since the start or `forget_peak` (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) * KIB

    def forget_peak(self) -> int:
        """Start a new peak; what it holds now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.resident_bytes()

    def open_files(self) -> int:
        """Descriptors it holds: sockets, mostly (Linux)."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))
