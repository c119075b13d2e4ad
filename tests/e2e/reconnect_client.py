"""PyPI's convex client in a process of its own: watches one counter, increments it on order.

Run as a program with a URL and the counter's name. Orders and events are lines of JSON; see
client_script.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from convex import ConvexClient

__all__ = ["main"]


def report(event: str, **details: Any) -> None:
    """Tell the test that something happened."""
    print(json.dumps({"event": event, **details}), flush=True)


async def main(url: str, name: str) -> None:
    """Until the order "quit" or the end of the orders."""
    client = ConvexClient(url)

    async def watch() -> None:
        async for value in client.subscribe("counters:value", {"name": name}):
            report("value", value=value)

    watching = asyncio.create_task(watch())
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        if order["order"] == "quit":
            break
        report("asked")
        if order["order"] == "act":
            given = {"name": name, "seconds": order["seconds"]}
            report("answered", result=client.action("counters:incrementSlowly", given))
            continue
        report("answered", result=client.mutation("counters:increment", {"name": name}))
    watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
