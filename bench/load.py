"""The load generator, a process of its own: `python -m bench.load NAME JSON` prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from bench import file_load, http_load, sync_load

__all__ = ["main"]

LOADS = {**sync_load.LOADS, **http_load.LOADS, **file_load.LOADS}


def main() -> None:
    """Run one load and print what it measured."""
    name, arguments = sys.argv[1:]

    async def run() -> object:
        return await LOADS[name](**json.loads(arguments))

    print(json.dumps(asyncio.run(run())))


if __name__ == "__main__":
    main()
