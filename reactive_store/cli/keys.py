"""`reactive-store keys`: what administrators prove themselves with."""

from __future__ import annotations

from pathlib import Path

import typer

from reactive_store.cli.options import AppOption, DataOption, StoreOption

__all__ = ["commands", "print_admin_key"]

commands = typer.Typer(no_args_is_help=True, help="Keys of a deployment.")


@commands.callback()
def _group() -> None:
    """Keys of a deployment."""


@commands.command("admin")
def print_admin_key(
    app: AppOption = Path(), data: DataOption = None, store: StoreOption = None
) -> None:
    """Print the admin key of a data folder, running or not, and nothing else.

    Whoever has it may do everything. It stays the same as long as the data folder.
    """
    from reactive_store.cli.admin_key import read_admin_key
    from reactive_store.config import load_settings

    print(read_admin_key(load_settings(app, data=data, store=store)))
