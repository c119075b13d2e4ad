"""The caller's own account."""

from __future__ import annotations

from functions._access import ensure_user, find_user
from functions._ids import UserId
from reactive_store import Document, MutationCtx, QueryCtx, mutation, query

__all__ = ["current", "ensure"]


@query
async def current(ctx: QueryCtx) -> Document | None:
    """The caller's row; None before their first mutation."""
    return await find_user(ctx)


@mutation
async def ensure(ctx: MutationCtx) -> UserId:
    """Make the caller's row if it is not there yet; pages call this after a login."""
    user_id: UserId = (await ensure_user(ctx))["_id"]
    return user_id
