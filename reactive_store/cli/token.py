"""`reactive-store token`: log in as anybody while working on an app."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from reactive_store.cli.options import AppOption, DataOption, StoreOption
from reactive_store.errors import BadRequest

__all__ = ["parse_lifetime", "token_command"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LIFETIME: Final = re.compile(r"(\d{1,6})([smhdw])")
_LONGEST: Final = timedelta(days=3650)


def token_command(
    subject: Annotated[str, typer.Option("--subject", help="Who it is: any text.", metavar="ID")],
    name: Annotated[str | None, typer.Option("--name", help="What the user is called.")] = None,
    email: Annotated[str | None, typer.Option("--email", help="The user's address.")] = None,
    claims: Annotated[
        list[str] | None,
        typer.Option(
            "--claim",
            metavar="NAME=VALUE",
            help="Any other attribute or custom claim, in JSON or as plain text; may be repeated.",
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", help="How long it is good for: 30s, 15m, 12h, 30d.")
    ] = "12h",
    app: AppOption = Path(),
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Print a user's token that `dev` accepts, and nothing else.

    A client passes it to setAuth. It belongs to the data folder, running or not; `serve` refuses
    it unless the app's auth_config.py lists its issuer.
    """
    from reactive_store.auth.development import DevelopmentIssuer
    from reactive_store.cli.admin_key import read_instance
    from reactive_store.config import load_settings
    from reactive_store.runtime import SystemRuntime

    attributes: dict[str, Any] = dict(map(_parse_claim, claims or ()))
    attributes |= {"subject": subject}
    attributes |= {} if name is None else {"name": name}
    attributes |= {} if email is None else {"email": email}
    lifetime = parse_lifetime(expires)
    secret, _ = read_instance(load_settings(app, data=data, store=store))
    issuer = DevelopmentIssuer(secret)
    print(issuer.issue(attributes, SystemRuntime().now_ns(), int(lifetime.total_seconds())))


def parse_lifetime(text: str) -> timedelta:
    """A duration such as `15m`.

    Raises   BadRequest
    """
    found = _LIFETIME.fullmatch(text.strip().lower())
    lifetime = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta(0)
    if not timedelta(0) < lifetime <= _LONGEST:
        raise BadRequest(
            f"--expires {text} is no duration: give a number and s, m, h, d or w, as in 12h "
            f"(at most {_LONGEST.days}d)."
        )
    return lifetime


def _parse_claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadRequest(f"--claim {text} has to be NAME=VALUE, as in --claim plan=pro.")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value
