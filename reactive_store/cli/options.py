"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "AdminKeyOption",
    "AppOption",
    "DataOption",
    "FilesOption",
    "HostOption",
    "JsonOption",
    "PortOption",
    "SitePortOption",
    "StoreOption",
    "UrlOption",
]

AppOption: TypeAlias = Annotated[
    Path, typer.Option("--app", help="Folder of the app.", metavar="DIR")
]
DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder of the data; by default .reactive_store in the app.", metavar="DIR"
    ),
]
StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store", help="Database, sqlite:///…; by default a file in --data.", metavar="URL"
    ),
]
FilesOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--files",
        help="Where files are kept, file:///… or s3://…; by default in --data.",
        metavar="URL",
    ),
]
HostOption: TypeAlias = Annotated[
    str | None, typer.Option("--host", help="Address to listen on; by default 127.0.0.1.")
]
PortOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--port", help="Port of the API; by default 3210. 0 takes a free one."),
]
SitePortOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--site-port", help="Port of the app's own HTTP routes; by default the next after --port."
    ),
]
UrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", help="A deployment elsewhere, instead of --app; needs --admin-key."),
]
AdminKeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--admin-key", help="Its admin key, as `keys admin` prints it there.", metavar="KEY"
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
