"""`reactive-store serve`: a deployment for production."""

from __future__ import annotations

import asyncio
import logging
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reactive_store.cli.collector import settle_collector
from reactive_store.cli.options import (
    AppOption,
    DataOption,
    FilesOption,
    HostOption,
    PortOption,
    SitePortOption,
    StoreOption,
)

if TYPE_CHECKING:
    from reactive_store.cli.function_log import CallEnd
    from reactive_store.config import Settings

__all__ = ["Durability", "serve_command"]

_LOG = logging.getLogger("reactive_store.functions")


class Durability(Enum):
    """What a commit survives."""

    FULL = "full"
    NORMAL = "normal"


def serve_command(
    app: AppOption = Path(),
    data: DataOption = None,
    store: StoreOption = None,
    files: FilesOption = None,
    host: HostOption = None,
    port: PortOption = None,
    site_port: SitePortOption = None,
    redact: Annotated[
        bool | None,
        typer.Option(
            "--redact/--no-redact",
            help="Hide error texts and log lines of functions from clients; on by default.",
        ),
    ] = None,
    durability: Annotated[
        Durability | None,
        typer.Option(
            "--durability",
            help="full (default): commits survive loss of power. normal: they survive a crash.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="What recently read documents may take in memory, as 512MiB; by default 256MiB.",
        ),
    ] = None,
) -> None:
    """Serve an app for production.

    Prints one line with the URL once it accepts connections; logs go to standard error. SIGTERM
    and Ctrl-C end it after what was accepted is durable.
    """
    from reactive_store.config import load_settings

    settings = load_settings(
        app,
        data=data,
        store=store,
        files=files,
        host=host,
        port=port,
        site_port=site_port,
        redact=redact,
        durability=None if durability is None else durability.value,
        memory=memory,
    )
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for chatty in ("uvicorn", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from reactive_store.backend import Backend
    from reactive_store.cli.function_log import observe_calls
    from reactive_store.functions.loader import load_app
    from reactive_store.server.serving import serve

    app = load_app(settings.app, schema=settings.schema_file, functions=settings.functions)
    backend = await Backend.open(settings, app=app)
    try:
        observe_calls(backend.runner, _log_call)

        def ready(url: str) -> None:
            backend.announce(url)
            print(f"Serving {url}", flush=True)

        settle_collector()
        await serve(
            backend,
            host=settings.host,
            port=settings.port,
            site_port=settings.site_port,
            ready=ready,
        )
    finally:
        await backend.close()


def _log_call(end: CallEnd) -> None:
    """What clients are not told has to stand somewhere."""
    for line in end.log_lines:
        _LOG.info("%s %s", end.path, line)
    if end.error is not None:
        _LOG.warning("%s failed: %s", end.path, end.error)
