"""`reactive-store dev`: serve while working on the app; a save is live within a second."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

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
from reactive_store.cli.terminal import print_note, show_error
from reactive_store.errors import BadRequest, StoreError

if TYPE_CHECKING:
    from reactive_store.backend import Backend
    from reactive_store.cli.app_watch import AppWatch
    from reactive_store.cli.function_log import CallEnd
    from reactive_store.config import Settings
    from reactive_store.functions.app import App

__all__ = ["dev_command"]


def dev_command(
    app: AppOption = Path(),
    data: DataOption = None,
    store: StoreOption = None,
    files: FilesOption = None,
    host: HostOption = None,
    port: PortOption = None,
    site_port: SitePortOption = None,
) -> None:
    """Serve an app on this machine, with hot reload.

    A save is live within a second; while the code has an error, the last good version goes on
    serving. Clients see error texts and log lines. Keeps the address and the admin key in
    .env.local of the app.
    """
    from reactive_store.config import load_settings

    settings = load_settings(
        app,
        data=data,
        store=store,
        files=files,
        host=_loopback(host),
        port=port,
        site_port=site_port,
        redact=False,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    try:
        asyncio.run(_dev(settings))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _loopback(host: str | None) -> str:
    """The address to listen on: nobody else's business while somebody works.

    Raises   BadRequest[NotLoopback]
    """
    host = host or "127.0.0.1"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise BadRequest(
            f"dev listens on this machine only, not on {host}: it shows error texts and logs to "
            "clients. To serve others, use `reactive-store serve --host …`.",
            code="NotLoopback",
        )
    return host


async def _dev(settings: Settings) -> None:
    from reactive_store.backend import Backend
    from reactive_store.cli.app_watch import AppWatch
    from reactive_store.cli.function_log import observe_calls
    from reactive_store.server.serving import serve

    watch = AppWatch(settings.app, settings.app / settings.functions)
    async with contextlib.aclosing(watch.changes()) as changes:
        backend = await Backend.open(settings, app=await _first_app(settings, watch, changes))
        backend.accept_development_tokens()
        reloading = backend.runtime.spawn(_reload(backend, watch, changes), name="reload")
        try:
            observe_calls(backend.runner, _show_call)
            settle_collector()
            await serve(
                backend,
                host=settings.host,
                port=settings.port,
                site_port=settings.site_port,
                ready=lambda url: _announce(backend, url),
            )
        finally:
            reloading.cancel()
            await asyncio.gather(reloading, return_exceptions=True)
            await backend.close()


async def _first_app(settings: Settings, watch: AppWatch, changes: AsyncIterator[None]) -> App:
    """The app, as soon as it can be loaded."""
    while True:
        try:
            return _load(settings, watch)
        except StoreError as error:
            _show_failure(error, "Nothing is served yet; waiting for the next save.")
            await anext(changes)


def _load(settings: Settings, watch: AppWatch) -> App:
    from reactive_store.functions.loader import load_app

    app = load_app(settings.app, schema=settings.schema_file, functions=settings.functions)
    watch.include(app.files)
    return app


async def _reload(backend: Backend, watch: AppWatch, changes: AsyncIterator[None]) -> None:
    """Put every good save in force; the data decides with the code what is good."""
    runtime = backend.runtime
    async for _ in changes:
        started_s = runtime.monotonic_s()
        app: App | None = None
        try:
            app = _load(backend.settings, watch)
            await backend.reload(app)
        except StoreError as error:
            if app is not None:
                app.close()
            _show_failure(error, "The last good version goes on serving.")
            continue
        milliseconds = (runtime.monotonic_s() - started_s) * 1000
        print(f"Reloaded {len(app.functions)} functions in {milliseconds:.0f} ms", flush=True)


def _announce(backend: Backend, url: str) -> None:
    from reactive_store.cli.env_file import deployment_variables, write_env_file

    backend.announce(url)
    settings = backend.settings
    print(f"Serving {url}")
    print(f"  app   {settings.app}")
    print(f"  data  {settings.data}")
    env_file = settings.app / ".env.local"
    try:
        write_env_file(env_file, deployment_variables(url, backend.admin_keys.issue()))
    except (OSError, UnicodeDecodeError) as error:
        print_note(f"{env_file} was left alone: {error}")
    else:
        print(f"  env   {env_file}")
    print("Ctrl-C stops it.", flush=True)


def _show_failure(error: StoreError, consequence: str) -> None:
    """An error in the app, whole: its traceback is what its author needs."""
    if not sys.stderr.isatty():
        print(f"error: {error.message}\n{consequence}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    Console(stderr=True).print(
        Panel(Text(error.message), title="error", subtitle=consequence, border_style="red")
    )


def _show_call(end: CallEnd) -> None:
    for line in end.log_lines:
        print(f"[{end.path}] {line}", flush=True)
    if end.error is not None:
        show_error(f"[{end.path}] {end.error}")
