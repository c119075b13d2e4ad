"""`reactive-store run`: call a function from the terminal."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reactive_store.cli.options import (
    AdminKeyOption,
    AppOption,
    DataOption,
    JsonOption,
    UrlOption,
)
from reactive_store.cli.terminal import print_json, print_logs, print_note, show_error
from reactive_store.errors import BadRequest

if TYPE_CHECKING:
    from reactive_store.cli.deployment import Answer, Deployment, Target

__all__ = ["parse_identity", "run_command"]

# The issuer of identities made up for tests and terminals, as Convex's own tools have it.
_ISSUER = "https://convex.test"


def run_command(
    path: Annotated[str, typer.Argument(help="The function: messages:send", metavar="PATH")],
    args: Annotated[
        str,
        typer.Argument(help="Its arguments, one JSON object: '{\"limit\": 5}'", metavar="[JSON]"),
    ] = "{}",
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep a query live: print each new value.")
    ] = False,
    as_user: Annotated[
        str | None,
        typer.Option("--as", help='Call it as a user: \'{"subject": "u1"}\'', metavar="JSON"),
    ] = None,
    app: AppOption = Path(),
    data: DataOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    in_json: JsonOption = False,
) -> None:
    """Run a function, public or internal.

    The deployment may be running or stopped. Prints the value; what the function prints goes to
    standard error. Values may be written in Convex's encoding: {"$integer": "AQAAAAAAAAA="}.
    """
    from reactive_store.cli.deployment import Target

    encoded = json.dumps(_parse_object(args, "the arguments")).encode()
    acting_as = None if as_user is None else parse_identity(as_user)
    target = Target(app, data, url, admin_key)
    call = _Call(_canonical(path), encoded, acting_as, in_json)
    try:
        asyncio.run(call.watch(target) if watch else call.run(target))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def parse_identity(text: str) -> dict[str, Any]:
    """The user to act as. Issuer and subject have defaults.

    Raises   BadRequest
    """
    identity = _parse_object(text, "--as")
    if "tokenIdentifier" not in identity:
        identity = {"issuer": _ISSUER, "subject": "user", **identity}
    return identity


def _parse_object(text: str, name: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{name} cannot be read as JSON: {error}. Given: {text}") from error
    if not isinstance(parsed, dict):
        raise BadRequest(f"{name} must be one JSON object, such as {{}}. Given: {text}")
    return parsed


def _canonical(text: str) -> str:
    from reactive_store.functions.names import parse_path

    root, dot, rest = text.partition(".")
    if dot and root in ("api", "internal") and ":" not in text:
        module, _, function = rest.rpartition(".")
        text = f"{module.replace('.', '/')}:{function}"
    return parse_path(text)


class _Call:
    """One call, and how what comes of it is printed."""

    def __init__(
        self, path: str, args: bytes, acting_as: dict[str, Any] | None, in_json: bool
    ) -> None:
        from reactive_store.functions.names import display_path

        self._path = path
        self._shown_path = display_path(path)
        self._args = args
        self._acting_as = acting_as
        self._in_json = in_json

    async def run(self, target: Target) -> None:
        """Call once."""
        from reactive_store.cli.deployment import open_deployment

        async with open_deployment(target) as deployment:
            answer = await deployment.call(self._path, self._args, self._acting_as)
            await self._print(answer, deployment)

    async def watch(self, target: Target) -> None:
        """Print every value, until one is an error or somebody interrupts."""
        from reactive_store.cli.deployment import open_deployment

        async with open_deployment(target) as deployment:
            async for answer in deployment.watch(self._path, self._args, self._acting_as):
                await self._print(answer, deployment)

    async def _print(self, answer: Answer, deployment: Deployment) -> None:
        print_logs(self._shown_path, answer.log_lines)
        if answer.error is None:
            print_json(answer.value, in_one_line=self._in_json)
            return
        show_error(answer.error)
        if answer.error_data is not None:
            print_note(f"data: {json.dumps(answer.error_data, ensure_ascii=False)}")
        if answer.is_hidden:
            print_note(
                "The deployment keeps error texts to itself: look into its log, or serve it with "
                "--no-redact."
            )
        if re.search(r"Could(?: not|n't) find", answer.error):
            await _list_functions(deployment)
        raise typer.Exit(1)


async def _list_functions(deployment: Deployment) -> None:
    from reactive_store.functions.names import display_path

    answer = await deployment.call("_system/cli/modules.js:apiSpec", b"{}")
    if answer.error is None:
        paths = [display_path(each["identifier"]) for each in answer.value if "identifier" in each]
        print_note("Functions of this app: " + (", ".join(paths) or "none"))
