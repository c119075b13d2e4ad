"""`_system/…`: queries for administrators' tools, written like functions of an app.

They run like any other query: at one snapshot, within the limits, live when subscribed to. Only the
runner decides who may call them (administrators).

Source of facts: what Convex's command line 1.48 asks a deployment, and the answers it understands.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from reactive_store.engine.catalog import TABLES
from reactive_store.errors import BadRequest
from reactive_store.functions.app import App
from reactive_store.functions.context import QueryCtx
from reactive_store.functions.definitions import FunctionDef, FunctionKind
from reactive_store.functions.environment import read_environment
from reactive_store.functions.names import parse_path
from reactive_store.functions.query_builder import Query
from reactive_store.schema.validators import Validator, v

__all__ = ["system_functions"]

_SHOWN_SYSTEM_TABLES: Final = frozenset(("_storage", "_scheduled_functions"))

_Handler = Callable[..., Coroutine[Any, Any, Any]]


def system_functions(
    app: Callable[[], App], url: Callable[[], str | None]
) -> Mapping[str, FunctionDef]:
    """Every system function by canonical path.

    `app` gives the app in force, `url` the address of the API once it is known.
    """

    async def api_spec(_ctx: QueryCtx) -> list[dict[str, Any]]:
        return app().spec()

    async def cloud_url(_ctx: QueryCtx) -> str | None:
        return url()

    page = {"paginationOpts": v.any()}
    catalogue: dict[str, tuple[_Handler, Mapping[str, Validator]]] = {
        "_system/cli/tables": (_tables, page),
        "_system/cli/tableData": (
            _table_data,
            {"table": v.string(), "order": v.optional(v.literals("asc", "desc")), **page},
        ),
        "_system/cli/queryEnvironmentVariables": (_environment_variables, {}),
        "_system/cli/queryEnvironmentVariables:get": (
            _environment_variable,
            {"name": v.string()},
        ),
        "_system/cli/modules:apiSpec": (api_spec, {}),
        "_system/cli/convexUrl:cloudUrl": (cloud_url, {}),
    }
    return {
        path: _system_query(path, handler, args)
        for path, (handler, args) in (
            (parse_path(text), entry) for text, entry in catalogue.items()
        )
    }


def _system_query(path: str, handler: _Handler, args: Mapping[str, Validator]) -> FunctionDef:
    async def without_component(
        ctx: QueryCtx, component_id: str | None = None, **others: Any
    ) -> Any:
        # Tools may name a component; there is only the app itself.
        if component_id is not None:
            raise BadRequest(f"There is no component {component_id!r}.", code="ComponentNotFound")
        return await handler(ctx, **others)

    with_component = {**args, "componentId": v.optional(v.nullable(v.string()))}
    return FunctionDef(
        FunctionKind.QUERY, "internal", without_component, args=v.object(with_component)
    ).at(path)


def _documents(ctx: QueryCtx, table: str) -> Query:
    """A query of any table; `ctx.db` itself shows the app's tables only."""
    return Query(ctx.db._scope, table)


async def _tables(ctx: QueryCtx, paginationOpts: object) -> dict[str, Any]:  # noqa: N803
    # One page always holds them all; a cursor is never given out.
    names = [document["name"] for document in await _documents(ctx, TABLES).collect()]
    return {
        "page": [{"name": name} for name in sorted(names) if not name.startswith("_")],
        "isDone": True,
        "continueCursor": "end",
    }


async def _table_data(
    ctx: QueryCtx,
    table: str,
    paginationOpts: Mapping[str, Any],  # noqa: N803
    order: Any = "asc",
) -> Any:
    if table.startswith("_") and table not in _SHOWN_SYSTEM_TABLES:
        raise BadRequest(f'There is no table "{table}" to be shown.', code="SystemTableError")
    return await _documents(ctx, table).order(order).paginate(paginationOpts)


async def _environment_variables(ctx: QueryCtx) -> list[dict[str, str]]:
    variables = read_environment(ctx.db._scope.tx)
    return [{"name": name, "value": value} for name, value in variables.items()]


async def _environment_variable(ctx: QueryCtx, name: str) -> dict[str, str] | None:
    value = ctx.env.get(name)
    return None if value is None else {"name": name, "value": value}
