"""What one deployment was told: where its app and data are, where it listens, how careful it is.

`Settings` is one frozen value, made once at start and passed in. Nothing reads the environment
later, so a setting cannot change under a running server.

Source: docs/reference/settings.md
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits

__all__ = ["ENVIRONMENT_PREFIX", "Settings", "load_settings"]

ENVIRONMENT_PREFIX = "REACTIVE_STORE_"
_LIMITS_PREFIX = f"{ENVIRONMENT_PREFIX}LIMITS_"

_PATHS = ("app", "data")
_INVALID = "InvalidSetting"


class Settings(BaseModel):
    """Everything a deployment is configured with.

    Relative paths are taken from the current directory, except in pyproject.toml, where they start
    at the app. `Settings(app=…)` alone is complete: every other field has a default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    app: Path = Path()
    """Directory that holds the schema file and the functions directory."""

    data: Path = Path(".reactive_store")
    """Directory of the embedded database and files. Default: `.reactive_store` in the app."""

    store: str | None = None
    """Database URL (`sqlite:///…`). Default: a file in `data`."""

    files: str | None = None
    """Where files are kept (`file:///…`, `s3://…`). Default: the directory `files` in `data`."""

    functions: str = "functions"
    """Directory of the function modules, relative to the app."""

    schema_file: str = Field(default="schema.py", alias="schema")
    """File that defines `schema`, relative to the app. The setting's name is `schema`."""

    host: str = "127.0.0.1"
    """Address to listen on. `0.0.0.0` is every interface."""

    port: int = Field(default=3210, ge=0, le=65535)
    """Port of sync and HTTP API; 0 takes a free one."""

    site_port: int = Field(default=3211, ge=0, le=65535)
    """Port of the app's own HTTP routes. Default: `port` + 1, or a free one when `port` is 0."""

    origin: str | None = None
    """Public address of the API port, when a proxy stands in front. Default: as requested."""

    site_origin: str | None = None
    """Public address of the site port. Default: derived from the request and `site_port`."""

    redact: bool = True
    """Hide error texts and log lines of functions from clients (data of a ConvexError stays)."""

    durability: Literal["full", "normal"] = "full"
    """`full`: acknowledged survives power loss. `normal`: it survives a crash of the process."""

    memory: ByteSize = ByteSize(256 * 1024 * 1024)
    """What recently read documents may take in memory, in bytes or as `512MiB`. 0 keeps none."""

    compression: bool = False
    """Offer permessage-deflate on sockets. Costs far more than it saves on a fast network."""

    limits: Limits = Limits()
    """Every number that bounds something."""

    @field_validator("limits")
    @classmethod
    def _refuse_negative_limits(cls, limits: Limits) -> Limits:
        for field in dataclasses.fields(limits):
            if getattr(limits, field.name) < 0:
                raise ValueError(f"{field.name} is below 0")
        return limits

    @model_validator(mode="before")
    @classmethod
    def _fill_dependent_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        if "data" not in filled and isinstance(filled.get("app"), str | Path):
            filled["data"] = Path(filled["app"]) / ".reactive_store"
        port = filled.get("port")
        if "site_port" not in filled and isinstance(port, int | str) and str(port).isdecimal():
            # Past the last port there is none; the range check of `port` reports the rest.
            filled["site_port"] = int(port) + 1 if 0 < int(port) < 65535 else 0
        return filled


def load_settings(app: Path, **explicit: Any) -> Settings:
    """The settings of the app in a directory: explicit > environment > pyproject.toml > default.

    Shapes   explicit is by field name; None means "not given"
    Raises   BadRequest[InvalidSetting] naming the setting, where it was set, and what is wrong
    """
    app = app.absolute()
    sources: dict[str, str] = {}
    merged: dict[str, Any] = {"app": app}
    for name, value in _from_pyproject(app).items():
        merged[name] = app / value if name in _PATHS and isinstance(value, str) else value
        sources[name] = f"[tool.reactive_store] in {app / 'pyproject.toml'}"
    for name, value in _from_environment().items():
        merged[name] = value
        sources[name] = ENVIRONMENT_PREFIX + name.upper()
    if limits := _limits_from_environment():
        # One by one: what pyproject.toml says of the others still holds.
        others = merged.get("limits", {})
        merged["limits"] = {**(others if isinstance(others, Mapping) else {}), **limits}
        sources["limits"] = f"{sources.get('limits', 'the environment')} and {_LIMITS_PREFIX}…"
    for name, value in explicit.items():
        if value is not None:
            merged["schema" if name == "schema_file" else name] = value
            sources[name] = "the command line"
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise BadRequest(_explain(error, sources), code=_INVALID) from error
    return settings.model_copy(update={"data": settings.data.absolute()})


def _setting_names() -> list[str]:
    # `app` says where the other sources are, so it cannot come from one of them.
    fields = Settings.model_fields
    return [field.alias or name for name, field in fields.items() if name != "app"]


def _from_environment() -> dict[str, str]:
    return {
        name: os.environ[ENVIRONMENT_PREFIX + name.upper()]
        for name in _setting_names()
        if name != "limits" and os.environ.get(ENVIRONMENT_PREFIX + name.upper())
    }


def _limits_from_environment() -> dict[str, str]:
    known = {field.name for field in dataclasses.fields(Limits)}
    found: dict[str, str] = {}
    for variable, value in os.environ.items():
        if not variable.startswith(_LIMITS_PREFIX) or not value:
            continue
        name = variable.removeprefix(_LIMITS_PREFIX).lower()
        if name not in known:
            raise BadRequest(
                f"{variable} sets no limit: there is none called {name!r}; they are listed in "
                "docs/reference/limits.md",
                code=_INVALID,
            )
        found[name] = value
    return found


def _from_pyproject(app: Path) -> dict[str, Any]:
    path = app / "pyproject.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"{path} cannot be read: {error}", code=_INVALID) from error
    tool = document.get("tool", {})
    table = tool.get("reactive_store", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise BadRequest(f"[tool.reactive_store] in {path} has to be a table", code=_INVALID)
    known = _setting_names()
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise BadRequest(
                f"{path}: [tool.reactive_store] has no setting {key!r}; known are "
                + ", ".join(sorted(known)),
                code=_INVALID,
            )
        found[name] = value
    return found


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    problems = []
    for detail in error.errors(include_url=False):
        where = [str(part) for part in detail["loc"]] or ["settings"]
        source = sources.get(where[0], "the settings given")
        problems.append(f"setting {'.'.join(where)!r} from {source}: {detail['msg']}")
    return "; ".join(problems)
