"""`reactive-store data`: look at tables and documents."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from enum import Enum
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
from reactive_store.cli.terminal import print_json, print_note, print_table, readable
from reactive_store.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from reactive_store.cli.deployment import Deployment, Target

__all__ = ["Order", "data_command"]

_TABLES = "_system/cli/tables.js:default"
_DOCUMENTS = "_system/cli/tableData.js:default"
_PAGE = 1000
_CELL_CHARS = 60


class Order(Enum):
    """By time of creation."""

    ASC = "asc"
    DESC = "desc"


def data_command(
    table: Annotated[
        str | None, typer.Argument(help="A table; without it, the tables.", metavar="[TABLE]")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many documents.")] = 100,
    order: Annotated[
        Order, typer.Option("--order", help="Newest first (desc) or oldest first (asc).")
    ] = Order.DESC,
    app: AppOption = Path(),
    data: DataOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    in_json: JsonOption = False,
) -> None:
    """Show the tables, or the documents of one.

    The deployment may be running or stopped. With --json: one array, of objects with a table's
    name, or of documents in Convex's encoding.
    """
    from reactive_store.cli.deployment import Target

    rows = asyncio.run(_read(Target(app, data, url, admin_key), table, limit, order))
    if in_json:
        print_json(rows, in_one_line=True)
    elif table is None:
        for row in rows:
            print(row["name"])
        if not rows:
            print_note("There are no tables in this deployment.")
    elif rows:
        _print_documents(rows)
    else:
        print_note("There are no documents in this table.")


async def _read(
    target: Target, table: str | None, limit: int, order: Order
) -> list[dict[str, Any]]:
    from reactive_store.cli.deployment import open_deployment

    async with open_deployment(target) as deployment:
        tables = await _page(deployment, _TABLES, {"paginationOpts": _options(None, _PAGE)})
        if table is None:
            return list(tables["page"])
        names = [row["name"] for row in tables["page"]]
        if not table.startswith("_") and table not in names:
            raise NotFound(
                f"There is no table {table!r}. Tables: {', '.join(names) or 'none'}.",
                code="TableNotFound",
            )
        return await _documents(deployment, table, limit, order)


async def _documents(
    deployment: Deployment, table: str, limit: int, order: Order
) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(documents) < limit:
        options = _options(cursor, min(_PAGE, limit - len(documents)))
        args = {"table": table, "order": order.value, "paginationOpts": options}
        page = await _page(deployment, _DOCUMENTS, args)
        documents += page["page"]
        if page["isDone"]:
            break
        cursor = page["continueCursor"]
    return documents


def _options(cursor: str | None, count: int) -> dict[str, Any]:
    return {"cursor": cursor, "numItems": count}


async def _page(deployment: Deployment, path: str, args: dict[str, Any]) -> dict[str, Any]:
    answer = await deployment.call(path, json.dumps(args).encode())
    if answer.error is not None:
        raise BadRequest(answer.error)
    page: dict[str, Any] = answer.value
    return page


def _print_documents(documents: list[dict[str, Any]]) -> None:
    own = {name for document in documents for name in document} - {"_id", "_creationTime"}
    columns = ["_id", "_creationTime", *sorted(own)]
    print_table(columns, ([row.get(name, ...) for name in columns] for row in documents), _cell)


def _cell(column: str, value: Any) -> str:
    if value is ...:
        return ""
    if column == "_creationTime":
        return f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    text = value if isinstance(value, str) else json.dumps(readable(value), ensure_ascii=False)
    text = text.replace("\n", "⏎")
    return text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 1] + "…"
