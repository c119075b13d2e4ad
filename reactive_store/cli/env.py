"""`reactive-store env`: the deployment's environment variables, which functions read as ctx.env."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reactive_store.cli.options import (
    AdminKeyOption,
    AppOption,
    DataOption,
    JsonOption,
    UrlOption,
)
from reactive_store.cli.terminal import print_json
from reactive_store.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from reactive_store.cli.deployment import Target

__all__ = [
    "commands",
    "get_variable",
    "list_variables",
    "remove_variable",
    "set_variable",
]

commands = typer.Typer(
    no_args_is_help=True,
    help="Environment variables: ctx.env in functions.",
)

NameArgument = Annotated[str, typer.Argument(help="Name of the variable.", metavar="NAME")]


@commands.command("set")
def set_variable(
    name: NameArgument,
    value: Annotated[
        str | None, typer.Argument(help="Its value; NAME=VALUE works too.", metavar="VALUE")
    ] = None,
    app: AppOption = Path(),
    data: DataOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Set a variable. Queries that read it run again."""
    from reactive_store.cli.deployment import Target

    if value is None:
        name, equals, value = name.partition("=")
        if not equals:
            raise BadRequest(f"What should {name} be? Write `env set {name} VALUE`.")
    asyncio.run(_change(Target(app, data, url, admin_key), {name: value}))


@commands.command("get")
def get_variable(
    name: NameArgument,
    app: AppOption = Path(),
    data: DataOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    in_json: JsonOption = False,
) -> None:
    """Print the value of a variable."""
    from reactive_store.cli.deployment import Target

    variables = asyncio.run(_read(Target(app, data, url, admin_key)))
    if name not in variables:
        raise NotFound(f"The environment variable {name} is not set.")
    if in_json:
        print_json(variables[name], in_one_line=True)
    else:
        print(variables[name])


@commands.command("list")
def list_variables(
    app: AppOption = Path(),
    data: DataOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    in_json: JsonOption = False,
) -> None:
    """Print every variable as NAME=VALUE, or as one JSON object."""
    from reactive_store.cli.deployment import Target

    variables = asyncio.run(_read(Target(app, data, url, admin_key)))
    if in_json:
        print_json(variables, in_one_line=True)
    else:
        for name, value in variables.items():
            print(f"{name}={value}")


@commands.command("remove")
def remove_variable(
    name: NameArgument,
    app: AppOption = Path(),
    data: DataOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Remove a variable; one that is not there is fine."""
    from reactive_store.cli.deployment import Target

    asyncio.run(_change(Target(app, data, url, admin_key), {name: None}))


async def _read(target: Target) -> dict[str, str]:
    from reactive_store.cli.deployment import open_deployment

    async with open_deployment(target) as deployment:
        answer = await deployment.call("_system/cli/queryEnvironmentVariables.js:default", b"{}")
    if answer.error is not None:
        raise BadRequest(answer.error)
    return {variable["name"]: variable["value"] for variable in answer.value}


async def _change(target: Target, changes: dict[str, str | None]) -> None:
    from reactive_store.cli.deployment import open_deployment

    async with open_deployment(target) as deployment:
        await deployment.change_environment(changes)
