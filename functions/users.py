"""The caller's own account."""

from __future__ import annotations

from functions._access import ensure_user, find_user
from reactive_store import Document, Id, MutationCtx, QueryCtx, mutation, query

__all__ = ["current", "ensure"]


@query
async def current(ctx: QueryCtx) -> Document | None:
    """The caller's row; None before their first mutation."""
    return await find_user(ctx)


@mutation
async def ensure(ctx: MutationCtx) -> Id["users"]:
    """Make the caller's row if it is not there yet; pages call this after a login."""
    return (await ensure_user(ctx))["_id"]
