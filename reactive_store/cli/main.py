"""The commands put together, and the one place where their failures become text and exit codes.

Exit codes: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from reactive_store.cli.data import data_command
from reactive_store.cli.dev import dev_command
from reactive_store.cli.env import commands as environment_commands
from reactive_store.cli.init import init_command
from reactive_store.cli.keys import commands as key_commands
from reactive_store.cli.run import run_command
from reactive_store.cli.serve import serve_command
from reactive_store.cli.terminal import show_error
from reactive_store.cli.token import token_command
from reactive_store.errors import StoreError

__all__ = ["app", "main"]

app = typer.Typer(
    name="reactive-store",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes and colour for people; plain lines, and a quicker start, for everything else.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init_command)
app.command("dev")(dev_command)
app.command("serve")(serve_command)
app.command("run")(run_command)
app.command("data")(data_command)
app.command("token")(token_command)
app.add_typer(environment_commands, name="env")
app.add_typer(key_commands, name="keys")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("reactive_store")
        except PackageNotFoundError:  # runs from a bare directory
            number = "unknown"
        print(f"reactive-store {number}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A reactive backend in Python: tables, functions and live queries for Convex clients."""


def main() -> None:
    """Run the program with the arguments of this process."""
    try:
        app()
    except StoreError as error:
        show_error(error.message)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has had enough; what is left must not fail at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
