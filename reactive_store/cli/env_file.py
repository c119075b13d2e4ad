"""`.env.local`: the deployment's address and key, where clients and Convex's tools look for them.

The file is the user's. Three names in it are kept up to date in the place where they stand; every
other line stays as it is, byte for byte. A value that points elsewhere is not ours: it is kept in a
comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["deployment_variables", "merge_env_file", "write_env_file"]

_NOT_LOOPBACK: Final = re.compile(r"https?://(?!127\.0\.0\.1\b|localhost\b|\[::1\])")


def deployment_variables(url: str, admin_key: str) -> dict[str, str]:
    """What the file says about a deployment."""
    return {
        "CONVEX_URL": url,
        "CONVEX_SELF_HOSTED_URL": url,
        "CONVEX_SELF_HOSTED_ADMIN_KEY": admin_key,
    }


def write_env_file(path: Path, variables: Mapping[str, str]) -> bool:
    """Bring the file up to date, making it if need be; whether it changed.

    A new file can be read by its owner only: it holds a key.
    """
    before = path.read_bytes().decode("utf-8") if path.exists() else ""
    after = merge_env_file(before, variables)
    if after == before:
        return False
    if not path.exists():
        path.touch(mode=0o600)
    path.write_bytes(after.encode("utf-8"))
    return True


def merge_env_file(text: str, variables: Mapping[str, str]) -> str:
    """The text with the variables set: in their places, or at the end."""
    end = "\r\n" if "\r\n" in text else "\n"
    missing = dict(variables)
    lines: list[str] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        found = re.match(
            r"(\s*(?:export\s+)?([A-Za-z_]\w*)\s*=[ \t]*)(.*?)(\s+#.*?)?(\r?\n?)$", line
        )
        name = found[2] if found else ""
        if found is None or name not in variables:
            lines.append(line)
            continue
        head, _, old, comment, ending = found.groups()
        old_value = old.strip("\"'")
        if _NOT_LOOPBACK.match(old_value) and old_value != variables[name]:
            lines.append(f"# {line.strip()}{end}")
        missing.pop(name, None)
        value = old if old_value == variables[name] else variables[name]
        lines.append(f"{head}{value}{comment or ''}{ending}")
    added = [f"{name}={value}{end}" for name, value in missing.items()]
    if added and lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    return "".join(lines + added)
