"""The app of this folder on a real server, whole or broken on purpose."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.server_process import ServerProcess
from tests.trust.breakage import Breakage
from tests.trust.history.in_process import APP

__all__ = ["Served"]

_BREAKAGES = "tests.trust.history.breakages"
_ROOT = Path(__file__).resolve().parents[3]
_URL = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Served(ServerProcess):
    """`with Served(folder) as server`; with a breakage it runs through `broken_server`."""

    def __init__(self, folder: Path, breakage: Breakage | None = None) -> None:
        super().__init__(APP, folder / "data", options=("--no-redact",))
        self._breakage = breakage

    def start(self) -> str:
        """As the base class.

        Raises   AssertionError with everything the server said, when it does not come up
        """
        if self._breakage is None:
            return super().start()
        self._runs += 1
        command = [
            sys.executable, "-m", "tests.trust.broken_server",
            f"{_BREAKAGES}:{self._breakage.name}", "serve",
            "--app", str(self.app), "--data", str(self.data),
            "--host", "127.0.0.1", "--port", str(self.port), "--site-port", "0", *self.options,
        ]  # fmt: skip
        with self._file("stdout").open("wb") as out, self._file("stderr").open("wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=_ROOT
            )
        give_up = time.monotonic() + self.start_seconds
        while time.monotonic() < give_up and self.process.poll() is None:
            found = _URL.search(self._file("stdout").read_text(errors="replace"))
            if found:
                self.port = int(found.group(1))
                return self.url
            time.sleep(0.01)
        raise AssertionError(f"the broken server does not serve\n{self.said()}")
