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

from reactive_store.auth.identity import Identity
from reactive_store.auth.providers import JwtProvider, OidcProvider
from reactive_store.errors import ConvexError
from reactive_store.functions.context import ActionCtx, MutationCtx, QueryCtx
from reactive_store.functions.crons import Crons
from reactive_store.functions.definitions import (
    action,
    http_action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from reactive_store.functions.pagination import Page, PaginationOpts
from reactive_store.functions.references import api, internal
from reactive_store.functions.router import HttpRouter
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.values.document import Document
from reactive_store.values.value import UNSET, Id, IdOf, Int64

__all__ = [
    # the schema
    "define_schema",
    "define_table",
    "v",
    # functions
    "query",
    "mutation",
    "action",
    "internal_query",
    "internal_mutation",
    "http_action",
    "internal_action",
    # what special modules define
    "Crons",
    "HttpRouter",
    "OidcProvider",
    "JwtProvider",
    # what handlers are given
    "QueryCtx",
    "MutationCtx",
    "ActionCtx",
    "Identity",
    # references
    "api",
    "internal",
    # values
    "Document",
    "Id",
    "IdOf",
    "Int64",
    "UNSET",
    # pages
    "Page",
    "PaginationOpts",
    # errors
    "ConvexError",
]
