"""The ceiling of durability: reactive_store as it is, with bench/app, on a store in memory.

    python -m bench.memory_server

It prints its port. Nothing is written anywhere; everything above the store is the product's own.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from bench.programs import APP
from reactive_store.backend import Backend
from reactive_store.cli.collector import settle_collector
from reactive_store.config import load_settings
from reactive_store.functions.loader import load_app
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.server.serving import serve

__all__ = ["main"]


async def _serve(folder: Path) -> None:
    settings = load_settings(APP, data=folder)
    backend = await Backend.open(settings, app=load_app(APP), persistence=MemoryPersistence())
    try:
        settle_collector()
        await serve(
            backend,
            host="127.0.0.1",
            port=0,
            ready=lambda url: print(url.rpartition(":")[2], flush=True),
        )
    finally:
        await backend.close()


def main() -> None:
    """Serve until the process is ended."""
    with tempfile.TemporaryDirectory(prefix="reactive-store-bench-") as folder:
        asyncio.run(_serve(Path(folder)))


if __name__ == "__main__":
    main()
