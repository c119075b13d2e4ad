"""reactive_store: tables, functions and live queries for Convex clients, written in Python.

The vocabulary of an app's author. A schema module says what is stored:

    from reactive_store import define_schema, define_table, v

    schema = define_schema({"notes": define_table({"text": v.string()})})

and modules of `functions/` say what clients may do with it:

    from reactive_store import QueryCtx, query

    @query
    async def list_all(ctx: QueryCtx, limit: int = 100):
        return await ctx.db.query("notes").order("desc").take(limit)

Source of facts: docs/reference/api.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reactive_store.auth.identity import Identity
from reactive_store.auth.providers import JwtProvider, OidcProvider
from reactive_store.errors import ConvexError
from reactive_store.functions.context import ActionCtx, MutationCtx, QueryCtx
from reactive_store.functions.crons import Crons
from reactive_store.functions.db import DatabaseReader, DatabaseWriter
from reactive_store.functions.definitions import (
    FunctionDecorator,
    action,
    http_action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from reactive_store.functions.metadata import CallOptions
from reactive_store.functions.pagination import Page, PaginationOpts
from reactive_store.functions.query_builder import Query
from reactive_store.functions.references import (
    api,
    components,
    create_function_handle,
    internal,
)
from reactive_store.functions.router import HttpRouter
from reactive_store.schema.tables import Schema, TableDefinition, define_schema, define_table
from reactive_store.schema.validators import Validator, v
from reactive_store.values.document import Document
from reactive_store.values.value import UNSET, Id, IdOf, Int64

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse

__all__ = [
    # the schema
    "define_schema",
    "define_table",
    "v",
    "Schema",
    "TableDefinition",
    "Validator",
    # functions
    "query",
    "mutation",
    "action",
    "internal_query",
    "internal_mutation",
    "http_action",
    "internal_action",
    "FunctionDecorator",
    # what special modules define
    "Crons",
    "HttpRouter",
    "OidcProvider",
    "JwtProvider",
    # what handlers are given
    "QueryCtx",
    "MutationCtx",
    "ActionCtx",
    "DatabaseReader",
    "DatabaseWriter",
    "Query",
    "Identity",
    # references
    "api",
    "internal",
    "components",
    "create_function_handle",
    "CallOptions",
    # values
    "Document",
    "Id",
    "IdOf",
    "Int64",
    "UNSET",
    # HTTP actions
    "Request",
    "Response",
    "JSONResponse",
    "StreamingResponse",
    # pages
    "Page",
    "PaginationOpts",
    # errors
    "ConvexError",
]

# Imported when asked for: that takes 30 ms, and only programs with HTTP actions need them.
_STARLETTE = {
    "Request": "starlette.requests",
    "Response": "starlette.responses",
    "JSONResponse": "starlette.responses",
    "StreamingResponse": "starlette.responses",
}


def __getattr__(name: str) -> Any:
    module = _STARLETTE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value
